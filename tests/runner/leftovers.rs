//! Tasks that main leaves behind: cancelled, awaited, reported.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Error, ErrorKind, Runner};

use crate::{
    main_thread::tests,
    support::{DropGuard, Gate, Record, drop_guard, handler},
};

tests![
    leftovers_are_cancelled_and_awaited_to_their_end,
    leftovers_of_a_main_that_fails_or_panics_too,
    leftovers_clean_up_side_by_side,
    the_error_of_a_leftover_is_reported_once,
    each_leftover_that_fails_is_reported,
    a_leftover_that_panics_is_reported_once,
    a_leftover_that_returns_or_is_cancelled_is_not_reported,
    a_leftover_that_was_never_polled_never_is,
    a_leftover_in_a_foreign_future_is_dropped,
    a_leftover_that_swallows_the_cancellation_is_awaited,
    what_a_leftover_spawns_in_its_end_does_not_keep_the_loop_open,
    leftovers_that_wait_for_each_other_all_end,
    timers_and_callbacks_that_are_left_never_run,
    main_that_awaits_all_leaves_nothing,
    a_leftover_that_stops_the_loop_does_not_keep_it_open,
];

const LONG: Duration = Duration::from_secs(60);

/// RUN-003
fn leftovers_are_cancelled_and_awaited_to_their_end() {
    let record = Record::default();
    let seen = record.clone();
    let (guard, dropped) = drop_guard();
    let value = asyncio::run(async move {
        let _leftover = asyncio::create_task(async move {
            let _guard = guard;
            let cancelled = asyncio::sleep(LONG).await;
            assert!(cancelled.as_ref().is_err_and(Error::is_cancelled));
            seen.push("cancelled");
            asyncio::sleep(Duration::from_millis(10)).await?;
            seen.push("cleaned up");
            cancelled
        });
        asyncio::sleep(Duration::ZERO).await?;
        Ok(123)
    });
    assert_eq!(value.unwrap(), 123);
    assert_eq!(record.take(), ["cancelled", "cleaned up"]);
    assert!(dropped.get());

    // And those of a runner by its close, not before.
    let mut runner = Runner::new();
    let seen = record.clone();
    let task = runner.run(async move {
        let task = asyncio::create_task(async move {
            let cancelled = asyncio::sleep(LONG).await;
            seen.push("cancelled");
            cancelled
        });
        asyncio::sleep(Duration::ZERO).await?;
        Ok(task)
    });
    let task = task.unwrap();
    assert!(!task.done() && record.len() == 0);
    runner.close().unwrap();
    assert!(task.cancelled());
    assert_eq!(record.take(), ["cancelled"]);
}

/// RUN-003, where main does not return Ok.
fn leftovers_of_a_main_that_fails_or_panics_too() {
    for panics in [false, true] {
        let record = Record::default();
        let seen = record.clone();
        let error = asyncio::run::<(), _>(async move {
            let _leftover = asyncio::create_task(async move {
                let cancelled = asyncio::sleep(LONG).await;
                asyncio::sleep(Duration::from_millis(1)).await?;
                seen.push("cleaned up");
                cancelled
            });
            asyncio::sleep(Duration::ZERO).await?;
            if panics {
                panic!("boom");
            }
            Err(Error::Value("spam".into()))
        });
        let expected = if panics { ErrorKind::Panicked } else { ErrorKind::Value };
        assert_eq!(error.unwrap_err().kind(), expected);
        assert_eq!(record.take(), ["cleaned up"]);
    }
}

fn leftovers_clean_up_side_by_side() {
    let record = Record::default();
    let seen = record.clone();
    asyncio::run(async move {
        for (name, turns) in [("slow", 3), ("fast", 1)] {
            let seen = seen.clone();
            let _leftover = asyncio::create_task(async move {
                let cancelled = asyncio::sleep(LONG).await;
                for _ in 0..turns {
                    asyncio::sleep(Duration::ZERO).await?;
                }
                seen.push(name);
                cancelled
            });
        }
        asyncio::sleep(Duration::ZERO).await
    })
    .unwrap();
    assert_eq!(record.take(), ["fast", "slow"]);
}

/// RUN-004
fn the_error_of_a_leftover_is_reported_once() {
    let reports = Record::default();
    let record = reports.clone();
    let value = asyncio::run(async move {
        let event_loop = asyncio::get_running_loop()?;
        event_loop.set_exception_handler(Some(Rc::new(move |_, context| record.push(context.clone()))));
        let mut leftover = asyncio::create_task::<(), _>(async {
            asyncio::sleep(LONG).await.map_err(|_| Error::Value("spam".into()))?;
            Ok(())
        });
        leftover.set_name("the leftover");
        asyncio::sleep(Duration::ZERO).await?;
        let _detached = &mut leftover;
        Ok(123)
    });
    assert_eq!(value.unwrap(), 123);
    let [report] = <[_; 1]>::try_from(reports.take()).unwrap();
    assert_eq!(report.message, "unhandled exception during asyncio.run() shutdown");
    let error = report.exception.as_ref().unwrap();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, "spam".into()));
    assert_eq!(report.task.as_ref().unwrap().get_name(), "the leftover");
    assert_eq!(report.keys(), ["exception", "message", "task"]);
}

/// RUN-004, for several.
fn each_leftover_that_fails_is_reported() {
    let mut runner = Runner::new();
    let reports = handler(&runner.get_loop().unwrap());
    runner
        .run(async {
            for name in ["one", "two", "three"] {
                let _leftover = asyncio::create_task::<(), _>(async move {
                    asyncio::sleep(LONG).await.map_err(|_| Error::Value(name.into()))
                });
            }
            asyncio::sleep(Duration::ZERO).await
        })
        .unwrap();
    assert_eq!(reports.len(), 0);
    runner.close().unwrap();
    let reports = reports.take();
    assert!(reports.iter().all(|report| report.message == "unhandled exception during asyncio.run() shutdown"));
    let mut errors: Vec<String> = reports.iter().map(|report| report.exception.as_ref().unwrap().to_string()).collect();
    errors.sort_unstable();
    assert_eq!(errors, ["one", "three", "two"]);
}

/// RUN-004, for panics: the clean-up awaits all of them, so it is the one that receives them.
fn a_leftover_that_panics_is_reported_once() {
    let mut runner = Runner::new();
    let reports = handler(&runner.get_loop().unwrap());
    runner
        .run(async {
            for turns in [3, 0, 1] {
                let _leftover = asyncio::create_task::<(), _>(async move {
                    let _ = asyncio::sleep(LONG).await;
                    for _ in 0..turns {
                        asyncio::sleep(Duration::ZERO).await?;
                    }
                    panic!("boom")
                });
            }
            asyncio::sleep(Duration::ZERO).await
        })
        .unwrap();
    runner.close().unwrap();
    let reports = reports.take();
    let messages: Vec<&str> = reports.iter().map(|report| &*report.message).collect();
    assert_eq!(messages, ["unhandled exception during asyncio.run() shutdown"; 3]);
    assert!(reports.iter().all(|report| report.exception.as_ref().unwrap().kind() == ErrorKind::Panicked));
}

fn a_leftover_that_returns_or_is_cancelled_is_not_reported() {
    let mut runner = Runner::new();
    let reports = handler(&runner.get_loop().unwrap());
    let tasks = runner.run(async {
        let returns = asyncio::create_task(async {
            let cancelled = asyncio::sleep(LONG).await;
            assert!(cancelled.is_err());
            Ok(5)
        });
        let cancelled = asyncio::create_task(asyncio::sleep(LONG));
        asyncio::sleep(Duration::ZERO).await?;
        Ok((returns, cancelled))
    });
    let (returns, cancelled) = tasks.unwrap();
    runner.close().unwrap();
    assert_eq!(returns.result().unwrap(), 5);
    assert!(cancelled.cancelled());
    assert_eq!(reports.len(), 0);
}

fn a_leftover_that_was_never_polled_never_is() {
    let polled = Rc::new(Cell::new(false));
    let (flag, (guard, dropped)) = (polled.clone(), drop_guard());
    let mut runner = Runner::new();
    let event_loop = runner.get_loop().unwrap();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(async move {
        let _guard = guard;
        flag.set(true);
        Ok(())
    });
    runner.close().unwrap();
    assert!(!polled.get() && dropped.get() && task.cancelled());
    assert_eq!(reports.len(), 0);
}

fn a_leftover_in_a_foreign_future_is_dropped() {
    let (guard, dropped) = drop_guard();
    let gate = Gate::default();
    let waiting = gate.clone();
    asyncio::run(async move {
        let _leftover = asyncio::create_task(async move {
            let _guard = guard;
            waiting.await;
            Ok(())
        });
        asyncio::sleep(Duration::ZERO).await
    })
    .unwrap();
    assert!(dropped.get());
    // Its waker has outlived the loop.
    gate.open();
}

fn a_leftover_that_swallows_the_cancellation_is_awaited() {
    let record = Record::default();
    let seen = record.clone();
    asyncio::run(async move {
        let _leftover = asyncio::create_task(async move {
            for delay in [LONG, Duration::from_millis(3), Duration::ZERO] {
                let slept = asyncio::sleep(delay).await;
                seen.push(if slept.is_ok() { "slept" } else { "cancelled" });
            }
            Ok(())
        });
        asyncio::sleep(Duration::ZERO).await
    })
    .unwrap();
    assert_eq!(record.take(), ["cancelled", "slept", "slept"]);
}

/// As in asyncio, where the second generation is destroyed by the loop's close.
fn what_a_leftover_spawns_in_its_end_does_not_keep_the_loop_open() {
    let mut runner = Runner::new();
    let event_loop = runner.get_loop().unwrap();
    let reports = handler(&event_loop);
    let (record, (guard, dropped)) = (Record::default(), drop_guard());
    let seen = record.clone();
    runner
        .run(async move {
            let _leftover = asyncio::create_task(async move {
                let cancelled = asyncio::sleep(LONG).await;
                let _second = asyncio::create_task(async move {
                    let _guard = guard;
                    seen.push("begun");
                    asyncio::sleep(LONG).await
                });
                asyncio::sleep(Duration::ZERO).await?;
                cancelled
            });
            asyncio::sleep(Duration::ZERO).await
        })
        .unwrap();
    runner.close().unwrap();
    assert!(event_loop.is_closed() && dropped.get());
    assert_eq!(event_loop.all_tasks(), []);
    assert_eq!(record.take(), ["begun"]);
    let messages: Vec<String> = reports.take().into_iter().map(|report| report.message).collect();
    assert_eq!(messages, ["Task was destroyed but it is pending!"]);
}

fn leftovers_that_wait_for_each_other_all_end() {
    let record = Record::default();
    let seen = record.clone();
    asyncio::run(async move {
        let inner_seen = seen.clone();
        let inner = asyncio::create_task(async move {
            let cancelled = asyncio::sleep(LONG).await;
            inner_seen.push("inner");
            cancelled
        });
        let _outer = asyncio::create_task(async move {
            let result = inner.await;
            seen.push("outer");
            result
        });
        asyncio::sleep(Duration::ZERO).await
    })
    .unwrap();
    assert_eq!(record.take(), ["inner", "outer"]);
}

fn timers_and_callbacks_that_are_left_never_run() {
    let (guard, dropped) = drop_guard();
    let (held, held_dropped) = drop_guard();
    let record = Record::default();
    let seen = record.clone();
    asyncio::run(async move {
        let event_loop = asyncio::get_running_loop()?;
        event_loop.call_later(LONG, move || {
            seen.push("timer");
            drop(guard);
        });
        schedule_for_ever(event_loop, Rc::new(Cell::new(Some(held))));
        asyncio::sleep(Duration::ZERO).await
    })
    .unwrap();
    assert!(dropped.get() && held_dropped.get());
    assert_eq!(record.len(), 0);
}

/// Each callback schedules the next one, so that close is what drops the last.
fn schedule_for_ever(event_loop: asyncio::EventLoop, held: Rc<Cell<Option<DropGuard>>>) {
    let next = event_loop.clone();
    event_loop.call_soon(move || {
        held.set(held.take());
        schedule_for_ever(next, held);
    });
}

fn main_that_awaits_all_leaves_nothing() {
    let mut runner = Runner::new();
    let event_loop = runner.get_loop().unwrap();
    let reports = handler(&event_loop);
    let sum = runner.run(async {
        let tasks = [1, 2, 3].map(|value| asyncio::create_task(async move { Ok(value) }));
        let mut sum = 0;
        for task in tasks {
            sum += task.await?;
        }
        Ok(sum)
    });
    assert_eq!(sum.unwrap(), 6);
    assert_eq!(event_loop.all_tasks(), []);
    runner.close().unwrap();
    assert_eq!(reports.len(), 0);
}

fn a_leftover_that_stops_the_loop_does_not_keep_it_open() {
    let mut runner = Runner::new();
    let event_loop = runner.get_loop().unwrap();
    let reports = handler(&event_loop);
    let (guard, dropped) = drop_guard();
    let stopper = event_loop.clone();
    runner
        .run(async move {
            let _leftover = asyncio::create_task(async move {
                let _guard = guard;
                let _ = asyncio::sleep(LONG).await;
                stopper.stop();
                asyncio::sleep(LONG).await
            });
            asyncio::sleep(Duration::ZERO).await
        })
        .unwrap();
    let error = runner.close().unwrap_err();
    assert_eq!(error.to_string(), "Event loop stopped before Future completed.");
    assert!(event_loop.is_closed() && dropped.get());
    let messages: Vec<String> = reports.take().into_iter().map(|report| report.message).collect();
    assert_eq!(messages, ["Task was destroyed but it is pending!"]);
}
