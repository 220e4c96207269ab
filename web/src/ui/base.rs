//! The base: what is loaded, how far loading is, and where another one may come from.

use leptos::prelude::*;

use crate::protocol::{BaseInfo, BaseSource, DeviceKind};
use crate::state::{FileKey, Section, numbers};

use super::files::{self, Picked};
use super::store::Store;
use super::widgets::{DropZone, Facts, Fail, ProgressBar};

/// The section.
#[component]
pub(super) fn BaseSection(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let loaded = store.memo(Section::Session, |s| s.session.base.clone());
    let progress = store.memo(Section::Session, |s| {
        s.session.loading?;
        let known = s.session.progress.map(|p| (p.words(), p.share()));
        Some(known.unwrap_or_else(|| ("Asking for the base".to_owned(), None)))
    });
    let failure = store.memo(Section::Session, |s| s.session.failure.clone());
    let loading = store.memo(Section::Session, |s| s.session.loading);
    let stop = move |_| {
        if let Some(id) = loading.get_untracked() {
            store.act(|s| s.stop(id));
        }
    };
    view! {
        <section id="base" aria-labelledby="base-title" class="opening">
            <h1 id="base-title">"See what an adapter changes, on your own machine"</h1>
            <p class="lead">
                "A small language model in 4 bits, and adapters that were trained on it. Ask all of them the same thing, mix
                them, measure them. Nothing is installed and nothing you type leaves this page."
            </p>
            <div class="loaded">{move || loaded.get().map(facts)}</div>
            <ProgressBar label="Loading the base" state=progress />
            <Show when=move || loading.get().is_some()>
                <button type="button" class="quiet" on:click=stop>"Stop loading"</button>
            </Show>
            <Fail failure />
            <Worker store />
            <Notes store />
            <details class="more">
                <summary>"Load another base"</summary>
                <Sources store />
            </details>
        </section>
    }
    .into_any()
}

fn facts(base: BaseInfo) -> impl IntoView {
    let quantized = match base.quantization.as_str() {
        "nf4" => "4 bits (NF4)".to_owned(),
        "none" => "not quantized".to_owned(),
        other => other.to_owned(),
    };
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let facts = vec![
        fact("Base", base.name),
        fact("Family", base.architecture),
        fact("Parameters", numbers::count(base.parameters)),
        fact("Weights", quantized),
        fact("On the device", numbers::bytes(base.bytes)),
        fact(
            "Context",
            format!("{} tokens", numbers::count(base.context as u64)),
        ),
    ];
    view! { <Facts facts /> }
}

/// What happens to the worker, and the way back where it was given up.
#[component]
fn Worker(store: Store) -> impl IntoView {
    let restarting = store.memo(Section::Session, |s| s.session.restarting.clone());
    let broken = store.memo(Section::Session, |s| s.session.broken);
    view! {
        <p role="status" class="hint">{move || restarting.get()}</p>
        <Show when=move || broken.get()>
            <div class="row">
                <button type="button" on:click=move |_| store.act(|s| s.restart(None))>"Start again"</button>
                <button type="button" class="quiet" on:click=move |_| store.act(|s| s.restart(Some(DeviceKind::Cpu)))>
                    "Start on the processor"
                </button>
            </div>
        </Show>
    }
    .into_any()
}

#[component]
fn Notes(store: Store) -> impl IntoView {
    let notes = store.memo(Section::Session, |s| s.session.notes.clone());
    let shown = move || {
        notes
            .get()
            .into_iter()
            .map(|n| view! { <li>{n}</li> })
            .collect_view()
    };
    view! { <ul class="notes" aria-live="polite">{shown}</ul> }.into_any()
}

/// The four places a base can come from.
#[component]
fn Sources(store: Store) -> impl IntoView {
    let hub = RwSignal::new(String::new());
    let url = RwSignal::new(String::new());
    let from_hub = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let repository = hub.get_untracked().trim().to_owned();
        if !repository.is_empty() {
            store.act(|s| s.load_base(BaseSource::Hub { repository }));
        }
    };
    let from_url = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let url = url.get_untracked().trim().to_owned();
        if !url.is_empty() {
            let name = url
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or(&url)
                .to_owned();
            store.act(|s| s.load_base(BaseSource::Url { url, name }));
        }
    };
    let from_files = move |picked: Vec<Picked>| {
        let (references, blobs) = files::parts(picked);
        store.keep(FileKey::Base, blobs);
        store.act(|s| s.load_base(BaseSource::Files { files: references }));
    };
    let own = move |_| {
        store.act(|s| {
            let source = s.site_base();
            s.load_base(source)
        });
    };
    view! {
        <div class="sources">
            <div>
                <h2 class="small">"This site's base"</h2>
                <button type="button" on:click=own>"Load the small base"</button>
            </div>
            <form on:submit=from_hub>
                <label class="field">
                    <span class="field-name">"Hugging Face repository"</span>
                    <input type="text" placeholder="owner/name" autocomplete="off" spellcheck="false" bind:value=hub />
                    <span class="hint">"Plain weights are quantized on the way in; 4-bit ones are taken as they are."</span>
                </label>
                <button type="submit">"Load from the hub"</button>
            </form>
            <form on:submit=from_url>
                <label class="field">
                    <span class="field-name">"Folder at a URL"</span>
                    <input type="url" placeholder="https://example.org/model/" autocomplete="off" bind:value=url />
                    <span class="hint">"With config.json, tokenizer.json and model.safetensors; the server must allow this page (CORS)."</span>
                </label>
                <button type="submit">"Load from the URL"</button>
            </form>
            <DropZone label="Drop a model's files or folder here" folders=true on_files=from_files />
        </div>
    }
    .into_any()
}
