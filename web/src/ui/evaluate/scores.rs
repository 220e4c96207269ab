//! The scores: a table with paired differences, bars with intervals, confusion matrices.

use leptos::prelude::*;

use crate::state::chart::BarInput;
use crate::state::evaluate::{Evaluate, metric_title};
use crate::state::results::Grid;
use crate::state::{Section, numbers};
use crate::ui::charts::{BarsChart, ConfusionTable};
use crate::ui::store::Store;
use crate::ui::widgets::GridTable;

/// Nothing until there are scores.
#[component]
pub(super) fn ScoresView(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    // Rows come while it runs; they are left out, so that the scores are drawn once.
    let done = store.memo(Section::Evaluate, |s| Evaluate {
        columns: s.evaluate.columns.clone(),
        scored_on: s.evaluate.scored_on.clone(),
        scores: s.evaluate.scores.clone(),
        paired: s.evaluate.paired.clone(),
        notes: s.evaluate.notes.clone(),
        ..Evaluate::default()
    });
    let shown = move || done.with(|e| (!e.scores.is_empty()).then(|| draw(e)));
    view! { {shown} }.into_any()
}

fn draw(evaluate: &Evaluate) -> AnyView {
    let names = evaluate.metric_names();
    let bars = names.iter().map(|name| {
        let better = if numbers::lower_is_better(name) {
            "lower"
        } else {
            "higher"
        };
        let title = format!("{} ({better} is better)", metric_title(name));
        view! { <BarsChart title bars=bars(evaluate, name) /> }
    });
    let matrices = evaluate
        .columns
        .iter()
        .zip(&evaluate.scores)
        .filter(|(_, s)| !s.labels.is_empty());
    let matrices = matrices.map(|(column, s)| {
        view! { <ConfusionTable name=column.label.clone() labels=s.labels.clone() rows=s.confusion.clone() /> }
    });
    let notes = evaluate
        .notes
        .iter()
        .map(|n| view! { <li>{n.clone()}</li> })
        .collect_view();
    view! {
        <GridTable grid=table(evaluate, &names) />
        <ul class="notes">{notes}</ul>
        <div class="charts">{bars.collect_view()}</div>
        <div class="charts">{matrices.collect_view()}</div>
    }
    .into_any()
}

fn bars(evaluate: &Evaluate, metric: &str) -> Vec<BarInput> {
    let columns = evaluate.columns.iter().zip(&evaluate.scores).enumerate();
    let bar = |(at, (column, scores)): (
        usize,
        (
            &crate::state::evaluate::Scored,
            &crate::protocol::ColumnScores,
        ),
    )| {
        let found = scores.metrics.iter().find(|m| m.name == metric)?;
        Some(BarInput {
            name: column.label.clone(),
            value: found.value,
            interval: found.ci,
            kind: at.min(4),
        })
    };
    columns.filter_map(bar).collect()
}

/// A row per metric, a column per model; after the first, its difference from the first.
fn table(evaluate: &Evaluate, names: &[String]) -> Grid {
    let mut header = vec!["metric".to_owned()];
    for (at, column) in evaluate.columns.iter().enumerate() {
        header.push(column.label.clone());
        if at > 0 {
            header.push(format!(
                "{} less {}",
                column.label, evaluate.columns[0].label
            ));
        }
    }
    let row = |name: &String| {
        let mut cells = vec![metric_title(name)];
        for (at, scores) in evaluate.scores.iter().enumerate() {
            let found = scores.metrics.iter().find(|m| m.name == *name);
            cells.push(found.map_or("-".to_owned(), |m| numbers::with_interval(m.value, m.ci)));
            if at > 0 {
                cells.push(evaluate.pair(at, name).map_or("-".to_owned(), |p| {
                    let [low, high] = p.ci;
                    let range = format!("[{}, {}]", numbers::signed(low), numbers::signed(high));
                    format!(
                        "{} {range}, {}",
                        numbers::signed(p.difference),
                        numbers::p_value(p.p_value)
                    )
                }));
            }
        }
        cells
    };
    let examples = evaluate.scores.first().map_or(0, |s| s.examples);
    Grid {
        caption: format!(
            "Scores on {}: {} examples; brackets are 95 % bootstrap intervals",
            evaluate.scored_on,
            numbers::count(examples as u64)
        ),
        header,
        rows: names.iter().map(row).collect(),
    }
}
