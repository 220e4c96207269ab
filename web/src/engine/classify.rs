//! Class probabilities of one text in every column.

use qloom_core::data::{Batch, class_names};
use qloom_core::host::to_vec;
use qloom_core::models::Architecture;
use qloom_core::models::bert::BertClassifier;

use super::Surroundings;
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::protocol::{Column, Event, Failure};

/// Answers with the probabilities of every column that has a head.
pub(super) async fn classify<S: Surroundings>(
    task: &Task<'_, S>,
    state: &State,
    text: &str,
    pair: Option<&str>,
    columns: &[Column],
) -> Result<(), Ended> {
    let models = state.classifiers(columns)?;
    let batch = batch_of(state, text, pair)?;
    let mut probabilities = Vec::with_capacity(models.len());
    for model in &models {
        probabilities.push(match model.head.parts() {
            Ok(_) => of_model(model, &batch).await?,
            Err(_) => Vec::new(),
        });
        task.pause().await?;
    }
    let classes = class_count(&models)?;
    let labels = labels_of(state, columns, classes);
    task.emit(Event::Classified {
        labels,
        probabilities,
    });
    Ok(())
}

async fn of_model(model: &BertClassifier, batch: &Batch) -> Result<Vec<f64>, Failure> {
    let found = to_vec(model.probabilities(batch)?).await?;
    Ok(found.into_iter().map(f64::from).collect())
}

fn batch_of(state: &State, text: &str, pair: Option<&str>) -> Result<Batch, Failure> {
    let base = state.base()?;
    let encoded = base
        .tokenizer
        .encode_sequences(text, pair, base.info.context, false)?;
    let mut batch = Batch::of_sequences(std::slice::from_ref(&encoded.ids));
    batch.token_type_ids = encoded.type_ids;
    Ok(batch)
}

/// The number of classes, which must be one in all columns that have a head.
///
/// # Errors
/// No column has a head; two have heads of different sizes.
pub(super) fn class_count(models: &[BertClassifier]) -> Result<usize, Failure> {
    let mut counts = models.iter().filter_map(|m| {
        let whole = m.head.parts().is_ok();
        whole.then(|| m.head.num_labels()).flatten()
    });
    let Some(first) = counts.next() else {
        let missing = models.iter().find_map(|m| m.head.parts().err());
        return Err(missing.map_or_else(
            || Failure::request("there is no column with a classification head"),
            Failure::from,
        ));
    };
    match counts.find(|&other| other != first) {
        None => Ok(first),
        Some(other) => Err(Failure::request(format!(
            "one column has {first} classes and another {other}; compare classifiers of the same classes"
        ))),
    }
}

/// What `classes` classes are called: as an adapter of the columns says, else the base, else by number.
pub(super) fn labels_of(state: &State, columns: &[Column], classes: usize) -> Vec<String> {
    let adapters = columns.iter().flat_map(|c| &c.adapters);
    let mut named = adapters
        .filter_map(|name| state.adapter(name).ok()?.labels())
        .filter(|labels| labels.len() == classes);
    let own = || {
        let Architecture::Bert(config) = &state.base.as_ref()?.architecture else {
            return None;
        };
        let names = class_names(&config.labels);
        let names = names.values().filter_map(|v| Some(v.as_str()?.to_owned()));
        Some(names.collect::<Vec<String>>()).filter(|names| names.len() == classes)
    };
    named
        .next()
        .or_else(own)
        .unwrap_or_else(|| (0..classes).map(|i| i.to_string()).collect())
}
