//! `trainer recipe`: known experiments as one command each.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;

use super::{Common, UsageError};
use crate::cli::{RecipeAction, RecipeArguments, RecipeRunArguments};
use crate::files::read_text;
use crate::recipes::kitchen::{Kitchen, Order, follow};
use crate::recipes::{list, text};
use crate::report::table::{Look, grid};
use crate::runs::planned::Site;

/// Lists, shows or follows recipes.
pub(super) fn run(common: &Common, arguments: RecipeArguments) -> Result<()> {
    match arguments.action {
        RecipeAction::List => list_all(common),
        RecipeAction::Show { name } => {
            let (name, recipe) = text(&name)?;
            match common.json {
                true => println!("{}", json!({ "name": name, "recipe": recipe })),
                false => print!("{recipe}"),
            }
            Ok(())
        }
        RecipeAction::Run(arguments) => follow_one(common, arguments),
    }
}

fn list_all(common: &Common) -> Result<()> {
    let recipes = list()?;
    if common.json {
        let rows: Vec<_> = recipes
            .iter()
            .map(|(name, about)| json!({ "name": name, "about": about }))
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = recipes
        .into_iter()
        .map(|(name, about)| vec![name, about])
        .collect();
    println!(
        "{}",
        grid(
            &["recipe".to_owned(), "what it does".to_owned()],
            &rows,
            Look::stdout()
        )
    );
    Ok(())
}

fn follow_one(common: &Common, arguments: RecipeRunArguments) -> Result<()> {
    let (name, recipe) = text(&arguments.name)?;
    let judge = match (arguments.judge, arguments.judge_model, arguments.judge_base) {
        (Some(url), Some(model), None) => vec!["--endpoint".into(), url, "--model".into(), model],
        (None, None, Some(base)) => vec!["--base".into(), base],
        (None, None, None) => Vec::new(),
        _ => {
            let message = "give --judge URL with --judge-model NAME, or --judge-base BASE alone";
            return Err(UsageError::new(message).into());
        }
    };
    let suffix = if arguments.small { "-small" } else { "" };
    let out = arguments
        .out
        .unwrap_or_else(|| PathBuf::from(format!("runs/{name}{suffix}")));
    let site = Site {
        out,
        device: common.device.clone(),
    };
    let order = Order {
        small: arguments.small,
        base: arguments.base,
        data: arguments.data,
        set: arguments.set,
        prepare: arguments.prepare,
        judge,
        embedder: arguments.embedder,
    };
    let kitchen = follow(&name, &recipe, site, order)?;
    show(common, &kitchen)?;
    match &kitchen.broken {
        None => Ok(()),
        Some(broken) => bail!(
            "{broken}. Everything else is in {}; the same command asks the judge for the rest",
            kitchen.results().display()
        ),
    }
}

fn show(common: &Common, kitchen: &Kitchen) -> Result<()> {
    if kitchen.order.prepare {
        match common.json {
            true => println!("{}", json!({ "prepared": kitchen.file })),
            false => println!("prepared and checked: {}", kitchen.file.display()),
        }
        return Ok(());
    }
    if common.json {
        let runs = kitchen.experiments.as_ref().map(|e| e.to_json());
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "results": kitchen.results(), "runs": runs }))?
        );
        return Ok(());
    }
    println!("{}", read_text(&kitchen.results())?);
    println!("written to {}", kitchen.site.out.display());
    Ok(())
}
