//! Executors that are not ours.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, Mutex, mpsc::channel},
    thread,
    time::Duration,
};

use asyncio::{Error, ErrorKind, Executor, Job, ThreadPool, sleep};

use crate::support::{self, failure, handler, new_loop, tick};

/// Takes no job.
pub(crate) struct Refuses;

impl Executor for Refuses {
    fn submit(&self, job: Job) -> asyncio::Result<()> {
        drop(job);
        Err(Error::other("not today"))
    }
}

/// Takes jobs and forgets them.
pub(crate) struct Drops;

impl Executor for Drops {
    fn submit(&self, job: Job) -> asyncio::Result<()> {
        drop(job);
        Ok(())
    }
}

/// Runs the job in the call.
pub(crate) struct Inline;

impl Executor for Inline {
    fn submit(&self, job: Job) -> asyncio::Result<()> {
        job();
        Ok(())
    }
}

/// Keeps jobs until it is asked to run them.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Vec<Job>>>);

impl Executor for ByHand {
    fn submit(&self, job: Job) -> asyncio::Result<()> {
        self.0.lock().unwrap().push(job);
        Ok(())
    }
}

/// Rayon's pool as an executor.
struct Rayon(rayon::ThreadPool);

impl Executor for Rayon {
    fn submit(&self, job: Job) -> asyncio::Result<()> {
        self.0.spawn(job);
        Ok(())
    }
}

#[test]
fn rayons_pool_is_an_executor() {
    let pool = || Rayon(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    support::run(async move {
        let (event_loop, pool) = (asyncio::get_running_loop()?, pool());
        let on_rayon = || rayon::current_thread_index().is_some();
        let jobs: Vec<_> = (0..8).map(|_| event_loop.run_in_executor(Some(&pool), on_rayon)).collect();
        for job in jobs {
            assert!(job.await?);
        }
        // Its own threads end the process when a job panics: the job does not let the panic out.
        let panics = event_loop.run_in_executor(Some(&pool), || panic!("in rayon"));
        assert_eq!(failure::<()>(panics.await), (ErrorKind::Panicked, "in rayon".into()));
        event_loop.set_default_executor(pool)?;
        assert!(asyncio::to_thread(move || Ok(on_rayon())).await?);
        event_loop.shutdown_default_executor(None).await?;
        let refused = event_loop.run_in_executor(None, on_rayon).await;
        assert_eq!(failure(refused), (ErrorKind::Runtime, "Executor shutdown has been called".into()));
        Ok(())
    });
}

/// The future is born failed with the executor's error; nothing else is reported.
#[test]
fn an_executor_may_refuse() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (guard, dropped) = support::drop_guard();
    let future = event_loop.run_in_executor(Some(&Refuses), move || drop(guard));
    assert!(future.done() && dropped.get());
    assert_eq!(failure(future.result()), (ErrorKind::Other, "not today".into()));
    tick(&event_loop);
    assert_eq!(failure(future.result()).1, "not today");
    event_loop.set_default_executor(Refuses).unwrap();
    assert_eq!(failure(event_loop.run_until_complete(asyncio::to_thread(|| Ok(())))).1, "not today");
    drop(future);
    event_loop.close().unwrap();
    assert_eq!(reports.len(), 0);
}

/// Nobody waits for ever for a job that was forgotten.
#[test]
fn an_executor_may_drop_jobs() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let future = event_loop.run_in_executor(Some(&Drops), move || drop(guard));
    assert!(dropped.get());
    let (kind, text) = failure(event_loop.run_until_complete(future));
    assert_eq!(kind, ErrorKind::Runtime);
    assert!(text.contains("dropped"), "{text}");

    let by_hand = ByHand::default();
    let future = event_loop.run_in_executor(Some(&by_hand), || ());
    let dropper = by_hand.clone();
    let thread = thread::spawn(move || dropper.0.lock().unwrap().clear());
    assert_eq!(failure(event_loop.run_until_complete(future)).0, ErrorKind::Runtime);
    thread.join().unwrap();
}

/// Also then the future is done in a later iteration, not inside the call.
#[test]
fn an_executor_may_run_the_job_at_once() {
    let event_loop = new_loop();
    let here = thread::current().id();
    let future = event_loop.run_in_executor(Some(&Inline), move || thread::current().id() == here);
    assert!(!future.done());
    tick(&event_loop);
    assert!(future.result().unwrap());
    let panics = event_loop.run_in_executor(Some(&Inline), || panic!("inline"));
    assert_eq!(failure::<()>(event_loop.run_until_complete(panics)), (ErrorKind::Panicked, "inline".into()));
}

/// A job may be run long after; one that is cancelled meanwhile is not.
#[test]
fn an_executor_may_take_its_time() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let by_hand = ByHand::default();
    let first = event_loop.run_in_executor(Some(&by_hand), || 1);
    let second = event_loop.run_in_executor(Some(&by_hand), || -> i32 { unreachable!("it is cancelled") });
    event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
    assert!(!first.done());
    second.cancel();
    let jobs = std::mem::take(&mut *by_hand.0.lock().unwrap());
    let thread = thread::spawn(move || jobs.into_iter().for_each(|job| job()));
    assert_eq!(event_loop.run_until_complete(first).unwrap(), 1);
    thread.join().unwrap();
    tick(&event_loop);
    assert!(second.cancelled());
    // After the close, too, a job is harmless.
    let late = event_loop.run_in_executor(Some(&by_hand), || 3);
    event_loop.close().unwrap();
    let jobs = std::mem::take(&mut *by_hand.0.lock().unwrap());
    jobs.into_iter().for_each(|job| job());
    assert!(!late.done());
}

/// A submit that panics is the caller's panic, and leaves the loop whole.
#[test]
fn an_executor_that_panics_panics_in_the_call() {
    struct Panics;
    impl Executor for Panics {
        fn submit(&self, _: Job) -> asyncio::Result<()> {
            panic!("expected")
        }
    }
    let (event_loop, _clock) = support::virtual_loop();
    let call = std::panic::AssertUnwindSafe(|| drop(event_loop.run_in_executor(Some(&Panics), || ())));
    assert!(std::panic::catch_unwind(call).is_err());
    // The clock is not held.
    event_loop.run_until_complete(sleep(Duration::from_secs(1000))).unwrap();
}

/// The pool of before goes on with what it has, and is not shut down.
#[test]
fn set_default_executor_replaces_the_pool() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let name = || {
        let job = || thread::current().name().unwrap().to_owned();
        event_loop.run_until_complete(event_loop.run_in_executor(None, job)).unwrap()
    };
    assert!(name().starts_with("asyncio"));
    let mine = ThreadPool::with_name(1, "mine");
    event_loop.set_default_executor(mine.clone()).unwrap();
    assert_eq!(name(), "mine_0");
    let (job, begun, release) = crate::jobs::blocker();
    let busy = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    event_loop.set_default_executor(ThreadPool::with_name(1, "other")).unwrap();
    assert_eq!(name(), "other_0");
    drop(release);
    event_loop.run_until_complete(busy).unwrap();
    let direct = event_loop.run_in_executor(Some(&mine), || 5);
    assert_eq!(event_loop.run_until_complete(direct).unwrap(), 5);
    // An executor may be shared with others in many ways.
    event_loop.set_default_executor(Rc::new(mine.clone())).unwrap();
    assert_eq!(name(), "mine_0");
    event_loop.set_default_executor(Box::new(mine) as Box<dyn Executor>).unwrap();
    assert_eq!(name(), "mine_0");
}

/// Shutdown and close tell a custom executor once to stop, and wait for its word only in the shutdown.
#[test]
fn a_custom_executor_is_told_to_shut_down() {
    type Done = Box<dyn FnOnce() + Send>;
    struct Watched {
        told: Rc<Cell<usize>>,
        pass_on: Box<dyn Fn(Done)>,
    }
    impl Executor for Watched {
        fn submit(&self, job: Job) -> asyncio::Result<()> {
            job();
            Ok(())
        }
        fn shutdown(&self, done: Done) {
            self.told.set(self.told.get() + 1);
            (self.pass_on)(done);
        }
    }
    let _deadline = support::deadline();
    let told = Rc::new(Cell::new(0));
    let watched = |pass_on: Box<dyn Fn(Done)>| Watched { told: told.clone(), pass_on };

    let event_loop = new_loop();
    event_loop.set_default_executor(watched(Box::new(drop))).unwrap();
    event_loop.close().unwrap();
    assert_eq!(told.take(), 1, "by close");

    let event_loop = new_loop();
    let (sender, receiver) = channel::<Done>();
    event_loop.set_default_executor(watched(Box::new(move |done| sender.send(done).unwrap()))).unwrap();
    let thread = thread::spawn(move || {
        let done = receiver.recv().unwrap();
        thread::sleep(Duration::from_millis(10));
        done();
    });
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
    event_loop.close().unwrap();
    assert_eq!(told.take(), 1, "by the shutdown, and not again by close");
    thread.join().unwrap();
}
