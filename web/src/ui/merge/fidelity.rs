//! How far the merge is from the exact weighted sum of the updates, overall and per kind of module.

use leptos::prelude::*;
use qloom_core::merge::Fidelity;

use crate::protocol::MergeInfo;
use crate::state::results::Grid;
use crate::state::{Section, numbers};
use crate::ui::store::Store;
use crate::ui::widgets::GridTable;

/// The report of the last merge.
#[component]
pub(super) fn FidelityView(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let result = store.memo(Section::Merge, |s| s.merge.result.clone());
    let shown = move || result.get().map(report);
    view! { {shown} }.into_any()
}

fn report(info: MergeInfo) -> impl IntoView {
    let grid = Grid {
        caption: format!(
            "Distance from the exact weighted sum; merged in {}",
            numbers::duration(info.ms / 1e3)
        ),
        header: [
            "modules",
            "relative error",
            "cosine",
            "norm, exact",
            "norm, merged",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: std::iter::once(row("all", &info.fidelity.overall))
            .chain(info.fidelity.kinds.iter().map(|(kind, f)| row(kind, f)))
            .collect(),
    };
    let notes = info
        .notes
        .into_iter()
        .map(|n| view! { <li>{n}</li> })
        .collect_view();
    view! {
        <GridTable grid />
        <ul class="notes">{notes}</ul>
    }
}

fn row(name: &str, f: &Fidelity) -> Vec<String> {
    let or = |v: Option<f64>| v.map_or("not defined".to_owned(), numbers::score);
    vec![
        name.to_owned(),
        or(f.relative_error),
        or(f.cosine),
        numbers::score(f.true_norm),
        numbers::score(f.merged_norm),
    ]
}
