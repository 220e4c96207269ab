//! Which adapters are mixed, and with what weights.

use leptos::prelude::*;

use crate::state::Section;
use crate::ui::store::Store;

/// Range of the sliders; the field beside one takes any number.
const RANGE: (f64, f64) = (-1.0, 2.0);

/// A line per adapter: whether it is in, its slider, its weight as a number.
#[component]
pub(super) fn Members(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let names = store.memo(Section::Adapters, |s| s.adapters.names());
    let lines = move || {
        let names = names.get();
        if names.is_empty() {
            return view! { <p class="hint">"Load adapters first."</p> }.into_any();
        }
        names
            .into_iter()
            .map(|name| view! { <Member store name /> })
            .collect_view()
            .into_any()
    };
    view! {
        <fieldset>
            <legend>"Adapters and weights"</legend>
            {lines}
        </fieldset>
    }
    .into_any()
}

#[component]
fn Member(store: Store, name: String) -> impl IntoView {
    let chosen = store.memo(Section::Merge, {
        let name = name.clone();
        move |s| s.merge.has(&name)
    });
    let weight = store.memo(Section::Merge, {
        let name = name.clone();
        move |s| {
            s.merge
                .members
                .iter()
                .find(|m| m.name == name)
                .map_or(1.0, |m| m.weight)
        }
    });
    let toggle = {
        let name = name.clone();
        move |_| store.edit(Section::Merge, |s| s.merge.toggle(&name))
    };
    let weigh = {
        let name = name.clone();
        move |text: String| {
            if let Some(weight) = text.trim().parse::<f64>().ok().filter(|w| w.is_finite()) {
                store.edit(Section::Merge, |s| s.merge.weigh(&name, weight));
            }
        }
    };
    let slide = weigh.clone();
    let (of_slider, of_field) = (
        format!("Weight of {name}, slider"),
        format!("Weight of {name}"),
    );
    view! {
        <div class="member">
            <label class="check">
                <input type="checkbox" prop:checked=move || chosen.get() on:change=toggle />
                <span>{name}</span>
            </label>
            <input
                type="range"
                min=RANGE.0.to_string()
                max=RANGE.1.to_string()
                step="0.05"
                aria-label=of_slider
                disabled=move || !chosen.get()
                prop:value=move || weight.get().to_string()
                on:input=move |e| slide(event_target_value(&e))
            />
            <input
                type="number"
                class="weight"
                step="0.05"
                aria-label=of_field
                disabled=move || !chosen.get()
                prop:value=move || weight.get().to_string()
                on:change=move |e| weigh(event_target_value(&e))
            />
        </div>
    }
    .into_any()
}
