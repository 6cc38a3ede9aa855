//! Attempts at the same thing, each begun when the one before fails or takes too long.

use std::{
    cell::RefCell,
    future::{Future as StdFuture, IntoFuture},
    panic::AssertUnwindSafe,
    rc::Rc,
    time::Duration,
};

use futures::FutureExt;

use crate::{
    combine::{task_group::TaskGroup, timeout::timeout},
    error::{Error, Result},
    event_loop::running,
    future::Future,
};

/// What a [`staggered_race`] came to.
///
/// asyncio: the tuple that `staggered_race` returns.
#[derive(Clone, Debug)]
pub struct RaceOutcome<T> {
    /// What the winner gave; `None` if nobody won.
    pub winner_result: Option<T>,
    /// Which one won.
    pub winner_index: Option<usize>,
    /// The error of each that was started, in their order; that of the winner is `None`.
    pub exceptions: Vec<Option<Error>>,
}

/// Runs attempts until one succeeds: the first at once, each other one when that before it has failed or `delay` has
/// passed; with `None` they run one after the other.
///
/// Each attempt is a task; `coro_fns` is asked for the next when its time has come. The first success wins: the other
/// attempts are cancelled, and their ends waited for. A panic is a failure, [`Error::Panicked`]. An attempt that is
/// cancelled and succeeds all the same has no error, and its value is dropped.
///
/// # Cancel safety
///
/// Cancelling the task that waits cancels the attempts and waits for their ends. Dropping the future cancels them: each
/// has one more step, and is dropped then.
///
/// # Errors
///
/// Those of the attempts are in the outcome; [`Error::Cancelled`] if the task was cancelled; [`Error::Runtime`] outside
/// of a task.
///
/// # Examples
///
/// ```
/// use asyncio::{ErrorKind, sleep, staggered_race};
/// use std::time::Duration;
///
/// async fn ask(mirror: &str) -> asyncio::Result<String> {
///     if mirror == "far" {
///         sleep(Duration::from_secs(3600)).await?;
///     }
///     Ok(format!("{mirror} answers"))
/// }
///
/// asyncio::run(async {
///     let mirrors = ["far", "near"].map(|mirror| move || ask(mirror));
///     let race = staggered_race(mirrors, Duration::from_millis(2)).await?;
///     assert_eq!(race.winner_result.as_deref(), Some("near answers"));
///     assert_eq!(race.winner_index, Some(1));
///     assert_eq!(race.exceptions[0].as_ref().map(|error| error.kind()), Some(ErrorKind::Cancelled));
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.staggered.staggered_race`.
pub async fn staggered_race<T, I, F, C>(coro_fns: I, delay: impl Into<Option<Duration>>) -> Result<RaceOutcome<T>>
where
    T: 'static,
    I: IntoIterator<Item = F>,
    F: FnOnce() -> C + 'static,
    C: IntoFuture<Output = Result<T>>,
    C::IntoFuture: 'static,
{
    // Nothing here holds the loop while it waits: that would keep the loop alive.
    let requests =
        || running::with(|running| running.map(|event_loop| event_loop.with_current(|task| task.requests())));
    let (delay, requests_before) = (delay.into(), requests());
    let race = Rc::new(Race::new());
    TaskGroup::scope(async |group| {
        for coro_fn in coro_fns {
            let failed = running::require()?.create_future::<()>();
            let attempt = Attempt {
                race: race.clone(),
                index: race.enter(),
                group: group.clone(),
                failed: Failed(failed.clone()),
            };
            group.create_task(attempt.run(async move { coro_fn().await }));
            match timeout(delay, failed).await {
                Ok(()) if race.is_won() => break,
                Ok(()) | Err(Error::Timeout(_)) => {}
                // The winner's doing, unless somebody has asked the task as well.
                Err(Error::Cancelled(_)) if race.is_won() && requests() == requests_before => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
    .await?;
    Ok(race.outcome.replace(RaceOutcome::new()))
}

impl<T> RaceOutcome<T> {
    const fn new() -> Self {
        RaceOutcome { winner_result: None, winner_index: None, exceptions: Vec::new() }
    }
}

/// What the attempts have come to so far.
struct Race<T> {
    outcome: RefCell<RaceOutcome<T>>,
}

impl<T> Race<T> {
    fn new() -> Self {
        Race { outcome: RefCell::new(RaceOutcome::new()) }
    }

    /// A place for one more attempt: one that never runs has been cancelled.
    fn enter(&self) -> usize {
        let exceptions = &mut self.outcome.borrow_mut().exceptions;
        exceptions.push(Some(Error::cancelled()));
        exceptions.len() - 1
    }

    fn is_won(&self) -> bool {
        self.outcome.borrow().winner_index.is_some()
    }

    /// Gives the value back if somebody else has won.
    fn win(&self, index: usize, value: T) -> Option<T> {
        let mut outcome = self.outcome.borrow_mut();
        outcome.exceptions[index] = None;
        if outcome.winner_index.is_some() {
            return Some(value);
        }
        outcome.winner_index = Some(index);
        outcome.winner_result = Some(value);
        None
    }

    fn lose(&self, index: usize, error: Error) {
        let before = self.outcome.borrow_mut().exceptions[index].replace(error);
        drop(before);
    }
}

/// What an attempt needs to tell the others how it ended.
struct Attempt<T> {
    race: Rc<Race<T>>,
    index: usize,
    group: TaskGroup,
    failed: Failed,
}

/// Says, however the attempt ends, that the next one's time has come: one that is dropped has failed, too.
struct Failed(Future<()>);

impl Drop for Failed {
    fn drop(&mut self) {
        // Fails where the next one has begun already.
        let _ = self.0.set_result(());
    }
}

impl<T> Attempt<T> {
    async fn run(self, coroutine: impl StdFuture<Output = Result<T>>) -> Result<()> {
        let outcome = AssertUnwindSafe(coroutine).catch_unwind().await;
        match outcome.unwrap_or_else(|payload| Err(Error::from_panic(payload))) {
            Ok(value) => match self.race.win(self.index, value) {
                None => self.group.cancel(),
                Some(late) => drop(late),
            },
            Err(error) => self.race.lose(self.index, error),
        }
        drop(self.failed);
        Ok(())
    }
}
