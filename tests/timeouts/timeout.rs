//! `timeout` and `timeout_at` by the rows.

use std::{cell::Cell, time::Duration};

use asyncio::{Error, ErrorKind, Timeout, get_running_loop, sleep, timeout, timeout_at};

use crate::{
    HOUR, MS, SECOND, kind, now, own, poll_now, run,
    support::{self, failure, new_loop, virtual_loop},
};

/// TMO-001
#[test]
fn what_takes_too_long_gives_a_timeout() {
    run(async {
        let begin = now();
        let limit = Timeout::new(10 * MS);
        let outcome = limit.scope(async |_| sleep(10 * SECOND).await).await;
        assert_eq!(failure(outcome), (ErrorKind::Timeout, "timed out".into()));
        assert_eq!((limit.expired(), limit.when()), (true, Some(begin + 10 * MS)));
        assert_eq!((now() - begin, own().cancelling()), (10 * MS, 0));

        let deadline = now() + 10 * MS;
        let limit = Timeout::at(deadline);
        assert_eq!(failure(limit.scope(async |_| sleep(10 * SECOND).await).await).0, ErrorKind::Timeout);
        assert_eq!((limit.expired(), limit.when()), (true, Some(deadline)));
        assert_eq!((now(), own().cancelling()), (deadline, 0));

        assert_eq!(failure(timeout(10 * MS, sleep(10 * SECOND)).await), (ErrorKind::Timeout, "timed out".into()));
        assert_eq!(failure(timeout_at(now() + 10 * MS, sleep(10 * SECOND)).await).0, ErrorKind::Timeout);
        assert_eq!((now() - begin, own().cancelling()), (40 * MS, 0));
        Ok(())
    });
}

/// TMO-002
#[test]
fn what_is_in_time_is_not_touched() {
    run(async {
        for limit in [Timeout::new(10 * SECOND), Timeout::at(now() + 10 * SECOND)] {
            let begin = now();
            assert_eq!(limit.scope(async |_| sleep(10 * MS).await.map(|()| 5)).await?, 5);
            assert!(!limit.expired());
            assert!(limit.when() > Some(now()));
            assert_eq!(now() - begin, 10 * MS);
        }
        for limit in [Timeout::new(None), Timeout::at(None)] {
            limit.scope(async |_| sleep(10 * MS).await).await?;
            assert_eq!((limit.expired(), limit.when()), (false, None));
        }
        timeout(10 * SECOND, sleep(10 * MS)).await?;
        timeout(None, sleep(10 * MS)).await?;
        timeout_at(now() + 10 * SECOND, sleep(10 * MS)).await?;
        timeout_at(None, sleep(10 * MS)).await?;
        Ok(())
    });
}

/// TMO-003: a delay cannot be negative, a deadline may be past.
#[test]
fn no_time_at_all_is_a_timeout_at_the_first_wait() {
    run(async {
        let begin = now();
        for delay in [Duration::ZERO, 10 * SECOND] {
            for limit in [Timeout::new(Duration::ZERO), Timeout::at(begin - 11 * MS), Timeout::at(begin)] {
                let outcome = limit.scope(async |_| sleep(delay).await).await;
                assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
                assert!(limit.expired());
            }
            assert_eq!(kind(&timeout(Duration::ZERO, sleep(delay)).await), Some(ErrorKind::Timeout));
            assert_eq!(kind(&timeout_at(begin - 11 * MS, sleep(delay)).await), Some(ErrorKind::Timeout));
            assert_eq!(kind(&timeout_at(begin, sleep(delay)).await), Some(ErrorKind::Timeout));
        }
        assert_eq!((now(), own().cancelling()), (begin, 0));
        Ok(())
    });
}

/// TMO-003: what does not wait is not interrupted.
#[test]
fn no_time_at_all_is_enough_for_what_is_ready() {
    run(async {
        assert_eq!(timeout(Duration::ZERO, async { Ok(5) }).await?, 5);
        assert_eq!(timeout_at(now() - SECOND, async { Ok(5) }).await?, 5);
        let limit = Timeout::new(Duration::ZERO);
        assert_eq!(limit.scope(async |_| Ok(5)).await?, 5);
        assert!(!limit.expired());
        // What was queued for the limit that is over finds nobody.
        crate::turns(3).await
    });
}

/// TMO-006
#[test]
fn both_limits_that_pass_while_the_loop_is_blocked_are_told() {
    let _deadline = support::deadline();
    let (event_loop, clock) = virtual_loop();
    let inner_caught = Cell::new(false);
    let outcome = event_loop.run_until_complete(async {
        let begin = now();
        let (outer, inner) = (Timeout::new(100 * MS), Timeout::new(10 * MS));
        let outcome = outer
            .scope(async |_| {
                let outcome = inner
                    .scope(async |_| {
                        clock.advance(100 * MS);
                        sleep(SECOND).await
                    })
                    .await;
                inner_caught.set(kind(&outcome) == Some(ErrorKind::Timeout));
                sleep(10 * SECOND).await
            })
            .await;
        assert_eq!((outer.expired(), inner.expired(), own().cancelling()), (true, true, 0));
        assert!(now() - begin < SECOND);
        outcome
    });
    assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
    assert!(inner_caught.get());
    crate::assert_clean(&event_loop);
}

/// TMO-006: the same in real time, by the functions.
#[test]
fn both_limits_that_pass_while_the_thread_is_blocked_are_told() {
    support::run(async {
        let caught = Cell::new(false);
        let begin = now();
        let outcome = timeout(100 * MS, async {
            let inner = timeout(10 * MS, async {
                std::thread::sleep(100 * MS);
                sleep(SECOND).await
            });
            caught.set(kind(&inner.await) == Some(ErrorKind::Timeout));
            sleep(60 * SECOND).await
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
        assert!(caught.get() && now() - begin < 50 * SECOND);
        Ok(())
    });
}

/// TMO-007
#[test]
fn a_body_that_cancels_its_task_is_cancelled_and_not_late() {
    run(async {
        let limit = Timeout::new(10 * SECOND);
        let known = limit.clone();
        let task = asyncio::create_task(async move {
            known
                .scope(async |_| {
                    own().cancel();
                    sleep(60 * SECOND).await
                })
                .await
        });
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        assert!(!limit.expired());
        let task = asyncio::create_task(timeout(10 * SECOND, async {
            own().cancel();
            sleep(60 * SECOND).await
        }));
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        Ok(())
    });
}

/// TMO-009
#[test]
fn a_body_that_makes_something_else_of_the_cancellation_gives_that() {
    run(async {
        for fails in [false, true] {
            let body = async || match sleep(HOUR).await {
                Err(Error::Cancelled(_)) if fails => Err(Error::Value("E".into())),
                Err(Error::Cancelled(_)) => Ok("left normally"),
                other => panic!("{other:?}"),
            };
            let limit = Timeout::new(10 * MS);
            let outcomes = [limit.scope(async |_| body().await).await, timeout(10 * MS, body()).await];
            assert!(limit.expired());
            assert_eq!(own().cancelling(), 0);
            for outcome in outcomes {
                match outcome {
                    Ok(value) => assert!(!fails && value == "left normally"),
                    Err(error) => assert!(fails && error.kind() == ErrorKind::Value && error.to_string() == "E"),
                }
            }
        }
        Ok(())
    });
}

/// TMO-010
#[test]
fn only_a_limit_that_runs_can_be_moved() {
    run(async {
        let (limit, later) = (Timeout::new(10 * MS), now() + SECOND);
        let refused = |limit: &Timeout| {
            let (kind, text) = failure(limit.reschedule(later));
            assert_eq!(kind, ErrorKind::Runtime);
            assert_eq!(failure(limit.reschedule(None)).1, text, "whatever it is moved to");
            text
        };
        assert!(refused(&limit).contains("has not been entered"));
        let outcome = limit
            .scope(async |limit| {
                let outcome = sleep(HOUR).await;
                assert!(refused(limit).contains("expiring"));
                sleep(MS).await?;
                assert!(refused(limit).contains("expiring"));
                outcome
            })
            .await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        assert!(refused(&limit).contains("expired"));
        let limit = Timeout::new(10 * MS);
        limit.scope(async |_| Ok(())).await?;
        assert!(refused(&limit).contains("finished"));
        Ok(())
    });
}

/// TMO-011
#[test]
fn a_limit_is_moved_while_its_body_runs() {
    run(async {
        let limit = Timeout::new(10 * SECOND);
        let outcome = limit
            .scope(async |limit| {
                limit.reschedule(now() - SECOND)?;
                let outcome = sleep(Duration::ZERO).await;
                assert_eq!(kind(&outcome), Some(ErrorKind::Cancelled), "at that sleep");
                outcome
            })
            .await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        assert!(limit.expired());

        let limit = Timeout::new(10 * MS);
        limit
            .scope(async |limit| {
                limit.reschedule(None)?;
                sleep(30 * MS).await
            })
            .await?;
        assert_eq!((limit.expired(), limit.when()), (false, None));
        Ok(())
    });
}

/// TMO-012
#[test]
fn a_limit_is_entered_once_and_inside_a_task() {
    run(async {
        let entered_again = (ErrorKind::Runtime, "Timeout has already been entered".to_string());
        let limit = Timeout::new(10 * MS);
        limit
            .scope(async |limit| {
                assert_eq!(failure(limit.scope(async |_| Ok(())).await), entered_again, "inside of itself");
                Ok(())
            })
            .await?;
        assert_eq!(failure(limit.scope(async |_| Ok(())).await), entered_again, "after its end");
        let limit = Timeout::new(Duration::ZERO);
        assert!(limit.scope(async |_| sleep(SECOND).await).await.is_err());
        assert_eq!(failure(limit.scope(async |_| Ok(())).await), entered_again, "after it expired");
        Ok(())
    });
    let event_loop = new_loop();
    let outside = event_loop.call_soon(|| {
        let limit = Timeout::new(SECOND);
        let entered = |polled| match polled {
            std::task::Poll::Ready(outcome) => failure::<()>(outcome),
            std::task::Poll::Pending => panic!("it was entered"),
        };
        let expected = (ErrorKind::Runtime, "Timeout should be used inside a task".to_string());
        assert_eq!(entered(poll_now(limit.scope(async |_| Ok(())))), expected);
        assert_eq!(entered(poll_now(timeout(SECOND, async { Ok(()) }))), expected);
        assert_eq!(entered(poll_now(timeout_at(now(), async { Ok(()) }))), expected);
        assert_eq!(failure(limit.reschedule(None)).1, "Timeout has not been entered", "it can be entered still");
        limit
    });
    let limit = event_loop.run_until_complete(outside).unwrap();
    event_loop.run_until_complete(limit.scope(async |_| sleep(Duration::ZERO).await)).unwrap();
    assert_eq!(event_loop.next_deadline(), None);
}

/// TMO-013
#[test]
fn a_cancellation_that_was_swallowed_before_does_not_count() {
    run(async {
        asyncio::create_task(async {
            own().cancel();
            assert!(sleep(SECOND).await.is_err());
            assert_eq!(own().cancelling(), 1);
            let limit = Timeout::new(Duration::ZERO);
            assert_eq!(kind(&limit.scope(async |_| sleep(SECOND).await).await), Some(ErrorKind::Timeout));
            assert!(limit.expired());
            assert_eq!(own().cancelling(), 1);
            assert_eq!(kind(&timeout(Duration::ZERO, sleep(SECOND)).await), Some(ErrorKind::Timeout));
            assert_eq!(own().cancelling(), 1);
            Ok(())
        })
        .await
    });
}

/// TMO-001: a limit counts from its first poll, not from when it was made.
#[test]
fn the_functions_count_from_the_first_poll() {
    run(async {
        let waits = timeout(10 * MS, sleep(HOUR));
        sleep(SECOND).await?;
        let begin = now();
        assert_eq!(kind(&waits.await), Some(ErrorKind::Timeout));
        assert_eq!(now() - begin, 10 * MS);
        Ok(())
    });
}

/// Never is a limit, too.
#[test]
fn the_longest_delay_never_ends() {
    run(async {
        let begin = now();
        timeout(Duration::MAX, sleep(1000 * HOUR)).await?;
        let limit = Timeout::new(Duration::MAX);
        limit.scope(async |_| sleep(1000 * HOUR).await).await?;
        assert_eq!(now() - begin, 2000 * HOUR);
        assert!(limit.when() > Some(now()) && !limit.expired());
        assert_eq!(get_running_loop()?.next_deadline(), None);
        Ok(())
    });
}

/// What ends in the instant of the deadline: who was first to be scheduled is first.
#[test]
fn a_body_that_ends_in_the_same_instant() {
    run(async {
        // The limit's timer is older: it is told first.
        assert_eq!(kind(&timeout(10 * MS, sleep(10 * MS)).await), Some(ErrorKind::Timeout));
        let mut early = Box::pin(sleep(10 * MS));
        assert!(futures::poll!(early.as_mut()).is_pending());
        timeout(10 * MS, early).await?;
        Ok(())
    });
}
