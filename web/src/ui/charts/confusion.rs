//! A confusion matrix, as the table that it is.

use leptos::prelude::*;

use crate::state::chart::{Cell, ConfusionChart};

/// Shaded by the share of the row; the diagonal has a frame, so that colour is not needed to see it.
#[component]
pub(crate) fn ConfusionTable(
    /// Whose.
    name: String,
    /// The classes.
    labels: Vec<String>,
    /// Rows: true; columns: predicted.
    rows: Vec<Vec<u64>>,
) -> impl IntoView {
    let drawn = ConfusionChart::new(&labels, &rows).map(|chart| {
        let head = chart
            .columns
            .into_iter()
            .map(|c| view! { <th scope="col">{c}</th> })
            .collect_view();
        let body = chart.rows.into_iter().map(|(label, cells)| {
            let cells = cells.into_iter().map(cell).collect_view();
            view! { <tr><th scope="row">{label}</th>{cells}</tr> }
        });
        let caption = format!("{name}: true class down, predicted across");
        view! {
            <div class="scroll" role="group" tabindex="0" aria-label=caption.clone()>
                <table class="confusion">
                    <caption>{caption.clone()}<span class="hint">" "{chart.summary}</span></caption>
                    <thead><tr><td></td>{head}</tr></thead>
                    <tbody>{body.collect_view()}</tbody>
                </table>
            </div>
        }
    });
    view! { {drawn} }.into_any()
}

fn cell(cell: Cell) -> impl IntoView {
    let right = if cell.right { " right" } else { "" };
    view! { <td class=format!("shade-{}{right}", cell.shade)>{cell.count}</td> }
}
