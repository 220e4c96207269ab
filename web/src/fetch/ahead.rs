//! A result that someone else works out: what `spawn_local` lacks to be awaited.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// Keeps the promise: its value wakes who waits.
pub struct Keeper<T>(Rc<RefCell<Slot<T>>>);

/// The value to come.
pub struct Promise<T>(Rc<RefCell<Slot<T>>>);

/// A promise and who keeps it.
pub fn promise<T>() -> (Keeper<T>, Promise<T>) {
    let slot = Rc::new(RefCell::new(Slot {
        value: None,
        waker: None,
    }));
    (Keeper(Rc::clone(&slot)), Promise(slot))
}

impl<T> Keeper<T> {
    /// Gives the value.
    pub fn keep(self, value: T) {
        let waker = {
            let mut slot = self.0.borrow_mut();
            slot.value = Some(value);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Promise<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.borrow_mut();
        match slot.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
