//! Limits beside other things in one task.

use std::{cell::Cell, rc::Rc};

use asyncio::{ErrorKind, Result, Timeout, cancellable, create_task, get_running_loop, sleep, timeout};
use futures::{
    StreamExt,
    future::{Either, join, join_all, select, try_join},
    stream::FuturesUnordered,
};

use crate::{
    HOUR, MS, SECOND, kind, now, own, run,
    support::{Gate, drop_guard},
};

const TIMEOUT: Option<ErrorKind> = Some(ErrorKind::Timeout);

#[test]
fn a_sibling_under_join_is_not_touched() {
    run(async {
        let begin = now();
        let (late, sibling) = join(timeout(10 * MS, sleep(HOUR)), sleep(50 * MS)).await;
        assert_eq!((kind(&late), kind(&sibling)), (TIMEOUT, None));
        assert_eq!(now() - begin, 50 * MS);
        // On either side, and by both macros.
        let (sibling, late) = join(sleep(50 * MS), timeout(10 * MS, sleep(HOUR))).await;
        assert_eq!((kind(&late), kind(&sibling)), (TIMEOUT, None));
        let (sibling, late, other) =
            futures::join!(sleep(50 * MS), timeout(10 * MS, sleep(HOUR)), timeout(20 * MS, sleep(HOUR)));
        assert_eq!((kind(&late), kind(&other), kind(&sibling)), (TIMEOUT, TIMEOUT, None));
        let (sibling, late) = tokio::join!(sleep(50 * MS), timeout(10 * MS, sleep(HOUR)));
        assert_eq!((kind(&late), kind(&sibling)), (TIMEOUT, None));
        assert_eq!((now() - begin, own().cancelling()), (200 * MS, 0));
        Ok(())
    });
}

/// A sibling that waits for a future or a task is not what a limit's cancellation is forwarded to.
#[test]
fn what_a_sibling_waits_for_is_not_cancelled() {
    run(async {
        let event_loop = get_running_loop()?;
        for limit_first in [true, false] {
            let (one, other) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
            let task = create_task(async { sleep(50 * MS).await.map(|()| 1) });
            let sets = other.clone();
            event_loop.call_later(40 * MS, move || _ = sets.set_result(2));
            let late = timeout(10 * MS, async { (&one).await });
            let (late, sibling) = if limit_first {
                join(late, join(other, task)).await
            } else {
                let (sibling, late) = join(join(other, task), late).await;
                (late, sibling)
            };
            assert_eq!(kind(&late), TIMEOUT);
            assert_eq!((sibling.0?, sibling.1?), (2, 1));
            assert!(one.cancelled());
        }
        Ok(())
    });
}

#[test]
fn a_limit_that_passes_under_try_join_drops_the_sibling() {
    run(async {
        let (guard, dropped) = drop_guard();
        let sibling = async move {
            let _guard = guard;
            sleep(HOUR).await
        };
        assert_eq!(kind(&try_join(timeout(10 * MS, sleep(HOUR)), sibling).await), TIMEOUT);
        assert!(dropped.get());
        assert_eq!(get_running_loop()?.next_deadline(), None);
        let (one, two) = try_join(timeout(10 * MS, sleep(MS)), timeout(10 * MS, sleep(2 * MS))).await?;
        assert_eq!((one, two), ((), ()));
        Ok(())
    });
}

#[test]
fn a_limit_that_loses_a_select_is_gone() {
    run(async {
        let winner = async {
            sleep(MS).await?;
            asyncio::ok("winner")
        };
        let limited = timeout(10 * MS, async { sleep(HOUR).await.map(|()| "loser") });
        match select(Box::pin(limited), Box::pin(winner)).await {
            Either::Right((winner, loser)) => {
                assert_eq!(winner?, "winner");
                // It can go on, and its time does.
                let begin = now();
                assert_eq!(kind(&loser.await), TIMEOUT);
                assert_eq!(now() - begin, 9 * MS);
            }
            Either::Left(_) => panic!("the limit won"),
        }
        let limited = timeout(10 * MS, sleep(HOUR));
        tokio::select! {
            _ = limited => panic!("the limit won"),
            slept = sleep(MS) => slept?,
        }
        assert_eq!(get_running_loop()?.next_deadline(), None);
        tokio::select! {
            late = timeout(MS, sleep(HOUR)) => assert_eq!(kind(&late), TIMEOUT),
            _ = sleep(10 * MS) => panic!("the sleep won"),
        }
        assert_eq!((own().cancelling(), get_running_loop()?.next_deadline()), (0, None));
        Ok(())
    });
}

#[test]
fn each_of_many_children_has_its_own_limit() {
    run(async {
        let begin = now();
        let children: FuturesUnordered<_> = (1..=20_u32)
            .map(|number| async move {
                let outcome = timeout(number * MS, sleep(if number % 2 == 0 { HOUR } else { MS / 2 })).await;
                (number, kind(&outcome), now())
            })
            .collect();
        let ended: Vec<_> = children.collect().await;
        assert_eq!(ended.len(), 20);
        for (number, outcome, at) in ended {
            match number % 2 {
                0 => assert_eq!((outcome, at - begin), (TIMEOUT, number * MS)),
                _ => assert_eq!((outcome, at - begin), (None, MS / 2)),
            }
        }
        Ok(())
    });
}

/// In a set that polls only what was woken, nobody else is told of the end of one's limit.
#[test]
fn the_right_child_is_told() {
    run(async {
        let told = Rc::new(Cell::new(0));
        let mut children = FuturesUnordered::new();
        for number in 0..5_u32 {
            let told = told.clone();
            children.push(async move {
                let limit = if number == 3 { 10 * MS } else { HOUR };
                let outcome = timeout(limit, async {
                    let slept = sleep(20 * MS).await;
                    told.set(told.get() + u32::from(slept.is_err()));
                    slept
                });
                (number, kind(&outcome.await))
            });
        }
        assert_eq!(children.next().await, Some((3, TIMEOUT)));
        assert_eq!(told.get(), 1);
        while let Some((_, outcome)) = children.next().await {
            assert_eq!(outcome, None);
        }
        assert_eq!(told.get(), 1);
        Ok(())
    });
}

/// As a task's cancellation: one of the awaits takes it, the others go on.
#[test]
fn a_limit_around_a_join_tells_the_first() {
    run(async {
        let begin = now();
        let joined = timeout(10 * MS, async {
            let (one, two, three) = futures::join!(sleep(50 * MS), sleep(30 * MS), sleep(40 * MS));
            Ok([one, two, three].map(|slept| slept.is_err()))
        });
        assert_eq!(joined.await?, [true, false, false]);
        assert_eq!(now() - begin, 40 * MS);
        let joined = timeout(10 * MS, async {
            let all = join_all((0..10).map(|_| sleep(50 * MS))).await;
            all.into_iter().collect::<Result<Vec<()>>>()
        });
        assert_eq!(kind(&joined.await), TIMEOUT);
        let joined = timeout(10 * MS, async {
            futures::try_join!(sleep(HOUR), sleep(HOUR), sleep(HOUR))?;
            Ok(())
        });
        let begin = now();
        assert_eq!(kind(&joined.await), TIMEOUT);
        assert_eq!((now() - begin, get_running_loop()?.next_deadline()), (10 * MS, None));
        Ok(())
    });
}

/// A foreign future beside one of ours: ours takes it.
#[test]
fn a_limit_around_ours_and_a_foreign_future() {
    run(async {
        for ours_first in [true, false] {
            let gate = Gate::default();
            let opens = gate.clone();
            let outcome = timeout(10 * MS, async {
                let ours = async {
                    let slept = sleep(HOUR).await;
                    opens.open();
                    slept
                };
                match ours_first {
                    true => join(ours, gate.clone()).await.0,
                    false => join(gate.clone(), ours).await.1,
                }
            });
            assert_eq!(kind(&outcome.await), TIMEOUT);
            assert!(gate.polls() >= 2, "it went on");
        }
        Ok(())
    });
}

/// Several limits in one task whose bodies are foreign: each gives up its own.
#[test]
fn limits_of_foreign_siblings_are_apart() {
    run(async {
        let (first, first_dropped) = drop_guard();
        let (second, second_dropped) = drop_guard();
        let body = |guard| async move {
            let _guard = guard;
            std::future::pending::<Result<()>>().await
        };
        let sees = (first_dropped.clone(), second_dropped.clone());
        let (one, two, ()) = futures::join!(timeout(10 * MS, body(first)), timeout(20 * MS, body(second)), async {
            sleep(15 * MS).await.unwrap();
            assert_eq!((sees.0.get(), sees.1.get()), (true, false));
        });
        assert_eq!((kind(&one), kind(&two)), (TIMEOUT, TIMEOUT));
        assert!(first_dropped.get() && second_dropped.get());
        Ok(())
    });
}

/// The task is cancelled while two limits run side by side: one is told, the other goes on.
#[test]
fn a_cancelled_task_with_two_limits() {
    run(async {
        let begin = now();
        let task = create_task(async {
            let (one, two) = join(timeout(HOUR, sleep(20 * MS)), timeout(10 * MS, sleep(HOUR))).await;
            Ok((kind(&one), two.is_err(), own().cancelling()))
        });
        sleep(MS).await?;
        task.cancel();
        assert_eq!(task.await?, (Some(ErrorKind::Cancelled), true, 1));
        assert_eq!(now() - begin, 10 * MS);
        Ok(())
    });
}

/// Limits inside of limits inside of sets.
#[test]
fn sets_of_sets() {
    run(async {
        let begin = now();
        let outer: FuturesUnordered<_> = (1..=5_u32)
            .map(|outer| {
                timeout(outer * 10 * MS, async move {
                    let mut inner: FuturesUnordered<_> =
                        (1..=5_u32).map(|inner| timeout(inner * 7 * MS, sleep(HOUR))).collect();
                    let mut late = 0;
                    while let Some(outcome) = inner.next().await {
                        match outcome {
                            Err(error) if error.kind() == ErrorKind::Timeout => late += 1,
                            other => other?,
                        }
                    }
                    Ok(late)
                })
            })
            .collect();
        let outcomes: Vec<_> = outer.collect().await;
        // 35 ms are needed: the limits of 10, 20 and 30 pass before.
        let late = outcomes.iter().filter(|outcome| kind(outcome) == TIMEOUT).count();
        let done = outcomes.iter().filter(|outcome| matches!(outcome, Ok(5))).count();
        assert_eq!((late, done), (3, 2));
        assert_eq!(now() - begin, 35 * MS);
        Ok(())
    });
}

/// One of the children of a set inside of the limit takes it.
#[test]
fn a_limit_around_a_set() {
    run(async {
        let limit = Timeout::new(10 * MS);
        let begin = now();
        let outcome = limit
            .scope(async |_| {
                let mut children: FuturesUnordered<_> =
                    (0..10).map(|_| cancellable(std::future::pending::<()>())).collect();
                while let Some(ended) = children.next().await {
                    ended?;
                }
                Ok(())
            })
            .await;
        assert_eq!(kind(&outcome), TIMEOUT);
        assert_eq!((now() - begin, own().cancelling()), (10 * MS, 0));
        timeout(SECOND, sleep(MS)).await
    });
}
