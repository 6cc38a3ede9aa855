//! Generators that nobody closes: their loop does, if it can.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{
    AsyncGenerator, Canceller, Error, ErrorKind, Runner, all_tasks, async_generator, create_task, get_running_loop,
    sleep,
};
use futures::{FutureExt, StreamExt, future};

use crate::{
    run,
    support::{DropGuard, Record, deadline, drop_guard, handler, new_loop, tick, virtual_loop},
};

const LONG: Duration = Duration::from_secs(3600);

/// Sends 1 and, when it is closed, cleans up in `steps` iterations.
fn cleans_up(record: &Record, steps: u32) -> AsyncGenerator<u8> {
    let record = record.clone();
    async_generator(async move |numbers| {
        let sent = numbers.send(1).await;
        for _ in 0..steps {
            sleep(Duration::ZERO).await?;
        }
        record.push("cleaned up");
        sent
    })
}

/// The same, but suspended in an await of its own.
fn waits(record: &Record, guard: Option<DropGuard>) -> AsyncGenerator<u8> {
    let record = record.clone();
    async_generator(async move |_| {
        let _guard = guard;
        let slept = sleep(LONG).await;
        assert!(matches!(&slept, Err(Error::Cancelled(reason)) if reason.by == Some(Canceller::AsyncGenerator)));
        sleep(Duration::ZERO).await?;
        record.push("cleaned up");
        slept
    })
}

#[test]
fn one_that_has_not_begun_is_dropped_at_once() {
    run(async {
        let (guard, dropped) = drop_guard();
        let numbers = async_generator(async move |numbers: asyncio::Yielder<u8>| {
            let _guard = guard;
            panic!("polled with {numbers:?}");
        });
        drop(numbers);
        assert!(dropped.get());
        Ok(())
    });
}

#[test]
fn one_that_has_ended_is_nobodys_business() {
    run(async {
        let record = Record::default();
        let mut numbers = cleans_up(&record, 0);
        while numbers.next().await.is_some() {}
        assert_eq!(record.take(), ["cleaned up"]);
        drop(numbers);
        assert_eq!(all_tasks()?.len(), 1);
        Ok(())
    });
}

#[test]
fn the_loop_runs_the_clean_up_in_a_task() {
    run(async {
        let record = Record::default();
        let mut numbers = cleans_up(&record, 1);
        assert!(numbers.next().await.is_some());
        drop(numbers);
        assert_eq!(record.len(), 0);
        assert_eq!(all_tasks()?.len(), 2);
        // Its first step, and the one that ends it.
        sleep(Duration::ZERO).await?;
        sleep(Duration::ZERO).await?;
        assert_eq!(record.take(), ["cleaned up"]);
        assert_eq!(all_tasks()?.len(), 1);

        let mut numbers = waits(&record, None);
        assert!(numbers.next().now_or_never().is_none());
        drop(numbers);
        for _ in 0..3 {
            sleep(Duration::ZERO).await?;
        }
        assert_eq!(record.take(), ["cleaned up"]);
        Ok(())
    });
}

#[test]
fn a_for_loop_that_breaks_off_cleans_up_behind_itself() {
    let _deadline = deadline();
    let record = Record::default();
    asyncio::run(async {
        let mut numbers = cleans_up(&record, 20);
        if let Some(number) = numbers.next().await {
            assert_eq!(number?, 1);
        }
        Ok(())
    })
    .unwrap();
    // The end of `run` has not cut it short.
    assert_eq!(record.take(), ["cleaned up"]);
}

#[test]
fn who_cancels_all_tasks_does_not_cut_it_short() {
    run(async {
        let record = Record::default();
        for steps_before in 0..3 {
            let mut numbers = cleans_up(&record, 5);
            assert!(numbers.next().await.is_some());
            drop(numbers);
            for _ in 0..steps_before {
                sleep(Duration::ZERO).await?;
            }
            let current = asyncio::current_task()?.expect("in a task");
            let others: Vec<_> = all_tasks()?.into_iter().filter(|task| *task != current).collect();
            assert_eq!(others.len(), 1);
            for task in others {
                task.cancel();
                assert!(task.await.unwrap_err().is_cancelled());
            }
            if steps_before == 0 {
                // The task never ran: the generator is still there to be closed.
                assert_eq!(record.len(), 0);
                get_running_loop()?.shutdown_asyncgens().await?;
            }
            assert_eq!(record.take(), ["cleaned up"]);
        }
        Ok(())
    });
}

#[test]
fn an_error_or_a_panic_of_the_clean_up_is_reported() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop
        .run_until_complete(async {
            let mut numbers = async_generator(async |numbers| {
                let _sent = numbers.send(1).await;
                sleep(Duration::ZERO).await?;
                Err(Error::Value("the server is gone".into()))
            });
            assert!(numbers.next().await.is_some());
            drop(numbers);
            let mut numbers = async_generator(async |numbers| {
                let _sent = numbers.send(1).await;
                sleep(Duration::ZERO).await?;
                panic!("boom");
            });
            assert!(numbers.next().await.is_some());
            drop(numbers);
            let mut numbers = async_generator(async |numbers| {
                let _sent = numbers.send(1).await;
                numbers.send(2).await
            });
            assert!(numbers.next().await.is_some());
            drop(numbers);
            for _ in 0..5 {
                sleep(Duration::ZERO).await?;
            }
            Ok(())
        })
        .unwrap();
    let mut seen: Vec<_> = reports.take().into_iter().map(|report| report.exception.expect("an error")).collect();
    seen.sort_by_key(|error| error.to_string());
    let texts: Vec<_> = seen.iter().map(|error| (error.kind(), error.to_string())).collect();
    assert_eq!(
        texts,
        [
            (ErrorKind::Runtime, "async generator ignored GeneratorExit".into()),
            (ErrorKind::Panicked, "boom".into()),
            (ErrorKind::Value, "the server is gone".into()),
        ]
    );
    event_loop.close().unwrap();
    assert_eq!(reports.len(), 0);
}

#[test]
fn dropped_while_the_loop_does_not_run_it_waits_for_the_next_shutdown() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let record = Record::default();
    let mut numbers = cleans_up(&record, 3);
    let mut others = waits(&record, None);
    event_loop
        .run_until_complete(async {
            assert!(numbers.next().await.is_some());
            assert!(others.next().now_or_never().is_none());
            Ok(())
        })
        .unwrap();
    drop((numbers, others));
    for _ in 0..5 {
        tick(&event_loop);
    }
    assert_eq!(record.len(), 0);
    event_loop.run_until_complete(event_loop.shutdown_asyncgens()).unwrap();
    assert_eq!(record.take(), ["cleaned up", "cleaned up"]);
    event_loop.close().unwrap();
}

#[test]
fn a_runner_closes_what_was_dropped_between_its_runs() {
    let _deadline = deadline();
    let record = Record::default();
    let mut runner = Runner::new();
    let mut numbers = cleans_up(&record, 3);
    runner.run(async { numbers.next().await.transpose() }).unwrap();
    drop(numbers);
    runner.run(async { sleep(Duration::from_millis(1)).await }).unwrap();
    assert_eq!(record.len(), 0);
    runner.close().unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
}

#[test]
fn the_close_of_the_loop_drops_what_is_left() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let (guard, dropped) = drop_guard();
    let (held_guard, held_dropped) = drop_guard();
    let mut numbers = waits(&record, Some(guard));
    let mut held = waits(&record, Some(held_guard));
    event_loop
        .run_until_complete(async {
            assert!(numbers.next().now_or_never().is_none());
            assert!(held.next().now_or_never().is_none());
            Ok(())
        })
        .unwrap();
    drop(numbers);
    assert!(!dropped.get());
    event_loop.close().unwrap();
    assert!(dropped.get());
    assert!(held_dropped.get());
    assert_eq!(record.len(), 0);
    assert_eq!(reports.len(), 0);
    // The other one is at its end; and nobody is needed to close it.
    assert!(futures::executor::block_on(held.next()).is_none());
    futures::executor::block_on(held.aclose()).unwrap();
    drop(held);
}

#[test]
fn a_panic_in_a_drop_at_the_close_is_reported_and_the_others_are_dropped() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (guard, dropped) = drop_guard();
    let mut first = async_generator(async |numbers| {
        let _panics = Panics;
        numbers.send(1).await
    });
    let mut second = async_generator(async move |numbers| {
        let _guard = guard;
        numbers.send(1).await
    });
    event_loop
        .run_until_complete(async {
            first.next().await.transpose()?;
            second.next().await.transpose()
        })
        .unwrap();
    event_loop.close().unwrap();
    assert!(dropped.get());
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].exception.as_ref().map(ToString::to_string).as_deref(), Some("boom"));
}

#[test]
fn in_a_task_that_is_destroyed_it_is_dropped_with_it() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let (guard, dropped) = drop_guard();
    let mut numbers = waits(&record, Some(guard));
    let task = event_loop.create_task(async move { numbers.next().await.transpose() });
    tick(&event_loop);
    event_loop.close().unwrap();
    assert!(task.cancelled());
    assert!(dropped.get());
    assert_eq!(record.len(), 0);
    let messages: Vec<_> = reports.take().into_iter().map(|report| report.message).collect();
    assert_eq!(messages, ["Task was destroyed but it is pending!"]);
}

#[test]
fn a_clean_up_in_progress_is_dropped_with_its_loop() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (guard, dropped) = drop_guard();
    event_loop
        .run_until_complete(async move {
            let mut numbers = async_generator(async move |numbers| {
                let _guard = guard;
                let sent = numbers.send(1).await;
                sleep(LONG).await?;
                sent
            });
            numbers.next().await.transpose()?;
            drop(numbers);
            sleep(Duration::ZERO).await
        })
        .unwrap();
    assert_eq!(event_loop.all_tasks().len(), 1);
    assert!(!dropped.get());
    event_loop.close().unwrap();
    assert!(dropped.get());
    let messages: Vec<_> = reports.take().into_iter().map(|report| report.message).collect();
    assert_eq!(messages, ["Task was destroyed but it is pending!"]);
}

#[test]
fn the_end_of_a_task_drops_what_it_iterated() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let seen = record.clone();
    event_loop
        .run_until_complete(async move {
            let inside = seen.clone();
            let task = create_task(async move {
                let mut numbers = cleans_up(&inside, 2);
                numbers.next().await.transpose()?;
                sleep(LONG).await
            });
            sleep(Duration::ZERO).await?;
            task.cancel();
            assert!(task.await.unwrap_err().is_cancelled());
            sleep(Duration::from_secs(1)).await?;
            assert_eq!(seen.take(), ["cleaned up"]);
            Ok(())
        })
        .unwrap();
    event_loop.close().unwrap();
}

#[test]
fn an_outer_generator_that_ends_early_leaves_the_inner_one_to_the_loop() {
    run(async {
        let record = Record::default();
        let inside = record.clone();
        let mut outer = async_generator(async move |numbers| {
            let mut inner = cleans_up(&inside, 1);
            while let Some(number) = inner.next().await {
                numbers.send(number?).await?;
            }
            Ok(())
        });
        outer.next().await.transpose()?;
        outer.aclose().await?;
        assert_eq!(record.len(), 0);
        for _ in 0..2 {
            sleep(Duration::ZERO).await?;
        }
        assert_eq!(record.take(), ["cleaned up"]);
        Ok(())
    });
}

#[test]
fn combinators_and_tasks_that_are_dropped_drop_it() {
    run(async {
        let record = Record::default();
        let mut mapped = cleans_up(&record, 0).map(|number| number.map(|n| n + 1)).boxed_local();
        assert_eq!(mapped.next().await.transpose()?, Some(2));
        drop(mapped);
        sleep(Duration::ZERO).await?;
        assert_eq!(record.take(), ["cleaned up"]);

        // Under another waker, and in the midst of an await.
        let mut polled = Box::pin(waits(&record, None).collect::<Vec<_>>());
        assert!(future::poll_immediate(&mut polled).await.is_none());
        drop(polled);
        for _ in 0..2 {
            sleep(Duration::ZERO).await?;
        }
        assert_eq!(record.take(), ["cleaned up"]);
        Ok(())
    });
}

#[test]
fn a_close_that_was_given_up_is_ended_by_the_drop() {
    run(async {
        let record = Record::default();
        let mut numbers = cleans_up(&record, 3);
        numbers.next().await.transpose()?;
        assert!(numbers.aclose().now_or_never().is_none());
        drop(numbers);
        for _ in 0..4 {
            sleep(Duration::ZERO).await?;
        }
        assert_eq!(record.take(), ["cleaned up"]);
        Ok(())
    });
}

#[test]
fn dropped_while_somebody_closes_it_who_is_ended_the_loop_goes_on_with_it() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let seen = record.clone();
    event_loop
        .run_until_complete(async {
            let mut numbers = async_generator(async move |numbers| {
                let sent = numbers.send(1).await;
                assert!(sleep(LONG).await.is_err());
                seen.push("cancelled");
                sleep(Duration::from_secs(1)).await?;
                seen.push("cleaned up");
                sent
            });
            numbers.next().await.transpose()?;
            let closing = create_task(get_running_loop()?.shutdown_asyncgens());
            for _ in 0..2 {
                sleep(Duration::ZERO).await?;
            }
            let (current, shutdown) = (asyncio::current_task()?.expect("in a task"), closing.any());
            let mut closers = all_tasks()?;
            closers.retain(|task| *task != current && *task != shutdown);
            assert_eq!(closers.len(), 1);
            drop(numbers);
            sleep(Duration::ZERO).await?;
            // One more step, in which the body hears of it, and no more.
            closers[0].cancel_with_grace(Duration::ZERO);
            closing.await?;
            assert_eq!(record.take(), ["cancelled"]);
            sleep(Duration::from_secs(2)).await?;
            assert_eq!(record.take(), ["cleaned up"]);
            Ok(())
        })
        .unwrap();
    assert_eq!(event_loop.all_tasks(), []);
    event_loop.close().unwrap();
}

#[test]
fn dropped_in_a_callback_it_is_closed_as_well() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let record = Record::default();
    let kept = Rc::new(RefCell::new(None));
    let (mut numbers, place) = (cleans_up(&record, 1), kept.clone());
    event_loop
        .run_until_complete(async move {
            numbers.next().await.transpose()?;
            place.replace(Some(numbers));
            Ok(())
        })
        .unwrap();
    event_loop.call_soon(move || drop(kept.take()));
    for _ in 0..3 {
        tick(&event_loop);
    }
    assert_eq!(record.take(), ["cleaned up"]);
    assert_eq!(event_loop.all_tasks(), []);
}

#[test]
fn under_another_loop_it_waits_for_its_own() {
    let _deadline = deadline();
    let (first, second) = (new_loop(), new_loop());
    let record = Record::default();
    let mut numbers = cleans_up(&record, 1);
    first.run_until_complete(async { numbers.next().await.transpose() }).unwrap();
    second
        .run_until_complete(async move {
            drop(numbers);
            sleep(Duration::ZERO).await?;
            sleep(Duration::ZERO).await
        })
        .unwrap();
    assert_eq!(record.len(), 0);
    second.close().unwrap();
    assert_eq!(record.len(), 0);
    first.run_until_complete(first.shutdown_asyncgens()).unwrap();
    assert_eq!(record.take(), ["cleaned up"]);
}
