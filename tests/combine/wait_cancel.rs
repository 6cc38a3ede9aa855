//! Cancelling and dropping a wait, and waits under other loops.

use asyncio::{
    ErrorKind, FIRST_COMPLETED, FIRST_EXCEPTION, Future, create_task, get_running_loop, set_event_loop, sleep, timeout,
    wait,
};
use futures::future::{Either, join, select};

use crate::{
    FOREVER, MS, SECOND, ZERO, after, assert_cancelled, error, run, run_reporting,
    support::{deadline, failure, handler, new_loop, virtual_loop},
    texts, turns,
};

/// WAIT-006
#[test]
fn cancelling_who_waits_does_not_touch_what_is_waited_for() {
    run(async {
        let inner = create_task(after(10, "inner")).shared();
        let waited = inner.clone();
        let task = create_task(async move { wait([waited]).await.map(drop) });
        turns(2).await?;
        assert!(task.cancel());
        let mut task = task;
        assert_cancelled((&mut task).await);
        assert!(task.cancelled());
        assert!(!inner.done() && inner.cancelling() == 0);
        assert_eq!(inner.await?, "inner");
        Ok(())
    });
}

/// At each moment: before the first step, while it waits, when the end has come and has not been told, and when it has.
#[test]
fn a_wait_can_be_cancelled_at_every_point() {
    for return_when in [asyncio::ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION] {
        for point in 0..6 {
            run(async move {
                let future = Future::<u8>::new();
                let (setter, waited) = (future.clone(), [future.clone(), future.clone()]);
                let task =
                    create_task(async move { wait(waited).return_when(return_when).timeout(SECOND).await.map(drop) });
                turns(2).await?;
                if point > 2 {
                    setter.set_result(1)?;
                    turns(point - 3).await?;
                }
                let cancels = task.cancel();
                let outcome = task.await;
                if cancels {
                    assert_cancelled(outcome);
                } else {
                    assert!(point == 5 && outcome.is_ok(), "{point}");
                }
                assert_eq!(future.done(), point > 2);
                Ok(())
            });
        }
    }
}

#[test]
fn a_cancelled_wait_can_be_begun_again() {
    let (_, took) = run(async {
        let task = create_task(async {
            let (a, b) = (create_task(after(10, 1)), create_task(after(20, 2)));
            assert_cancelled(wait([&a, &b]).timeout(SECOND).await);
            asyncio::current_task()?.unwrap().uncancel();
            let (done, pending) = wait([&a, &b]).await?;
            assert_eq!((done.len(), pending.len()), (2, 0));
            Ok(())
        });
        turns(2).await?;
        task.cancel();
        task.await
    });
    assert_eq!(took, MS * 20);
}

/// A drop midway leaves nothing behind: no timer, no observer, no wake-up.
#[test]
fn a_dropped_wait_leaves_nothing_behind() {
    run(async {
        let event_loop = get_running_loop()?;
        let (task, future) = (create_task(after(10, ())), Future::<()>::new());
        let any = task.any();
        for _ in 0..100 {
            let mut one = wait([&any]).timeout(FOREVER).into_future();
            let mut two = wait([&future]).timeout(FOREVER).into_future();
            assert!(futures::poll!(&mut one).is_pending() && futures::poll!(&mut two).is_pending());
            turns(1).await?;
        }
        future.set_result(())?;
        task.await?;
        let begin = event_loop.time();
        turns(3).await?;
        assert!(event_loop.next_deadline().is_none_or(|next| next <= begin), "a timer is left");
        Ok(())
    });
}

/// One of two whose wait was given up first is still told of the end.
#[test]
fn a_given_up_wait_takes_nothing_from_the_others() {
    run(async {
        for gives_up in 0..3 {
            for owned in [false, true] {
                let task = create_task(after(10, 5)).shared();
                let future = Future::new().shared();
                let waiters = (0..3).map(|n| {
                    let (task, future) = (task.clone(), future.clone());
                    create_task(async move {
                        let limit = if n == gives_up { MS * 5 } else { SECOND };
                        let (done, pending) = if owned {
                            wait([task.any()]).timeout(limit).await.map(|both| (both.0.len(), both.1.len()))?
                        } else {
                            wait([future]).timeout(limit).await.map(|both| (both.0.len(), both.1.len()))?
                        };
                        Ok((done, pending, get_running_loop()?.time()))
                    })
                });
                let waiters = waiters.collect::<Vec<_>>();
                let begin = get_running_loop()?.time();
                sleep(MS * 10).await?;
                let _ = future.set_result(1);
                for (n, waiter) in waiters.into_iter().enumerate() {
                    let expected = if n == gives_up { (0, 1, begin + MS * 5) } else { (1, 0, begin + MS * 10) };
                    assert_eq!(waiter.await?, expected);
                }
                task.await?;
            }
        }
        Ok(())
    });
}

#[test]
fn what_is_given_by_value_is_dropped_with_the_wait() {
    let (result, _, reports) = run_reporting(async {
        let (slow, failed) = (create_task(after(5, ())), create_task(async { Err::<(), _>(error("E")) }));
        let any = slow.any();
        let mut waiting = wait([slow, failed]).into_future();
        assert!(futures::poll!(&mut waiting).is_pending());
        turns(2).await?;
        drop(waiting);
        assert!(!any.done());
        any.await
    });
    result.unwrap();
    assert_eq!(reports, [("Task exception was never retrieved".to_owned(), "E".to_owned())]);
}

#[test]
fn waits_stand_in_timeouts_and_combinators() {
    let (_, took) = run(async {
        let task = create_task(after(20, ()));
        assert_eq!(failure(timeout(MS * 5, wait([&task])).await).0, ErrorKind::Timeout);
        assert!(!task.done() && task.cancelling() == 0);
        let (one, two) = join(
            wait([&task]).timeout(MS).into_future(),
            wait([&task]).timeout(MS * 2).return_when(FIRST_COMPLETED).into_future(),
        )
        .await;
        assert_eq!((one?.1.len(), two?.1.len()), (1, 1));
        match select(wait([&task]).into_future(), sleep(MS)).await {
            Either::Left(_) => panic!("not yet"),
            Either::Right((slept, waiting)) => {
                slept?;
                assert_eq!(waiting.await?.0.len(), 1);
            }
        }
        Ok(())
    });
    assert_eq!(took, MS * 20);
}

/// Under `join!` the mark is taken by one of the waits; both end.
#[test]
fn a_cancellation_finds_a_wait_among_others() {
    run(async {
        let inner = create_task(sleep(FOREVER));
        let any = inner.any();
        let task = create_task(async move {
            let waits = futures::future::try_join(wait([inner.any()]).into_future(), sleep(FOREVER));
            waits.await.map(drop)
        });
        turns(2).await?;
        task.cancel();
        assert_cancelled(task.await);
        assert!(!any.done() && any.cancelling() == 0);
        any.cancel();
        assert_cancelled(any.await);
        Ok(())
    });
}

/// A task that waits for itself is what it is in asyncio: it waits until somebody cancels it, or its time is over.
#[test]
fn a_task_may_wait_for_itself() {
    run(async {
        let task = create_task(async {
            let me = asyncio::current_task()?.unwrap();
            let (done, pending) = wait([&me]).timeout(MS).await?;
            assert_eq!((done.len(), pending.len()), (0, 1));
            wait([me]).await.map(drop)
        });
        sleep(MS * 3).await?;
        assert!(task.cancel());
        assert_cancelled(task.await);
        Ok(())
    });
}

#[test]
fn what_belongs_to_another_loop_is_refused() {
    let other = new_loop();
    let (foreign, task) = (other.create_future::<u8>().shared(), other.create_task(async { Ok(()) }));
    run(async {
        let home = Future::new().shared();
        let refused = wait([home.clone(), foreign.clone()]).await;
        let (kind, text) = failure(refused);
        assert_eq!(kind, ErrorKind::Value);
        assert!(text.contains("different loop"), "{text}");
        assert_eq!(failure(wait([&task]).timeout(ZERO).await).0, ErrorKind::Value);
        home.set_result(1)?;
        Ok(())
    });
    assert!(!foreign.done());
    other.run_until_complete(task).unwrap();
}

#[test]
fn a_wait_needs_a_running_loop() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async { Ok(()) });
    let mut waiting = wait([&task]).into_future();
    let polled = futures::FutureExt::now_or_never(&mut waiting).expect("it is an error");
    assert_eq!(failure(polled), (ErrorKind::Runtime, "no running event loop".into()));
    // It can be awaited later.
    let (done, _) = event_loop.run_until_complete(waiting).unwrap();
    assert_eq!(done.len(), 1);
}

#[test]
fn a_wait_that_has_begun_is_not_continued_under_another_loop() {
    let _deadline = deadline();
    let (event_loop, _clock) = virtual_loop();
    let task = event_loop.create_task(after(5, 1));
    let mut waiting = wait([&task]).timeout(SECOND).into_future();
    event_loop
        .run_until_complete(async {
            assert!(futures::poll!(&mut waiting).is_pending());
            Ok(())
        })
        .unwrap();
    let other = new_loop();
    let refused = other.run_until_complete(async { (&mut waiting).await.map(drop) });
    assert_eq!(failure(refused).0, ErrorKind::Value);
    let (done, _) = event_loop.run_until_complete(waiting).unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 1);
}

#[test]
fn a_loop_that_closes_in_between_leaves_a_wait_harmless() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(sleep(FOREVER));
    let mut waiting = wait([&task]).timeout(SECOND).into_future();
    event_loop
        .run_until_complete(async {
            assert!(futures::poll!(&mut waiting).is_pending());
            Ok(())
        })
        .unwrap();
    event_loop.close().unwrap();
    assert_eq!(texts(&reports).len(), 1, "the task was destroyed");
    let _ = futures::FutureExt::now_or_never(&mut waiting);
    drop(waiting);
    assert!(task.cancelled());
}

/// With a loop set and none running there is nothing to wait in.
#[test]
fn a_loop_that_is_set_does_not_run_a_wait() {
    let event_loop = new_loop();
    set_event_loop(&event_loop);
    let future = Future::<u8>::new();
    let polled = futures::FutureExt::now_or_never(wait([&future]).into_future()).expect("it is an error");
    set_event_loop(None);
    assert_eq!(failure(polled).0, ErrorKind::Runtime);
}
