//! Groups that must end in time.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Canceller, Error, ErrorKind, Result, TaskGroup, Timeout, get_running_loop, sleep, timeout, timeout_at};

use crate::{
    assert_nothing_is_left, clean_up_for, counted, fail_after, fail_in_clean_up, for_ever, ms, run, shown,
    support::{Record, failure},
    this_task, value,
};

/// TG-016
#[test]
fn a_timeout_around_a_group_cancels_its_tasks() {
    run(async {
        let mut child = None;
        let result = timeout(
            ms(10),
            TaskGroup::scope(async |group| {
                child = Some(group.create_task(sleep(Duration::from_secs(10))));
                Ok(())
            }),
        )
        .await;
        assert_eq!(failure(result).0, ErrorKind::Timeout);
        assert!(child.unwrap().cancelled());
        assert_eq!(this_task().cancelling(), 0);

        let limit = Timeout::new(ms(10));
        let result = limit
            .scope(async |_| {
                TaskGroup::scope(async |group| {
                    group.create_task(fail_in_clean_up("E"));
                    Ok(())
                })
                .await
            })
            .await;
        assert_eq!(shown(&result), "[E]");
        assert!(limit.expired());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// TG-016: while the body runs.
#[test]
fn a_timeout_around_a_group_cancels_its_body() {
    run(async {
        let seen = Record::default();
        let record = seen.clone();
        let result = timeout_at(
            get_running_loop()?.time() + ms(10),
            TaskGroup::scope(async |group| {
                let child = record.clone();
                group.create_task(async move {
                    let Err(Error::Cancelled(cancelled)) = for_ever().await else { unreachable!() };
                    child.push(("child", cancelled.by));
                    Err::<(), _>(Error::Cancelled(cancelled))
                });
                let Err(Error::Cancelled(cancelled)) = for_ever().await else { unreachable!() };
                record.push(("body", cancelled.by));
                Err::<(), _>(Error::Cancelled(cancelled))
            }),
        )
        .await;
        assert_eq!(shown(&result), "timed out");
        assert_eq!(seen.take(), [("body", Some(Canceller::Timeout)), ("child", Some(Canceller::Timeout))]);
        Ok(())
    });
}

#[test]
fn a_deadline_ends_the_wait_for_the_tasks() {
    run(async {
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let mut child = None;
        let result = TaskGroup::builder()
            .timeout(ms(10))
            .scope(async |group| {
                child = Some(group.create_task(clean_up_for(5)));
                Ok(())
            })
            .await;
        assert_eq!(shown(&result), "timed out");
        assert!(child.unwrap().cancelled());
        assert_eq!(event_loop.time() - begin, ms(15), "clean-ups are waited for");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

#[test]
fn a_deadline_ends_the_body() {
    run(async {
        let seen = Record::default();
        let record = seen.clone();
        let result = TaskGroup::builder()
            .deadline(get_running_loop()?.time() + ms(10))
            .scope(async |group| {
                let child = record.clone();
                group.create_task(async move {
                    let Err(Error::Cancelled(cancelled)) = for_ever().await else { unreachable!() };
                    child.push(("child", cancelled.by));
                    Ok(())
                });
                let Err(Error::Cancelled(cancelled)) = for_ever().await else { unreachable!() };
                record.push(("body", cancelled.by));
                assert_eq!(this_task().cancelling(), 1);
                Err::<(), _>(Error::Cancelled(cancelled))
            })
            .await;
        assert_eq!(shown(&result), "timed out");
        assert_eq!(seen.take(), [("child", Some(Canceller::Timeout)), ("body", Some(Canceller::Timeout))]);
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// A body that swallows it does not make the tasks complete.
#[test]
fn a_deadline_cannot_be_swallowed() {
    run(async {
        let result = TaskGroup::builder()
            .timeout(ms(10))
            .scope(async |_| {
                let _ = for_ever().await;
                Ok(5)
            })
            .await;
        assert_eq!(shown(&result), "timed out");
        sleep(Duration::ZERO).await
    });
}

#[test]
fn a_deadline_that_is_not_reached_does_nothing() {
    let (result, turns) = counted(async {
        TaskGroup::builder()
            .timeout(Duration::from_secs(3600))
            .scope(async |group| {
                let task = group.create_task(async {
                    sleep(ms(5)).await?;
                    Ok(5)
                });
                task.await
            })
            .await
    });
    assert_eq!(result.unwrap(), 5);
    assert!(turns < 10, "{turns}");
}

#[test]
fn a_deadline_of_never_is_none() {
    run(async {
        let now = get_running_loop()?.time();
        let builder = TaskGroup::builder().timeout(ms(1)).timeout(None);
        builder.scope(async |_| sleep(ms(10)).await).await?;
        let builder = TaskGroup::builder().timeout(ms(1)).deadline(None);
        builder.scope(async |_| sleep(ms(10)).await).await?;
        let builder = TaskGroup::builder().deadline(now).timeout(Duration::MAX);
        builder.scope(async |_| sleep(ms(10)).await).await
    });
}

/// As with a timeout: the body is polled once, and cancelled at its next suspension.
#[test]
fn a_deadline_in_the_past_lets_the_body_begin() {
    run(async {
        let event_loop = get_running_loop()?;
        for deadline in [event_loop.time(), event_loop.time() - ms(0)] {
            let seen = Record::default();
            let result = TaskGroup::builder()
                .deadline(deadline)
                .scope(async |group| {
                    seen.push("begun");
                    let record = seen.clone();
                    group.create_task(async move {
                        record.push("child");
                        Ok(())
                    });
                    let cancelled = for_ever().await;
                    seen.push("cancelled");
                    cancelled
                })
                .await;
            assert_eq!(shown(&result), "timed out");
            assert_eq!(seen.take(), ["begun", "cancelled"]);
        }
        // What does not wait is done in time.
        assert_eq!(TaskGroup::builder().timeout(Duration::ZERO).scope(async |_| Ok(5)).await?, 5);
        sleep(Duration::ZERO).await
    });
}

#[test]
fn errors_win_over_the_deadline() {
    run(async {
        let result = TaskGroup::builder()
            .timeout(ms(10))
            .scope(async |group| {
                group.create_task(fail_in_clean_up("E"));
                group.create_task(clean_up_for(5));
                Ok(())
            })
            .await;
        assert_eq!(shown(&result), "[E]");
        let result = TaskGroup::builder().timeout(ms(10)).scope(async |_| fail_in_clean_up("body").await).await;
        assert_eq!(shown(&result), "[body]");
        // It passes while a failed group cleans up.
        let result = TaskGroup::builder()
            .timeout(ms(10))
            .scope(async |group| {
                group.create_task(fail_after(5, "E"));
                group.create_task(clean_up_for(20));
                for_ever().await
            })
            .await;
        assert_eq!(shown(&result), "[E]");
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// Who cancels the task from outside wants that, not a timeout.
#[test]
fn a_cancellation_from_outside_wins_over_the_deadline() {
    run(async {
        for first in [5, 15] {
            for in_body in [true, false] {
                let task = asyncio::create_task(TaskGroup::builder().timeout(ms(10)).scope(async move |group| {
                    group.create_task(clean_up_for(30));
                    if in_body { clean_up_for(30).await } else { Ok(()) }
                }));
                sleep(ms(first)).await?;
                task.cancel_with("ext");
                let result = task.await;
                // As in asyncio: the deadline breaks the body's clean-up off, with a cancellation of its own.
                let message = if in_body && first == 5 { "cancelled" } else { "cancelled ext" };
                assert_eq!(shown(&result), message, "{first} {in_body}");
            }
        }
        Ok(())
    });
}

/// The inner limit does not tell of itself where an outer one has come before it, nor does a group's.
#[test]
fn of_nested_limits_the_outer_one_wins_if_it_comes_first() {
    async fn inner(kind: u32, seen: Record<String>) -> Result<()> {
        let result = match kind {
            0 => timeout(ms(20), clean_up_for(100)).await,
            1 => Timeout::new(ms(20)).scope(async |_| clean_up_for(100).await).await,
            2 => TaskGroup::builder().timeout(ms(20)).scope(async |_| clean_up_for(100).await).await,
            _ => {
                let limited = TaskGroup::builder().timeout(ms(20));
                limited
                    .scope(async |group| {
                        group.create_task(clean_up_for(100));
                        Ok(())
                    })
                    .await
            }
        };
        seen.push(shown(&result));
        result
    }
    run(async {
        for kind in 0..4 {
            let seen = Record::default();
            let result = timeout(ms(10), inner(kind, seen.clone())).await;
            assert_eq!(shown(&result), "timed out");
            assert_eq!(seen.take(), ["cancelled"], "{kind}");
            let result = TaskGroup::builder().timeout(ms(10)).scope(async |_| inner(kind, seen.clone()).await).await;
            assert_eq!(shown(&result), "timed out");
            assert_eq!(seen.take(), ["cancelled"], "{kind}");
            let result = TaskGroup::scope(async |group| {
                group.create_task(fail_after(10, "E"));
                inner(kind, seen.clone()).await
            })
            .await;
            assert_eq!(shown(&result), "[E]", "{kind}");
            assert_eq!(seen.take(), ["cancelled"], "{kind}");
            let result = timeout(ms(300), inner(kind, seen.clone())).await;
            assert_eq!(shown(&result), "timed out");
            assert_eq!(seen.take(), ["timed out"], "the outer one does not come: {kind}");
            assert_eq!(this_task().cancelling(), 0);
        }
        sleep(Duration::ZERO).await
    });
}

/// An outer limit that passes while the inner group cleans up after its own.
#[test]
fn an_outer_limit_passes_while_the_inner_group_cleans_up() {
    run(async {
        let seen = Record::default();
        let result = timeout(ms(20), async {
            let result = TaskGroup::builder()
                .timeout(ms(10))
                .scope(async |group| {
                    group.create_task(clean_up_for(50));
                    Ok(())
                })
                .await;
            seen.push(shown(&result));
            result
        })
        .await;
        assert_eq!(shown(&result), "timed out");
        assert_eq!(seen.take(), ["cancelled"], "by the outer one");
        assert_eq!(this_task().cancelling(), 0);
        Ok(())
    });
}

/// As in asyncio: a limit that passed is told again if the group that it cancelled gave errors that were caught.
#[test]
fn a_limit_is_not_forgotten_because_of_errors() {
    run(async {
        let result = timeout(ms(10), async {
            let result = TaskGroup::scope(async |group| {
                group.create_task(fail_in_clean_up("E"));
                for_ever().await
            })
            .await;
            assert_eq!(shown(&result), "[E]");
            assert_eq!(this_task().cancelling(), 1);
            sleep(Duration::from_secs(1)).await?;
            panic!("the sleep was not cancelled");
            #[expect(unreachable_code, reason = "says the type")]
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "timed out");
        assert_eq!(this_task().cancelling(), 0);
        // Where nothing waits any more, it is over with the limit.
        let limit = Timeout::new(ms(10));
        let result = limit
            .scope(async |_| {
                let result = TaskGroup::scope(async |group| {
                    group.create_task(fail_in_clean_up("E"));
                    for_ever().await
                })
                .await;
                assert_eq!(shown(&result), "[E]");
                Ok("left")
            })
            .await;
        assert_eq!(result?, "left");
        assert!(limit.expired());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// Before its tasks begin; during the body; during the wait: what a rescheduled limit around does.
#[test]
fn a_limit_around_a_group_can_be_moved() {
    run(async {
        let limit = Timeout::new(ms(10));
        let event_loop = get_running_loop()?;
        let begin = event_loop.time();
        let result = limit
            .scope(async |limit| {
                TaskGroup::scope(async |group| {
                    let moves = limit.clone();
                    group.create_task(async move {
                        sleep(ms(5)).await?;
                        moves.reschedule(begin + ms(50))
                    });
                    group.create_task(for_ever());
                    Ok(())
                })
                .await
            })
            .await;
        assert_eq!(shown(&result), "timed out");
        assert_eq!(event_loop.time() - begin, ms(50));
        Ok(())
    });
}

/// Tasks with limits of their own are no failures of the group unless they let them out.
#[test]
fn limits_inside_of_tasks_are_the_tasks_own() {
    run(async {
        let caught = Rc::new(Cell::new(false));
        let flag = caught.clone();
        let result = TaskGroup::scope(async |group| {
            group.create_task(async move {
                flag.set(timeout(ms(5), for_ever()).await.is_err());
                sleep(ms(10)).await
            });
            Ok(())
        })
        .await;
        assert_eq!(shown(&result), "ok");
        assert!(caught.get());
        let result = TaskGroup::scope(async |group| {
            group.create_task(timeout(ms(5), for_ever()));
            for_ever().await
        })
        .await;
        assert_eq!(shown(&result), "[timed out]");
        Ok(())
    });
}

/// The last task ends at the instant of the deadline: in time or not, but whole.
#[test]
fn the_deadline_and_the_last_end_at_one_instant() {
    run(async {
        let mut child = None;
        let result = TaskGroup::builder()
            .timeout(ms(10))
            .scope(async |group| {
                child = Some(group.create_task(sleep(ms(10))));
                Ok(5)
            })
            .await;
        assert_eq!(shown(&result), "timed out", "its timer is the older one");
        assert!(child.unwrap().cancelled());
        assert_eq!(this_task().cancelling(), 0);
        sleep(Duration::ZERO).await
    });
}

/// No timer stays behind, however the group ends.
#[test]
fn a_group_takes_its_timers_with_it() {
    run(async {
        let builder = TaskGroup::builder().timeout(Duration::from_secs(3600)).grace(Duration::from_secs(60));
        builder.clone().scope(async |_| Ok(())).await?;
        let failed: Result<()> = builder.clone().scope(async |_| Err(value("E"))).await;
        assert_eq!(shown(&failed), "[E]");
        let result = builder
            .clone()
            .scope(async |group| {
                group.create_task(fail_after(1, "E"));
                for_ever().await
            })
            .await;
        assert_eq!(shown(&result), "[E]");
        let result = timeout(ms(1), builder.scope(async |_| for_ever().await)).await;
        assert_eq!(shown(&result), "timed out");
        // `run` looks for timers.
        Ok(())
    });
}

/// Nothing but the group's own deadline wakes the loop.
#[test]
fn waiting_for_a_deadline_costs_nothing() {
    let (result, turns) = counted(TaskGroup::builder().timeout(Duration::from_secs(3600)).scope(async |group| {
        group.create_task(async {
            std::future::pending::<()>().await;
            Ok(())
        });
        group.create_task(clean_up_for(3_600_000));
        Ok(())
    }));
    assert_eq!(shown(&result), "timed out");
    assert!(turns < 12, "{turns}");
}

/// The deadline of a group whose future was dropped.
#[test]
fn a_dropped_group_has_no_deadline() {
    let (event_loop, _) = crate::support::virtual_loop();
    event_loop
        .run_until_complete(async {
            let group = TaskGroup::builder().timeout(Duration::from_secs(3600)).scope(async |_| for_ever().await);
            let mut group = Box::pin(group);
            let polled = futures::poll!(group.as_mut());
            assert!(polled.is_pending());
            drop(group);
            Ok(())
        })
        .unwrap();
    assert_nothing_is_left(&event_loop);
    event_loop.close().unwrap();
}
