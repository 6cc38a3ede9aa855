//! Shields beside others that are polled apart, and cancellations that meet nobody for a while.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Result, block_on, cancellable, create_task, get_running_loop, shielded, sleep, timeout};
use futures::{
    FutureExt, StreamExt,
    future::{LocalBoxFuture, select},
    stream::FuturesUnordered,
};

use crate::support::{self, Gate, Record, run};

const MS: Duration = Duration::from_millis(1);

/// Only the members that were woken are polled: the shield holds all the same.
#[test]
fn a_shield_holds_while_others_are_polled() {
    for scoped in [false, true] {
        let _deadline = support::deadline();
        let (event_loop, _) = support::virtual_loop();
        let record = Record::default();
        let seen = record.clone();
        event_loop
            .run_until_complete(async move {
                let gate = Gate::default();
                let waiting = gate.clone();
                let body = async move {
                    let cleanup: LocalBoxFuture<'_, Result<()>> = shielded(async {
                        sleep(MS * 100).await?;
                        seen.push("cleaned up");
                        Ok(())
                    })
                    .boxed_local();
                    let other = async move {
                        waiting.await;
                        std::future::pending::<Result<()>>().await
                    };
                    let mut both: FuturesUnordered<_> = [cleanup, other.boxed_local()].into_iter().collect();
                    both.next().await.expect("there are two")
                };
                let task = create_task(async move { if scoped { timeout(MS * 10, body).await } else { body.await } });
                sleep(MS * 5).await?;
                if !scoped {
                    task.cancel();
                }
                sleep(MS * 20).await?;
                gate.open();
                sleep(MS * 200).await?;
                assert!(task.done());
                Ok(())
            })
            .unwrap();
        assert_eq!(record.take(), ["cleaned up"], "in a scope: {scoped}");
    }
}

/// Nobody can take it, and the main future of `block_on` is not dropped: it waits on, and does not spin.
#[test]
fn a_main_future_that_cannot_be_told_does_not_spin() {
    let _deadline = support::deadline();
    let gate = Gate::default();
    let (waiting, opener) = (gate.clone(), gate.clone());
    let ended = Rc::new(Cell::new(false));
    let seen = ended.clone();
    block_on(async move {
        let event_loop = get_running_loop().unwrap();
        let main = event_loop.current_task().unwrap();
        event_loop.call_later(MS, move || main.cancel());
        event_loop.call_later(MS * 30, move || opener.open());
        waiting.await;
        seen.set(true);
    });
    assert!(ended.get());
    assert!(gate.polls() < 30, "{}", gate.polls());
}

/// The future has accepted the end of the limit, and the task is cancelled in the same iteration: once is told.
#[test]
fn the_end_of_a_limit_and_a_cancellation_are_told_once() {
    run(async {
        let future = asyncio::Future::<()>::new();
        let record = Record::default();
        let (seen, awaited) = (record.clone(), future.clone());
        let task = create_task(timeout(MS * 5, async move {
            let told = awaited.await;
            seen.push(if sleep(MS).await.is_ok() { "cleaned up" } else { "broken off" });
            told
        }));
        let cancelled = task.any();
        // Before the task waits, and so called before its step.
        future.add_done_callback(move |_| {
            cancelled.cancel_with("enough");
        });
        let error = task.await.unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(record.take(), ["cleaned up"]);
        Ok(())
    });
}

/// The branch that took the cancellation waits for what it passed it on to, and is given up: the next await is told.
#[test]
fn a_cancellation_whose_taker_is_given_up_is_told_again() {
    run(async {
        let slow = || async {
            match sleep(MS * 1000).await {
                Ok(()) => Ok(()),
                Err(told) => {
                    sleep(MS * 50).await?;
                    Err(told)
                }
            }
        };
        let awaits = create_task(async move {
            let child = create_task(slow());
            select(child, sleep(MS * 10)).await;
            sleep(MS * 5000).await
        });
        let groups = create_task(async move {
            let group = Box::pin(asyncio::TaskGroup::scope(async |group| {
                group.create_task(slow());
                Ok(())
            }));
            select(group, sleep(MS * 10)).await;
            sleep(MS * 5000).await
        });
        sleep(MS * 2).await?;
        for task in [awaits, groups] {
            task.cancel();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        sleep(MS * 60).await
    });
}

/// A leaf that moves to another loop takes nothing of that loop's with it.
#[test]
fn a_leaf_that_moves_between_loops_leaves_others_alone() {
    let _deadline = support::deadline();
    let (first, second) = (support::new_loop(), support::new_loop());
    let lock = asyncio::Lock::new();
    let held = lock.try_acquire().unwrap();
    let mut waits = Box::pin(lock.acquire());
    first
        .run_until_complete(async {
            let polled = [waits.as_mut()].into_iter().collect::<FuturesUnordered<_>>().next().now_or_never();
            assert!(polled.is_none());
            Ok(())
        })
        .unwrap();
    let told = second.run_until_complete(async {
        let task = asyncio::current_task()?.expect("the main task");
        let sleeping = async { sleep(MS * 5000).await.is_err_and(|error| error.is_cancelled()) };
        let moved = async { cancellable(waits.as_mut()).await.is_err() };
        let mut both: FuturesUnordered<_> = [sleeping.boxed_local(), moved.boxed_local()].into_iter().collect();
        get_running_loop()?.call_later(MS, move || task.cancel());
        let told = both.next().await;
        Ok(told)
    });
    drop(held);
    assert_eq!(told.unwrap(), Some(true));
}
