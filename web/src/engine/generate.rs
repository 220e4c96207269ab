//! One prompt continued in every column at once, a token of each in turn.

use qloom_core::generation::{self, Generated, Generation, Generator, SamplingConfig};

use super::Surroundings;
use super::failure::Ended;
use super::state::State;
use super::task::Task;
use crate::protocol::{Column, Event, Failure, Finish, Prompt, Turn};

/// A column in flight.
struct Flight<'a> {
    generation: Option<Generation<'a>>,
    prompt_tokens: usize,
    /// Time of its own steps: what it would take alone.
    first_ms: f64,
    later_ms: f64,
    steps: usize,
}

/// Continues `prompt` in every column; `histories` come before it, one per column.
pub(super) async fn generate<S: Surroundings>(
    task: &Task<'_, S>,
    state: &State,
    prompt: &Prompt,
    columns: &[Column],
    sampling: SamplingConfig,
    histories: &[Vec<Turn>],
) -> Result<(), Ended> {
    let models = state.language_models(columns)?;
    let base = state.base()?;
    if !histories.is_empty() && histories.len() != columns.len() {
        return Err(Failure::request(format!(
            "{} histories came for {} columns; expected one each, or none",
            histories.len(),
            columns.len()
        ))
        .into());
    }
    let mut flights = Vec::with_capacity(models.len());
    for (index, model) in models.iter().enumerate() {
        let history = histories.get(index).map_or(&[][..], Vec::as_slice);
        let ids = base.prompt_ids(prompt, history)?;
        let ends = base.end_ids.clone();
        let generator = Generator::new(model, &base.tokenizer, sampling.clone(), ends);
        flights.push(Flight {
            prompt_tokens: ids.len(),
            generation: Some(generator.begin(&[ids], 0)?),
            first_ms: 0.0,
            later_ms: 0.0,
            steps: 0,
        });
    }
    while flights.iter().any(|f| f.generation.is_some()) {
        for (column, flight) in flights.iter_mut().enumerate() {
            step(task, column, flight).await?;
        }
    }
    task.emit(Event::Generated);
    Ok(())
}

/// The next token of a column, unless it has ended.
async fn step<S: Surroundings>(
    task: &Task<'_, S>,
    column: usize,
    flight: &mut Flight<'_>,
) -> Result<(), Ended> {
    let Some(generation) = &mut flight.generation else {
        return Ok(());
    };
    let began = task.now_ms();
    let pieces = generation.step().await?;
    let took = task.now_ms() - began;
    match flight.steps {
        0 => flight.first_ms = took,
        _ => flight.later_ms += took,
    }
    flight.steps += 1;
    for piece in pieces {
        let text = piece.text;
        task.emit(Event::Text { column, text });
    }
    if generation.done() {
        let finished = flight.generation.take().map(Generation::finish);
        if let Some(generated) = finished.and_then(|all| all.into_iter().next()) {
            task.emit(done(column, flight, &generated));
        }
    }
    task.breathe().await
}

fn done(column: usize, flight: &Flight<'_>, generated: &Generated) -> Event {
    let later = flight.steps.saturating_sub(1) as f64;
    Event::ColumnDone {
        column,
        finish: match generated.finish {
            generation::Finish::EndToken => Finish::EndToken,
            generation::Finish::StopString => Finish::StopString,
            // A generation that is stopped here ends its request and tells no column.
            generation::Finish::Length | generation::Finish::Stopped => Finish::Length,
        },
        tokens: generated.ids.len(),
        prompt_tokens: flight.prompt_tokens,
        first_token_ms: flight.first_ms,
        tokens_per_s: match flight.later_ms > 0.0 {
            true => later / flight.later_ms * 1000.0,
            false => 0.0,
        },
    }
}
