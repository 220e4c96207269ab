//! What is to be loaded, one thing after the other: on the first visit, from a link, and after the worker was restarted.
//!
//! Adapters need a base and those of the gallery need the gallery, which come in any order; `State::advance` is called
//! whenever one of them has come and does what can be done.

use crate::protocol::{AdapterSource, BaseSource};

use super::adapters::{Fit, GalleryState, fit};
use super::pending::Effect;
use super::{State, site};

/// Adapters of the gallery that the first visit opens with.
const FIRST: usize = 2;

/// An adapter to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// From the site's gallery.
    Gallery {
        /// What to call it.
        name: String,
        /// Its folder.
        slug: String,
    },
    /// From where it says.
    Source {
        /// What to call it.
        name: String,
        /// Where it lies.
        source: AdapterSource,
    },
}

/// What is still to be loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The base.
    pub base: Option<BaseSource>,
    /// Adapters, in order.
    pub adapters: Vec<Wanted>,
    /// The first adapters of the gallery that fit.
    pub first: bool,
    /// The merge, once the adapters are there.
    pub merge: bool,
    /// A first comparison, once everything is there.
    pub ask: bool,
}

impl State {
    /// The plan of a first visit: the site's base, its first adapters, and one comparison.
    #[must_use]
    pub fn first_visit(&self) -> Plan {
        Plan {
            base: Some(self.site_base()),
            first: true,
            ask: true,
            ..Plan::default()
        }
    }

    /// The base of the site.
    #[must_use]
    pub fn site_base(&self) -> BaseSource {
        BaseSource::Url {
            url: format!("{}{}", self.site, site::SITE_BASE),
            name: site::SITE_BASE_NAME.to_owned(),
        }
    }

    /// Does what can be done of the plan.
    pub(super) fn advance(&mut self) -> Vec<Effect> {
        if self.session.device.is_none() {
            return Vec::new();
        }
        if let Some(source) = self.plan.base.take() {
            return self.load_base(source);
        }
        if self.session.base.is_none() || self.session.loading.is_some() {
            return Vec::new();
        }
        let gallery_needed = self.plan.first
            || self
                .plan
                .adapters
                .iter()
                .any(|w| matches!(w, Wanted::Gallery { .. }));
        if gallery_needed && self.adapters.gallery == GalleryState::Loading {
            return Vec::new();
        }
        let mut effects = Vec::new();
        if std::mem::take(&mut self.plan.first) {
            self.plan.adapters.extend(self.first_adapters());
        }
        for wanted in std::mem::take(&mut self.plan.adapters) {
            effects.extend(self.add_wanted(wanted));
        }
        if self.adapters.adding.is_empty() {
            effects.extend(self.finish_plan());
        }
        effects
    }

    fn first_adapters(&self) -> Vec<Wanted> {
        let GalleryState::Loaded(gallery) = &self.adapters.gallery else {
            return Vec::new();
        };
        let base = self.session.base.as_ref();
        let fitting = gallery
            .adapters
            .iter()
            .filter(|row| fit(row, base) == Fit::Yes);
        let wanted = fitting.take(FIRST).map(|row| Wanted::Gallery {
            name: row.name.clone(),
            slug: row.slug.clone(),
        });
        wanted.collect()
    }

    fn add_wanted(&mut self, wanted: Wanted) -> Vec<Effect> {
        match wanted {
            Wanted::Source { name, source } => self.add_adapter(&name, source),
            Wanted::Gallery { name, slug } => match self.gallery_source(&slug) {
                Some(source) => self.add_adapter(&name, source),
                None => {
                    let text =
                        format!("This site has no adapter {slug}, so {name:?} was left out.");
                    self.session.note(&text);
                    Vec::new()
                }
            },
        }
    }

    /// Where an adapter of the gallery lies.
    #[must_use]
    pub fn gallery_source(&self, slug: &str) -> Option<AdapterSource> {
        let GalleryState::Loaded(gallery) = &self.adapters.gallery else {
            return None;
        };
        let row = gallery.adapters.iter().find(|row| row.slug == slug)?;
        Some(AdapterSource::Gallery {
            site: self.site.clone(),
            slug: row.slug.clone(),
            entry_sha256: row.entry_sha256.clone(),
        })
    }

    /// Once the adapters are in: the merge, then the first comparison.
    fn finish_plan(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if std::mem::take(&mut self.plan.merge) {
            effects.extend(self.merge_now());
        }
        if self.plan.ask && !self.compare.prompt.trim().is_empty() {
            self.plan.ask = false;
            if self.compare.exchanges.is_empty() {
                effects.extend(self.ask());
            }
        }
        effects
    }
}
