//! `shutdown_default_executor`.

use std::{
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, ThreadPool, sleep};
use tracing::Level;

use crate::{
    jobs::blocker,
    support::{self, failure, handler, logs, new_loop, tick},
};

/// EXEC-006
#[test]
fn a_shutdown_waits_for_the_jobs_and_then_there_are_no_more() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (begun, has_begun) = channel();
    let future = event_loop.run_in_executor(None, move || {
        begun.send(()).unwrap();
        thread::sleep(Duration::from_millis(100));
        1
    });
    has_begun.recv().unwrap();
    let begin = Instant::now();
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
    let taken = begin.elapsed();
    assert!(taken >= Duration::from_millis(90) && taken < Duration::from_secs(20), "{taken:?}");
    assert_eq!(future.result().unwrap(), 1, "its result is there");
    let refused = event_loop.run_in_executor(None, || ());
    assert_eq!(failure(refused.result()), (ErrorKind::Runtime, "Executor shutdown has been called".into()));
    let refused = event_loop.run_until_complete(asyncio::to_thread(|| Ok(())));
    assert_eq!(failure(refused), (ErrorKind::Runtime, "Executor shutdown has been called".into()));
    let pool = ThreadPool::new(1);
    let refused = event_loop.set_default_executor(pool.clone());
    assert_eq!(failure(refused), (ErrorKind::Runtime, "Executor shutdown has been called".into()));
    let explicit = event_loop.run_in_executor(Some(&pool), || 2);
    assert_eq!(event_loop.run_until_complete(explicit).unwrap(), 2);
}

/// EXEC-008
#[test]
fn a_shutdown_in_limited_time_warns_and_goes_on() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (job, begun, release) = blocker();
    let busy = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    let begin = Instant::now();
    let shutdown = event_loop.shutdown_default_executor(Duration::from_millis(10));
    let (result, logged) = logs(|| event_loop.run_until_complete(shutdown));
    let taken = begin.elapsed();
    result.unwrap();
    assert!(taken >= Duration::from_millis(10) && taken < Duration::from_secs(10), "{taken:?}");
    let text = "The executor did not finishing joining its threads within 0.01 seconds.";
    assert_eq!(logged, [(Level::WARN, text.to_owned())]);
    drop(release);
    event_loop.run_until_complete(busy).unwrap();
}

#[test]
fn a_shutdown_in_enough_time_warns_of_nothing() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let future = event_loop.run_in_executor(None, || 1);
    let ((), logged) = logs(|| {
        event_loop.run_until_complete(event_loop.shutdown_default_executor(Duration::from_secs(50))).unwrap();
    });
    assert_eq!(logged, []);
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 1);
    assert_eq!(event_loop.next_deadline(), None, "no timer is left");
}

/// Without an executor there is nothing to wait for; afterwards none is made.
#[test]
fn a_shutdown_without_an_executor_is_one_too() {
    let event_loop = new_loop();
    for _ in 0..2 {
        event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
        assert_eq!(failure(event_loop.run_in_executor(None, || ()).result()).0, ErrorKind::Runtime);
    }
    event_loop.run_until_complete(event_loop.shutdown_default_executor(Duration::ZERO)).unwrap();
}

/// A second call waits as the first did, also where that one gave up.
#[test]
fn a_second_shutdown_waits_for_what_is_left() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (job, begun, release) = blocker();
    let busy = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    let (_, logged) = logs(|| event_loop.run_until_complete(event_loop.shutdown_default_executor(Duration::ZERO)));
    assert_eq!(logged.len(), 1);
    let text = "The executor did not finishing joining its threads within 0 seconds.";
    assert_eq!(logged[0].1, text);
    let second = event_loop.create_task(event_loop.shutdown_default_executor(None));
    let third = event_loop.create_task(event_loop.shutdown_default_executor(Duration::from_secs(50)));
    tick(&event_loop);
    tick(&event_loop);
    assert!(!second.done() && !third.done());
    drop(release);
    event_loop.run_until_complete(second).unwrap();
    event_loop.run_until_complete(third).unwrap();
    assert!(busy.done());
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
    assert_eq!(event_loop.next_deadline(), None);
}

/// Nothing begins before it is awaited; and it needs its loop.
#[test]
fn a_shutdown_begins_when_it_is_awaited() {
    let event_loop = new_loop();
    let unawaited = event_loop.shutdown_default_executor(None);
    let job = event_loop.run_in_executor(None, || 1);
    assert_eq!(event_loop.run_until_complete(job).unwrap(), 1);
    event_loop.close().unwrap();
    let other = new_loop();
    assert_eq!(failure(other.run_until_complete(unawaited)), (ErrorKind::Runtime, "Event loop is closed".into()));
}

/// The wait may be cancelled or dropped; the executor stays shut down, and no timer is left.
#[test]
fn a_shutdown_may_be_given_up() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (job, begun, release) = blocker();
    let busy = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    let shutdown = event_loop.create_task(event_loop.shutdown_default_executor(Duration::from_secs(50)));
    tick(&event_loop);
    shutdown.cancel();
    assert_eq!(failure(event_loop.run_until_complete(shutdown)).0, ErrorKind::Cancelled);
    event_loop
        .run_until_complete(async {
            let event_loop = asyncio::get_running_loop()?;
            let shutdown = std::pin::pin!(event_loop.shutdown_default_executor(Duration::from_secs(50)));
            let pause = std::pin::pin!(sleep(Duration::from_millis(1)));
            futures::future::select(shutdown, pause).await;
            Ok(())
        })
        .unwrap();
    assert_eq!(event_loop.next_deadline(), None);
    assert_eq!(failure(event_loop.run_in_executor(None, || ()).result()).0, ErrorKind::Runtime);
    drop(release);
    event_loop.run_until_complete(busy).unwrap();
}

/// The wait is woken by whichever waker polled last.
#[test]
fn a_shutdown_may_change_hands() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (job, begun, release) = blocker();
    let busy = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    let ((), logged) = logs(|| {
        let main = async {
            let event_loop = asyncio::get_running_loop()?;
            let mut shutdown = Box::pin(event_loop.shutdown_default_executor(Duration::from_millis(20)));
            assert!(futures::poll!(shutdown.as_mut()).is_pending());
            asyncio::create_task(shutdown).await
        };
        event_loop.run_until_complete(main).unwrap();
    });
    assert_eq!(logged.len(), 1);
    drop(release);
    event_loop.run_until_complete(busy).unwrap();
}

/// `run` waits for the executor's jobs, and leaves nothing behind.
#[test]
fn run_shuts_the_executor_down() {
    let _deadline = support::deadline();
    let (ended, has_ended) = channel();
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let (begun, has_begun) = channel();
        drop(event_loop.run_in_executor(None, move || {
            begun.send(()).unwrap();
            thread::sleep(Duration::from_millis(30));
            ended.send(()).unwrap();
        }));
        has_begun.recv().unwrap();
        Ok(())
    })
    .unwrap();
    has_ended.try_recv().unwrap();
}

/// A job that panics does not keep the shutdown waiting, nor jobs that are queued.
#[test]
fn a_shutdown_runs_what_is_queued() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.set_default_executor(ThreadPool::new(1)).unwrap();
    let (job, begun, release) = blocker();
    let first = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    let panics = event_loop.run_in_executor(None, || panic!("expected"));
    let queued: Vec<_> = (0..5).map(|number| event_loop.run_in_executor(None, move || number)).collect();
    let shutdown = event_loop.create_task(event_loop.shutdown_default_executor(None));
    tick(&event_loop);
    assert!(!shutdown.done());
    drop(release);
    event_loop.run_until_complete(shutdown).unwrap();
    assert!(first.done());
    assert_eq!(failure::<()>(panics.result()).1, "expected");
    assert_eq!(queued.iter().map(|future| future.result().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(reports.len(), 0);
}
