//! From measured metrics to what the page is told.

use qloom_core::evaluation::{Measured, Predictions, Statistics, compare};

use super::super::Surroundings;
use super::super::failure::Ended;
use super::super::task::Task;
use crate::protocol::{ColumnScores, Event, Failure, Metric, Paired};

/// What was measured of a column.
#[derive(Default)]
pub(super) struct Scored {
    pub(super) measured: Vec<Measured>,
    pub(super) classes: Option<Predictions>,
    pub(super) tokens: u64,
}

/// Tells the scores of all columns, each against the first. Columns without any measure are left unpaired.
pub(super) async fn finish<S: Surroundings>(
    task: &Task<'_, S>,
    columns: Vec<Scored>,
    examples: usize,
    statistics: &Statistics,
    notes: Vec<String>,
) -> Result<(), Ended> {
    let mut paired = Vec::new();
    if let Some((first, others)) = columns.split_first() {
        for (index, other) in others.iter().enumerate() {
            if first.measured.is_empty() || other.measured.is_empty() {
                continue;
            }
            for row in compare(&first.measured, &other.measured, statistics)? {
                if let (Some(difference), Some(p_value)) = (row.difference, row.p) {
                    paired.push(Paired {
                        metric: row.key,
                        column: index + 1,
                        difference: difference.estimate,
                        ci: difference.bounds(),
                        p_value,
                    });
                }
            }
            task.pause().await?;
        }
    }
    let columns = columns
        .iter()
        .map(|c| column(c, examples))
        .collect::<Result<_, _>>()?;
    task.emit(Event::Evaluated {
        columns,
        paired,
        notes,
    });
    Ok(())
}

fn column(scored: &Scored, examples: usize) -> Result<ColumnScores, Failure> {
    let metric = |m: &Measured| Metric {
        name: m.key.clone(),
        value: m.interval.estimate,
        ci: Some(m.interval.bounds()),
    };
    let mut scores = ColumnScores {
        examples,
        tokens: scored.tokens,
        metrics: scored.measured.iter().map(metric).collect(),
        labels: Vec::new(),
        confusion: Vec::new(),
        per_class_f1: Vec::new(),
    };
    if let Some(classes) = &scored.classes {
        let matrix = classes.matrix()?;
        scores.labels = classes.labels().to_vec();
        scores.confusion = matrix.rows().map(<[u64]>::to_vec).collect();
        scores.per_class_f1 = matrix.report().per_class.iter().map(|c| c.f1).collect();
    }
    Ok(scores)
}
