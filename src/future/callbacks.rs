//! Done callbacks of futures and tasks.

use std::panic::Location;

use crate::event_loop::{
    EventLoop,
    callbacks::CallbackKey,
    exceptions::{ExceptionContext, report_from_anywhere},
    handle::Handle,
    running,
    threadsafe::Shared,
    turn::Ready,
    waiters::Place,
};

/// Names a done callback, to remove it.
///
/// asyncio: the callback itself. Differs: closures have no identity in Rust.
#[derive(Clone, Copy, Debug)]
pub struct CallbackToken {
    loop_id: u64,
    /// Where the callback stands in its future's line; `None` if it was never put there.
    entry: Option<(Place, CallbackKey)>,
}

impl CallbackToken {
    /// The callback, if it was put into the line of a future of this loop.
    pub(crate) fn entry_in(&self, shared: &Shared) -> Option<(Place, CallbackKey)> {
        self.entry.filter(|_| self.loop_id == shared.id)
    }
}

/// Stores a done callback with its loop; `list` puts its key into the future's line, or says that it is done.
pub(crate) fn add_callback(
    shared: &Shared,
    callback: impl FnOnce() + 'static,
    created: &'static Location<'static>,
    list: impl FnOnce(CallbackKey) -> Option<Place>,
) -> CallbackToken {
    let loop_id = shared.id;
    let Some(event_loop) = running::local(shared).filter(|event_loop| !event_loop.is_closed()) else {
        drop(callback);
        report_from_anywhere(shared, move || {
            ExceptionContext::new("A done callback was dropped: its event loop is closed or on another thread")
                .source_location(created)
        });
        return CallbackToken { loop_id, entry: None };
    };
    let (handle, run) = Handle::new(&event_loop, callback, created, false);
    drop(handle);
    let key = event_loop.inner.callbacks.borrow_mut().insert(run);
    let place = list(key);
    if place.is_none() {
        let run = event_loop.inner.callbacks.borrow_mut().remove(key);
        run.into_iter().for_each(|run| event_loop.push(Ready::Handle(run)));
    }
    CallbackToken { loop_id, entry: place.map(|place| (place, key)) }
}

/// Drops the callbacks of a future that nobody can complete any more, on the loop's thread.
pub(crate) fn drop_callbacks(shared: &Shared, keys: Vec<CallbackKey>) {
    let remove = move |event_loop: &EventLoop| {
        for key in keys {
            let callback = event_loop.inner.callbacks.borrow_mut().remove(key);
            drop(callback);
        }
    };
    match running::local(shared) {
        Some(event_loop) => remove(&event_loop),
        None => drop(shared.push_call(remove)),
    }
}
