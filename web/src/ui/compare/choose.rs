//! Which models are compared.

use leptos::prelude::*;

use crate::state::{Section, State};
use crate::ui::store::Store;

/// Two places for adapters, and switches for the base, both stacked, and the merge.
#[component]
pub(super) fn Choose(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let merged = store.memo(Section::Compare, |s| s.adapters.merged());
    let two = store.memo(Section::Compare, |s| {
        s.compare.a.is_some() && s.compare.b.is_some()
    });
    view! {
        <fieldset class="choose">
            <legend>"Models"</legend>
            <Switch store label="Base" read=|s| s.compare.base write=|s, on| s.compare.base = on />
            <Pick store label="Adapter A" read=|s| s.compare.a.clone() write=|s, name| s.compare.a = name />
            <Pick store label="Adapter B" read=|s| s.compare.b.clone() write=|s, name| s.compare.b = name />
            <Show when=move || two.get()>
                <Switch store label="A and B stacked" read=|s| s.compare.stacked write=|s, on| s.compare.stacked = on />
            </Show>
            <Show when=move || merged.get()>
                <Switch store label="Merge" read=|s| s.compare.merge write=|s, on| s.compare.merge = on />
            </Show>
        </fieldset>
    }
    .into_any()
}

#[component]
fn Switch(
    store: Store,
    label: &'static str,
    read: fn(&State) -> bool,
    write: fn(&mut State, bool),
) -> impl IntoView {
    view! {
        <label class="check">
            <input
                type="checkbox"
                prop:checked=move || store.read(Section::Compare, read)
                on:change=move |e| store.edit(Section::Compare, |s| write(s, event_target_checked(&e)))
            />
            <span>{label}</span>
        </label>
    }
    .into_any()
}

#[component]
fn Pick(
    store: Store,
    label: &'static str,
    read: fn(&State) -> Option<String>,
    write: fn(&mut State, Option<String>),
) -> impl IntoView {
    let names = store.memo(Section::Adapters, |s| s.adapters.names());
    let chosen = store.memo(Section::Compare, read);
    let options = move || {
        let chosen = chosen.get();
        let option = |name: String| {
            let selected = chosen.as_ref() == Some(&name);
            view! { <option value=name.clone() selected=selected>{name.clone()}</option> }
        };
        names.get().into_iter().map(option).collect_view()
    };
    let change = move |name: String| {
        let name = (!name.is_empty()).then_some(name);
        store.edit(Section::Compare, |s| write(s, name));
    };
    view! {
        <label class="field">
            <span class="field-name">{label}</span>
            <select
                prop:value=move || { names.with(|_| ()); chosen.get().unwrap_or_default() }
                on:change=move |e| change(event_target_value(&e))
            >
                <option value="">"none"</option>
                {options}
            </select>
        </label>
    }
    .into_any()
}
