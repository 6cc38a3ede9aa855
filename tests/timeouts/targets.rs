//! What a limit can be around: tasks and futures in each of their forms, callbacks' handles.

use asyncio::{
    Error, ErrorKind, Event, Lock, Queue, create_task, gather, get_running_loop, shield, sleep, timeout, to_thread,
    wait, wait_for,
};

use crate::{HOUR, MS, SECOND, kind, message, now, own, run, support::failure, turns};

const TIMEOUT: Option<ErrorKind> = Some(ErrorKind::Timeout);

#[test]
fn a_task_by_value_by_reference_shared_and_erased() {
    run(async {
        for form in 0..5 {
            let mut task = create_task(async { sleep(HOUR).await });
            let known = task.any();
            let begin = now();
            let outcome = match form {
                0 => timeout(10 * MS, task).await,
                1 => timeout(10 * MS, &mut task).await,
                2 => timeout(10 * MS, &task).await,
                3 => timeout(10 * MS, task.shared()).await,
                _ => timeout(10 * MS, known.clone()).await,
            };
            assert_eq!(kind(&outcome), TIMEOUT, "{form}");
            assert!(known.cancelled(), "{form}");
            assert_eq!((now() - begin, known.cancelling(), own().cancelling()), (10 * MS, 1, 0), "{form}");
        }
        Ok(())
    });
}

#[test]
fn a_task_that_is_in_time_keeps_its_value() {
    run(async {
        let quick = || create_task(async { sleep(MS).await.map(|()| 5) });
        assert_eq!(timeout(SECOND, quick()).await?, 5);
        let mut task = quick();
        assert_eq!(timeout(SECOND, &mut task).await?, 5);
        let task = quick();
        assert_eq!(timeout(SECOND, &task).await?, 5);
        assert_eq!(task.await?, 5);
        timeout(SECOND, quick().any()).await
    });
}

/// A limit on a task that others await, too: they see it cancelled, but are not cancelled.
#[test]
fn others_who_await_the_same_task_see_it_cancelled() {
    run(async {
        let task = create_task(async { sleep(HOUR).await }).shared();
        let other = task.clone();
        let other = create_task(async move {
            let outcome = other.await;
            Ok((kind(&outcome), own().cancelling()))
        });
        turns(1).await?;
        assert_eq!(kind(&timeout(10 * MS, task).await), TIMEOUT);
        assert_eq!(other.await?, (Some(ErrorKind::Cancelled), 0));
        Ok(())
    });
}

#[test]
fn a_future_of_ones_own_and_shared_with_others() {
    run(async {
        let event_loop = get_running_loop()?;
        for form in 0..3 {
            let future = event_loop.create_future::<u8>();
            let waits = future.clone();
            let other = create_task(async move { (&waits).await });
            turns(1).await?;
            let outcome = match form {
                0 => timeout(10 * MS, &future).await,
                1 => timeout(10 * MS, future.clone()).await,
                _ => timeout(10 * MS, future.clone().shared()).await,
            };
            assert_eq!(kind(&outcome), TIMEOUT);
            assert!(future.cancelled() && future.set_result(1).is_err());
            assert_eq!(kind(&other.await), Some(ErrorKind::Cancelled), "it is cancelled for all");
        }
        let future = event_loop.create_future::<u8>();
        let sets = future.clone();
        event_loop.call_later(MS, move || sets.set_result(7));
        assert_eq!(timeout(SECOND, &future).await?, 7);
        assert_eq!(future.await?, 7);
        Ok(())
    });
}

/// A future that swallows nothing but is set in the instant of the deadline.
#[test]
fn a_future_that_is_set_in_the_instant_of_the_deadline() {
    run(async {
        let event_loop = get_running_loop()?;
        for set_first in [true, false] {
            let (future, deadline) = (event_loop.create_future::<u8>(), now() + 10 * MS);
            let sets = future.clone();
            let set = move || sets.set_result(7).is_ok();
            let (mut handle, mut set) = (None, Some(set));
            if set_first {
                handle = set.take().map(|set| event_loop.call_at(deadline, set));
            }
            let mut waits = Box::pin(asyncio::timeout_at(deadline, future));
            assert!(futures::poll!(waits.as_mut()).is_pending());
            let handle = handle.or_else(|| set.take().map(|set| event_loop.call_at(deadline, set))).unwrap();
            let outcome = waits.await;
            // What was there first counts: a future that is done takes no cancellation, but the mark comes before it.
            assert_eq!(handle.await?, set_first);
            assert_eq!(kind(&outcome), TIMEOUT);
            assert_eq!(own().cancelling(), 0);
        }
        Ok(())
    });
}

#[test]
fn a_callback_and_a_timer() {
    run(async {
        let event_loop = get_running_loop()?;
        assert_eq!(timeout(SECOND, event_loop.call_soon(|| 5)).await?, 5);
        assert_eq!(timeout(SECOND, event_loop.call_later(MS, || 5)).await?, 5);
        let begin = now();
        let handle = event_loop.call_later(50 * MS, || 5);
        assert_eq!(kind(&timeout(10 * MS, handle).await), TIMEOUT);
        assert_eq!(now() - begin, 10 * MS);
        sleep(100 * MS).await
    });
}

#[test]
fn everything_else_that_waits() {
    run(async {
        let (lock, event, queue) = (Lock::new(), Event::new(), Queue::<u8>::new(0));
        let held = lock.acquire().await?;
        let ten = 10 * MS;
        let begin = now();
        assert_eq!(kind(&timeout(ten, async { lock.acquire().await.map(drop) }).await), TIMEOUT);
        assert_eq!(kind(&timeout(ten, async { event.wait().await.map(drop) }).await), TIMEOUT);
        assert_eq!(kind(&timeout(ten, async { queue.get().await }).await), TIMEOUT);
        assert_eq!(kind(&timeout(ten, async { gather((sleep(HOUR), sleep(HOUR))).await }).await), TIMEOUT);
        assert_eq!(kind(&timeout(ten, gather((sleep(HOUR), sleep(HOUR)))).await), TIMEOUT);
        let mut task = create_task(async { sleep(HOUR).await });
        assert_eq!(kind(&timeout(ten, async { wait([&task]).await.map(drop) }).await), TIMEOUT);
        assert_eq!(kind(&timeout(ten, task.shield()).await), TIMEOUT);
        assert!(!task.done() && task.cancelling() == 0);
        assert_eq!(kind(&timeout(ten, shield(task)).await), TIMEOUT);
        let left = asyncio::all_tasks()?.into_iter().find(|task| *task != own()).expect("it goes on");
        assert!(left.cancelling() == 0 && left.cancel());
        assert_eq!(kind(&timeout(ten, asyncio::cancellable(std::future::pending::<()>())).await), TIMEOUT);
        assert_eq!(now() - begin, 90 * MS);
        drop(held);
        assert_eq!((queue.qsize(), lock.locked()), (0, false));
        turns(2).await
    });
}

#[test]
fn work_in_a_thread() {
    crate::support::run(async {
        assert_eq!(timeout(60 * SECOND, to_thread(|| Ok(5))).await?, 5);
        let (done, waits) = std::sync::mpsc::channel::<()>();
        let outcome = timeout(10 * MS, to_thread(move || Ok(waits.recv().is_ok()))).await;
        assert_eq!(kind(&outcome), TIMEOUT);
        drop(done);
        Ok(())
    });
}

/// What was cancelled before, what has failed, what has ended.
#[test]
fn things_that_are_done() {
    run(async {
        let task = create_task(async { sleep(HOUR).await });
        task.cancel_with("before");
        turns(2).await?;
        assert_eq!(message(wait_for(task, SECOND).await).as_deref(), Some("before"));
        let task = create_task(async { Err::<(), _>(Error::Value("E".into())) });
        turns(2).await?;
        assert_eq!(failure(wait_for(task, SECOND).await), (ErrorKind::Value, "E".into()));
        let future = get_running_loop()?.create_future::<()>();
        future.cancel_with("fm");
        assert_eq!(message(timeout(SECOND, future).await).as_deref(), Some("fm"));
        assert_eq!(get_running_loop()?.next_deadline(), None);
        Ok(())
    });
}

/// A task under a limit that is cancelled by a third party.
#[test]
fn a_task_that_a_third_party_cancels() {
    run(async {
        let task = create_task(async { sleep(HOUR).await });
        let known = task.any();
        get_running_loop()?.call_later(MS, move || known.cancel_with("third"));
        assert_eq!(message(timeout(SECOND, task).await).as_deref(), Some("third"));
        assert_eq!(own().cancelling(), 0);
        Ok(())
    });
}

/// Awaiting one's own task under a limit is refused as it is without one.
#[test]
fn a_task_that_awaits_itself_under_a_limit() {
    run(async {
        let task = create_task(async { timeout(SECOND, own()).await });
        assert_eq!(kind(&task.await), Some(ErrorKind::Runtime));
        Ok(())
    });
}
