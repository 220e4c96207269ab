//! The button that copies a link to what is shown, and the question before a link loads something from elsewhere.

use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use crate::state::Section;
use crate::state::share::{Shared, encode};

use super::store::Store;

/// Puts the link into the address bar and the clipboard, and says so.
#[component]
pub(super) fn ShareButton(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let said = RwSignal::new(String::new());
    let share = move |_| {
        let (shared, left_out) = store.peek(Shared::of);
        let url = format!("{}#{}", super::site::root(), encode(&shared));
        let history = window().history();
        let shown = history.and_then(|h| h.replace_state_with_url(&JsValue::NULL, "", Some(&url)));
        spawn_local(async move {
            let copied = JsFuture::from(window().navigator().clipboard().write_text(&url)).await;
            let done = match (copied.is_ok(), shown.is_ok()) {
                (true, _) => "The link is copied.",
                (false, true) => "The link stands in the address bar.",
                (false, false) => "This browser let the link be put nowhere.",
            };
            let rest = match left_out.is_empty() {
                true => String::new(),
                false => format!(
                    " Not in it, since it is only on this machine: {}.",
                    left_out.join(", ")
                ),
            };
            said.set(format!("{done}{rest}"));
        });
    };
    view! {
        <div class="share">
            <button type="button" class="quiet" on:click=share>"Copy a link to this"</button>
            <span class="hint" role="status">{move || said.get()}</span>
        </div>
    }
    .into_any()
}

/// Asks before anything is loaded that the visitor has not chosen.
#[component]
pub(super) fn Consent(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let wanted = store.memo(Section::Session, |s| {
        s.consent.as_ref().map(Shared::outside)
    });
    let load = move |_| {
        store.act(|s| match s.consent.take() {
            Some(shared) => s.restore(shared),
            None => Vec::new(),
        });
    };
    let decline = move |_| {
        store.act(|s| {
            s.consent = None;
            let plan = s.first_visit();
            s.start(plan)
        });
    };
    let shown = move || {
        wanted.get().map(|places| {
            let places = places.into_iter().map(|p| view! { <li class="mono">{p}</li> }).collect_view();
            view! {
                <section class="panel consent" aria-labelledby="consent-title">
                    <h2 id="consent-title">"This link wants to load files from elsewhere"</h2>
                    <ul>{places}</ul>
                    <div class="row">
                        <button type="button" on:click=load>"Load them"</button>
                        <button type="button" class="quiet" on:click=decline>"Open without them"</button>
                    </div>
                </section>
            }
        })
    };
    view! { {shown} }.into_any()
}
