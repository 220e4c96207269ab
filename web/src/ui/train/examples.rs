//! The examples: prompt and answer, a pair a line.

use leptos::prelude::*;

use crate::protocol::TrainExample;
use crate::state::Section;
use crate::ui::store::Store;

/// The editor.
#[component]
pub(super) fn ExamplesEditor(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let count = store.memo(Section::Train, |s| s.train.examples.len());
    let add = move |_| {
        let empty = TrainExample {
            prompt: String::new(),
            completion: String::new(),
        };
        store.edit(Section::Train, |s| s.train.examples.push(empty));
    };
    view! {
        <fieldset>
            <legend>"Examples"</legend>
            <For each=move || 0..count.get() key=|at| *at let:at>
                <Pair store at />
            </For>
            <button type="button" class="quiet" on:click=add>"Add an example"</button>
        </fieldset>
    }
    .into_any()
}

#[component]
fn Pair(store: Store, at: usize) -> impl IntoView {
    let prompt = move || {
        store.read(Section::Train, |s| {
            s.train
                .examples
                .get(at)
                .map(|e| e.prompt.clone())
                .unwrap_or_default()
        })
    };
    let answer = move || {
        store.read(Section::Train, |s| {
            s.train
                .examples
                .get(at)
                .map(|e| e.completion.clone())
                .unwrap_or_default()
        })
    };
    let edit = move |change: &dyn Fn(&mut TrainExample)| {
        store.edit(Section::Train, |s| {
            if let Some(example) = s.train.examples.get_mut(at) {
                change(example);
            }
        });
    };
    let remove = move |_| {
        store.edit(Section::Train, |s| {
            if at < s.train.examples.len() {
                s.train.examples.remove(at);
            }
        });
    };
    let number = at + 1;
    view! {
        <div class="pair">
            <textarea rows="2" aria-label=format!("Prompt of example {number}") placeholder="Prompt" prop:value=prompt
                on:input=move |ev| { let text = event_target_value(&ev); edit(&|e| e.prompt.clone_from(&text)); }></textarea>
            <textarea rows="2" aria-label=format!("Answer of example {number}") placeholder="Answer" prop:value=answer
                on:input=move |ev| { let text = event_target_value(&ev); edit(&|e| e.completion.clone_from(&text)); }></textarea>
            <button type="button" class="quiet" aria-label=format!("Remove example {number}") on:click=remove>"Remove"</button>
        </div>
    }
    .into_any()
}
