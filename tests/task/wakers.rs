//! Foreign futures and their wakers.

use std::{
    cell::Cell,
    future::Future as _,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use asyncio::{create_task, sleep};

use crate::support::{self, Gate, new_loop, tick};

/// TASK-022
#[test]
fn a_waker_of_another_thread_ends_the_wait() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let timer = event_loop.call_later(Duration::from_secs(60), || ());
    let gate = Gate::default();
    let opener = gate.clone();
    let begin = Instant::now();
    let here = thread::current().id();
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        opener.open();
    });
    let resumed_on = event_loop
        .run_until_complete(async {
            gate.await;
            Ok(thread::current().id())
        })
        .unwrap();
    let taken = begin.elapsed();
    assert_eq!(resumed_on, here);
    assert!(taken >= Duration::from_millis(48), "{taken:?}");
    assert!(taken < Duration::from_secs(20), "the poll was woken, not the timer waited for: {taken:?}");
    timer.cancel();
    other.join().unwrap();
}

/// TASK-024
#[test]
fn many_wakes_are_one_poll_and_a_late_one_is_none() {
    let event_loop = new_loop();
    let gate = Gate::default();
    let waiting = gate.clone();
    let task = event_loop.create_task(async move {
        waiting.await;
        Ok(())
    });
    tick(&event_loop);
    assert_eq!(gate.polls(), 1);
    let waker = gate.waker().unwrap();
    for _ in 0..5 {
        waker.wake_by_ref();
    }
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(gate.polls(), 2, "one extra poll for the five wakes");
    gate.open();
    tick(&event_loop);
    assert_eq!(gate.polls(), 3);
    assert!(task.done());
    waker.wake_by_ref();
    tick(&event_loop);
    assert_eq!(gate.polls(), 3);
    assert!(event_loop.next_deadline().is_none(), "nothing is queued");
    drop(task);
    waker.wake();
}

/// TASK-024: the same from another thread, and after the loop is gone.
#[test]
fn late_wakes_from_other_threads_do_nothing() {
    let event_loop = new_loop();
    let gate = Gate::default();
    let waiting = gate.clone();
    let task = event_loop.create_task(async move {
        waiting.await;
        Ok(())
    });
    tick(&event_loop);
    let waker = gate.waker().unwrap();
    let theirs = waker.clone();
    thread::spawn(move || (0..5).for_each(|_| theirs.wake_by_ref())).join().unwrap();
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(gate.polls(), 2);
    gate.open();
    tick(&event_loop);
    assert!(task.done());
    let theirs = waker.clone();
    thread::spawn(move || theirs.wake()).join().unwrap();
    tick(&event_loop);
    assert_eq!(gate.polls(), 3);
    drop((task, event_loop));
    thread::spawn(move || waker.wake()).join().unwrap();
}

#[test]
fn a_wake_during_a_step_is_one_more_step() {
    let event_loop = new_loop();
    let polls = Rc::new(Cell::new(0));
    let counted = polls.clone();
    let task = event_loop.create_task(std::future::poll_fn(move |cx| {
        counted.set(counted.get() + 1);
        if counted.get() == 3 {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    for expected in 1..=3 {
        tick(&event_loop);
        assert_eq!(polls.get(), expected);
    }
    assert!(task.done());
}

#[test]
fn a_waker_keeps_neither_the_coroutine_nor_the_loop() {
    let event_loop = new_loop();
    let gate = Gate::default();
    let (waiting, (guard, dropped)) = (gate.clone(), support::drop_guard());
    let task = event_loop.create_task(async move {
        let _guard = guard;
        waiting.await;
        Ok(())
    });
    tick(&event_loop);
    let waker = gate.waker().unwrap();
    let _reports = support::handler(&event_loop);
    drop(event_loop);
    assert!(dropped.get());
    assert!(task.cancelled());
    waker.wake_by_ref();
    drop(task);
    waker.wake();
}

#[test]
fn a_task_wakes_on_its_loop_whatever_runs_here() {
    // A waker of loop A that is used while loop B runs on the same thread.
    let (a, b) = (new_loop(), new_loop());
    let gate = Gate::default();
    let waiting = gate.clone();
    let task = a.create_task(async move {
        waiting.await;
        Ok(1)
    });
    tick(&a);
    b.run_until_complete(async {
        gate.open();
        sleep(Duration::ZERO).await
    })
    .unwrap();
    assert!(!task.done());
    tick(&a);
    assert_eq!(task.result().unwrap(), 1);
}

#[test]
fn a_burst_of_wakes_from_many_threads_loses_none() {
    let _deadline = support::deadline();
    support::run(async {
        for _ in 0..50 {
            let gates: Vec<Gate> = (0..40).map(|_| Gate::default()).collect();
            let openers = gates.clone();
            let tasks: Vec<_> = gates
                .into_iter()
                .map(|gate| {
                    create_task(async move {
                        gate.await;
                        Ok(())
                    })
                })
                .collect();
            sleep(Duration::ZERO).await?;
            let threads: Vec<_> = openers
                .chunks(20)
                .map(|part| {
                    let part = part.to_vec();
                    thread::spawn(move || part.iter().for_each(Gate::open))
                })
                .collect();
            for task in tasks {
                task.await?;
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        Ok(())
    });
}

#[test]
fn a_waker_that_is_dropped_on_another_thread_last_is_harmless() {
    let event_loop = new_loop();
    let kept: Arc<Mutex<Option<Waker>>> = Arc::default();
    let slot = kept.clone();
    let (guard, dropped) = support::drop_guard();
    let local = Rc::new(guard);
    let task = event_loop.create_task(async move {
        let _local = local;
        std::future::poll_fn(|cx| {
            slot.lock().unwrap().get_or_insert_with(|| cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        Ok(String::from("value"))
    });
    drop(task);
    tick(&event_loop);
    assert!(dropped.get());
    let waker = kept.lock().unwrap().take().unwrap();
    thread::spawn(move || drop(waker)).join().unwrap();
    tick(&event_loop);
}

#[test]
fn join_wakers_poll_the_right_child() {
    support::run(async {
        let gates = [Gate::default(), Gate::default()];
        let mut children: futures::stream::FuturesUnordered<_> = gates.iter().cloned().collect();
        let opener = gates[1].clone();
        asyncio::get_running_loop()?.call_soon(move || opener.open());
        futures::StreamExt::next(&mut children).await;
        assert_eq!((gates[0].polls(), gates[1].polls()), (1, 2));
        let mut last = std::pin::pin!(futures::StreamExt::next(&mut children));
        std::future::poll_fn(|cx| {
            assert!(last.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(gates[0].polls(), 1, "it was not woken");
        Ok(())
    });
}
