//! How far something is: a native bar and a line of words.

use leptos::prelude::*;

/// The words change many times a second, so they are no live region; the bar has a name and is read when it is visited.
#[component]
pub(crate) fn ProgressBar(
    /// What goes on.
    label: &'static str,
    /// Words, and the share that is done where it is known; nothing is shown for `None`.
    #[prop(into)]
    state: Signal<Option<(String, Option<f64>)>>,
) -> impl IntoView {
    let running = Memo::new(move |_| state.with(Option::is_some));
    let share = move || state.get().and_then(|s| s.1).map(|s| format!("{s:.4}"));
    let words = move || state.get().map(|s| s.0).unwrap_or_default();
    view! {
        <Show when=move || running.get()>
            <div class="progress">
                <progress max="1" aria-label=label value=share></progress>
                <p class="numbers">{words}</p>
            </div>
        </Show>
    }
    .into_any()
}
