//! Cancellation of a task that awaits several things: one cancel, one who takes it.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Error, ErrorKind, Task, cancellable, create_task, sleep};
use futures::{
    FutureExt, StreamExt,
    future::{Either, join, join_all, select, try_join},
    stream::{self, FuturesUnordered},
};

use crate::support::{self, Gate, Record, failure, new_loop, tick, virtual_loop};

fn long() -> asyncio::Sleep {
    sleep(Duration::from_secs(3600))
}

fn is_cancelled<T>(result: &asyncio::Result<T>) -> bool {
    matches!(result, Err(Error::Cancelled(_)))
}

/// Starts the coroutine, cancels it once it waits, and gives it.
fn cancelled_while_waiting<T: 'static>(
    event_loop: &asyncio::EventLoop,
    coroutine: impl Future<Output = asyncio::Result<T>> + 'static,
) -> Task<T> {
    let task = event_loop.create_task(coroutine);
    tick(event_loop);
    assert!(!task.done());
    assert!(task.cancel());
    task
}

#[test]
fn join_gives_it_to_the_first_and_waits_for_the_rest() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let begin = event_loop.time();
    let task = cancelled_while_waiting(&event_loop, async {
        let (one, two) = join(sleep(Duration::from_millis(50)), sleep(Duration::from_millis(50))).await;
        Ok((is_cancelled(&one), two.is_ok()))
    });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), (true, true));
    assert_eq!(event_loop.time() - begin, Duration::from_millis(50), "the sibling ran to its end");
}

#[test]
fn tokios_join_does_the_same() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let task = cancelled_while_waiting(&event_loop, async {
        let (one, two) = tokio::join!(sleep(Duration::from_millis(50)), sleep(Duration::from_millis(50)));
        // Its order of polling rotates: one of the two has it.
        Ok((is_cancelled(&one) != is_cancelled(&two), one.is_ok() || two.is_ok()))
    });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), (true, true));
}

#[test]
fn try_join_returns_at_once_and_drops_the_siblings() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let task = cancelled_while_waiting(&event_loop, async {
        try_join(long(), async move {
            let _guard = guard;
            long().await
        })
        .await?;
        Ok(())
    });
    tick(&event_loop);
    assert!(task.cancelled() && dropped.get());
    assert!(event_loop.next_deadline().is_none());
    let task = cancelled_while_waiting(&event_loop, async {
        tokio::try_join!(long(), long())?;
        Ok(())
    });
    tick(&event_loop);
    assert!(task.cancelled());
}

#[test]
fn select_completes_with_the_branch_that_was_polled_first() {
    let event_loop = new_loop();
    let task = cancelled_while_waiting(&event_loop, async {
        match select(long(), long()).await {
            Either::Left((first, _lost)) => Ok(is_cancelled(&first)),
            Either::Right(_) => Ok(false),
        }
    });
    tick(&event_loop);
    assert!(task.result().unwrap());
    let task = cancelled_while_waiting(&event_loop, async {
        tokio::select! {
            biased;
            first = long() => Ok(is_cancelled(&first)),
            _ = long() => Ok(false),
        }
    });
    tick(&event_loop);
    assert!(task.result().unwrap());
    let task = cancelled_while_waiting(&event_loop, async {
        tokio::select! {
            either = long() => Ok(is_cancelled(&either)),
            or = long() => Ok(is_cancelled(&or)),
        }
    });
    tick(&event_loop);
    assert!(task.result().unwrap());
}

/// The macros of `futures`, each with the same outcome as above.
#[test]
fn the_macros_do_as_the_functions() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let ten = Duration::from_millis(10);
    let joined = cancelled_while_waiting(&event_loop, async move {
        let (one, two, three) = futures::join!(sleep(ten), sleep(ten), sleep(ten));
        Ok([one, two, three].map(|slept| is_cancelled(&slept)))
    });
    assert_eq!(event_loop.run_until_complete(joined).unwrap(), [true, false, false]);
    let tried = cancelled_while_waiting(&event_loop, async {
        futures::try_join!(long(), long())?;
        Ok(())
    });
    tick(&event_loop);
    assert!(tried.cancelled());
    let biased = cancelled_while_waiting(&event_loop, async {
        let (mut one, mut two) = (long().fuse(), long().fuse());
        futures::select_biased! {
            first = one => Ok(is_cancelled(&first)),
            _ = two => Ok(false),
        }
    });
    tick(&event_loop);
    assert!(biased.result().unwrap());
    let selected = cancelled_while_waiting(&event_loop, async {
        let (mut one, mut two) = (long().fuse(), long().fuse());
        futures::select! {
            either = one => Ok(is_cancelled(&either)),
            or = two => Ok(is_cancelled(&or)),
        }
    });
    tick(&event_loop);
    assert!(selected.result().unwrap());
}

#[test]
fn exactly_one_child_of_futures_unordered_has_it() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let task = cancelled_while_waiting(&event_loop, async {
        let mut children: FuturesUnordered<_> = (0..5).map(|_| sleep(Duration::from_millis(10))).collect();
        let (mut cancelled, mut slept) = (0, 0);
        while let Some(outcome) = children.next().await {
            match outcome {
                Err(Error::Cancelled(_)) => cancelled += 1,
                other => {
                    other?;
                    slept += 1;
                }
            }
        }
        Ok((cancelled, slept))
    });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), (1, 4));
}

/// The last one that registered may have completed: the others are known as well.
#[test]
fn a_child_is_found_although_the_last_registrant_has_completed() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let task = event_loop.create_task(async {
        let delays = [3_600_000, 10, 20].map(Duration::from_millis);
        let mut children: FuturesUnordered<_> = delays.into_iter().map(sleep).collect();
        let mut seen = Vec::new();
        while let Some(outcome) = children.next().await {
            seen.push(is_cancelled(&outcome));
        }
        Ok(seen)
    });
    event_loop.run_until_complete(sleep(Duration::from_millis(100))).unwrap();
    assert!(task.cancel());
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), [false, false, true]);
}

#[test]
fn buffer_unordered_and_its_kin_hand_it_to_one_child() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let ten = Duration::from_millis(10);
    let task = cancelled_while_waiting(&event_loop, async move {
        let all: Vec<_> = stream::iter(0..6).map(|_| sleep(ten)).buffer_unordered(3).collect().await;
        Ok(all.iter().map(is_cancelled).collect::<Vec<_>>())
    });
    let seen = event_loop.run_until_complete(task).unwrap();
    assert_eq!(seen.iter().filter(|cancelled| **cancelled).count(), 1);
    assert!(seen[0], "it came first");
    let task = cancelled_while_waiting(&event_loop, async move {
        let all: Vec<_> = stream::iter(0..6).map(|_| sleep(ten)).buffered(3).collect().await;
        Ok(all.iter().filter(|slept| is_cancelled(slept)).count())
    });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 1);
}

#[test]
fn join_all_of_many_hands_it_to_one_child() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    // More than thirty, so that it works with a FuturesUnordered inside.
    let task = cancelled_while_waiting(&event_loop, async {
        let all = join_all((0..50).map(|_| sleep(Duration::from_millis(10)))).await;
        Ok(all.iter().filter(|outcome| is_cancelled(outcome)).count())
    });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 1);
}

#[test]
fn futures_in_futures_unordered_are_cancelled_one_at_a_time() {
    let event_loop = new_loop();
    let futures: Vec<_> = (0..3).map(|_| event_loop.create_future::<u8>()).collect();
    let children = futures.clone();
    let task = cancelled_while_waiting(&event_loop, async move {
        let mut children: FuturesUnordered<_> = children.into_iter().collect();
        let mut count = 0;
        while let Some(outcome) = children.next().await {
            assert!(is_cancelled(&outcome));
            count += 1;
        }
        Ok(count)
    });
    let cancelled = || futures.iter().filter(|future| future.cancelled()).count();
    assert_eq!(cancelled(), 1, "one is cancelled inside of cancel");
    for expected in 1..=3 {
        tick(&event_loop);
        assert_eq!(cancelled(), expected);
        task.cancel();
    }
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), 3);
}

#[test]
fn tasks_in_futures_unordered_are_cancelled_one_at_a_time() {
    let event_loop = new_loop();
    let tasks: Vec<_> = (0..3).map(|_| event_loop.create_task(long()).shared()).collect();
    let children = tasks.clone();
    let task = cancelled_while_waiting(&event_loop, async move {
        let mut children: FuturesUnordered<_> = children.into_iter().collect();
        children.next().await.unwrap()
    });
    assert_eq!(tasks.iter().map(|task| task.cancelling()).sum::<u32>(), 1);
    tick(&event_loop);
    tick(&event_loop);
    assert!(task.cancelled());
    assert_eq!(tasks.iter().filter(|task| task.cancelled()).count(), 1);
}

/// After the first of several has completed, the next one takes the cancellation.
#[test]
fn what_is_left_takes_it_when_the_first_is_over() {
    let event_loop = new_loop();
    for unordered in [false, true] {
        let futures: Vec<_> = (0..3).map(|_| event_loop.create_future::<u8>()).collect();
        let children = futures.clone();
        let task = event_loop.create_task(async move {
            if unordered {
                let mut children: FuturesUnordered<_> = children.into_iter().collect();
                let mut seen = Vec::new();
                while let Some(outcome) = children.next().await {
                    seen.push(is_cancelled(&outcome));
                }
                return Ok(seen);
            }
            Ok(join_all(children).await.iter().map(is_cancelled).collect())
        });
        tick(&event_loop);
        futures[0].set_result(0).unwrap();
        tick(&event_loop);
        task.cancel();
        tick(&event_loop);
        assert_eq!(futures[1..].iter().filter(|future| future.cancelled()).count(), 1, "unordered: {unordered}");
        for future in &futures[1..] {
            let _ = future.set_result(0);
        }
        tick(&event_loop);
        assert_eq!(task.result().unwrap().iter().filter(|cancelled| **cancelled).count(), 1);
    }
}

#[test]
fn a_foreign_channel_cannot_take_it_so_the_coroutine_is_dropped() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let (sender, receiver) = futures::channel::oneshot::channel::<u8>();
    let record = Record::default();
    let after = record.clone();
    let task = cancelled_while_waiting(&event_loop, async move {
        let _guard = guard;
        let got = receiver.await;
        after.push("after");
        got.map_err(Error::other)
    });
    tick(&event_loop);
    assert!(task.cancelled() && dropped.get() && sender.is_canceled());
    assert_eq!(record.len(), 0);
    let (_sender, mut receiver) = futures::channel::mpsc::channel::<u8>(1);
    let task = cancelled_while_waiting(&event_loop, async move { Ok(receiver.next().await) });
    tick(&event_loop);
    assert!(task.cancelled());
}

#[test]
fn cancellable_lets_a_foreign_wait_be_caught() {
    let event_loop = new_loop();
    let (sender, receiver) = futures::channel::oneshot::channel::<u8>();
    let task = cancelled_while_waiting(&event_loop, async move {
        let mut wait = Box::pin(cancellable(receiver));
        let first = wait.as_mut().await;
        // It can be polled again, to go on.
        let second = wait.await?;
        Ok((is_cancelled(&first), second.map_err(Error::other)?))
    });
    tick(&event_loop);
    assert!(!task.done());
    sender.send(7).unwrap();
    assert_eq!(event_loop.run_until_complete(task).unwrap(), (true, 7));
}

#[test]
fn cancellable_inside_futures_unordered_takes_it() {
    let event_loop = new_loop();
    let task = cancelled_while_waiting(&event_loop, async {
        let mut children: FuturesUnordered<_> = (0..3).map(|_| cancellable(std::future::pending::<()>())).collect();
        Ok(is_cancelled(&children.next().await.unwrap()))
    });
    tick(&event_loop);
    assert!(task.result().unwrap());
}

#[test]
fn join_of_a_foreign_future_and_a_leaf_lives_until_the_second_cancel() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let record = Record::default();
    let seen = record.clone();
    let task = cancelled_while_waiting(&event_loop, async move {
        let _guard = guard;
        let foreign = std::future::pending::<()>();
        let leaf = async {
            seen.push(is_cancelled(&long().await));
        };
        join(foreign, leaf).await;
        Ok(())
    });
    for _ in 0..3 {
        tick(&event_loop);
    }
    assert_eq!(record.take(), [true], "the leaf took it");
    assert!(!task.done() && !dropped.get());
    task.cancel();
    tick(&event_loop);
    assert!(task.cancelled() && dropped.get());
}

/// "Leaf polled again after Cancelled just keeps waiting": the state is kept.
#[test]
fn a_leaf_that_gave_the_cancellation_goes_on_waiting() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let begin = event_loop.time();
    let task = cancelled_while_waiting(&event_loop, async {
        let mut sleeping = std::pin::pin!(sleep(Duration::from_millis(50)));
        let mut cancels = 0;
        loop {
            match sleeping.as_mut().await {
                Err(Error::Cancelled(_)) => cancels += 1,
                other => return other.map(|()| cancels),
            }
        }
    });
    tick(&event_loop);
    task.cancel();
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 2);
    assert_eq!(event_loop.time() - begin, Duration::from_millis(50));
}

/// A leaf polled under a waker that is not the task's, at several depths.
#[test]
fn nested_combinators_find_the_leaf() {
    let event_loop = new_loop();
    let task = cancelled_while_waiting(&event_loop, async {
        let inner: FuturesUnordered<_> = (0..2).map(|_| long().boxed_local()).collect();
        let mut outer: FuturesUnordered<_> = FuturesUnordered::new();
        outer.push(async move { inner.collect::<Vec<_>>().await.len() }.map(asyncio::ok).boxed_local());
        let foreign = std::future::pending::<asyncio::Result<usize>>();
        outer.push(foreign.boxed_local());
        // The first child swallows one; a second is needed for the other sleep.
        outer.next().await.unwrap()
    });
    tick(&event_loop);
    tick(&event_loop);
    assert!(!task.done());
    task.cancel();
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(task.result().unwrap(), 2);
}

/// What was moved out of one combinator into another is found where it is now.
#[test]
fn a_leaf_that_changes_its_waker_is_found_at_the_last() {
    let event_loop = new_loop();
    for unordered_first in [true, false] {
        let task = cancelled_while_waiting(&event_loop, async move {
            let sleeping = Rc::new(std::cell::RefCell::new(Box::pin(long())));
            let poll = |sleeping: Rc<std::cell::RefCell<std::pin::Pin<Box<asyncio::Sleep>>>>| {
                std::future::poll_fn(move |cx| sleeping.borrow_mut().as_mut().poll(cx))
            };
            let children: FuturesUnordered<_> = [poll(sleeping.clone())].into_iter().collect();
            let mut children = Box::pin(children);
            if unordered_first {
                assert!(children.next().now_or_never().is_none());
                drop(children);
                return Ok(is_cancelled(&poll(sleeping).await));
            }
            assert!(poll(sleeping).now_or_never().is_none());
            Ok(is_cancelled(&children.next().await.unwrap()))
        });
        tick(&event_loop);
        assert!(task.result().unwrap(), "unordered first: {unordered_first}");
    }
}

#[test]
fn the_mark_of_one_task_is_not_taken_by_another() {
    let event_loop = new_loop();
    let (marked, other) = (event_loop.create_task(std::future::pending::<asyncio::Result<()>>()), {
        let gate = Gate::default();
        let opener = gate.clone();
        event_loop.call_soon(move || opener.open());
        event_loop.create_task(async move {
            let (slept, ()) = join(sleep(Duration::ZERO), gate).await;
            slept
        })
    });
    tick(&event_loop);
    marked.cancel();
    tick(&event_loop);
    tick(&event_loop);
    assert!(marked.cancelled());
    other.result().unwrap();
}

/// A cancelled sibling that is polled in place, nested in a task of its own kind: an eager task inside a step.
#[test]
fn an_eager_child_does_not_take_its_creators_mark() {
    let event_loop = new_loop();
    event_loop.set_task_factory(Some(asyncio::eager_task_factory()));
    let task = event_loop.create_task(async {
        asyncio::current_task()?.unwrap().cancel_with("creator");
        let child = create_task(async {
            let mut sleeping = Box::pin(sleep(Duration::from_millis(1)));
            assert!(sleeping.as_mut().now_or_never().is_none());
            sleeping.await?;
            Ok("unharmed")
        });
        let own = sleep(Duration::from_secs(60)).await;
        assert_eq!(failure(own), (ErrorKind::Cancelled, "creator".into()));
        child.await
    });
    assert_eq!(event_loop.run_until_complete(task).unwrap(), "unharmed");
}

/// Callbacks and wakers that cancel while a cancel is under way.
#[test]
fn a_done_callback_may_cancel_other_tasks() {
    let event_loop = new_loop();
    let victims: Rc<Vec<Task<()>>> = Rc::new((0..3).map(|_| event_loop.create_task(long())).collect());
    let count = Rc::new(Cell::new(0));
    for (index, victim) in victims.iter().enumerate() {
        let (all, count) = (victims.clone(), count.clone());
        victim.add_done_callback(move |_| {
            count.set(count.get() + 1);
            if let Some(next) = all.get(index + 1) {
                assert!(next.cancel());
            }
        });
    }
    tick(&event_loop);
    victims[0].cancel();
    for _ in 0..6 {
        tick(&event_loop);
    }
    assert_eq!(count.get(), 3);
    assert!(victims.iter().all(Task::cancelled));
}
