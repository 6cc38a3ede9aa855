//! Cancelling and dropping a gathering.

use std::{
    cell::{Cell, RefCell},
    future::Future as StdFuture,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use asyncio::{AnyTask, Error, ErrorKind, Future, Gathering, Result, TaskGroup, create_task, gather, sleep, timeout};
use futures::{StreamExt, future, stream::FuturesUnordered};

use crate::{
    FOREVER, MS, SECOND, after, assert_cancelled, assert_error, error, fails, run,
    support::{Gate, Record, failure},
    turns,
};

/// GATH-005
#[test]
fn cancelling_who_awaits_cancels_all_children() {
    run(async {
        let inner = || async { sleep(FOREVER).await };
        let children = [create_task(inner()), create_task(inner())];
        let known = [children[0].any(), children[1].any()];
        let outer = create_task(async move {
            let [child1, child2] = children;
            let mut gathering = gather((child1, child2)).start();
            let outcome = (&mut gathering).await;
            assert!(!gathering.cancel(), "it is over");
            outcome
        });
        turns(2).await?;
        assert!(outer.cancel());
        assert_eq!(known.each_ref().map(AnyTask::cancelling), [1, 1]);
        let mut outer = outer;
        assert_cancelled((&mut outer).await);
        assert!(outer.cancelled() && !outer.cancel());
        assert!(known.iter().all(AnyTask::cancelled));
        Ok(())
    });
}

/// GATH-007
#[test]
fn a_gathering_whose_children_are_all_done_takes_no_cancellation() {
    run(async {
        let child = Future::new();
        let all = gather((child.clone(),)).start();
        turns(1).await?;
        child.set_result(42)?;
        assert!(!all.done() && !all.cancel());
        assert_eq!(all.await?, (42,));
        // With the errors as results, and of a task.
        let task = create_task(after(1, 42));
        let any = task.any();
        let all = gather(vec![task]).return_exceptions().start();
        while !any.done() {
            turns(1).await?;
            sleep(MS).await?;
        }
        assert!(!all.cancel());
        assert_eq!(all.await?.pop().unwrap()?, 42);
        Ok(())
    });
}

/// GATH-008
#[test]
fn a_gathering_that_has_failed_takes_no_cancellation() {
    run(async {
        let other = create_task(after(5, "other")).shared();
        let all = gather((fails::<()>(1, "E"), other.clone())).start();
        sleep(MS * 2).await?;
        assert!(all.done());
        assert!(!all.cancel() && !all.cancel_with("late"));
        assert_eq!(other.cancelling(), 0);
        assert_error(all.await, "E");
        assert_eq!(other.await?, "other");
        Ok(())
    });
}

/// GATH-009
#[test]
fn a_requested_cancellation_wins_over_results() {
    for swallowers in 1..=2 {
        for by_task in [false, true] {
            let child = move |index: u32| async move {
                match sleep(FOREVER).await {
                    Err(Error::Cancelled(_)) if index < swallowers => Ok(1),
                    Err(error) => Err(error),
                    Ok(()) => Ok(0),
                }
            };
            run(async move {
                let plain = gather((child(0), child(1))).start();
                let results = gather(vec![child(0), child(1)]).return_exceptions().start();
                if by_task {
                    let tasks = (create_task(plain), create_task(results));
                    turns(3).await?;
                    assert!(tasks.0.cancel() && tasks.1.cancel());
                    assert_cancelled(tasks.0.await);
                    assert_cancelled(tasks.1.await);
                } else {
                    turns(2).await?;
                    assert!(plain.cancel() && results.cancel());
                    turns(5).await?;
                    assert!(plain.cancelled() && results.cancelled());
                    assert_cancelled(plain.await);
                    assert_cancelled(results.await);
                }
                Ok(())
            });
        }
    }
}

/// The message goes to the children, and comes back.
#[test]
fn a_cancellations_message_reaches_the_children() {
    run(async {
        let messages = Record::default();
        let child = || {
            let messages = messages.clone();
            async move {
                let outcome = sleep(FOREVER).await;
                if let Err(Error::Cancelled(cancelled)) = &outcome {
                    messages.push(cancelled.message.as_ref().map(ToString::to_string));
                }
                outcome
            }
        };
        let all = gather((child(), child())).start();
        turns(2).await?;
        assert!(all.cancel_with("enough"));
        match all.await {
            Err(Error::Cancelled(cancelled)) => assert_eq!(cancelled.message.as_deref(), Some("enough")),
            other => panic!("{other:?}"),
        }
        let outer = create_task(gather((child(), child())).into_future());
        turns(3).await?;
        assert!(outer.cancel_with("outer"));
        match outer.await {
            Err(Error::Cancelled(cancelled)) => assert_eq!(cancelled.message.as_deref(), Some("outer")),
            other => panic!("{other:?}"),
        }
        turns(2).await?;
        let expected = ["enough", "enough", "outer", "outer"].map(|text| Some(text.to_owned()));
        assert_eq!(messages.take(), expected);
        Ok(())
    });
}

/// A way to await a gathering.
type Awaits = fn(Gathering<((), (), u8)>) -> Pin<Box<dyn StdFuture<Output = Result<()>>>>;

/// The ways to await one gathering, alone or among others.
fn ways() -> Vec<(&'static str, Awaits)> {
    vec![
        ("plain", |all| Box::pin(async { all.await.map(drop) })),
        ("boxed", |all| Box::pin(async { Box::pin(all).await.map(drop) })),
        ("join", |all| Box::pin(async { future::try_join(all, sleep(FOREVER)).await.map(drop) })),
        ("join last", |all| Box::pin(async { future::try_join(never(), all).await.map(drop) })),
        ("select", |all| {
            Box::pin(async {
                futures::select_biased! {
                    outcome = futures::FutureExt::fuse(all) => outcome.map(drop),
                    () = futures::FutureExt::fuse(std::future::pending::<()>()) => Ok(()),
                }
            })
        }),
        ("unordered", |all| {
            Box::pin(async {
                let mut set = FuturesUnordered::new();
                set.push(future::Either::Left(all));
                set.push(future::Either::Right(std::future::pending()));
                set.next().await.unwrap().map(drop)
            })
        }),
        ("nested", |all| Box::pin(async { gather((all, sleep(FOREVER))).await.map(drop) })),
        ("in a task", |all| Box::pin(async { create_task(all).await.map(drop) })),
        ("limited", |all| Box::pin(async { timeout(FOREVER, all).await.map(drop) })),
        ("in a group", |all| {
            Box::pin(async {
                let outcome = TaskGroup::scope(async |_| all.await.map(drop)).await;
                match outcome {
                    Err(error) if error.group().is_some() => Err(error.group().unwrap().exceptions()[0].clone()),
                    other => other,
                }
            })
        }),
    ]
}

/// A foreign future that never ends.
async fn never() -> Result<()> {
    Gate::default().await;
    Ok(())
}

/// A cancellation reaches every child that has not ended, whenever it comes and however the gathering is awaited.
#[test]
fn a_cancellation_reaches_all_children_at_every_point() {
    for (name, way) in ways() {
        for point in 0..10 {
            run(async move {
                let told = Rc::new(Cell::new(0));
                let child = |told: &Rc<Cell<u32>>| {
                    let told = told.clone();
                    async move {
                        let outcome = sleep(FOREVER).await;
                        told.set(told.get() + u32::from(outcome.is_err()));
                        outcome
                    }
                };
                let given = create_task(child(&told));
                let (any, future) = (given.any(), Future::<u8>::new());
                let all = gather((child(&told), given, future.clone())).start();
                let task = create_task(way(all));
                turns(point).await?;
                let running = asyncio::all_tasks()?.len();
                assert!(task.cancel(), "{name} {point}");
                let outcome = task.await;
                assert!(outcome.as_ref().is_err_and(Error::is_cancelled), "{name} {point}: {outcome:?}");
                turns(3).await?;
                // Who is cancelled before the first step drops the gathering: that cancels what it made only.
                let dropped = point == 0 || (point == 1 && ["nested", "in a task"].contains(&name));
                if dropped {
                    assert!(!any.done() && !future.done(), "{name} {point}");
                    any.cancel();
                    turns(3).await?;
                } else {
                    assert!(any.cancelled() && future.cancelled(), "{name} {point}");
                    assert!(told.get() == 2 || point < 2, "{name} {point} {running}");
                }
                Ok(())
            });
        }
    }
}

/// A timeout is a cancellation of the children, and becomes a timeout of whoever awaits.
#[test]
fn a_timeout_cancels_the_children() {
    let (_, took) = run(async {
        let given = create_task(sleep(FOREVER));
        let any = given.any();
        let limited = timeout(MS * 3, gather((sleep(FOREVER), given))).await;
        assert_eq!(failure(limited).0, ErrorKind::Timeout);
        assert!(any.cancelled());
        let slow = create_task(async {
            assert_cancelled(sleep(FOREVER).await);
            after(10, ()).await
        });
        let results = timeout(MS * 3, gather((slow, sleep(FOREVER))).return_exceptions()).await;
        assert_eq!(failure(results).0, ErrorKind::Timeout);
        Ok(())
    });
    assert_eq!(took, MS * 16, "with the errors as results it waits for all");
}

/// Only children that have not ended are told, and one that is given twice is asked twice, as in CPython.
#[test]
fn those_that_have_ended_are_not_told() {
    run(async {
        let (done, future) = (create_task(after(1, 1)).shared(), Future::<u8>::new().shared());
        let twice = create_task(after(9, 2)).shared();
        let all = gather((done.clone(), twice.clone(), twice.clone(), future.clone())).start();
        sleep(MS * 2).await?;
        assert!(all.cancel());
        assert_eq!((done.cancelling(), twice.cancelling()), (0, 2));
        assert_cancelled(all.await);
        assert_eq!(done.await?, 1);
        assert!(twice.cancelled() && future.cancelled());
        Ok(())
    });
}

/// It fails with the first child that ends as cancelled; the others have been told and end by themselves.
#[test]
fn a_cancelled_gathering_ends_with_the_first_cancelled_child() {
    let (_, took) = run(async {
        let slow = create_task(async {
            assert_cancelled(sleep(FOREVER).await);
            sleep(MS * 7).await?;
            Err::<(), _>(Error::cancelled())
        });
        let any = slow.any();
        let all = gather((slow, sleep(FOREVER))).start();
        turns(2).await?;
        all.cancel();
        assert_cancelled(all.await);
        assert!(!any.done());
        assert_cancelled(any.await);
        Ok(())
    });
    assert_eq!(took, MS * 7);
}

/// All swallow: the gathering waits for all, and is cancelled.
#[test]
fn children_that_take_their_time_are_waited_for() {
    let (_, took) = run(async {
        let stubborn = |millis| async move {
            assert_cancelled(sleep(FOREVER).await);
            after(millis, millis).await
        };
        let task = create_task(gather(vec![stubborn(3), stubborn(9), stubborn(6)]).into_future());
        turns(3).await?;
        task.cancel();
        assert_cancelled(task.await);
        Ok(())
    });
    assert_eq!(took, MS * 9);
}

/// Cancelled again and again, each is passed on.
#[test]
fn every_cancellation_is_passed_on() {
    run(async {
        let count = Rc::new(Cell::new(0));
        let counter = count.clone();
        let stubborn = async move {
            while counter.get() < 3 {
                assert_cancelled(sleep(FOREVER).await);
                counter.set(counter.get() + 1);
            }
            Ok(())
        };
        let task = create_task(gather((stubborn,)).into_future());
        turns(3).await?;
        for expected in 1..=3 {
            assert!(task.cancel());
            turns(3).await?;
            assert_eq!(count.get(), expected);
        }
        assert_cancelled(task.await);
        Ok(())
    });
}

/// The children are done and the gathering has not been told: the cancellation is the task's, as in CPython.
#[test]
fn a_cancellation_that_no_child_takes_is_delivered_to_who_awaits() {
    run(async {
        let child = Future::new().shared();
        let given = child.clone();
        let task = create_task(async move {
            let mut all = gather((given,)).start();
            assert_cancelled((&mut all).await);
            // It was not cancelled itself: its results are there.
            assert_eq!(all.await?, (42,));
            Ok("went on")
        });
        turns(2).await?;
        child.set_result(42)?;
        assert!(task.cancel());
        assert_eq!(task.await?, "went on");
        Ok(())
    });
}

/// The gathering is over, the awaiting task has been woken and not run.
#[test]
fn a_cancellation_between_the_end_and_the_await_is_delivered() {
    run(async {
        let child = Future::new().shared();
        let task = create_task(gather((child.clone(),)).into_future());
        turns(2).await?;
        child.set_result(42)?;
        turns(1).await?;
        assert!(task.cancel());
        assert_cancelled(task.await);
        Ok(())
    });
}

/// `uncancel` and the count of the awaiting task behave as with any await.
#[test]
fn a_swallowed_cancellation_lets_the_task_go_on() {
    run(async {
        let task = create_task(async {
            assert_cancelled(gather((sleep(FOREVER), sleep(FOREVER))).await);
            let me = asyncio::current_task()?.unwrap();
            assert_eq!((me.cancelling(), me.uncancel()), (1, 0));
            gather((after(1, "a"), after(2, "b"))).await
        });
        turns(2).await?;
        task.cancel();
        assert_eq!(task.await?, ("a", "b"));
        Ok(())
    });
}

#[test]
fn a_drop_midway_cancels_what_was_made_and_not_what_was_given() {
    run(async {
        let log = Record::default();
        let noted = |name: &'static str| {
            let log = log.clone();
            async move {
                let outcome = sleep(SECOND).await;
                log.push((name, outcome.is_ok()));
                outcome
            }
        };
        let (given, shared) = (create_task(noted("given")), create_task(noted("shared")).shared());
        let (any, future) = (given.any(), Future::<u8>::new());
        let all = gather((noted("made"), given, shared.clone(), future.clone(), noted("made too"))).start();
        turns(2).await?;
        drop(all);
        assert!(!any.done() && any.cancelling() == 0 && shared.cancelling() == 0 && !future.done());
        turns(2).await?;
        assert_eq!(log.take(), [("made", false), ("made too", false)]);
        any.await?;
        shared.await?;
        assert_eq!(log.take(), [("given", true), ("shared", true)]);
        Ok(())
    });
}

/// What was made and has not begun never does.
#[test]
fn a_drop_before_the_first_iteration_never_polls() {
    run(async {
        let polled = Rc::new(Cell::new(false));
        let seen = polled.clone();
        let all = gather((async move {
            seen.set(true);
            Ok(())
        },))
        .start();
        drop(all);
        turns(3).await?;
        assert!(!polled.get());
        Ok(())
    });
}

/// A task that is dropped with its gathering takes what it made along.
#[test]
fn a_gathering_that_goes_with_its_owner_cancels_what_it_made() {
    run(async {
        let ended = Rc::new(Cell::new(0));
        let child = || {
            let ended = ended.clone();
            async move {
                let outcome = sleep(FOREVER).await;
                ended.set(ended.get() + 1);
                outcome
            }
        };
        {
            let all = gather((child(), child())).start();
            assert!(futures::poll!(Box::pin(all)).is_pending());
        }
        turns(1).await?;
        assert_eq!(ended.get(), 0, "they had not begun");
        let (first, second) = (child(), child());
        let mut waits = Box::pin(async move { gather((first, second)).await });
        assert!(futures::poll!(&mut waits).is_pending());
        turns(2).await?;
        drop(waits);
        turns(2).await?;
        assert_eq!(ended.get(), 2);
        Ok(())
    });
}

/// In a nest of gatherings the innermost children are told.
#[test]
fn a_nest_is_cancelled_to_the_ground() {
    run(async {
        let children = [0; 3].map(|_| create_task(sleep(FOREVER)));
        let known = children.each_ref().map(asyncio::Task::any);
        let [a, b, c] = children;
        let task = create_task(gather((gather((gather((a,)), b)), c)).into_future());
        turns(6).await?;
        task.cancel();
        assert_cancelled(task.await);
        turns(5).await?;
        assert!(known.iter().all(AnyTask::cancelled));
        Ok(())
    });
}

/// A gathering under way can change hands; it is the one who awaits now that cancels it.
#[test]
fn a_gathering_moves_from_task_to_task() {
    run(async {
        let child = create_task(sleep(FOREVER));
        let any = child.any();
        let mut all = gather((child, after(100, ()))).start();
        assert!(futures::poll!(&mut all).is_pending());
        let task = create_task(all);
        turns(2).await?;
        assert!(!any.done());
        task.cancel();
        assert_cancelled(task.await);
        assert!(any.cancelled());
        assert_eq!(asyncio::current_task()?.unwrap().cancelling(), 0);
        Ok(())
    });
}

/// A cancellation from another thread goes the same way.
#[test]
fn a_cancellation_from_another_thread_reaches_the_children() {
    let _deadline = crate::support::deadline();
    let event_loop = crate::support::new_loop();
    event_loop
        .run_until_complete(async {
            let child = create_task(sleep(FOREVER));
            let any = child.any();
            let task = create_task(async {
                let outcome = gather((child, sleep(FOREVER))).await.map(drop);
                assert_cancelled(outcome);
                Ok(())
            });
            turns(3).await?;
            let task = std::thread::spawn(move || {
                assert!(task.cancel());
                task
            })
            .join()
            .unwrap();
            task.await?;
            assert!(any.cancelled());
            Ok(())
        })
        .unwrap();
}

/// A waker that runs as a cancellation passes may drop the gathering that passes it on.
#[test]
fn a_gathering_may_be_dropped_by_a_waker_that_its_cancellation_calls() {
    // Wakers are `Send`; what is dropped is not, and stays on this thread.
    thread_local! {
        static VICTIM: RefCell<Option<Pin<Box<dyn StdFuture<Output = Result<(u8, u8)>>>>>> = RefCell::default();
    }
    struct Drops;
    impl Wake for Drops {
        fn wake(self: Arc<Self>) {
            let victim = VICTIM.with(|victim| victim.try_borrow_mut().ok().and_then(|mut victim| victim.take()));
            drop(victim);
        }
    }
    run(async {
        let [a, b] = std::array::from_fn(|_| Future::<u8>::new());
        let (mut other, all) = (a.clone(), gather((a.clone(), b.clone())).start());
        VICTIM.set(Some(Box::pin(all)));
        let waker = Waker::from(Arc::new(Drops));
        let cx = &mut Context::from_waker(&waker);
        assert!(Pin::new(&mut other).poll(cx).is_pending());
        let gate = Gate::default();
        let opened = gate.clone();
        let task = create_task(async move {
            let victim = future::poll_fn(|cx| {
                VICTIM.with(|victim| match victim.borrow_mut().as_mut() {
                    Some(all) => all.as_mut().poll(cx),
                    None => Poll::Ready(Err(error("it is gone"))),
                })
            });
            future::select(opened, victim).await;
            Ok(())
        });
        turns(1).await?;
        assert!(task.cancel());
        assert!(a.cancelled() && b.cancelled());
        assert!(VICTIM.with(|victim| victim.borrow().is_none()));
        gate.open();
        task.await
    });
}
