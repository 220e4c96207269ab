//! What each command does, and how errors become messages and exit codes.

mod bench;
mod chat;
mod check;
mod classify;
pub(crate) mod columns;
mod completions;
mod convert;
mod corpus;
mod data;
mod demo;
mod devices;
mod eval;
mod generate;
mod inspect;
mod judge;
mod merge;
mod merge_into_base;
mod plan;
mod pretrain;
mod probe;
mod publish;
mod recipe;
mod score;
mod serve;
pub(crate) mod sweep;
mod train;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Wrong usage (a bad flag value, a bad configuration): exit code 2 instead of 1.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl UsageError {
    /// With a message that says what, where and what to do.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<()> {
    crate::runs::child::end_with_parent();
    let common = Common {
        device: cli.device,
        json: cli.json,
    };
    match cli.command {
        Command::Demo(arguments) => demo::run(&common, arguments),
        Command::Train(arguments) => train::run(&common, arguments),
        Command::Eval(arguments) => eval::run(&common, arguments),
        Command::Score(arguments) => score::run(&common, arguments),
        Command::Generate(arguments) => generate::run(&common, arguments),
        Command::Chat(arguments) => chat::run(&common, arguments),
        Command::Quantize(arguments) => convert::quantize(&common, arguments),
        Command::Dequantize(arguments) => convert::dequantize(&common, arguments),
        Command::Merge(arguments) => merge::run(&common, arguments),
        Command::MergeIntoBase(arguments) => merge_into_base::run(&common, arguments),
        Command::Data(arguments) => data::run(&common, arguments),
        Command::Check(arguments) => check::run(&common, arguments),
        Command::Sweep(arguments) => sweep::run(&common, arguments),
        Command::Recipe(arguments) => recipe::run(&common, arguments),
        Command::Columns(arguments) => columns::run(&common, arguments),
        Command::Plan(arguments) => plan::run(&common, arguments),
        Command::Inspect(arguments) => inspect::run(&common, arguments),
        Command::Probe(arguments) => probe::run(&common, arguments),
        Command::Pretrain(arguments) => pretrain::run(&common, arguments),
        Command::Corpus(arguments) => corpus::run(&common, arguments),
        Command::Judge(arguments) => judge::run(&common, arguments),
        Command::Publish(arguments) => publish::run(&common, arguments),
        Command::Serve(arguments) => serve::run(&common, &arguments),
        Command::Devices => devices::run(&common),
        Command::Bench(arguments) => bench::run(&common, arguments),
        Command::Completions { shell } => completions::run(shell),
    }
}

/// Flags every command has.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// The `--device` value.
    pub(crate) device: String,
    /// Whether results go to stdout as JSON.
    pub(crate) json: bool,
}

/// Runs `work`, prints its error chain, and turns panics into messages: none reaches a user raw.
pub(crate) fn guard(work: impl FnOnce() -> Result<()>) -> ExitCode {
    match caught(work) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
        Err(panicked) if is_closed_stdout(&panicked.message) => ExitCode::SUCCESS,
        Err(panicked) => {
            eprintln!("error: {}", explain_panic(&panicked));
            ExitCode::from(1)
        }
    }
}

/// Runs `work` where a panic only means "not available".
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    caught(work).ok()
}

/// What is known of a panic.
struct Panicked {
    message: String,
    /// File, line and column.
    place: String,
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let place = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&place);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let (Some(location), Ok(mut place)) = (info.location(), seen.lock()) {
            *place = location.to_string();
        }
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let message = text
            .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        let place = place.lock().map(|p| p.clone()).unwrap_or_default();
        Panicked { message, place }
    })
}

/// Whether that is what `println!` says where the reader of stdout went away, as `head` does.
fn is_closed_stdout(message: &str) -> bool {
    message.starts_with("failed printing to stdout") && message.contains("Broken pipe")
}

/// The error and its causes, each once.
fn chain(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

fn explain_panic(Panicked { message, place }: &Panicked) -> String {
    let lower = message.to_lowercase();
    if [
        "out of memory",
        "outofmemory",
        "cannot allocate",
        "buffer size",
    ]
    .iter()
    .any(|m| lower.contains(m))
    {
        return format!(
            "the device ran out of memory ({message}). `trainer plan CONFIG` says what fits: lower \
             train.batch_size or data.max_length, set train.recompute = \"on\", or use --device cpu"
        );
    }
    format!("internal error at {place}: {message}. Please report it with the command you ran")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_explained_with_its_place() {
        let place = format!("{}:{}", file!(), line!() + 1);
        let panicked = caught::<()>(|| panic!("no row {}", 7)).unwrap_err();
        let text = explain_panic(&panicked);
        assert!(text.contains("no row 7") && text.contains(&place), "{text}");
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        assert!(is_closed_stdout(
            "failed printing to stdout: Broken pipe (os error 32)"
        ));
        assert!(!is_closed_stdout("index out of bounds"));
    }
}
