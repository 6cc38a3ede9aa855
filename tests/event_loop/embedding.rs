//! A host that drives the loop from its own: `run_once`, `next_deadline`, `as_fd`.
use std::{
    io::{Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    EventLoop,
    selector::{EpollSelector, ParkSelector, PollingSelector},
    sleep,
};

use crate::{
    MINUTE, MS, SECOND,
    poll::poll,
    push,
    support::{Record, deadline, new_loop, virtual_loop},
};

/// Waits until `fd` is readable, as a host would.
fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut entries = [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    poll(&mut entries, Some(timeout)).unwrap() == 1
}

fn loops_with_a_descriptor() -> [EventLoop; 2] {
    let epoll = EventLoop::builder().selector(EpollSelector::new().unwrap()).build().unwrap();
    let polling = EventLoop::builder().selector(PollingSelector::new().unwrap()).build().unwrap();
    [epoll, polling]
}

#[test]
fn run_once_says_how_much_ran() {
    let (event_loop, record) = (new_loop(), Record::default());
    assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0);
    event_loop.call_soon(push(&record, 1));
    event_loop.call_soon(push(&record, 2));
    let _task = event_loop.create_task(async { sleep(Duration::ZERO).await });
    assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 3);
    assert_eq!(event_loop.run_once(None).unwrap(), 1);
    assert_eq!(record.take(), [1, 2]);
    assert!(!event_loop.is_running());
}

#[test]
fn run_once_waits_no_longer_than_it_is_told() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let timer = event_loop.call_later(MINUTE, || ());
    let begin = Instant::now();
    assert_eq!(event_loop.run_once(30 * MS).unwrap(), 0);
    let taken = begin.elapsed();
    assert!(taken >= 30 * MS && taken < 20 * SECOND, "{taken:?}");
    let begin = Instant::now();
    (0..100).for_each(|_| assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0));
    assert!(begin.elapsed() < 20 * SECOND);
    timer.cancel();
}

#[test]
fn run_once_waits_for_the_first_timer_only() {
    let _deadline = deadline();
    let (event_loop, record) = (new_loop(), Record::default());
    event_loop.call_later(20 * MS, push(&record, "timer"));
    let begin = Instant::now();
    while record.len() == 0 {
        event_loop.run_once(MINUTE).unwrap();
    }
    let taken = begin.elapsed();
    assert!(taken >= 20 * MS && taken < 20 * SECOND, "{taken:?}");
}

#[test]
fn run_once_is_one_iteration() {
    let (event_loop, record) = (new_loop(), Record::default());
    crate::start_chain(&event_loop, &record);
    for round in 1..=3 {
        assert_eq!(event_loop.run_once(None).unwrap(), 1);
        assert_eq!(record.len(), round);
    }
}

#[test]
fn a_call_from_another_thread_ends_run_once() {
    let _deadline = deadline();
    for event_loop in loops_with_a_descriptor() {
        let threadsafe = event_loop.threadsafe();
        let thread = thread::spawn(move || {
            thread::sleep(20 * MS);
            drop(threadsafe.call_soon_threadsafe(|| ()));
        });
        assert_eq!(event_loop.run_once(None).unwrap(), 1);
        thread.join().unwrap();
    }
}

#[test]
fn a_stop_ends_the_wait_and_stays_for_run_forever() {
    let (event_loop, record) = (new_loop(), Record::default());
    event_loop.stop();
    assert_eq!(event_loop.run_once(None).unwrap(), 0, "it does not wait");
    crate::start_chain(&event_loop, &record);
    event_loop.run_forever().unwrap();
    assert_eq!(record.take(), [0]);
}

#[test]
fn next_deadline_says_when_run_once_must_be_called() {
    let (event_loop, _) = virtual_loop();
    assert_eq!(event_loop.next_deadline(), None);
    let late = event_loop.call_later(MINUTE, || ());
    assert_eq!(event_loop.next_deadline(), Some(late.when()));
    let early = event_loop.call_later(SECOND, || ());
    assert_eq!(event_loop.next_deadline(), Some(early.when()));
    early.cancel();
    assert_eq!(event_loop.next_deadline(), Some(late.when()));
    event_loop.call_soon(|| ());
    assert_eq!(event_loop.next_deadline(), Some(event_loop.time()), "something is ready");
    event_loop.run_once(Duration::ZERO).unwrap();
    assert_eq!(event_loop.next_deadline(), Some(late.when()));
    drop(event_loop.call_soon_threadsafe(|| ()));
    assert_eq!(event_loop.next_deadline(), Some(event_loop.time()), "something came from a thread");
    event_loop.run_once(Duration::ZERO).unwrap();
    late.cancel();
    assert_eq!(event_loop.next_deadline(), None);
}

#[test]
fn an_idle_loop_s_descriptor_is_not_readable() {
    for event_loop in loops_with_a_descriptor() {
        let fd = event_loop.as_fd().unwrap();
        event_loop.run_once(Duration::ZERO).unwrap();
        assert!(!readable(fd, Duration::ZERO));
        assert_eq!(fd.as_raw_fd(), event_loop.as_fd().unwrap().as_raw_fd(), "it stays the same");
    }
}

#[test]
fn a_loop_that_only_parks_has_no_descriptor() {
    let event_loop = EventLoop::builder().selector(ParkSelector::new()).build().unwrap();
    assert!(event_loop.as_fd().is_none());
}

#[test]
fn a_wake_from_another_thread_makes_the_descriptor_readable_each_time() {
    let _deadline = deadline();
    for event_loop in loops_with_a_descriptor() {
        let fd = event_loop.as_fd().unwrap();
        for round in 0..20 {
            let threadsafe = event_loop.threadsafe();
            thread::spawn(move || drop(threadsafe.call_soon_threadsafe(|| ()))).join().unwrap();
            assert!(readable(fd, MINUTE), "round {round}");
            assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 1);
            assert!(!readable(fd, Duration::ZERO), "a host would spin in round {round}");
        }
    }
}

#[test]
fn a_wake_is_seen_before_the_first_run_and_after_a_long_one() {
    let _deadline = deadline();
    for event_loop in loops_with_a_descriptor() {
        let fd = event_loop.as_fd().unwrap();
        for run in ["none", "run_until_complete", "run_forever"] {
            match run {
                "run_until_complete" => event_loop.run_until_complete(sleep(Duration::ZERO)).unwrap(),
                "run_forever" => crate::support::tick(&event_loop),
                _ => {}
            }
            let threadsafe = event_loop.threadsafe();
            thread::spawn(move || drop(threadsafe.call_soon_threadsafe(|| ()))).join().unwrap();
            assert!(readable(fd, SECOND), "after {run}");
            event_loop.run_once(Duration::ZERO).unwrap();
        }
    }
}

#[test]
fn a_wake_before_the_descriptor_was_asked_for_is_not_lost() {
    let _deadline = deadline();
    for event_loop in loops_with_a_descriptor() {
        let threadsafe = event_loop.threadsafe();
        thread::spawn(move || drop(threadsafe.call_soon_threadsafe(|| ()))).join().unwrap();
        let waits = event_loop.next_deadline().is_none();
        assert!(!waits || readable(event_loop.as_fd().unwrap(), SECOND));
        assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 1);
    }
}

#[test]
fn a_watched_descriptor_makes_the_loop_s_readable() {
    let _deadline = deadline();
    for event_loop in loops_with_a_descriptor() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let (record, fd) = (Record::default(), ours.try_clone().unwrap());
        let log = record.clone();
        event_loop
            .add_reader(&fd, move || {
                ours.read_exact(&mut [0]).unwrap();
                log.push("read");
            })
            .unwrap();
        event_loop.run_once(Duration::ZERO).unwrap();
        let outer = event_loop.as_fd().unwrap();
        assert!(!readable(outer, Duration::ZERO));
        theirs.write_all(b"x").unwrap();
        assert!(readable(outer, MINUTE));
        event_loop.run_once(Duration::ZERO).unwrap();
        assert_eq!(record.take(), ["read"]);
        event_loop.run_once(Duration::ZERO).unwrap();
        assert!(!readable(outer, Duration::ZERO));
        event_loop.remove_reader(&fd).unwrap();
    }
}

/// Runs the loop as a host with a poll(2) of its own would, and gives how often it called.
fn drive(event_loop: &EventLoop, mut done: impl FnMut() -> bool) -> usize {
    let mut calls = 0;
    while !done() {
        let left = match event_loop.next_deadline() {
            // Rounded up, or the host would spin through the last millisecond.
            Some(deadline) => deadline.saturating_duration_since(event_loop.time()) + Duration::from_micros(999),
            None => MINUTE,
        };
        let woken = readable(event_loop.as_fd().unwrap(), left.min(MINUTE));
        assert!(woken || left < MINUTE, "the host was not woken");
        event_loop.run_once(Duration::ZERO).unwrap();
        calls += 1;
    }
    calls
}

#[test]
fn a_host_with_a_poll_of_its_own_drives_the_loop() {
    let _deadline = deadline();
    for event_loop in loops_with_a_descriptor() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let threadsafe = event_loop.threadsafe();
        let (remote_log, local_log) = (log.clone(), log.clone());
        let remote = thread::spawn(move || {
            for number in 0..10 {
                thread::sleep(2 * MS);
                let log = remote_log.clone();
                threadsafe
                    .call_soon_threadsafe(move || log.lock().unwrap().push(("call", number)))
                    .result(None)
                    .unwrap();
                theirs.write_all(&[number]).unwrap();
            }
            theirs
        });
        let looping = event_loop.clone();
        let task = event_loop.create_task(async move {
            for _ in 0..10 {
                let mut byte = [0];
                looping.sock_recv_into(&ours, &mut byte).await?;
                local_log.lock().unwrap().push(("byte", byte[0]));
                sleep(MS).await?;
                let job = looping.run_in_executor(None, move || byte[0]);
                assert_eq!(job.await?, byte[0]);
            }
            Ok(())
        });
        let calls = drive(&event_loop, || task.done());
        assert!(task.exception().unwrap().is_none());
        assert!(calls < 1000, "{calls} calls: the host spins");
        drop(remote.join().unwrap());
        let log = log.lock().unwrap();
        for kind in ["call", "byte"] {
            let numbers = log.iter().filter(|item| item.0 == kind).map(|item| item.1);
            assert!(numbers.eq(0..10));
        }
    }
}

#[test]
fn a_host_may_schedule_and_wake_between_its_calls() {
    let _deadline = deadline();
    for event_loop in loops_with_a_descriptor() {
        let (record, gate) = (Record::default(), crate::support::Gate::default());
        let (log, waits) = (record.clone(), gate.clone());
        let task = event_loop.create_task(async move {
            waits.await;
            log.push("task");
            Ok(())
        });
        event_loop.run_once(Duration::ZERO).unwrap();
        gate.open();
        event_loop.call_soon(push(&record, "callback"));
        let calls = drive(&event_loop, || task.done());
        assert_eq!((record.take(), calls), (vec!["task", "callback"], 1));
    }
}

#[test]
fn frames_of_a_virtual_loop_do_not_skip_time() {
    let (event_loop, clock) = virtual_loop();
    let record = Record::default();
    let begin = event_loop.time();
    let (log, time) = (record.clone(), event_loop.clone());
    event_loop.call_later(SECOND, move || log.push(time.time() - begin));
    // A host that never waits moves the time by itself.
    for _ in 0..10 {
        event_loop.run_once(Duration::ZERO).unwrap();
    }
    assert_eq!(event_loop.time(), begin);
    for _ in 0..10 {
        clock.advance(100 * MS);
        event_loop.run_once(Duration::ZERO).unwrap();
    }
    assert_eq!(record.take(), [SECOND]);
    // One that waits lets at most as much time pass as it said.
    let (log, time) = (record.clone(), event_loop.clone());
    event_loop.call_later(SECOND, move || log.push(time.time() - begin));
    for frame in 1..=9 {
        event_loop.run_once(100 * MS).unwrap();
        assert_eq!(event_loop.time(), begin + SECOND + frame * 100 * MS);
    }
    assert_eq!(record.len(), 0);
    event_loop.run_once(MINUTE).unwrap();
    assert_eq!(record.take(), [2 * SECOND]);
}
