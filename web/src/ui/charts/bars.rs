//! Horizontal bars with intervals: name, bar and value in rows that wrap on a phone.

use leptos::prelude::*;

use crate::state::chart::{Bar, BarChart, BarInput};

/// Bars of one quantity. The values stand beside the bars as text, so the drawing itself is hidden from screen readers.
#[component]
pub(crate) fn BarsChart(
    /// What they show.
    #[prop(into)]
    title: String,
    /// The values.
    bars: Vec<BarInput>,
) -> impl IntoView {
    let chart = BarChart::new(&title, &bars);
    let drawn = chart.map(|chart| {
        let rows = chart.bars.into_iter().map(row).collect_view();
        view! { <dl class="bars">{rows}</dl> }
    });
    view! {
        <figure class="figure">
            <figcaption>{title}</figcaption>
            {drawn}
        </figure>
    }
    .into_any()
}

fn row(bar: Bar) -> impl IntoView {
    let number = |v: f64| format!("{v:.3}");
    let whisker = bar.whisker.map(|[from, to]| {
        view! {
            <line class="whisker" x1=number(from) x2=number(to) y1="5" y2="5" />
            <line class="whisker" x1=number(from) x2=number(from) y1="2" y2="8" />
            <line class="whisker" x1=number(to) x2=number(to) y1="2" y2="8" />
        }
    });
    view! {
        <div class="bar">
            <dt>{bar.name}</dt>
            <dd>
                <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                    <rect class="rail" x="0" y="1" width="100" height="8" />
                    <rect class=format!("fill fill-{}", bar.kind) x=number(bar.start) y="1" width=number(bar.length) height="8" />
                    {whisker}
                </svg>
                <span class="numbers">{bar.label}</span>
            </dd>
        </div>
    }
}
