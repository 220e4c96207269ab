//! How it is trained: the trainer's names and meanings.

use leptos::prelude::*;

use crate::protocol::TrainSettings;
use crate::state::Section;
use crate::ui::store::Store;
use crate::ui::widgets::NumberField;

/// The fields.
#[component]
pub(super) fn SettingsFields(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let read = move |f: fn(&TrainSettings) -> f64| {
        Signal::derive(move || store.read(Section::Train, |s| f(&s.train.settings)))
    };
    let edit = move |f: fn(&mut TrainSettings, f64), v: f64| {
        store.edit(Section::Train, |s| f(&mut s.train.settings, v))
    };
    view! {
        <div class="fields">
            <label class="field">
                <span class="field-name">"Name of the adapter"</span>
                <input type="text" maxlength="60"
                    prop:value=move || store.read(Section::Train, |s| s.train.name.clone())
                    on:input=move |e| store.edit(Section::Train, |s| s.train.name = event_target_value(&e)) />
            </label>
            <NumberField label="Steps" value=read(|t| t.steps as f64) set=move |v| edit(|t, v| t.steps = v.max(0.0) as u64, v) min=1.0 />
            <NumberField label="Examples a step" value=read(|t| t.batch_size as f64) set=move |v| edit(|t, v| t.batch_size = v.max(0.0) as usize, v) min=1.0 />
            <NumberField label="Learning rate" value=read(|t| t.lr) set=move |v| edit(|t, v| t.lr = v, v) step=0.0001 />
            <NumberField label="Rank" value=read(|t| t.rank as f64) set=move |v| edit(|t, v| t.rank = v.max(0.0) as usize, v) min=1.0 />
            <NumberField label="Alpha" value=read(|t| t.alpha) set=move |v| edit(|t, v| t.alpha = v, v) hint="Commonly twice the rank." />
            <NumberField label="Seed" value=read(|t| t.seed as f64) set=move |v| edit(|t, v| t.seed = v.max(0.0) as u64, v) />
        </div>
        <Targets store />
    }
    .into_any()
}

/// Kinds of modules to adapt, of those the base has.
#[component]
fn Targets(store: Store) -> impl IntoView {
    let modules = store.memo(Section::Session, |s| {
        s.session
            .base
            .as_ref()
            .map(|b| b.modules.clone())
            .unwrap_or_default()
    });
    let boxes = move || {
        let one = |module: String| {
            let asked = module.clone();
            let chosen = store.memo(Section::Train, move |s| {
                s.train.settings.target_modules.contains(&asked)
            });
            let toggled = module.clone();
            let toggle = move |_| {
                store.edit(Section::Train, |s| {
                    let targets = &mut s.train.settings.target_modules;
                    match targets.iter().position(|t| *t == toggled) {
                        Some(at) => {
                            targets.remove(at);
                        }
                        None => targets.push(toggled.clone()),
                    }
                });
            };
            view! {
                <label class="check">
                    <input type="checkbox" prop:checked=move || chosen.get() on:change=toggle />
                    <span class="mono">{module}</span>
                </label>
            }
        };
        modules.get().into_iter().map(one).collect_view()
    };
    view! {
        <Show when=move || !modules.with(Vec::is_empty)>
            <fieldset>
                <legend>"Modules to adapt"</legend>
                <div class="checks">{boxes}</div>
            </fieldset>
        </Show>
    }
    .into_any()
}
