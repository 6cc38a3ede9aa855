//! Timeouts inside of timeouts, in every order of their ends.

use std::{cell::Cell, time::Duration};

use asyncio::{ErrorKind, Result, Timeout, get_running_loop, sleep, timeout, timeout_at};

use crate::{HOUR, MS, SECOND, kind, now, own, run, support::Record};

/// What happened, as the same program in CPython 3.13 writes it down.
type Seen = Record<(&'static str, u32)>;

fn saw(seen: &Seen, what: &'static str) {
    seen.push((what, own().cancelling()));
}

/// As `except` around a block.
fn note<T: std::fmt::Debug>(seen: &Seen, outcome: &Result<T>) {
    saw(
        seen,
        match kind(outcome) {
            None => "ok",
            Some(ErrorKind::Timeout) => "timeout",
            Some(ErrorKind::Cancelled) => "cancelled",
            Some(_) => "another error",
        },
    );
}

#[test]
fn the_inner_one_first() {
    run(async {
        let (seen, begin) = (Seen::default(), now());
        let outcome = timeout(20 * MS, async {
            let inner = timeout(10 * MS, async {
                let slept = sleep(HOUR).await;
                saw(&seen, "told");
                slept
            });
            note(&seen, &inner.await);
            assert_eq!(now() - begin, 10 * MS);
            let slept = sleep(HOUR).await;
            note(&seen, &slept);
            slept
        });
        note(&seen, &outcome.await);
        assert_eq!(seen.take(), [("told", 1), ("timeout", 0), ("cancelled", 1), ("timeout", 0)]);
        assert_eq!(now() - begin, 20 * MS);
        Ok(())
    });
}

#[test]
fn the_outer_one_first() {
    run(async {
        let (seen, begin) = (Seen::default(), now());
        let (outer, inner) = (Timeout::new(10 * MS), Timeout::new(20 * MS));
        let outcome = outer
            .scope(async |_| {
                let outcome = inner
                    .scope(async |_| {
                        let slept = sleep(HOUR).await;
                        saw(&seen, "told");
                        slept
                    })
                    .await;
                note(&seen, &outcome);
                outcome
            })
            .await;
        note(&seen, &outcome);
        assert_eq!(seen.take(), [("told", 1), ("cancelled", 1), ("timeout", 0)]);
        assert_eq!((outer.expired(), inner.expired()), (true, false));
        assert_eq!(now() - begin, 10 * MS);
        assert_eq!(get_running_loop()?.next_deadline(), None, "the inner timer is gone");
        Ok(())
    });
}

/// Both are told, one after the other: a retry inside of the outer limit does not outlive it.
#[test]
fn both_at_once() {
    run(async {
        for inner_is_older in [false, true] {
            let (seen, deadline) = (Seen::default(), now() + 10 * MS);
            let (outer, inner) =
                (Timeout::at(deadline), Timeout::at(if inner_is_older { deadline } else { now() + HOUR }));
            let outcome = outer
                .scope(async |outer| {
                    if inner_is_older {
                        outer.reschedule(now() + HOUR)?;
                    }
                    let outcome = inner
                        .scope(async |inner| {
                            inner.reschedule(deadline)?;
                            outer.reschedule(deadline)?;
                            sleep(HOUR).await
                        })
                        .await;
                    note(&seen, &outcome);
                    sleep(HOUR).await
                })
                .await;
            note(&seen, &outcome);
            assert_eq!(seen.take(), [("timeout", 1), ("timeout", 0)]);
            assert_eq!((outer.expired(), inner.expired()), (true, true));
            assert_eq!(now(), deadline);
        }
        Ok(())
    });
}

/// Whatever the inner body awaits: one cancellation of a task or a future may be all that there can be, and it is the
/// outer limit that must not be forgotten.
#[test]
fn both_at_once_around_what_is_cancelled_once() {
    run(async {
        for awaits in 0..4 {
            let (deadline, event_loop) = (now() + 10 * MS, get_running_loop()?);
            let future = event_loop.create_future::<()>();
            let task = event_loop.create_task(future.clone());
            let outcome = timeout_at(deadline, async {
                let inner = timeout_at(deadline, async {
                    match awaits {
                        0 => (&future).await,
                        1 => task.await,
                        2 => asyncio::gather((task,)).await.map(drop),
                        _ => asyncio::cancellable(std::future::pending()).await?,
                    }
                });
                match inner.await {
                    // Both were told as one, or the outer one has still to be told.
                    Err(error) if error.kind() == ErrorKind::Timeout => sleep(HOUR).await,
                    outcome => outcome,
                }
            });
            assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout), "{awaits}");
            assert_eq!((now(), own().cancelling()), (deadline, 0), "{awaits}");
            future.cancel();
        }
        Ok(())
    });
}

/// The outer limit passes while the inner body cleans up: that is no timeout of the inner one any more.
#[test]
fn the_outer_one_in_the_clean_up_of_the_inner_one() {
    run(async {
        let (seen, begin) = (Seen::default(), now());
        let (outer, inner) = (Timeout::new(30 * MS), Timeout::new(10 * MS));
        let outcome = outer
            .scope(async |_| {
                let outcome = inner
                    .scope(async |_| {
                        let slept = sleep(HOUR).await;
                        saw(&seen, "told");
                        let cleaned_up = sleep(HOUR).await;
                        saw(&seen, "told again");
                        cleaned_up.and(slept)
                    })
                    .await;
                note(&seen, &outcome);
                outcome
            })
            .await;
        note(&seen, &outcome);
        // As CPython's.
        assert_eq!(seen.take(), [("told", 1), ("told again", 2), ("cancelled", 1), ("timeout", 0)]);
        assert_eq!((outer.expired(), inner.expired()), (true, true));
        assert_eq!(now() - begin, 30 * MS);
        Ok(())
    });
}

/// So a loop of attempts ends when the limit of all of them does, also if an attempt is slow to give up.
#[test]
fn attempts_end_with_the_limit_of_all() {
    run(async {
        let (begin, attempts) = (now(), Cell::new(0));
        let outcome = timeout(25 * MS, async {
            loop {
                attempts.set(attempts.get() + 1);
                let attempt = timeout(10 * MS, async {
                    let slept = sleep(HOUR).await;
                    sleep(10 * MS).await?; // says goodbye
                    slept
                });
                match attempt.await {
                    Err(error) if error.kind() == ErrorKind::Timeout => {}
                    other => return other,
                }
            }
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
        // The second attempt was told at 25, and said goodbye until its own limit passed, too.
        assert_eq!((now() - begin, attempts.get()), (30 * MS, 2));
        Ok(())
    });
}

/// Time limits of a clean-up that runs because the outer limit has passed are their own.
#[test]
fn a_limit_inside_of_a_clean_up_is_its_own() {
    run(async {
        let (seen, begin) = (Seen::default(), now());
        let outcome = timeout(10 * MS, async {
            let slept = sleep(HOUR).await;
            note(&seen, &timeout(5 * MS, sleep(HOUR)).await);
            note(&seen, &timeout(5 * MS, sleep(MS)).await);
            slept
        });
        note(&seen, &outcome.await);
        assert_eq!(seen.take(), [("timeout", 1), ("ok", 1), ("timeout", 0)]);
        assert_eq!(now() - begin, 16 * MS);
        Ok(())
    });
}

/// A branch is told of the outer limit; the inner one in another branch goes on until its own time is over.
#[test]
fn a_limit_beside_the_one_who_was_told_goes_on() {
    run(async {
        let begin = now();
        let outcome = timeout(10 * MS, async {
            let (slept, inner) = futures::join!(sleep(HOUR), timeout(20 * MS, sleep(HOUR)));
            assert_eq!((kind(&slept), inner.is_err()), (Some(ErrorKind::Cancelled), true));
            slept
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
        assert_eq!((now() - begin, own().cancelling()), (20 * MS, 0));
        Ok(())
    });
}

/// The outer one's passes through a hundred in between.
#[test]
fn any_depth() {
    run(async {
        fn nest(depth: u32) -> std::pin::Pin<Box<dyn Future<Output = Result<()>>>> {
            if depth == 0 {
                return Box::pin(sleep(HOUR));
            }
            Box::pin(timeout(SECOND + depth * MS, nest(depth - 1)))
        }
        let begin = now();
        assert_eq!(kind(&timeout(10 * MS, nest(300)).await), Some(ErrorKind::Timeout));
        assert_eq!(now() - begin, 10 * MS);
        // The innermost one is the first here.
        assert_eq!(kind(&nest(300).await), Some(ErrorKind::Timeout));
        assert_eq!(now() - begin, SECOND + 11 * MS);
        assert_eq!(own().cancelling(), 0);
        Ok(())
    });
}

/// All of many that pass in one instant.
#[test]
fn many_at_once() {
    run(async {
        let deadline = now() + 10 * MS;
        let one = |body: std::pin::Pin<Box<dyn Future<Output = Result<()>>>>| {
            let body: std::pin::Pin<Box<dyn Future<Output = Result<()>>>> = Box::pin(timeout_at(deadline, body));
            body
        };
        let mut body: std::pin::Pin<Box<dyn Future<Output = Result<()>>>> = Box::pin(sleep(HOUR));
        for _ in 0..50 {
            body = one(body);
        }
        let outcome = body.await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        assert_eq!((now(), own().cancelling()), (deadline, 0));
        // And each told one after the other, where each is caught.
        let told = Cell::new(0);
        let outcome = timeout(5 * MS, async {
            let middle = timeout(5 * MS, async {
                let inner = timeout(5 * MS, async {
                    let slept = sleep(HOUR).await;
                    told.set(told.get() + 1);
                    slept
                });
                assert!(inner.await.is_err());
                let slept = sleep(HOUR).await;
                told.set(told.get() + 1);
                slept
            });
            assert!(middle.await.is_err());
            let slept = sleep(HOUR).await;
            told.set(told.get() + 1);
            slept
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
        assert_eq!((now() - deadline, told.get()), (5 * MS, 3));
        Ok(())
    });
}

/// No time at all, outside and inside.
#[test]
fn no_time_for_both() {
    run(async {
        let begin = now();
        let zero = Duration::ZERO;
        assert_eq!(kind(&timeout(zero, timeout(zero, sleep(zero))).await), Some(ErrorKind::Timeout));
        assert_eq!(kind(&timeout(HOUR, timeout(zero, sleep(zero))).await), Some(ErrorKind::Timeout));
        assert_eq!(kind(&timeout(zero, timeout(HOUR, sleep(zero))).await), Some(ErrorKind::Timeout));
        assert_eq!((now(), own().cancelling()), (begin, 0));
        Ok(())
    });
}
