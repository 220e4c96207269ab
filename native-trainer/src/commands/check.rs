//! `trainer check`: what would make the run fail, before it runs.

use anyhow::{Result, bail};
use qloom_core::data::DataError;
use qloom_core::preflight::{Finding, Probe, Severity, from_data_error};
use serde_json::json;

use super::Common;
use crate::cli::CheckArguments;
use crate::config::{self, RunConfig};
use crate::report::table;
use crate::session::preflight::Examined;

/// Prints the findings, the gravest first.
pub(super) fn run(common: &Common, arguments: CheckArguments) -> Result<()> {
    let config = config::load(&arguments.config, &arguments.set)?;
    let (found, probe) = check(common, &config, !arguments.no_probe)?;
    let count = |severity| found.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if common.json {
        let json =
            json!({ "findings": found, "errors": errors, "warnings": warnings, "probe": probe });
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print(&found, probe.as_ref());
    }
    if errors > 0 {
        bail!(
            "{errors} of the findings would make this run worthless; see above for what to change"
        );
    }
    if arguments.strict && warnings > 0 {
        bail!("{warnings} warnings, and --strict was given");
    }
    Ok(())
}

/// All findings, and the probe's measurements where it ran.
fn check(
    common: &Common,
    config: &RunConfig,
    probing: bool,
) -> Result<(Vec<Finding>, Option<Probe>)> {
    let run = match Examined::open(config) {
        Ok(run) => run,
        Err(error) => {
            let known = error
                .chain()
                .find_map(|cause| cause.downcast_ref::<DataError>());
            return match known.and_then(from_data_error) {
                Some(finding) => Ok((vec![finding], None)),
                None => Err(error),
            };
        }
    };
    let mut found = run.findings(config)?;
    if !probing {
        return Ok((found, None));
    }
    eprintln!(
        "learning rate: a few steps at {} and above",
        config.train.lr
    );
    let (probe, finding) = run.probe(config, &common.device)?;
    found.extend(finding);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok((found, Some(probe)))
}

fn print(found: &[Finding], probe: Option<&Probe>) {
    let look = table::Look::stdout();
    let header = ["", "cause", "what", "where", "what to do"].map(str::to_owned);
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|f| {
            vec![
                f.severity.to_string(),
                f.id.id().to_owned(),
                f.what.clone(),
                f.place.clone(),
                f.fix.clone(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        println!("{}", table::grid(&header, &rows, look));
    }
    if let Some(probe) = probe {
        let header = [
            "learning rate",
            "loss before",
            "loss after",
            "gradient norm",
            "",
        ]
        .map(str::to_owned);
        let rows: Vec<Vec<String>> = probe
            .points
            .iter()
            .map(|point| {
                vec![
                    format!("{:.1e}", point.lr),
                    format!("{:.3}", point.loss_before),
                    format!("{:.3}", point.loss),
                    format!("{:.2}", point.grad_norm),
                    if point.diverged { "grows" } else { "" }.to_owned(),
                ]
            })
            .collect();
        println!("{}", table::grid(&header, &rows, look));
    }
    if found.iter().all(|f| f.severity == Severity::Info) {
        println!("nothing found that would keep this run from learning");
    }
}
