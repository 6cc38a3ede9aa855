//! `aclose`: at each point where a body may be.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{
    AsyncGenerator, Canceller, Error, ErrorKind, async_generator, cancellable, create_task, current_task,
    get_running_loop, shielded, sleep, timeout,
};
use futures::{FutureExt, StreamExt, future, stream::FusedStream};

use crate::{
    run,
    support::{Gate, Record, deadline, drop_guard, failure, new_loop, virtual_loop},
};

const LONG: Duration = Duration::from_secs(3600);

/// Who asked for the cancellation that this is.
#[track_caller]
fn canceller<T: std::fmt::Debug>(outcome: asyncio::Result<T>) -> Option<Canceller> {
    match outcome {
        Err(Error::Cancelled(cancelled)) => cancelled.by,
        other => panic!("a cancellation was expected, not {other:?}"),
    }
}

/// AGEN-006
#[test]
fn closing_twice_or_after_the_end_is_ok_and_the_stream_ends() {
    run(async {
        let make = || {
            async_generator(async |numbers| {
                numbers.send(1).await?;
                numbers.send(2).await
            })
        };
        let mut numbers = make();
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        numbers.aclose().await?;
        numbers.aclose().await?;
        assert!(numbers.next().await.is_none());
        assert!(numbers.is_terminated());
        numbers.aclose().await?;

        let mut numbers = make();
        while let Some(number) = numbers.next().await {
            number?;
        }
        numbers.aclose().await?;
        numbers.aclose().await?;
        assert!(numbers.next().await.is_none());

        // After a failure, too.
        let mut numbers = async_generator(async |_: asyncio::Yielder<u8>| Err(Error::Value("no".into())));
        assert!(numbers.next().await.expect("the error").is_err());
        numbers.aclose().await?;
        assert!(numbers.next().await.is_none());
        Ok(())
    });
}

#[test]
fn one_that_has_not_begun_is_dropped_unpolled() {
    run(async {
        let (guard, dropped) = drop_guard();
        let mut numbers = async_generator(async move |numbers: asyncio::Yielder<u8>| {
            let _guard = guard;
            panic!("polled with {numbers:?}");
        });
        numbers.aclose().await?;
        assert!(dropped.get());
        assert!(numbers.next().await.is_none());
        numbers.aclose().await?;
        Ok(())
    });
    // Nor is a loop needed.
    let mut numbers = async_generator(async |numbers: asyncio::Yielder<u8>| numbers.send(1).await);
    futures::executor::block_on(numbers.aclose()).unwrap();
    assert!(futures::executor::block_on(numbers.next()).is_none());
}

#[test]
fn a_send_learns_of_it_and_the_clean_up_runs_to_its_end() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = async_generator(async move |numbers| {
            let sent = numbers.send(1).await;
            assert_eq!(canceller(sent.clone()), Some(Canceller::AsyncGenerator));
            seen.push("told");
            sleep(Duration::from_millis(1)).await?;
            sleep(Duration::from_millis(1)).await?;
            seen.push("cleaned up");
            sent?;
            seen.push("never");
            Ok(())
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        assert_eq!(record.len(), 0);
        numbers.aclose().await?;
        assert_eq!(record.take(), ["told", "cleaned up"]);
        Ok(())
    });
}

#[test]
fn a_body_that_swallows_it_and_ends_is_ok() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = async_generator(async move |numbers| {
            assert!(numbers.send(1).await.is_err());
            seen.push("goes on");
            Ok(())
        });
        numbers.next().await.transpose()?;
        numbers.aclose().await?;
        assert_eq!(record.take(), ["goes on"]);
        Ok(())
    });
}

#[test]
fn a_body_that_sends_another_item_has_ignored_it() {
    run(async {
        let expected = || (ErrorKind::Runtime, "async generator ignored GeneratorExit".to_owned());
        let (guard, dropped) = drop_guard();
        let mut numbers = async_generator(async move |numbers| {
            let _guard = guard;
            assert!(numbers.send(1).await.is_err());
            sleep(Duration::from_millis(1)).await?;
            let _ = numbers.send(12).await;
            panic!("it was dropped");
        });
        numbers.next().await.transpose()?;
        assert_eq!(failure(numbers.aclose().await), expected());
        assert!(dropped.get());
        assert!(numbers.next().await.is_none());
        numbers.aclose().await?;

        // At once, and under a waker of its own.
        let mut numbers = async_generator(async move |numbers| {
            assert!(numbers.send(1).await.is_err());
            let sends: futures::stream::FuturesUnordered<_> = (2..4).map(|number| numbers.send(number)).collect();
            sends.for_each(|_| future::ready(())).await;
            Ok(())
        });
        numbers.next().await.transpose()?;
        assert_eq!(failure(numbers.aclose().await), expected());

        // Where it was cancelled in an await of its own.
        let mut numbers = async_generator(async move |numbers| {
            assert!(sleep(LONG).await.is_err());
            numbers.send(1).await
        });
        assert!(numbers.next().now_or_never().is_none());
        assert_eq!(failure(numbers.aclose().await), expected());
        Ok(())
    });
}

#[test]
fn an_error_of_the_clean_up_comes_out() {
    run(async {
        let mut numbers = async_generator(async |numbers| {
            let _sent = numbers.send(1).await;
            sleep(Duration::ZERO).await?;
            Err(Error::Value("the server is gone".into()))
        });
        numbers.next().await.transpose()?;
        assert_eq!(failure(numbers.aclose().await), (ErrorKind::Value, "the server is gone".into()));
        assert!(numbers.next().await.is_none());
        numbers.aclose().await?;

        // A cancellation of another origin is an error like others.
        let mut numbers = async_generator(async |numbers| {
            let _sent = numbers.send(1).await;
            let task = create_task(async { sleep(LONG).await });
            sleep(Duration::ZERO).await?;
            task.cancel_with("mine");
            task.await
        });
        numbers.next().await.transpose()?;
        assert_eq!(failure(numbers.aclose().await), (ErrorKind::Cancelled, "mine".into()));
        Ok(())
    });
}

#[test]
fn a_panic_of_the_clean_up_comes_out() {
    run(async {
        let (guard, dropped) = drop_guard();
        let mut numbers = async_generator(async move |numbers| {
            let _guard = guard;
            let _sent = numbers.send(1).await;
            sleep(Duration::ZERO).await?;
            panic!("boom");
        });
        numbers.next().await.transpose()?;
        let task = create_task(async move { numbers.aclose().await });
        assert_eq!(failure(task.await), (ErrorKind::Panicked, "boom".into()));
        assert!(dropped.get());
        Ok(())
    });
}

#[test]
fn the_clean_up_may_await_a_task_that_fails() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = async_generator(async move |numbers| {
            let task = create_task(async {
                sleep(Duration::from_millis(1)).await?;
                Err::<(), _>(Error::Value("divided by zero".into()))
            });
            let sent = numbers.send(1).await;
            assert_eq!(failure(task.await).0, ErrorKind::Value);
            seen.push("awaited");
            sent
        });
        numbers.next().await.transpose()?;
        numbers.aclose().await?;
        assert_eq!(record.take(), ["awaited"]);
        Ok(())
    });
}

/// A generator whose next item was awaited and given up, in an await of this body.
async fn given_up(body: impl AsyncFnOnce() -> asyncio::Result<()> + 'static) -> asyncio::Result<AsyncGenerator<u8>> {
    let mut numbers = async_generator(async |numbers| {
        numbers.send(1).await?;
        body().await?;
        numbers.send(2).await
    });
    assert_eq!(numbers.next().await.transpose()?, Some(1));
    assert!(numbers.next().now_or_never().is_none());
    Ok(numbers)
}

#[test]
fn what_the_body_awaits_elsewhere_is_cancelled() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = given_up(async move || {
            let slept = sleep(LONG).await;
            assert_eq!(canceller(slept.clone()), Some(Canceller::AsyncGenerator));
            sleep(Duration::from_millis(1)).await?;
            seen.push("cleaned up");
            slept
        })
        .await?;
        numbers.aclose().await?;
        assert_eq!(record.take(), ["cleaned up"]);
        assert!(numbers.next().await.is_none());
        Ok(())
    });
}

#[test]
fn an_awaited_task_is_cancelled_and_waited_for() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = given_up(async move || {
            let inside = seen.clone();
            let task = create_task(async move {
                let slept = sleep(LONG).await;
                inside.push("the task");
                sleep(Duration::from_millis(1)).await?;
                slept
            });
            let outcome = task.await;
            assert_eq!(canceller(outcome.clone()), Some(Canceller::AsyncGenerator));
            seen.push("the body");
            outcome
        })
        .await?;
        sleep(Duration::ZERO).await?;
        numbers.aclose().await?;
        assert_eq!(record.take(), ["the task", "the body"]);
        Ok(())
    });
}

#[test]
fn an_awaited_future_is_cancelled() {
    run(async {
        let future = get_running_loop()?.create_future::<()>();
        let awaited = future.clone();
        let mut numbers = given_up(async move || awaited.await).await?;
        numbers.aclose().await?;
        assert!(future.cancelled());
        Ok(())
    });
}

#[test]
fn one_with_foreign_futures_alone_is_dropped() {
    run(async {
        let (guard, dropped) = drop_guard();
        let gate = Gate::default();
        let inside = gate.clone();
        let mut numbers = given_up(async move || {
            let _guard = guard;
            inside.await;
            Ok(())
        })
        .await?;
        numbers.aclose().await?;
        assert!(dropped.get());
        assert!(numbers.next().await.is_none());

        // Unless it is wrapped.
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = given_up(async move || {
            let outcome = cancellable(future::pending::<()>()).await;
            seen.push("cancelled");
            outcome
        })
        .await?;
        numbers.aclose().await?;
        assert_eq!(record.take(), ["cancelled"]);
        Ok(())
    });
}

#[test]
fn a_shielded_section_ends_first() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = given_up(async move || {
            shielded(sleep(Duration::from_millis(2))).await?;
            seen.push("section");
            let slept = sleep(LONG).await;
            assert_eq!(canceller(slept.clone()), Some(Canceller::AsyncGenerator));
            seen.push("cancelled");
            slept
        })
        .await?;
        numbers.aclose().await?;
        assert_eq!(record.take(), ["section", "cancelled"]);

        // An item is as good a place to hear of it.
        let mut numbers = given_up(async move || shielded(sleep(Duration::from_millis(2))).await).await?;
        numbers.aclose().await?;
        Ok(())
    });
}

#[test]
fn a_timeout_inside_tells_it_from_its_own() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = given_up(async move || {
            let outcome = timeout(LONG, sleep(LONG)).await;
            assert_eq!(canceller(outcome.clone()), Some(Canceller::AsyncGenerator));
            // And timeouts of the clean-up work.
            let outcome_of_cleanup = timeout(Duration::from_millis(1), sleep(LONG)).await;
            assert_eq!(outcome_of_cleanup.unwrap_err().kind(), ErrorKind::Timeout);
            seen.push("cleaned up");
            outcome
        })
        .await?;
        numbers.aclose().await?;
        assert_eq!(record.take(), ["cleaned up"]);
        let task = current_task()?.expect("in a task");
        assert_eq!(task.cancelling(), 0);
        sleep(Duration::ZERO).await?;
        Ok(())
    });
}

#[test]
fn in_an_inner_generator_it_comes_through() {
    run(async {
        let record = Record::default();
        let (seen, inside) = (record.clone(), record.clone());
        let mut outer = async_generator(async move |numbers| {
            let mut inner = async_generator(async move |numbers| {
                numbers.send(1).await?;
                let slept = sleep(LONG).await;
                sleep(Duration::from_millis(1)).await?;
                inside.push("inner");
                slept
            });
            while let Some(number) = inner.next().await {
                match number {
                    Ok(number) => numbers.send(number).await?,
                    Err(error) => {
                        sleep(Duration::from_millis(1)).await?;
                        seen.push("outer");
                        return Err(error);
                    }
                }
            }
            Ok(())
        });
        assert_eq!(outer.next().await.transpose()?, Some(1));
        assert!(outer.next().now_or_never().is_none());
        outer.aclose().await?;
        assert_eq!(record.take(), ["inner", "outer"]);
        Ok(())
    });
}

#[test]
fn an_outer_generator_may_close_an_inner_one() {
    run(async {
        let record = Record::default();
        let (seen, inside) = (record.clone(), record.clone());
        let mut outer = async_generator(async move |numbers| {
            let mut inner = async_generator(async move |numbers| {
                let sent = numbers.send(1).await;
                sleep(Duration::from_millis(1)).await?;
                inside.push("inner");
                sent
            });
            let number = inner.next().await.expect("one")?;
            let sent = numbers.send(number).await;
            inner.aclose().await?;
            seen.push("outer");
            sent
        });
        assert_eq!(outer.next().await.transpose()?, Some(1));
        outer.aclose().await?;
        assert_eq!(record.take(), ["inner", "outer"]);
        Ok(())
    });
}

#[test]
fn the_clean_up_takes_the_cancellation_of_who_closes() {
    run(async {
        for mid_await in [false, true] {
            let record = Record::default();
            let seen = record.clone();
            let mut numbers = async_generator(async move |numbers| {
                let told = if mid_await { sleep(LONG).await } else { numbers.send(1).await };
                assert_eq!(canceller(told), Some(Canceller::AsyncGenerator));
                seen.push("told");
                let slept = sleep(LONG).await;
                assert!(matches!(canceller(slept.clone()), Some(Canceller::Task(_))));
                seen.push("cancelled");
                sleep(Duration::from_millis(1)).await?;
                seen.push("ended");
                slept
            });
            let _ = numbers.next().now_or_never();
            let task = create_task(async move {
                let closed = numbers.aclose().await;
                assert!(numbers.is_terminated());
                numbers.aclose().await?;
                closed
            });
            sleep(Duration::from_millis(1)).await?;
            assert_eq!(record.items(), ["told"]);
            task.cancel_with("hurry");
            assert_eq!(failure(task.await), (ErrorKind::Cancelled, "hurry".into()));
            assert_eq!(record.take(), ["told", "cancelled", "ended"]);
        }
        Ok(())
    });
}

#[test]
fn under_a_timeout_the_clean_up_is_cut_short() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    event_loop
        .run_until_complete(async {
            let mut numbers = async_generator(async |numbers| {
                let sent = numbers.send(1).await;
                let slept = sleep(LONG).await;
                assert_eq!(canceller(slept.clone()), Some(Canceller::Timeout));
                slept.and(sent)
            });
            numbers.next().await.transpose()?;
            let closed = timeout(Duration::from_secs(1), numbers.aclose()).await;
            assert_eq!(closed.unwrap_err().kind(), ErrorKind::Timeout);
            assert!(numbers.next().await.is_none());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_close_that_is_given_up_can_be_taken_up_again() {
    run(async {
        for mid_await in [false, true] {
            let record = Record::default();
            let seen = record.clone();
            let gate = Gate::default();
            let inside = gate.clone();
            let mut numbers = async_generator(async move |numbers| {
                let told = if mid_await { sleep(LONG).await } else { numbers.send(1).await };
                seen.push("told");
                cancellable(inside).await?;
                // Not cancelled once more.
                sleep(Duration::from_millis(1)).await?;
                seen.push("cleaned up");
                told
            });
            let _ = numbers.next().now_or_never();
            for _ in 0..3 {
                assert!(numbers.aclose().now_or_never().is_none());
                assert!(!numbers.is_terminated());
            }
            let task = current_task()?.expect("in a task");
            assert_eq!(task.cancelling(), 0);
            assert_eq!(record.items(), ["told"]);
            gate.open();
            if mid_await {
                numbers.aclose().await?;
            } else {
                // Who iterates goes on with it as well.
                assert!(numbers.next().await.is_none());
            }
            assert_eq!(record.take(), ["told", "cleaned up"]);
            assert!(numbers.next().await.is_none());
        }
        Ok(())
    });
}

#[test]
fn a_close_that_is_given_up_before_the_body_heard_of_it_is_told_again() {
    run(async {
        let gate = Gate::default();
        let inside = gate.clone();
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = given_up(async move || {
            shielded(async {
                inside.await;
                Ok(())
            })
            .await?;
            let slept = sleep(LONG).await;
            seen.push("told");
            slept
        })
        .await?;
        assert!(numbers.aclose().now_or_never().is_none());
        gate.open();
        numbers.aclose().await?;
        assert_eq!(record.take(), ["told"]);

        // Or it is not closed after all.
        let gate = Gate::default();
        let inside = gate.clone();
        let mut numbers = given_up(async move || {
            shielded(async {
                inside.await;
                Ok(())
            })
            .await
        })
        .await?;
        assert!(numbers.aclose().now_or_never().is_none());
        gate.open();
        assert_eq!(numbers.next().await.transpose()?, Some(2));
        numbers.aclose().await?;
        Ok(())
    });
}

#[test]
fn outside_of_a_task_a_body_that_waits_cannot_be_cancelled() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let numbers = Rc::new(RefCell::new(None));
    let kept = numbers.clone();
    event_loop
        .run_until_complete(async move {
            kept.replace(Some(given_up(async || sleep(LONG).await).await?));
            Ok(())
        })
        .unwrap();
    let closed = event_loop.call_soon(move || {
        let mut numbers = numbers.take().expect("it was kept");
        let closed = numbers.aclose().now_or_never();
        (numbers, closed)
    });
    let (mut numbers, closed) = event_loop.run_until_complete(closed).unwrap();
    assert_eq!(failure(closed.expect("at once")).0, ErrorKind::Runtime);
    event_loop.run_until_complete(async { numbers.aclose().await }).unwrap();
}

#[test]
fn another_loop_cannot_close_it() {
    let _deadline = deadline();
    let (first, second) = (new_loop(), new_loop());
    let record = Record::default();
    let seen = record.clone();
    let mut numbers = async_generator(async move |numbers| {
        let sent = numbers.send(1).await;
        sleep(Duration::ZERO).await?;
        seen.push("cleaned up");
        sent
    });
    first.run_until_complete(async { numbers.next().await.transpose() }).unwrap();
    assert_eq!(failure(second.run_until_complete(numbers.aclose())).0, ErrorKind::Value);
    assert_eq!(failure(futures::executor::block_on(numbers.aclose())).0, ErrorKind::Runtime);
    assert_eq!(record.len(), 0);
    first.run_until_complete(numbers.aclose()).unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
    second.run_until_complete(numbers.aclose()).unwrap();
}

#[test]
fn pending_sends_are_all_told() {
    run(async {
        let mut numbers = async_generator(async |numbers| {
            let (one, two, three) = futures::join!(numbers.send(1), numbers.send(2), numbers.send(3));
            assert!(one.is_ok());
            assert_eq!(canceller(two), Some(Canceller::AsyncGenerator));
            assert_eq!(canceller(three.clone()), Some(Canceller::AsyncGenerator));
            three
        });
        assert_eq!(numbers.next().await.transpose()?, Some(1));
        assert_eq!(numbers.next().await.transpose()?, Some(2));
        numbers.aclose().await?;

        let mut numbers = async_generator(async |numbers| {
            let sends: futures::stream::FuturesUnordered<_> = (0..5).map(|number| numbers.send(number)).collect();
            let outcomes: Vec<_> = sends.collect().await;
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
            Ok(())
        });
        numbers.next().await.transpose()?;
        numbers.next().await.transpose()?;
        numbers.aclose().await?;
        Ok(())
    });
}

#[test]
fn the_task_that_closes_is_not_cancelled_by_it() {
    run(async {
        let task = create_task(async {
            let mut numbers = given_up(async || {
                let slept = sleep(LONG).await;
                sleep(Duration::ZERO).await?;
                slept
            })
            .await?;
            numbers.aclose().await?;
            let task = current_task()?.expect("in a task");
            assert_eq!(task.cancelling(), 0);
            sleep(Duration::from_millis(1)).await?;
            Ok(5)
        });
        assert_eq!(task.await?, 5);
        Ok(())
    });
}
