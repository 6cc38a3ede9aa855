//! The order of callbacks, their handles, and callbacks that come from other threads.
use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, sleep};

use crate::{
    MINUTE, MS, SECOND, assert_error, push,
    support::{Record, deadline, drop_guard, handler, new_loop, tick, virtual_loop},
};

/// SCHED-001
#[test]
fn callbacks_run_in_the_order_of_scheduling_and_once() {
    let (event_loop, record) = (new_loop(), Record::default());
    for number in [1, 2, 3] {
        event_loop.call_soon(push(&record, number));
    }
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), [1, 2, 3]);
}

/// SCHED-002
#[test]
fn what_a_callback_schedules_runs_in_the_next_iteration() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (scheduler, log) = (event_loop.clone(), record.clone());
    event_loop.call_soon(move || {
        log.push("A");
        scheduler.call_soon(push(&log, "B"));
    });
    tick(&event_loop);
    assert_eq!(record.items(), ["A"]);
    tick(&event_loop);
    assert_eq!(record.take(), ["A", "B"]);
}

#[test]
fn tasks_and_callbacks_are_one_queue() {
    let (event_loop, record) = (new_loop(), Record::default());
    event_loop.call_soon(push(&record, "callback 1"));
    let log = record.clone();
    let _task = event_loop.create_task(async move {
        log.push("task 1");
        sleep(Duration::ZERO).await?;
        log.push("task 1 again");
        Ok(())
    });
    event_loop.call_soon(push(&record, "callback 2"));
    let log = record.clone();
    let _task = event_loop.create_task(async move {
        log.push("task 2");
        Ok(())
    });
    tick(&event_loop);
    assert_eq!(record.take(), ["callback 1", "task 1", "callback 2", "task 2"]);
    tick(&event_loop);
    assert_eq!(record.take(), ["task 1 again"]);
}

/// SCHED-004
#[test]
fn a_timer_that_is_due_comes_after_what_is_ready() {
    let (event_loop, record) = (new_loop(), Record::default());
    event_loop.call_later(Duration::ZERO, push(&record, "later0"));
    event_loop.call_soon(push(&record, "soon"));
    tick(&event_loop);
    assert_eq!(record.take(), ["soon", "later0"]);
}

/// SCHED-006
#[test]
fn what_was_scheduled_before_the_timer_was_noticed_goes_first() {
    let (event_loop, clock) = virtual_loop();
    let record = Record::default();
    event_loop.call_later(10 * MS, push(&record, "timer"));
    let (scheduler, log) = (event_loop.clone(), record.clone());
    event_loop.call_soon(move || {
        clock.advance(30 * MS);
        scheduler.call_soon(push(&log, "soon"));
    });
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), ["soon", "timer"]);
}

/// SCHED-007
#[test]
fn a_queued_callback_can_be_cancelled_by_an_earlier_one() {
    let (event_loop, record) = (new_loop(), Record::default());
    let victim = Rc::new(Cell::new(None));
    let (log, slot) = (record.clone(), victim.clone());
    event_loop.call_soon(move || {
        log.push("a");
        let handle: asyncio::Handle<()> = slot.take().unwrap();
        handle.cancel();
        slot.set(Some(handle));
    });
    victim.set(Some(event_loop.call_soon(push(&record, "b"))));
    event_loop.call_soon(push(&record, "c"));
    tick(&event_loop);
    assert_eq!(record.take(), ["a", "c"]);
    assert!(victim.take().unwrap().cancelled());
}

#[test]
fn a_timer_in_the_present_batch_can_be_cancelled_by_an_earlier_one() {
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let victim = Rc::new(Cell::new(None));
    let (log, slot) = (record.clone(), victim.clone());
    event_loop.call_later(SECOND, move || {
        log.push("a");
        slot.take().map(|handle: asyncio::TimerHandle<()>| handle.cancel()).unwrap();
    });
    victim.set(Some(event_loop.call_later(SECOND, push(&record, "b"))));
    event_loop.call_later(SECOND, push(&record, "c"));
    event_loop.run_until_complete(sleep(2 * SECOND)).unwrap();
    assert_eq!(record.take(), ["a", "c"]);
}

/// SCHED-009
#[test]
fn cancelling_what_has_run_changes_nothing_but_the_flag() {
    let (event_loop, record) = (new_loop(), Record::default());
    let log = record.clone();
    let handle = event_loop.call_soon(move || {
        log.push("ran");
        5
    });
    tick(&event_loop);
    assert!(!handle.cancelled());
    handle.cancel();
    assert!(handle.cancelled());
    tick(&event_loop);
    assert_eq!(record.take(), ["ran"]);
    assert_eq!(event_loop.run_until_complete(handle).unwrap(), 5);
}

#[test]
fn a_timer_that_has_fired_is_cancelled_in_name_only() {
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let log = record.clone();
    let handle = event_loop.call_later(SECOND, move || {
        log.push("ran");
        5
    });
    event_loop.run_until_complete(sleep(2 * SECOND)).unwrap();
    assert!(!handle.cancelled());
    handle.cancel();
    assert!(handle.cancelled());
    assert_eq!(record.take(), ["ran"]);
    assert_eq!(event_loop.run_until_complete(handle).unwrap(), 5);
}

#[test]
fn awaiting_a_cancelled_handle_gives_cancelled() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let (soon, later) = (event_loop.call_soon(|| 1), event_loop.call_later(MINUTE, || 2));
    soon.cancel();
    later.cancel();
    assert_error(event_loop.run_until_complete(soon), ErrorKind::Cancelled, "cancelled");
    assert_error(event_loop.run_until_complete(later), ErrorKind::Cancelled, "cancelled");

    // Also where somebody waits for it already.
    let slot = Rc::new(Cell::new(Some(event_loop.call_later(MINUTE, || 3))));
    let waits = slot.clone();
    let task = event_loop.create_task(std::future::poll_fn(move |cx| {
        let mut handle = waits.take().unwrap();
        let polled = std::pin::Pin::new(&mut handle).poll(cx);
        waits.set(Some(handle));
        polled
    }));
    tick(&event_loop);
    event_loop.call_soon(move || {
        let handle = slot.take().unwrap();
        handle.cancel();
        slot.set(Some(handle));
    });
    assert_error(event_loop.run_until_complete(task), ErrorKind::Cancelled, "cancelled");
}

#[test]
fn a_handle_gives_its_value_once() {
    let event_loop = new_loop();
    let mut handle = event_loop.call_soon(|| String::from("value"));
    assert_eq!(event_loop.run_until_complete(&mut handle).unwrap(), "value");
    assert_error(event_loop.run_until_complete(handle), ErrorKind::InvalidState, "Result was already taken");
}

/// SCHED-010
#[test]
fn cancel_drops_the_callback_at_once() {
    let event_loop = new_loop();
    let ((soon_guard, soon_dropped), (later_guard, later_dropped)) = (drop_guard(), drop_guard());
    let soon = event_loop.call_soon(move || drop(soon_guard));
    let later = event_loop.call_later(MINUTE, move || drop(later_guard));
    assert!(!soon_dropped.get() && !later_dropped.get());
    soon.cancel();
    assert!(soon_dropped.get());
    later.cancel();
    assert!(later_dropped.get());
}

/// SCHED-011
#[test]
fn dropping_a_handle_does_not_cancel() {
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    drop(event_loop.call_soon(push(&record, "soon")));
    drop(event_loop.call_later(10 * MS, push(&record, "later")));
    event_loop.run_until_complete(sleep(20 * MS)).unwrap();
    assert_eq!(record.take(), ["soon", "later"]);
}

/// SCHED-012
#[test]
fn a_callback_is_released_after_it_ran() {
    let (event_loop, _) = virtual_loop();
    let guards: Vec<_> = (0..3).map(|_| drop_guard()).collect();
    let (mut guards, dropped): (Vec<_>, Vec<_>) = guards.into_iter().unzip();
    let (last, second, first) = (guards.pop().unwrap(), guards.pop().unwrap(), guards.pop().unwrap());
    event_loop.call_soon(move || {
        let _held = &first;
    });
    event_loop.call_later(MS, move || {
        let _held = &second;
    });
    event_loop.call_soon_threadsafe(move || {
        let _held = &last;
    });
    event_loop.run_until_complete(sleep(2 * MS)).unwrap();
    assert!(dropped.iter().all(|dropped| dropped.get()));
}

#[test]
fn a_kept_handle_does_not_keep_the_callback() {
    let event_loop = new_loop();
    let (guard, dropped) = drop_guard();
    let handle = event_loop.call_soon(move || {
        let _held = &guard;
    });
    tick(&event_loop);
    assert!(dropped.get());
    assert!(!handle.cancelled());
}

/// SCHED-013
#[test]
fn a_call_from_another_thread_ends_the_wait() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let timer = event_loop.call_later(MINUTE, || ());
    let threadsafe = event_loop.threadsafe();
    let begin = Instant::now();
    let thread = thread::spawn(move || {
        thread::sleep(100 * MS);
        let stopper = threadsafe.clone();
        drop(threadsafe.call_soon_threadsafe(move || stopper.stop()));
    });
    event_loop.run_forever().unwrap();
    let taken = begin.elapsed();
    assert!(taken >= 98 * MS && taken < 30 * SECOND, "{taken:?}");
    thread.join().unwrap();
    assert!(!timer.cancelled());
}

/// SCHED-014
#[test]
fn threads_and_loop_share_one_queue() {
    let (event_loop, record) = (new_loop(), Arc::new(Mutex::new(Vec::new())));
    let (threadsafe, log) = (event_loop.threadsafe(), record.clone());
    thread::spawn(move || drop(threadsafe.call_soon_threadsafe(move || log.lock().unwrap().push("hello"))))
        .join()
        .unwrap();
    let log = record.clone();
    event_loop.call_soon(move || log.lock().unwrap().push("world"));
    tick(&event_loop);
    assert_eq!(*record.lock().unwrap(), ["hello", "world"]);
}

#[test]
fn calls_made_on_the_loops_own_thread_share_the_queue_as_well() {
    let (event_loop, record) = (new_loop(), Arc::new(Mutex::new(Vec::new())));
    let log = |item| {
        let record = record.clone();
        move || record.lock().unwrap().push(item)
    };
    event_loop.call_soon(log(1));
    drop(event_loop.call_soon_threadsafe(log(2)));
    event_loop.call_soon(log(3));
    let last = log(5);
    let inside = event_loop.clone();
    let fourth = log(4);
    event_loop.call_soon(move || {
        drop(inside.call_soon_threadsafe(fourth));
        inside.call_soon(last);
    });
    tick(&event_loop);
    assert_eq!(*record.lock().unwrap(), [1, 2, 3]);
    tick(&event_loop);
    assert_eq!(*record.lock().unwrap(), [1, 2, 3, 4, 5]);
}

/// SCHED-015
#[test]
fn calls_of_many_threads_all_arrive_and_each_thread_s_in_order() {
    let _deadline = deadline();
    const THREADS: usize = 4;
    const CALLS: usize = 1000;
    let event_loop = new_loop();
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (threadsafe, arrived) = (event_loop.threadsafe(), arrived.clone());
            thread::spawn(move || {
                for number in 0..CALLS {
                    let (arrived, stopper) = (arrived.clone(), threadsafe.clone());
                    drop(threadsafe.call_soon_threadsafe(move || {
                        let mut arrived = arrived.lock().unwrap();
                        arrived.push((thread, number));
                        if arrived.len() == THREADS * CALLS {
                            stopper.stop();
                        }
                    }));
                }
            })
        })
        .collect();
    event_loop.run_forever().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived.len(), THREADS * CALLS);
    for thread in 0..THREADS {
        let numbers = arrived.iter().filter(|item| item.0 == thread).map(|item| item.1);
        assert!(numbers.eq(0..CALLS));
    }
}

#[test]
fn a_thread_learns_what_its_callback_gave() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let threadsafe = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        let value = threadsafe.call_soon_threadsafe(|| 6 * 7).result(None);
        let panic = threadsafe.call_soon_threadsafe(|| panic!("on the loop")).result(None);
        threadsafe.stop();
        (value, panic)
    });
    event_loop.run_forever().unwrap();
    let (value, panic) = thread.join().unwrap();
    assert_eq!(value.unwrap(), 42);
    // Whether the thread was waiting already when the callback panicked decides who hears of it first.
    assert_error(panic, ErrorKind::Panicked, "on the loop");
    assert!(reports.take().len() <= 1);
}

/// SCHED-022
#[test]
fn a_sleep_of_zero_lasts_one_iteration() {
    let event_loop = new_loop();
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    event_loop.call_soon(move || counter.set(counter.get() + 1));
    let seen = count.clone();
    let main = async move {
        let before = seen.get();
        sleep(Duration::ZERO).await?;
        Ok((10, before, seen.get()))
    };
    assert_eq!(event_loop.run_until_complete(main).unwrap(), (10, 1, 1));

    // The callback is ready, but comes after the coroutine: it runs before the sleep is over.
    count.set(0);
    let (seen, counter, scheduler) = (count.clone(), count.clone(), event_loop.clone());
    let main = async move {
        scheduler.call_soon(move || counter.set(counter.get() + 1));
        let before = seen.get();
        sleep(Duration::ZERO).await?;
        Ok((before, seen.get()))
    };
    assert_eq!(event_loop.run_until_complete(main).unwrap(), (0, 1));
}

#[test]
fn n_sleeps_of_zero_last_n_iterations() {
    let event_loop = new_loop();
    let count = crate::support::count_iterations(&event_loop);
    event_loop
        .run_until_complete(async {
            let before = count.get();
            for _ in 0..10 {
                sleep(Duration::ZERO).await?;
            }
            assert_eq!(count.get() - before, 10);
            Ok(())
        })
        .unwrap();
}
