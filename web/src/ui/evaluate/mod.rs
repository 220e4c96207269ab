//! *Evaluate*: every model scored on the same examples, with intervals and paired differences.

mod scores;
mod setup;
mod shading;

use leptos::prelude::*;

use crate::state::{Section, export};

use self::scores::ScoresView;
use self::setup::Setup;
use self::shading::Shading;
use super::examples::{ExampleTable, Source};
use super::save;
use super::store::Store;
use super::widgets::{Fail, ProgressBar};

/// The section.
#[component]
pub(super) fn EvaluateSection(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let progress = store.memo(Section::Evaluate, |s| {
        s.evaluate.running?;
        let known = s
            .evaluate
            .progress_words()
            .map(|(words, share)| (words, Some(share)));
        Some(known.unwrap_or_else(|| ("At work on the first examples".to_owned(), None)))
    });
    let failure = store.memo(Section::Evaluate, |s| s.evaluate.failure.clone());
    let running = store.memo(Section::Evaluate, |s| s.evaluate.running);
    let rows = store.memo(Section::Evaluate, |s| !s.evaluate.rows.is_empty());
    let stopped = store.memo(Section::Evaluate, |s| {
        let text = "Stopped; the examples below were scored until then.";
        s.evaluate.stopped.then_some(text)
    });
    let cancel = move |_| {
        if let Some(id) = running.get_untracked() {
            store.act(|s| s.stop(id));
        }
    };
    let csv = move |_| {
        if let Ok(bytes) = store.peek(|s| export::csv(&s.evaluate)) {
            save::bytes("per_example.csv", &bytes);
        }
    };
    let json = move |_| {
        save::bytes(
            "evaluation.json",
            store.peek(|s| export::json(&s.evaluate)).as_bytes(),
        )
    };
    view! {
        <section id="evaluate" aria-labelledby="evaluate-title">
            <h2 id="evaluate-title">"Evaluate"</h2>
            <p class="lead">"Score the base and the adapters on the same examples. Differences are paired: example against example."</p>
            <Setup store />
            <ProgressBar label="Evaluation" state=progress />
            <Show when=move || running.get().is_some()>
                <button type="button" class="quiet" on:click=cancel>"Cancel"</button>
            </Show>
            <Fail failure />
            <p class="hint" role="status">{move || stopped.get()}</p>
            <ScoresView store />
            <ExampleTable store source=Source::Evaluation />
            <Show when=move || rows.get()>
                <div class="row">
                    <button type="button" class="quiet" on:click=csv>"Download as CSV"</button>
                    <button type="button" class="quiet" on:click=json>"Download as JSON"</button>
                </div>
            </Show>
            <Shading store />
        </section>
    }
    .into_any()
}
