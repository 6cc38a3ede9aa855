//! Groups together with what else awaits: shields, joins, sets, gathers, generators of wakers.

use std::{pin::pin, time::Duration};

use asyncio::{Result, TaskGroup, create_task, gather, shield, shielded, sleep, timeout};
use futures::{StreamExt, future::join, stream::FuturesUnordered};

use crate::{
    clean_up_for, counted, fail_after, fail_in_clean_up, for_ever, ms, run, shown,
    support::{Record, drop_guard},
    this_task,
};

/// A cancellation waits until the section has ended; it is not the group's.
#[test]
fn a_group_in_a_shielded_section_does_not_see_cancellations() {
    for in_body in [true, false] {
        run(async {
            let record = Record::default();
            let seen = record.clone();
            let task = create_task(async move {
                let result = shielded(TaskGroup::scope(async |group| {
                    let record = seen.clone();
                    group.create_task(async move {
                        record.push(shown(&sleep(ms(50)).await));
                        Ok(())
                    });
                    if in_body {
                        seen.push(shown(&sleep(ms(60)).await));
                    }
                    Ok(7)
                }))
                .await;
                assert_eq!(result?, 7);
                sleep(ms(1)).await
            });
            sleep(ms(10)).await?;
            task.cancel_with("ext");
            sleep(ms(10)).await?;
            assert!(!task.done());
            assert_eq!(shown(&task.await), "cancelled ext");
            assert!(record.take().iter().all(|how| how == "ok"));
            Ok(())
        });
    }
}

/// Its own failures work inside, and the cancellation that waits outside keeps its message.
#[test]
fn a_group_in_a_shielded_section_fails_as_ever() {
    for (in_body, swallows) in [(true, true), (true, false), (false, true)] {
        run(async {
            let task = create_task(async move {
                let result = shielded(TaskGroup::scope(async |group| {
                    group.create_task(fail_after(20, "E"));
                    group.create_task(clean_up_for(10));
                    if !in_body {
                        return Ok(());
                    }
                    let outcome = for_ever().await;
                    assert_eq!(shown(&outcome), "cancelled", "by the group");
                    if swallows { Ok(()) } else { outcome }
                }))
                .await;
                assert_eq!(shown(&result), "[E]");
                sleep(ms(1)).await?;
                panic!("the sleep was not cancelled");
                #[expect(unreachable_code, reason = "says the type")]
                Ok(())
            });
            sleep(ms(10)).await?;
            task.cancel_with("ext");
            assert_eq!(shown(&task.await), "cancelled ext");
            Ok(())
        });
    }
}

/// Limits work inside of a shielded section, also of one whose task was cancelled meanwhile.
#[test]
fn limits_in_a_shielded_section_of_a_cancelled_task() {
    for kind in 0..3 {
        run(async {
            let task = create_task(async move {
                let result: Result<()> = shielded(async {
                    match kind {
                        0 => timeout(ms(20), for_ever()).await,
                        1 => asyncio::Timeout::new(ms(20)).scope(async |_| for_ever().await).await,
                        _ => TaskGroup::builder().timeout(ms(20)).scope(async |_| for_ever().await).await,
                    }
                })
                .await;
                assert_eq!(shown(&result), "timed out");
                sleep(ms(1)).await
            });
            sleep(ms(10)).await?;
            task.cancel_with("ext");
            assert_eq!(shown(&task.await), "cancelled ext");
            Ok(())
        });
    }
}

/// A shielded section in a child holds the group up, and is not broken off.
#[test]
fn a_shielded_section_of_a_task_is_waited_for() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(10, "E"));
            let child = seen.clone();
            group.create_task(async move {
                child.push(shown(&shielded(sleep(ms(50))).await));
                let after = sleep(ms(50)).await;
                child.push(shown(&after));
                after
            });
            seen.push(shown(&shielded(sleep(ms(30))).await));
            for_ever().await
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(record.take(), ["ok", "ok", "cancelled"]);
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}

/// `shield` lets the task of the group go on; the group waits for it all the same.
#[test]
fn a_shielded_task_of_the_group_is_cancelled_with_the_group_only() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let task = create_task(TaskGroup::scope(async move |group| {
            let inner = group.create_task(async move {
                let outcome = clean_up_for(5).await;
                seen.push(shown(&outcome));
                outcome
            });
            let outcome = shield(inner).await;
            assert_eq!(shown(&outcome), "cancelled ext");
            Ok(())
        }));
        sleep(ms(10)).await?;
        task.cancel_with("ext");
        sleep(ms(10)).await?;
        assert_eq!(record.len(), 0, "nobody cancelled it");
        task.cancel_with("again");
        assert_eq!(shown(&task.await), "cancelled again");
        assert_eq!(record.take(), ["cancelled again"]);
        Ok(())
    });
}

/// A failure in one of two groups under `join!` leaves the other be.
#[test]
fn a_group_under_join_leaves_its_neighbour_be() {
    run(async {
        let record = Record::default();
        let failing = TaskGroup::scope(async |group| {
            group.create_task(fail_after(10, "E"));
            for_ever().await
        });
        let seen = record.clone();
        let other = TaskGroup::scope(async |group| {
            let child = seen.clone();
            group.create_task(async move {
                child.push(("child", shown(&sleep(ms(50)).await)));
                Ok(())
            });
            seen.push(("body", shown(&sleep(ms(30)).await)));
            Ok(5)
        });
        let (failed, other) = join(failing, other).await;
        assert_eq!(shown(&failed), "[E]");
        assert_eq!(other?, 5);
        assert_eq!(record.take(), [("body", "ok".to_string()), ("child", "ok".into())]);
        assert_eq!(this_task().cancelling(), 0);
        // And next to something that only sleeps, or waits for a task.
        let failing = TaskGroup::scope(async |group| {
            group.create_task(fail_after(10, "E"));
            Ok(())
        });
        let task = create_task(async {
            sleep(ms(20)).await?;
            Ok(3)
        });
        let (failed, (slept, task)) = join(failing, join(sleep(ms(20)), task)).await;
        assert_eq!((shown(&failed), shown(&slept), task?), ("[E]".into(), "ok".into(), 3));
        sleep(Duration::ZERO).await
    });
}

/// Both of two joined groups under a limit end with it.
#[test]
fn a_limit_ends_all_groups_under_a_join() {
    run(async {
        let (one, one_dropped) = drop_guard();
        let (two, two_dropped) = drop_guard();
        let group = async |guard| {
            TaskGroup::scope(async |group| {
                group.create_task(async move {
                    let _guard = guard;
                    for_ever().await
                });
                for_ever().await
            })
            .await
        };
        let result = timeout(ms(10), async {
            let (one, two) = futures::try_join!(group(one), group(two))?;
            Ok((one, two))
        })
        .await;
        assert_eq!(shown(&result), "timed out");
        // `try_join!` drops the other one: its task has one step left.
        for _ in 0..2 {
            sleep(Duration::ZERO).await?;
        }
        assert!(one_dropped.get() && two_dropped.get());
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}

/// Each has a waker of its own there.
#[test]
fn groups_in_a_set_of_futures_wake_it() {
    let (result, turns) = counted(async {
        let mut set = FuturesUnordered::new();
        for number in 0..20_u64 {
            set.push(TaskGroup::scope(async move |group| {
                if number % 4 == 0 {
                    group.create_task(fail_after(10 + number, "E"));
                }
                group.create_task(sleep(ms(50 - number)));
                if number % 2 == 0 { sleep(ms(40)).await } else { Ok(()) }
            }));
        }
        let mut outcomes = Vec::new();
        while let Some(outcome) = set.next().await {
            outcomes.push(shown(&outcome));
        }
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "[E]").count(), 5);
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "ok").count(), 15);
        assert_eq!(outcomes[..5], ["[E]"; 5]);
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
    result.unwrap();
    assert!(turns < 120, "{turns}");
}

/// Where the waiting body and the waiting exit were polled under foreign wakers, a cancellation still arrives.
#[test]
fn a_task_with_groups_in_a_set_can_be_cancelled() {
    run(async {
        for in_body in [true, false] {
            let record = Record::default();
            let seen = record.clone();
            let task = create_task(async move {
                let mut set = FuturesUnordered::new();
                for _ in 0..3 {
                    let seen = seen.clone();
                    set.push(TaskGroup::scope(async move |group| {
                        group.create_task(async move {
                            let outcome = for_ever().await;
                            seen.push(shown(&outcome));
                            outcome
                        });
                        if in_body { for_ever().await } else { Ok(()) }
                    }));
                }
                while let Some(outcome) = set.next().await {
                    outcome?;
                }
                Ok(())
            });
            sleep(ms(10)).await?;
            task.cancel_with("ext");
            assert_eq!(shown(&task.await), "cancelled ext");
            for _ in 0..2 {
                sleep(Duration::ZERO).await?;
            }
            // One took it; the others were dropped with the set.
            assert_eq!(record.len(), 3);
            assert_eq!(asyncio::all_tasks()?.len(), 1);
        }
        Ok(())
    });
}

/// A body that is itself a set of foreign futures around ours.
#[test]
fn a_body_may_poll_many_at_once() {
    run(async {
        let result = TaskGroup::scope(async |group| {
            group.create_task(fail_after(20, "E"));
            let mut set: FuturesUnordered<_> = (0..10).map(|number| sleep(ms(number * 5))).collect();
            let mut done = 0;
            while let Some(outcome) = set.next().await {
                match outcome {
                    Ok(()) => done += 1,
                    Err(error) => {
                        assert!((4..=5).contains(&done), "{done}");
                        return Err(error);
                    }
                }
            }
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// A gather of groups, and a group whose body gathers tasks.
#[test]
fn groups_and_gathers_go_together() {
    run(async {
        let group = |delay: u64, fails: bool| {
            TaskGroup::scope(async move |group| {
                if fails {
                    group.create_task(fail_after(delay, "E"));
                } else {
                    group.create_task(sleep(ms(delay)));
                }
                Ok(delay)
            })
        };
        assert_eq!(gather((group(10, false), group(20, false))).await?, (10, 20));
        assert_eq!(shown(&gather((group(10, true), group(20, false))).await), "[E]");
        let all = gather(vec![group(10, true), group(20, false)]).return_exceptions().await?;
        assert_eq!(all.iter().map(shown).collect::<Vec<_>>(), ["[E]", "ok"]);
        let result = TaskGroup::scope(async |group| {
            let one = group.create_task(fail_in_clean_up("one"));
            let two = group.create_task(fail_after(5, "two"));
            gather((one, two)).await
        })
        .await;
        // As in asyncio: the gather gives the error before the body is cancelled.
        assert_eq!(shown(&result), "[two, one, two]");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// A group that began under one task and goes on under another.
#[test]
fn a_group_can_move_between_tasks() {
    run(async {
        for in_body in [true, false] {
            for fails in [true, false] {
                let mut group = Box::pin(TaskGroup::scope(async move |group| {
                    group.create_task(if fails { fail_after(20, "E") } else { fail_after(20, "other") });
                    group.create_task(clean_up_for(5));
                    if in_body { for_ever().await } else { Ok(()) }
                }));
                for _ in 0..3 {
                    assert!(futures::poll!(group.as_mut()).is_pending());
                    sleep(Duration::ZERO).await?;
                }
                let task = create_task(group);
                if !fails {
                    sleep(ms(10)).await?;
                    task.cancel_with("ext");
                    assert_eq!(shown(&task.await), "cancelled ext");
                } else {
                    assert_eq!(shown(&task.await), "[E]");
                }
                assert_eq!(this_task().cancelling(), 0);
            }
        }
        sleep(Duration::ZERO).await
    });
}

/// Spurious wakes of the task that waits do no harm.
#[test]
fn a_wait_that_is_polled_often_is_a_wait() {
    run(async {
        let mut group = pin!(TaskGroup::scope(async |group| {
            group.create_task(sleep(ms(10)));
            Ok(5)
        }));
        for _ in 0..20 {
            assert!(futures::poll!(group.as_mut()).is_pending());
            assert!(futures::poll!(group.as_mut()).is_pending());
            sleep(Duration::ZERO).await?;
        }
        assert_eq!(group.await?, 5);
        Ok(())
    });
}
