//! A text whose tokens are shaded by how little each model expected them.

use leptos::prelude::*;

use crate::protocol::TokenLoss;
use crate::state::losses::{mean, shade, words};
use crate::state::{Section, numbers};
use crate::ui::store::Store;
use crate::ui::widgets::Fail;

/// The form and the shaded texts.
#[component]
pub(super) fn Shading(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let ready = store.memo(Section::Session, |s| {
        s.session.ready() && s.session.base.as_ref().is_some_and(|b| !b.classifier)
    });
    let running = store.memo(Section::Losses, |s| s.losses.running.is_some());
    let failure = store.memo(Section::Losses, |s| s.losses.failure.clone());
    let scored = store.memo(Section::Losses, |s| {
        let labels = s.losses.columns.iter().map(|c| c.label.clone());
        labels
            .zip(s.losses.tokens.iter().cloned())
            .collect::<Vec<_>>()
    });
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        store.act(|s| s.score_text());
    };
    let shown = move || {
        scored
            .get()
            .into_iter()
            .enumerate()
            .map(|(at, (label, tokens))| text(at, label, tokens))
            .collect_view()
    };
    let status = move || if running.get() { "Scoring" } else { "" };
    view! {
        <div class="shading">
            <h3>"Loss by token"</h3>
            <p>"The darker a token, the less the model expected it. The models are those chosen under Compare."</p>
            <form on:submit=submit>
                <label class="field">
                    <span class="field-name">"Text before it, read but not scored (may be empty)"</span>
                    <textarea rows="2"
                        prop:value=move || store.read(Section::Losses, |s| s.losses.prompt.clone())
                        on:input=move |e| store.edit(Section::Losses, |s| s.losses.prompt = event_target_value(&e))></textarea>
                </label>
                <label class="field">
                    <span class="field-name">"Text to score"</span>
                    <textarea rows="3"
                        prop:value=move || store.read(Section::Losses, |s| s.losses.text.clone())
                        on:input=move |e| store.edit(Section::Losses, |s| s.losses.text = event_target_value(&e))></textarea>
                </label>
                <div class="row">
                    <button type="submit" disabled=move || !ready.get() || running.get()>"Shade the text"</button>
                    <span class="hint" role="status">{status}</span>
                </div>
            </form>
            <Fail failure />
            <div class="columns">{shown}</div>
        </div>
    }
    .into_any()
}

fn text(at: usize, label: String, tokens: Vec<TokenLoss>) -> impl IntoView {
    let total = mean(&tokens).map(|(loss, perplexity)| {
        format!(
            "mean loss {}, perplexity {}",
            numbers::score(loss),
            numbers::score(perplexity)
        )
    });
    let spans = tokens.into_iter().map(|t| {
        view! { <span class=format!("token shade-{}", shade(t.nll)) title=words(t.nll)>{t.text}</span> }
    });
    view! {
        <section class=format!("column thread-{}", at.min(4))>
            <h4>{label}</h4>
            <p class="answer">{spans.collect_view()}</p>
            <p class="foot numbers">{total}</p>
        </section>
    }
}
