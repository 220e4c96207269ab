//! How it is mixed: the method and the parameters that it takes.

use leptos::prelude::*;
use qloom_core::merge::{Method, Sign};

use crate::state::Section;
use crate::state::merge::about;
use crate::ui::store::Store;
use crate::ui::widgets::{NumberField, OptionalNumber};

/// Parameters that a method does not take are not shown.
#[component]
pub(super) fn MethodFields(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    let settings = store.memo(Section::Merge, |s| s.merge.settings.clone());
    let exact = Memo::new(move |_| settings.with(|s| s.exact));
    let method = Memo::new(move |_| settings.with(|s| s.method));
    let applies = move |f: fn(Method) -> bool| !exact.get() && f(method.get());
    let options = Method::ALL.map(
        |m| view! { <option value=m.name() selected=move || method.get() == m>{m.name()}</option> },
    );
    let choose = move |name: String| {
        if let Ok(method) = name.parse::<Method>() {
            store.edit(Section::Merge, |s| s.merge.choose(method));
        }
    };
    let explained = move || match exact.get() {
        true => {
            "The weighted sum of the updates itself, truncated once to the rank it has or the one you choose."
        }
        false => about(method.get()),
    };
    view! {
        <fieldset>
            <legend>"Method"</legend>
            <label class="check">
                <input type="checkbox" prop:checked=move || exact.get()
                    on:change=move |e| store.edit(Section::Merge, |s| s.merge.exactly(event_target_checked(&e))) />
                <span>"Exact weighted sum"</span>
            </label>
            <label class="field">
                <span class="field-name">"Method"</span>
                <select disabled=move || exact.get() prop:value=move || method.get().name() on:change=move |e| choose(event_target_value(&e))>
                    {options.collect_view()}
                </select>
                <span class="hint">{explained}</span>
            </label>
            <div class="fields">
                <Show when=move || applies(Method::prunes)>
                    <NumberField label="Density" value=Signal::derive(move || settings.with(|s| s.density.unwrap_or(0.5)))
                        set=move |v| store.edit(Section::Merge, |s| s.merge.settings.density = Some(v))
                        max=1.0 step=0.05 hint="Share of entries that are kept." />
                </Show>
                <Show when=move || applies(Method::elects)>
                    <SignField store />
                </Show>
                <Show when=move || exact.get() || method.get().truncates()>
                    <OptionalNumber label="Rank" value=Signal::derive(move || settings.with(|s| s.rank.map(|r| r as f64)))
                        set=move |v| store.edit(Section::Merge, |s| s.merge.settings.rank = v.map(|v| v.max(0.0) as usize))
                        hint="Empty: the largest of the adapters', or the sum's own." />
                    <OptionalNumber label="Clamp" value=Signal::derive(move || settings.with(|s| s.clamp))
                        set=move |v| store.edit(Section::Merge, |s| s.merge.settings.clamp = v)
                        step=0.01 hint="Quantile from 0.5 to 1; empty: none." />
                </Show>
                <Show when=move || applies(Method::draws)>
                    <NumberField label="Seed" value=Signal::derive(move || settings.with(|s| s.seed as f64))
                        set=move |v| store.edit(Section::Merge, |s| s.merge.settings.seed = v.max(0.0) as u64)
                        hint="The same seed drops the same entries, here and in the trainer." />
                </Show>
            </div>
        </fieldset>
    }
    .into_any()
}

#[component]
fn SignField(store: Store) -> impl IntoView {
    let frequency = store.memo(Section::Merge, |s| s.merge.settings.sign == Sign::Frequency);
    let choose = move |name: String| {
        if let Ok(sign) = name.parse::<Sign>() {
            store.edit(Section::Merge, |s| s.merge.settings.sign = sign);
        }
    };
    view! {
        <label class="field">
            <span class="field-name">"Sign election"</span>
            <select prop:value=move || if frequency.get() { "frequency" } else { "total" } on:change=move |e| choose(event_target_value(&e))>
                <option value="total">"total: of the sum"</option>
                <option value="frequency" selected=move || frequency.get()>"frequency: of the majority"</option>
            </select>
        </label>
    }
    .into_any()
}
