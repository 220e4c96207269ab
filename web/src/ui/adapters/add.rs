//! An adapter of the visitor's: dropped as a folder or zip, or from a URL.

use leptos::prelude::*;
use web_sys::SubmitEvent;

use crate::protocol::AdapterSource;
use crate::state::{FileKey, Section};
use crate::ui::files::{self, Picked};
use crate::ui::store::Store;
use crate::ui::widgets::{DropZone, Fail};

/// The form.
#[component]
pub(super) fn AddAdapter(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let failure = store.memo(Section::Adapters, |s| {
        s.adapters.failure.as_ref().map(|f| f.1.clone())
    });
    let failed = store.memo(Section::Adapters, |s| {
        s.adapters.failure.as_ref().map(|f| f.0.clone())
    });
    let adding = store.memo(Section::Adapters, |s| {
        let names: Vec<&str> = s.adapters.adding.iter().map(|a| a.1.as_str()).collect();
        (!names.is_empty()).then(|| format!("Loading {}", names.join(", ")))
    });
    let dropped = move |picked: Vec<Picked>| {
        if picked.is_empty() {
            return;
        }
        let name = store.peek(|s| s.adapters.free_name(&name_of(&picked)));
        let (references, blobs) = files::parts(picked);
        store.keep(FileKey::Adapter(name.clone()), blobs);
        store.act(|s| s.add_adapter(&name, AdapterSource::Files { files: references }));
    };
    let url = RwSignal::new(String::new());
    let from_url = move |event: SubmitEvent| {
        event.prevent_default();
        let address = url.get_untracked().trim().to_owned();
        if !address.is_empty() {
            let name = address
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or("adapter")
                .to_owned();
            store.act(|s| s.add_adapter(&name, AdapterSource::Url { url: address }));
        }
    };
    view! {
        <div class="sources">
            <DropZone label="Drop a PEFT adapter here: its folder, its two files, or one zip" accept=".zip,.json,.safetensors"
                folders=true on_files=dropped />
            <form on:submit=from_url>
                <label class="field">
                    <span class="field-name">"Folder at a URL"</span>
                    <input type="url" autocomplete="off" placeholder="https://example.org/adapter/" bind:value=url />
                    <span class="hint">"With adapter_config.json and adapter_model.safetensors; the server must allow this page (CORS)."</span>
                </label>
                <button type="submit">"Load from the URL"</button>
            </form>
        </div>
        <p class="hint" role="status">{move || adding.get()}</p>
        <p class="fail-name">{move || failed.get()}</p>
        <Fail failure />
    }
    .into_any()
}

/// A name from the folder or zip that was dropped.
fn name_of(picked: &[Picked]) -> String {
    let path = picked.first().map_or("adapter", |p| p.path.as_str());
    let name = path.split('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((stem, "zip")) => stem.to_owned(),
        Some((_, "json" | "safetensors" | "md")) => "my files".to_owned(),
        _ => name.to_owned(),
    }
}
