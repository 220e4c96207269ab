//! Why something did not work.

use leptos::prelude::*;

use crate::protocol::{Failure, FailureKind};

/// A failure, said at once by screen readers; nothing where there is none.
#[component]
pub(crate) fn Fail(
    /// The failure.
    #[prop(into)]
    failure: Signal<Option<Failure>>,
) -> impl IntoView {
    let shown = move || {
        failure.get().map(|f| {
            view! {
                <p class="fail">
                    <strong>{heading(f.kind)}</strong>
                    " "
                    {f.message}
                </p>
            }
        })
    };
    view! { <div role="alert">{shown}</div> }.into_any()
}

fn heading(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Request => "This cannot be done.",
        FailureKind::Network => "The network or the server failed.",
        FailureKind::Integrity => "A file is not what its hash says.",
        FailureKind::Format => "A file cannot be read.",
        FailureKind::Mismatch => "This adapter is for another base.",
        FailureKind::Memory => "This does not fit.",
        FailureKind::Device => "The device was lost.",
        FailureKind::Internal => "The worker failed.",
    }
}
