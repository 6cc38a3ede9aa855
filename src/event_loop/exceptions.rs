//! What nobody received goes to the loop's exception handler.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    os::fd::RawFd,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    rc::Rc,
};

use crate::{
    context::{self, ContextRef},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        any_task::AnyTask,
        handle::AnyHandle,
        running,
        step::{TaskRef, never_retrieved},
        threadsafe::Shared,
    },
    report::{self, AnyFuture},
};

/// What [`EventLoop::set_exception_handler`] takes: called on the loop's thread for every report.
///
/// asyncio: the `handler` of `loop.set_exception_handler`.
pub type ExceptionHandler = Rc<dyn Fn(&EventLoop, &ExceptionContext)>;

/// What a report says: the keys of asyncio's context dictionary, typed.
///
/// # Examples
///
/// ```
/// use std::{cell::RefCell, rc::Rc};
///
/// let event_loop = asyncio::new_event_loop()?;
/// let seen = Rc::new(RefCell::new(Vec::new()));
/// let record = seen.clone();
/// event_loop.set_exception_handler(Some(Rc::new(move |_, context| record.borrow_mut().push(context.clone()))));
/// event_loop.call_soon(|| panic!("boom"));
/// event_loop.run_once(std::time::Duration::ZERO)?;
/// let seen = seen.borrow();
/// assert!(seen[0].message.starts_with("Exception in callback"));
/// assert_eq!(seen[0].exception.as_ref().map(ToString::to_string).as_deref(), Some("boom"));
/// # asyncio::ok(())
/// ```
///
/// asyncio: the `context` of `loop.call_exception_handler`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExceptionContext {
    /// What happened.
    pub message: String,
    /// The error, if there is one.
    pub exception: Option<Error>,
    /// The future that it concerns.
    pub future: Option<AnyFuture>,
    /// The task that it concerns.
    pub task: Option<AnyTask>,
    /// The callback that it concerns.
    pub handle: Option<AnyHandle>,
    /// The descriptor that it concerns, by number.
    pub socket: Option<RawFd>,
    /// The line that made the object it concerns.
    pub source_location: Option<&'static Location<'static>>,
    /// Keys of the caller's own, with their values as text.
    pub extra: BTreeMap<Cow<'static, str>, String>,
}

impl ExceptionContext {
    /// A context with a message and nothing else.
    pub fn new(message: impl Into<String>) -> Self {
        ExceptionContext {
            message: message.into(),
            exception: None,
            future: None,
            task: None,
            handle: None,
            socket: None,
            source_location: None,
            extra: BTreeMap::new(),
        }
    }

    /// Adds the error.
    #[must_use]
    pub fn exception(mut self, exception: Error) -> Self {
        self.exception = Some(exception);
        self
    }

    /// Adds the future that it concerns.
    #[must_use]
    pub fn future(mut self, future: AnyFuture) -> Self {
        self.future = Some(future);
        self
    }

    /// Adds the task that it concerns.
    #[must_use]
    pub fn task(mut self, task: AnyTask) -> Self {
        self.task = Some(task);
        self
    }

    /// Adds the callback that it concerns.
    #[must_use]
    pub fn handle(mut self, handle: AnyHandle) -> Self {
        self.handle = Some(handle);
        self
    }

    /// Adds the descriptor that it concerns.
    #[must_use]
    pub fn socket(mut self, socket: RawFd) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Adds the line that made the object it concerns.
    #[must_use]
    pub fn source_location(mut self, location: &'static Location<'static>) -> Self {
        self.source_location = Some(location);
        self
    }

    /// Adds a key of the caller's own.
    #[must_use]
    pub fn extra(mut self, name: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.extra.insert(name.into(), value.to_string());
        self
    }

    /// The names of the keys that are present, sorted; `source_location` is not counted.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.values().into_iter().map(|(name, _)| name).collect();
        keys.push("message");
        keys.extend(self.exception.as_ref().map(|_| "exception"));
        keys.sort_unstable();
        keys
    }

    /// The text of the record that is written where no handler is. A user's error whose Display panics leaves the message.
    pub(crate) fn record(&self) -> String {
        let text = catch_unwind(AssertUnwindSafe(|| self.to_string()));
        text.unwrap_or_else(|payload| format!("{}\n{}", self.message, Error::from_panic(payload)))
    }

    /// All keys but message and exception, with their values as text.
    fn values(&self) -> Vec<(&str, String)> {
        let mut values: Vec<(&str, String)> = self.extra.iter().map(|(name, value)| (&**name, value.clone())).collect();
        values.extend(self.future.as_ref().map(|future| ("future", format!("{future:?}"))));
        values.extend(self.task.as_ref().map(|task| ("task", format!("{task:?}"))));
        values.extend(self.handle.as_ref().map(|handle| ("handle", format!("{handle:?}"))));
        values.extend(self.socket.as_ref().map(|socket| ("socket", socket.to_string())));
        values.sort();
        values
    }
}

impl fmt::Display for ExceptionContext {
    /// The record that the default handler writes: message, keys in order, error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (name, value) in self.values() {
            write!(f, "\n{name}: {value}")?;
        }
        if let Some(error) = &self.exception {
            write!(f, "\n{:?}: {error}", error.kind())?;
        }
        Ok(())
    }
}

impl EventLoop {
    /// Lets `handler` receive what nobody else did; `None` goes back to the default, which writes a record.
    ///
    /// Reported are: a panic of a callback, coroutine or protocol that nobody awaits, an error of a task or future that
    /// nobody looked at before its last handle was dropped, a pending task that is destroyed, and what
    /// [`call_exception_handler`](Self::call_exception_handler) is given.
    ///
    /// asyncio: `loop.set_exception_handler`.
    pub fn set_exception_handler(&self, handler: Option<ExceptionHandler>) {
        let before = self.inner.exception_handler.replace(handler);
        drop(before);
    }

    /// What [`set_exception_handler`](Self::set_exception_handler) was given.
    ///
    /// asyncio: `loop.get_exception_handler`.
    pub fn get_exception_handler(&self) -> Option<ExceptionHandler> {
        self.inner.exception_handler.borrow().clone()
    }

    /// Writes the record that is written where no handler is set, at level ERROR: through `tracing`, and to stderr where
    /// no subscriber is set.
    ///
    /// asyncio: `loop.default_exception_handler`.
    pub fn default_exception_handler(&self, context: &ExceptionContext) {
        report::error(&context.record());
    }

    /// Gives `context` to the exception handler.
    ///
    /// The handler runs in the [`Context`](crate::Context) of the callback or the task that the report is about, unless
    /// the task has ended before and given its context back. A panic of the handler is caught and written as a record,
    /// with what it was called with.
    ///
    /// asyncio: `loop.call_exception_handler`.
    pub fn call_exception_handler(&self, context: &ExceptionContext) {
        let Some(handler) = self.get_exception_handler() else { return self.default_exception_handler(context) };
        let place = context.task.as_ref().filter(|task| !task.done()).map(AnyTask::get_context);
        // A task that reports itself is there already.
        let entered = place.and_then(|place| context::enter(ContextRef::Shared(place), 0).ok());
        let outcome = catch_unwind(AssertUnwindSafe(|| handler(self, context)));
        drop(entered);
        if let Err(payload) = outcome {
            let error = Error::from_panic(payload);
            report::error(&format!("Unhandled error in exception handler: {error}\ncontext: {}", context.record()));
        }
    }

    /// Turns debug mode on or off. In debug mode slow callbacks are reported and sockets are checked more.
    ///
    /// asyncio: `loop.set_debug`.
    pub fn set_debug(&self, enabled: bool) {
        self.inner.debug.set(enabled);
    }

    /// Whether debug mode is on: `EventLoop::builder().debug(..)`, else the environment variable `ASYNCIO_DEBUG`.
    ///
    /// asyncio: `loop.get_debug`.
    pub fn get_debug(&self) -> bool {
        self.inner.debug.get()
    }

    /// How long a callback or a step of a task may take before debug mode reports it; 100 ms by default.
    ///
    /// asyncio: `loop.slow_callback_duration`.
    pub fn slow_callback_duration(&self) -> std::time::Duration {
        self.inner.slow_callback_duration.get()
    }

    /// See [`slow_callback_duration`](Self::slow_callback_duration).
    ///
    /// asyncio: `loop.slow_callback_duration`.
    pub fn set_slow_callback_duration(&self, duration: std::time::Duration) {
        self.inner.slow_callback_duration.set(duration);
    }
}

/// Reports an unread error of a task from whichever thread dropped its last handle.
#[cold]
pub(crate) fn never_retrieved_from_anywhere(task: TaskRef) {
    let shared = task.shared.clone();
    report_from_anywhere(&shared, move || never_retrieved(task));
}

/// Gives a report to the loop's handler: at once on its thread, through its inbox elsewhere. Where the loop is gone, the
/// record is written by default.
pub(crate) fn report_from_anywhere(shared: &Shared, make: impl FnOnce() -> ExceptionContext + Send + 'static) {
    if let Some(event_loop) = running::local(shared) {
        return event_loop.call_exception_handler(&make());
    }
    let mut on_its_way = OnItsWay(Some(make));
    // A loop that is closed, now or before it comes to this, drops the call: then the record is written.
    shared.push_call(move |event_loop| on_its_way.arrive(event_loop));
}

/// A report between the thread where it arose and its loop; it is written by default where it does not arrive.
struct OnItsWay<F: FnOnce() -> ExceptionContext>(Option<F>);

impl<F: FnOnce() -> ExceptionContext> OnItsWay<F> {
    fn arrive(&mut self, event_loop: &EventLoop) {
        if let Some(make) = self.0.take() {
            event_loop.call_exception_handler(&make());
        }
    }
}

impl<F: FnOnce() -> ExceptionContext> Drop for OnItsWay<F> {
    fn drop(&mut self) {
        if let Some(make) = self.0.take() {
            report::error(&make().record());
        }
    }
}

/// The error of a call that needs the loop's thread.
pub(crate) fn other_thread(what: &str) -> Error {
    Error::Runtime(format!("{what} is possible on the event loop's own thread only").into())
}

/// Refuses to wait in one loop for what belongs to another.
pub(crate) fn check_loop(shared_id: u64, running: Option<&EventLoop>) -> Result<()> {
    match running {
        Some(event_loop) if event_loop.inner.shared.id != shared_id => Err(Error::Value(
            "The future belongs to a different loop than the one specified as the loop argument".into(),
        )),
        _ => Ok(()),
    }
}
