//! Cancellation of one task.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Error, ErrorKind, Task, cancellable, create_task, current_task, sleep};

use crate::support::{self, Record, failure, handler, new_loop, tick};

fn long() -> asyncio::Sleep {
    sleep(Duration::from_secs(10))
}

fn message<T: std::fmt::Debug>(result: asyncio::Result<T>) -> Option<String> {
    match result.unwrap_err() {
        Error::Cancelled(cancelled) => cancelled.message.map(|text| text.to_string()),
        other => panic!("not a cancellation: {other}"),
    }
}

/// CANC-001
#[test]
fn cancel_asks_and_the_task_ends_later() {
    let event_loop = new_loop();
    let task = event_loop.create_task(long());
    tick(&event_loop);
    assert!(task.cancel());
    assert!(!task.done() && !task.cancelled());
    assert_eq!(task.cancelling(), 1);
    assert_eq!(failure(event_loop.run_until_complete(async { (&task).await.map(drop) })).0, ErrorKind::Cancelled);
    assert!(task.done() && task.cancelled());
    assert!(!task.cancel());
    assert_eq!(task.cancelling(), 1, "a cancel that came too late does not count");
}

/// CANC-003
#[test]
fn the_awaited_future_is_cancelled_at_once() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let task = event_loop.create_task(future.clone());
    tick(&event_loop);
    assert!(task.cancel_with("m"));
    assert!(future.cancelled());
    assert_eq!(message(future.result()).as_deref(), Some("m"));
    assert!(!task.done());
    tick(&event_loop);
    assert!(task.cancelled());
    assert_eq!(message(task.result()).as_deref(), Some("m"));
}

/// CANC-004
#[test]
fn a_swallowed_cancellation_still_counts() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let awaited = future.clone();
    let task = event_loop.create_task(async move {
        match awaited.await {
            Err(Error::Cancelled(_)) => Ok(42),
            other => other,
        }
    });
    tick(&event_loop);
    assert!(task.cancel());
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), 42);
    assert!(!task.cancelled());
    assert_eq!(task.cancelling(), 1);
}

/// CANC-005
#[test]
fn a_task_may_ignore_a_cancellation_and_go_on() {
    let event_loop = new_loop();
    let (first, second) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
    let (one, two) = (first.clone(), second.clone());
    let task = event_loop.create_task(async move {
        assert!(one.await.unwrap_err().is_cancelled());
        two.await
    });
    tick(&event_loop);
    assert!(task.cancel());
    tick(&event_loop);
    assert!(!task.done() && !second.done());
    second.set_result(42).unwrap();
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), 42);
    assert!(!second.cancelled() && !task.cancelled());
}

/// A task cancelled before its first step never runs.
#[test]
fn cancel_before_the_first_step_never_polls() {
    let event_loop = new_loop();
    let polled = Rc::new(Cell::new(false));
    let (flag, (guard, dropped)) = (polled.clone(), support::drop_guard());
    let task = event_loop.create_task(async move {
        let _guard = guard;
        flag.set(true);
        Ok(1)
    });
    assert!(task.cancel_with("first"));
    assert!(task.cancel_with("second"));
    assert!(!task.done() && !dropped.get());
    assert_eq!(task.cancelling(), 2);
    tick(&event_loop);
    assert!(task.cancelled() && dropped.get() && !polled.get());
    assert_eq!(message(task.result()).as_deref(), Some("second"));
}

/// CANC-006
#[test]
fn a_task_may_cancel_itself_and_is_stopped_at_its_next_wait() {
    support::run(async {
        let begin = std::time::Instant::now();
        let task = create_task(async {
            assert!(current_task()?.unwrap().cancel());
            sleep(Duration::from_secs(100)).await
        });
        assert_eq!(failure((&task).await).0, ErrorKind::Cancelled);
        assert!(task.cancelled());
        assert!(begin.elapsed() < Duration::from_secs(20));
        Ok(())
    });
}

/// CANC-006: what it awaits next is cancelled, be it a future or a task, and that may be caught.
#[test]
fn a_task_that_cancelled_itself_cancels_what_it_awaits_next() {
    support::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let (future, inner) = (event_loop.create_future::<u8>(), create_task(long()).shared());
        sleep(Duration::ZERO).await?;
        let (awaited, task) = (future.clone(), inner.clone());
        let outer = create_task(async move {
            let own = current_task()?.unwrap();
            own.cancel_with("future");
            assert_eq!(message(awaited.await).as_deref(), Some("future"));
            own.cancel_with("task");
            assert_eq!(message(task.await).as_deref(), Some("task"));
            Ok(own.cancelling())
        });
        assert_eq!(outer.await?, 2);
        assert!(future.cancelled() && inner.cancelled());
        Ok(())
    });
}

/// CANC-007
#[test]
fn a_value_returned_with_a_cancellation_pending_is_thrown_away() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let task = event_loop.create_task(async move {
        current_task()?.unwrap().cancel_with("mm");
        Ok(guard)
    });
    tick(&event_loop);
    assert!(task.cancelled() && dropped.get());
    assert_eq!(failure(event_loop.run_until_complete(task).map(drop)), (ErrorKind::Cancelled, "mm".into()));
    let task = event_loop.create_task(async {
        current_task()?.unwrap().cancel_with("mm");
        Ok(3)
    });
    tick(&event_loop);
    assert_eq!(message(task.result()).as_deref(), Some("mm"));
    assert!(task.cancelled());
}

/// CANC-009
#[test]
fn an_error_returned_with_a_cancellation_pending_stays() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async {
        current_task()?.unwrap().cancel();
        Err::<(), _>(Error::Value("v".into()))
    });
    tick(&event_loop);
    assert_eq!(failure(task.result()), (ErrorKind::Value, "v".into()));
    assert!(!task.cancelled());
    assert_eq!(task.cancelling(), 1);
}

/// CANC-010
#[test]
fn a_cancel_beats_a_future_that_is_done_already() {
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let task = event_loop.create_task(future.clone().shared());
    tick(&event_loop);
    future.set_result(5).unwrap();
    assert!(task.cancel());
    tick(&event_loop);
    assert_eq!(failure(task.result()).0, ErrorKind::Cancelled);
    assert!(task.cancelled() && !future.cancelled());
    assert_eq!(future.result().unwrap(), 5);
}

/// CANC-010: by value too, and the value is not lost with it; the same for a task, a handle and a sleep that are done.
#[test]
fn a_cancel_beats_whatever_is_done_already() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let kept = future.clone();
    let task = event_loop.create_task(future.clone());
    tick(&event_loop);
    future.set_result(5).unwrap();
    task.cancel();
    tick(&event_loop);
    assert!(task.cancelled());
    assert_eq!(event_loop.run_until_complete(kept).unwrap(), 5);

    let inner = event_loop.create_task(async { Ok(6) }).shared();
    let outer = event_loop.create_task(inner.clone());
    let canceller = outer.any();
    // Runs in the iteration in which the inner task ends, after it has.
    event_loop.call_soon(move || assert!(canceller.cancel()));
    outer.add_done_callback(|_| ());
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(inner.result().unwrap(), 6);

    let gate = event_loop.create_future::<()>();
    let (opened, inner) = (gate.clone(), gate.clone());
    let inner = event_loop.create_task(async move { inner.await.map(|()| 7) }).shared();
    let outer = event_loop.create_task(inner.clone());
    tick(&event_loop);
    opened.set_result(()).unwrap();
    let (canceller, done) = (outer.any(), inner.clone());
    event_loop.call_soon(move || {
        assert!(done.done());
        assert!(canceller.cancel());
    });
    tick(&event_loop);
    tick(&event_loop);
    assert!(outer.cancelled());
    assert_eq!((inner.result().unwrap(), inner.cancelling()), (7, 0));

    let handle = event_loop.call_soon(|| 8);
    let waiter = event_loop.create_task(handle);
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(waiter.result().unwrap(), 8, "it was ready at its first poll");
    let later = event_loop.create_task(async { asyncio::get_running_loop()?.call_soon(|| 9).await });
    tick(&event_loop);
    let canceller = later.any();
    event_loop.call_soon(move || assert!(canceller.cancel()));
    tick(&event_loop);
    tick(&event_loop);
    assert!(later.cancelled());
}

/// What is ready at its first poll leaves the cancellation to the next wait.
#[test]
fn a_leaf_that_is_ready_at_its_first_poll_leaves_the_mark_alone() {
    support::run(async {
        let done = asyncio::get_running_loop()?.create_future();
        done.set_result(4)?;
        let task = create_task(async move {
            current_task()?.unwrap().cancel();
            assert_eq!((&done).await?, 4);
            let error = sleep(Duration::ZERO).await.unwrap_err();
            assert!(error.is_cancelled());
            done.await
        });
        assert_eq!(task.await?, 4);
        Ok(())
    });
}

/// CANC-016
#[test]
fn two_requests_before_the_step_make_one_cancellation() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = support::virtual_loop();
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    let task = event_loop.create_task(async move {
        for _ in 0..3 {
            if let Err(Error::Cancelled(_)) = sleep(Duration::from_millis(10)).await {
                counted.set(counted.get() + 1);
            }
        }
        Ok(())
    });
    tick(&event_loop);
    assert!(task.cancel() && task.cancel());
    assert_eq!(task.cancelling(), 2);
    event_loop.run_until_complete(async { (&task).await }).unwrap();
    assert_eq!((count.get(), task.cancelling()), (1, 2));
}

/// CANC-018
#[test]
fn the_clean_up_can_be_cancelled_too() {
    let event_loop = new_loop();
    let record = Record::default();
    let seen = record.clone();
    let task = event_loop.create_task(async move {
        seen.push(message(long().await));
        seen.push(message(long().await));
        Ok(current_task()?.unwrap().cancelling())
    });
    tick(&event_loop);
    assert!(task.cancel_with("one"));
    tick(&event_loop);
    assert!(!task.done());
    assert!(task.cancel_with("two"));
    tick(&event_loop);
    assert_eq!(record.take(), [Some("one".into()), Some("two".into())]);
    assert_eq!((task.result().unwrap(), task.cancelling()), (2, 2));
}

/// CANC-019
#[test]
fn uncancel_never_counts_below_zero() {
    let event_loop = new_loop();
    let task = event_loop.create_task(long());
    assert_eq!(task.uncancel(), 0);
    assert!(task.cancel());
    assert!(task.cancel());
    assert_eq!([task.uncancel(), task.uncancel(), task.uncancel()], [1, 0, 0]);
    assert_eq!(task.cancelling(), 0);
    tick(&event_loop);
    assert!(!task.done(), "both requests were withdrawn before the first step");
}

/// CANC-020
#[test]
fn uncancel_to_zero_withdraws_what_was_not_delivered() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    let awaited = future.clone();
    let task = event_loop.create_task(async move {
        awaited.await?;
        Ok(42)
    });
    tick(&event_loop);
    future.set_result(()).unwrap();
    assert!(task.cancel());
    assert_eq!(task.uncancel(), 0);
    tick(&event_loop);
    assert_eq!(task.cancelling(), 0);
    assert_eq!(task.result().unwrap(), 42);
}

/// CANC-020: one request less is not enough where two were made, and a later one counts again.
#[test]
fn uncancel_to_one_withdraws_nothing() {
    let event_loop = new_loop();
    let sleeper = || event_loop.create_task(long());
    let task = sleeper();
    tick(&event_loop);
    task.cancel();
    task.cancel();
    assert_eq!(task.uncancel(), 1);
    tick(&event_loop);
    assert!(task.cancelled());
    let task = sleeper();
    tick(&event_loop);
    task.cancel_with("withdrawn");
    task.uncancel();
    tick(&event_loop);
    assert!(!task.done());
    task.cancel();
    tick(&event_loop);
    assert_eq!(message(task.result()), None, "the message went with the request");
}

/// CANC-022
#[test]
fn a_task_may_uncancel_itself_and_be_cancelled_again() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async {
        if long().await.is_err_and(|error| error.is_cancelled()) {
            current_task()?.unwrap().uncancel();
        }
        long().await
    });
    tick(&event_loop);
    task.cancel();
    assert_eq!(task.cancelling(), 1);
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(task.cancelling(), 0);
    assert!(!task.done());
    task.cancel();
    assert_eq!(task.cancelling(), 1);
    tick(&event_loop);
    assert!(task.cancelled());
    task.uncancel();
    assert!(task.cancelled() && task.done());
    assert_eq!(failure(task.result()).0, ErrorKind::Cancelled);
}

/// CANC-023
#[test]
fn the_cancellation_of_another_task_is_not_ones_own() {
    support::run(async {
        let inner = create_task(long()).shared();
        let awaited = inner.clone();
        let outer = create_task(async move {
            let error = awaited.await.unwrap_err();
            Ok((error.is_cancelled(), current_task()?.unwrap().cancelling()))
        });
        sleep(Duration::ZERO).await?;
        assert!(inner.cancel());
        assert_eq!(outer.await?, (true, 0));
        Ok(())
    });
}

/// CANC-024
#[test]
fn a_cancellation_that_is_let_out_cancels_the_task() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let awaited = future.clone();
    let task = event_loop.create_task(async move {
        let value = awaited.await?;
        Ok(value)
    });
    tick(&event_loop);
    assert!(future.cancel_with("theirs"));
    tick(&event_loop);
    assert!(task.cancelled());
    assert_eq!(task.cancelling(), 0);
    assert_eq!(message(task.result()).as_deref(), Some("theirs"));
}

/// CANC-025
#[test]
fn a_coroutine_that_returns_a_cancellation_is_cancelled() {
    let event_loop = new_loop();
    let own = || Error::Cancelled(asyncio::Cancelled::new(Some("own".into())));
    let task = event_loop.create_task(async move { Err::<u8, _>(own()) });
    tick(&event_loop);
    assert!(task.cancelled());
    assert_eq!(task.cancelling(), 0);
    assert_eq!(message(task.result()).as_deref(), Some("own"));
    assert_eq!(message(task.exception()).as_deref(), Some("own"));
}

/// CANC-026
#[test]
fn a_cancel_message_reaches_all_who_look() {
    let ways: [fn(&asyncio::EventLoop, Task<()>) -> Option<String>; 5] = [
        |event_loop, task| message(event_loop.run_until_complete(task)),
        |event_loop, task| message(event_loop.run_until_complete(async { (&task).await })),
        |event_loop, task| message(event_loop.run_until_complete(task.any())),
        |event_loop, task| {
            tick(event_loop);
            message(task.result())
        },
        |event_loop, task| {
            tick(event_loop);
            message(task.exception())
        },
    ];
    for way in ways {
        let event_loop = new_loop();
        let record = Record::default();
        let seen = record.clone();
        let task = event_loop.create_task(async move {
            let slept = long().await;
            seen.push(message(slept.clone()));
            slept
        });
        tick(&event_loop);
        task.cancel_with("my message");
        assert_eq!(way(&event_loop, task).as_deref(), Some("my message"));
        assert_eq!(record.take(), [Some("my message".into())]);
    }
}

/// CANC-027: there are no exit-class errors; one that looks like it ends its task and nothing else.
#[test]
fn an_error_during_the_clean_up_is_the_outcome() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    for error in [Error::KeyboardInterrupt, Error::Runtime("exit".into())] {
        let raised = error.clone();
        let task = event_loop.create_task(async move {
            match long().await {
                Err(Error::Cancelled(_)) => Err(raised),
                other => other,
            }
        });
        tick(&event_loop);
        assert!(task.cancel());
        tick(&event_loop);
        assert!(task.done() && !task.cancelled());
        assert_eq!(task.exception().unwrap().unwrap().kind(), error.kind());
    }
    assert_eq!(reports.take().len(), 0);
}

/// CANC-028
#[test]
fn a_task_that_waits_for_foreign_futures_alone_is_dropped() {
    let event_loop = new_loop();
    let ((guard, dropped), record) = (support::drop_guard(), Record::default());
    let after = record.clone();
    let task = event_loop.create_task(async move {
        let _guard = guard;
        std::future::pending::<()>().await;
        after.push("after");
        Ok(())
    });
    tick(&event_loop);
    assert!(task.cancel_with("bye"));
    assert!(!dropped.get(), "not inside of cancel");
    tick(&event_loop);
    assert!(dropped.get());
    assert!(task.done() && task.cancelled());
    assert_eq!(message(task.result()).as_deref(), Some("bye"));
    assert_eq!(record.len(), 0);
}

/// CANC-028: what the coroutine holds is dropped with the task as the current one, on the loop.
#[test]
fn what_a_dropped_coroutine_holds_may_use_the_loop() {
    struct OnDrop<F: FnMut()>(F);
    impl<F: FnMut()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let event_loop = new_loop();
    let record = Record::default();
    let (seen, ran) = (record.clone(), record.clone());
    let task = event_loop.create_task(async move {
        let own = current_task()?.unwrap();
        let _guard = OnDrop(move || {
            assert!(current_task().unwrap().is_some_and(|current| current == own));
            own.cancel();
            seen.push("dropped");
            let ran = ran.clone();
            create_task(async move {
                ran.push("a task made by a drop");
                Ok(())
            });
        });
        std::future::pending::<asyncio::Result<()>>().await
    });
    tick(&event_loop);
    task.cancel();
    tick(&event_loop);
    assert!(task.cancelled());
    tick(&event_loop);
    assert_eq!(record.take(), ["dropped", "a task made by a drop"]);
}

/// A mark that is set during a step is given one more step before the drop rule applies.
#[test]
fn a_mark_set_during_a_step_has_one_more_step() {
    let event_loop = new_loop();
    let gate = support::Gate::default();
    let (waiting, (guard, dropped)) = (gate.clone(), support::drop_guard());
    let task = event_loop.create_task(async move {
        let _guard = guard;
        current_task()?.unwrap().cancel();
        waiting.await;
        Ok(())
    });
    tick(&event_loop);
    assert!(!task.done() && !dropped.get());
    assert_eq!(gate.polls(), 1);
    tick(&event_loop);
    assert!(task.cancelled() && dropped.get());
    assert_eq!(gate.polls(), 2);
}

/// The same, where the foreign future ends in that one step more: the value is thrown away all the same.
#[test]
fn a_foreign_future_that_ends_with_the_mark_set_does_not_save_the_task() {
    let event_loop = new_loop();
    let gate = support::Gate::default();
    let waiting = gate.clone();
    let task = event_loop.create_task(async move {
        waiting.await;
        Ok(1)
    });
    tick(&event_loop);
    gate.open();
    task.cancel();
    tick(&event_loop);
    assert!(task.cancelled());
}

/// An awaitable of ours that is reached in the very step that a mark began with can take it: in the step after that one.
#[test]
fn an_awaitable_that_is_reached_with_the_mark_set_takes_it() {
    let event_loop = new_loop();
    let gate = support::Gate::default();
    let waiting = gate.clone();
    let task = event_loop.create_task(async move {
        waiting.await;
        Ok(sleep(Duration::from_secs(60)).await.is_err_and(|error| error.is_cancelled()))
    });
    tick(&event_loop);
    gate.open();
    task.cancel();
    tick(&event_loop);
    assert!(!task.done(), "the sleep is in its first poll");
    tick(&event_loop);
    assert!(task.result().unwrap(), "it was told in its second");
}

/// Once: awaitables that are made anew in each poll do not keep a coroutine that nobody else can tell.
#[test]
fn awaitables_that_never_come_to_a_second_poll_do_not_save_the_task() {
    let event_loop = new_loop();
    let task = event_loop.create_task(std::future::poll_fn(|cx| {
        let mut fresh = std::pin::pin!(sleep(Duration::from_secs(60)));
        assert!(fresh.as_mut().poll(cx).is_pending());
        std::task::Poll::<asyncio::Result<()>>::Pending
    }));
    tick(&event_loop);
    task.cancel();
    tick(&event_loop);
    tick(&event_loop);
    assert!(task.cancelled());
}

/// Coroutines that swallow cancellations in a loop live as long as they like.
#[test]
fn a_task_that_swallows_every_cancellation_goes_on() {
    let event_loop = new_loop();
    let record = Record::default();
    let seen = record.clone();
    let task = event_loop.create_task(async move {
        for round in 0..5 {
            let error = match round % 4 {
                0 => long().await.unwrap_err(),
                1 => asyncio::get_running_loop()?.create_future::<()>().await.unwrap_err(),
                2 => create_task(long()).await.unwrap_err(),
                _ => cancellable(std::future::pending::<()>()).await.unwrap_err(),
            };
            assert!(error.is_cancelled());
            seen.push(round);
        }
        Ok("lived")
    });
    for _ in 0..5 {
        tick(&event_loop);
        tick(&event_loop);
        assert!(task.cancel());
        tick(&event_loop);
        tick(&event_loop);
    }
    assert_eq!(record.take(), [0, 1, 2, 3, 4]);
    assert_eq!(task.result().unwrap(), "lived");
    assert_eq!(task.cancelling(), 5);
}

/// TASK-020
#[test]
fn a_cancelled_sleep_leaves_no_timer() {
    let event_loop = new_loop();
    let task = event_loop.create_task(long());
    tick(&event_loop);
    assert!(event_loop.next_deadline().is_some());
    task.cancel();
    tick(&event_loop);
    tick(&event_loop);
    assert!(task.cancelled());
    assert!(event_loop.next_deadline().is_none());
}

/// TASK-020: nor does one that was dropped, in a task and on another thread.
#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let event_loop = new_loop();
    let mut sleeping = Box::pin(long());
    event_loop
        .run_until_complete(async {
            assert!(futures::FutureExt::now_or_never(sleeping.as_mut()).is_none());
            Ok(())
        })
        .unwrap();
    assert!(event_loop.next_deadline().is_some());
    std::thread::spawn(move || drop(sleeping)).join().unwrap();
    tick(&event_loop);
    assert!(event_loop.next_deadline().is_none());
}

#[test]
fn awaiting_a_handle_is_cancelled_without_its_callback() {
    let event_loop = new_loop();
    let record = Record::default();
    let seen = record.clone();
    let handle = event_loop.call_later(Duration::from_millis(1), move || seen.push("ran"));
    let task = event_loop.create_task(handle);
    tick(&event_loop);
    task.cancel();
    tick(&event_loop);
    assert!(task.cancelled());
    event_loop.run_until_complete(sleep(Duration::from_millis(5))).unwrap();
    assert_eq!(record.take(), ["ran"]);
}

#[test]
fn the_main_future_can_be_cancelled() {
    let event_loop = new_loop();
    let record = Record::default();
    let seen = record.clone();
    let result = event_loop.run_until_complete(async {
        let main = current_task()?.unwrap();
        asyncio::get_running_loop()?.call_soon(move || assert!(main.cancel_with("main")));
        let slept = long().await;
        seen.push(message(slept.clone()));
        slept
    });
    assert_eq!(failure(result), (ErrorKind::Cancelled, "main".into()));
    assert_eq!(record.take(), [Some("main".into())]);
}

/// The same where the step began with another mark, which was taken.
#[test]
fn a_second_mark_set_during_a_step_has_one_more_step_too() {
    let event_loop = new_loop();
    let record = Record::default();
    let seen = record.clone();
    let task = event_loop.create_task(async move {
        seen.push(message(long().await));
        current_task()?.unwrap().cancel_with("second");
        seen.push(message(long().await));
        current_task()?.unwrap().cancel_with("third");
        seen.push(message(long().await));
        Ok(())
    });
    tick(&event_loop);
    task.cancel_with("first");
    for _ in 0..4 {
        tick(&event_loop);
    }
    assert_eq!(record.take(), ["first", "second", "third"].map(|text| Some(text.to_owned())));
    task.result().unwrap();
}

/// Waits for a future for a while, in vain.
async fn give_up(lent: &mut asyncio::Future<u8>) {
    let short = std::pin::pin!(sleep(Duration::from_millis(1)));
    futures::future::select(lent, short).await;
}

/// A future that was given up without being dropped, as the loser of a select that is lent, takes no cancellation.
#[test]
fn a_cancel_goes_to_what_the_task_awaits_now() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let lent = future.clone();
    let task = event_loop.create_task(async move {
        let mut lent = lent;
        give_up(&mut lent).await;
        sleep(Duration::from_secs(3600)).await?;
        drop(lent);
        Ok(())
    });
    event_loop.run_until_complete(sleep(Duration::from_millis(20))).unwrap();
    assert!(task.cancel());
    assert!(!future.cancelled(), "nobody waits for it any more");
    assert_eq!(event_loop.run_until_complete(task).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!future.done());
}

/// Where the task went on to a foreign future in the same step, the future that was given up takes the cancellation
/// first; it comes back to the task all the same.
#[test]
fn a_cancel_that_went_to_a_future_given_up_comes_back() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let lent = future.clone();
    let task = event_loop.create_task(async move {
        let mut lent = lent;
        give_up(&mut lent).await;
        let outcome = cancellable(std::future::pending::<()>()).await;
        drop(lent);
        outcome
    });
    let dropped = event_loop.create_task({
        let mut lent = future.clone();
        async move {
            give_up(&mut lent).await;
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    event_loop.run_until_complete(sleep(Duration::from_millis(20))).unwrap();
    for task in [task, dropped] {
        assert!(task.cancel_with("enough"));
        let error = event_loop.run_until_complete(task).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Cancelled, "enough".into()));
    }
}
