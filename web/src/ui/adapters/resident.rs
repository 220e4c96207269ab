//! The adapters that are loaded: facts, hashes, warnings, and what can be done with each.

use leptos::prelude::*;

use crate::protocol::{AdapterInfo, AdapterOrigin};
use crate::state::{Section, numbers};
use crate::ui::store::Store;

/// All of them.
#[component]
pub(super) fn ResidentList(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let infos = store.memo(Section::Adapters, |s| {
        s.adapters
            .resident
            .iter()
            .map(|r| r.info.clone())
            .collect::<Vec<_>>()
    });
    let shown = move || {
        let infos = infos.get();
        if infos.is_empty() {
            return view! { <p class="hint">"None yet."</p> }.into_any();
        }
        let items = infos
            .into_iter()
            .map(|info| view! { <li><ResidentItem store info /></li> });
        view! { <ul class="plain">{items.collect_view()}</ul> }.into_any()
    };
    view! { {shown} }.into_any()
}

#[component]
fn ResidentItem(store: Store, info: AdapterInfo) -> impl IntoView {
    let remove = {
        let name = info.name.clone();
        move |_| store.act(|s| s.remove_adapter(&name))
    };
    let export = {
        let name = info.name.clone();
        move |_| store.act(|s| s.export(&name))
    };
    let origin = match info.origin {
        AdapterOrigin::Gallery => "this site, every hash checked",
        AdapterOrigin::Url => "a URL",
        AdapterOrigin::File => "your files",
        AdapterOrigin::Merge => "merged here",
        AdapterOrigin::Training => "trained here",
    };
    let facts = info.facts;
    let summary = format!(
        "{}, rank {}, {} trained values",
        facts.method,
        facts.rank,
        numbers::count(facts.parameters)
    );
    let warnings = info
        .warnings
        .into_iter()
        .map(|w| view! { <li>{w}</li> })
        .collect_view();
    let (download, forget) = (
        format!("Download {}", info.name),
        format!("Remove {}", info.name),
    );
    view! {
        <article class="resident">
            <div class="resident-head">
                <h4>{info.name}</h4>
                <span class="hint">{summary}</span>
                <span class="row">
                    <button type="button" class="quiet" on:click=export aria-label=download>"Download"</button>
                    <button type="button" class="quiet" on:click=remove aria-label=forget>"Remove"</button>
                </span>
            </div>
            <ul class="notes">{warnings}</ul>
            <details class="more">
                <summary>"Details"</summary>
                <dl class="facts">
                    <dt>"From"</dt><dd>{origin}</dd>
                    <dt>"Trained on"</dt><dd>{info.base.unwrap_or_else(|| "not stated".to_owned())}</dd>
                    <dt>"Alpha"</dt><dd>{facts.alpha}</dd>
                    <dt>"Targets"</dt><dd class="mono">{facts.target_modules.join(", ")}</dd>
                    <dt>"Task type"</dt><dd>{facts.task_type.unwrap_or_else(|| "not stated".to_owned())}</dd>
                    <dt>"Tensors"</dt><dd>{numbers::bytes(info.bytes)}</dd>
                    <dt>"SHA-256"</dt><dd class="mono">{info.sha256}</dd>
                </dl>
            </details>
        </article>
    }
    .into_any()
}
