//! `run_until_complete`: a main future, polled in place.

use std::{
    cell::Cell,
    future::{Future as StdFuture, IntoFuture},
    panic::Location,
    rc::Rc,
};

use crate::{
    context::{self, Context},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        meta::flag,
        running,
        step::{self, TaskRef},
        turn::Ready,
    },
};

/// How a main future is run.
pub(crate) struct MainOptions {
    /// The context it runs in itself; a copy of the present one without.
    pub(crate) context: Option<Context>,
    /// Whether a cancellation that nobody takes leaves it alone.
    pub(crate) keep: bool,
}

impl EventLoop {
    /// Runs the loop until `future` ends, and gives its result.
    ///
    /// The future is polled in place, so it may borrow; it is the current task meanwhile, with a copy of the present
    /// context. It has ended or been dropped when this returns. What its last step scheduled still runs. A task can be
    /// lent, `run_until_complete(&mut task)`, to go on with it later.
    ///
    /// # Errors
    ///
    /// The future's own; [`Error::Cancelled`] if it was cancelled; [`Error::Panicked`] if it panicked;
    /// [`Error::Runtime`] "Event loop stopped before Future completed." if the loop was stopped; and those of
    /// [`run_forever`](Self::run_forever), before the future is polled.
    ///
    /// # Examples
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// let name = String::from("asyncio");
    /// let length = event_loop.run_until_complete(async { Ok(name.len()) })?;
    /// assert_eq!(length, 7);
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.run_until_complete`. Differs: no task factory sees the future.
    #[track_caller]
    pub fn run_until_complete<T, F: IntoFuture<Output = Result<T>>>(&self, future: F) -> Result<T> {
        let options = MainOptions { context: None, keep: false };
        self.run_main(future.into_future(), options, Location::caller(), |_| ())
    }

    /// Runs `future` as the main task; `begun` is given the task before the loop runs.
    pub(crate) fn run_main<T, F: StdFuture<Output = Result<T>>>(
        &self,
        future: F,
        options: MainOptions,
        created: &'static Location<'static>,
        begun: impl FnOnce(&TaskRef),
    ) -> Result<T> {
        self.check_can_run()?;
        let (ran, outcome) = step::with_in_place(future, |main, drop_now| {
            let stop = StopWhenDropped { armed: Rc::new(Cell::new(true)) };
            let armed = stop.armed.clone();
            let context = options.context.clone().or_else(|| self.context().cloned());
            let vars = if context.is_none() { context::current_vars() } else { None };
            let coroutine = async move {
                let _stop = stop;
                main.await
            };
            let spawned = step::spawn(self, coroutine, vars, created, None);
            let task = crate::task::Task::new(spawned.task.clone(), spawned.outcome);
            let main_task = spawned.task;
            if let Some(context) = context {
                main_task.set_context(context);
            }
            if options.keep {
                main_task.keep();
            }
            // Whoever called receives a panic too.
            main_task.add(flag::AWAITED);
            spawned.runnable.schedule();
            begun(&main_task);
            let ran = self.run_forever();
            if !main_task.is_done() {
                armed.set(false);
                self.drop_guarded(drop_now);
                self.abandon_task(&main_task);
                ran?;
                return Err(Error::Runtime("Event loop stopped before Future completed.".into()));
            }
            task.result()
        });
        ran?;
        // The task returned Ok, so the future came to its end.
        outcome.unwrap_or_else(|| Err(Error::cancelled()))
    }

    /// What `run_forever` would refuse, found out before a future is touched.
    fn check_can_run(&self) -> Result<()> {
        self.begin_running().map(drop)
    }
}

/// Queues the loop's stop, as by `call_soon`, when the main future has ended.
struct StopWhenDropped {
    /// Cleared when the run is over before the future: what is left of it must not stop the next run.
    armed: Rc<Cell<bool>>,
}

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        if self.armed.get() {
            if let Some(event_loop) = running::current() {
                event_loop.push(Ready::Stop);
            }
        }
    }
}
