//! A number with its name; the text field and, where there is a range, a slider show the same.

use leptos::prelude::*;

/// A number. What is no number leaves the value as it was.
#[component]
pub(crate) fn NumberField(
    /// Its name.
    label: &'static str,
    /// What it is.
    #[prop(into)]
    value: Signal<f64>,
    /// Takes what it becomes.
    set: impl Fn(f64) + Copy + 'static,
    /// Smallest.
    #[prop(default = 0.0)]
    min: f64,
    /// Largest; infinite for none.
    #[prop(default = f64::INFINITY)]
    max: f64,
    /// Between neighbours.
    #[prop(default = 1.0)]
    step: f64,
    /// What it does.
    #[prop(optional)]
    hint: &'static str,
) -> impl IntoView {
    let change = move |text: String| {
        if let Ok(number) = text.trim().parse::<f64>()
            && number.is_finite()
        {
            set(number);
        }
    };
    let upper = max.is_finite().then(|| max.to_string());
    view! {
        <label class="field">
            <span class="field-name">{label}</span>
            <input
                type="number"
                inputmode="decimal"
                min=min.to_string()
                max=upper
                step=step.to_string()
                prop:value=move || value.get().to_string()
                on:change=move |e| change(event_target_value(&e))
            />
            {(!hint.is_empty()).then(|| view! { <span class="hint">{hint}</span> })}
        </label>
    }
    .into_any()
}

/// A number that may be absent: an empty field.
#[component]
pub(crate) fn OptionalNumber(
    /// Its name.
    label: &'static str,
    /// What it is.
    #[prop(into)]
    value: Signal<Option<f64>>,
    /// Takes what it becomes.
    set: impl Fn(Option<f64>) + Copy + 'static,
    /// Between neighbours.
    #[prop(default = 1.0)]
    step: f64,
    /// What it does, and what holds where it is empty.
    #[prop(optional)]
    hint: &'static str,
) -> impl IntoView {
    let change = move |text: String| match text.trim() {
        "" => set(None),
        text => {
            if let Ok(number) = text.parse::<f64>() {
                set(Some(number));
            }
        }
    };
    view! {
        <label class="field">
            <span class="field-name">{label}</span>
            <input
                type="number"
                inputmode="decimal"
                min="0"
                step=step.to_string()
                prop:value=move || value.get().map_or_else(String::new, |v| v.to_string())
                on:change=move |e| change(event_target_value(&e))
            />
            {(!hint.is_empty()).then(|| view! { <span class="hint">{hint}</span> })}
        </label>
    }
    .into_any()
}
