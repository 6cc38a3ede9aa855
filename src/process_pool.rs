//! Jobs in other processes: the one door to `procspawn`.

use std::{
    error::Error as _,
    fmt, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use procspawn::{Pool, SpawnError};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    sys::{
        function,
        thread_pool::{Executor, Job, ThreadPool},
    },
};

/// Set by init(); never cleared.
static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// What is said of a job whose process is gone; the words before the bracket are Python's.
const TERMINATED: &str = "A process in the process pool was terminated abruptly while the future was running or \
                          pending (it was killed, it exited, or its result cannot be sent)";

/// Processes that run functions: for code that may crash, leak or keep state of its own.
///
/// Work that only keeps a processor busy needs no processes: threads share no interpreter lock, and a [`ThreadPool`] is
/// cheaper.
///
/// The processes are this program, started again, and [`ProcessPool::init`] must be the first thing in `main`. Each is
/// started when a job finds none idle, up to the limit, and serves one job after the other; standard input is empty
/// there, arguments, environment, standard output and standard error are those of this process.
///
/// ```text
/// Open --Executor::shutdown, drop of the last handle--> Closed --the last job ends--> Ended
/// ```
///
/// Clones are handles of one pool. Closing it never waits: the jobs that were taken still run, then the processes are
/// ended. When this process ends they end as well, each after the job that it is at.
///
/// A closure cannot cross to another process, a function and its arguments can: [`ProcessPool::job`] makes a job of them
/// that waits for the process. As an [`Executor`] the pool runs such jobs, in threads of its own; any other closure that
/// it is given runs in one of these threads, and not in a process.
///
/// `Threads:` may cross them, and be used by several at once.
///
/// # Examples
///
/// ```no_run
/// use asyncio::ProcessPool;
///
/// fn count(text: String) -> usize {
///     text.split_whitespace().count()
/// }
///
/// fn main() -> asyncio::Result<()> {
///     ProcessPool::init();
///     asyncio::run(async {
///         let event_loop = asyncio::get_running_loop()?;
///         let pool = ProcessPool::new(2)?;
///         let words = event_loop.run_in_executor(Some(&pool), pool.job(count, "to be or not".into())).await??;
///         assert_eq!(words, 4);
///         Ok(())
///     })
/// }
/// ```
///
/// asyncio: `concurrent.futures.ProcessPoolExecutor`. Differs: when a process dies, the job that it was at fails, the
/// others go on, and another process takes its place; the end of this process does not wait for the jobs.
#[derive(Clone)]
pub struct ProcessPool {
    /// One for each process: they wait for the results.
    threads: ThreadPool,
    workers: Arc<Workers>,
}

impl ProcessPool {
    /// Makes the processes of pools possible. Call it first in `main`.
    ///
    /// Each process of a pool is this program, started again. In it, this call does not return: it serves jobs, and ends
    /// the process when the pool has ended. What stands before the call runs once more in each of them.
    ///
    /// asyncio: `if __name__ == '__main__'`, which Python's process pools need in the same place.
    pub fn init() {
        INITIALIZED.store(true, Ordering::Release);
        procspawn::init();
    }

    /// A pool of at most `max_workers` processes, `None`: as many as there are cores; none is started yet.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if the limit is 0; [`Error::Runtime`] if [`ProcessPool::init`] was not called in this process.
    ///
    /// asyncio: `ProcessPoolExecutor(max_workers)`.
    pub fn new(max_workers: impl Into<Option<usize>>) -> Result<Self> {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let limit = max_workers.into().unwrap_or_else(cores);
        if limit == 0 {
            return Err(Error::Value("max_workers must be greater than 0".into()));
        }
        if !INITIALIZED.load(Ordering::Acquire) {
            return Err(Error::Runtime(
                "asyncio::ProcessPool::init() was not called: it must be the first thing in main".into(),
            ));
        }
        let workers = Workers { limit, state: Mutex::default(), returned: Condvar::new() };
        Ok(ProcessPool { threads: ThreadPool::with_name(limit, "asyncio_process"), workers: Arc::new(workers) })
    }

    /// How many processes the pool may have at most.
    ///
    /// asyncio: `ProcessPoolExecutor._max_workers`.
    pub fn max_workers(&self) -> usize {
        self.workers.limit
    }

    /// A job that calls `function` with `args` in a process of this pool and waits for what it returns.
    ///
    /// Give it to [`run_in_executor`](crate::EventLoop::run_in_executor) with this pool, or to any other executor, whose
    /// thread then does the waiting: `asyncio::to_thread(pool.job(function, args)).await?`. `function` is the name of a
    /// function or a closure that captures nothing; several arguments are a tuple, none is `()`. Arguments and result
    /// are sent in a compact form that does not describe itself: what serde calls `flatten` and `untagged` does not go.
    ///
    /// Cancelling what waits for the job keeps it from running if it has not begun; one that runs goes on.
    ///
    /// # Errors
    ///
    /// The job gives [`Error::Panicked`] if the function panics, which harms no process; [`Error::Runtime`] if its
    /// process is killed or exits, if arguments or result cannot be sent, and once the pool has ended; [`Error::Io`] if
    /// no process can be started.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(pool: asyncio::ProcessPool) -> asyncio::Result<()> {
    /// let event_loop = asyncio::get_running_loop()?;
    /// let sum = event_loop.run_in_executor(Some(&pool), pool.job(|(a, b)| a + b, (1, 2))).await??;
    /// assert_eq!(sum, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What a closure captures stays here, so that this does not compile:
    ///
    /// ```compile_fail
    /// let pool = asyncio::ProcessPool::new(1)?;
    /// let factor = 3;
    /// let job = pool.job(move |number: i32| number * factor, 14);
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `Executor.submit(fn, *args)`.
    pub fn job<A, R, F>(&self, function: F, args: A) -> impl FnOnce() -> Result<R> + Send + use<A, R, F>
    where
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(A) -> R + Copy + Send + 'static,
    {
        let workers = self.workers.clone();
        // This runs in the process: it outlives a panic, and can tell the text.
        let function = function::pointer(move |args| {
            let outcome = catch_unwind(AssertUnwindSafe(|| function(args)));
            outcome.map_err(|payload| Error::from_panic(payload).to_string())
        });
        move || workers.take()?.call(function, args)
    }
}

impl Executor for ProcessPool {
    fn submit(&self, job: Job) -> Result<()> {
        self.threads.submit(job)
    }

    /// Stops taking jobs, for all handles; ends the processes after the last job, then calls `done`.
    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        let workers = self.workers.clone();
        self.threads.shutdown(Box::new(move || {
            workers.close();
            done();
        }));
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool").field("max_workers", &self.max_workers()).finish_non_exhaustive()
    }
}

/// The processes of a pool. Dropping one ends it.
struct Workers {
    limit: usize,
    state: Mutex<State>,
    /// Tells a job that waits for a process that one was given back, or that the pool has ended.
    returned: Condvar,
}

/// Invariant: idle and busy together are at most the limit.
#[derive(Default)]
struct State {
    /// Pools of one process each, so that they can be started one by one.
    idle: Vec<Pool>,
    /// Processes that are at a job, or are being started for one.
    busy: usize,
    /// Set by close(); never cleared.
    closed: bool,
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock, so that a panic cannot have left the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a process; starts one if none is idle and one more may be had.
    fn take(self: Arc<Self>) -> Result<Worker> {
        let mut state = self.lock();
        while !state.closed && state.idle.is_empty() && state.busy == self.limit {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(Error::Runtime("cannot schedule new futures after shutdown".into()));
        }
        state.busy += 1;
        let idle = state.idle.pop();
        drop(state);
        let mut worker = Worker { workers: self, pool: idle };
        if worker.pool.is_none() {
            // This waits until the process has called init().
            worker.pool = Some(Pool::builder(1).disable_stdin().build().map_err(|error| failure(&error))?);
        }
        Ok(worker)
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let idle = mem::take(&mut state.idle);
        drop(state);
        self.returned.notify_all();
        drop(idle); // waits for each to end
    }
}

/// A process that is at a job; comes back when it is dropped.
struct Worker {
    workers: Arc<Workers>,
    /// Empty if it could not be started.
    pool: Option<Pool>,
}

impl Worker {
    fn call<A, R>(&self, function: fn(A) -> Result<R, String>, args: A) -> Result<R>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let pool = self.pool.as_ref().expect("take() has put it there");
        // It panics where the arguments cannot be sent.
        let sent = catch_unwind(AssertUnwindSafe(|| pool.spawn(args, function)));
        let call = sent.map_err(|payload| {
            let text = Error::from_panic(payload);
            Error::Runtime(format!("the arguments could not be sent to a process of the pool: {text}").into())
        })?;
        call.join().map_err(|error| failure(&error))?.map_err(|text| Error::Panicked(text.into()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.workers.lock();
        state.busy -= 1;
        // One that has died has been replaced by its pool.
        let closed = state.closed;
        let surplus = self.pool.take().and_then(|pool| match closed {
            true => Some(pool),
            false => {
                state.idle.push(pool);
                None
            }
        });
        drop(state);
        self.workers.returned.notify_one();
        drop(surplus);
    }
}

/// What became of a job whose process brought no result.
fn failure(error: &SpawnError) -> Error {
    let code = error.source().and_then(|source| source.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    match code {
        Some(code) if !error.is_remote_close() => {
            Error::io(io::Error::from_raw_os_error(code), "can't start a process of the pool")
        }
        _ => Error::Runtime(TERMINATED.into()),
    }
}
