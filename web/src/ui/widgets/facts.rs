//! Names and values in a row that wraps.

use leptos::prelude::*;

/// What there is to know of something.
#[component]
pub(crate) fn Facts(
    /// Name and value of each.
    facts: Vec<(String, String)>,
) -> impl IntoView {
    let items = facts
        .into_iter()
        .map(|(name, value)| view! { <div><dt>{name}</dt><dd>{value}</dd></div> })
        .collect_view();
    view! { <dl class="fact-row">{items}</dl> }.into_any()
}
