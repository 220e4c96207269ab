//! What is asked: the prompt, for classifiers of pairs the second text, prompts to try, the button.

use leptos::prelude::*;
use web_sys::{KeyboardEvent, SubmitEvent};

use crate::state::Section;
use crate::ui::store::Store;

/// The form. Control or command with Enter sends it, too.
#[component]
pub(super) fn PromptForm(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let classifier = store.memo(Section::Session, |s| {
        s.session.base.as_ref().is_some_and(|b| b.classifier)
    });
    let running = store.memo(Section::Compare, |s| s.compare.running);
    let ready = store.memo(Section::Session, |s| s.session.ready());
    let talked = store.memo(Section::Compare, |s| !s.compare.exchanges.is_empty());
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        store.act(|s| s.ask());
    };
    let key = move |event: KeyboardEvent| {
        if event.key() == "Enter" && (event.ctrl_key() || event.meta_key()) {
            event.prevent_default();
            store.act(|s| s.ask());
        }
    };
    let stop = move |_| {
        if let Some(id) = running.get_untracked() {
            store.act(|s| {
                s.follow = false;
                s.stop(id)
            });
        }
    };
    let waits = move || match (ready.get(), running.get().is_some()) {
        (false, _) => "The base is not loaded yet.",
        (true, true) => "",
        (true, false) => "Ctrl and Enter sends, too.",
    };
    view! {
        <form class="prompt" on:submit=submit>
            <label class="field">
                <span class="field-name">{move || if classifier.get() { "Text to classify" } else { "Prompt" }}</span>
                <textarea
                    rows="4"
                    prop:value=move || store.read(Section::Compare, |s| s.compare.prompt.clone())
                    on:input=move |e| store.edit(Section::Compare, |s| s.compare.prompt = event_target_value(&e))
                    on:keydown=key
                ></textarea>
            </label>
            <Show when=move || classifier.get()>
                <label class="field">
                    <span class="field-name">"Second text, for pairs"</span>
                    <textarea
                        rows="2"
                        prop:value=move || store.read(Section::Compare, |s| s.compare.pair.clone())
                        on:input=move |e| store.edit(Section::Compare, |s| s.compare.pair = event_target_value(&e))
                    ></textarea>
                </label>
            </Show>
            <Examples store />
            <div class="row">
                <button type="submit" disabled=move || !ready.get() || running.get().is_some()>"Compare"</button>
                <Show when=move || running.get().is_some()>
                    <button type="button" class="quiet" on:click=stop>"Stop"</button>
                </Show>
                <Show when=move || talked.get() && running.get().is_none()>
                    <button
                        type="button"
                        class="quiet"
                        on:click=move |_| store.edit(Section::Compare, |s| s.compare.exchanges.clear())
                    >
                        "Start over"
                    </button>
                </Show>
                <span class="hint">{waits}</span>
            </div>
        </form>
    }
    .into_any()
}

/// Prompts that came with the gallery's adapters.
#[component]
fn Examples(store: Store) -> impl IntoView {
    let examples = store.memo(Section::Compare, |s| s.compare.examples.clone());
    let buttons = move || {
        let button = |prompt: String| {
            let shown = short(&prompt);
            let take =
                move |_| store.edit(Section::Compare, |s| s.compare.prompt.clone_from(&prompt));
            view! { <li><button type="button" class="chip" on:click=take>{shown}</button></li> }
        };
        let buttons = examples.get().into_iter().map(button).collect_view();
        view! { <ul class="chips" aria-label="Prompts to try">{buttons}</ul> }
    };
    view! { <Show when=move || !examples.with(Vec::is_empty)>{buttons}</Show> }.into_any()
}

/// Both ends of a prompt: those of one task often begin alike.
fn short(prompt: &str) -> String {
    const END: usize = 24;
    let letters: Vec<char> = prompt
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .collect();
    if letters.len() <= 2 * END {
        return letters.into_iter().collect();
    }
    let text = |part: &[char]| part.iter().collect::<String>();
    let (head, tail) = (text(&letters[..END]), text(&letters[letters.len() - END..]));
    format!("{} … {}", head.trim_end(), tail.trim_start())
}
