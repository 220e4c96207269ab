//! A place to drop files on, with buttons that do the same: one for files, one for a folder.

use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsCast;
use web_sys::{DragEvent, HtmlInputElement};

use crate::ui::files::{self, Picked};

/// Hands over what was dropped or picked.
#[component]
pub(crate) fn DropZone(
    /// What to drop.
    label: &'static str,
    /// Endings the picker offers, as of `accept`; all where empty.
    #[prop(optional)]
    accept: &'static str,
    /// Whether a folder may be picked.
    #[prop(optional)]
    folders: bool,
    /// Takes the files.
    on_files: impl Fn(Vec<Picked>) + Clone + 'static,
) -> impl IntoView {
    let over = RwSignal::new(false);
    let drop = {
        let on_files = on_files.clone();
        move |event: DragEvent| {
            event.prevent_default();
            over.set(false);
            let Some(transfer) = event.data_transfer() else {
                return;
            };
            let entries = files::entries(&transfer);
            let on_files = on_files.clone();
            spawn_local(async move { on_files(files::of_entries(entries).await) });
        }
    };
    let hold = move |event: DragEvent| {
        event.prevent_default();
        over.set(true);
    };
    let picked = move |event: web_sys::Event| {
        let input = event
            .target()
            .and_then(|t| t.dyn_into::<HtmlInputElement>().ok());
        let Some(input) = input else {
            return;
        };
        let found = files::of_list(input.files());
        // The same file can be picked again.
        input.set_value("");
        if !found.is_empty() {
            on_files(found);
        }
    };
    let folder = folders.then(|| {
        view! {
            <label class="button">
                "Choose a folder"
                {folder_input(picked.clone())}
            </label>
        }
    });
    view! {
        <div class="drop" class:over=move || over.get() on:drop=drop on:dragover=hold on:dragleave=move |_| over.set(false)>
            <p>{label}</p>
            <div class="row">
                <label class="button">
                    "Choose files"
                    <input class="visually-hidden" type="file" multiple accept=accept on:change=picked.clone() />
                </label>
                {folder}
            </div>
        </div>
    }
    .into_any()
}

/// The attribute that lets a picker take a folder is in no standard, so the macro does not know it.
fn folder_input(picked: impl FnMut(web_sys::Event) + 'static) -> impl IntoView {
    leptos::html::input()
        .class("visually-hidden")
        .r#type("file")
        .multiple(true)
        .attr("webkitdirectory", "")
        .on(leptos::ev::change, picked)
}
