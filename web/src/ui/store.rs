//! The state behind the components: plain data, and a signal per section that says when it changed.

use leptos::prelude::*;

use crate::protocol::{Event, Message};
use crate::state::{Effect, FileKey, Section, State};

use super::link::Link;
use super::save;

/// A handle to the page's state; copies are the same state.
#[derive(Clone, Copy)]
pub(crate) struct Store {
    state: StoredValue<State>,
    changed: StoredValue<Vec<RwSignal<()>>>,
    link: StoredValue<Link, LocalStorage>,
}

impl Store {
    /// The state of a page whose site lies at `site`, with a worker.
    pub(crate) fn new(site: &str) -> Self {
        let changed = Section::ALL.iter().map(|_| RwSignal::new(())).collect();
        let store = Self {
            state: StoredValue::new(State::new(site)),
            changed: StoredValue::new(changed),
            link: StoredValue::new_local(Link::default()),
        };
        Link::spawn(store);
        store
    }

    fn signal(self, section: Section) -> Option<RwSignal<()>> {
        self.changed
            .with_value(|all| all.get(section as usize).copied())
    }

    /// Reads the state; whoever reads inside a view or memo is run again when `section` changes.
    pub(crate) fn read<T>(self, section: Section, f: impl FnOnce(&State) -> T) -> T {
        if let Some(signal) = self.signal(section) {
            signal.track();
        }
        self.state.with_value(f)
    }

    /// Reads the state as it is now.
    pub(crate) fn peek<T>(self, f: impl FnOnce(&State) -> T) -> T {
        self.state.with_value(f)
    }

    /// A part of a section that only counts as changed when it is another.
    pub(crate) fn memo<T>(
        self,
        section: Section,
        f: impl Fn(&State) -> T + Send + Sync + 'static,
    ) -> Memo<T>
    where
        T: PartialEq + Send + Sync + 'static,
    {
        Memo::new(move |_| self.read(section, &f))
    }

    /// Changes a section.
    pub(crate) fn edit(self, section: Section, f: impl FnOnce(&mut State)) {
        self.state.update_value(f);
        self.notify(&[section]);
    }

    /// Does what the visitor asks for, and what follows from it.
    pub(crate) fn act(self, f: impl FnOnce(&mut State) -> Vec<Effect>) {
        let effects = self.state.try_update_value(f).unwrap_or_default();
        self.notify(&Section::ALL);
        self.perform(effects, &[]);
    }

    /// Takes an event of the worker with its attachments.
    pub(crate) fn take(self, message: Message<Event>, attachments: &[js_sys::ArrayBuffer]) {
        let outcome = self
            .state
            .try_update_value(|s| s.apply(message))
            .unwrap_or_default();
        self.notify(&outcome.touched);
        self.perform(outcome.effects, attachments);
    }

    fn notify(self, sections: &[Section]) {
        for section in sections {
            if let Some(signal) = self.signal(*section) {
                signal.notify();
            }
        }
    }

    fn perform(self, effects: Vec<Effect>, attachments: &[js_sys::ArrayBuffer]) {
        for effect in effects {
            match effect {
                Effect::Send { message, files } => Link::send(self, *message, files),
                Effect::Restart => {
                    Link::spawn(self);
                    self.act(State::replay);
                }
                Effect::Save { file } => {
                    if let Some(bytes) = attachments.first() {
                        save::buffer(&file, bytes);
                    }
                }
                Effect::Keep { name } => {
                    let blob = attachments.first().and_then(save::blob);
                    self.keep(FileKey::Adapter(name), blob.into_iter().collect());
                }
            }
        }
    }

    /// Keeps files for as long as requests may name them.
    pub(crate) fn keep(self, key: FileKey, blobs: Vec<web_sys::Blob>) {
        self.link.update_value(|link| link.keep(key, blobs));
    }

    pub(super) fn link<T>(self, f: impl FnOnce(&mut Link) -> T) -> Option<T> {
        self.link.try_update_value(f)
    }
}
