//! `trainer demo`: from nothing to before and after, with the embedded base and generated data.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::Common;
use crate::cli::DemoArguments;
use crate::config::{self, RunConfig};
use crate::corpus::{self, Split};
use crate::files::{atomic, explain, listing, run_dir};
use crate::report::html::Page;
use crate::report::scores::TaskScores;
use crate::report::{numbers, table};
use crate::server::{Site, built};
use crate::session::{self, RunResult};
use crate::site::publish::{Publication, publish};

/// A task of the demo: its recipe and its share of the generated data.
struct Task {
    name: &'static str,
    recipe: &'static str,
    train_rows: usize,
    eval_rows: usize,
}

const TASKS: [Task; 2] = [
    Task {
        name: "sentiment",
        recipe: include_str!("../../recipes/demo_sentiment.toml"),
        train_rows: 2_000,
        eval_rows: 300,
    },
    Task {
        name: "instructions",
        recipe: include_str!("../../recipes/demo_instructions.toml"),
        train_rows: 2_500,
        eval_rows: 200,
    },
];

const REPORT: &str = "report.html";
/// The page with the demo's adapters in its gallery, as it is served.
const SITE: &str = "site";

/// Trains both tasks, prints before and after, and leaves a page that shows it.
pub(super) fn run(common: &Common, arguments: DemoArguments) -> Result<()> {
    let began = Instant::now();
    let out = &arguments.out;
    std::fs::create_dir_all(out).map_err(|e| explain(e, "create the folder", out))?;
    let _lock = run_dir::lock(out, "--out DIR")?;
    forget(out)?;
    let mut results = Vec::new();
    for task in &TASKS {
        eprintln!("== {} ==", task.name);
        let config = prepare(task, &arguments)?;
        results.push((
            task.name,
            session::train(&config, &common.device, false, None, task.name)?,
        ));
    }
    let metrics = collect_metrics(&results)?;
    atomic::write_file(
        &out.join("metrics.json"),
        &serde_json::to_vec_pretty(&metrics)?,
    )?;
    let page = out.join(REPORT);
    page_of(&results, began.elapsed().as_secs_f64()).write(&page)?;
    if common.json {
        println!("{}", serde_json::to_string_pretty(&metrics)?);
    } else {
        print(&results);
        println!(
            "{} in all; the page: {}",
            numbers::duration(began.elapsed()),
            page.display()
        );
        println!(
            "try it: trainer chat --adapter {}  or  trainer generate --adapter {} --prompt \"...\"",
            results[1].1.artifact.display(),
            results[0].1.artifact.display()
        );
    }
    // A program that asked for JSON waits for the end of it.
    if arguments.no_serve || common.json {
        return Ok(());
    }
    // Port 0: the demo must not fail because something else has the usual port.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let folder = match built::page().and_then(|page| site(&page, out, &results)) {
        Ok(site) => site,
        Err(error) => {
            eprintln!(
                "warning: without the page to try the adapters on, only the report is served: {error:#}"
            );
            out.clone()
        }
    };
    super::serve::show(common, &Site::open(&folder)?, address)
}

/// The page with the new adapters in its gallery and the report beside it.
fn site(page: &Path, out: &Path, results: &[(&str, RunResult)]) -> Result<PathBuf> {
    let site = out.join(SITE);
    built::copy(page, &site)?;
    for (task, result) in results {
        let publication = Publication {
            adapter: result.artifact.clone(),
            run: Some(result.folder.clone()),
            name: format!("Your {task}"),
            slug: Some(format!("your-{task}")),
            task: (*task).to_owned(),
            description: Some("Trained just now on this machine by `trainer demo`.".to_owned()),
            licence: None,
            created: OffsetDateTime::now_utc().date().to_string(),
            base_name: None,
            samples: None,
        };
        for warning in publish(&site, &publication)?.warnings {
            eprintln!("warning: {task}: {warning}");
        }
    }
    let report = crate::files::read(&out.join(REPORT))?;
    atomic::write_file(&site.join(REPORT), &report)?;
    eprintln!("the page shows both adapters in its gallery; the report is at /{REPORT}");
    Ok(site)
}

/// Removes the runs an earlier demo left here. Anything else stays, and is refused where it is in the way.
fn forget(out: &Path) -> Result<()> {
    let runs = TASKS.map(|task| out.join(task.name));
    let there: Vec<&PathBuf> = runs.iter().filter(|run| occupied(run)).collect();
    if let Some(foreign) = there.iter().find(|run| !is_ours(run)) {
        bail!(
            "{} is not a run of the demo and would be in its way (it holds {}): choose another folder with --out DIR",
            foreign.display(),
            listing(foreign, 8)
        );
    }
    let _ = std::fs::remove_dir_all(out.join(SITE));
    for file in ["metrics.json", REPORT] {
        let _ = std::fs::remove_file(out.join(file));
    }
    // Locked together before anything goes, so that no other trainer loses what it is writing.
    let locks = there
        .iter()
        .map(|run| run_dir::lock(run, "--out DIR"))
        .collect::<Result<Vec<_>>>()?;
    for run in there {
        std::fs::remove_dir_all(run).map_err(|e| explain(e, "remove", run))?;
    }
    drop(locks);
    Ok(())
}

/// Whether something is there; a folder with nothing but a lock is as good as none.
fn occupied(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().any(|entry| entry.file_name() != ".lock"),
        Err(_) => path.exists(),
    }
}

/// Whether `run` is a folder whose configuration says that the demo wrote it there.
fn is_ours(run: &Path) -> bool {
    let text = std::fs::read_to_string(run.join("config.toml")).unwrap_or_default();
    let Ok(config) = config::parse(&text, "config.toml", &[]) else {
        return false;
    };
    let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    let link = std::fs::symlink_metadata(run).is_ok_and(|m| m.is_symlink());
    !link && same(Path::new(&config.output.dir), run)
}

/// Writes the task's data and returns its configuration.
fn prepare(task: &Task, arguments: &DemoArguments) -> Result<RunConfig> {
    let folder = arguments.out.join("data");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let [train, eval] = [
        (Split::Train, "train", task.train_rows),
        (Split::HeldOut, "eval", task.eval_rows),
    ]
    .map(|(split, suffix, rows)| -> Result<String> {
        let path = folder.join(format!("{}_{suffix}.jsonl", task.name));
        atomic::write_file(&path, &rows_of(task.name, split, rows)?)?;
        Ok(path.display().to_string())
    });
    let mut config = config::parse(task.recipe, task.name, &[])?;
    config.data.train = vec![train?];
    config.data.eval = vec![eval?];
    config.train.seed = arguments.seed;
    config.data.seed = arguments.seed;
    config.output.dir = arguments.out.join(task.name).display().to_string();
    Ok(config)
}

fn rows_of(task: &str, split: Split, count: usize) -> Result<Vec<u8>> {
    match task {
        "sentiment" => corpus::jsonl(&corpus::sentiment(DATA_SEED, split, count)?),
        _ => corpus::jsonl(&corpus::instructions(DATA_SEED, split, count)?),
    }
}

/// The demo's data never changes; its seed flag varies training.
const DATA_SEED: u64 = 1;

/// `{task: {base, adapted}}`.
fn collect_metrics(results: &[(&str, RunResult)]) -> Result<Value> {
    let mut all = Map::new();
    for (name, result) in results {
        let bytes = crate::files::read(&result.folder.join("metrics.json"))?;
        all.insert((*name).to_owned(), serde_json::from_slice(&bytes)?);
    }
    Ok(Value::Object(all))
}

fn scores(results: &[(&str, RunResult)]) -> Vec<TaskScores> {
    results
        .iter()
        .map(|(name, r)| TaskScores {
            task: (*name).to_owned(),
            examples: r.examples,
            metrics: r.metrics.clone(),
        })
        .collect()
}

fn print(results: &[(&str, RunResult)]) {
    let look = table::Look::stdout();
    println!("{}", table::scores(&scores(results), look));
    for (_, result) in results {
        println!("{}", table::samples(&result.samples, look));
    }
    for (name, result) in results {
        println!(
            "{name}: adapter in {}, loss curve in {}",
            result.artifact.display(),
            result.folder.join("loss.png").display()
        );
    }
}

fn page_of(results: &[(&str, RunResult)], seconds: f64) -> Page {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let mut facts = vec![
        fact("base", crate::base::EMBEDDED_NAME.to_owned()),
        fact("time", format!("{seconds:.0} s")),
    ];
    for (name, result) in results {
        let steps = result.outcome.steps;
        let speed = numbers::tokens_per_second(result.tokens_per_s);
        facts.push(fact(
            name,
            format!(
                "{steps} steps, {} trained values, {speed}",
                numbers::count(result.summary.trained_values as u64)
            ),
        ));
        let adapter = result.artifact.display().to_string();
        facts.push(fact(&format!("{name} adapter"), adapter));
    }
    Page {
        title: "Qloom demo: before and after".to_owned(),
        lead: "A tiny Llama in 4 bits, fine-tuned with QLoRA on two tasks. Scores are on held-out texts no sentence of \
               which was trained on; intervals are bootstrap intervals over examples."
            .to_owned(),
        scores: scores(results),
        curves: results.iter().map(|(name, r)| ((*name).to_owned(), r.curve.clone())).collect(),
        samples: results.iter().flat_map(|(_, r)| r.samples.clone()).collect(),
        facts,
        config: Some(TASKS.iter().map(|task| task.recipe).collect::<Vec<_>>().join("\n")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    /// A folder `sentiment` in `out` whose configuration names `dir`.
    fn run_in(out: &Path, dir: &Path) -> PathBuf {
        let run = out.join("sentiment");
        std::fs::create_dir_all(&run).unwrap();
        let mut config = RunConfig::default();
        config.output.dir = dir.display().to_string();
        let text = toml::to_string_pretty(&config).unwrap();
        std::fs::write(run.join("config.toml"), text).unwrap();
        run
    }

    #[test]
    fn only_the_demo_s_own_runs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_in(dir.path(), &dir.path().join("sentiment"));
        forget(dir.path()).unwrap();
        assert!(!run.exists());

        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("thesis.tex"), "x").unwrap();
        let text = forget(dir.path()).unwrap_err().to_string();
        assert!(
            text.contains("thesis.tex") && text.contains("--out"),
            "{text}"
        );
        assert!(run.join("thesis.tex").is_file());

        // Another run that happens to lie there names another folder.
        run_in(dir.path(), dir.path());
        assert!(forget(dir.path()).is_err());
        assert!(run.join("thesis.tex").is_file());
    }

    #[test]
    fn a_run_that_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_in(dir.path(), &dir.path().join("sentiment"));
        let _lock = run_dir::lock(&run, "--out DIR").unwrap();
        let text = forget(dir.path()).unwrap_err().to_string();
        assert!(text.contains("another trainer"), "{text}");
        assert!(run.join("config.toml").is_file());
    }

    #[test]
    fn recipes_are_valid_configurations() {
        for task in &TASKS {
            assert!(
                config::parse(task.recipe, task.name, &[]).is_ok(),
                "{}",
                task.name
            );
        }
    }
}
