//! *Compare*: one prompt, a column per model, all at once.

mod answer;
mod choose;
mod exchange;
mod prompt;
mod sampling;

use leptos::prelude::*;

use crate::state::{Section, State};

use self::choose::Choose;
use self::exchange::ExchangeView;
use self::prompt::PromptForm;
use self::sampling::SamplingControls;
use super::store::Store;

/// The section.
#[component]
pub(super) fn CompareSection(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let count = store.memo(Section::Compare, |s| s.compare.exchanges.len());
    let said = store.memo(Section::Compare, announcement);
    view! {
        <section id="compare" aria-labelledby="compare-title">
            <h2 id="compare-title">"Compare"</h2>
            <p class="lead">
                "Every model gets the same prompt and the same random numbers. Words that the base did not write are marked."
            </p>
            <Choose store />
            <PromptForm store />
            <SamplingControls store />
            <p class="visually-hidden" aria-live="polite">{move || said.get()}</p>
            <div class="exchanges">
                <For each=move || 0..count.get() key=|at| *at let:at>
                    <ExchangeView store at />
                </For>
            </div>
        </section>
    }
    .into_any()
}

/// What is said aloud: not every token, but each answer that is complete.
fn announcement(state: &State) -> String {
    let Some(exchange) = state.compare.exchanges.last() else {
        return String::new();
    };
    let over = exchange.answers.iter().filter(|a| a.over()).count();
    match (state.compare.running.is_some(), over) {
        (true, 0) => "The models are answering.".to_owned(),
        (true, n) => format!("{n} of {} answers are complete.", exchange.answers.len()),
        (false, n) => format!("All {n} answers are complete."),
    }
}
