//! *Merge*: adapters mixed by sliders, live; how far the result is from the exact weighted sum; the result as a file.

mod fidelity;
mod members;
mod method;

use leptos::prelude::*;

use crate::state::Section;
use crate::state::adapters::MERGE_NAME;

use self::fidelity::FidelityView;
use self::members::Members;
use self::method::MethodFields;
use super::store::Store;
use super::widgets::Fail;

/// Rest after the last change before the worker is asked, in milliseconds.
const REST: u64 = 250;

/// The section.
#[component]
pub(super) fn MergeSection(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    live(store);
    let problem = store.memo(Section::Merge, |s| {
        let chosen = !s.merge.members.is_empty();
        s.merge.problem().filter(|_| chosen)
    });
    let running = store.memo(Section::Merge, |s| s.merge.running.is_some());
    let failure = store.memo(Section::Merge, |s| s.merge.failure.clone());
    let merged = store.memo(Section::Merge, |s| s.adapters.merged());
    let command = store.memo(Section::Merge, |s| s.merge.command());
    let status = move || if running.get() { "Merging" } else { "" };
    view! {
        <section id="merge" aria-labelledby="merge-title">
            <h2 id="merge-title">"Merge"</h2>
            <p class="lead">
                "Mix adapters by PEFT's methods. The merge is made anew as you move, and its column under Compare follows."
            </p>
            <div class="two">
                <Members store />
                <MethodFields store />
            </div>
            <p class="fail" role="alert">{move || problem.get()}</p>
            <p class="hint" role="status">{status}</p>
            <Fail failure />
            <FidelityView store />
            <Show when=move || merged.get()>
                <div class="row">
                    <button type="button" on:click=move |_| store.act(|s| s.export(MERGE_NAME))>"Download the merge as a PEFT zip"</button>
                </div>
                <p class="hint">"The same on the command line, with the adapters' folders for their names:"</p>
                <div class="scroll" role="group" tabindex="0" aria-label="Command"><pre><code>{move || command.get()}</code></pre></div>
            </Show>
        </section>
    }
    .into_any()
}

/// Merges once the visitor's hand rests. What is chosen counts, not what is under way.
fn live(store: Store) {
    let chosen = store.memo(Section::Merge, |s| {
        (s.merge.members.clone(), s.merge.settings.clone())
    });
    let latest = StoredValue::new(0_u64);
    Effect::new(move |before: Option<()>| {
        // Read, not only tracked: a memo that nobody reads is never computed and so never changes.
        chosen.with(|_| ());
        // Not at the start, where a link's own plan merges once its adapters are there.
        if before.is_none() {
            return;
        }
        let mine = latest.try_update_value(|n| {
            *n += 1;
            *n
        });
        let go = move || {
            let newest = Some(latest.get_value()) == mine;
            let there = store.peek(|s| {
                let members = &s.merge.members;
                !members.is_empty() && members.iter().all(|m| s.adapters.get(&m.name).is_some())
            });
            if newest && there {
                store.act(|s| s.merge_now());
            }
        };
        set_timeout(go, std::time::Duration::from_millis(REST));
    });
}
