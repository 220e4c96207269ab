//! `trainer publish`.

use std::path::Path;

use anyhow::{Result, bail};
use time::OffsetDateTime;

use super::chat::adapter_name;
use super::{Common, UsageError};
use crate::cli::PublishArguments;
use crate::progress::Mode;
use crate::report::numbers;
use crate::session::locate_adapter;
use crate::site::check::check;
use crate::site::publish::{Publication, publish};

/// Publishes an adapter, or checks a site.
pub(super) fn run(common: &Common, arguments: PublishArguments) -> Result<()> {
    if arguments.check {
        return check_site(common, &arguments.site);
    }
    let Some(adapter) = &arguments.adapter else {
        return Err(UsageError::new("trainer publish needs an adapter, or --check").into());
    };
    let adapter = locate_adapter(adapter)?;
    let run = arguments.run.clone().or_else(|| {
        let parent = std::path::absolute(&adapter).ok()?.parent()?.to_path_buf();
        parent.join("config.toml").is_file().then_some(parent)
    });
    let name = arguments
        .name
        .clone()
        .unwrap_or_else(|| adapter_name(&std::path::absolute(&adapter).unwrap_or_default()));
    let publication = Publication {
        task: arguments.task.clone().unwrap_or_else(|| name.clone()),
        adapter,
        run,
        name,
        slug: arguments.slug,
        description: arguments.description,
        licence: arguments.licence,
        created: arguments
            .created
            .unwrap_or_else(|| OffsetDateTime::now_utc().date().to_string()),
        base_name: arguments.base_name,
        samples: arguments.samples,
    };
    let published = publish(&arguments.site, &publication)?;
    for warning in &published.warnings {
        eprintln!("warning: {warning}");
    }
    let entry = &published.entry;
    if common.json {
        println!("{}", serde_json::to_string_pretty(entry)?);
        return Ok(());
    }
    let size: u64 = entry.files.iter().map(|f| f.size).sum();
    println!(
        "{} {} in {} ({} files, {})",
        if published.replaced {
            "replaced"
        } else {
            "published"
        },
        entry.slug,
        published.folder.display(),
        entry.files.len(),
        numbers::bytes(size)
    );
    println!(
        "check it: trainer publish --check --site {0}    look at it: trainer serve {0}",
        arguments.site.display()
    );
    Ok(())
}

fn check_site(common: &Common, site: &Path) -> Result<()> {
    let checked = check(site, Mode::detect(false))?;
    if common.json {
        println!("{}", serde_json::to_string_pretty(&checked)?);
    } else if checked.problems.is_empty() {
        println!(
            "{}: {} adapters, {} files, {}: all as published",
            site.display(),
            checked.adapters,
            numbers::count(checked.files as u64),
            numbers::bytes(checked.bytes)
        );
    }
    match checked.problems.as_slice() {
        [] => Ok(()),
        [only] => bail!("{}: {only}", site.display()),
        many => bail!(
            "{}: {} things are wrong:\n  {}",
            site.display(),
            many.len(),
            many.join("\n  ")
        ),
    }
}
