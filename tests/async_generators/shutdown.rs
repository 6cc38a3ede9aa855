//! `shutdown_asyncgens`, called by hand and by `run`.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use asyncio::{
    AsyncGenerator, Canceller, Error, ErrorKind, EventLoop, Runner, async_generator, create_task, get_running_loop,
    shielded, sleep, timeout,
};
use futures::{FutureExt, StreamExt, future, stream::FusedStream};

use crate::{
    run,
    support::{Record, deadline, failure, handler, logs, new_loop, tick, virtual_loop},
};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

fn shut_down(event_loop: &EventLoop) {
    event_loop.run_until_complete(event_loop.shutdown_asyncgens()).unwrap();
}

/// Sends 1 and, when it is closed, cleans up for `pause`.
fn cleans_up(record: &Record, pause: Duration) -> AsyncGenerator<u8> {
    let record = record.clone();
    async_generator(async move |numbers| {
        let sent = numbers.send(1).await;
        sleep(pause).await?;
        record.push("cleaned up");
        sent
    })
}

/// Who asked for the cancellation that this is.
#[track_caller]
fn canceller<T: std::fmt::Debug>(outcome: asyncio::Result<T>) -> Option<Canceller> {
    match outcome {
        Err(Error::Cancelled(cancelled)) => cancelled.by,
        other => panic!("a cancellation was expected, not {other:?}"),
    }
}

/// Sleeps before it sends, and cleans up with so many awaits.
fn waits(record: &Record, steps: u32) -> AsyncGenerator<u8> {
    let record = record.clone();
    async_generator(async move |numbers| {
        let sent = match sleep(SECOND).await {
            Ok(()) => numbers.send(1).await,
            cancelled => cancelled,
        };
        for _ in 0..steps {
            sleep(Duration::ZERO).await?;
        }
        record.push("cleaned up");
        sent
    })
}

/// AGEN-002
#[test]
fn generators_of_cancelled_tasks_clean_up_to_the_end() {
    let _deadline = deadline();
    for steps in [0, 1, 2, 30] {
        let (event_loop, _) = virtual_loop();
        let reports = handler(&event_loop);
        let record = Record::default();
        let iterate = || {
            let mut numbers = waits(&record, steps);
            event_loop.create_task(async move {
                while let Some(number) = numbers.next().await {
                    number?;
                }
                Ok(())
            })
        };
        let (first, second) = (iterate(), iterate());
        event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
        first.cancel();
        second.cancel();
        shut_down(&event_loop);
        assert_eq!(record.take(), ["cleaned up", "cleaned up"]);
        // Each by the cancellation of its own task, which saw it.
        tick(&event_loop);
        assert!(first.cancelled() && second.cancelled());
        event_loop.close().unwrap();
        assert_eq!(reports.len(), 0);
    }
}

#[test]
fn those_whose_tasks_have_ended_are_cleaned_up_before() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let mut numbers = waits(&record, 1);
    let task = event_loop.create_task(async move { numbers.next().await.transpose() });
    event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
    task.cancel();
    assert!(event_loop.run_until_complete(task).unwrap_err().is_cancelled());
    assert_eq!(record.take(), ["cleaned up"]);
    shut_down(&event_loop);
    assert_eq!(record.len(), 0);
    event_loop.close().unwrap();
}

/// AGEN-004
#[test]
fn a_generator_that_begins_too_late_works_with_a_warning() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let line = line!() + 2;
    let make = || {
        async_generator(async |numbers| {
            numbers.send(1).await?;
            numbers.send(2).await
        })
    };
    let mut early = make();
    let ((), records) = logs(|| {
        event_loop.run_until_complete(async { early.next().await.transpose() }).unwrap();
        shut_down(&event_loop);
    });
    assert_eq!(records, []);
    let mut late = make();
    let (items, records) = logs(|| {
        event_loop
            .run_until_complete(async {
                let mut items = Vec::new();
                while let Some(item) = late.next().await {
                    items.push(item?);
                }
                Ok(items)
            })
            .unwrap()
    });
    assert_eq!(items, [1, 2]);
    assert_eq!(records.len(), 1);
    let (level, text) = &records[0];
    assert_eq!(*level, tracing::Level::WARN);
    assert!(text.starts_with("asynchronous generator <AsyncGenerator new "), "{text}");
    assert!(text.ends_with(" was scheduled after loop.shutdown_asyncgens() call"), "{text}");
    assert!(text.contains(&format!("{}:{line}:", file!())), "{text}");

    // One for each generator; one that is never polled has none; and the next call closes it.
    let (mut other, unused) = (make(), make());
    let ((), records) = logs(|| {
        event_loop.run_until_complete(async { other.next().await.transpose() }).unwrap();
        drop(unused);
    });
    assert_eq!(records.len(), 1);
    let ((), records) = logs(|| shut_down(&event_loop));
    assert_eq!(records, []);
    assert!(other.is_terminated());
    event_loop.close().unwrap();
}

#[test]
fn all_are_closed_side_by_side_and_waited_for() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let mut open: Vec<_> = (0..10).map(|_| cleans_up(&record, SECOND)).collect();
    let mut waiting: Vec<_> = (0..10).map(|_| waits(&record, 3)).collect();
    let not_begun = cleans_up(&record, SECOND);
    event_loop
        .run_until_complete(async {
            for numbers in &mut open {
                numbers.next().await.transpose()?;
            }
            for numbers in &mut waiting {
                assert!(numbers.next().now_or_never().is_none());
            }
            Ok(())
        })
        .unwrap();
    let begin = event_loop.time();
    shut_down(&event_loop);
    assert_eq!(event_loop.time() - begin, SECOND);
    assert_eq!(record.take().len(), 20);
    assert!(open.iter().chain(&waiting).all(AsyncGenerator::is_terminated));
    assert!(!not_begun.is_terminated());
    assert_eq!(event_loop.all_tasks(), []);
    // There is nothing left to do.
    shut_down(&event_loop);
    assert_eq!(record.len(), 0);
    event_loop.close().unwrap();
    assert_eq!(reports.len(), 0);
}

#[test]
fn errors_and_panics_of_clean_ups_are_reported_one_by_one() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let line = line!() + 2;
    let make = |error: Option<Error>| {
        async_generator(async move |numbers| {
            let _sent = numbers.send(1).await;
            sleep(Duration::ZERO).await?;
            Err(error.expect("boom"))
        })
    };
    let mut open =
        vec![make(Some(Error::Value("divided by zero".into()))), make(None), cleans_up(&record, SECOND / 1000)];
    event_loop
        .run_until_complete(async {
            for numbers in &mut open {
                numbers.next().await.transpose()?;
            }
            Ok(())
        })
        .unwrap();
    shut_down(&event_loop);
    assert_eq!(record.take(), ["cleaned up"]);
    let seen = reports.take();
    assert_eq!(seen.len(), 2);
    for (report, kind) in seen.iter().zip([ErrorKind::Value, ErrorKind::Panicked]) {
        let start = "an error occurred during closing of asynchronous generator <AsyncGenerator ";
        assert!(report.message.starts_with(start), "{}", report.message);
        assert_eq!(report.exception.as_ref().map(Error::kind), Some(kind));
        assert_eq!(report.keys(), ["asyncgen", "exception", "message"]);
        assert!(report.extra["asyncgen"].contains(&format!("{}:{line}:", file!())));
        assert_eq!(report.source_location.map(|location| location.line()), Some(line));
    }
    event_loop.close().unwrap();
    assert_eq!(reports.len(), 0);
}

#[test]
fn one_that_ignores_it_is_reported_and_dropped() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let mut numbers = async_generator(async |numbers| {
        loop {
            let _sent = numbers.send(1).await;
        }
    });
    event_loop.run_until_complete(async { numbers.next().await.transpose() }).unwrap();
    shut_down(&event_loop);
    let seen = reports.take();
    assert_eq!(seen.len(), 1);
    let text = seen[0].exception.as_ref().map(ToString::to_string);
    assert_eq!(text.as_deref(), Some("async generator ignored GeneratorExit"));
    assert!(numbers.is_terminated());
}

#[test]
fn who_awaits_an_item_meanwhile_is_told_that_it_is_not_the_end() {
    run(async {
        let record = Record::default();
        for swallows in [false, true] {
            let seen = record.clone();
            let mut numbers = async_generator(async move |numbers| {
                numbers.send(1).await?;
                let slept = sleep(LONG).await;
                assert_eq!(canceller(slept.clone()), Some(Canceller::AsyncGenerator));
                seen.push("told");
                sleep(Duration::from_millis(2)).await?;
                seen.push("cleaned up");
                if swallows { Ok(()) } else { slept }
            });
            let inside = record.clone();
            let task = create_task(async move {
                let mut items = Vec::new();
                let ended = loop {
                    match numbers.next().await {
                        Some(Ok(item)) => items.push(item),
                        Some(Err(error)) => {
                            assert!(numbers.is_terminated());
                            assert!(numbers.next().await.is_none());
                            break Err(error);
                        }
                        None => break Ok(items),
                    }
                };
                inside.push("the end");
                ended
            });
            sleep(Duration::ZERO).await?;
            get_running_loop()?.shutdown_asyncgens().await?;
            let outcome = task.await;
            if swallows {
                assert_eq!(outcome?, [1]);
            } else {
                assert_eq!(canceller(outcome), Some(Canceller::AsyncGenerator));
            }
            assert_eq!(record.take(), ["told", "cleaned up", "the end"]);
        }

        // Also where nobody could take the cancellation.
        let mut numbers = async_generator(async |_: asyncio::Yielder<u8>| {
            future::pending::<()>().await;
            Ok(())
        });
        let task = create_task(async move { numbers.next().await.transpose() });
        sleep(Duration::ZERO).await?;
        get_running_loop()?.shutdown_asyncgens().await?;
        assert_eq!(canceller(task.await), Some(Canceller::AsyncGenerator));

        // Who has given the item up has come to the end.
        let mut numbers = waits(&record, 1);
        assert!(numbers.next().now_or_never().is_none());
        get_running_loop()?.shutdown_asyncgens().await?;
        assert_eq!(record.take(), ["cleaned up"]);
        assert!(numbers.is_terminated());
        assert!(numbers.next().await.is_none());

        // And who has taken it.
        let mut numbers = cleans_up(&record, Duration::ZERO);
        numbers.next().await.transpose()?;
        get_running_loop()?.shutdown_asyncgens().await?;
        assert!(numbers.next().await.is_none());
        Ok(())
    });
}

#[test]
fn who_awaits_an_item_while_it_is_closed_can_be_cancelled() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = async_generator(async move |numbers: asyncio::Yielder<u8>| {
            let slept = sleep(LONG).await;
            sleep(Duration::from_millis(2)).await?;
            seen.push("cleaned up");
            drop(numbers);
            slept
        });
        let task = create_task(async move {
            let item = numbers.next().await.transpose();
            assert!(!numbers.is_terminated());
            item
        });
        let closing = create_task(get_running_loop()?.shutdown_asyncgens());
        sleep(Duration::from_millis(1)).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(record.len(), 0);
        closing.await?;
        assert_eq!(record.take(), ["cleaned up"]);
        Ok(())
    });
}

#[test]
fn a_task_that_is_being_cancelled_is_waited_for() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    // A long clean-up, under the task's own cancellation.
    let make = |end: &'static str| {
        let seen = record.clone();
        async_generator(async move |numbers: asyncio::Yielder<u8>| {
            let slept = sleep(LONG).await;
            let Err(Error::Cancelled(cancelled)) = &slept else { panic!("it was cancelled") };
            assert!(!matches!(cancelled.by, Some(Canceller::AsyncGenerator)));
            sleep(SECOND).await?;
            seen.push("cleaned up");
            drop(numbers);
            if end == "ok" { Ok(()) } else { slept }
        })
    };
    // Whether or not it has seen the cancellation when the shutdown begins.
    for (end, ticks) in [("ok", 0), ("ok", 2), ("error", 0), ("error", 2)] {
        let mut numbers = make(end);
        let task = event_loop.create_task(async move { numbers.next().await.transpose() });
        tick(&event_loop);
        task.cancel();
        for _ in 0..ticks {
            tick(&event_loop);
        }
        let begin = event_loop.time();
        event_loop
            .run_until_complete(async {
                // Before the task's own next step.
                get_running_loop()?.shutdown_asyncgens().await
            })
            .unwrap();
        assert_eq!(event_loop.time() - begin, SECOND);
        assert_eq!(record.take(), ["cleaned up"]);
        tick(&event_loop);
        assert_eq!(task.cancelled(), end == "error");
    }
    event_loop.close().unwrap();
}

#[test]
fn a_task_that_swallows_its_cancellation_and_iterates_on_is_closed_at_the_next_item() {
    run(async {
        let record = Record::default();
        let seen = record.clone();
        let mut numbers = async_generator(async move |numbers| {
            assert!(sleep(LONG).await.is_err());
            sleep(Duration::from_millis(1)).await?;
            let sent = numbers.send(1).await;
            seen.push("told");
            sent
        });
        let task = create_task(async move {
            let item = numbers.next().await.transpose()?;
            sleep(Duration::from_millis(1)).await?;
            assert!(numbers.next().await.is_none());
            Ok(item)
        });
        sleep(Duration::ZERO).await?;
        task.cancel();
        sleep(Duration::ZERO).await?;
        get_running_loop()?.shutdown_asyncgens().await?;
        assert_eq!(record.take(), ["told"]);
        assert_eq!(task.await?, Some(1));
        Ok(())
    });
}

#[test]
fn a_cancelled_task_that_has_let_go_does_not_hold_it_up() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();

    // It keeps the generator, and ends.
    let seen = record.clone();
    let kept = Rc::new(RefCell::new(None));
    let place = kept.clone();
    event_loop
        .run_until_complete(async move {
            let mut numbers = waits(&seen, 1);
            let task = create_task(async move {
                assert!(numbers.next().now_or_never().is_none());
                let slept = sleep(LONG).await;
                place.replace(Some(numbers));
                let _ = sleep(SECOND).await;
                slept
            });
            sleep(Duration::ZERO).await?;
            task.cancel();
            sleep(Duration::ZERO).await?;
            get_running_loop()?.shutdown_asyncgens().await?;
            assert!(!task.done(), "nobody waits for it");
            assert!(task.await.unwrap_err().is_cancelled());
            Ok(())
        })
        .unwrap();
    let mut numbers = kept.take().expect("it was kept");
    let told =
        event_loop.run_until_complete(async { Ok((numbers.next().await, numbers.next().await.is_none())) }).unwrap();
    assert!(matches!(told, (Some(Err(error)), true) if error.is_cancelled()), "what it had asked for, and the end");
    assert_eq!(record.take(), ["cleaned up"]);

    // It drops the generator, and goes on.
    let seen = record.clone();
    event_loop
        .run_until_complete(async move {
            let mut numbers = waits(&seen, 1);
            let task = create_task(async move {
                assert!(numbers.next().now_or_never().is_none());
                assert!(sleep(LONG).await.is_err());
                sleep(SECOND).await?;
                drop(numbers);
                sleep(LONG).await
            });
            sleep(Duration::ZERO).await?;
            task.cancel();
            sleep(Duration::ZERO).await?;
            let begin = get_running_loop()?.time();
            get_running_loop()?.shutdown_asyncgens().await?;
            assert_eq!(get_running_loop()?.time(), begin, "nobody waits for it");
            assert!(!task.done());
            task.cancel();
            assert!(task.await.is_err());
            Ok(())
        })
        .unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
    event_loop.close().unwrap();
}

#[test]
fn a_cancelled_task_may_shut_down_itself() {
    run(async {
        let record = Record::default();
        // By itself, and by a task that it awaits.
        for through_a_task in [false, true] {
            let seen = record.clone();
            let task = create_task(async move {
                let mut numbers = waits(&seen, 1);
                assert!(numbers.next().now_or_never().is_none());
                let slept = sleep(LONG).await;
                let closing = get_running_loop()?.shutdown_asyncgens();
                if through_a_task {
                    create_task(closing).await?;
                } else {
                    closing.await?;
                }
                assert!(numbers.is_terminated());
                slept
            });
            sleep(Duration::ZERO).await?;
            task.cancel();
            assert!(task.await.unwrap_err().is_cancelled());
            assert_eq!(record.take(), ["cleaned up"]);
        }
        Ok(())
    });
}

#[test]
fn a_body_that_shuts_down_is_reported_as_running() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let mut other = cleans_up(&record, Duration::ZERO);
    let mut numbers = async_generator(async |numbers| {
        get_running_loop()?.shutdown_asyncgens().await?;
        numbers.send(1).await
    });
    event_loop
        .run_until_complete(async {
            other.next().await.transpose()?;
            assert_eq!(numbers.next().await.transpose()?, Some(1));
            assert!(numbers.next().await.is_none());
            Ok(())
        })
        .unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
    let seen = reports.take();
    assert_eq!(seen.len(), 1);
    let text = seen[0].exception.as_ref().map(ToString::to_string);
    assert_eq!(text.as_deref(), Some("aclose(): asynchronous generator is already running"));
}

#[test]
fn nested_generators_are_closed_whatever_the_order() {
    run(async {
        let record = Record::default();
        // All the way down it is one await, which was given up.
        fn nested(depth: u32, record: &Record) -> AsyncGenerator<u32> {
            let record = record.clone();
            async_generator(async move |numbers| {
                let ended = if depth == 0 {
                    sleep(LONG).await
                } else {
                    let mut inner = nested(depth - 1, &record);
                    match inner.next().await {
                        Some(Ok(number)) => numbers.send(number).await,
                        Some(Err(error)) => Err(error),
                        None => Ok(()),
                    }
                };
                sleep(Duration::ZERO).await?;
                record.push("cleaned up");
                ended
            })
        }
        let mut numbers = nested(4, &record);
        assert!(numbers.next().now_or_never().is_none());
        get_running_loop()?.shutdown_asyncgens().await?;
        assert_eq!(record.take(), ["cleaned up"; 5]);
        assert!(numbers.is_terminated());
        Ok(())
    });
}

#[test]
fn who_closes_it_at_the_same_time_waits_as_well() {
    run(async {
        let record = Record::default();
        let mut numbers = cleans_up(&record, Duration::from_millis(2));
        numbers.next().await.transpose()?;
        let event_loop = get_running_loop()?;
        let (one, two, three) =
            futures::join!(event_loop.shutdown_asyncgens(), numbers.aclose(), event_loop.shutdown_asyncgens());
        one.and(two).and(three)?;
        assert_eq!(record.take(), ["cleaned up"]);

        // It takes over what the other one gives up.
        let mut numbers = cleans_up(&record, Duration::from_millis(2));
        numbers.next().await.transpose()?;
        let closing = create_task(async move {
            let closed = numbers.aclose().await;
            Ok((numbers, closed.is_ok()))
        });
        sleep(Duration::ZERO).await?;
        let waiting = create_task(event_loop.shutdown_asyncgens());
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        assert!(!waiting.done());
        drop(closing);
        waiting.await?;
        assert_eq!(record.take(), ["cleaned up"]);

        let mut numbers = cleans_up(&record, Duration::from_millis(2));
        numbers.next().await.transpose()?;
        let mut given_up = Box::pin(numbers.aclose());
        assert!(future::poll_immediate(&mut given_up).await.is_none());
        let waiting = create_task(event_loop.shutdown_asyncgens());
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        drop(given_up);
        waiting.await?;
        assert_eq!(record.take(), ["cleaned up"]);
        Ok(())
    });
}

#[test]
fn its_cancellation_goes_to_all_clean_ups() {
    run(async {
        let record = Record::default();
        let make = || {
            let seen = record.clone();
            async_generator(async move |numbers| {
                let _sent = numbers.send(1).await;
                let slept = sleep(LONG).await;
                assert_eq!(failure(slept.clone()), (ErrorKind::Cancelled, "hurry".into()));
                sleep(Duration::ZERO).await?;
                seen.push("hurried");
                slept
            })
        };
        let mut open = [make(), make(), make()];
        for numbers in &mut open {
            numbers.next().await.transpose()?;
        }
        let task = create_task(get_running_loop()?.shutdown_asyncgens());
        sleep(Duration::from_millis(1)).await?;
        task.cancel_with("hurry");
        assert_eq!(failure(task.await), (ErrorKind::Cancelled, "hurry".into()));
        assert_eq!(record.take(), ["hurried"; 3]);
        assert!(open.iter().all(AsyncGenerator::is_terminated));
        Ok(())
    });
}

#[test]
fn under_a_timeout_it_ends_in_time() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    event_loop
        .run_until_complete(async {
            let mut numbers = cleans_up(&record, LONG);
            numbers.next().await.transpose()?;
            let outcome = timeout(SECOND, get_running_loop()?.shutdown_asyncgens()).await;
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
            assert!(numbers.is_terminated());

            // And in a shielded section it takes the time that it needs.
            let mut numbers = cleans_up(&record, LONG);
            numbers.next().await.transpose()?;
            let outcome = timeout(SECOND, shielded(get_running_loop()?.shutdown_asyncgens())).await;
            assert!(outcome.is_ok());
            Ok(())
        })
        .unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
    event_loop.close().unwrap();
}

#[test]
fn with_nothing_open_it_takes_no_iteration() {
    let event_loop = new_loop();
    assert!(
        event_loop
            .run_until_complete(async { Ok(get_running_loop()?.shutdown_asyncgens().now_or_never()) })
            .is_ok_and(|closed| closed.is_some_and(|closed| closed.is_ok()))
    );
    event_loop.close().unwrap();
    assert_eq!(failure(new_loop().run_until_complete(event_loop.shutdown_asyncgens())).0, ErrorKind::Runtime);
    let open = new_loop();
    assert_eq!(failure(new_loop().run_until_complete(open.shutdown_asyncgens())).0, ErrorKind::Value);
}

#[test]
fn run_closes_what_is_left_after_the_tasks_and_before_the_executor() {
    let _deadline = deadline();
    let record = Record::default();
    let seen = record.clone();
    let mut numbers = async_generator(async move |numbers| {
        let sent = numbers.send(1).await;
        seen.push("generator");
        // Threads are still to be had, tasks that are made now are too late.
        assert_eq!(asyncio::to_thread(|| Ok(5)).await?, 5);
        seen.push("cleaned up");
        sent
    });
    let inside = record.clone();
    asyncio::run(async {
        numbers.next().await.transpose()?;
        create_task(async move {
            let slept = sleep(LONG).await;
            sleep(Duration::from_millis(1)).await?;
            inside.push("task");
            slept
        });
        sleep(Duration::ZERO).await
    })
    .unwrap();
    assert_eq!(record.take(), ["task", "generator", "cleaned up"]);
    assert!(numbers.is_terminated());

    // Also when main fails, and for one that was forgotten.
    let numbers = cleans_up(&record, Duration::ZERO);
    let failed = asyncio::run(async {
        let mut numbers = numbers;
        numbers.next().await.transpose()?;
        std::mem::forget(numbers);
        Err::<(), _>(Error::Value("no".into()))
    });
    assert_eq!(failure(failed), (ErrorKind::Value, "no".into()));
    assert_eq!(record.take(), ["cleaned up"]);

    // And under `block_on`.
    let mut numbers = cleans_up(&record, Duration::ZERO);
    asyncio::block_on(async {
        assert!(numbers.next().await.is_some());
    });
    assert_eq!(record.take(), ["cleaned up"]);
}

#[test]
fn a_runner_closes_them_at_its_own_end() {
    let _deadline = deadline();
    let record = Record::default();
    let mut numbers = cleans_up(&record, Duration::ZERO);
    let mut runner = Runner::new();
    runner.run(async { numbers.next().await.transpose() }).unwrap();
    runner.run(sleep(Duration::ZERO)).unwrap();
    assert_eq!(record.len(), 0);
    runner.close().unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
    runner.close().unwrap();
}

#[test]
fn a_loop_that_is_stopped_meanwhile_goes_on_with_it_later() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let mut numbers = cleans_up(&record, Duration::from_millis(1));
    event_loop.run_until_complete(async { numbers.next().await.transpose() }).unwrap();
    let mut closing = event_loop.create_task(event_loop.shutdown_asyncgens());
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.len(), 0);
    event_loop.run_until_complete(&mut closing).unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
}

#[test]
fn what_begins_in_a_clean_up_is_closed_as_well() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let record = Record::default();
    let begun = Rc::new(Cell::new(0));
    let (seen, count) = (record.clone(), begun.clone());
    let mut numbers = async_generator(async move |numbers| {
        let sent = numbers.send(1).await;
        let mut late = cleans_up(&seen, Duration::ZERO);
        late.next().await.transpose()?;
        count.set(count.get() + 1);
        sent
    });
    event_loop.run_until_complete(async { numbers.next().await.transpose() }).unwrap();
    let ((), records) = logs(|| shut_down(&event_loop));
    assert_eq!(records.len(), 1);
    assert_eq!(begun.get(), 1);
    // Dropped by the clean-up: by a task of the loop.
    for _ in 0..3 {
        tick(&event_loop);
    }
    assert_eq!(record.take(), ["cleaned up"]);
}
