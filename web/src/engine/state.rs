//! What is loaded, and the models of columns: the base with adapters stacked on it.

use qloom_core::models::bert::BertClassifier;
use qloom_core::models::llama::Llama;

use super::adapters::Resident;
use super::base::{Base, Model};
use super::device::Opened;
use crate::protocol::{Column, DeviceInfo, DeviceKind, Failure, FailureKind};

/// Device, base and adapters.
#[derive(Default)]
pub(super) struct State {
    /// The device at work.
    pub(super) device: Option<Opened>,
    /// The GPU, once it was opened.
    pub(super) gpu: Option<Opened>,
    /// The base at work.
    pub(super) base: Option<Base>,
    /// Adapters, in the order they came.
    pub(super) adapters: Vec<Resident>,
    checked_out: bool,
}

impl State {
    /// Takes the state out of its place; `None` where it is out already.
    pub(super) fn check_out(&mut self) -> Option<Self> {
        if self.checked_out {
            return None;
        }
        let state = std::mem::take(self);
        self.checked_out = true;
        Some(state)
    }

    /// Makes `opened` the device at work. What is loaded lies on another one, or in another type, and is dropped.
    pub(super) fn use_device(&mut self, opened: Opened) -> DeviceInfo {
        let info = opened.info.clone();
        if info.kind == DeviceKind::WebGpu {
            self.gpu = Some(opened.clone());
        }
        let same = self.device.as_ref().is_some_and(|d| d.info == info);
        if !same {
            self.base = None;
            self.adapters.clear();
        }
        self.device = Some(opened);
        info
    }

    /// The device at work.
    pub(super) fn opened(&self) -> Result<&Opened, Failure> {
        let missing = || Failure::request("no device is open yet; start one first");
        self.device.as_ref().ok_or_else(missing)
    }

    /// The base at work.
    pub(super) fn base(&self) -> Result<&Base, Failure> {
        let missing = || Failure::request("no base is loaded yet; load one first");
        self.base.as_ref().ok_or_else(missing)
    }

    /// The resident adapter called `name`.
    pub(super) fn adapter(&self, name: &str) -> Result<&Resident, Failure> {
        let found = self.adapters.iter().find(|a| a.info.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.adapters.iter().map(|a| a.info.name.as_str()).collect();
            let there = match names.is_empty() {
                true => "none is loaded".to_owned(),
                false => format!("there is {}", names.join(", ")),
            };
            Failure::request(format!("no adapter is called {name:?}; {there}"))
        })
    }

    /// Puts `adapter` in, in place of one of the same name.
    pub(super) fn put_adapter(&mut self, adapter: Resident) {
        let name = &adapter.info.name;
        match self.adapters.iter().position(|a| a.info.name == *name) {
            Some(place) => self.adapters[place] = adapter,
            None => self.adapters.push(adapter),
        }
    }

    /// Forgets the adapter called `name`.
    pub(super) fn remove_adapter(&mut self, name: &str) -> Result<(), Failure> {
        self.adapter(name)?;
        self.adapters.retain(|a| a.info.name != name);
        Ok(())
    }

    /// The model of every column.
    ///
    /// # Errors
    /// No column; an adapter that is not there, or twice in a column.
    pub(super) fn models(&self, columns: &[Column]) -> Result<Vec<Model>, Failure> {
        if columns.is_empty() {
            return Err(Failure::request("there is no column to answer in"));
        }
        columns.iter().map(|c| self.model(c)).collect()
    }

    fn model(&self, column: &Column) -> Result<Model, Failure> {
        let mut model = self.base()?.model.clone();
        for (i, name) in column.adapters.iter().enumerate() {
            if column.adapters[..i].contains(name) {
                return Err(Failure::request(format!(
                    "{name:?} is twice in one column; to count it more, merge it with a weight"
                )));
            }
            model = model.with(&self.adapter(name)?.overlay);
        }
        Ok(model)
    }

    /// The models of every column, which must be language models.
    pub(super) fn language_models(&self, columns: &[Column]) -> Result<Vec<Llama>, Failure> {
        let models = self.models(columns)?.into_iter();
        let llama = |model| match model {
            Model::Llama(model) => Ok(*model),
            Model::Bert(_) => Err(unsuited("classifies texts and writes none")),
        };
        models.map(llama).collect()
    }

    /// The models of every column, which must be classifiers. Whether they have a head is for the caller to see.
    pub(super) fn classifiers(&self, columns: &[Column]) -> Result<Vec<BertClassifier>, Failure> {
        let models = self.models(columns)?.into_iter();
        let bert = |model| match model {
            Model::Bert(model) => Ok(*model),
            Model::Llama(_) => Err(unsuited("writes text; it answers with no class")),
        };
        models.map(bert).collect()
    }
}

fn unsuited(what: &str) -> Failure {
    Failure::new(FailureKind::Request, format!("the loaded base {what}"))
}
