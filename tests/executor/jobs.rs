//! Jobs of `run_in_executor` and `to_thread`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvError, Sender, channel},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use asyncio::{Error, ErrorKind, EventLoop, ThreadPool, sleep};

use crate::support::{self, failure, handler, logs, new_loop, run_in_child, tick, virtual_loop};

/// A job that runs until the sender is dropped, and says when it has begun.
pub(crate) fn blocker() -> (impl FnOnce() + Send + 'static, Receiver<ThreadId>, Sender<()>) {
    let (begun, has_begun) = channel();
    let (release, released) = channel::<()>();
    let job = move || {
        begun.send(thread::current().id()).unwrap();
        released.recv().unwrap_err();
    };
    (job, has_begun, release)
}

/// EXEC-001
#[test]
fn a_job_runs_in_another_thread_and_its_value_comes_back() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let future = event_loop.run_in_executor(None, || ("yo", thread::current().id()));
    let (value, thread) = event_loop.run_until_complete(future).unwrap();
    assert_eq!(value, "yo");
    assert_ne!(thread, thread::current().id());
}

/// EXEC-002
#[test]
fn the_default_executor_is_one_pool_with_names() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let thread_of_a_job = || {
        let job = || (thread::current().id(), thread::current().name().unwrap().to_owned());
        event_loop.run_until_complete(event_loop.run_in_executor(None, job)).unwrap()
    };
    let (first, name) = thread_of_a_job();
    assert!(name.starts_with("asyncio"), "{name}");
    // The worker parks a moment after its job's result is there: then it is the one that comes.
    let begin = Instant::now();
    loop {
        let (id, name) = thread_of_a_job();
        assert!(name.starts_with("asyncio"), "{name}");
        if id == first {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "no thread serves twice");
    }
}

/// EXEC-003
#[test]
fn an_explicit_pool_computes() {
    fn fib(n: u32) -> u32 {
        if n < 2 { 1 } else { fib(n - 1) + fib(n - 2) }
    }
    support::run(async {
        let (event_loop, pool) = (asyncio::get_running_loop()?, ThreadPool::with_name(4, "fib"));
        let jobs: Vec<_> = (0..10)
            .map(|n| {
                let job = move || (fib(n), thread::current().name().map(str::to_owned));
                event_loop.run_in_executor(Some(&pool), job)
            })
            .collect();
        let mut results = Vec::new();
        for (value, name) in asyncio::gather(jobs).await? {
            assert!(name.unwrap().starts_with("fib_"));
            results.push(value);
        }
        assert_eq!(results, [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]);
        Ok(())
    });
}

/// EXEC-005
#[test]
fn a_cancelled_job_ends_in_silence_after_the_close() {
    let Some(output) = run_in_child("jobs::a_cancelled_job_ends_in_silence_after_the_close", &[]) else {
        for begins in [true, false] {
            let event_loop = new_loop();
            let (begun, has_begun) = channel();
            let future = event_loop.run_in_executor(None, move || {
                begun.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
            });
            if begins {
                has_begun.recv().unwrap();
            }
            assert!(future.cancel());
            event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
            event_loop.close().unwrap();
            thread::sleep(Duration::from_millis(400));
            assert!(event_loop.is_closed() && future.cancelled());
            assert_eq!(event_loop.next_deadline(), None, "nothing is scheduled");
        }
        return;
    };
    // No subscriber and no handler: whatever was logged or panicked, in any thread, is here.
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// A job that ends after the close ends in the same silence, cancelled or not, and its value is dropped.
#[test]
fn jobs_that_end_after_the_close_end_in_silence() {
    let Some(output) = run_in_child("jobs::jobs_that_end_after_the_close_end_in_silence", &[]) else {
        for cancelled in [true, false] {
            let event_loop = new_loop();
            let (job, begun, release) = blocker();
            let (value, value_dropped) = channel::<()>();
            let future = event_loop.run_in_executor(None, move || {
                job();
                value
            });
            begun.recv().unwrap();
            assert_eq!(cancelled, cancelled && future.cancel());
            event_loop.close().unwrap();
            drop((future, event_loop));
            drop(release);
            value_dropped.recv().unwrap_err();
        }
        return;
    };
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// The shutdown waits for the thread, whoever wants its result.
#[test]
fn a_cancelled_job_that_runs_is_waited_for_by_the_shutdown() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let ended = Arc::new(AtomicBool::new(false));
    let ((), logged) = logs(|| {
        let (begun, has_begun) = channel();
        let finished = ended.clone();
        let future = event_loop.run_in_executor(None, move || {
            begun.send(()).unwrap();
            thread::sleep(Duration::from_millis(50));
            finished.store(true, Ordering::SeqCst);
        });
        has_begun.recv().unwrap();
        assert!(future.cancel());
        event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
        assert!(ended.load(Ordering::SeqCst));
        assert!(future.cancelled());
        event_loop.close().unwrap();
    });
    assert_eq!(logged, []);
    assert_eq!(reports.len(), 0);
}

/// Cancelled in the queue, it is never run, and dropped when its turn comes.
#[test]
fn a_job_that_is_cancelled_in_the_queue_is_dropped_unrun() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let pool = ThreadPool::new(1);
    let (job, begun, release) = blocker();
    let first = event_loop.run_in_executor(Some(&pool), job);
    begun.recv().unwrap();
    let (guard, dropped) = support::drop_guard();
    let second = event_loop.run_in_executor(Some(&pool), move || {
        drop(guard);
        unreachable!("it is cancelled");
    });
    let second: asyncio::Future<()> = second;
    assert!(second.cancel());
    drop(release);
    event_loop.run_until_complete(first).unwrap();
    let last = event_loop.run_in_executor(Some(&pool), || ());
    event_loop.run_until_complete(last).unwrap();
    assert!(dropped.get());
    assert!(second.cancelled());
}

/// Cancelling the task that awaits a job cancels the future, not the thread.
#[test]
fn cancelling_who_awaits_a_running_job_lets_the_job_go_on() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (job, begun, release) = blocker();
    let future = event_loop.run_in_executor(None, job);
    let awaited = future.clone();
    let task = event_loop.create_task(awaited);
    begun.recv().unwrap();
    tick(&event_loop);
    task.cancel();
    assert_eq!(failure(event_loop.run_until_complete(task)).0, ErrorKind::Cancelled);
    assert!(future.cancelled());
    drop(release);
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
}

/// EXEC-009
#[test]
fn close_does_not_wait_for_jobs() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (begun, has_begun) = channel();
    let (ended, has_ended) = channel();
    let future = event_loop.run_in_executor(None, move || {
        begun.send(()).unwrap();
        thread::sleep(Duration::from_millis(500));
        ended.send(()).unwrap();
        5
    });
    has_begun.recv().unwrap();
    let begin = Instant::now();
    event_loop.close().unwrap();
    let taken = begin.elapsed();
    assert!(taken < Duration::from_millis(200), "{taken:?}");
    assert!(has_ended.try_recv().is_err(), "the job still runs");
    has_ended.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(!future.done());
    assert_eq!(reports.len(), 0);
}

/// What was taken is run, though nobody is left to hear of it; values are dropped without harm.
#[test]
fn jobs_in_the_queue_of_a_closed_loop_still_run() {
    let _deadline = support::deadline();
    let (event_loop, count) = (new_loop(), Arc::new(AtomicUsize::new(0)));
    let (job, begun, release) = blocker();
    let pool = ThreadPool::new(1);
    event_loop.set_default_executor(pool).unwrap();
    let first = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    let (ended, has_ended) = channel::<()>();
    let queued: Vec<_> = (0..3)
        .map(|_| {
            let (count, ended) = (count.clone(), ended.clone());
            event_loop.run_in_executor(None, move || {
                count.fetch_add(1, Ordering::SeqCst);
                ended
            })
        })
        .collect();
    drop(ended);
    event_loop.close().unwrap();
    drop(release);
    // The values that the jobs gave are dropped when nobody takes them any more.
    assert_eq!(has_ended.recv(), Err(RecvError));
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert!(!first.done() && queued.iter().all(|future| !future.done()));
}

/// An unread failure of a job is reported like any other, once.
#[test]
fn a_panic_that_nobody_reads_is_reported() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    drop(event_loop.run_in_executor(None, || panic!("unread")));
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
    tick(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].message, "Future exception was never retrieved");
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "unread");
}

/// A job takes its captures and its value along: dropped there, or here.
#[test]
fn captures_are_dropped_with_the_job_and_values_with_the_future() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let ((capture, capture_dropped), (value, value_dropped)) = (support::drop_guard(), support::drop_guard());
    let future = event_loop.run_in_executor(None, move || {
        drop(capture);
        value
    });
    let stop = event_loop.clone();
    future.add_done_callback(move |_| stop.stop());
    event_loop.run_forever().unwrap();
    assert!(capture_dropped.get() && !value_dropped.get());
    drop(future);
    tick(&event_loop);
    assert!(value_dropped.get());
}

#[test]
fn a_closed_loop_takes_no_job() {
    let event_loop = new_loop();
    event_loop.close().unwrap();
    let pool = ThreadPool::new(1);
    for executor in [None, Some(&pool as &dyn asyncio::Executor)] {
        let (guard, dropped) = support::drop_guard();
        let future = event_loop.run_in_executor(executor, move || drop(guard));
        assert!(dropped.get() && future.done());
        assert_eq!(failure(future.result()), (ErrorKind::Runtime, "Event loop is closed".into()));
    }
    assert_eq!(failure(event_loop.set_default_executor(pool)), (ErrorKind::Runtime, "Event loop is closed".into()));
}

/// EXEC-010
#[test]
fn to_thread_begins_when_it_is_awaited() {
    support::run(async {
        let runs = Arc::new(AtomicUsize::new(0));
        let job = || {
            let runs = runs.clone();
            asyncio::to_thread(move || Ok(runs.fetch_add(1, Ordering::SeqCst)))
        };
        let unawaited = job();
        sleep(Duration::from_millis(1)).await?;
        drop(unawaited);
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        let mut numbers = asyncio::gather((0..10).map(|_| job()).collect::<Vec<_>>()).await?;
        numbers.sort_unstable();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        assert_eq!(runs.load(Ordering::SeqCst), 10);
        let failed = asyncio::to_thread::<()>(|| Err(Error::Runtime("test".into()))).await;
        assert_eq!(failure(failed), (ErrorKind::Runtime, "test".into()));
        Ok(())
    });
    let outside = futures::executor::block_on(asyncio::to_thread(|| Ok(())));
    assert_eq!(failure(outside), (ErrorKind::Runtime, "no running event loop".into()));
}

/// A job may use other loops, threads and the same loop's thread-safe handle.
#[test]
fn a_job_may_run_a_loop_and_call_back() {
    support::run(async {
        let remote = asyncio::get_running_loop()?.threadsafe();
        let answer = asyncio::to_thread(move || {
            let inner = asyncio::run(async {
                sleep(Duration::from_millis(1)).await?;
                asyncio::to_thread(|| Ok(20)).await
            })?;
            let outer = remote.call_soon_threadsafe(|| 22).result(None)?;
            Ok(inner + outer)
        });
        assert_eq!(answer.await?, 42);
        Ok(())
    });
}

/// Time that does not pass by itself stands still while a job runs, and goes on afterwards.
#[test]
fn a_virtual_clock_waits_for_jobs() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let begin = event_loop.time();
    let (job, begun, release) = blocker();
    let future = event_loop.run_in_executor(None, job);
    begun.recv().unwrap();
    let timer = event_loop.call_later(Duration::from_secs(3600), || ());
    let releaser = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        drop(release);
    });
    event_loop.run_until_complete(future).unwrap();
    assert_eq!(event_loop.time(), begin, "the clock stood");
    releaser.join().unwrap();
    event_loop.run_until_complete(timer).unwrap();
    assert_eq!(event_loop.time() - begin, Duration::from_secs(3600));
}

/// Neither a cancelled job, nor a panic, nor a job that is dropped unrun holds the clock for ever.
#[test]
fn a_virtual_clock_goes_on_after_jobs_of_all_fates() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let begin = event_loop.time();
    let pool = ThreadPool::new(1);
    let panics = event_loop.run_in_executor(Some(&pool), || panic!("expected"));
    let cancelled = event_loop.run_in_executor(Some(&pool), || ());
    cancelled.cancel();
    let refused = event_loop.run_in_executor(Some(&crate::custom::Refuses), || ());
    let dropped = event_loop.run_in_executor(Some(&crate::custom::Drops), || ());
    let inline = event_loop.run_in_executor(Some(&crate::custom::Inline), || ());
    event_loop.run_until_complete(sleep(Duration::from_secs(1000))).unwrap();
    assert_eq!(event_loop.time() - begin, Duration::from_secs(1000));
    assert!(panics.exception().unwrap().is_some() && inline.done());
    assert!(refused.exception().unwrap().is_some() && dropped.exception().unwrap().is_some());
}

/// Under a virtual clock timers and jobs keep a fixed order: the job's end comes first.
#[test]
fn a_job_is_faster_than_any_virtual_timer() {
    let (event_loop, _clock) = virtual_loop();
    let order = event_loop.run_until_complete(async {
        let event_loop = asyncio::get_running_loop()?;
        let mut order = Vec::new();
        for _ in 0..20 {
            let timer = event_loop.call_later(Duration::from_nanos(1), || ());
            asyncio::to_thread(|| {
                thread::yield_now();
                Ok(())
            })
            .await?;
            let begin = event_loop.time();
            order.push(timer.when() > begin);
            timer.await?;
        }
        Ok(order)
    });
    assert_eq!(order.unwrap(), [true; 20]);
}

/// Jobs of many loops in one pool end in their own loops.
#[test]
fn a_pool_serves_loops_of_several_threads() {
    let _deadline = support::deadline();
    let pool = ThreadPool::new(2);
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let pool = pool.clone();
            thread::spawn(move || {
                let event_loop = EventLoop::new().unwrap();
                for round in 0..50 {
                    let future = event_loop.run_in_executor(Some(&pool), move || number * 1000 + round);
                    assert_eq!(event_loop.run_until_complete(future).unwrap(), number * 1000 + round);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
