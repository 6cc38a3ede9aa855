//! Callbacks that run as often as their descriptor is ready or their signal arrives.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    rc::Rc,
};

use crate::{
    context::{self, ContextRef},
    error::Error,
    event_loop::{
        EventLoop,
        exceptions::ExceptionContext,
        handle::{AnyHandle, HandleSummary, RunHandle},
    },
};

/// A callback that runs as often as its descriptor is ready or its signal arrives.
pub(crate) struct RepeatedHandle<F> {
    /// Taken while it runs: no foreign code inside a borrow.
    callback: Cell<Option<F>>,
    /// Cleared by cancel(); a queued run does nothing then.
    active: Cell<bool>,
    context: Cell<ContextRef>,
    /// One for all runs, as the context is.
    identity: u64,
    created: &'static Location<'static>,
    socket: Option<i32>,
}

/// What watchers and signals keep of a repeated callback.
pub(crate) trait Repeated: RunHandle {
    /// Lets it never run again, not even where it is queued already.
    fn deactivate(&self);
    fn as_run(self: Rc<Self>) -> Rc<dyn RunHandle>;
}

impl<F: FnMut() + 'static> RepeatedHandle<F> {
    pub(crate) fn repeated(
        event_loop: &EventLoop,
        callback: F,
        created: &'static Location<'static>,
        socket: Option<i32>,
    ) -> Rc<dyn Repeated> {
        Rc::new(RepeatedHandle {
            callback: Cell::new(Some(callback)),
            active: Cell::new(true),
            context: Cell::new(event_loop.capture()),
            identity: context::fresh_identity(),
            created,
            socket,
        })
    }
}

impl<F: FnMut() + 'static> RunHandle for RepeatedHandle<F> {
    fn run(self: Rc<Self>, event_loop: &EventLoop) {
        if !self.active.get() {
            return;
        }
        let Some(mut callback) = self.callback.take() else { return };
        let context = self.context.take();
        let kept = match &context {
            ContextRef::Shared(context) => ContextRef::Shared(context.clone()),
            ContextRef::Bare(_) => ContextRef::default(),
        };
        let mut place = None;
        let outcome = match context::enter(context, self.identity) {
            Ok(entered) => {
                let outcome = catch_unwind(AssertUnwindSafe(&mut callback));
                let left = entered.leave();
                place = outcome.is_err().then(|| left.clone());
                self.context.set(left);
                outcome.map_err(Error::from_panic)
            }
            Err(error) => {
                self.context.set(kept);
                Err(error)
            }
        };
        if self.active.get() {
            self.callback.set(Some(callback));
        } else {
            drop((callback, self.context.take()));
        }
        if let Err(error) = outcome {
            // In the callback's context, as asyncio's handlers run.
            let _entered = place.map(|place| context::enter(place, self.identity));
            let handle = AnyHandle { handle: self.clone() };
            let mut context = ExceptionContext::new(format!("Exception in callback {handle:?}"))
                .exception(error)
                .handle(handle)
                .source_location(self.created);
            context.socket = self.socket;
            event_loop.call_exception_handler(&context);
        }
    }

    fn discard(&self) {
        self.deactivate();
    }

    fn summary(&self) -> HandleSummary {
        HandleSummary {
            kind: "Handle",
            name: std::any::type_name::<F>(),
            cancelled: !self.active.get(),
            created: self.created,
        }
    }
}

impl<F: FnMut() + 'static> Repeated for RepeatedHandle<F> {
    fn deactivate(&self) {
        self.active.set(false);
        let callback = (self.callback.take(), self.context.take());
        drop(callback);
    }

    fn as_run(self: Rc<Self>) -> Rc<dyn RunHandle> {
        self
    }
}
