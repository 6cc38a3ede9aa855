//! A timeout and a cancellation of its task, in one iteration and one after the other. Each row of numbers is what
//! the same program prints under CPython 3.13, unless it says otherwise.

use asyncio::{Error, Result, Timeout, create_task, get_running_loop, sleep};

use crate::{HOUR, MS, cancelled, now, own, run, support::Record};

#[derive(Clone, Copy, PartialEq)]
enum Order {
    CancelFirst,
    TimeoutFirst,
}

use Order::{CancelFirst, TimeoutFirst};

/// Lets the limit and the task's cancellation come in one iteration; gives what was seen, and who was told inside.
async fn both(order: Order, swallow: bool) -> Result<(Vec<String>, Option<String>)> {
    let seen = Record::default();
    let task = create_task(program(order, swallow, seen.clone()));
    let told = task.await?;
    Ok((seen.take(), told))
}

async fn program(order: Order, swallow: bool, seen: Record<String>) -> Result<Option<String>> {
    let (event_loop, task) = (get_running_loop()?, own());
    let deadline = now() + 10 * MS;
    let cancels = task.clone();
    let cancel = move || _ = cancels.cancel_with("msg");
    let mut cancel = Some(cancel);
    if order == CancelFirst {
        event_loop.call_at(deadline, cancel.take().unwrap());
    }
    let limit = Timeout::at(deadline);
    let mut told = None;
    let outcome = limit
        .scope(async |_| {
            if let Some(cancel) = cancel.take() {
                event_loop.call_at(deadline, cancel);
            }
            let slept = sleep(HOUR).await;
            seen.push(format!("told {}", task.cancelling()));
            told = cancelled(slept.clone()).message.map(|message| message.to_string());
            if !swallow {
                return slept;
            }
            sleep(10 * MS).await?;
            seen.push("slept".into());
            Ok(())
        })
        .await;
    seen.push(match &outcome {
        Ok(()) => "ok".into(),
        Err(Error::Cancelled(_)) => "cancelled".into(),
        Err(error) => error.to_string(),
    });
    seen.push(format!("{} {}", limit.expired(), task.cancelling()));
    sleep(10 * MS).await?;
    seen.push("slept".into());
    Ok(told)
}

#[test]
fn one_who_asks_the_task_wins_over_the_limit() {
    run(async {
        for order in [CancelFirst, TimeoutFirst] {
            let (seen, told) = both(order, false).await?;
            assert_eq!(seen, ["told 2", "cancelled", "true 1", "slept"]);
            // CPython tells what came first; here it is always the task's, with who asked and why.
            assert_eq!(told.as_deref(), Some("msg"));
        }
        Ok(())
    });
}

#[test]
fn both_are_swallowed_as_one() {
    run(async {
        for order in [CancelFirst, TimeoutFirst] {
            let (seen, _) = both(order, true).await?;
            assert_eq!(seen, ["told 2", "slept", "ok", "true 1", "slept"]);
        }
        Ok(())
    });
}

/// The task is cancelled while the body cleans up after the limit.
#[test]
fn a_cancellation_in_the_clean_up() {
    run(async {
        for takes_back in [false, true] {
            let task = create_task(async move {
                let (event_loop, task, seen) = (get_running_loop()?, own(), Record::<String>::default());
                let cancels = task.clone();
                event_loop.call_later(30 * MS, move || cancels.cancel_with("later"));
                let limit = Timeout::new(10 * MS);
                let outcome = limit
                    .scope(async |_| {
                        let slept = sleep(HOUR).await;
                        seen.push(format!("told {}", task.cancelling()));
                        let cleaned_up = sleep(HOUR).await;
                        let message = cancelled(cleaned_up.clone()).message;
                        seen.push(format!("told {} {:?}", task.cancelling(), message.as_deref()));
                        if takes_back {
                            task.uncancel();
                        }
                        cleaned_up.and(slept)
                    })
                    .await;
                seen.push(match &outcome {
                    Err(Error::Cancelled(cancelled)) => format!("cancelled {:?}", cancelled.message.as_deref()),
                    Err(error) => error.to_string(),
                    Ok(()) => "ok".into(),
                });
                seen.push(format!("{} {}", limit.expired(), task.cancelling()));
                Ok(seen.take())
            });
            let seen = task.await?;
            match takes_back {
                false => assert_eq!(seen, ["told 1", "told 2 Some(\"later\")", "cancelled Some(\"later\")", "true 1"]),
                true => assert_eq!(seen, ["told 1", "told 2 Some(\"later\")", "timed out", "true 0"]),
            }
        }
        Ok(())
    });
}

/// Two cancellations with messages, and a limit that does not pass.
#[test]
fn messages_pass_through_a_limit() {
    run(async {
        create_task(async {
            let (event_loop, task) = (get_running_loop()?, own());
            for (at, message) in [(10, "a"), (20, "b")] {
                let cancels = task.clone();
                event_loop.call_later(at * MS, move || cancels.cancel_with(message));
            }
            let limit = Timeout::new(HOUR);
            let outcome = limit
                .scope(async |_| {
                    assert_eq!(crate::message(sleep(HOUR).await).as_deref(), Some("a"));
                    assert_eq!(task.cancelling(), 1);
                    let slept = sleep(HOUR).await;
                    assert_eq!(crate::message(slept.clone()).as_deref(), Some("b"));
                    assert_eq!(task.cancelling(), 2);
                    slept
                })
                .await;
            assert_eq!(crate::message(outcome).as_deref(), Some("b"));
            assert_eq!((limit.expired(), task.cancelling()), (false, 2));
            assert_eq!([task.uncancel(), task.uncancel(), task.uncancel()], [1, 0, 0]);
            Ok(())
        })
        .await
    });
}

/// Taken back before it is delivered.
#[test]
fn a_cancellation_that_is_taken_back_in_the_body() {
    run(async {
        create_task(asyncio::timeout(HOUR, async {
            own().cancel();
            assert_eq!(own().uncancel(), 0);
            sleep(MS).await?;
            assert_eq!(own().cancelling(), 0);
            Ok(())
        }))
        .await
    });
}

/// The task is cancelled in the iteration after the limit has passed, before the body has gone on.
#[test]
fn a_cancellation_between_the_limit_and_the_step() {
    run(async {
        let task = create_task(async {
            let deadline = now() + 10 * MS;
            let (event_loop, task) = (get_running_loop()?, own());
            let next = event_loop.clone();
            event_loop.call_at(deadline, move || next.call_soon(move || task.cancel_with("m")));
            let outcome = asyncio::timeout_at(deadline, sleep(HOUR)).await;
            let first = match outcome {
                Err(Error::Cancelled(_)) => "cancelled",
                Err(_) => "timeout",
                Ok(()) => "ok",
            };
            assert_eq!(own().cancelling(), 1);
            // Wherever it was told, it was told once.
            let then = sleep(MS).await;
            Ok((first, then.is_ok()))
        });
        assert!(matches!(task.await?, ("cancelled", true) | ("timeout", false)));
        Ok(())
    });
}

/// A request that was made before the block does not hide the limit, one that is still to be delivered is delivered.
#[test]
fn a_cancellation_from_before_the_block() {
    run(async {
        let task = create_task(async {
            own().cancel_with("before");
            let limit = Timeout::new(10 * MS);
            let outcome = limit.scope(async |_| sleep(HOUR).await).await;
            assert_eq!((limit.expired(), own().cancelling()), (false, 1));
            outcome
        });
        assert_eq!(crate::message(task.await).as_deref(), Some("before"));
        Ok(())
    });
}
