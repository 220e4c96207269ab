//! The head of the page: its name, the way to every section, what is computed on and with which base.

use leptos::prelude::*;

use crate::protocol::DeviceKind;
use crate::state::{Section, State};

use super::share::ShareButton;
use super::store::Store;

const SECTIONS: [(&str, &str); 8] = [
    ("#compare", "Compare"),
    ("#base", "Base"),
    ("#adapters", "Adapters"),
    ("#merge", "Merge"),
    ("#evaluate", "Evaluate"),
    ("#train", "Train"),
    ("#results", "Results"),
    ("#about", "About"),
];

/// The header.
#[component]
pub(super) fn Header(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let device = store.memo(Section::Session, device);
    let base = store.memo(Section::Session, base);
    let links = SECTIONS.map(|(to, name)| view! { <li><a href=to>{name}</a></li> });
    view! {
        <a class="skip" href="#main">"Skip to the page"</a>
        <header class="head">
            <p class="name"><a href="#">"Qloom"</a></p>
            <p class="status" role="status">
                <span class="status-item">{move || device.get()}</span>
                <span class="status-item">{move || base.get()}</span>
            </p>
            <ShareButton store />
        </header>
        <nav class="nav" aria-label="Sections"><ul>{links.collect_view()}</ul></nav>
    }
    .into_any()
}

fn device(state: &State) -> String {
    let session = &state.session;
    if session.broken {
        return "No worker".to_owned();
    }
    if session.restarting.is_some() {
        return "Starting again".to_owned();
    }
    match &session.device {
        None => "Looking for a device".to_owned(),
        Some(device) => match (device.kind, device.f16) {
            (DeviceKind::WebGpu, true) => "WebGPU, f16".to_owned(),
            (DeviceKind::WebGpu, false) => "WebGPU, f32".to_owned(),
            (DeviceKind::Cpu, _) => "Processor (no WebGPU)".to_owned(),
        },
    }
}

fn base(state: &State) -> String {
    let session = &state.session;
    match (&session.base, session.loading) {
        (_, Some(_)) => "Loading a base".to_owned(),
        (Some(base), None) => base.name.clone(),
        (None, None) => "No base".to_owned(),
    }
}
