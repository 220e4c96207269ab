//! How answers are sampled: the trainer's settings and names.

use leptos::prelude::*;
use qloom_core::generation::SamplingConfig;

use crate::state::Section;
use crate::ui::store::Store;
use crate::ui::widgets::NumberField;

/// The controls, folded away at first.
#[component]
pub(super) fn SamplingControls(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let hidden = store.memo(Section::Session, |s| {
        s.session.base.as_ref().is_some_and(|b| b.classifier)
    });
    let chat = store.memo(Section::Session, |s| {
        s.session.base.as_ref().is_some_and(|b| b.chat)
    });
    let read = move |f: fn(&SamplingConfig) -> f64| {
        Signal::derive(move || store.read(Section::Compare, |s| f(&s.compare.sampling)))
    };
    let problem = store.memo(Section::Compare, |s| {
        s.compare.sampling.validate().err().map(|e| e.to_string())
    });
    let whole = |v: f64| v.max(0.0).round() as usize;
    let set = move |f: fn(&mut SamplingConfig, f64), v: f64| {
        store.edit(Section::Compare, |s| f(&mut s.compare.sampling, v))
    };
    view! {
        <details class="more" hidden=move || hidden.get()>
            <summary>"Sampling and template"</summary>
            <div class="fields">
                <NumberField label="Temperature" value=read(|s| s.temperature) set=move |v| set(|s, v| s.temperature = v, v)
                    max=5.0 step=0.05 hint="0 takes the most likely token always." />
                <NumberField label="New tokens, at most" value=read(|s| s.max_new_tokens as f64)
                    set=move |v| store.edit(Section::Compare, |s| s.compare.sampling.max_new_tokens = whole(v).max(1)) min=1.0 />
                <NumberField label="Top-k" value=read(|s| s.top_k as f64)
                    set=move |v| store.edit(Section::Compare, |s| s.compare.sampling.top_k = whole(v)) hint="0 keeps all." />
                <NumberField label="Top-p" value=read(|s| s.top_p) set=move |v| set(|s, v| s.top_p = v, v) max=1.0 step=0.01 hint="1 keeps all." />
                <NumberField label="Min-p" value=read(|s| s.min_p) set=move |v| set(|s, v| s.min_p = v, v) max=1.0 step=0.01 hint="0 keeps all." />
                <NumberField label="Repetition penalty" value=read(|s| s.repetition_penalty)
                    set=move |v| set(|s, v| s.repetition_penalty = v, v) step=0.05 hint="1 changes nothing." />
                <NumberField label="Seed" value=read(|s| s.seed as f64)
                    set=move |v| store.edit(Section::Compare, |s| s.compare.sampling.seed = v.max(0.0) as u64) hint="The same for every column." />
                <label class="field">
                    <span class="field-name">"Stop strings, one a line"</span>
                    <textarea
                        rows="2"
                        prop:value=move || store.read(Section::Compare, |s| s.compare.sampling.stop.join("\n"))
                        on:change=move |e| {
                            let lines = event_target_value(&e);
                            let stop = lines.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect();
                            store.edit(Section::Compare, |s| s.compare.sampling.stop = stop);
                        }
                    ></textarea>
                </label>
            </div>
            <Show when=move || chat.get()>
                <Template store />
            </Show>
            <p class="fail" role="alert">{move || problem.get()}</p>
        </details>
    }
    .into_any()
}

/// The base's chat template, and a system turn.
#[component]
fn Template(store: Store) -> impl IntoView {
    view! {
        <div class="fields">
            <label class="check">
                <input
                    type="checkbox"
                    prop:checked=move || store.read(Section::Compare, |s| s.compare.chat)
                    on:change=move |e| store.edit(Section::Compare, |s| s.compare.chat = event_target_checked(&e))
                />
                <span>"Use the base's chat template, and keep the conversation"</span>
            </label>
            <label class="field wide">
                <span class="field-name">"System turn"</span>
                <textarea
                    rows="2"
                    prop:value=move || store.read(Section::Compare, |s| s.compare.system.clone())
                    on:input=move |e| store.edit(Section::Compare, |s| s.compare.system = event_target_value(&e))
                ></textarea>
            </label>
        </div>
    }
    .into_any()
}
