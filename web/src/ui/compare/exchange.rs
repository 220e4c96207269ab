//! A question and its answers, side by side; under one another on a phone.

use leptos::prelude::*;

use super::answer::AnswerView;
use crate::state::Section;
use crate::ui::store::Store;
use crate::ui::widgets::Fail;

/// Exchange number `at`.
#[component]
pub(super) fn ExchangeView(
    /// The page's state.
    store: Store,
    /// Its index.
    at: usize,
) -> impl IntoView {
    let prompt = store.memo(Section::Compare, move |s| {
        let exchange = s.compare.exchanges.get(at)?;
        Some((exchange.prompt.clone(), exchange.pair.clone()))
    });
    let answers = store.memo(Section::Compare, move |s| {
        s.compare.exchanges.get(at).map_or(0, |e| e.answers.len())
    });
    let failure = store.memo(Section::Compare, move |s| {
        s.compare.exchanges.get(at).and_then(|e| e.failure.clone())
    });
    let asked = move || {
        prompt.get().map(|(text, pair)| {
            view! {
                <blockquote class="asked">{text}</blockquote>
                {pair.map(|p| view! { <blockquote class="asked">{p}</blockquote> })}
            }
        })
    };
    view! {
        <article class="exchange" aria-label=format!("Question {}", at + 1)>
            {asked}
            <div class="columns">
                <For each=move || 0..answers.get() key=|i| *i let:column>
                    <AnswerView store at column />
                </For>
            </div>
            <Fail failure />
        </article>
    }
    .into_any()
}
