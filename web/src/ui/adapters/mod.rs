//! *Adapters*: the site's gallery, what is loaded, and the visitor's own.

mod add;
mod card;
mod resident;

use leptos::prelude::*;

use crate::state::Section;
use crate::state::adapters::GalleryState;

use self::add::AddAdapter;
use self::card::Card;
use self::resident::ResidentList;
use super::store::Store;

/// The section.
#[component]
pub(super) fn AdaptersSection(
    /// The page's state.
    store: Store,
) -> impl IntoView {
    view! {
        <section id="adapters" aria-labelledby="adapters-title">
            <h2 id="adapters-title">"Adapters"</h2>
            <p class="lead">
                "Small files that change a base. Those of this site come with scores measured before and after training, and
                every file of theirs is held to its hash."
            </p>
            <h3>"Loaded"</h3>
            <ResidentList store />
            <h3>"On this site"</h3>
            <Gallery store />
            <h3>"Your own"</h3>
            <AddAdapter store />
        </section>
    }
    .into_any()
}

#[component]
fn Gallery(store: Store) -> impl IntoView {
    let gallery = store.memo(Section::Adapters, |s| s.adapters.gallery.clone());
    let shown = move || match gallery.get() {
        GalleryState::Loading => {
            view! { <p class="hint">"The gallery is being fetched."</p> }.into_any()
        }
        GalleryState::Absent => {
            view! { <p class="hint">"This site has no gallery."</p> }.into_any()
        }
        GalleryState::Failed(why) => {
            view! { <p class="fail">"The gallery cannot be shown: " {why}</p> }.into_any()
        }
        GalleryState::Loaded(gallery) if gallery.adapters.is_empty() => {
            view! { <p class="hint">"The gallery is empty."</p> }.into_any()
        }
        GalleryState::Loaded(gallery) => {
            let cards = gallery
                .adapters
                .into_iter()
                .map(|row| view! { <li><Card store row /></li> });
            view! { <ul class="cards">{cards.collect_view()}</ul> }.into_any()
        }
    };
    view! { {shown} }.into_any()
}
