//! Wakers and handles that are kept after their loop is gone are harmless, on every thread.
use std::{
    sync::mpsc,
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, SharedTask, Task, set_event_loop, sleep};

use crate::{
    MINUTE, MS, SECOND, assert_error,
    support::{Gate, deadline, drop_guard, handler, new_loop, tick},
};

const CLOSED: &str = "Event loop is closed";

/// Uses a waker in every way there is.
fn exercise(waker: &Waker) {
    waker.wake_by_ref();
    waker.wake_by_ref();
    let clone = waker.clone();
    assert!(clone.will_wake(waker));
    clone.wake();
    drop(waker.clone());
    let _ = format!("{waker:?}");
}

/// Wakers of: a detached task, one whose `Task` is kept, one that has ended, and the task that was in `run_until_complete`.
fn wakers_of_a_loop_that_is_gone() -> (Vec<Waker>, Task<()>) {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let gates: Vec<_> = (0..4).map(|_| Gate::default()).collect();
    let waits = |index: usize| {
        let gate = gates[index].clone();
        async move {
            gate.await;
            Ok(())
        }
    };
    drop(event_loop.create_task(waits(0)));
    let kept = event_loop.create_task(waits(1));
    let ended = event_loop.create_task(waits(2));
    tick(&event_loop);
    let mut wakers: Vec<_> = gates[..3].iter().map(|gate| gate.waker().unwrap()).collect();
    gates[2].open();
    tick(&event_loop);
    assert!(ended.done());
    let stopper = event_loop.clone();
    event_loop.call_later(MS, move || stopper.stop());
    event_loop.run_until_complete(waits(3)).unwrap_err();
    wakers.push(gates[3].waker().unwrap());
    event_loop.close().unwrap();
    assert_eq!(reports.take().len(), 2, "the two that were pending");
    (wakers, kept)
}

#[test]
fn wakers_are_harmless_after_the_loop() {
    let (wakers, kept) = wakers_of_a_loop_that_is_gone();
    assert!(kept.done() && kept.cancelled());
    wakers.iter().for_each(exercise);
    wakers.into_iter().for_each(Waker::wake);
}

#[test]
fn wakers_are_harmless_after_the_loop_on_other_threads() {
    let (wakers, kept) = wakers_of_a_loop_that_is_gone();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let wakers = wakers.clone();
            thread::spawn(move || {
                wakers.iter().for_each(exercise);
                wakers.into_iter().for_each(Waker::wake);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    thread::spawn(move || {
        assert!(kept.done() && kept.cancelled() && !kept.cancel());
        drop(kept);
        drop(wakers);
    })
    .join()
    .unwrap();
}

#[test]
fn wakers_are_harmless_after_the_thread_of_the_loop() {
    let (wakers, kept) = thread::spawn(wakers_of_a_loop_that_is_gone).join().unwrap();
    wakers.iter().for_each(exercise);
    drop(kept);
    wakers.into_iter().for_each(Waker::wake);
}

#[test]
fn a_thread_that_ends_with_an_open_loop_drops_its_tasks_there() {
    let _deadline = deadline();
    let (waker, dropped, ended_on) = thread::spawn(|| {
        let event_loop = new_loop();
        let gate = Gate::default();
        let (waits, (guard, dropped)) = (gate.clone(), drop_guard());
        let (send, receive) = mpsc::channel();
        struct Tell(mpsc::Sender<thread::ThreadId>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.send(thread::current().id());
            }
        }
        let tell = Tell(send);
        drop(event_loop.create_task(async move {
            let (_guard, _tell) = (guard, tell);
            waits.await;
            Ok(())
        }));
        tick(&event_loop);
        set_event_loop(&event_loop);
        (gate.waker().unwrap(), dropped, (thread::current().id(), receive))
    })
    .join()
    .unwrap();
    assert!(dropped.get());
    assert_eq!(ended_on.1.recv().unwrap(), ended_on.0);
    exercise(&waker);
    thread::spawn(move || waker.wake()).join().unwrap();
}

#[test]
fn handles_of_callbacks_are_harmless_after_the_loop() {
    let event_loop = new_loop();
    let (soon, later) = (event_loop.call_soon(|| 1), event_loop.call_later(MINUTE, || 2));
    let ran = event_loop.call_soon(|| 3);
    let (mut kept_soon, mut kept_later) = (event_loop.call_soon(|| 4), event_loop.call_later(MINUTE, || 5));
    drop(event_loop);
    soon.cancel();
    later.cancel();
    ran.cancel();
    assert!(soon.cancelled() && later.cancelled() && ran.cancelled());
    assert!(later.when() > Instant::now());
    drop((soon, later, ran));
    // What close dropped gives Cancelled in any loop: it is over.
    let other = new_loop();
    assert_error(other.run_until_complete(&mut kept_soon), ErrorKind::Cancelled, "cancelled");
    assert_error(other.run_until_complete(&mut kept_later), ErrorKind::Cancelled, "cancelled");
}

#[test]
fn futures_are_harmless_after_the_loop() {
    let event_loop = new_loop();
    let futures: Vec<_> = (0..4).map(|_| event_loop.create_future::<String>()).collect();
    futures[0].add_done_callback(|_| unreachable!("the loop is gone"));
    let waits = futures[1].clone();
    drop(event_loop.create_task(async move {
        waits.await?;
        Ok(())
    }));
    tick(&event_loop);
    handler(&event_loop);
    event_loop.close().unwrap();
    drop(event_loop);
    futures[0].set_result("zero".into()).unwrap();
    assert_eq!(futures[0].result().unwrap(), "zero");
    futures[1].set_result("one".into()).unwrap();
    assert!(futures[2].cancel());
    assert_error(futures[2].result(), ErrorKind::Cancelled, "cancelled");
    assert!(futures[3].get_loop().is_err());
    thread::spawn(move || {
        assert!(futures[3].set_result("three".into()).is_err(), "another thread");
        assert!(!futures[3].cancel());
        drop(futures);
    })
    .join()
    .unwrap();
}

#[test]
fn a_failed_future_that_outlives_its_loop_is_dropped_anywhere() {
    let event_loop = new_loop();
    let (here, there) = (event_loop.create_future::<()>(), event_loop.create_future::<()>());
    here.set_exception(crate::value_error("here")).unwrap();
    there.set_exception(crate::value_error("there")).unwrap();
    drop(event_loop);
    thread::spawn(move || drop(there)).join().unwrap();
    drop(here);
}

#[test]
fn tasks_are_harmless_after_the_loop() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let pending = event_loop.create_task(async { sleep(MINUTE).await });
    let never_begun = event_loop.create_task(async { Ok(()) });
    let other = event_loop.create_task(async { sleep(MINUTE).await }).shared();
    let any = pending.any();
    event_loop.close().unwrap();
    drop(event_loop);
    assert_eq!(reports.len(), 3);
    for task in [&pending, &never_begun] {
        assert!(task.done() && task.cancelled() && !task.cancel());
        assert_error(task.result(), ErrorKind::Cancelled, "cancelled");
        assert!(!task.get_name().is_empty());
    }
    assert!(any == pending.any() && any.cancelled() && !any.cancel());
    pending.add_done_callback(|_| unreachable!("the loop is gone"));
    let second = new_loop();
    assert_error(second.run_until_complete(pending), ErrorKind::Cancelled, "cancelled");
    assert_error(second.run_until_complete(other), ErrorKind::Cancelled, "cancelled");
    thread::spawn(move || drop(never_begun)).join().unwrap();
    // The reports carry tasks too.
    drop(reports);
    drop(any);
}

#[test]
fn a_handle_for_threads_outlives_the_loop() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let threadsafe = event_loop.threadsafe();
    assert!(!threadsafe.is_closed());
    drop(event_loop);
    let use_it = move || {
        assert!(threadsafe.is_closed());
        let (guard, dropped) = drop_guard();
        let call = threadsafe.call_soon_threadsafe(move || drop(guard));
        assert!(dropped.get());
        assert_error(call.result(None), ErrorKind::Runtime, CLOSED);
        let (guard, dropped) = drop_guard();
        let coroutine = threadsafe.run_coroutine_threadsafe(async move {
            drop(guard);
            Ok(())
        });
        assert!(dropped.get());
        assert_error(coroutine.result(None), ErrorKind::Runtime, CLOSED);
        threadsafe.stop();
    };
    use_it();
    let event_loop = new_loop();
    let threadsafe = event_loop.threadsafe();
    event_loop.close().unwrap();
    thread::spawn(move || {
        assert_error(threadsafe.call_soon_threadsafe(|| ()).result(None), ErrorKind::Runtime, CLOSED);
        threadsafe.stop();
    })
    .join()
    .unwrap();
}

#[test]
fn a_thread_that_waits_is_told_when_the_loop_closes() {
    let _deadline = deadline();
    let event_loop = new_loop();
    handler(&event_loop);
    let threadsafe = event_loop.threadsafe();
    let ((asked, was_asked), (closed, was_closed)) = (mpsc::channel(), mpsc::channel());
    let thread = thread::spawn(move || {
        let running = threadsafe.run_coroutine_threadsafe(async || sleep(MINUTE).await);
        asked.send(()).unwrap();
        let first = running.result(None);
        // Until then a call may still be taken, and cancelled by the rest of the close.
        was_closed.recv().unwrap();
        (first, threadsafe.call_soon_threadsafe(|| ()).result(None))
    });
    was_asked.recv().unwrap();
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(event_loop.all_tasks().len(), 1);
    // One call is under way and has not been run either.
    let queued = event_loop.call_soon_threadsafe(|| ());
    event_loop.close().unwrap();
    closed.send(()).unwrap();
    let (first, second) = thread.join().unwrap();
    assert_error(first, ErrorKind::Cancelled, "cancelled");
    assert_error(second, ErrorKind::Runtime, CLOSED);
    assert_eq!(queued.result(None).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_job_that_outlives_its_loop_ends_in_silence() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (go, may_go) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let future = event_loop.run_in_executor(None, move || {
        let _ = may_go.recv();
        done.send(()).unwrap();
        String::from("too late")
    });
    event_loop.close().unwrap();
    drop(event_loop);
    go.send(()).unwrap();
    is_done.recv().unwrap();
    drop(future);
    assert!(reports.take().is_empty());
}

#[test]
fn a_sleep_that_outlives_its_loop_is_dropped_anywhere() {
    let sleeps: Vec<_> = (0..2)
        .map(|_| {
            let event_loop = new_loop();
            let mut sleeping = Box::pin(sleep(MINUTE));
            let main = async {
                assert!(futures::poll!(sleeping.as_mut()).is_pending());
                Ok(())
            };
            event_loop.run_until_complete(main).unwrap();
            sleeping
        })
        .collect();
    let mut sleeps = sleeps.into_iter();
    drop(sleeps.next());
    let second = sleeps.next();
    thread::spawn(move || drop(second)).join().unwrap();
}

#[test]
fn a_sleep_dropped_on_another_thread_takes_its_timer_along() {
    let event_loop = new_loop();
    let mut sleeping = Box::pin(sleep(MINUTE));
    let main = async {
        assert!(futures::poll!(sleeping.as_mut()).is_pending());
        Ok(())
    };
    event_loop.run_until_complete(main).unwrap();
    assert!(event_loop.next_deadline().is_some());
    thread::spawn(move || drop(sleeping)).join().unwrap();
    tick(&event_loop);
    assert_eq!(event_loop.next_deadline(), None);
}

#[test]
fn a_shared_task_is_awaited_after_its_loop() {
    let event_loop = new_loop();
    let task: SharedTask<u8> = event_loop.create_task(async { Ok(8) }).shared();
    assert_eq!(event_loop.run_until_complete(task.clone()).unwrap(), 8);
    drop(event_loop);
    assert_eq!(new_loop().run_until_complete(task).unwrap(), 8);
}

#[test]
fn awaiting_a_pending_future_of_a_loop_that_is_gone_does_not_hang() {
    let _deadline = deadline();
    let future = new_loop().create_future::<()>();
    let waited = new_loop().run_until_complete(future);
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Value);
    let begin = Instant::now();
    new_loop().run_until_complete(sleep(Duration::ZERO)).unwrap();
    assert!(begin.elapsed() < 20 * SECOND);
}
