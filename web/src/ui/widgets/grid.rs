//! A table of text under a caption; it scrolls by itself where it is wider than the page.

use leptos::prelude::*;

use crate::state::results::Grid;

/// The first column names its rows.
#[component]
pub(crate) fn GridTable(
    /// What to show.
    grid: Grid,
) -> impl IntoView {
    let Grid {
        caption,
        header,
        rows,
    } = grid;
    let head = header
        .into_iter()
        .map(|name| view! { <th scope="col">{name}</th> })
        .collect_view();
    let body = rows
        .into_iter()
        .map(|row| {
            let mut cells = row.into_iter();
            let first = cells.next().unwrap_or_default();
            let rest = cells.map(|cell| view! { <td>{cell}</td> }).collect_view();
            view! { <tr><th scope="row">{first}</th>{rest}</tr> }
        })
        .collect_view();
    view! {
        <div class="scroll" role="group" tabindex="0" aria-label=caption.clone()>
            <table>
                <caption>{caption.clone()}</caption>
                <thead><tr>{head}</tr></thead>
                <tbody>{body}</tbody>
            </table>
        </div>
    }
    .into_any()
}
