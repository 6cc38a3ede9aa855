//! Cancellation that is forwarded from task to task.

use std::time::Duration;

use asyncio::{Error, ErrorKind, create_task, current_task, sleep};

use crate::support::{self, failure, handler, new_loop, tick};

/// CANC-012
#[test]
fn cancel_goes_down_the_chain_at_once() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let inner = event_loop.create_task(future.clone()).shared();
    let outer = event_loop.create_task(inner.clone());
    tick(&event_loop);
    assert!(outer.cancel_with("m"));
    assert!(future.cancelled());
    assert_eq!((inner.cancelling(), outer.cancelling()), (1, 1));
    assert!(!inner.done() && !outer.done());
    tick(&event_loop);
    assert!(inner.cancelled() && !outer.done());
    tick(&event_loop);
    assert!(outer.cancelled());
    assert_eq!(failure(outer.result()).1, "m");
}

/// CANC-012: by value, by reference and erased.
#[test]
fn every_form_of_awaiting_a_task_forwards() {
    let event_loop = new_loop();
    for form in 0..3 {
        let inner = event_loop.create_task(sleep(Duration::from_secs(60)));
        let known = inner.any();
        let outer = event_loop.create_task(async move {
            match form {
                0 => inner.await,
                1 => (&inner).await,
                _ => inner.any().await,
            }
        });
        tick(&event_loop);
        outer.cancel();
        assert_eq!(known.cancelling(), 1);
        tick(&event_loop);
        tick(&event_loop);
        assert!(known.cancelled() && outer.cancelled());
    }
}

/// CANC-012: a task in the chain that has not begun never runs.
#[test]
fn an_awaited_task_that_has_not_begun_never_runs() {
    let event_loop = new_loop();
    let outer = event_loop.create_task(async {
        let inner = create_task(async {
            if true {
                panic!("it ran");
            }
            asyncio::ok(())
        });
        let own = current_task()?.unwrap();
        asyncio::get_running_loop()?.call_soon(|| ());
        own.cancel();
        inner.await
    });
    tick(&event_loop);
    tick(&event_loop);
    tick(&event_loop);
    // The inner task was queued before the outer one's next step, so it has run: it was not marked yet.
    assert!(outer.done());
    let reports = handler(&event_loop);
    let inner = event_loop.create_task(async { Err::<(), _>(Error::Runtime("it ran".into())) });
    let known = inner.any();
    inner.cancel();
    let outer = event_loop.create_task(inner);
    tick(&event_loop);
    tick(&event_loop);
    assert!(known.cancelled() && outer.cancelled());
    assert_eq!(reports.take().len(), 0);
}

/// CANC-014
#[test]
fn the_outer_task_gets_the_inner_ones_outcome() {
    support::run(async {
        let inner = create_task(async {
            match sleep(Duration::from_secs(60)).await {
                Err(Error::Cancelled(_)) => Err(Error::Value("x".into())),
                other => other,
            }
        });
        let outer = create_task(async move {
            let (kind, text) = failure(inner.await);
            Ok((kind, text, current_task()?.unwrap().cancelling()))
        });
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        outer.cancel();
        assert_eq!(outer.await?, (ErrorKind::Value, "x".into(), 1));
        Ok(())
    });
}

/// CANC-014: an inner task that swallows it gives its value, after it has cleaned up.
#[test]
fn an_inner_task_may_swallow_the_cancellation_for_both() {
    support::run(async {
        let inner = create_task(async {
            assert!(sleep(Duration::from_secs(60)).await.is_err());
            sleep(Duration::from_millis(1)).await?;
            Ok("swallowed")
        });
        let outer = create_task(inner);
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        outer.cancel();
        assert_eq!((&outer).await?, "swallowed");
        assert!(!outer.cancelled());
        assert_eq!(outer.cancelling(), 1);
        Ok(())
    });
}

/// CANC-014: the outer one may be cancelled again while the inner one cleans up.
#[test]
fn a_second_cancel_reaches_the_clean_up_of_the_inner_task() {
    let event_loop = new_loop();
    let inner = event_loop
        .create_task(async {
            assert!(sleep(Duration::from_secs(60)).await.is_err());
            let cleaning = sleep(Duration::from_secs(60)).await;
            assert!(cleaning.is_err_and(|error| error.is_cancelled()));
            Ok("twice")
        })
        .shared();
    let outer = event_loop.create_task(inner.clone());
    tick(&event_loop);
    outer.cancel();
    tick(&event_loop);
    assert!(!inner.done());
    outer.cancel();
    assert_eq!((inner.cancelling(), outer.cancelling()), (2, 2));
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(outer.result().unwrap(), "twice");
}

/// A mark is left only where nobody accepted: the outer task sees one cancellation, not two.
#[test]
fn a_forwarded_cancel_leaves_no_mark() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let awaited = future.clone();
    let task = event_loop.create_task(async move {
        assert!(awaited.await.is_err());
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        Ok("no second one")
    });
    tick(&event_loop);
    task.cancel();
    assert_eq!(event_loop.run_until_complete(task).unwrap(), "no second one");
}

/// Two cancels before the awaiting task runs: the second finds the future done, so the mark is set, and the task gets
/// one cancellation, as in asyncio.
#[test]
fn a_second_cancel_before_the_step_is_the_same_cancellation() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let awaited = future.clone();
    let task = event_loop.create_task(async move {
        let (_, text) = failure(awaited.await);
        sleep(Duration::ZERO).await?;
        Ok(text)
    });
    tick(&event_loop);
    task.cancel_with("first");
    task.cancel_with("second");
    assert_eq!(failure(future.result()).1, "first");
    assert_eq!(event_loop.run_until_complete(task).unwrap(), "second");
}

/// The same for a chain: the inner task is done when the second cancel comes.
#[test]
fn a_cancel_after_the_inner_task_ended_is_the_outer_ones_own() {
    let event_loop = new_loop();
    let inner = event_loop.create_task(sleep(Duration::from_secs(60))).shared();
    let awaited = inner.clone();
    let outer = event_loop.create_task(async move {
        let (_, text) = failure(awaited.await);
        Ok(text)
    });
    tick(&event_loop);
    let (first, second) = (inner.any(), outer.any());
    first.cancel_with("inner");
    event_loop.call_soon(move || {
        assert!(first.done());
        second.cancel_with("outer");
    });
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(outer.result().unwrap(), "outer");
    assert_eq!(inner.cancelling(), 1);
}

#[test]
fn a_chain_of_a_hundred_thousand_tasks_is_cancelled_without_recursion() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let future = event_loop.create_future::<u32>();
    let mut last = event_loop.create_task(future.clone());
    for _ in 0..100_000 {
        last = event_loop.create_task(async move { Ok(last.await? + 1) });
    }
    tick(&event_loop);
    assert!(last.cancel_with("deep"));
    assert!(future.cancelled());
    assert_eq!(failure(event_loop.run_until_complete(last)), (ErrorKind::Cancelled, "deep".into()));
    assert_eq!(event_loop.all_tasks(), []);
}

#[test]
fn a_chain_whose_end_is_foreign_is_dropped_from_its_end() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let mut last = event_loop.create_task(async move {
        let _guard = guard;
        std::future::pending::<asyncio::Result<u32>>().await
    });
    for _ in 0..1000 {
        last = event_loop.create_task(async move { Ok(last.await? + 1) });
    }
    tick(&event_loop);
    last.cancel();
    assert_eq!(failure(event_loop.run_until_complete(last)).0, ErrorKind::Cancelled);
    assert!(dropped.get());
}

#[test]
fn a_long_chain_is_closed_without_recursion() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    event_loop.set_exception_handler(Some(std::rc::Rc::new(|_, _| ())));
    let future = event_loop.create_future::<u32>();
    let mut last = event_loop.create_task(future.clone());
    for _ in 0..100_000 {
        last = event_loop.create_task(async move { Ok(last.await? + 1) });
    }
    tick(&event_loop);
    event_loop.close().unwrap();
    assert!(last.cancelled());
}

/// Tasks that wait for each other wait for ever, but a cancel does not hang, and ends them.
#[test]
fn a_ring_of_tasks_can_be_cancelled() {
    let _deadline = support::deadline();
    for tail in [false, true] {
        let event_loop = new_loop();
        let other = event_loop.create_future::<asyncio::AnyTask>();
        let given = other.clone();
        let first = event_loop.create_task(async move { given.await?.await });
        let awaited = first.any();
        let second = event_loop.create_task(awaited);
        let third = event_loop.create_task(second.any());
        other.set_result(second.any()).unwrap();
        for _ in 0..3 {
            tick(&event_loop);
        }
        let start = if tail { third.any() } else { first.any() };
        assert!(start.cancel());
        for _ in 0..10 {
            tick(&event_loop);
        }
        assert!(first.cancelled() && second.cancelled() && third.cancelled(), "tail: {tail}");
        assert!(event_loop.next_deadline().is_none(), "nothing goes round and round");
    }
}

/// The task that awaits may go while the inner one cleans up.
#[test]
fn an_awaiter_that_is_dropped_forwards_nothing_any_more() {
    let event_loop = new_loop();
    let inner = event_loop.create_task(sleep(Duration::from_secs(60))).shared();
    let awaited = inner.clone();
    let outer = event_loop.create_task(async move {
        drop(futures::future::select(awaited, std::future::ready(())).await);
        sleep(Duration::from_secs(60)).await
    });
    tick(&event_loop);
    outer.cancel();
    assert_eq!(inner.cancelling(), 0);
    tick(&event_loop);
    assert!(outer.cancelled() && !inner.done());
}
