//! Who waits for a future, and when they are woken.

use std::{
    future::Future as StdFuture,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use asyncio::{Error, ErrorKind};
use futures::future::{Either, select};

use crate::support::{self, Record, failure, handler, new_loop, tick};

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// FUT-012
#[test]
fn all_who_await_are_resumed_in_one_iteration_in_order() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future(), Record::default());
    let tasks: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let (future, record) = (future.clone().shared(), record.clone());
            event_loop.create_task(async move {
                let value = future.await?;
                record.push((name, value));
                Ok(())
            })
        })
        .collect();
    tick(&event_loop);
    future.set_result("v").unwrap();
    assert_eq!(record.len(), 0);
    tick(&event_loop);
    assert_eq!(record.take(), [("a", "v"), ("b", "v"), ("c", "v")]);
    assert!(tasks.iter().all(asyncio::Task::done));
}

/// FUT-012: errors and cancellations go to all of them as well.
#[test]
fn all_who_await_receive_the_error() {
    let event_loop = new_loop();
    for cancel in [false, true] {
        let future = event_loop.create_future::<u8>();
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let future = future.clone();
                event_loop.create_task(async move { (&future).await })
            })
            .collect();
        tick(&event_loop);
        if cancel {
            assert!(future.cancel_with("m"));
        } else {
            future.set_exception(Error::Value("m".into())).unwrap();
        }
        tick(&event_loop);
        for task in tasks {
            assert!(task.done());
            assert_eq!(task.cancelled(), cancel);
            assert_eq!(failure(task.result()).1, "m");
        }
    }
}

/// FUT-023
#[test]
fn ensure_future_of_a_future_is_a_task_that_ends_as_it_does() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let (good, bad, cancelled) =
            (event_loop.create_future(), event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
        let tasks = [
            asyncio::ensure_future(good.clone().shared()),
            asyncio::ensure_future(bad.clone()),
            asyncio::ensure_future(cancelled.clone()),
        ];
        asyncio::sleep(Duration::ZERO).await?;
        assert!(tasks.iter().all(|task| !task.done()));
        assert!(!good.done() && !bad.done() && !cancelled.done());
        good.set_result(1)?;
        bad.set_exception(Error::Value("v".into()))?;
        cancelled.cancel();
        let [one, two, three] = tasks;
        assert_eq!(one.await?, 1);
        assert_eq!(failure(two.await), (ErrorKind::Value, "v".into()));
        assert_eq!(failure((&three).await).0, ErrorKind::Cancelled);
        assert!(three.cancelled());
        assert_eq!(good.result()?, 1, "the future itself is untouched");
        Ok(())
    });
}

/// FUT-025: the coroutine is dropped while it awaits, because a foreign future beside the wait never lets it be polled.
#[test]
fn a_wait_that_was_dropped_with_its_coroutine_leaves_the_future_alone() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future();
    let awaited = future.clone();
    let task = event_loop.create_task(async move {
        let mut wait = Box::pin((&awaited).into_future());
        let mut polled = false;
        // The wait is polled once and never again: nobody takes the cancellation, so the coroutine is dropped.
        std::future::poll_fn(|cx| {
            if !std::mem::replace(&mut polled, true) {
                // A waker that is not the task's own and wakes nobody.
                let _ = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            let _ = cx;
            Poll::<asyncio::Result<()>>::Pending
        })
        .await
    });
    tick(&event_loop);
    // The future is done first, so that it does not accept the cancellation itself.
    future.set_result(1).unwrap();
    assert!(task.cancel());
    // It has some steps, in which somebody might have polled the wait.
    (0..12).for_each(|_| tick(&event_loop));
    assert!(task.cancelled());
    assert_eq!(future.result().unwrap(), 1);
    assert_eq!(reports.take().len(), 0);
}

/// FUT-025: a coroutine that is dropped with its wait, before the result comes.
#[test]
fn a_wait_inside_a_dropped_future_takes_no_result() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future();
    let awaited = future.clone();
    let gate = support::Gate::default();
    let end = gate.clone();
    let task = event_loop.create_task(async move {
        let wait = std::rc::Rc::new(std::cell::RefCell::new(Some(Box::pin((&awaited).into_future()))));
        let slot = wait.clone();
        std::future::poll_fn(move |cx| {
            assert!(slot.borrow_mut().as_mut().unwrap().as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        wait.take();
        end.await;
        Ok(())
    });
    tick(&event_loop);
    assert!(task.cancel());
    tick(&event_loop);
    assert!(task.cancelled());
    assert!(!future.done(), "the wait was over: nothing was forwarded");
    future.set_result(1).unwrap();
    tick(&event_loop);
    assert_eq!(future.result().unwrap(), 1);
    assert_eq!((gate.polls(), reports.take().len()), (2, 0));
}

/// FUT-025: the await lost in a foreign select.
#[test]
fn a_wait_that_lost_a_select_leaves_the_future_alone() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let future = event_loop.create_future();
        let polls = std::rc::Rc::new(std::cell::Cell::new(0));
        let (awaited, counted) = (future.clone(), polls.clone());
        let gate = support::Gate::default();
        let end = gate.clone();
        let task = asyncio::create_task(async move {
            match select(awaited, std::future::ready(())).await {
                Either::Right(((), lost)) => drop(lost),
                Either::Left(_) => panic!("the future is pending"),
            }
            let mut gate = pin!(end);
            std::future::poll_fn(|cx| {
                counted.set(counted.get() + 1);
                gate.as_mut().poll(cx)
            })
            .await;
            Ok(())
        });
        asyncio::sleep(Duration::ZERO).await?;
        assert_eq!(polls.get(), 1);
        future.set_result(1)?;
        asyncio::sleep(Duration::ZERO).await?;
        assert_eq!(polls.get(), 1, "no stray wake-up");
        assert_eq!(future.result()?, 1);
        gate.open();
        task.await?;
        assert_eq!(polls.get(), 2);
        Ok(())
    });
}

/// FUT-025: closing the loop drops the coroutine that awaits.
#[test]
fn a_wait_that_was_dropped_by_close_leaves_the_future_alone() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future();
    let awaited = future.clone();
    let task = event_loop.create_task(awaited);
    tick(&event_loop);
    event_loop.close().unwrap();
    assert!(task.cancelled());
    assert_eq!(reports.take().len(), 1, "the pending task");
    future.set_result(1).unwrap();
    assert_eq!(future.result().unwrap(), 1);
}

#[test]
fn wakers_and_callbacks_are_one_line_in_order_of_registration() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    let callback = |name: &'static str| {
        let seen = record.clone();
        future.add_done_callback(move |_| seen.push(name));
    };
    let waiter = |name: &'static str| {
        let (seen, future) = (record.clone(), future.clone());
        let task = event_loop.create_task(async move {
            (&future).await?;
            seen.push(name);
            Ok(())
        });
        tick(&event_loop);
        task
    };
    callback("callback 1");
    let first = waiter("await 2");
    callback("callback 3");
    let second = waiter("await 4");
    callback("callback 5");
    future.set_result(0).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), ["callback 1", "await 2", "callback 3", "await 4", "callback 5"]);
    assert!(first.done() && second.done());
}

#[test]
fn a_task_that_is_polled_again_keeps_its_place() {
    let event_loop = new_loop();
    let (future, record) = (event_loop.create_future::<u8>(), Record::default());
    let gate = support::Gate::default();
    let (awaited, opened, seen) = (future.clone(), gate.clone(), record.clone());
    let first = event_loop.create_task(async move {
        // Both are polled whenever the task is: the gate's wake lets the future be polled once more.
        let (value, ()) = futures::future::join((&awaited).into_future(), opened).await;
        value?;
        seen.push("first");
        Ok(())
    });
    tick(&event_loop);
    let seen = record.clone();
    future.add_done_callback(move |_| seen.push("second"));
    gate.open();
    tick(&event_loop);
    assert_eq!(gate.polls(), 2);
    future.set_result(0).unwrap();
    tick(&event_loop);
    assert_eq!(record.take(), ["first", "second"]);
    assert!(first.done());
}

#[test]
fn a_poll_with_another_waker_replaces_the_first_in_its_place() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut wait = Box::pin((&future).into_future());
    for count in [&old, &new, &new] {
        let waker = Waker::from(count.clone());
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    future.set_result(1).unwrap();
    assert_eq!((old.get(), new.get()), (0, 1));
    assert_eq!(Arc::strong_count(&new), 1, "no waker is kept");
    let waker = Waker::from(new.clone());
    assert!(matches!(wait.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(1))));
}

#[test]
fn a_dropped_wait_lets_go_of_its_waker() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut shared = future.clone().shared();
    let mut by_value = future.clone();
    assert!(Pin::new(&mut shared).poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(Pin::new(&mut by_value).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 3);
    drop((shared, by_value));
    assert_eq!(Arc::strong_count(&count), 1);
    future.set_result(1).unwrap();
    assert_eq!(count.get(), 0);
}

#[test]
fn the_first_who_moves_the_value_out_has_it() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let (one, two) = (event_loop.create_task(future.clone()), event_loop.create_task(future.clone()));
    tick(&event_loop);
    future.set_result(5).unwrap();
    tick(&event_loop);
    assert_eq!(one.result().unwrap(), 5);
    assert_eq!(failure(two.result()), (ErrorKind::InvalidState, "Result was already taken".into()));
}

#[test]
fn a_future_that_is_done_does_not_suspend_who_awaits_it() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    future.set_result(5).unwrap();
    let task = event_loop.create_task(async move {
        assert_eq!((&future).await?, 5);
        assert_eq!((&future).await?, 5);
        future.await
    });
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), 5);
}

#[test]
fn a_hundred_thousand_may_wait_for_one_future() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let future = event_loop.create_future::<u32>();
    let tasks: Vec<_> = (0..100_000).map(|_| event_loop.create_task(future.clone().shared())).collect();
    tick(&event_loop);
    future.set_result(5).unwrap();
    tick(&event_loop);
    assert!(tasks.iter().all(|task| task.result().is_ok_and(|value| value == 5)));
}

#[test]
fn a_chain_of_futures_resolves_one_iteration_a_link() {
    let event_loop = new_loop();
    let first = event_loop.create_future::<u32>();
    let mut last = first.clone();
    for _ in 0..10 {
        let (before, next) = (last, event_loop.create_future());
        last = next.clone();
        event_loop.create_task(async move { next.set_result(before.await? + 1) });
    }
    tick(&event_loop);
    first.set_result(0).unwrap();
    for done in 0..10 {
        assert!(!last.done(), "after {done} iterations");
        tick(&event_loop);
    }
    assert_eq!(last.result().unwrap(), 10);
}
