//! Pauses that let everything else run: a message to oneself comes after all that waits already, and without the four
//! milliseconds that nested timers take.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use js_sys::{Function, Reflect};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};

use crate::fetch::{Keeper, Net, browser::Network, promise};

type Waiting = Rc<RefCell<VecDeque<Keeper<()>>>>;

/// A channel to oneself.
pub(super) struct Pauses {
    waiting: Waiting,
    /// The port to post to, and how; `None` where there are no channels.
    post: Option<(JsValue, Function)>,
    /// Called for each message.
    _listener: Closure<dyn Fn()>,
}

impl Default for Pauses {
    fn default() -> Self {
        let waiting = Waiting::default();
        let woken = Rc::clone(&waiting);
        let listener = Closure::<dyn Fn()>::new(move || {
            let next = woken.borrow_mut().pop_front();
            if let Some(keeper) = next {
                keeper.keep(());
            }
        });
        Self {
            waiting,
            post: channel(listener.as_ref()).ok(),
            _listener: listener,
        }
    }
}

/// Makes a `MessageChannel` that calls `listener`.
fn channel(listener: &JsValue) -> Result<(JsValue, Function), JsValue> {
    let class: Function = Reflect::get(&js_sys::global(), &"MessageChannel".into())?.dyn_into()?;
    let channel = Reflect::construct(&class, &js_sys::Array::new())?;
    Reflect::set(
        &Reflect::get(&channel, &"port1".into())?,
        &"onmessage".into(),
        listener,
    )?;
    let port = Reflect::get(&channel, &"port2".into())?;
    let post = Reflect::get(&port, &"postMessage".into())?.dyn_into()?;
    Ok((port, post))
}

impl Pauses {
    /// Comes back when everything that waits now has had its turn.
    pub(super) async fn take(&self) {
        if let Some((port, post)) = &self.post {
            let (keeper, turn) = promise();
            self.waiting.borrow_mut().push_back(keeper);
            if post.call1(port, &JsValue::NULL).is_ok() {
                return turn.await;
            }
        }
        Network.sleep(0.0).await;
    }
}
