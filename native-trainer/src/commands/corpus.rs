//! `trainer corpus`.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Common;
use crate::cli::CorpusArguments;
use crate::corpus;
use crate::files::atomic;

/// Writes the embedded base's data sets and tokenizer.
pub(super) fn run(common: &Common, arguments: CorpusArguments) -> Result<()> {
    let out = &arguments.out;
    ensure!(
        !out.exists(),
        "{} exists already; choose a new folder for --out",
        out.display()
    );
    let files = corpus::write(arguments.seed, &corpus::Sizes::default())?;
    atomic::replace_folder(out, |folder| {
        files
            .iter()
            .try_for_each(|(name, bytes)| atomic::write_file(&folder.join(name), bytes))
    })?;
    if common.json {
        let files: Vec<_> = files
            .iter()
            .map(|(name, bytes)| json!({ "name": name, "bytes": bytes.len() }))
            .collect();
        println!("{}", json!({ "out": out, "files": files }));
        return Ok(());
    }
    for (name, bytes) in &files {
        println!(
            "{}  {}",
            out.join(name).display(),
            crate::report::numbers::bytes(bytes.len() as u64)
        );
    }
    Ok(())
}
