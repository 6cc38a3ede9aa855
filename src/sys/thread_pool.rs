//! Threads for jobs that block: the trait of all executors, and the pool that a loop uses unless it is given another.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::error::{Error, Result};

/// A job for an [`Executor`].
///
/// asyncio: what `Executor.submit` is called with.
pub type Job = Box<dyn FnOnce() + Send + 'static>;

/// Something that runs jobs elsewhere: this crate's [`ThreadPool`], rayon's pool, a process pool.
///
/// A shared executor is one too: `&E`, `Rc<E>`, `Arc<E>` and `Box<E>` pass everything on to `E`.
///
/// # Examples
///
/// ```
/// struct ThreadPerJob;
///
/// impl asyncio::Executor for ThreadPerJob {
///     fn submit(&self, job: asyncio::Job) -> asyncio::Result<()> {
///         std::thread::Builder::new().spawn(job)?;
///         Ok(())
///     }
/// }
/// ```
///
/// asyncio: `concurrent.futures.Executor`. Differs: a job reports its result itself, so that `submit` gives no future.
#[diagnostic::on_unimplemented(message = "`{Self}` is not an executor", label = "cannot run jobs elsewhere")]
pub trait Executor {
    /// Takes a job and returns without waiting for it.
    ///
    /// # Errors
    ///
    /// Whatever keeps the executor from taking the job; it drops the job, which then never runs. [`ThreadPool`] gives
    /// [`Error::Runtime`] once it was shut down, and [`Error::Io`] if not even its first thread can be started.
    fn submit(&self, job: Job) -> Result<()>;

    /// Stops taking jobs and calls `done` once, when all jobs that were taken have ended.
    ///
    /// Returns without waiting. `done` may be called from any thread, this one included; here, if not overridden, it is
    /// called at once.
    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        done();
    }
}

impl<E: Executor + ?Sized> Executor for &E {
    fn submit(&self, job: Job) -> Result<()> {
        (**self).submit(job)
    }

    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        (**self).shutdown(done);
    }
}

impl<E: Executor + ?Sized> Executor for Rc<E> {
    fn submit(&self, job: Job) -> Result<()> {
        (**self).submit(job)
    }

    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        (**self).shutdown(done);
    }
}

impl<E: Executor + ?Sized> Executor for Arc<E> {
    fn submit(&self, job: Job) -> Result<()> {
        (**self).submit(job)
    }

    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        (**self).shutdown(done);
    }
}

impl<E: Executor + ?Sized> Executor for Box<E> {
    fn submit(&self, job: Job) -> Result<()> {
        (**self).submit(job)
    }

    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        (**self).shutdown(done);
    }
}

/// Threads that are started as jobs need them and are kept for later ones.
///
/// Jobs start in the order of submission. A thread is added only when a job finds no idle one, up to the limit; idle
/// threads wait for ever and cost no CPU. A job that panics harms neither its thread nor the other jobs. Jobs that still
/// run when the process ends are cut off.
///
/// ```text
/// Open --shutdown, drop of the last handle--> Closed --the last thread finds no job--> Ended
/// ```
///
/// Clones are handles of one pool. Closing it never waits: the jobs that were taken still run, then the threads end.
///
/// `Threads:` may cross them, and be used by several at once.
///
/// # Examples
///
/// ```
/// use asyncio::{Executor, ThreadPool};
///
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let pool = ThreadPool::new(4);
/// pool.submit(Box::new(move || sender.send(6 * 7).expect("the receiver waits")))?;
/// assert_eq!(receiver.recv(), Ok(42));
/// # asyncio::ok(())
/// ```
///
/// asyncio: `concurrent.futures.ThreadPoolExecutor`. Differs: the end of the process does not wait for the jobs.
#[derive(Clone)]
pub struct ThreadPool {
    handle: Arc<Handle>,
}

impl ThreadPool {
    /// A pool of at most `max_workers` threads named `asyncio_0`, `asyncio_1` and so on; no thread is started yet.
    ///
    /// A limit of 0 means 1.
    ///
    /// asyncio: `ThreadPoolExecutor(max_workers)`. Differs: 0 is no error.
    pub fn new(max_workers: usize) -> Self {
        ThreadPool::with_name(max_workers, "asyncio")
    }

    /// The same with threads named `{prefix}_0`, `{prefix}_1` and so on.
    ///
    /// Zero bytes in `prefix` are left out; the system may show the first 15 bytes only.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = asyncio::ThreadPool::with_name(2, "thumbnails");
    /// assert_eq!(pool.max_workers(), 2);
    /// ```
    ///
    /// asyncio: `ThreadPoolExecutor(max_workers, thread_name_prefix)`.
    pub fn with_name(max_workers: usize, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into().replace('\0', "");
        let pool = Pool { max_workers: max_workers.max(1), prefix, state: Mutex::default(), called: Condvar::new() };
        ThreadPool { handle: Arc::new(Handle { pool: Arc::new(pool) }) }
    }

    /// How many threads the pool may have at most.
    ///
    /// asyncio: `ThreadPoolExecutor._max_workers`.
    pub fn max_workers(&self) -> usize {
        self.handle.pool.max_workers
    }
}

impl Executor for ThreadPool {
    fn submit(&self, job: Job) -> Result<()> {
        self.handle.pool.submit(job)
    }

    /// Stops taking jobs, for all handles; `done` is the last that the last thread runs, or runs here if there is none.
    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        if let Some(done) = self.handle.pool.close(Some(done)) {
            done();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = &self.handle.pool;
        f.debug_struct("ThreadPool")
            .field("prefix", &pool.prefix)
            .field("max_workers", &pool.max_workers)
            .finish_non_exhaustive()
    }
}

/// How many threads the pool of a loop may have: jobs mostly wait, so a few more than there are cores.
///
/// asyncio: `ThreadPoolExecutor(max_workers=None)`.
pub(crate) fn default_size() -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (cores + 4).min(32)
}

/// What is called when the pool has ended.
type Done = Box<dyn FnOnce() + Send>;

/// What all clones of a [`ThreadPool`] share; the threads hold the pool itself, so that the last clone can close it.
struct Handle {
    pool: Arc<Pool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.pool.close(None);
    }
}

struct Pool {
    max_workers: usize,
    prefix: String,
    state: Mutex<State>,
    /// Tells parked workers that one of them was called, or that the pool was closed.
    called: Condvar,
}

/// Invariant: while a job waits, somebody is coming, or all workers that can be had are running jobs.
#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that were started and have not left.
    workers: usize,
    /// Threads that were ever started: the number of the next one.
    started: usize,
    /// Workers that wait to be called, the called one included. Invariant: they park only when no job waits.
    parked: usize,
    coming: Coming,
    /// Set by `close()`; never cleared.
    closed: bool,
    /// Called by the last worker. Invariant: empty unless `closed`.
    done: Vec<Done>,
}

/// The worker that is on its way to the queue.
///
/// There is at most one: when it takes a job and leaves others behind, it gets the next one going. So a burst of tiny
/// jobs costs few wake-ups: with 1000 in flight and 6 threads 0.01 to 0.1 context switches a job, where one call for
/// each job makes it 0.4 to 1.0 and the CPU time of a job up to four times as long.
///
/// ```text
/// Nobody --call--> Called --work--> Nobody
/// Nobody --call--> Started --work--> Nobody
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Coming {
    #[default]
    Nobody,
    /// A parked worker.
    Called,
    /// A new thread.
    Started,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock, so that a panic cannot have left the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, job: Job) -> Result<()> {
        let mut state = self.lock(); // let go before `job` is dropped, which may run foreign code
        if state.closed {
            return Err(Error::Runtime("cannot schedule new futures after shutdown".into()));
        }
        if state.workers == 0 {
            self.start_worker(&mut state).map_err(|error| Error::io(error, "can't start new thread"))?;
        }
        state.jobs.push_back(job);
        self.call(state);
        Ok(())
    }

    /// Sees to it that somebody comes for the jobs that wait, if anybody can be had.
    fn call(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.jobs.is_empty() || state.coming != Coming::Nobody {
            return;
        }
        if state.parked > 0 {
            state.coming = Coming::Called;
            drop(state); // or the called one would wake up only to wait for the lock
            self.called.notify_one();
        } else if state.workers < self.max_workers {
            // If no thread can be had, the jobs wait for the workers that there are.
            let _ = self.start_worker(&mut state);
        }
    }

    fn start_worker(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let pool = self.clone();
        thread::Builder::new().name(format!("{}_{}", self.prefix, state.started)).spawn(move || pool.work())?;
        state.started += 1;
        state.workers += 1;
        state.coming = Coming::Started;
        Ok(())
    }

    /// The life of a worker.
    fn work(self: Arc<Self>) {
        let mut state = self.lock();
        state.coming = Coming::Nobody;
        loop {
            if let Some(job) = state.jobs.pop_front() {
                self.call(state);
                run(job);
                state = self.lock();
            } else if state.closed {
                break leave(state);
            } else {
                state = self.park(state);
            }
        }
    }

    /// Waits until this worker is called or the pool is closed.
    fn park<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.parked += 1;
        while state.coming != Coming::Called && !state.closed {
            state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked -= 1;
        if state.coming == Coming::Called {
            state.coming = Coming::Nobody;
        }
        state
    }

    /// Stops taking jobs; gives `done` back if nobody is left to call it.
    fn close(&self, done: Option<Done>) -> Option<Done> {
        let mut state = self.lock();
        state.closed = true;
        if state.workers == 0 {
            return done;
        }
        state.done.extend(done);
        drop(state);
        self.called.notify_all();
        None
    }
}

/// The end of a worker.
fn leave(mut state: MutexGuard<'_, State>) {
    state.workers -= 1;
    if state.workers == 0 {
        let done = mem::take(&mut state.done);
        drop(state); // what waits for the end is other people's code
        done.into_iter().for_each(run);
    }
}

/// Runs foreign code that must not end the thread; the hook has printed the panic, and who waits for a result learns
/// of it from its job.
fn run(job: Box<dyn FnOnce() + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
        // Its drop is foreign code as well; what that panics with is given up.
        catch_unwind(AssertUnwindSafe(|| drop(payload))).unwrap_or_else(mem::forget);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
            mpsc::{Receiver, Sender, channel},
        },
        time::Duration,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn name_of_this_thread() -> String {
        thread::current().name().unwrap().to_owned()
    }

    /// Submits a job and waits for what it gives.
    fn ask<T: Send + 'static>(pool: &ThreadPool, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        pool.submit(Box::new(move || drop(sender.send(job())))).unwrap();
        receiver.recv_timeout(DEADLINE).unwrap()
    }

    /// Occupies a worker until the sender is dropped; returns when the job runs.
    fn occupy(pool: &ThreadPool) -> Sender<()> {
        let (release, released) = channel::<()>();
        let (running, runs) = channel();
        pool.submit(Box::new(move || {
            running.send(()).unwrap();
            assert!(released.recv_timeout(DEADLINE).is_err());
        }))
        .unwrap();
        runs.recv_timeout(DEADLINE).unwrap();
        release
    }

    /// Returns when `count` workers of the pool are parked.
    fn wait_until_parked(pool: &ThreadPool, count: usize) {
        while pool.handle.pool.lock().parked < count {
            thread::yield_now();
        }
    }

    fn shut_down(pool: &ThreadPool) -> Receiver<&'static str> {
        let (sender, receiver) = channel();
        pool.shutdown(Box::new(move || sender.send("done").unwrap()));
        receiver
    }

    #[test]
    fn jobs_start_in_the_order_of_submission() {
        let pool = ThreadPool::new(1);
        let release = occupy(&pool);
        let (sender, receiver) = channel();
        for number in 0..1000 {
            let sender = sender.clone();
            pool.submit(Box::new(move || sender.send(number).unwrap())).unwrap();
        }
        drop((release, sender));
        assert!(receiver.iter().eq(0..1000));
    }

    /// EXEC-001, EXEC-002
    #[test]
    fn one_thread_named_after_the_prefix_serves_one_job_after_the_other() {
        for (pool, expected) in
            [(ThreadPool::new(8), "asyncio_0"), (ThreadPool::with_name(8, "th\0umbnails"), "thumbnails_0")]
        {
            for _ in 0..100 {
                assert_eq!(ask(&pool, name_of_this_thread), expected);
                wait_until_parked(&pool, 1);
            }
            assert_eq!(pool.handle.pool.lock().workers, 1);
        }
    }

    #[test]
    fn threads_are_added_up_to_the_limit_while_none_is_idle() {
        let pool = ThreadPool::new(3);
        let mut releases: Vec<_> = (0..3).map(|_| occupy(&pool)).collect();
        let (sender, receiver) = channel();
        pool.submit(Box::new(move || sender.send(name_of_this_thread()).unwrap())).unwrap();
        assert_eq!(pool.handle.pool.lock().workers, 3);
        assert!(receiver.try_recv().is_err(), "all workers are busy");
        releases.pop();
        assert_eq!(receiver.recv_timeout(DEADLINE).unwrap(), "asyncio_2");
    }

    /// A burst wakes the workers one by one; jobs that wait for each other need all of them.
    #[test]
    fn all_workers_come_for_a_burst() {
        let pool = ThreadPool::new(6);
        for _ in 0..200 {
            let (together, (sender, receiver)) = (Arc::new(Barrier::new(6)), channel());
            for _ in 0..6 {
                let (together, sender) = (together.clone(), sender.clone());
                pool.submit(Box::new(move || {
                    together.wait();
                    sender.send(name_of_this_thread()).unwrap();
                }))
                .unwrap();
            }
            let names: HashSet<_> = (0..6).map(|_| receiver.recv_timeout(DEADLINE).unwrap()).collect();
            assert_eq!(names.len(), 6);
        }
    }

    #[test]
    fn no_job_is_lost_when_many_threads_submit() {
        let (pool, count) = (ThreadPool::new(4), Arc::new(AtomicUsize::new(0)));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        let count = count.clone();
                        pool.submit(Box::new(move || {
                            count.fetch_add(1, Ordering::Relaxed);
                        }))
                        .unwrap();
                    }
                });
            }
        });
        shut_down(&pool).recv_timeout(DEADLINE).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 20_000);
    }

    #[test]
    fn a_panic_in_a_job_leaves_its_thread_in_service() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("expected: the payload's drop");
            }
        }
        let pool = ThreadPool::new(1);
        pool.submit(Box::new(|| panic!("expected: a job"))).unwrap();
        pool.submit(Box::new(|| std::panic::panic_any(Bomb))).unwrap();
        assert_eq!(ask(&pool, name_of_this_thread), "asyncio_0");
        assert!(!pool.handle.pool.state.is_poisoned());
    }

    /// EXEC-006
    #[test]
    fn after_a_shutdown_jobs_are_refused_and_dropped() {
        let pool = ThreadPool::new(1);
        assert_eq!(shut_down(&pool).try_recv(), Ok("done"), "a pool without threads ends at once");
        let (sender, receiver) = channel();
        let error = pool.clone().submit(Box::new(move || sender.send(()).unwrap())).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Runtime);
        assert_eq!(error.to_string(), "cannot schedule new futures after shutdown");
        assert!(receiver.recv().is_err());
    }

    #[test]
    fn every_shutdown_is_done_once_when_the_jobs_have_ended() {
        let pool = ThreadPool::new(2);
        let release = occupy(&pool);
        let (sender, receiver) = channel();
        let (first, second) = (sender.clone(), sender.clone());
        let panicked = sender.clone();
        pool.submit(Box::new(thread::yield_now)).unwrap();
        pool.shutdown(Box::new(move || first.send("first").unwrap()));
        pool.shutdown(Box::new(move || {
            panicked.send("panicked").unwrap();
            panic!("expected: a callback");
        }));
        pool.shutdown(Box::new(move || second.send("second").unwrap()));
        assert!(receiver.try_recv().is_err(), "a job still runs");
        sender.send("released").unwrap();
        drop((release, sender));
        assert!(receiver.iter().eq(["released", "first", "panicked", "second"]));
        assert_eq!(shut_down(&pool).try_recv(), Ok("done"));
    }

    #[test]
    fn jobs_queued_before_a_shutdown_still_run() {
        let pool = ThreadPool::new(1);
        let release = occupy(&pool);
        let (sender, receiver) = channel();
        for number in 0..10 {
            let sender = sender.clone();
            pool.submit(Box::new(move || sender.send(number).unwrap())).unwrap();
        }
        pool.shutdown(Box::new(move || sender.send(10).unwrap()));
        drop(release);
        assert!(receiver.iter().eq(0..11));
    }

    #[test]
    fn parked_workers_leave_at_a_shutdown() {
        let pool = ThreadPool::new(3);
        drop((0..3).map(|_| occupy(&pool)).collect::<Vec<_>>());
        wait_until_parked(&pool, 3);
        assert_eq!(shut_down(&pool).recv_timeout(DEADLINE), Ok("done"));
    }

    #[test]
    fn a_shutdown_from_a_job_does_not_wait_for_itself() {
        let pool = ThreadPool::new(1);
        let clone = pool.clone();
        assert_eq!(ask(&pool, move || shut_down(&clone)).recv_timeout(DEADLINE), Ok("done"));
    }

    /// EXEC-009
    #[test]
    fn dropping_the_last_handle_waits_for_nothing_and_loses_no_job() {
        let pool = ThreadPool::new(1);
        let release = occupy(&pool);
        let (sender, receiver) = channel();
        pool.submit(Box::new(move || sender.send("queued").unwrap())).unwrap();
        let shared = Arc::downgrade(&pool.handle.pool);
        let clone = pool.clone();
        drop(pool);
        assert!(!clone.handle.pool.lock().closed, "a handle is left");
        drop(clone);
        assert!(receiver.try_recv().is_err());
        drop(release);
        assert_eq!(receiver.recv_timeout(DEADLINE), Ok("queued"));
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn the_last_handle_may_be_dropped_by_a_job() {
        let pool = ThreadPool::new(2);
        let release = occupy(&pool);
        let shared = Arc::downgrade(&pool.handle.pool);
        let clone = pool.clone();
        pool.submit(Box::new(move || drop(clone))).unwrap();
        drop((pool, release));
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_limit_of_zero_means_one() {
        let pool = ThreadPool::new(0);
        assert_eq!(pool.max_workers(), 1);
        assert_eq!(ask(&pool, || 5), 5);
        assert!((5..=32).contains(&default_size()));
    }

    #[test]
    fn shared_executors_pass_on_jobs_and_the_shutdown() {
        fn check(executor: impl Executor) {
            let (sender, receiver) = channel();
            let ended = sender.clone();
            executor.submit(Box::new(move || sender.send("job").unwrap())).unwrap();
            executor.shutdown(Box::new(move || ended.send("done").unwrap()));
            assert!(receiver.iter().eq(["job", "done"]));
            assert!(executor.submit(Box::new(|| ())).is_err());
        }
        let pool = ThreadPool::new(1);
        check(&pool);
        assert!(pool.handle.pool.lock().closed);
        check(Rc::new(ThreadPool::new(1)));
        check(Arc::new(ThreadPool::new(1)) as Arc<dyn Executor>);
        check(Box::new(ThreadPool::new(1)) as Box<dyn Executor>);
    }

    #[test]
    fn the_default_of_shutdown_is_done_at_once() {
        struct Inline;
        impl Executor for Inline {
            fn submit(&self, job: Job) -> Result<()> {
                job();
                Ok(())
            }
        }
        let (sender, receiver) = channel();
        Inline.shutdown(Box::new(move || sender.send(()).unwrap()));
        assert_eq!(receiver.try_recv(), Ok(()));
    }

    #[test]
    fn a_pool_may_cross_threads() {
        fn send_and_sync<T: Send + Sync>() {}
        send_and_sync::<ThreadPool>();
    }
}
