//! Blocking work from coroutines.

use crate::{
    context::{self, ContextRef},
    error::Result,
    event_loop::running,
};

/// Runs `job` in a thread of the loop's default executor, in a copy of the present context, and gives its result.
///
/// Nothing is submitted before it is awaited.
///
/// # Cancel safety
///
/// A job that has not begun is not run; one that runs goes on, and its result is dropped.
///
/// # Errors
///
/// The job's own; [`Error::Panicked`](crate::Error::Panicked) if it panics; [`Error::Runtime`](crate::Error::Runtime)
/// without a running loop, and after `shutdown_default_executor`.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let text = asyncio::to_thread(|| Ok(std::fs::read_to_string("/proc/self/comm").unwrap_or_default())).await?;
///     println!("{text}");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.to_thread`.
pub async fn to_thread<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let event_loop = running::require()?;
    let vars = context::current_vars();
    let job = move || {
        let _entered = context::enter(ContextRef::Bare(vars), 0)?;
        job()
    };
    let future = event_loop.run_in_executor(None, job);
    drop(event_loop);
    future.await?
}
