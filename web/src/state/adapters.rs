//! The adapters: those of the site's gallery, and those that are resident in the worker.

use qloom_core::adapters::gallery::{Gallery, GalleryRow};

use crate::protocol::{AdapterInfo, AdapterSource, BaseInfo, Failure};

/// The name under which the page keeps its merge.
pub const MERGE_NAME: &str = "merge";

/// What is known of the gallery.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GalleryState {
    /// It is being asked for.
    #[default]
    Loading,
    /// The site has none.
    Absent,
    /// It cannot be used.
    Failed(String),
    /// Its rows.
    Loaded(Gallery),
}

/// Whether an adapter is for the loaded base, as far as its row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// By fingerprint, or by name where there is none to compare.
    Yes,
    /// It is for another base.
    No,
    /// No base is loaded.
    Unknown,
}

/// A resident adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Resident {
    /// What it is.
    pub info: AdapterInfo,
    /// Where it lies; `None` for what was made here.
    pub source: Option<AdapterSource>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapters {
    /// The site's.
    pub gallery: GalleryState,
    /// The worker's, in the order they were added.
    pub resident: Vec<Resident>,
    /// Being added: request and name.
    pub adding: Vec<(u64, String)>,
    /// The last that could not be added, and why.
    pub failure: Option<(String, Failure)>,
}

/// Whether `row` is for `base`.
#[must_use]
pub fn fit(row: &GalleryRow, base: Option<&BaseInfo>) -> Fit {
    let Some(base) = base else {
        return Fit::Unknown;
    };
    let wanted = row.base.fingerprint.iter().chain(&row.base.equivalent);
    let yes = match (&base.fingerprint, &row.base.fingerprint) {
        (Some(found), Some(_)) => wanted.into_iter().any(|w| w == found),
        _ => row.base.name.eq_ignore_ascii_case(&base.name),
    };
    if yes { Fit::Yes } else { Fit::No }
}

impl Adapters {
    /// The adapter called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Resident> {
        self.resident.iter().find(|r| r.info.name == name)
    }

    /// Names of all but the merge.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.resident.iter().map(|r| r.info.name.clone());
        names.filter(|n| n != MERGE_NAME).collect()
    }

    /// Whether there is a merge.
    #[must_use]
    pub fn merged(&self) -> bool {
        self.get(MERGE_NAME).is_some()
    }

    /// The resident adapter that came from the gallery's `slug`.
    #[must_use]
    pub fn of_slug(&self, slug: &str) -> Option<&Resident> {
        let from = |r: &&Resident| matches!(&r.source, Some(AdapterSource::Gallery { slug: s, .. }) if s == slug);
        self.resident.iter().find(from)
    }

    /// `wanted`, or with a number where that is taken.
    #[must_use]
    pub fn free_name(&self, wanted: &str) -> String {
        let wanted = match wanted.trim() {
            "" => "adapter",
            name => name,
        };
        let taken = |name: &str| {
            name == MERGE_NAME
                || name == "base"
                || self.get(name).is_some()
                || self.adding.iter().any(|(_, n)| n == name)
        };
        if !taken(wanted) {
            return wanted.to_owned();
        }
        let numbered = (2..).map(|n| format!("{wanted} {n}")).find(|n| !taken(n));
        numbered.unwrap_or_else(|| wanted.to_owned())
    }

    pub(super) fn insert(&mut self, info: AdapterInfo, source: Option<AdapterSource>) {
        let new = Resident { info, source };
        match self
            .resident
            .iter_mut()
            .find(|r| r.info.name == new.info.name)
        {
            Some(old) => *old = new,
            None => self.resident.push(new),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.resident.retain(|r| r.info.name != name);
    }

    pub(super) fn finished(&mut self, id: u64) -> Option<String> {
        let at = self.adding.iter().position(|(i, _)| *i == id)?;
        Some(self.adding.remove(at).1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{adapter, base};
    use super::*;
    use qloom_core::adapters::gallery::GalleryBase;

    fn row(name: &str, fingerprint: Option<&str>) -> GalleryRow {
        GalleryRow {
            slug: "s".into(),
            name: "S".into(),
            task: "t".into(),
            description: None,
            base: GalleryBase {
                name: name.into(),
                fingerprint: fingerprint.map(str::to_owned),
                equivalent: vec!["dense".into()],
            },
            scores: Vec::new(),
            size: 1,
            licence: None,
            created: "2026-01-01".into(),
            entry_sha256: String::new(),
        }
    }

    #[test]
    fn fingerprints_decide_where_both_are_known() {
        let mut base = base();
        base.fingerprint = Some("f".into());
        assert_eq!(fit(&row("other", Some("f")), Some(&base)), Fit::Yes);
        assert_eq!(fit(&row(&base.name, Some("g")), Some(&base)), Fit::No);
        base.fingerprint = Some("dense".into());
        assert_eq!(fit(&row("other", Some("g")), Some(&base)), Fit::Yes);
        base.fingerprint = None;
        assert_eq!(fit(&row(&base.name, Some("g")), Some(&base)), Fit::Yes);
        assert_eq!(fit(&row("other", None), Some(&base)), Fit::No);
        assert_eq!(fit(&row("other", None), None), Fit::Unknown);
    }

    #[test]
    fn names_stay_apart() {
        let mut adapters = Adapters::default();
        adapters.insert(adapter("a"), None);
        assert_eq!(adapters.free_name("a"), "a 2");
        assert_eq!(adapters.free_name(" "), "adapter");
        assert_eq!(adapters.free_name(MERGE_NAME), "merge 2");
        assert_eq!(adapters.free_name("base"), "base 2");
        adapters.insert(adapter("a"), None);
        assert_eq!(adapters.resident.len(), 1);
    }
}
