//! `trainer`: parse, run, report, exit.

mod base;
mod cli;
mod commands;
mod config;
mod corpus;
mod device;
mod files;
mod hub;
mod judge;
mod memory;
mod progress;
mod recipes;
mod report;
mod runs;
mod scoring;
mod server;
mod session;
mod site;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    commands::guard(move || commands::run(arguments))
}
