//! Lines over steps.

use leptos::prelude::*;

use crate::state::chart::{LineChart, Series};

/// View box: it scales with its column.
const SIZE: (f64, f64) = (640.0, 260.0);

/// A chart that is drawn anew when its data changes; its name says in words what it shows.
#[component]
pub(crate) fn LinesChart(
    /// The data.
    #[prop(into)]
    series: Signal<Vec<Series>>,
    /// What the x axis counts.
    x_name: &'static str,
) -> impl IntoView {
    let drawn = move || {
        let chart = series.with(|s| LineChart::new(s, SIZE.0, SIZE.1, x_name));
        chart.map(|chart| draw(chart, x_name))
    };
    view! { <div class="chart">{drawn}</div> }.into_any()
}

fn draw(chart: LineChart, x_name: &'static str) -> AnyView {
    let [left, top, right, bottom] = chart.plot;
    let y_marks = chart.y_ticks.into_iter().map(|(y, tick)| {
        let at = format!("{y:.1}");
        view! {
            <line class="guide" x1=left.to_string() x2=right.to_string() y1=at.clone() y2=at.clone() />
            <text class="tick" x=(left - 6.0).to_string() y=at dy="0.32em" text-anchor="end">{tick.label}</text>
        }
    });
    let x_marks = chart.x_ticks.into_iter().map(|(x, tick)| {
        view! { <text class="tick" x=format!("{x:.1}") y=(bottom + 18.0).to_string() text-anchor="middle">{tick.label}</text> }
    });
    let legend = (chart.traces.len() > 1).then(|| {
        let names = chart.traces.iter().enumerate();
        let names = names.map(
            |(at, t)| view! { <li class=format!("key thread-{}", at + 1)>{t.name.clone()}</li> },
        );
        view! { <ul class="legend">{names.collect_view()}</ul> }
    });
    let traces = chart.traces.into_iter().enumerate().map(|(at, trace)| {
        let (x, y) = trace.end;
        view! {
            <path class=format!("trace trace-{}", at + 1) d=trace.path />
            <circle class=format!("dot trace-{}", at + 1) cx=format!("{x:.1}") cy=format!("{y:.1}") r="3.5" />
        }
    });
    view! {
        <svg viewBox=format!("0 0 {} {}", chart.width, chart.height) role="img" aria-label=chart.summary>
            {y_marks.collect_view()}
            {x_marks.collect_view()}
            <text class="tick" x=right.to_string() y=(top + 4.0).to_string() text-anchor="end">{x_name}</text>
            {traces.collect_view()}
        </svg>
        {legend}
    }
    .into_any()
}
