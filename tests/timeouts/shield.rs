//! `shield`: who waits can be cancelled, what is waited for goes on.

use std::{cell::Cell, rc::Rc};

use asyncio::{Error, ErrorKind, create_task, gather, get_running_loop, shield, sleep, timeout};

use crate::{
    HOUR, MS, SECOND, kind, message, now, own, run,
    support::{self, drop_guard, failure, handler, tick, virtual_loop},
    turns,
};

/// SHLD-001
#[test]
fn the_outer_one_gets_what_the_inner_one_got() {
    run(async {
        let event_loop = get_running_loop()?;
        for outcome in 0..3 {
            let inner = event_loop.create_future::<u8>();
            let outer = create_task(shield(inner.clone()));
            turns(2).await?;
            assert!(!outer.done());
            match outcome {
                0 => inner.set_result(42)?,
                1 => inner.set_exception(Error::Value("E".into()))?,
                _ => assert!(inner.cancel_with("third")),
            }
            turns(3).await?;
            assert!(outer.done());
            match outcome {
                0 => assert_eq!(outer.await?, 42),
                1 => assert_eq!(failure(outer.await), (ErrorKind::Value, "E".into())),
                _ => {
                    assert!(outer.cancelled() && outer.cancelling() == 0);
                    assert_eq!(message(outer.await).as_deref(), Some("third"));
                }
            }
        }
        Ok(())
    });
}

/// SHLD-001: of tasks, coroutines, and shared ones.
#[test]
fn every_kind_of_inner_one() {
    run(async {
        let slow = |value: u8| async move {
            sleep(MS).await?;
            match value {
                0 => Err(Error::Value("E".into())),
                value => Ok(value),
            }
        };
        assert_eq!(shield(slow(42)).await?, 42);
        assert_eq!(shield(create_task(slow(42))).await?, 42);
        assert_eq!(shield(create_task(slow(42)).shared()).await?, 42);
        shield(create_task(slow(42)).any()).await?;
        assert_eq!(shield(shield(slow(42))).await?, 42);
        assert_eq!(create_task(slow(42)).shield().await?, 42);
        assert_eq!(failure(shield(slow(0)).await).0, ErrorKind::Value);
        assert_eq!(failure(shield(create_task(slow(0))).await).0, ErrorKind::Value);
        assert_eq!(failure(create_task(slow(0)).shield().await).0, ErrorKind::Value);
        let inner = create_task(sleep(HOUR));
        let known = inner.any();
        get_running_loop()?.call_later(MS, move || known.cancel_with("third"));
        assert_eq!(message(shield(inner).await).as_deref(), Some("third"));
        let mut inner = create_task(sleep(HOUR));
        let known = inner.any();
        get_running_loop()?.call_later(MS, move || known.cancel_with("third"));
        assert_eq!(message(inner.shield().await).as_deref(), Some("third"));
        Ok(())
    });
}

/// SHLD-002
#[test]
fn the_inner_one_goes_on_to_its_end() {
    let (event_loop, _clock) = virtual_loop();
    let reports = handler(&event_loop);
    let (proof, future) = (Rc::new(Cell::new(0)), event_loop.create_future::<()>());
    let (adds, adds_more, waits) = (proof.clone(), proof.clone(), future.clone());
    let task = event_loop.create_task(async move {
        let inner = async move {
            (&waits).await?;
            adds.set(adds.get() + 1);
            Ok(())
        };
        shield(inner).await?;
        adds_more.set(adds_more.get() + 100);
        Ok(())
    });
    tick(&event_loop);
    tick(&event_loop);
    assert!(task.cancel());
    assert!(!future.done());
    tick(&event_loop);
    assert!(task.cancelled(), "at once");
    future.set_result(()).unwrap();
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(proof.get(), 1);
    crate::assert_clean(&event_loop);
    assert_eq!(reports.len(), 0);
}

/// SHLD-003
#[test]
fn gathers_and_shields_in_each_other() {
    run(async {
        let event_loop = get_running_loop()?;
        let (one, two) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
        let together = create_task({
            let (one, two) = (one.clone(), two.clone());
            async move { gather(vec![one, two]).await }
        })
        .shared();
        let outer = create_task(shield(together.clone()));
        turns(2).await?;
        outer.cancel();
        assert_eq!(kind(&outer.await), Some(ErrorKind::Cancelled));
        assert!(!together.done() && !one.done() && !two.done());
        one.set_result(1)?;
        two.set_result(2)?;
        assert_eq!(together.await?, [1, 2]);

        let (one, two) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
        let (first, second) = (create_task(shield(one.clone())).shared(), create_task(shield(two.clone())).shared());
        let outer = gather((first.clone(), second.clone())).start();
        turns(2).await?;
        assert!(outer.cancel());
        assert_eq!(kind(&outer.await), Some(ErrorKind::Cancelled));
        assert!(first.cancelled() && second.cancelled());
        assert!(!one.done() && !two.done());
        one.set_result(1)?;
        two.set_result(2)?;
        Ok(())
    });
}

/// SHLD-003: a gathering itself is a coroutine for the shield, and shields are for the gathering.
#[test]
fn gathers_and_shields_by_value() {
    run(async {
        let event_loop = get_running_loop()?;
        let (one, two) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
        let mut outer = Box::pin(shield(gather(vec![one.clone(), two.clone()])));
        let waits = timeout(MS, outer.as_mut());
        assert_eq!(kind(&waits.await), Some(ErrorKind::Timeout));
        assert!(!one.done() && !two.done());
        one.set_result(1)?;
        two.set_result(2)?;
        assert_eq!(outer.await?, [1, 2], "awaited again");

        let (one, two) = (event_loop.create_future::<u8>(), event_loop.create_future::<u8>());
        let both = create_task({
            let (one, two) = (one.clone(), two.clone());
            async move { gather((shield(one), shield(two))).await }
        });
        turns(3).await?;
        both.cancel();
        assert_eq!(kind(&both.await), Some(ErrorKind::Cancelled));
        assert!(!one.done() && !two.done());
        Ok(())
    });
}

/// Nobody is left who could look: it is reported.
#[test]
fn an_inner_one_that_fails_later_is_reported() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let reports = handler(&event_loop);
    let outer = event_loop.create_task(async {
        shield(async {
            sleep(10 * MS).await?;
            Err::<(), _>(Error::Value("E".into()))
        })
        .await
    });
    tick(&event_loop);
    outer.cancel();
    event_loop.run_until_complete(sleep(20 * MS)).unwrap();
    assert!(outer.cancelled());
    let reports = reports.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(format!("{:?}", reports[0]).contains('E'), "{reports:?}");
    // One that ends well, or is cancelled, is not.
    let again = handler(&event_loop);
    for fails in [false, true] {
        let outer = event_loop.create_task(async move {
            let inner = create_task(sleep(10 * MS));
            if fails {
                let known = inner.any();
                get_running_loop()?.call_later(5 * MS, move || known.cancel());
            }
            shield(inner).await
        });
        tick(&event_loop);
        outer.cancel();
        event_loop.run_until_complete(sleep(20 * MS)).unwrap();
    }
    assert_eq!(again.len(), 0);
    crate::assert_clean(&event_loop);
}

#[test]
fn things_that_are_done() {
    run(async {
        let event_loop = get_running_loop()?;
        let passed = Rc::new(Cell::new(false));
        let sees = passed.clone();
        let later = event_loop.call_soon(move || sees.set(true));
        let future = event_loop.create_future::<u8>();
        future.set_result(42)?;
        assert_eq!(shield(future).await?, 42);
        let future = event_loop.create_future::<u8>();
        future.set_exception(Error::Value("E".into()))?;
        assert_eq!(failure(shield(future).await).0, ErrorKind::Value);
        let future = event_loop.create_future::<u8>();
        future.cancel_with("fm");
        assert_eq!(message(shield(future).await).as_deref(), Some("fm"));
        assert!(!passed.get(), "without suspending");
        later.await?;
        let mut task = create_task(async { Ok(5) });
        turns(2).await?;
        assert_eq!(task.shield().await?, 5);
        assert_eq!(failure(task.shield().await).1, "Result was already taken");
        Ok(())
    });
}

/// `Task::shield`: the task stays in hand, whatever became of the wait.
#[test]
fn a_task_in_hand_is_used_again() {
    run(async {
        let begin = now();
        let mut task = create_task(async { sleep(50 * MS).await.map(|()| 5) });
        for _ in 0..3 {
            assert_eq!(kind(&timeout(10 * MS, task.shield()).await), Some(ErrorKind::Timeout));
            assert!(!task.done() && task.cancelling() == 0);
        }
        tokio::select! {
            biased;
            _ = task.shield() => panic!("not yet"),
            slept = sleep(MS) => slept?,
        }
        drop(task.shield());
        assert_eq!(task.shield().await?, 5);
        assert_eq!((now() - begin, task.done()), (50 * MS, true));
        // And cancelled in the end, by who has it.
        let mut task = create_task(sleep(HOUR));
        assert!(timeout(MS, task.shield()).await.is_err());
        task.cancel_with("enough");
        assert_eq!(message(task.shield().await).as_deref(), Some("enough"));
        assert_eq!(own().cancelling(), 0);
        Ok(())
    });
}

/// A shield that is dropped leaves nobody behind who would be told.
#[test]
fn a_shield_that_is_dropped() {
    run(async {
        let (guard, dropped) = drop_guard();
        let inner = create_task(async move {
            let _guard = guard;
            sleep(10 * MS).await
        });
        let known = inner.any();
        let mut outer = Box::pin(shield(inner));
        assert!(futures::poll!(outer.as_mut()).is_pending());
        drop(outer);
        assert!(!dropped.get() && known.cancelling() == 0);
        sleep(20 * MS).await?;
        assert!(dropped.get() && known.done() && !known.cancelled());
        // One that was never polled starts what it was given all the same.
        let (guard, dropped) = drop_guard();
        drop(shield(async move {
            let _guard = guard;
            sleep(10 * MS).await
        }));
        sleep(5 * MS).await?;
        assert!(!dropped.get());
        sleep(10 * MS).await?;
        assert!(dropped.get());
        Ok(())
    });
}

/// Cancelled, and awaited again: the shield itself is not used up.
#[test]
fn a_shield_is_awaited_again() {
    run(async {
        let begin = now();
        let mut outer = Box::pin(shield(async { sleep(50 * MS).await.map(|()| 5) }));
        let task = create_task(async move {
            assert!(outer.as_mut().await.is_err());
            let again = outer.as_mut().await;
            assert_eq!(own().cancelling(), 1);
            again
        });
        sleep(10 * MS).await?;
        task.cancel();
        assert_eq!(task.await?, 5);
        assert_eq!(now() - begin, 50 * MS);
        timeout(SECOND, sleep(MS)).await
    });
}

/// The wait is cancelled in the iteration in which the inner one ends.
#[test]
fn cancelled_as_the_inner_one_ends() {
    let (event_loop, _clock) = virtual_loop();
    for ticks_between in 0..2 {
        let inner = event_loop.create_future::<u8>();
        let waits = inner.clone();
        let outer = event_loop.create_task(async move { shield(waits).await });
        tick(&event_loop);
        inner.set_result(42).unwrap();
        (0..ticks_between).for_each(|_| tick(&event_loop));
        assert!(outer.cancel());
        (0..3).for_each(|_| tick(&event_loop));
        assert!(outer.cancelled(), "{ticks_between}");
        assert_eq!(inner.result().unwrap(), 42);
        crate::assert_clean(&event_loop);
    }
}

/// Of another loop.
#[test]
fn things_of_another_loop() {
    let (event_loop, _clock) = virtual_loop();
    let (other, _other_clock) = virtual_loop();
    let future = other.create_future::<u8>();
    let waits = future.clone();
    let outcome = event_loop.run_until_complete(async move { shield(waits).await });
    assert_eq!(failure(outcome).0, ErrorKind::Value);
    assert!(!future.done());
    let mut task = other.create_task(async { Ok(5) });
    let outcome = event_loop.run_until_complete(task.shield());
    assert_eq!(failure(outcome).0, ErrorKind::Value);
    assert_eq!(other.run_until_complete(task.shield()).unwrap(), 5);
}

/// Without a loop a future is awaited as it is, when there is one.
#[test]
fn a_coroutine_without_a_loop() {
    let _deadline = support::deadline();
    let (guard, dropped) = drop_guard();
    let orphan = std::thread::spawn(move || {
        let outer = shield(async move {
            let _guard = guard;
            asyncio::ok(())
        });
        let outcome = crate::poll_now(outer);
        matches!(outcome, std::task::Poll::Ready(Err(error)) if error.to_string().contains("no current event loop"))
    });
    assert!(orphan.join().unwrap());
    assert!(dropped.get(), "unpolled");
}
