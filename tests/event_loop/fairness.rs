//! Nothing that is always ready keeps others from running.
use std::{
    cell::Cell,
    future::poll_fn,
    io::{Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
    time::Duration,
};

use asyncio::{EventLoop, sleep};

use crate::{
    MS, push,
    support::{Record, count_iterations, deadline, new_loop, tick},
};

/// A task that is always ready.
fn spin(event_loop: &EventLoop) -> Rc<Cell<usize>> {
    let polls = Rc::new(Cell::new(0));
    let count = polls.clone();
    let spinning = poll_fn(move |cx| {
        count.set(count.get() + 1);
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    drop(event_loop.create_task::<(), _>(spinning));
    polls
}

fn io_is_served_in_the_next_iteration(event_loop: &EventLoop, record: &Record) {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let (fd, log) = (ours.try_clone().unwrap(), record.clone());
    event_loop
        .add_reader(&fd, move || {
            ours.read_exact(&mut [0]).unwrap();
            log.push("read");
        })
        .unwrap();
    for _ in 0..10 {
        tick(event_loop);
        assert_eq!(record.len(), 0);
        theirs.write_all(b"x").unwrap();
        tick(event_loop);
        assert_eq!(record.take(), ["read"]);
    }
    event_loop.remove_reader(&fd).unwrap();
}

#[test]
fn a_callback_that_schedules_itself_does_not_starve_io() {
    let (event_loop, record) = (new_loop(), Record::default());
    let count = count_iterations(&event_loop);
    io_is_served_in_the_next_iteration(&event_loop, &record);
    assert_eq!(count.get(), 20);
}

#[test]
fn a_task_that_wakes_itself_does_not_starve_io() {
    let (event_loop, record) = (new_loop(), Record::default());
    let polls = spin(&event_loop);
    io_is_served_in_the_next_iteration(&event_loop, &record);
    assert_eq!(polls.get(), 20, "it runs once in each iteration");
}

#[test]
fn what_is_always_ready_does_not_starve_timers() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let (polls, count) = (spin(&event_loop), count_iterations(&event_loop));
    event_loop.run_until_complete(sleep(10 * MS)).unwrap();
    assert!(polls.get() > 1 && count.get() > 1);
}

#[test]
fn what_is_always_ready_does_not_starve_other_threads() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let _polls = spin(&event_loop);
    let threadsafe = event_loop.threadsafe();
    let thread = thread::spawn(move || {
        for number in 0..100 {
            let back = threadsafe.call_soon_threadsafe(move || number).result(None);
            assert_eq!(back.unwrap(), number);
        }
        threadsafe.stop();
    });
    event_loop.run_forever().unwrap();
    thread.join().unwrap();
}

#[test]
fn tasks_that_wake_themselves_take_turns() {
    let (event_loop, record) = (new_loop(), Record::default());
    for name in ["a", "b", "c"] {
        let log = record.clone();
        let mut left = 3;
        drop(event_loop.create_task(poll_fn(move |cx| {
            log.push(name);
            left -= 1;
            if left == 0 {
                return Poll::Ready(Ok(()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
    }
    let _spinning = spin(&event_loop);
    (0..3).for_each(|_| tick(&event_loop));
    assert_eq!(record.take(), ["a", "b", "c", "a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_task_that_is_woken_often_in_one_step_runs_once() {
    let event_loop = new_loop();
    let polls = Rc::new(Cell::new(0));
    let count = polls.clone();
    drop(event_loop.create_task::<(), _>(poll_fn(move |cx| {
        count.set(count.get() + 1);
        (0..10).for_each(|_| cx.waker().wake_by_ref());
        let clones: Vec<_> = (0..10).map(|_| cx.waker().clone()).collect();
        clones.into_iter().for_each(std::task::Waker::wake);
        Poll::Pending
    })));
    for iteration in 1..=5 {
        tick(&event_loop);
        assert_eq!(polls.get(), iteration);
    }
}

#[test]
fn a_flood_of_calls_from_a_thread_does_not_starve_the_loop_s_own() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let over = Arc::new(AtomicBool::new(false));
    let (threadsafe, ended) = (event_loop.threadsafe(), over.clone());
    let thread = thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            drop(threadsafe.call_soon_threadsafe(|| ()));
            thread::yield_now();
        }
    });
    let record = Record::default();
    event_loop.call_later(5 * MS, push(&record, "timer"));
    event_loop
        .run_until_complete(async {
            for _ in 0..100 {
                sleep(Duration::ZERO).await?;
            }
            sleep(10 * MS).await
        })
        .unwrap();
    assert_eq!(record.take(), ["timer"]);
    over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

#[test]
fn a_reader_that_is_always_ready_does_not_starve_callbacks() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"unread").unwrap();
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    event_loop.add_reader(&ours, move || count.set(count.get() + 1)).unwrap();
    crate::start_chain(&event_loop, &record);
    (0..10).for_each(|_| tick(&event_loop));
    assert_eq!((record.len(), calls.get()), (10, 10), "once in each iteration");
    event_loop.remove_reader(&ours).unwrap();
}
