//! The parts that `unsafe` carries, on the parking selector, so that Miri and the sanitizers can run over them:
//! `cargo +nightly miri test --test unsafe_core`.

use std::{
    cell::{Cell, RefCell},
    future::Future as StdFuture,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    thread::{self, ThreadId},
    time::Duration,
};

use asyncio::{Error, EventLoop, VirtualClock, create_task, selector::ParkSelector, sleep};

fn new_loop() -> EventLoop {
    EventLoop::builder().selector(ParkSelector::new()).clock(VirtualClock::new()).build().unwrap()
}

/// Reports are expected where tasks are destroyed.
fn silent(event_loop: &EventLoop) -> Rc<Cell<usize>> {
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |_, _| counter.set(counter.get() + 1))));
    count
}

/// Says on which thread it was dropped.
struct Dropped {
    expected: ThreadId,
    count: Rc<Cell<usize>>,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.expected, "a local coroutine was dropped on a foreign thread");
        self.count.set(self.count.get() + 1);
    }
}

fn dropped(count: &Rc<Cell<usize>>) -> Dropped {
    Dropped { expected: thread::current().id(), count: count.clone() }
}

/// Pending for ever; hands its waker to whoever asks.
struct Leak(Arc<Mutex<Vec<Waker>>>);

impl StdFuture for Leak {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().unwrap().push(cx.waker().clone());
        Poll::Pending
    }
}

#[test]
fn tasks_run_join_detach_and_are_cancelled() {
    let event_loop = new_loop();
    let sum = event_loop
        .run_until_complete(async {
            let tasks: Vec<_> = (0..20)
                .map(|n| {
                    create_task(async move {
                        sleep(Duration::from_millis(n)).await?;
                        Ok(Box::new(n))
                    })
                })
                .collect();
            tasks[3].cancel();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.map_or(1000, |n| *n);
            }
            drop(create_task(async { sleep(Duration::from_millis(1)).await }));
            sleep(Duration::from_millis(2)).await?;
            Ok(sum)
        })
        .unwrap();
    assert_eq!(sum, (0..20).sum::<u64>() - 3 + 1000);
}

#[test]
fn a_task_outlives_its_handles_and_its_handles_outlive_it() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async { Ok(String::from("kept")) });
    let any = task.any();
    let callback = Rc::new(RefCell::new(Vec::new()));
    let seen = callback.clone();
    any.add_done_callback(move |task| seen.borrow_mut().push(task.get_name()));
    event_loop.run_once(Duration::ZERO).unwrap();
    event_loop.run_once(Duration::ZERO).unwrap();
    assert_eq!(*callback.borrow(), [any.get_name()]);
    assert!(any.done());
    assert_eq!(task.result().unwrap(), "kept");
    drop(event_loop);
    assert_eq!(task.result().unwrap(), "kept");
    drop(task);
    assert!(!any.cancelled());
    any.set_name("later");
    assert_eq!(any.get_name(), "later");
}

#[test]
fn all_tasks_and_current_task_count_their_references() {
    let event_loop = new_loop();
    let reports = silent(&event_loop);
    let wakers = Arc::default();
    for _ in 0..5 {
        let leak = Leak(Arc::clone(&wakers));
        drop(event_loop.create_task(async move {
            leak.await;
            Ok(())
        }));
    }
    event_loop
        .run_until_complete(async {
            assert_eq!(asyncio::all_tasks()?.len(), 6);
            let me = asyncio::current_task()?.unwrap();
            assert!(asyncio::all_tasks()?.contains(&me));
            sleep(Duration::ZERO).await
        })
        .unwrap();
    let tasks = event_loop.all_tasks();
    event_loop.close().unwrap();
    assert_eq!(reports.get(), 5);
    assert!(tasks.iter().all(|task| task.cancelled()));
    for waker in wakers.lock().unwrap().drain(..) {
        waker.wake();
    }
}

#[test]
fn a_main_future_may_borrow_and_is_dropped_before_its_run_returns() {
    let event_loop = new_loop();
    let text = String::from("borrowed");
    let length = event_loop.run_until_complete(async { Ok(text.len()) }).unwrap();
    assert_eq!(length, 8);

    let count = Rc::new(Cell::new(0));
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    event_loop.stop();
    let stopped = event_loop.run_until_complete(async {
        let _guard = dropped(&count);
        let _borrow = &text;
        Leak(wakers.clone()).await;
        Ok(())
    });
    assert!(matches!(stopped, Err(Error::Runtime(_))));
    assert_eq!(count.get(), 1, "dropped when the run is over");
    // The waker of what is gone leads nowhere, in this run or the next.
    for waker in wakers.lock().unwrap().drain(..) {
        waker.wake();
    }
    event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
}

#[test]
fn a_main_future_that_is_cancelled_is_dropped_in_place() {
    let event_loop = new_loop();
    let count = Rc::new(Cell::new(0));
    let outcome = event_loop.run_until_complete(async {
        let _guard = dropped(&count);
        let me = asyncio::current_task()?.unwrap();
        asyncio::get_running_loop()?.call_soon(move || me.cancel());
        std::future::pending::<()>().await;
        Ok(())
    });
    assert!(matches!(outcome, Err(Error::Cancelled(_))));
    assert_eq!(count.get(), 1);
}

#[test]
fn panics_leave_nothing_behind() {
    let event_loop = new_loop();
    let reports = silent(&event_loop);
    let count = Rc::new(Cell::new(0));
    let guard = dropped(&count);
    let task = event_loop.create_task(async move {
        let _guard = guard;
        if count_is_odd() { Ok(1) } else { panic!("boom") }
    });
    event_loop.run_once(Duration::ZERO).unwrap();
    assert!(matches!(task.exception(), Ok(Some(Error::Panicked(_)))));
    assert_eq!((count.get(), reports.get()), (1, 1));
}

fn count_is_odd() -> bool {
    std::hint::black_box(false)
}

/// A foreign thread wakes and drops wakers while the loop closes: the coroutines are dropped here and nowhere else.
#[test]
fn foreign_threads_wake_and_drop_wakers_during_close() {
    let rounds = if cfg!(miri) { 8 } else { 2_000 };
    for _ in 0..rounds {
        let event_loop = new_loop();
        silent(&event_loop);
        let count = Rc::new(Cell::new(0));
        let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
        for _ in 0..4 {
            let (guard, leak) = (dropped(&count), Leak(wakers.clone()));
            drop(event_loop.create_task(async move {
                let _guard = guard;
                leak.await;
                Ok(())
            }));
        }
        event_loop.run_once(Duration::ZERO).unwrap();
        let theirs = std::mem::take(&mut *wakers.lock().unwrap());
        let thread = thread::spawn(move || {
            for (n, waker) in theirs.into_iter().enumerate() {
                waker.wake_by_ref();
                if n % 2 == 0 { drop(waker) } else { waker.wake() }
            }
        });
        event_loop.close().unwrap();
        assert_eq!(count.get(), 4);
        thread.join().unwrap();
    }
}

/// Tasks are cancelled, awaited and dropped from other threads while they run.
#[test]
fn handles_work_on_other_threads() {
    let rounds = if cfg!(miri) { 4 } else { 300 };
    for round in 0..rounds {
        let event_loop = EventLoop::builder().selector(ParkSelector::new()).build().unwrap();
        let wakers = Arc::default();
        let leak = Leak(Arc::clone(&wakers));
        let task = event_loop.create_task(async move {
            asyncio::cancellable(leak).await?;
            Ok(7)
        });
        let remote = event_loop.threadsafe();
        let thread = thread::spawn(move || {
            if round % 2 == 0 {
                task.cancel();
                let outcome = futures::executor::block_on(task);
                remote.stop();
                outcome
            } else {
                task.cancel();
                let name = task.get_name();
                drop(task);
                remote.stop();
                Err(Error::other(name))
            }
        });
        event_loop.run_forever().unwrap();
        // What the thread awaits ends at the latest when the loop closes.
        event_loop.run_once(Duration::ZERO).unwrap();
        silent(&event_loop);
        event_loop.close().unwrap();
        assert!(thread.join().unwrap().is_err());
    }
}

#[test]
fn a_waker_is_harmless_after_its_loop_is_gone() {
    let event_loop = new_loop();
    silent(&event_loop);
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let leak = Leak(wakers.clone());
    let task = event_loop.create_task(async move {
        leak.await;
        Ok(())
    });
    event_loop.run_once(Duration::ZERO).unwrap();
    drop(event_loop);
    assert!(task.cancelled());
    let waker = wakers.lock().unwrap().pop().unwrap();
    waker.wake_by_ref();
    let clone = waker.clone();
    drop(waker);
    thread::spawn(move || clone.wake()).join().unwrap();
    drop(task);
}

/// Steps inside of steps, and scopes inside of those: what is current is the right one again after each, however it ends.
#[test]
fn eager_steps_inside_of_scopes_nest() {
    let event_loop = new_loop();
    let reports = silent(&event_loop);
    let count = Rc::new(Cell::new(0));
    let guard = dropped(&count);
    event_loop
        .run_until_complete(async {
            let event_loop = asyncio::get_running_loop()?;
            let name = || asyncio::current_task().unwrap().expect("a task runs").get_name();
            let outer = name();
            let limited = asyncio::timeout(Duration::from_millis(5), async {
                let inner = event_loop.task(async move {
                    let mine = asyncio::current_task()?.expect("a task runs");
                    let _guard = guard;
                    let limited = asyncio::timeout(Duration::from_millis(1), sleep(Duration::from_secs(1))).await;
                    assert_eq!(asyncio::current_task()?, Some(mine));
                    limited
                });
                let inner = inner.eager_start(true).start();
                assert_eq!(name(), outer);
                let panics = event_loop.task::<_>(async {
                    if asyncio::current_task()?.is_some() {
                        panic!("in a step inside of a step");
                    }
                    Ok(())
                });
                let panics = panics.eager_start(true).start();
                assert_eq!(name(), outer);
                assert!(matches!(panics.await, Err(Error::Panicked(_))));
                // Dropped while another one is current.
                let group = asyncio::TaskGroup::scope(async |group| {
                    group.create_task(async { sleep(Duration::from_secs(1)).await });
                    sleep(Duration::from_secs(1)).await
                });
                let raced = futures::future::select(Box::pin(group), sleep(Duration::ZERO)).await;
                drop(raced);
                assert!(matches!(inner.await, Err(Error::Timeout(_))));
                sleep(Duration::from_secs(1)).await
            });
            assert!(matches!(limited.await, Err(Error::Timeout(_))));
            assert_eq!(name(), outer);
            Ok(())
        })
        .unwrap();
    assert_eq!((count.get(), reports.get()), (1, 1), "the panic of a task that had not been awaited yet");
}
