//! `trainer pretrain`.

use anyhow::Result;

use super::{Common, UsageError, train};
use crate::cli::TrainArguments;
use crate::config;
use crate::session;

/// Trains every weight of a new model; the result is a base folder.
pub(super) fn run(common: &Common, arguments: TrainArguments) -> Result<()> {
    let mut config = config::load(&arguments.config, &arguments.set)?;
    config.data.skip_bad |= arguments.skip_bad;
    let shape = config.pretrain.clone().ok_or_else(|| {
        UsageError::new(format!(
            "{} has no [pretrain] table: it holds the tokenizer and the sizes of the new model",
            arguments.config.display()
        ))
    })?;
    let result = session::pretrain(&config, &shape, &common.device, arguments.resume)?;
    train::print(common, &result)
}
