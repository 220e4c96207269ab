//! What this is, what it does not do, and what the browser keeps.

use leptos::prelude::*;

use crate::protocol::DeviceKind;
use crate::state::{Section, numbers};

use super::store::Store;

/// The last section.
#[component]
pub(super) fn About(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let device = store.memo(Section::Session, |s| s.session.device.clone());
    let shown = move || {
        device.get().map(|d| {
            let kind = match d.kind {
                DeviceKind::WebGpu => "GPU, through WebGPU",
                DeviceKind::Cpu => "processor, in WebAssembly",
            };
            let buffer = (d.max_buffer > 0).then(
                || view! { <dt>"Largest buffer"</dt><dd>{numbers::bytes(d.max_buffer)}</dd> },
            );
            let reason = d
                .reason
                .map(|r| view! { <dt>"Why not the GPU"</dt><dd>{r}</dd> });
            view! {
                <dl class="facts">
                    <dt>"Computes on"</dt><dd>{kind}</dd>
                    <dt>"Name"</dt><dd>{d.name}</dd>
                    <dt>"Numbers"</dt><dd>{if d.f16 { "f16" } else { "f32" }}</dd>
                    {buffer}
                    {reason}
                </dl>
            }
        })
    };
    view! {
        <section id="about" aria-labelledby="about-title">
            <h2 id="about-title">"About"</h2>
            <div class="prose">
                <p>
                    "Qloom fine-tunes language models with QLoRA. This page loads the same 4-bit bytes the trainer used, puts
                    adapters on them, and computes everything on your machine. Nothing you type leaves it, and the page asks
                    other servers only for the bases and adapters you choose."
                </p>
                <p>
                    "Limits: models of the Llama, Mistral, Qwen2, BERT and DistilBERT families; a base must fit the memory
                    of the GPU, and small ones only run where there is no WebGPU. Dropped files of a base are read whole
                    into memory on their way. Training here is short and meant for small bases; longer runs belong to the
                    trainer. Scores on a few examples have wide intervals: look at the brackets."
                </p>
                <p>"Downloaded bases are kept in this browser's storage, so that a second visit needs no network."</p>
            </div>
            {shown}
            <p><button type="button" class="quiet" on:click=move |_| store.act(|s| s.clear_cache())>"Remove stored bases"</button></p>
        </section>
    }
    .into_any()
}
