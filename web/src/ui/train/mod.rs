//! *Train*: a short QLoRA run on examples the visitor types, with a live loss curve, ending in an adapter.

mod examples;
mod settings;

use leptos::prelude::*;

use crate::state::{Section, State, numbers};

use self::examples::ExamplesEditor;
use self::settings::SettingsFields;
use super::charts::LinesChart;
use super::store::Store;
use super::widgets::{Fail, ProgressBar};

/// The section.
#[component]
pub(super) fn TrainSection(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let problem = store.memo(Section::Train, |s| s.train.problem(s.session.base.as_ref()));
    let ready = store.memo(Section::Session, |s| s.session.ready());
    let running = store.memo(Section::Train, |s| s.train.running);
    let failure = store.memo(Section::Train, |s| s.train.failure.clone());
    let progress = store.memo(Section::Train, progress);
    let curve = store.memo(Section::Train, |s| s.train.curve());
    let stopped = store.memo(Section::Train, |s| {
        s.train
            .stopped
            .then_some("Stopped; nothing was kept of it.")
    });
    let stop = move |_| {
        if let Some(id) = running.get_untracked() {
            store.act(|s| s.stop(id));
        }
    };
    let blocked = move || !ready.get() || problem.get().is_some() || running.get().is_some();
    view! {
        <section id="train" aria-labelledby="train-title">
            <h2 id="train-title">"Train"</h2>
            <p class="lead">"Teach the base something in a minute: write a few examples, watch the loss, then compare and take the adapter with you."</p>
            <ExamplesEditor store />
            <SettingsFields store />
            <div class="row">
                <button type="button" disabled=blocked on:click=move |_| store.act(|s| s.train_now())>"Train"</button>
                <Show when=move || running.get().is_some()>
                    <button type="button" class="quiet" on:click=stop>"Stop"</button>
                </Show>
                <span class="hint">{move || problem.get()}</span>
            </div>
            <ProgressBar label="Training" state=progress />
            <Fail failure />
            <p class="hint" role="status">{move || stopped.get()}</p>
            <LinesChart series=curve x_name="step" />
            <Trained store />
        </section>
    }
    .into_any()
}

fn progress(state: &State) -> Option<(String, Option<f64>)> {
    state.train.running?;
    let Some(last) = state.train.steps.last() else {
        return Some(("Preparing".to_owned(), None));
    };
    let words = format!(
        "Step {} of {}: loss {}, {}",
        last.step,
        state.train.total,
        numbers::score(last.loss),
        numbers::tokens_per_second(last.tokens_per_s)
    );
    Some((
        words,
        Some(last.step as f64 / state.train.total.max(1) as f64),
    ))
}

/// What to do with the adapter that came out.
#[component]
fn Trained(store: Store) -> impl IntoView {
    let result = store.memo(Section::Train, |s| s.train.result.clone());
    let shown = move || {
        result.get().map(|name| {
            let (download, compared) = (name.clone(), name.clone());
            let compare = move |_| {
                store.edit(Section::Compare, |s| s.compare.a = Some(compared.clone()));
                if let Some(section) = document().get_element_by_id("compare") {
                    section.scroll_into_view();
                }
            };
            view! {
                <div class="panel">
                    <p role="status">"The adapter " <strong>{name}</strong> " is trained and loaded."</p>
                    <div class="row">
                        <button type="button" on:click=compare>"Compare it with the base"</button>
                        <button type="button" class="quiet" on:click=move |_| store.act(|s| s.export(&download))>"Download it"</button>
                    </div>
                </div>
            }
        })
    };
    view! { {shown} }.into_any()
}
