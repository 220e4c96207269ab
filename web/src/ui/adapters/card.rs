//! An adapter of the gallery, before anything of it is loaded.

use leptos::prelude::*;
use qloom_core::adapters::gallery::{Estimate, GalleryRow, Score};

use crate::state::adapters::{Fit, fit};
use crate::state::evaluate::metric_title;
use crate::state::{Section, numbers};
use crate::ui::store::Store;

/// Scores shown of one adapter; the folder holds the others.
const SCORES: usize = 3;

/// What it is, what it did, and a button to load it.
#[component]
pub(super) fn Card(
    /// The page's state.
    store: Store,
    /// The row.
    row: GalleryRow,
) -> impl IntoView {
    let stored = StoredValue::new(row.clone());
    let loaded = store.memo(Section::Adapters, {
        let slug = row.slug.clone();
        move |s| s.adapters.of_slug(&slug).is_some()
    });
    let fits = store.memo(Section::Session, move |s| {
        stored.with_value(|row| fit(row, s.session.base.as_ref()))
    });
    let adding = store.memo(Section::Adapters, {
        let name = row.name.clone();
        move |s| s.adapters.adding.iter().any(|(_, n)| *n == name)
    });
    let add = {
        let (slug, name) = (row.slug.clone(), row.name.clone());
        move |_| {
            store.act(|s| match s.gallery_source(&slug) {
                Some(source) => s.add_adapter(&name, source),
                None => Vec::new(),
            });
        }
    };
    let state = move || match (loaded.get(), adding.get(), fits.get()) {
        (true, _, _) => "Loaded, receipt checked",
        (_, true, _) => "Loading",
        (_, _, Fit::No) => "For another base",
        (_, _, Fit::Unknown) => "Load a base first",
        (_, _, Fit::Yes) => "",
    };
    let disabled = move || loaded.get() || adding.get() || fits.get() != Fit::Yes;
    let scores = row.scores.iter().take(SCORES).map(score).collect_view();
    let href = format!("adapters/{}/README.md", row.slug);
    let label = format!("Load {}", row.name);
    view! {
        <article class="card">
            <p class="tag">{row.task}</p>
            <h4>{row.name}</h4>
            {row.description.map(|d| view! { <p>{d}</p> })}
            <dl class="scores">{scores}</dl>
            <dl class="facts">
                <dt>"Base"</dt><dd>{row.base.name}</dd>
                <dt>"Size"</dt><dd>{numbers::bytes(row.size)}</dd>
                <dt>"Licence"</dt><dd>{row.licence.unwrap_or_else(|| "not stated".to_owned())}</dd>
                <dt>"Published"</dt><dd>{row.created}</dd>
            </dl>
            <div class="row">
                <button type="button" disabled=disabled on:click=add aria-label=label>"Load"</button>
                <a href=href>"Card"</a>
                <span class="hint" role="status">{state}</span>
            </div>
        </article>
    }
    .into_any()
}

fn score(score: &Score) -> impl IntoView + use<> {
    let show =
        |e: Option<Estimate>| e.map_or("not measured".to_owned(), |e| numbers::score(e.value));
    let interval = |e: Option<Estimate>| {
        e.and_then(|e| e.interval)
            .map(|[l, h]| format!("{} to {}", numbers::score(l), numbers::score(h)))
    };
    let better = match (score.base, score.adapted) {
        (Some(b), Some(a)) if a.value == b.value => "the same",
        (Some(b), Some(a)) if (a.value < b.value) == score.lower_is_better => "better",
        (Some(_), Some(_)) => "worse",
        _ => "",
    };
    let (before, after) = (show(score.base), show(score.adapted));
    let range = interval(score.adapted).map(|r| view! { <span class="hint">" ("{r}")"</span> });
    view! {
        <div>
            <dt>{metric_title(&score.metric)}</dt>
            <dd class="numbers">
                {before} <span aria-hidden="true">" → "</span><span class="visually-hidden">" before, after "</span>
                <strong>{after}</strong> {range} " " <span class="hint">{better}</span>
            </dd>
        </div>
    }
}
