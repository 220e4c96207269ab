//! The engine: answers [`Request`]s with [`Event`]s by driving the core. It holds no model or merge maths and no browser
//! API; what it needs around it is [`Surroundings`].
//!
//! ```text
//! worker: on a message   engine.accept(message, files)      returns at once; Stop takes effect here
//!         then           engine.work().await                answers one request after the other; returns when none waits
//! ```
//!
//! Requests are answered one at a time in the order they came, each with one final event. `work` may be called as often as
//! one likes: while one call is at work, others return at once.
//!
//! | file | what |
//! |---|---|
//! | `surroundings` | what the worker, or a test, offers |
//! | `task` | a request at work, and where it can be stopped |
//! | `state` | what is loaded: device, base, adapters; the models of columns |
//! | `device`, `base`, `adapters` | loading |
//! | `generate`, `classify`, `token_losses` | one text in every column |
//! | `merge`, `evaluate`, `train` | what their names say |
//! | `failure` | the core's errors as the page is told them |

mod adapters;
mod base;
mod classify;
mod device;
mod evaluate;
mod failure;
mod generate;
mod merge;
mod prompt;
mod state;
mod surroundings;
mod task;
#[cfg(test)]
mod tests;
mod token_losses;
mod train;

pub use base::HUB;
pub use surroundings::{File, Gpu, Piece, Surroundings};

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::protocol::{Event, Failure, FailureKind, FileRef, Message, Request};
use failure::Ended;
use state::State;
use task::Task;

/// Requests that wait, each with its files.
type Inbox<F> = VecDeque<(Message<Request>, Vec<F>)>;

/// A model with its adapters, and the requests to it.
pub struct Engine<S: Surroundings> {
    around: S,
    inbox: RefCell<Inbox<S::File>>,
    state: RefCell<State>,
    /// The request at work; none is 0, as nobody asks under that id.
    current: Cell<u64>,
    stopping: Cell<bool>,
}

impl<S: Surroundings> Engine<S> {
    /// An engine without a device or a base.
    pub fn new(around: S) -> Self {
        Self {
            around,
            inbox: RefCell::default(),
            state: RefCell::default(),
            current: Cell::new(0),
            stopping: Cell::new(false),
        }
    }

    /// Where it runs.
    pub fn surroundings(&self) -> &S {
        &self.around
    }

    /// Takes a request with the files that came beside it, by the indices its [`FileRef`]s name. A `Stop` takes effect
    /// here: the request at work ends at its next pause, one that waits is answered at once.
    pub fn accept(&self, message: Message<Request>, files: Vec<S::File>) {
        let Request::Stop { id } = message.body else {
            self.inbox.borrow_mut().push_back((message, files));
            return;
        };
        if id == self.current.get() {
            self.stopping.set(true);
            return;
        }
        let waiting = |(m, _): &(Message<Request>, Vec<S::File>)| m.id == id;
        let place = self.inbox.borrow().iter().position(waiting);
        if let Some(place) = place {
            self.inbox.borrow_mut().remove(place);
            self.emit(id, Event::Stopped);
        }
    }

    /// Answers what waits. Returns at once where another call is at it.
    pub async fn work(&self) {
        // The state is out of its place exactly while a call is at work.
        let Some(mut state) = self
            .state
            .try_borrow_mut()
            .ok()
            .and_then(|mut s| s.check_out())
        else {
            return;
        };
        loop {
            let next = self.inbox.borrow_mut().pop_front();
            let Some((message, files)) = next else { break };
            self.current.set(message.id);
            self.stopping.set(false);
            let device = state.device.clone();
            let task = Task::new(self, message.id, device);
            let ended = match answer(&task, &mut state, message.body, files).await {
                Ok(()) => None,
                Err(Ended::Stopped) => Some(Event::Stopped),
                Err(Ended::Failed(failure)) => Some(Event::Failed {
                    failure: explained(failure, &state),
                }),
            };
            self.current.set(0);
            if let Some(event) = ended {
                self.emit(message.id, event);
            }
            self.around.pause().await;
        }
        if let Ok(mut place) = self.state.try_borrow_mut() {
            *place = state;
        }
    }

    fn emit(&self, id: u64, body: Event) {
        self.around.emit(Message { id, body }, Vec::new());
    }
}

/// A failure whose cause is a device that is gone is told as that: what failed is then only its consequence.
fn explained(failure: Failure, state: &State) -> Failure {
    let device = state.device.as_ref().map(|d| d.check());
    match device {
        Some(Err(lost)) => lost,
        _ => failure,
    }
}

/// Answers one request. Its final event, unless it ends early, is told here.
async fn answer<S: Surroundings>(
    task: &Task<'_, S>,
    state: &mut State,
    request: Request,
    files: Vec<S::File>,
) -> Result<(), Ended> {
    match request {
        Request::Start { prefer, compute } => {
            let opened = device::open(task.around(), prefer, compute, state.gpu.as_ref()).await?;
            let info = state.use_device(opened);
            task.emit(Event::Ready { device: info });
        }
        Request::LoadBase { source, options } => {
            base::load(task, state, source, &options, files).await?;
        }
        Request::AddAdapter { name, source } => {
            adapters::add(task, state, &name, source, files).await?;
        }
        Request::RemoveAdapter { name } => {
            state.remove_adapter(&name)?;
            task.emit(Event::AdapterRemoved { name });
        }
        Request::Merge {
            name,
            members,
            settings,
        } => merge::merge(task, state, &name, &members, &settings).await?,
        Request::Export { name } => merge::export(task, state, &name)?,
        Request::Generate {
            prompt,
            columns,
            sampling,
            histories,
        } => generate::generate(task, state, &prompt, &columns, sampling, &histories).await?,
        Request::Classify {
            text,
            pair,
            columns,
        } => classify::classify(task, state, &text, pair.as_deref(), &columns).await?,
        Request::TokenLosses {
            prompt,
            text,
            columns,
        } => token_losses::token_losses(task, state, &prompt, &text, &columns).await?,
        Request::Evaluate {
            data,
            columns,
            options,
        } => evaluate::evaluate(task, state, data, &columns, options, files).await?,
        Request::Train {
            name,
            examples,
            settings,
        } => train::train(task, state, &name, &examples, &settings).await?,
        // Taken in `accept`; here for a match that names every request.
        Request::Stop { .. } => {}
        Request::ClearCache => {
            let bytes = task.around().clear().await?;
            task.emit(Event::Cleared { bytes });
        }
        Request::LoseDevice => {
            state.opened()?.lose();
            state.opened()?.check()?;
        }
    }
    Ok(())
}

/// The files that `refs` name, with their names.
///
/// # Errors
/// An attachment that did not come.
fn attached<F>(refs: Vec<FileRef>, files: Vec<F>) -> Result<Vec<(String, F)>, Failure> {
    let mut files: Vec<Option<F>> = files.into_iter().map(Some).collect();
    let take = |r: FileRef| match files.get_mut(r.attachment).and_then(Option::take) {
        Some(file) => Ok((r.name, file)),
        None => Err(Failure::new(
            FailureKind::Request,
            format!(
                "{}: attachment {} did not come with the request, or is named twice",
                r.name, r.attachment
            ),
        )),
    };
    refs.into_iter().map(take).collect()
}
