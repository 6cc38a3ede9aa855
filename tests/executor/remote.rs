//! What other threads ask of a loop: callbacks and coroutines.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use asyncio::{Error, ErrorKind, EventLoop, Future, ThreadsafeLoop, run_coroutine_threadsafe, sleep};

use crate::support::{self, Record, drop_guard, failure, handler, new_loop, tick, virtual_loop};

/// Runs `work` in a thread while the loop runs, and gives its result when the thread has ended.
fn with_thread<T: Send + 'static>(
    event_loop: &EventLoop,
    work: impl FnOnce(ThreadsafeLoop) -> T + Send + 'static,
) -> T {
    let _deadline = support::deadline();
    let remote = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        struct Stop(ThreadsafeLoop);
        impl Drop for Stop {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        let stop = Stop(remote);
        work(stop.0.clone())
    });
    event_loop.run_forever().unwrap();
    thread.join().unwrap()
}

/// Names the calling thread, for `until_it_sleeps`.
fn this_thread() -> Option<PathBuf> {
    let name = std::fs::read_link("/proc/thread-self").ok()?;
    Some(Path::new("/proc").join(name).join("stat"))
}

/// Waits until a thread blocks. Where the system does not tell, long enough.
fn until_it_sleeps(thread: &Option<PathBuf>) {
    let Some(status) = thread else { return thread::sleep(Duration::from_millis(500)) };
    loop {
        let text = std::fs::read_to_string(status).unwrap();
        if text.rsplit_once(')').unwrap().1.trim_start().starts_with('S') {
            return;
        }
        thread::yield_now();
    }
}

/// EXEC-011
#[test]
fn a_thread_gets_the_result_or_the_error_of_a_coroutine() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    async fn add(a: i32, b: i32, fail: bool) -> asyncio::Result<i32> {
        sleep(Duration::from_millis(50)).await?;
        if fail {
            return Err(Error::Runtime("Fail!".into()));
        }
        Ok(a + b)
    }
    let (sum, error) = with_thread(&event_loop, |remote| {
        let sum = run_coroutine_threadsafe(add(1, 2, false), &remote).result(None);
        (sum, remote.run_coroutine_threadsafe(add(1, 2, true)).result(None))
    });
    assert_eq!(sum.unwrap(), 3);
    assert_eq!(failure(error), (ErrorKind::Runtime, "Fail!".into()));
    assert_eq!(reports.len(), 0);
    assert_eq!(event_loop.all_tasks(), []);
}

/// EXEC-013
#[test]
fn a_coroutine_that_is_cancelled_and_a_loop_that_is_closed() {
    let event_loop = new_loop();
    let result = with_thread(&event_loop, |remote| {
        let coroutine = async || {
            asyncio::current_task()?.expect("it is a task").cancel();
            sleep(Duration::ZERO).await
        };
        remote.run_coroutine_threadsafe(coroutine).result(None)
    });
    assert_eq!(failure(result).0, ErrorKind::Cancelled);

    event_loop.close().unwrap();
    let remote = event_loop.threadsafe();
    let (guard, dropped) = drop_guard();
    let (result, polled) = thread::spawn(move || {
        let polled = Arc::new(AtomicBool::new(false));
        let flag = polled.clone();
        let future = remote.run_coroutine_threadsafe(async move {
            flag.store(true, Ordering::SeqCst);
            drop(guard);
            Ok(())
        });
        assert!(future.done());
        (future.result(None), polled.load(Ordering::SeqCst))
    })
    .join()
    .unwrap();
    assert_eq!(failure(result), (ErrorKind::Runtime, "Event loop is closed".into()));
    assert!(dropped.get() && !polled);
}

/// A future that is `Send`, a closure and an async closure that make one which is not.
#[test]
fn coroutines_come_as_futures_and_as_closures() {
    let event_loop = new_loop();
    let seen = with_thread(&event_loop, |remote| {
        let here = thread::current().id();
        let on_the_loop = move || thread::current().id() != here && asyncio::get_running_loop().is_ok();
        let future = remote.run_coroutine_threadsafe(async move { Ok(on_the_loop()) });
        let closure = remote.run_coroutine_threadsafe(move || {
            let made_there = on_the_loop();
            let local = Rc::new(Cell::new(made_there));
            async move {
                sleep(Duration::ZERO).await?;
                Ok(local.get() && on_the_loop())
            }
        });
        let async_closure = remote.run_coroutine_threadsafe(async move || {
            let local = Rc::new(Cell::new(false));
            sleep(Duration::ZERO).await?;
            local.set(on_the_loop());
            Ok(local.get())
        });
        [future.result(None).unwrap(), closure.result(None).unwrap(), async_closure.result(None).unwrap()]
    });
    assert_eq!(seen, [true; 3]);
}

/// One queue for both: callbacks and coroutines begin in the order in which they were given.
#[test]
fn what_a_thread_asks_for_begins_in_order() {
    thread_local!(static ORDER: Cell<Vec<u32>> = const { Cell::new(Vec::new()) });
    fn push(number: u32) {
        let mut order = ORDER.take();
        order.push(number);
        ORDER.set(order);
    }
    let event_loop = new_loop();
    let remote = event_loop.threadsafe();
    thread::spawn(move || {
        remote.call_soon_threadsafe(|| push(1));
        remote.call_soon_threadsafe(|| push(2));
        remote.run_coroutine_threadsafe(async {
            push(3);
            Ok(())
        });
        remote.run_coroutine_threadsafe(async {
            push(4);
            Ok(())
        });
    })
    .join()
    .unwrap();
    event_loop.call_soon(|| push(0));
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(ORDER.take(), [1, 2, 0, 3, 4]);
}

/// The future of a callback gives what it returns, on any thread.
#[test]
fn a_callback_gives_its_value() {
    let event_loop = new_loop();
    let (value, id) = with_thread(&event_loop, |remote| {
        remote.call_soon_threadsafe(|| (5, thread::current().id())).result(None).unwrap()
    });
    assert_eq!((value, id), (5, thread::current().id()));
    // And under the loop itself.
    let future = event_loop.call_soon_threadsafe(|| 6);
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 6);
    // Without an owner it runs all the same.
    let ran = Arc::new(AtomicBool::new(false));
    let flag = ran.clone();
    drop(event_loop.call_soon_threadsafe(move || flag.store(true, Ordering::SeqCst)));
    tick(&event_loop);
    assert!(ran.load(Ordering::SeqCst));
}

/// Somebody waits: it is their error. Nobody does: the loop reports it, once, and who looks later finds it.
#[test]
fn a_callback_that_panics() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let result = with_thread(&event_loop, |remote| {
        let me = this_thread();
        let future = remote.call_soon_threadsafe(move || {
            until_it_sleeps(&me);
            panic!("awaited")
        });
        future.result(None).map(|(): ()| ())
    });
    assert_eq!(failure(result), (ErrorKind::Panicked, "awaited".into()));
    assert_eq!(reports.len(), 0, "{:?}", reports.take());

    let under_the_loop = event_loop.run_until_complete(async {
        let event_loop = asyncio::get_running_loop()?;
        event_loop.call_soon_threadsafe(|| panic!("under the loop")).await.map(|(): ()| ())
    });
    assert_eq!(failure(under_the_loop).1, "under the loop");
    assert_eq!(reports.len(), 0);

    drop(event_loop.call_soon_threadsafe(|| panic!("dropped")));
    let held = event_loop.call_soon_threadsafe(|| panic!("held"));
    tick(&event_loop);
    let seen = reports.take();
    let errors: Vec<_> = seen.iter().map(|report| report.exception.clone().unwrap().to_string()).collect();
    assert_eq!(errors, ["dropped", "held"]);
    assert!(seen.iter().all(|report| report.message.starts_with("Exception in callback")), "{seen:?}");
    assert_eq!(failure::<()>(held.result(None)).1, "held");
    let read_late = event_loop.call_soon_threadsafe(|| panic!("never read"));
    tick(&event_loop);
    drop(read_late);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
}

/// The same for coroutines.
#[test]
fn a_coroutine_that_panics() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let result = with_thread(&event_loop, |remote| {
        let me = this_thread();
        let coroutine = async move || -> asyncio::Result<()> {
            until_it_sleeps(&me);
            panic!("awaited")
        };
        remote.run_coroutine_threadsafe(coroutine).result(None)
    });
    assert_eq!(failure(result), (ErrorKind::Panicked, "awaited".into()));
    assert_eq!(reports.len(), 0, "{:?}", reports.take());

    let panics = |text: &'static str| {
        event_loop.threadsafe().run_coroutine_threadsafe(async move || -> asyncio::Result<()> { panic!("{text}") })
    };
    drop(panics("dropped"));
    let held = panics("held");
    (0..4).for_each(|_| tick(&event_loop));
    let seen = reports.take();
    let errors: Vec<_> = seen.iter().map(|report| report.exception.clone().unwrap().to_string()).collect();
    assert_eq!(errors, ["dropped", "held"]);
    assert!(seen.iter().all(|report| report.task.is_some()), "{seen:?}");
    drop(seen);
    assert_eq!(failure(held.result(None)).1, "held");
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

/// An error that nobody reads is reported once, whichever end goes first.
#[test]
fn an_unread_error_of_a_coroutine_is_reported_once() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let fails = || event_loop.threadsafe().run_coroutine_threadsafe(async { Err::<(), _>(Error::other("unread")) });
    drop(fails());
    (0..4).for_each(|_| tick(&event_loop));
    assert_eq!(reports.take().len(), 1, "dropped before");
    let held = fails();
    (0..4).for_each(|_| tick(&event_loop));
    assert_eq!(reports.take().len(), 0, "held");
    drop(held);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1, "dropped after");
    let elsewhere = fails();
    (0..4).for_each(|_| tick(&event_loop));
    thread::spawn(move || drop(elsewhere)).join().unwrap();
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1, "dropped elsewhere");
    let read = fails();
    (0..4).for_each(|_| tick(&event_loop));
    assert_eq!(failure(read.result(None)).1, "unread");
    drop(read);
    (0..4).for_each(|_| tick(&event_loop));
    event_loop.close().unwrap();
    assert_eq!(reports.take().len(), 0, "read");
}

/// Cancelling from outside cancels the task; one that has not begun never does.
#[test]
fn a_thread_may_cancel_its_coroutine() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (message, cancelled_early, polled) = with_thread(&event_loop, |remote| {
        let (begun, has_begun) = channel();
        let (seen, message) = channel();
        let future = remote.run_coroutine_threadsafe(async move || {
            begun.send(()).unwrap();
            let outcome = sleep(Duration::from_secs(1000)).await;
            seen.send(outcome.clone().unwrap_err().to_string()).unwrap();
            outcome
        });
        has_begun.recv().unwrap();
        assert!(!future.done());
        assert!(future.cancel_with("from afar"));
        assert!(future.done() && future.cancelled() && !future.cancel());
        assert_eq!(failure(future.result(None)), (ErrorKind::Cancelled, "from afar".into()));
        let message = message.recv().unwrap();

        // Held up, so that the coroutine has not begun when it is cancelled.
        let (hold, held) = channel::<()>();
        remote.call_soon_threadsafe(move || held.recv().unwrap_err());
        let polled = Arc::new(AtomicBool::new(false));
        let (flag, (guard, dropped)) = (polled.clone(), drop_guard());
        let future = remote.run_coroutine_threadsafe(async move {
            flag.store(true, Ordering::SeqCst);
            drop(guard);
            Ok(())
        });
        assert!(future.cancel());
        assert_eq!(failure(future.result(None)).0, ErrorKind::Cancelled);
        assert!(future.cancelled(), "also after it was read");
        drop(hold);
        remote.call_soon_threadsafe(|| ()).result(None).unwrap();
        remote.run_coroutine_threadsafe(async { sleep(Duration::ZERO).await }).result(None).unwrap();
        (message, dropped.get(), polled.load(Ordering::SeqCst))
    });
    assert_eq!(message, "from afar");
    assert!(cancelled_early && !polled);
    assert_eq!(event_loop.all_tasks(), []);
    assert_eq!(reports.len(), 0);
}

/// A callback that waits is dropped unrun when it is cancelled; one that runs cannot be cancelled any more.
#[test]
fn a_thread_may_cancel_its_callback_until_it_runs() {
    let event_loop = new_loop();
    let remote = event_loop.threadsafe();
    let (guard, dropped) = drop_guard();
    let future = remote.call_soon_threadsafe(move || {
        drop(guard);
        unreachable!("it is cancelled");
    });
    let future: asyncio::ThreadsafeFuture<()> = future;
    assert!(future.cancel());
    tick(&event_loop);
    assert!(dropped.get() && future.cancelled());

    let (value, cancelled) = with_thread(&event_loop, |remote| {
        let ((begun, has_begun), (go, may_go)) = (channel(), channel::<()>());
        let future = remote.call_soon_threadsafe(move || {
            begun.send(()).unwrap();
            may_go.recv().unwrap_err();
            5
        });
        has_begun.recv().unwrap();
        let cancelled = future.cancel();
        drop(go);
        (future.result(None), cancelled)
    });
    assert_eq!((value.unwrap(), cancelled), (5, false));
}

/// A task that swallows its cancellation is cancelled for the thread; an error that it ends with is not lost.
#[test]
fn what_a_cancelled_coroutine_ends_with_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.threadsafe().run_coroutine_threadsafe(async || -> asyncio::Result<()> {
        let _ = sleep(Duration::from_secs(1000)).await;
        Err(Error::other("clean-up failed"))
    });
    (0..2).for_each(|_| tick(&event_loop));
    assert!(future.cancel());
    (0..4).for_each(|_| tick(&event_loop));
    assert_eq!(failure(future.result(None)).0, ErrorKind::Cancelled);
    drop(future);
    let seen = reports.take();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].exception.as_ref().unwrap().to_string(), "clean-up failed");
}

/// What is under way when the loop is closed ends as cancelled: whoever blocks in a thread is released.
#[test]
fn close_releases_the_threads_that_wait() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let remote = event_loop.threadsafe();
    let (asked, has_asked) = channel();
    let (guard, dropped) = drop_guard();
    let thread = thread::spawn(move || {
        let pending = remote.run_coroutine_threadsafe(async move || {
            let _guard = guard;
            std::future::pending::<asyncio::Result<()>>().await
        });
        remote.call_soon_threadsafe(move || ()).result(None).unwrap();
        asked.send(()).unwrap();
        pending.result(None)
    });
    while has_asked.try_recv().is_err() {
        event_loop.run_once(Duration::from_millis(1)).unwrap();
    }
    tick(&event_loop);
    let remote = event_loop.threadsafe();
    let in_the_inbox = remote.run_coroutine_threadsafe(async { Ok(()) });
    let callback = remote.call_soon_threadsafe(|| ());
    event_loop.close().unwrap();
    assert_eq!(failure(thread.join().unwrap()).0, ErrorKind::Cancelled);
    assert!(dropped.get());
    assert_eq!(failure(in_the_inbox.result(None)).0, ErrorKind::Cancelled);
    assert_eq!(failure(callback.result(None)).0, ErrorKind::Cancelled);
    let messages: Vec<_> = reports.take().into_iter().map(|report| report.message).collect();
    assert_eq!(messages, ["Task was destroyed but it is pending!"]);
    assert!(remote.is_closed());
    remote.stop();
    assert_eq!(failure(remote.call_soon_threadsafe(|| ()).result(None)).1, "Event loop is closed");
}

/// A loop that sleeps is woken; a loop of virtual time too.
#[test]
fn a_thread_wakes_a_sleeping_loop() {
    for event_loop in [new_loop(), virtual_loop().0] {
        let timer_ran = Rc::new(Cell::new(false));
        let flag = timer_ran.clone();
        // A descriptor that is waited for holds the virtual clock.
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        event_loop.add_reader(&ours, || ()).unwrap();
        event_loop.call_later(Duration::from_secs(1000), move || flag.set(true));
        let value = with_thread(&event_loop, |remote| {
            thread::sleep(Duration::from_millis(20));
            remote.call_soon_threadsafe(|| 5).result(None).unwrap()
        });
        assert_eq!(value, 5);
        assert!(!timer_ran.get());
    }
}

/// Many threads, nothing lost, and each thread's order kept.
#[test]
fn many_threads_lose_nothing() {
    const THREADS: usize = 4;
    const CALLS: usize = 2000;
    thread_local!(static LAST: Cell<[usize; THREADS]> = const { Cell::new([0; THREADS]) });
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (remote, left) = (event_loop.threadsafe(), Arc::new(AtomicUsize::new(THREADS)));
    let threads: Vec<_> = (0..THREADS)
        .map(|index| {
            let (remote, left) = (remote.clone(), left.clone());
            thread::spawn(move || {
                for number in 1..=CALLS {
                    drop(remote.call_soon_threadsafe(move || {
                        let mut last = LAST.get();
                        assert_eq!(last[index], number - 1);
                        last[index] = number;
                        LAST.set(last);
                    }));
                }
                if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    remote.stop();
                }
            })
        })
        .collect();
    let reports = handler(&event_loop);
    event_loop.run_forever().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    tick(&event_loop);
    assert_eq!(LAST.get(), [CALLS; THREADS]);
    assert_eq!(reports.len(), 0);
}

/// FACT's rule for threads: a factory that fails gives its error to who asked.
#[test]
fn a_factory_that_refuses_fails_the_threads_future() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.set_task_factory(Some(Rc::new(|_, _| Err(Error::other("refused")))));
    let (guard, dropped) = drop_guard();
    let result = with_thread(&event_loop, |remote| {
        let coroutine = async move {
            drop(guard);
            unreachable!("it is refused")
        };
        remote.run_coroutine_threadsafe(coroutine).result(None).map(|(): ()| ())
    });
    assert_eq!(failure(result).1, "refused");
    assert!(dropped.get());
    assert_eq!(reports.len(), 0);
}

/// Handles compare and tell which loop they are of; spawning through the traits of `futures` works too.
#[test]
fn handles_of_one_loop_are_equal() {
    use futures::task::SpawnExt as _;
    let (event_loop, other) = (new_loop(), new_loop());
    assert_eq!(event_loop.threadsafe(), event_loop.threadsafe());
    assert_ne!(event_loop.threadsafe(), other.threadsafe());
    let record = Record::default();
    let done: Future<()> = event_loop.create_future();
    let (seen, setter) = (record.clone(), done.clone());
    done.add_done_callback(move |_| seen.push("done"));
    with_thread(&event_loop, |remote| remote.spawn(async {}).unwrap());
    setter.set_result(()).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), ["done"]);
    event_loop.close().unwrap();
    assert!(event_loop.threadsafe().spawn(async {}).unwrap_err().is_shutdown());
}
