//! What is scored on what: the file, the models, the metrics, the limits.

use leptos::prelude::*;

use crate::protocol::{DataSource, EvalOptions};
use crate::state::adapters::MERGE_NAME;
use crate::state::evaluate::METRICS;
use crate::state::site::SiteFile;
use crate::state::{FileKey, Section};
use crate::ui::files::{self, Picked};
use crate::ui::site;
use crate::ui::store::Store;
use crate::ui::widgets::{DropZone, NumberField, OptionalNumber};

/// The form.
#[component]
pub(super) fn Setup(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let ready = store.memo(Section::Session, |s| s.session.ready());
    let data = store.memo(Section::Evaluate, |s| {
        s.evaluate
            .data
            .is_some()
            .then(|| s.evaluate.data_name.clone())
    });
    let running = store.memo(Section::Evaluate, |s| s.evaluate.running.is_some());
    let blocked = move || !ready.get() || data.get().is_none() || running.get();
    let said = move || match data.get() {
        Some(name) => format!("File: {name}"),
        None => "Choose a file first.".to_owned(),
    };
    view! {
        <DataChoice store />
        <div class="two">
            <Models store />
            <Metrics store />
        </div>
        <Limits store />
        <div class="row">
            <button type="button" disabled=blocked on:click=move |_| store.act(|s| s.evaluate_now())>"Evaluate"</button>
            <span class="hint" role="status">{said}</span>
        </div>
    }
    .into_any()
}

#[component]
fn DataChoice(store: Store) -> impl IntoView {
    let files = RwSignal::new(Vec::<SiteFile>::new());
    site::load_data_files(store, files);
    let choose = move |path: String| {
        let chosen = files.with_untracked(|all| all.iter().find(|f| f.path == path).cloned());
        if let Some(file) = chosen {
            store.edit(Section::Evaluate, |s| {
                s.evaluate.data = Some(DataSource::Url {
                    url: format!("{}{}", s.site, file.path),
                });
                s.evaluate.data_name = file.name;
            });
        }
    };
    let options = move || {
        let option = |f: SiteFile| view! { <option value=f.path>{format!("{} ({} examples)", f.name, f.examples)}</option> };
        files.get().into_iter().map(option).collect_view()
    };
    let dropped = move |picked: Vec<Picked>| {
        let (references, blobs) = files::parts(picked);
        let Some(file) = references.into_iter().next() else {
            return;
        };
        store.keep(FileKey::Data, blobs.into_iter().take(1).collect());
        store.edit(Section::Evaluate, |s| {
            s.evaluate.data_name.clone_from(&file.name);
            s.evaluate.data = Some(DataSource::File { file });
        });
    };
    view! {
        <div class="two">
            <Show when=move || !files.with(Vec::is_empty)>
                <label class="field">
                    <span class="field-name">"Data of this site"</span>
                    <select on:change=move |e| choose(event_target_value(&e))>
                        <option value="">"choose"</option>
                        {options}
                    </select>
                </label>
            </Show>
            <DropZone label="Drop a JSONL or CSV file here" accept=".jsonl,.json,.csv,.txt" on_files=dropped />
        </div>
    }
    .into_any()
}

#[component]
fn Models(store: Store) -> impl IntoView {
    let names = store.memo(Section::Adapters, |s| {
        let mut names = s.adapters.names();
        if s.adapters.merged() {
            names.push(MERGE_NAME.to_owned());
        }
        names
    });
    let boxes = move || {
        let one = |name: String| {
            let asked = name.clone();
            let chosen = store.memo(Section::Evaluate, move |s| {
                !s.evaluate.left_out.contains(&asked)
            });
            let toggled = name.clone();
            view! {
                <label class="check">
                    <input type="checkbox" prop:checked=move || chosen.get()
                        on:change=move |_| store.edit(Section::Evaluate, |s| s.evaluate.toggle(&toggled)) />
                    <span>{name}</span>
                </label>
            }
        };
        names.get().into_iter().map(one).collect_view()
    };
    view! {
        <fieldset>
            <legend>"Models, against the base"</legend>
            {boxes}
            <Show when=move || names.with(Vec::is_empty)><p class="hint">"Only the base is scored; load adapters to compare."</p></Show>
        </fieldset>
    }
    .into_any()
}

#[component]
fn Metrics(store: Store) -> impl IntoView {
    let boxes = METRICS.map(|(name, title)| {
        view! {
            <label class="check">
                <input
                    type="checkbox"
                    prop:checked=move || store.read(Section::Evaluate, |s| s.evaluate.options.metrics.iter().any(|m| m == name))
                    on:change=move |_| store.edit(Section::Evaluate, |s| s.evaluate.toggle_metric(name))
                />
                <span>{title}</span>
            </label>
        }
    });
    view! {
        <fieldset>
            <legend>"Metrics; none chosen: what suits the data"</legend>
            <div class="checks">{boxes.collect_view()}</div>
        </fieldset>
    }
    .into_any()
}

#[component]
fn Limits(store: Store) -> impl IntoView {
    let read = move |f: fn(&EvalOptions) -> f64| {
        Signal::derive(move || store.read(Section::Evaluate, |s| f(&s.evaluate.options)))
    };
    let limit = Signal::derive(move || {
        store.read(Section::Evaluate, |s| {
            s.evaluate.options.limit.map(|l| l as f64)
        })
    });
    let whole = |v: f64| v.max(1.0).round() as usize;
    view! {
        <details class="more">
            <summary>"Limits"</summary>
            <div class="fields">
                <OptionalNumber label="Examples, at most" value=limit
                    set=move |v| store.edit(Section::Evaluate, |s| s.evaluate.options.limit = v.map(whole)) hint="Empty: all of them." />
                <NumberField label="Tokens of an example, at most" value=read(|o| o.max_length as f64)
                    set=move |v| store.edit(Section::Evaluate, |s| s.evaluate.options.max_length = whole(v)) min=1.0 />
                <NumberField label="Examples at a time" value=read(|o| o.batch_size as f64)
                    set=move |v| store.edit(Section::Evaluate, |s| s.evaluate.options.batch_size = whole(v)) min=1.0 />
                <NumberField label="New tokens of a generated answer" value=read(|o| o.sampling.max_new_tokens as f64)
                    set=move |v| store.edit(Section::Evaluate, |s| s.evaluate.options.sampling.max_new_tokens = whole(v)) min=1.0 />
                <label class="field wide">
                    <span class="field-name">"Labels of a classification, separated by commas"</span>
                    <input type="text"
                        prop:value=move || store.read(Section::Evaluate, |s| s.evaluate.options.labels.join(", "))
                        on:change=move |e| {
                            let text = event_target_value(&e);
                            let labels = text.split(',').map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
                            store.edit(Section::Evaluate, |s| s.evaluate.options.labels = labels);
                        } />
                    <span class="hint">"Empty: those of the file."</span>
                </label>
            </div>
        </details>
    }
    .into_any()
}
