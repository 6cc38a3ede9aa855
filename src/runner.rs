//! Entering the loop: `run`, `Runner`, `block_on`.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    panic::{AssertUnwindSafe, Location, resume_unwind},
    time::Duration,
};

use futures::FutureExt;

use crate::{
    constants::THREAD_JOIN_TIMEOUT,
    context::{self, Context},
    error::{Cancelled, Canceller, Error, Result},
    event_loop::{EventLoop, exceptions::ExceptionContext, meta::flag, running},
    stopping::Stopping,
    task::run::MainOptions,
};

/// Makes a loop, runs `main` in it, and closes it: the entry of a program.
///
/// `main` is polled in place, so it may borrow. When it ends, tasks that are left are cancelled and awaited, async
/// generators are closed, the default executor is shut down, and the loop is closed, whatever the result. Ctrl-C
/// (SIGINT) cancels `main`, on the main thread, where the program has no handler of its own and SIGINT is not ignored; a
/// second one cancels it again, a third drops it. Once `main` has ended the signal does what it did before: one that
/// comes during the clean-up ends the process.
///
/// # Errors
///
/// Those of `main`; [`Error::KeyboardInterrupt`] if SIGINT ended it; [`Error::Runtime`] inside a running loop;
/// [`Error::Io`] if a loop could not be made.
///
/// # Examples
///
/// ```
/// let name = String::from("world");
/// let length = asyncio::run(async {
///     println!("hello {name}");
///     asyncio::sleep(std::time::Duration::from_millis(1)).await?;
///     Ok(name.len())
/// })?;
/// assert_eq!(length, 5);
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.run`.
#[track_caller]
pub fn run<T, F: IntoFuture<Output = Result<T>>>(main: F) -> Result<T> {
    let created = Location::caller();
    if running::require().is_ok() {
        return Err(Error::Runtime("asyncio.run() cannot be called from a running event loop".into()));
    }
    let mut runner = Runner::new();
    let result = runner.run_at(main.into_future(), created);
    let closed = runner.close();
    let value = result?;
    closed.map(|()| value)
}

/// Runs `future` in a loop of its own and gives its output, whatever type that is.
///
/// For futures that do not give this crate's `Result`; otherwise as [`run`], but SIGINT is left alone.
///
/// # Panics
///
/// If `future` panics, with its panic; if it stops the loop that it runs in; inside a running loop; if the system refuses
/// a selector.
///
/// # Examples
///
/// ```
/// assert_eq!(asyncio::block_on(async { 40 + 2 }), 42);
/// ```
///
/// asyncio: `asyncio.run`, for any awaitable.
#[track_caller]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let created = Location::caller();
    assert!(running::require().is_err(), "asyncio::block_on() cannot be called from a running event loop");
    let mut runner = Runner::new();
    let event_loop = match runner.get_loop() {
        Ok(event_loop) => event_loop,
        Err(error) => panic!("no event loop could be made: {error}"),
    };
    let future = AssertUnwindSafe(future.into_future()).catch_unwind();
    let options = MainOptions { context: None, keep: true };
    let output = event_loop.run_main(future.map(Ok), options, created, |_| ());
    // Errors of the clean-up have nowhere to go; the tasks' own were reported.
    let _ = runner.close();
    match output {
        Ok(Ok(output)) => output,
        Ok(Err(payload)) => resume_unwind(payload),
        Err(error) => panic!("asyncio::block_on(): {error}"),
    }
}

/// Several runs in one loop and one context.
///
/// ```text
/// New --get_loop, run--> Open --close, drop--> Closed
/// ```
///
/// `Threads:` bound to the one that made it.
///
/// # Examples
///
/// ```
/// let mut runner = asyncio::Runner::new().debug(true);
/// let one = runner.run(async { Ok(1) })?;
/// let two = runner.run(async { Ok(one + 1) })?;
/// assert_eq!(two, 2);
/// runner.close()?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Runner`.
#[derive(Default)]
pub struct Runner {
    debug: Option<bool>,
    loop_factory: Option<Box<dyn FnOnce() -> Result<EventLoop>>>,
    graceful_shutdown: Option<Duration>,
    stage: Stage,
}

#[derive(Default)]
enum Stage {
    #[default]
    New,
    Open(EventLoop, Context),
    Closed,
}

impl Runner {
    /// A runner; its loop is made when it is first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Debug mode of the loop; by default what the environment says.
    ///
    /// asyncio: `Runner(debug=..)`.
    #[must_use]
    pub fn debug(mut self, debug: bool) -> Self {
        self.debug = Some(debug);
        self
    }

    /// What makes the loop; [`new_event_loop`](crate::new_event_loop) by default.
    ///
    /// # Examples
    ///
    /// A loop with a selector of one's choice:
    ///
    /// ```
    /// use asyncio::{EventLoop, Runner, selector::PollingSelector};
    ///
    /// let runner = Runner::new().loop_factory(|| EventLoop::builder().selector(PollingSelector::new()?).build());
    /// # let mut runner = runner;
    /// runner.run(asyncio::sleep(std::time::Duration::from_millis(1)))?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `Runner(loop_factory=..)`.
    #[must_use]
    pub fn loop_factory(mut self, factory: impl FnOnce() -> Result<EventLoop> + 'static) -> Self {
        self.loop_factory = Some(Box::new(factory));
        self
    }

    /// Lets a run end in good order on SIGTERM as well as on SIGINT: its servers drain first, for at most `deadline`.
    ///
    /// The first of the two signals drains all servers of the loop, as [`Server::drain`](crate::Server::drain) does:
    /// new connections are refused, idle ones closed, busy ones finished until the deadline, and the rest is aborted
    /// and named in the log; what counts as idle is told there, and matters where answers come in pieces, by hyper for
    /// example. Then main is cancelled; [`serve_forever`](crate::Server::serve_forever) waits until then, so that what
    /// main cleans up is still there for the last request. A second signal forces: it aborts the connections that are
    /// left and cancels main at once. Where there is no server, the first one cancels main. Further ones cancel it
    /// again, and then drop it. A main that ends before its servers have drained is not the end of the drain, which the
    /// run waits for.
    ///
    /// The run gives what main makes of its cancellation; one that lets it out gives [`Error::KeyboardInterrupt`] after
    /// SIGINT, as ever, and [`Error::Cancelled`] with the message "SIGTERM" after SIGTERM, which the program may take for a
    /// success: see the example.
    ///
    /// As for SIGINT, this is for the main thread, and for a program that has no handler of its own and does not ignore the
    /// signal; a handler that is added to the loop for one of the two takes that over. By default, SIGTERM is left alone.
    ///
    /// # Examples
    ///
    /// A server that exits with 0 on SIGTERM, and has answered what it had begun:
    ///
    /// ```no_run
    /// # struct Ignore;
    /// # impl asyncio::Protocol for Ignore {
    /// #     fn data_received(&mut self, _data: &[u8]) {}
    /// # }
    /// use std::time::Duration;
    ///
    /// use asyncio::{Error, Result, Runner};
    ///
    /// async fn serve() -> Result<()> {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let server = event_loop.create_server(|| Ignore, ("0.0.0.0", 8888)).await?;
    ///     server.serve_forever().await
    /// }
    ///
    /// fn main() -> Result<()> {
    ///     match Runner::new().graceful_shutdown(Duration::from_secs(30)).run(serve()) {
    ///         Err(Error::Cancelled(_)) => Ok(()), // SIGTERM
    ///         ended => ended,
    ///     }
    /// }
    /// ```
    ///
    /// asyncio: has none.
    #[must_use]
    pub fn graceful_shutdown(mut self, deadline: Duration) -> Self {
        self.graceful_shutdown = Some(deadline);
        self
    }

    /// Runs `main` in the runner's loop; all runs share one context, a copy of the one in which the loop was made.
    ///
    /// As [`run`](crate::run), but tasks that are left go on in the next run.
    ///
    /// # Errors
    ///
    /// Those of [`run`](crate::run); [`Error::Runtime`] "Runner is closed".
    ///
    /// asyncio: `Runner.run`.
    #[track_caller]
    pub fn run<T, F: IntoFuture<Output = Result<T>>>(&mut self, main: F) -> Result<T> {
        let created = Location::caller();
        if running::require().is_ok() {
            return Err(Error::Runtime("Runner.run() cannot be called from a running event loop".into()));
        }
        self.run_at(main.into_future(), created)
    }

    /// The runner's loop.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "Runner is closed"; what making the loop gives.
    ///
    /// asyncio: `Runner.get_loop`.
    pub fn get_loop(&mut self) -> Result<EventLoop> {
        self.open().map(|(event_loop, _)| event_loop)
    }

    /// Cancels and awaits the tasks that are left, closes async generators, shuts the default executor down and closes
    /// the loop. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] inside a running loop; what the shutdown gives. The loop is closed all the same.
    ///
    /// asyncio: `Runner.close`.
    pub fn close(&mut self) -> Result<()> {
        if let Stage::Open(event_loop, _) = &self.stage {
            if event_loop.is_running() {
                return Err(Error::Runtime("Cannot close a running event loop".into()));
            }
        }
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Open(event_loop, _) if !event_loop.is_closed() => {
                let left = cancel_all_tasks(&event_loop);
                let generators = event_loop.run_until_complete(event_loop.shutdown_asyncgens());
                let executor = event_loop.run_until_complete(event_loop.shutdown_default_executor(THREAD_JOIN_TIMEOUT));
                event_loop.close().and(left).and(generators).and(executor)
            }
            _ => Ok(()),
        }
    }

    /// The loop, which the first call makes, and the context of its runs.
    pub(crate) fn open(&mut self) -> Result<(EventLoop, Context)> {
        if let Stage::New = self.stage {
            let event_loop = match self.loop_factory.take() {
                Some(factory) => factory()?,
                None => running::new_event_loop()?,
            };
            if let Some(debug) = self.debug {
                event_loop.set_debug(debug);
            }
            self.stage = Stage::Open(event_loop, context::copy_context());
        }
        match &self.stage {
            Stage::Open(event_loop, context) => Ok((event_loop.clone(), context.clone())),
            Stage::New | Stage::Closed => Err(Error::Runtime("Runner is closed".into())),
        }
    }

    fn run_at<T, F: StdFuture<Output = Result<T>>>(
        &mut self,
        main: F,
        created: &'static Location<'static>,
    ) -> Result<T> {
        let (event_loop, context) = self.open()?;
        let stopping = Stopping::new(self.graceful_shutdown);
        let guards = stopping.take_over(&event_loop)?;
        let options = MainOptions { context: Some(context), keep: false };
        let result = event_loop.run_main(main, options, created, |task| stopping.begin(task));
        stopping.finish_drain(&event_loop);
        if !guards.is_empty() {
            event_loop.take_signals();
        }
        drop(guards);
        stopping.end(result)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; the tasks' own were reported.
        let _ = self.close();
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stage, event_loop) = match &self.stage {
            Stage::New => ("new", None),
            Stage::Open(event_loop, _) => ("open", Some(event_loop)),
            Stage::Closed => ("closed", None),
        };
        f.debug_struct("Runner").field("stage", &stage).field("event_loop", &event_loop).finish_non_exhaustive()
    }
}

/// Cancels every task, waits for their ends, and reports the errors that they ended with instead.
fn cancel_all_tasks(event_loop: &EventLoop) -> Result<()> {
    let tasks = event_loop.all_tasks();
    if tasks.is_empty() {
        return Ok(());
    }
    for task in &tasks {
        // All of them, from now on: a panic is received here, too.
        task.task.add(flag::AWAITED);
        task.task.cancel(Cancelled::by(Canceller::Runner, None));
    }
    let waited = event_loop.run_until_complete(async {
        for task in &tasks {
            // Each error is looked at below.
            let _ = task.clone().await;
        }
        Ok(())
    });
    for task in &tasks {
        if let Ok(Some(error)) = task.exception() {
            let context = ExceptionContext::new("unhandled exception during asyncio.run() shutdown")
                .exception(error)
                .task(task.clone())
                .source_location(task.source_location());
            event_loop.call_exception_handler(&context);
        }
    }
    waited
}
