//! What a judging leaves: a table, `judge.csv` with every pair, `judge.json` with the sums.

use std::path::Path;

use anyhow::{Context, Result};
use qloom_core::evaluation::Interval;
use qloom_core::evaluation::judge::{
    Choice, JudgePair, JudgeReport, PairVerdict, Preference, SYSTEM_PROMPT,
};
use qloom_core::weights::sha256_hex;
use serde_json::{Value, json};

use super::pairs::Columns;
use crate::files::{atomic, explain};
use crate::report::numbers;
use crate::report::table::{Look, grid};

/// Below this a judge's word is noise.
const CONSISTENT: f64 = 0.6;

/// What there is to say about a judging.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    /// The pairs.
    pub(crate) pairs: &'a [JudgePair],
    /// Their verdicts.
    pub(crate) verdicts: &'a [PairVerdict],
    /// The sums.
    pub(crate) report: &'a JudgeReport,
    /// Replies that broke off at their length limit.
    pub(crate) cut: usize,
    /// How the two answers are called.
    pub(crate) columns: &'a Columns,
    /// Model, endpoint and parameters of the judge.
    pub(crate) judge: Value,
    /// Questions asked in this run; the others were in the cache.
    pub(crate) asked: usize,
}

impl Judged<'_> {
    /// Writes `judge.csv` and `judge.json` into `folder`, and returns what the latter holds.
    pub(crate) fn write(&self, folder: &Path) -> Result<Value> {
        let csv = folder.join("judge.csv");
        atomic::write_file(&csv, &self.csv().map_err(|e| explain(e, "write", &csv))?)?;
        let value = self.json()?;
        let path = folder.join("judge.json");
        atomic::write_file(&path, &serde_json::to_vec_pretty(&value)?)?;
        Ok(value)
    }

    fn json(&self) -> Result<Value> {
        let report = serde_json::to_value(self.report).context("the report as JSON")?;
        Ok(json!({
            "judge": self.judge,
            "system_prompt_sha256": sha256_hex(SYSTEM_PROMPT.as_bytes()),
            "base": self.columns.base,
            "adapted": self.columns.adapted,
            "replies": { "asked": self.asked, "cached": 2 * self.pairs.len() - self.asked, "cut": self.cut },
            "report": report,
        }))
    }

    fn csv(&self) -> std::io::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record([
            "pair",
            "prompt",
            "reference",
            &self.columns.base,
            &self.columns.adapted,
            "choice_base_first",
            "choice_adapted_first",
            "consistent",
            "outcome",
        ])?;
        for (index, (pair, verdict)) in self.pairs.iter().zip(self.verdicts).enumerate() {
            let consistent = verdict.agreed().is_some();
            writer.write_record([
                (index + 1).to_string().as_str(),
                &pair.prompt,
                pair.reference.as_deref().unwrap_or_default(),
                &pair.base,
                &pair.adapted,
                choice(verdict.base_first),
                choice(verdict.adapted_first),
                if consistent { "true" } else { "false" },
                self.outcome(verdict.outcome()),
            ])?;
        }
        writer
            .into_inner()
            .map_err(|e| std::io::Error::other(e.to_string()))
    }

    fn outcome(&self, preference: Preference) -> &str {
        match preference {
            Preference::Base => &self.columns.base,
            Preference::Adapted => &self.columns.adapted,
            Preference::Tie => "tie",
        }
    }

    /// The table for the terminal.
    pub(crate) fn table(&self, look: Look) -> String {
        let r = self.report;
        let adapted = &self.columns.adapted;
        let header = ["measure", "value"].map(str::to_owned);
        let bias = &r.position_bias;
        let share = r
            .first_position_share
            .map_or_else(|| "-".into(), numbers::score);
        let rows = [
            ("pairs, each asked in both orders", numbers::count(r.pairs)),
            (
                &format!("{adapted}: win rate, ties as one half"),
                interval(&r.win_rate),
            ),
            (
                &format!("{adapted}: wins / ties / losses"),
                format!("{} / {} / {}", r.wins, r.ties, r.losses),
            ),
            (
                "wins against losses, sign test",
                numbers::p_value(r.p_value),
            ),
            (
                "position consistency",
                r.position_consistency
                    .as_ref()
                    .map_or_else(|| "-".into(), interval),
            ),
            (
                "ties by disagreement of the orders",
                format!("{} of {} complete pairs", r.disagreements, r.complete),
            ),
            (
                "position bias: first / second place both times",
                format!(
                    "{} / {} ({})",
                    bias.first,
                    bias.second,
                    numbers::p_value(bias.p_value)
                ),
            ),
            ("share of decisions for the first place", share),
            (
                "replies without a verdict",
                format!("{} of {}", r.unparsed, 2 * r.pairs),
            ),
        ];
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), value])
            .collect();
        grid(&header, &rows, look)
    }

    /// What makes the result doubtful, one line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let r = self.report;
        let mut warnings = Vec::new();
        if let Some(consistency) = r.position_consistency.filter(|c| c.estimate < CONSISTENT) {
            warnings.push(format!(
                "this judge agrees with itself on {:.0} % of the pairs only when the order is swapped: take a stronger judge \
                 before believing the win rate",
                consistency.estimate * 100.0
            ));
        }
        if r.unparsed > 0 {
            let cut = match self.cut {
                0 => String::new(),
                cut => {
                    format!("; {cut} replies broke off at their length limit, raise --max-tokens")
                }
            };
            warnings.push(format!(
                "{} of {} replies hold no verdict, their pairs count as ties{cut}",
                r.unparsed,
                2 * r.pairs
            ));
        }
        warnings
    }
}

fn interval(value: &Interval) -> String {
    numbers::with_interval(value.estimate, Some((value.low, value.high)))
}

fn choice(choice: Option<Choice>) -> &'static str {
    match choice {
        Some(Choice::A) => "A",
        Some(Choice::B) => "B",
        Some(Choice::Tie) => "tie",
        None => "none",
    }
}
