//! `trainer devices`.

use anyhow::Result;

use super::Common;
use crate::device;

/// Lists what `--device` can name, and what `auto` would choose.
pub(super) fn run(common: &Common) -> Result<()> {
    let rows = device::list();
    let chosen = device::choose("auto")?.name;
    if common.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "auto": chosen, "devices": rows }))?
        );
        return Ok(());
    }
    for row in &rows {
        let note = match (row.name == chosen, row.hardware) {
            (true, _) => "  <- auto",
            (_, false) => "  (software; only when named)",
            _ => "",
        };
        println!("{:<10} {}{note}", row.name, row.description);
    }
    Ok(())
}
