//! `wait_for` by the rows.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{Error, ErrorKind, create_task, get_running_loop, sleep, wait_for};

use crate::{
    HOUR, MS, SECOND, kind, now, own, run,
    support::{failure, tick, virtual_loop},
    turns,
};

/// WFOR-001
#[test]
fn a_task_that_takes_too_long_is_cancelled() {
    run(async {
        let begin = now();
        let mut task = create_task(async { sleep(10 * SECOND).await });
        let outcome = wait_for(&mut task, 100 * MS).await;
        assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
        assert_eq!(now() - begin, 100 * MS);
        assert!(task.done() && task.cancelled());
        assert_eq!(own().cancelling(), 0);
        // By value, it is known by another handle.
        let task = create_task(async { sleep(10 * SECOND).await });
        let known = task.any();
        assert_eq!(kind(&wait_for(task, 100 * MS).await), Some(ErrorKind::Timeout));
        assert!(known.done() && known.cancelled());
        assert_eq!((own().cancelling(), known.cancelling()), (0, 1));
        Ok(())
    });
}

/// WFOR-002
#[test]
fn no_time_is_enough_for_what_is_done() {
    run(async {
        let flag = Cell::new(false);
        let coroutine = async {
            sleep(Duration::ZERO).await?;
            flag.set(true);
            Ok(())
        };
        assert_eq!(kind(&wait_for(coroutine, Duration::ZERO).await), Some(ErrorKind::Timeout));
        turns(3).await?;
        assert!(!flag.get());

        let future = get_running_loop()?.create_future::<&str>();
        future.set_result("done")?;
        let passed = Rc::new(Cell::new(false));
        let sees = passed.clone();
        let handle = get_running_loop()?.call_soon(move || sees.set(true));
        assert_eq!(wait_for(&future, Duration::ZERO).await?, "done");
        assert_eq!(wait_for(future, Duration::ZERO).await?, "done");
        assert!(!passed.get(), "without suspending");
        handle.await
    });
}

/// WFOR-002: a done task, and one that has not begun.
#[test]
fn no_time_and_a_task() {
    run(async {
        let mut task = create_task(async { Ok("done") });
        turns(2).await?;
        assert_eq!(wait_for(&mut task, Duration::ZERO).await?, "done");
        let mut task = create_task(async { sleep(Duration::ZERO).await.map(|()| "not in time") });
        assert_eq!(kind(&wait_for(&mut task, Duration::ZERO).await), Some(ErrorKind::Timeout));
        assert!(task.cancelled());
        // One that ended as the limit passed: too late, but it was not cancelled.
        let mut task = create_task(async { Ok("kept") });
        assert_eq!(kind(&wait_for(&mut task, Duration::ZERO).await), Some(ErrorKind::Timeout));
        assert_eq!(task.await?, "kept");
        Ok(())
    });
}

/// WFOR-004
#[test]
fn the_limit_waits_until_the_cancellation_was_dealt_with() {
    run(async {
        let stubborn = || async {
            let begin = now();
            while now() - begin < 200 * MS {
                let _ = sleep(200 * MS - (now() - begin)).await;
            }
            asyncio::ok("ended")
        };
        let begin = now();
        assert_eq!(wait_for(stubborn(), 100 * MS).await?, "ended");
        assert_eq!(now() - begin, 200 * MS);
        let mut task = create_task(stubborn());
        assert_eq!(wait_for(&mut task, 100 * MS).await?, "ended");
        assert_eq!(now() - begin, 400 * MS);
        assert!(task.done() && !task.cancelled());
        // One that cleans up for that long, and passes it on.
        let slow = create_task(async {
            let outcome = sleep(HOUR).await;
            sleep(100 * MS).await?;
            outcome
        });
        assert_eq!(kind(&wait_for(slow, 100 * MS).await), Some(ErrorKind::Timeout));
        assert_eq!(now() - begin, 600 * MS);
        Ok(())
    });
}

/// WFOR-006
#[test]
fn cancelling_who_waits_cancels_what_it_waits_for() {
    let (event_loop, _clock) = virtual_loop();
    for limit in [Some(60 * SECOND), None] {
        let blocked = event_loop.create_future::<()>();
        let task = event_loop.create_task(blocked.clone()).shared();
        let waits = event_loop.create_task(wait_for(task.clone(), limit));
        tick(&event_loop);
        assert!(waits.cancel_with("m"));
        assert!(blocked.cancelled());
        assert_eq!(task.cancelling(), 1);
        let outcome = event_loop.run_until_complete(waits);
        assert_eq!(crate::message(outcome).as_deref(), Some("m"));
        assert!(task.cancelled());
        crate::assert_clean(&event_loop);
    }
}

/// WFOR-007
#[test]
fn other_cancellations_and_other_timeouts_pass_unchanged() {
    run(async {
        let event_loop = get_running_loop()?;
        let future = event_loop.create_future::<()>();
        let canceller = future.clone();
        event_loop.call_later(10 * MS, move || canceller.cancel_with("fm"));
        let begin = now();
        let outcome = wait_for(future, 10 * SECOND).await;
        assert_eq!(crate::message(outcome).as_deref(), Some("fm"));
        assert_eq!((now() - begin, own().cancelling()), (10 * MS, 0));

        let outcome = wait_for(async { Err::<(), _>(Error::Timeout("mine".into())) }, 10 * SECOND).await;
        assert_eq!(failure(outcome), (ErrorKind::Timeout, "mine".into()));
        let later = create_task(async {
            sleep(MS).await?;
            Err::<(), _>(Error::Timeout("mine".into()))
        });
        assert_eq!(failure(wait_for(later, 10 * SECOND).await), (ErrorKind::Timeout, "mine".into()));
        Ok(())
    });
}

/// WFOR-007: the third party and the limit in one instant; the limit has the last word on its own cancellation only.
#[test]
fn a_future_cancelled_by_a_third_party_as_the_limit_passes() {
    run(async {
        let event_loop = get_running_loop()?;
        for third_party_first in [true, false] {
            let future = event_loop.create_future::<()>();
            let (canceller, deadline) = (future.clone(), now() + 10 * MS);
            let handle = third_party_first.then(|| {
                let canceller = canceller.clone();
                event_loop.call_at(deadline, move || canceller.cancel_with("fm"))
            });
            let waits = asyncio::timeout_at(deadline, &future);
            let mut waits = std::pin::pin!(waits);
            assert!(futures::poll!(waits.as_mut()).is_pending());
            let later = (!third_party_first).then(|| event_loop.call_at(deadline, move || canceller.cancel_with("fm")));
            // The limit has passed in either case.
            assert_eq!(kind(&waits.await), Some(ErrorKind::Timeout));
            assert!(future.cancelled());
            assert_eq!(own().cancelling(), 0);
            drop((handle, later));
        }
        Ok(())
    });
}
