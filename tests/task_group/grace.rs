//! Clean-ups that may take so long and no longer.

use std::time::Duration;

use asyncio::{Result, TaskGroup, get_running_loop, shielded, sleep};

use crate::{
    clean_up_for, counted, fail_after, fail_in_clean_up, for_ever, ms, outcome, run, shown,
    support::{Record, drop_guard},
    this_task, value,
};

/// Swallows whatever it is told.
async fn stubborn() -> Result<()> {
    loop {
        let _ = sleep(Duration::from_secs(3600)).await;
    }
}

/// What cleans up in time does; what does not is dropped where it waits.
#[test]
fn tasks_have_their_time_to_clean_up() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let ended = Record::default();
        let record = ended.clone();
        let (guard, dropped) = drop_guard();
        let (mut quick, mut slow) = (None, None);
        TaskGroup::scope(async |group| {
            let child = record.clone();
            quick = Some(group.create_task(async move {
                let outcome = clean_up_for(10).await;
                child.push("quick");
                outcome
            }));
            let child = record.clone();
            slow = Some(group.create_task(async move {
                let _guard = guard;
                let outcome = clean_up_for(1000).await;
                child.push("slow");
                outcome
            }));
            sleep(ms(1)).await?;
            group.cancel_with_grace(ms(50));
            Ok(())
        })
        .await?;
        assert_eq!(ended.take(), ["quick"]);
        assert!(dropped.get());
        assert!(quick.unwrap().cancelled() && slow.unwrap().cancelled());
        assert_eq!(event_loop.time() - begin, ms(51));
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// Also the body.
#[test]
fn a_body_has_its_time_to_clean_up() {
    run(async {
        let event_loop = get_running_loop()?;
        for (clean_up, expected) in [(10, "ok"), (1000, "cancelled")] {
            let begin = event_loop.time();
            let (guard, dropped) = drop_guard();
            let result = TaskGroup::scope(async |group| {
                let _guard = guard;
                let handle = group.clone();
                event_loop.call_later(ms(5), move || handle.cancel_with_grace(ms(50)));
                let _ = clean_up_for(clean_up).await;
                Ok(())
            })
            .await;
            assert_eq!(shown(&result), expected);
            assert!(dropped.get());
            assert_eq!(event_loop.time() - begin, ms(5 + clean_up.min(50)));
            assert_eq!(this_task().cancelling(), 0);
            sleep(Duration::ZERO).await?;
        }
        Ok(())
    });
}

/// For whatever reason: a failure, the body's error, the deadline, a cancellation from outside, `cancel`.
#[test]
fn the_builders_grace_counts_for_every_reason() {
    run(async {
        let event_loop = get_running_loop()?;
        for (reason, expected) in
            [("task", "[E]"), ("body", "[E]"), ("deadline", "timed out"), ("outside", "cancelled"), ("cancel", "ok")]
        {
            for body_waits in [false, true] {
                let begin = event_loop.time();
                let (guard, dropped) = drop_guard();
                let builder = TaskGroup::builder().grace(ms(50));
                let builder = if reason == "deadline" { builder.timeout(ms(10)) } else { builder };
                let group = builder.scope(async move |group| {
                    group.create_task(async move {
                        let _guard = guard;
                        stubborn().await
                    });
                    if reason == "task" {
                        group.create_task(fail_after(10, "E"));
                    }
                    if reason == "cancel" {
                        let handle = group.clone();
                        get_running_loop()?.call_later(ms(10), move || handle.cancel());
                    }
                    if reason == "body" {
                        sleep(ms(10)).await?;
                        return Err(value("E"));
                    }
                    if body_waits {
                        let outcome = for_ever().await;
                        if reason == "outside" {
                            return outcome;
                        }
                    }
                    Ok(())
                });
                let task = asyncio::create_task(group);
                let any = task.any();
                if reason == "outside" {
                    event_loop.call_later(ms(10), move || any.cancel());
                }
                let result = task.await;
                assert_eq!(shown(&result), expected, "{reason} {body_waits}");
                assert!(dropped.get());
                assert_eq!(event_loop.time() - begin, ms(60), "{reason} {body_waits}");
            }
        }
        Ok(())
    });
}

/// With a grace of zero each has one step.
#[test]
fn a_grace_of_zero_is_one_step() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        for by_builder in [false, true] {
            let seen = Record::default();
            let record = seen.clone();
            let grace = by_builder.then_some(Duration::ZERO);
            TaskGroup::builder()
                .grace(grace)
                .scope(async |group| {
                    for _ in 0..3 {
                        let record = record.clone();
                        group.create_task(async move {
                            let cancelled = for_ever().await;
                            record.push("seen");
                            sleep(Duration::ZERO).await?;
                            record.push("never");
                            cancelled
                        });
                    }
                    sleep(ms(1)).await?;
                    if by_builder {
                        group.cancel();
                    } else {
                        group.cancel_with_grace(Duration::ZERO);
                    }
                    Ok(())
                })
                .await?;
            assert_eq!(seen.take(), ["seen"; 3]);
        }
        assert_eq!(event_loop.time() - begin, ms(2));
        Ok(())
    });
}

/// Errors of those that made it, and of those that fail while they are dropped late, are kept.
#[test]
fn errors_within_the_grace_come_out() {
    let result = outcome(TaskGroup::builder().grace(ms(50)).scope(async |group| {
        group.create_task(fail_after(1, "E"));
        group.create_task(fail_in_clean_up("F"));
        group.create_task(stubborn());
        group.create_task(async {
            let _ = for_ever().await;
            sleep(ms(40)).await?;
            Err::<(), _>(value("late"))
        });
        group.create_task(async {
            let _ = for_ever().await;
            sleep(ms(60)).await?;
            Err::<(), _>(value("too late"))
        });
        Ok(())
    }));
    assert_eq!(shown(&result), "[E, F, late]");
}

/// The time is over for shielded sections, too, and for groups inside.
#[test]
fn a_grace_breaks_off_shielded_sections_and_nested_groups() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let (one, one_dropped) = drop_guard();
        let (two, two_dropped) = drop_guard();
        let (three, three_dropped) = drop_guard();
        let result: Result<()> = TaskGroup::scope(async |group| {
            group.create_task(shielded(async move {
                let _guard = one;
                for_ever().await
            }));
            group.create_task(TaskGroup::scope(async move |inner| {
                inner.create_task(async move {
                    let _guard = two;
                    stubborn().await
                });
                let _ = for_ever().await;
                Ok(())
            }));
            group.cancel_with_grace(ms(10));
            let _ = sleep(ms(1)).await;
            TaskGroup::scope(async move |inner| {
                inner.create_task(async move {
                    let _guard = three;
                    stubborn().await
                });
                Ok(())
            })
            .await
        })
        .await;
        assert_eq!(shown(&result), "cancelled");
        assert!(event_loop.time() - begin <= ms(11));
        // The tasks of the inner groups have one more step each.
        for _ in 0..2 {
            sleep(Duration::ZERO).await?;
        }
        assert!(one_dropped.get() && two_dropped.get() && three_dropped.get());
        assert_eq!(asyncio::all_tasks()?.len(), 1);
        Ok(())
    });
}

/// Of several the shortest counts.
#[test]
fn the_shortest_grace_counts() {
    run(async {
        let event_loop = get_running_loop()?;
        for graces in [[10, 50], [50, 10]] {
            let begin = event_loop.time();
            TaskGroup::scope(async |group| {
                group.create_task(stubborn());
                sleep(ms(1)).await?;
                for grace in graces {
                    group.cancel_with_grace(ms(grace));
                }
                Ok(())
            })
            .await?;
            assert_eq!(event_loop.time() - begin, ms(11), "{graces:?}");
        }
        // One that comes later can end earlier.
        let begin = event_loop.time();
        let builder = TaskGroup::builder().grace(ms(50));
        builder
            .scope(async |group| {
                group.create_task(stubborn());
                sleep(ms(1)).await?;
                group.cancel();
                let handle = group.clone();
                event_loop.call_later(ms(10), move || handle.cancel_with_grace(ms(5)));
                Ok(())
            })
            .await?;
        assert_eq!(event_loop.time() - begin, ms(16));
        Ok(())
    });
}

/// The wait for the grace wakes nobody.
#[test]
fn a_grace_never_spins() {
    let (result, turns) = counted(TaskGroup::scope(async |group| {
        for _ in 0..10 {
            group.create_task(stubborn());
            group.create_task::<(), _>(async {
                let _ = for_ever().await;
                loop {
                    let _ = futures::future::join(sleep(ms(3_600_000)), std::future::pending::<()>()).await;
                }
            });
        }
        sleep(ms(1)).await?;
        group.cancel_with_grace(Duration::from_secs(600));
        let _ = for_ever().await;
        for_ever().await
    }));
    assert_eq!(shown(&result), "cancelled");
    assert!(turns < 15, "{turns}");
}

/// No timer of it is left when all have ended in time (`run` looks).
#[test]
fn a_grace_that_is_not_needed_leaves_no_timer() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        TaskGroup::builder()
            .grace(Duration::from_secs(7200))
            .scope(async |group| {
                group.create_task(clean_up_for(5));
                sleep(ms(1)).await?;
                group.cancel_with_grace(Duration::from_secs(3600));
                Ok(())
            })
            .await?;
        assert_eq!(event_loop.time() - begin, ms(6));
        Ok(())
    });
}

/// A task that is given less of its own.
#[test]
fn a_task_of_the_group_can_have_a_grace_of_its_own() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        TaskGroup::builder()
            .grace(ms(100))
            .scope(async |group| {
                let task = group.create_task(stubborn());
                let other = group.create_task(stubborn());
                sleep(ms(1)).await?;
                task.cancel_with_grace(ms(10));
                group.cancel();
                let _ = sleep(ms(1)).await;
                sleep(ms(11)).await?;
                assert!(task.cancelled() && !other.done());
                Ok(())
            })
            .await?;
        assert_eq!(event_loop.time() - begin, ms(101));
        Ok(())
    });
}

/// Also that of a task which takes the request back and ends in time.
#[test]
fn a_grace_of_a_task_that_took_the_request_back_leaves_no_timer() {
    run(TaskGroup::scope(async |group| {
        let task = group.create_task(async {
            let _ = for_ever().await;
            this_task().uncancel();
            sleep(ms(5)).await
        });
        sleep(ms(1)).await?;
        task.cancel_with_grace(Duration::from_secs(3600));
        task.await
    }));
}
