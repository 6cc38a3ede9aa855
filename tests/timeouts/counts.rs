//! `cancelling` and `uncancel` inside of timeouts and groups: the numbers that CPython 3.13 prints for the same programs.

use asyncio::{Error, ErrorKind, Result, TaskGroup, Timeout, create_task, get_running_loop, sleep, timeout, wait_for};

use crate::{HOUR, MS, kind, now, own, run, support::Record};

fn value_error() -> Error {
    Error::Value("x".into())
}

/// In a task of its own, as the Python programs ran.
fn program<T: 'static>(body: impl Future<Output = Result<T>> + 'static) -> T {
    run(create_task_inside(body))
}

async fn create_task_inside<T: 'static>(body: impl Future<Output = Result<T>> + 'static) -> Result<T> {
    create_task(body).await
}

#[test]
fn swallowed_in_a_limit() {
    let seen = program(async {
        let (seen, limit) = (Record::default(), Timeout::new(10 * MS));
        limit
            .scope(async |_| {
                assert!(sleep(HOUR).await.is_err());
                seen.push(own().cancelling());
                sleep(10 * MS).await?;
                seen.push(own().cancelling());
                Ok(())
            })
            .await?;
        seen.push(own().cancelling());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 1, 0]);
}

#[test]
fn a_request_that_is_taken_back_inside_leaves_the_limit_its_own() {
    let seen = program(async {
        let (seen, limit) = (Record::default(), Timeout::new(20 * MS));
        let outcome = limit
            .scope(async |_| {
                own().cancel();
                seen.push(own().cancelling());
                assert!(sleep(HOUR).await.is_err());
                seen.push(own().uncancel());
                sleep(HOUR).await
            })
            .await;
        assert_eq!((kind(&outcome), limit.expired()), (Some(ErrorKind::Timeout), true));
        seen.push(own().cancelling());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 0, 0]);
}

#[test]
fn a_request_that_is_not_taken_back_inside_hides_the_limit() {
    let seen = program(async {
        let (seen, limit) = (Record::default(), Timeout::new(20 * MS));
        let outcome = limit
            .scope(async |_| {
                own().cancel();
                seen.push(own().cancelling());
                assert!(sleep(HOUR).await.is_err());
                seen.push(own().cancelling());
                let slept = sleep(HOUR).await;
                seen.push(own().cancelling());
                slept
            })
            .await;
        assert_eq!((kind(&outcome), limit.expired()), (Some(ErrorKind::Cancelled), true));
        seen.push(own().cancelling());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 1, 2, 1]);
}

#[test]
fn the_count_at_entry_is_the_baseline() {
    let seen = program(async {
        let seen = Record::default();
        own().cancel();
        assert!(sleep(HOUR).await.is_err());
        seen.push(own().cancelling());
        let outcome = timeout(std::time::Duration::ZERO, async {
            let slept = sleep(HOUR).await;
            seen.push(own().cancelling());
            slept
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
        seen.push(own().cancelling());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 2, 1]);
}

#[test]
fn a_group_that_fails_asks_once() {
    let seen = program(async {
        let seen = Record::default();
        let outcome = TaskGroup::scope(async |group| {
            group.create_task(async { Err::<(), _>(value_error()) });
            let slept = sleep(HOUR).await;
            seen.push(own().cancelling());
            slept
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Group));
        seen.push(own().cancelling());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 0]);
}

#[test]
fn a_group_inside_of_a_limit() {
    for body_waits in [true, false] {
        let seen = program(async move {
            let (seen, task) = (Record::default(), own());
            let outcome = timeout(10 * MS, async {
                TaskGroup::scope(async |group| {
                    let (sees, task) = (seen.clone(), task.clone());
                    group.create_task(async move {
                        let slept = sleep(HOUR).await;
                        sees.push((own().cancelling(), task.cancelling()));
                        slept
                    });
                    if body_waits {
                        let slept = sleep(HOUR).await;
                        seen.push((own().cancelling(), 0));
                        return slept;
                    }
                    Ok(())
                })
                .await
            });
            assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
            seen.push((own().cancelling(), 0));
            Ok(seen.take())
        });
        match body_waits {
            true => assert_eq!(seen, [(1, 0), (1, 1), (0, 0)]),
            false => assert_eq!(seen, [(1, 1), (0, 0)]),
        }
    }
}

#[test]
fn a_limit_inside_of_a_group_that_fails() {
    let seen = program(async {
        let (seen, limit) = (Record::default(), Timeout::new(HOUR));
        let outcome = TaskGroup::scope(async |group| {
            group.create_task(async {
                sleep(10 * MS).await?;
                Err::<(), _>(value_error())
            });
            let outcome = limit
                .scope(async |_| {
                    let slept = sleep(HOUR).await;
                    seen.push(own().cancelling());
                    slept
                })
                .await;
            assert_eq!(kind(&outcome), Some(ErrorKind::Cancelled));
            seen.push(own().cancelling());
            outcome
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Group));
        assert!(!limit.expired());
        seen.push(own().cancelling());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 1, 0]);
}

#[test]
fn a_cancellation_through_a_limit_and_a_group() {
    let seen = program(async {
        let (seen, limit, task) = (Record::default(), Timeout::new(HOUR), own());
        get_running_loop()?.call_later(10 * MS, move || task.cancel_with("msg"));
        let outcome = TaskGroup::scope(async |_| {
            limit
                .scope(async |_| {
                    let slept = sleep(HOUR).await;
                    seen.push(own().cancelling());
                    slept
                })
                .await
        });
        assert_eq!(crate::message(outcome.await).as_deref(), Some("msg"));
        assert!(!limit.expired());
        seen.push(own().cancelling());
        seen.push(own().uncancel());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 1, 0]);
}

#[test]
fn the_task_that_wait_for_gives_up() {
    let (seen, after) = program(async {
        let (seen, task) = (Record::default(), own());
        let (sees, waits) = (seen.clone(), task.clone());
        let mut inner = create_task(async move {
            let slept = sleep(HOUR).await;
            sees.push((own().cancelling(), waits.cancelling()));
            slept
        });
        assert_eq!(kind(&wait_for(&mut inner, 10 * MS).await), Some(ErrorKind::Timeout));
        Ok((seen.take(), (inner.cancelled(), inner.cancelling(), task.cancelling())))
    });
    assert_eq!((seen, after), (vec![(1, 1)], (true, 1, 0)));
}

/// The limit passes while the group's tasks clean up, one of them fails; the group's errors are caught, and the limit is
/// not forgotten because of them.
#[test]
fn a_group_that_fails_as_the_limit_passes() {
    for body_waits in [true, false] {
        for awaits_foreign in [false, true] {
            let seen = program(async move {
                let (seen, begin) = (Record::default(), now());
                let outcome = timeout(10 * MS, async {
                    let outcome = TaskGroup::scope(async |group| {
                        group.create_task(async {
                            let _ = sleep(HOUR).await;
                            Err::<(), _>(value_error())
                        });
                        if body_waits { sleep(HOUR).await } else { Ok(()) }
                    });
                    assert_eq!(kind(&outcome.await), Some(ErrorKind::Group));
                    seen.push(own().cancelling());
                    if awaits_foreign {
                        std::future::pending::<()>().await;
                    }
                    sleep(HOUR).await
                });
                assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
                assert_eq!(now() - begin, 10 * MS);
                seen.push(own().cancelling());
                Ok(seen.take())
            });
            assert_eq!(seen, [1, 0], "{body_waits} {awaits_foreign}");
        }
    }
}

/// Differs: a request of a limit is the limit's own, which `uncancel` does not take back; the outcome is the same.
#[test]
fn uncancel_does_not_touch_the_request_of_a_limit() {
    let seen = program(async {
        let (seen, limit) = (Record::default(), Timeout::new(10 * MS));
        let outcome = limit
            .scope(async |_| {
                let slept = sleep(HOUR).await;
                seen.push(own().cancelling());
                seen.push(own().uncancel());
                slept
            })
            .await;
        assert_eq!((kind(&outcome), limit.expired()), (Some(ErrorKind::Timeout), true));
        seen.push(own().cancelling());
        Ok(seen.take())
    });
    assert_eq!(seen, [1, 1, 0], "CPython: 1, 0, 0");
}

/// A limit that passes and a group that fails in one iteration.
#[test]
fn a_group_that_fails_in_the_iteration_of_the_limit() {
    let (seen, expired) = program(async {
        let (seen, deadline, event_loop) = (Record::default(), now() + 10 * MS, get_running_loop()?);
        let future = event_loop.create_future::<()>();
        let (sets, limit) = (future.clone(), Timeout::at(deadline));
        event_loop.call_at(deadline, move || sets.set_result(()));
        let outcome = limit
            .scope(async |_| {
                TaskGroup::scope(async |group| {
                    group.create_task(async move {
                        future.await?;
                        Err::<(), _>(value_error())
                    });
                    let slept = sleep(HOUR).await;
                    seen.push(own().cancelling());
                    slept
                })
                .await
            })
            .await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Group));
        seen.push(own().cancelling());
        Ok((seen.take(), limit.expired()))
    });
    assert_eq!((seen, expired), (vec![1, 0], true));
}
