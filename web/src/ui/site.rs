//! What the page fetches of its own site: the gallery, the list of data files, prompts to try.

use leptos::prelude::*;
use leptos::task::spawn_local;
use qloom_core::adapters::gallery::{GALLERY, Gallery};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::Response;

use crate::state::Section;
use crate::state::adapters::GalleryState;
use crate::state::site::{DATA_INDEX, SiteFile, data_files, sample_prompts};

use super::store::Store;

/// Prompts offered of one adapter.
const PROMPTS: usize = 2;

/// The site's root: the page's address up to its last slash.
pub(super) fn root() -> String {
    let location = document().base_uri().ok().flatten().unwrap_or_default();
    let bare = location.split(['?', '#']).next().unwrap_or_default();
    let end = bare.rfind('/').map_or(bare.len(), |at| at + 1);
    bare[..end].to_owned()
}

/// A text file; `None` where the server has none.
async fn text(url: &str) -> Result<Option<String>, String> {
    let response = JsFuture::from(window().fetch_with_str(url)).await;
    let response =
        response.map_err(|e| format!("{url} cannot be fetched: {}", super::link::words(&e)))?;
    let response: Response = response
        .dyn_into()
        .map_err(|_| format!("{url}: no response"))?;
    if response.status() == 404 {
        return Ok(None);
    }
    if !response.ok() {
        return Err(format!("{url}: the server answered {}", response.status()));
    }
    let body = response.text().map_err(|e| super::link::words(&e))?;
    let body = JsFuture::from(body)
        .await
        .map_err(|e| super::link::words(&e))?;
    Ok(body.as_string())
}

/// Fetches the gallery, then prompts of its first adapters.
pub(super) fn load_gallery(store: Store) {
    let root = root();
    spawn_local(async move {
        let gallery = match text(&format!("{root}{GALLERY}")).await {
            Ok(None) => GalleryState::Absent,
            Err(problem) => GalleryState::Failed(problem),
            Ok(Some(json)) => match Gallery::from_json(json.as_bytes()) {
                Ok(gallery) => GalleryState::Loaded(gallery),
                Err(error) => GalleryState::Failed(error.to_string()),
            },
        };
        let slugs: Vec<String> = match &gallery {
            GalleryState::Loaded(g) => g.adapters.iter().take(4).map(|r| r.slug.clone()).collect(),
            _ => Vec::new(),
        };
        store.act(|s| s.set_gallery(gallery));
        for slug in slugs {
            let found = text(&format!("{root}adapters/{slug}/samples.jsonl")).await;
            if let Ok(Some(lines)) = found {
                let prompts = sample_prompts(&lines, PROMPTS);
                store.act(|s| s.set_examples(prompts));
            }
        }
    });
}

/// Fetches the list of the site's data files; a site may have none.
pub(super) fn load_data_files(store: Store, files: RwSignal<Vec<SiteFile>>) {
    let root = root();
    spawn_local(async move {
        let found = text(&format!("{root}{DATA_INDEX}")).await;
        match found.map(|json| json.map(|json| data_files(&json))) {
            Ok(Some(Ok(list))) => files.set(list),
            Ok(Some(Err(error))) => {
                store.edit(Section::Session, |s| s.session.note(&error.to_string()))
            }
            Ok(None) | Err(_) => {}
        }
    });
}
