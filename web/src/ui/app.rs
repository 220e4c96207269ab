//! The page as a whole: header, sections in order, footer; what happens when it opens.

use leptos::prelude::*;

use crate::state::share::{ShareError, Shared, decode};
use crate::state::{Plan, Section};

use super::about::About;
use super::adapters::AdaptersSection;
use super::base::BaseSection;
use super::compare::CompareSection;
use super::evaluate::EvaluateSection;
use super::header::Header;
use super::merge::MergeSection;
use super::results::ResultsSection;
use super::share::Consent;
use super::site;
use super::store::Store;
use super::train::TrainSection;

/// The page.
#[component]
pub(super) fn App() -> impl IntoView {
    let store = Store::new(&site::root());
    site::load_gallery(store);
    open(store);
    view! {
        <Header store />
        <main id="main">
            <BaseSection store />
            <Consent store />
            <CompareSection store />
            <AdaptersSection store />
            <MergeSection store />
            <EvaluateSection store />
            <TrainSection store />
            <ResultsSection store />
            <About store />
        </main>
    }
    .into_any()
}

/// Starts from the link the page was opened with, or as on a first visit.
fn open(store: Store) {
    let fragment = window().location().hash().unwrap_or_default();
    match decode(&fragment) {
        Ok(Some(shared)) if shared.outside().is_empty() => store.act(|s| s.restore(shared)),
        Ok(Some(shared)) => ask_first(store, shared),
        Ok(None) => first_visit(store),
        Err(error) => refuse(store, &error),
    }
    // The section of the fragment did not exist when the browser looked for it.
    let section = fragment
        .trim_start_matches('#')
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    request_animation_frame(move || {
        if let Some(element) = document()
            .get_element_by_id(&section)
            .filter(|_| !section.is_empty())
        {
            element.scroll_into_view();
        }
    });
}

fn first_visit(store: Store) {
    store.act(|s| {
        let plan = s.first_visit();
        s.start(plan)
    });
}

/// A link that wants something from elsewhere waits for the visitor; only the device is opened.
fn ask_first(store: Store, shared: Shared) {
    store.edit(Section::Session, |s| s.consent = Some(shared));
    store.act(|s| s.start(Plan::default()));
}

fn refuse(store: Store, error: &ShareError) {
    let text = error.to_string();
    store.edit(Section::Session, |s| s.session.note(&text));
    first_visit(store);
}
