//! Columns scored on a data file, batch by batch in all of them, so that rows appear while it goes on.
//!
//! Numbers, intervals and tests are the core's, taken as the trainer takes them.

mod causal;
mod classes;
mod data;
mod report;

use qloom_core::models::Architecture;

use super::Surroundings;
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::protocol::{Column, DataSource, EvalOptions, Failure};

/// Scores `columns` on the file at `source`.
pub(super) async fn evaluate<S: Surroundings>(
    task: &Task<'_, S>,
    state: &State,
    source: DataSource,
    columns: &[Column],
    options: EvalOptions,
    files: Vec<S::File>,
) -> Result<(), Ended> {
    if options.batch_size == 0 {
        return Err(Failure::request("batch_size is 0; score at least 1 sequence at once").into());
    }
    let base = state.base()?;
    let (name, bytes) = data::read(task.around(), source, files).await?;
    task.pause().await?;
    match &base.architecture {
        Architecture::Llama(_) => {
            let data = data::Data::encode(base, &name, &bytes, &options, None)?;
            causal::evaluate(task, state, columns, &options, data).await
        }
        Architecture::Bert(_) => {
            let known = classes::known_labels(state, columns)?;
            let data = data::Data::encode(base, &name, &bytes, &options, known)?;
            classes::evaluate(task, state, columns, &options, data).await
        }
    }
}
