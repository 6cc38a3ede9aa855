//! `cancel_with_grace`.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Canceller, ErrorKind, EventLoop, Result, Task, create_task, get_running_loop, sleep, timeout};

use crate::{
    HOUR, MS, SECOND, assert_clean, cancelled, kind, now, own, run,
    support::{self, Gate, Record, drop_guard, tick, virtual_loop},
    turns, turns_until,
};

fn started<T: 'static>(event_loop: &EventLoop, coroutine: impl Future<Output = Result<T>> + 'static) -> Task<T> {
    let task = event_loop.create_task(coroutine);
    tick(event_loop);
    assert!(!task.done());
    task
}

#[test]
fn a_task_cleans_up_in_time() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let record = Record::default();
    let seen = record.clone();
    let task = started(&event_loop, async move {
        let slept = sleep(HOUR).await;
        seen.push("told");
        sleep(5 * MS).await?;
        seen.push("cleaned up");
        slept
    });
    let begin = event_loop.time();
    assert!(task.cancel_with_grace(10 * MS));
    assert_eq!(task.cancelling(), 1);
    let turns = turns_until(&event_loop, || task.done());
    assert!(turns <= 5, "{turns} iterations");
    assert!(task.cancelled());
    assert_eq!(record.take(), ["told", "cleaned up"]);
    assert_eq!(event_loop.time() - begin, 5 * MS);
    assert_clean(&event_loop);
}

#[test]
fn a_task_that_is_not_ready_in_time_is_dropped_where_it_waits() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for foreign in [false, true] {
        let ((guard, dropped), record) = (drop_guard(), Record::default());
        let seen = record.clone();
        let task = started(&event_loop, async move {
            let _guard = guard;
            let _ = sleep(HOUR).await;
            seen.push("told");
            match foreign {
                true => std::future::pending::<()>().await,
                false => sleep(HOUR).await?,
            }
            seen.push("never");
            Ok(())
        });
        let begin = event_loop.time();
        assert!(task.cancel_with_grace(10 * MS));
        let turns = turns_until(&event_loop, || task.done());
        assert!(turns <= 6, "{turns} iterations");
        assert!(task.cancelled() && dropped.get());
        assert_eq!(record.take(), ["told"]);
        assert_eq!(event_loop.time() - begin, 10 * MS);
        assert_clean(&event_loop);
    }
}

/// A task that swallows every cancellation, and one whose every await is new.
#[test]
fn a_task_that_does_not_listen_is_dropped() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let rounds = Rc::new(Cell::new(0));
    let counts = rounds.clone();
    let task = started(&event_loop, async move {
        loop {
            counts.set(counts.get() + 1);
            let _ = sleep(MS).await;
        }
        #[expect(unreachable_code, reason = "says the type")]
        Ok(())
    });
    assert!(task.cancel_with_grace(10 * MS));
    let turns = turns_until(&event_loop, || task.done());
    assert!(turns <= 30, "{turns} iterations");
    assert!((10..=13).contains(&rounds.get()), "{} rounds", rounds.get());
    assert_clean(&event_loop);
}

#[test]
fn a_grace_of_zero_is_one_step() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let record = Record::default();
    for waits in [false, true] {
        let (guard, dropped) = drop_guard();
        let seen = record.clone();
        let task = started(&event_loop, async move {
            let _guard = guard;
            let slept = sleep(HOUR).await;
            seen.push("told");
            if waits {
                let _ = sleep(Duration::ZERO).await;
                seen.push("never");
            }
            slept
        });
        assert!(task.cancel_with_grace(Duration::ZERO));
        assert!(!dropped.get());
        let turns = turns_until(&event_loop, || task.done());
        assert!(turns <= 3, "{turns} iterations");
        assert!(task.cancelled() && dropped.get());
        assert_eq!(record.take(), ["told"]);
        assert_clean(&event_loop);
    }
}

#[test]
fn a_task_may_end_well_or_fail_in_its_grace() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for fails in [false, true] {
        let task = started(&event_loop, async move {
            assert!(sleep(HOUR).await.is_err());
            sleep(MS).await?;
            match fails {
                true => Err(asyncio::Error::Value("E".into())),
                false => Ok(5),
            }
        });
        assert!(task.cancel_with_grace(10 * MS));
        match event_loop.run_until_complete(task) {
            Ok(value) => assert!(!fails && value == 5),
            Err(error) => assert!(fails && error.kind() == ErrorKind::Value),
        }
        assert_clean(&event_loop);
    }
}

/// A task that takes the request back ends by itself, and leaves no timer.
#[test]
fn a_task_that_takes_the_request_back_leaves_no_timer() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let task = started(&event_loop, async {
        assert!(sleep(HOUR).await.is_err());
        assert_eq!(own().uncancel(), 0);
        sleep(MS).await?;
        Ok("went on")
    });
    assert!(task.cancel_with_grace(HOUR));
    assert_eq!(event_loop.run_until_complete(task).unwrap(), "went on");
    assert_clean(&event_loop);
}

#[test]
fn a_task_that_is_done_or_has_not_begun() {
    run(async {
        let task = create_task(async { Ok(5) });
        turns(2).await?;
        assert!(!task.cancel_with_grace(HOUR) && !task.any().cancel_with_grace(Duration::ZERO));
        assert_eq!(task.await?, 5);
        for grace in [Duration::ZERO, HOUR] {
            let task = create_task(async {
                if true {
                    panic!("it ran");
                }
                Ok(())
            });
            assert!(task.cancel_with_grace(grace));
            assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
            assert_eq!(get_running_loop()?.next_deadline(), None);
        }
        Ok(())
    });
}

/// Each call keeps its word: the task is dropped when the first grace is over.
#[test]
fn asked_twice() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for (first, second) in [(10 * MS, HOUR), (HOUR, 10 * MS), (10 * MS, 10 * MS)] {
        let told = Rc::new(Cell::new(0));
        let tells = told.clone();
        let task = started(&event_loop, async move {
            loop {
                let _ = sleep(HOUR).await;
                tells.set(tells.get() + 1);
            }
            #[expect(unreachable_code, reason = "says the type")]
            Ok(())
        });
        let begin = event_loop.time();
        assert!(task.cancel_with_grace(first));
        tick(&event_loop);
        assert!(task.cancel_with_grace(second));
        assert_eq!(task.cancelling(), 2);
        let turns = turns_until(&event_loop, || task.done());
        assert!(turns <= 6, "{turns} iterations");
        assert!(task.cancelled());
        assert_eq!(event_loop.time() - begin, 10 * MS, "{first:?} {second:?}");
        assert_eq!(told.get(), 2);
        assert_clean(&event_loop);
    }
    // With none at all for the second one.
    let task = started(&event_loop, async {
        loop {
            let _ = sleep(HOUR).await;
        }
        #[expect(unreachable_code, reason = "says the type")]
        Ok(())
    });
    let begin = event_loop.time();
    assert!(task.cancel_with_grace(HOUR) && task.cancel_with_grace(Duration::ZERO));
    assert!(turns_until(&event_loop, || task.done()) <= 4);
    assert_eq!(event_loop.time(), begin);
    assert_clean(&event_loop);
}

#[test]
fn from_another_thread() {
    let _deadline = support::deadline();
    let event_loop = support::new_loop();
    for grace in [Duration::ZERO, 2 * MS] {
        let (guard, dropped) = drop_guard();
        let told = Rc::new(Cell::new(0));
        let tells = told.clone();
        let mut task = started(&event_loop, async move {
            let _guard = guard;
            loop {
                let _ = sleep(HOUR).await;
                tells.set(tells.get() + 1);
            }
            #[expect(unreachable_code, reason = "says the type")]
            Ok(())
        });
        std::thread::scope(|scope| {
            let task = &task;
            scope.spawn(move || assert!(task.cancel_with_grace(grace)));
        });
        assert_eq!(kind(&event_loop.run_until_complete(&mut task)), Some(ErrorKind::Cancelled));
        assert!(dropped.get() && told.get() == 1);
        assert_clean(&event_loop);
    }
}

#[test]
fn the_longest_grace_is_no_limit() {
    run(async {
        let task = create_task(async {
            let slept = sleep(HOUR).await;
            sleep(1000 * HOUR).await?;
            slept
        });
        turns(1).await?;
        let begin = now();
        assert!(task.cancel_with_grace(Duration::MAX));
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        assert_eq!(now() - begin, 1000 * HOUR);
        Ok(())
    });
}

/// What it waits for is cancelled, and a chain of tasks has the time of the first.
#[test]
fn a_chain_of_tasks() {
    run(async {
        let (guard, dropped) = drop_guard();
        let inner = create_task(async {
            let _guard = guard;
            let _ = sleep(HOUR).await;
            sleep(50 * MS).await
        });
        let known = inner.any();
        let outer = create_task(inner);
        turns(2).await?;
        let begin = now();
        outer.cancel_with_grace(10 * MS);
        assert_eq!(known.cancelling(), 1);
        assert_eq!(kind(&outer.await), Some(ErrorKind::Cancelled));
        assert_eq!(now() - begin, 10 * MS);
        assert!(!dropped.get() && !known.done(), "the inner one has been detached and cleans up by itself");
        known.clone().await?;
        assert_eq!(now() - begin, 50 * MS);
        Ok(())
    });
}

/// Its foreign awaits take no cancellation: it ends at once.
#[test]
fn a_task_of_foreign_futures_has_no_use_for_a_grace() {
    run(async {
        let gate = Gate::default();
        let waits = gate.clone();
        let task = create_task(async move {
            waits.await;
            Ok(())
        });
        turns(1).await?;
        let begin = now();
        task.cancel_with_grace(HOUR);
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        assert_eq!((now(), get_running_loop()?.next_deadline()), (begin, None));
        Ok(())
    });
}

/// Inside of limits, groups of it, and with its own limit in the clean-up.
#[test]
fn limits_in_the_grace() {
    run(async {
        let task = create_task(timeout(HOUR, async {
            let slept = sleep(HOUR).await;
            let goodbye = timeout(5 * MS, sleep(HOUR)).await;
            assert_eq!((kind(&goodbye), own().cancelling()), (Some(ErrorKind::Timeout), 1));
            slept
        }));
        sleep(MS).await?;
        let begin = now();
        task.cancel_with_grace(10 * MS);
        let by = cancelled(task.await).by;
        assert_eq!(by, Some(Canceller::Task(own_number())));
        assert_eq!((now() - begin, get_running_loop()?.next_deadline()), (5 * MS, None));
        timeout(SECOND, sleep(MS)).await
    });
}

/// The N of this task's first name.
fn own_number() -> u32 {
    own().get_name().strip_prefix("Task-").unwrap().parse().unwrap()
}

/// A drop that panics at the end of a grace is reported, and the task ends.
#[test]
fn a_drop_that_panics_when_the_grace_is_over() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let reports = support::handler(&event_loop);
    let task = started(&event_loop, async {
        let _bomb = Bomb;
        loop {
            let _ = sleep(HOUR).await;
        }
        #[expect(unreachable_code, reason = "says the type")]
        Ok(())
    });
    task.cancel_with_grace(MS);
    turns_until(&event_loop, || task.done());
    assert!(task.cancelled());
    assert_eq!(reports.take().len(), 1);
    assert_clean(&event_loop);
}

/// A main coroutine that is broken off by a stop takes its timer with it.
#[test]
fn a_main_coroutine_that_is_broken_off() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let outcome = event_loop.run_until_complete(async {
        own().cancel_with_grace(HOUR);
        assert!(sleep(HOUR).await.is_err());
        get_running_loop()?.stop();
        sleep(HOUR).await
    });
    assert_eq!(kind(&outcome), Some(ErrorKind::Runtime));
    assert_clean(&event_loop);
}
