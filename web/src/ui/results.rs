//! *Results*: files of a native run, with the tables and plots of an evaluation made here.

use leptos::prelude::*;
use leptos::task::spawn_local;

use crate::state::Section;
use crate::state::results::Opened;

use super::charts::{BarsChart, ConfusionTable, LinesChart};
use super::examples::{ExampleTable, Source};
use super::files::{self, Picked};
use super::store::Store;
use super::widgets::{DropZone, Facts, GridTable};

/// The section.
#[component]
pub(super) fn ResultsSection(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let names = store.memo(Section::Results, |s| {
        s.results
            .files
            .iter()
            .map(|f| f.name.clone())
            .collect::<Vec<_>>()
    });
    let failures = store.memo(Section::Results, |s| s.results.failures.clone());
    let open = move |picked: Vec<Picked>| {
        spawn_local(async move {
            for Picked { path, file } in picked.into_iter().filter(|p| shows(&p.path)) {
                if let Some(text) = files::text(&file).await {
                    store.edit(Section::Results, |s| s.results.open(&path, &text));
                }
            }
        });
    };
    let failed = move || {
        failures
            .get()
            .into_iter()
            .map(|(_, why)| view! { <li class="fail">{why}</li> })
            .collect_view()
    };
    view! {
        <section id="results" aria-labelledby="results-title">
            <h2 id="results-title">"Results"</h2>
            <p class="lead">
                "Open files of a run on your computer: metrics.json, scores.csv, per_example.csv, experiments.csv, log.jsonl, or
                the whole folder. They stay in this page."
            </p>
            <DropZone label="Drop a run's files or folder here" accept=".json,.jsonl,.csv" folders=true on_files=open />
            <div role="alert"><ul class="plain">{failed}</ul></div>
            <For each=move || names.get() key=String::clone let:name>
                <OpenedFile store name />
            </For>
        </section>
    }
    .into_any()
}

/// Of a folder, only what this section reads is opened; configurations and receipts are passed over.
fn shows(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let whole_folder = path.contains('/');
    let known =
        ["metrics.json", "scores.json", "log.jsonl"].contains(&name) || name.ends_with(".csv");
    known || !whole_folder
}

#[component]
fn OpenedFile(store: Store, name: String) -> impl IntoView {
    let read = name.clone();
    // The rows have a component of their own, which follows how they are sorted.
    let file = store.memo(Section::Results, move |s| {
        let file = s.results.files.iter().find(|f| f.name == read)?;
        Some(Opened {
            examples: None,
            ..file.clone()
        })
    });
    let shown = move || file.get().map(draw);
    let close = {
        let name = name.clone();
        move |_| store.edit(Section::Results, |s| s.results.close(&name))
    };
    let label = format!("Close {name}");
    view! {
        <article class="opened">
            <div class="resident-head">
                <h3 class="mono">{name.clone()}</h3>
                <button type="button" class="quiet" aria-label=label on:click=close>"Close"</button>
            </div>
            {shown}
            <ExampleTable store source=Source::File(name) />
        </article>
    }
    .into_any()
}

fn draw(file: Opened) -> AnyView {
    let grids = file
        .grids
        .into_iter()
        .map(|grid| view! { <GridTable grid /> })
        .collect_view();
    let bars = file
        .bars
        .into_iter()
        .map(|b| view! { <BarsChart title=b.title bars=b.bars /> })
        .collect_view();
    let matrices = file
        .confusions
        .into_iter()
        .map(|c| view! { <ConfusionTable name=c.name labels=c.labels rows=c.rows /> });
    let curve = (!file.curve.is_empty()).then(|| {
        let series = file.curve;
        view! { <LinesChart series=Signal::derive(move || series.clone()) x_name="step" /> }
    });
    view! {
        <p class="hint">"Taken for " {file.kind} "."</p>
        <Facts facts=file.facts />
        {curve}
        {grids}
        <div class="charts">{bars}</div>
        <div class="charts">{matrices.collect_view()}</div>
    }
    .into_any()
}
