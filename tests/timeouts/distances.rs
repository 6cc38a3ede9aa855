//! How many iterations lie between a result and the one who waits for it, through each construct.

use std::{cell::Cell, rc::Rc};

use asyncio::{
    EventLoop, FIRST_COMPLETED, Future, Result, Timeout, as_completed, create_task, gather, shield, shielded, timeout,
    timeout_at, wait, wait_for,
};
use futures::StreamExt;

use crate::{
    SECOND,
    support::{count_iterations, new_loop, tick, virtual_loop},
};

/// Lets `waits` await a future in a task, and counts the iterations from `end` to the task's going on.
#[track_caller]
fn distance_to<T: 'static, F>(
    waits: impl FnOnce(EventLoop, Future<u8>) -> F,
    end: impl FnOnce(&Future<u8>),
) -> (Result<T>, usize)
where
    F: std::future::Future<Output = Result<T>> + 'static,
{
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let count = count_iterations(&event_loop);
    let (waiting, counter) = (waits(event_loop.clone(), future.clone()), count.clone());
    let resumed = Rc::new(Cell::new(None));
    let seen = resumed.clone();
    let _task = event_loop.create_task(async move {
        let outcome = waiting.await;
        seen.set(Some((outcome, counter.get())));
        Ok(())
    });
    (0..6).for_each(|_| tick(&event_loop));
    assert!(resumed.take().is_none());
    let begin = count.get();
    end(&future);
    (0..6).for_each(|_| tick(&event_loop));
    let (outcome, at) = resumed.take().expect("the task has gone on");
    // The counter stands before the woken task in the queue, and has been called in the same iteration.
    (outcome, at - begin)
}

#[track_caller]
fn distance<F>(waits: impl FnOnce(EventLoop, Future<u8>) -> F) -> usize
where
    F: std::future::Future<Output = Result<u8>> + 'static,
{
    let (outcome, distance) = distance_to(waits, |future| future.set_result(7).unwrap());
    assert_eq!(outcome.unwrap(), 7);
    distance
}

/// A coroutine that awaits a future, which is not seen from outside.
async fn coroutine(future: Future<u8>) -> Result<u8> {
    future.await
}

/// SCHED-017
#[test]
fn one_iteration_to_what_is_awaited_in_place() {
    assert_eq!(distance(|_, future| future), 1, "a bare future");
    assert_eq!(distance(|_, future| timeout(10 * SECOND, future)), 1, "a timeout around it");
    let scope = |_, future: Future<u8>| async move { Timeout::new(10 * SECOND).scope(async |_| (&future).await).await };
    assert_eq!(distance(scope), 1, "a Timeout around it");
    assert_eq!(distance(|_, future| wait_for(future, 10 * SECOND)), 1, "wait_for of the future");
    let of_a_coroutine = |_, future: Future<u8>| wait_for(coroutine(future), 10 * SECOND);
    assert_eq!(distance(of_a_coroutine), 1, "wait_for of a coroutine");
}

/// SCHED-017: and what is built of these.
#[test]
fn one_iteration_through_any_depth() {
    assert_eq!(distance(|_, future| future.shared()), 1);
    assert_eq!(distance(|_, future| timeout(None, future)), 1);
    assert_eq!(distance(|event_loop: EventLoop, future| timeout_at(event_loop.time() + 10 * SECOND, future)), 1);
    assert_eq!(distance(|_, future| timeout(SECOND * 10, timeout(SECOND * 20, timeout(SECOND * 5, future)))), 1);
    assert_eq!(distance(|_, future| shielded(future)), 1);
    assert_eq!(distance(|_, future| timeout(SECOND * 10, shielded(timeout(SECOND * 10, future)))), 1);
    let group = |_, future: Future<u8>| asyncio::TaskGroup::scope(async move |_| future.await);
    assert_eq!(distance(group), 1);
}

/// SCHED-018
#[test]
fn two_iterations_to_what_is_observed() {
    assert_eq!(distance(|event_loop, future| event_loop.create_task(future)), 2, "a task that awaits it");
    let gathered = |_, future: Future<u8>| async move { gather(vec![future]).await.map(|values| values[0]) };
    assert_eq!(distance(gathered), 2, "gather");
    assert_eq!(distance(|_, future| async move { shield(future).await }), 2, "shield");
    let waited = |_, future: Future<u8>| async move {
        let (done, pending) = wait([&future]).await?;
        assert_eq!((done.len(), pending.len()), (1, 0));
        (&future).await
    };
    assert_eq!(distance(waited), 2, "wait");
    let plain = |_, future: Future<u8>| async move {
        let next = as_completed([future]).into_iter().next().expect("there is one");
        next.await
    };
    assert_eq!(distance(plain), 2, "as_completed, by iteration");
    let stream = |_, future: Future<u8>| async move {
        let mut completed = as_completed([future]);
        completed.next().await.expect("there is one")?.await
    };
    assert_eq!(distance(stream), 2, "as_completed, as a stream");
}

/// SCHED-018: with their arguments, in tuples, through timeouts.
#[test]
fn two_iterations_with_any_arguments() {
    let tuple = |_, future: Future<u8>| async move { gather((future, async { Ok(()) })).await.map(|values| values.0) };
    assert_eq!(distance(tuple), 2);
    let results = |_, future: Future<u8>| async move { gather((future,)).return_exceptions().await?.0 };
    assert_eq!(distance(results), 2);
    let started = |event_loop: EventLoop, future: Future<u8>| {
        asyncio::set_event_loop(&event_loop);
        let started = gather((future,)).start();
        asyncio::set_event_loop(None);
        async move { Ok(started.await?.0) }
    };
    assert_eq!(distance(started), 2);
    let first = |_, future: Future<u8>| async move {
        let (done, _) = wait([&future]).return_when(FIRST_COMPLETED).timeout(10 * SECOND).await?;
        done[0].await
    };
    assert_eq!(distance(first), 2);
    assert_eq!(distance(|_, future| timeout(10 * SECOND, async move { shield(future).await })), 2);
    assert_eq!(distance(|event_loop, future| timeout(10 * SECOND, event_loop.create_task(future))), 2);
    let limited = |_, future: Future<u8>| async move {
        let mut completed = as_completed([future]).timeout(10 * SECOND);
        completed.next().await.expect("there is one")?.await
    };
    assert_eq!(distance(limited), 2);
    let shared = |event_loop: EventLoop, future: Future<u8>| event_loop.create_task(future).shared();
    assert_eq!(distance(shared), 2);
    let kept = |event_loop: EventLoop, future: Future<u8>| {
        let mut task = event_loop.create_task(future);
        async move { task.shield().await }
    };
    assert_eq!(distance(kept), 3, "a task that awaits it, and a shield around that");
}

/// SCHED-018: one more for each task on the way.
#[test]
fn three_iterations_through_a_task_more() {
    let gathered = |_, future: Future<u8>| async move { Ok(gather((coroutine(future),)).await?.0) };
    assert_eq!(distance(gathered), 3);
    let shield_of_a_coroutine = |_, future: Future<u8>| async move { shield(coroutine(future)).await };
    assert_eq!(distance(shield_of_a_coroutine), 3);
    let twice = |_, future: Future<u8>| async move { create_task(create_task(future)).await };
    assert_eq!(distance(twice), 3);
}

/// SCHED-017 and SCHED-018: failures and cancellations are as far.
#[test]
fn failures_are_as_far() {
    let fail = |future: &Future<u8>| future.set_exception(asyncio::Error::Value("E".into())).unwrap();
    let cancel = |future: &Future<u8>| assert!(future.cancel());
    assert_eq!(distance_to(|_, future| timeout(10 * SECOND, future), fail).1, 1);
    assert_eq!(distance_to(|_, future| timeout(10 * SECOND, future), cancel).1, 1);
    assert_eq!(distance_to(|_, future| async move { shield(future).await }, fail).1, 2);
    assert_eq!(distance_to(|_, future| async move { shield(future).await }, cancel).1, 2);
    assert_eq!(distance_to(|_, future| async move { gather((future,)).await }, fail).1, 2);
    assert_eq!(distance_to(|_, future| async move { gather((future,)).await }, cancel).1, 2);
}

/// A limit that passes: one iteration after the timer's.
#[test]
fn one_iteration_from_the_limit_to_who_is_late() {
    let (event_loop, clock) = virtual_loop();
    let at = event_loop.time() + SECOND;
    let count = count_iterations(&event_loop);
    let expired = Rc::new(Cell::new(0));
    let (sees, counter) = (expired.clone(), count.clone());
    event_loop.call_at(at, move || sees.set(counter.get()));
    let task = event_loop.create_task(async move {
        let outcome = timeout_at(at, std::future::pending::<Result<()>>()).await;
        assert!(outcome.is_err());
        Ok(count.get())
    });
    tick(&event_loop);
    clock.advance(SECOND);
    let resumed = event_loop.run_until_complete(task).unwrap();
    assert_eq!(resumed - expired.get(), 1);
}
