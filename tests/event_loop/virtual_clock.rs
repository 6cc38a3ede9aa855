//! Virtual time: it jumps when nothing is left to do, and waits for what pends outside.
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use asyncio::{Clock, EventLoop, MonotonicClock, sleep};

use crate::{
    MINUTE, MS, SECOND, push,
    support::{Record, deadline, tick, virtual_loop},
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_hour_passes_in_no_time() {
    let (event_loop, _) = virtual_loop();
    let (begin, real) = (event_loop.time(), Instant::now());
    event_loop.run_until_complete(sleep(HOUR)).unwrap();
    assert_eq!(event_loop.time(), begin + HOUR);
    assert!(real.elapsed() < MINUTE);
}

#[test]
fn clones_are_one_clock_and_the_loop_follows_it() {
    let (event_loop, clock) = virtual_loop();
    assert_eq!(event_loop.time(), clock.now());
    clock.clone().advance(SECOND);
    assert_eq!(event_loop.time(), clock.now());
    assert!(clock.is_virtual() && !MonotonicClock.is_virtual());
}

#[test]
fn time_stands_while_something_is_ready() {
    let (event_loop, _) = virtual_loop();
    let begin = event_loop.time();
    let record = Record::default();
    event_loop.call_later(MS, push(&record, "timer"));
    let main = async {
        for _ in 0..1000 {
            sleep(Duration::ZERO).await?;
            assert_eq!(event_loop.time(), begin);
        }
        record.push("busy no more");
        sleep(2 * MS).await
    };
    event_loop.run_until_complete(main).unwrap();
    assert_eq!(record.take(), ["busy no more", "timer"]);
    assert_eq!(event_loop.time(), begin + 2 * MS);
}

#[test]
fn time_jumps_from_deadline_to_deadline() {
    let (event_loop, _) = virtual_loop();
    let begin = event_loop.time();
    let record = Record::default();
    for seconds in [5, 1, 3] {
        let (log, clock) = (record.clone(), event_loop.clone());
        event_loop.call_later(seconds * SECOND, move || log.push(clock.time() - begin));
    }
    event_loop.run_until_complete(sleep(4 * SECOND)).unwrap();
    assert_eq!(record.take(), [SECOND, 3 * SECOND]);
    assert_eq!(event_loop.time(), begin + 4 * SECOND);
}

#[test]
fn time_waits_for_a_job_of_the_executor() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    event_loop.call_later(MS, push(&record, "timer"));
    let begin = event_loop.time();
    let (go, may_go) = mpsc::channel::<()>();
    let main = async {
        let job = event_loop.run_in_executor(None, move || may_go.recv().is_ok());
        // In real time the timer would be long over.
        let waker = thread::spawn(move || {
            thread::sleep(50 * MS);
            go.send(()).unwrap();
        });
        assert!(job.await?);
        record.push("job");
        assert_eq!(event_loop.time(), begin);
        waker.join().unwrap();
        sleep(2 * MS).await
    };
    event_loop.run_until_complete(main).unwrap();
    assert_eq!(record.take(), ["job", "timer"]);
    assert_eq!(event_loop.time(), begin + 2 * MS);
}

#[test]
fn time_waits_for_a_cancelled_job_as_well() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let (go, may_go) = mpsc::channel::<()>();
    let job = event_loop.run_in_executor(None, move || _ = may_go.recv());
    assert!(job.cancel());
    go.send(()).unwrap();
    // When it is back, time goes on.
    event_loop.run_until_complete(sleep(HOUR)).unwrap();
}

#[test]
fn time_waits_for_a_watched_descriptor() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let begin = event_loop.time();
    event_loop.call_later(MS, push(&record, "timer"));
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let fd = ours.try_clone().unwrap();
    let (log, watching) = (record.clone(), event_loop.clone());
    event_loop
        .add_reader(&fd, move || {
            let mut byte = [0];
            ours.read_exact(&mut byte).unwrap();
            log.push("reader");
            assert_eq!(watching.time(), begin);
            watching.stop();
        })
        .unwrap();
    let writer = thread::spawn(move || {
        thread::sleep(50 * MS);
        theirs.write_all(b"x").unwrap();
        theirs
    });
    event_loop.run_forever().unwrap();
    assert_eq!(record.items(), ["reader"]);
    // The reader is gone, so nothing holds the clock.
    assert!(event_loop.remove_reader(&fd).unwrap());
    event_loop.run_until_complete(sleep(MINUTE)).unwrap();
    assert_eq!(record.take(), ["reader", "timer"]);
    assert_eq!(event_loop.time(), begin + MINUTE);
    drop(writer.join().unwrap());
}

#[test]
fn a_descriptor_in_the_background_does_not_hold_the_clock() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let begin = event_loop.time();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    event_loop.add_reader(&ours, || unreachable!("nothing is sent")).unwrap();
    event_loop.set_background(&ours, true);
    event_loop.run_until_complete(sleep(HOUR)).unwrap();
    assert_eq!(event_loop.time(), begin + HOUR);
    // It may be said before the wait begins, and holds for the waits after.
    event_loop.remove_reader(&ours).unwrap();
    event_loop.add_reader(&ours, || unreachable!("nothing is sent")).unwrap();
    event_loop.run_until_complete(sleep(HOUR)).unwrap();
    assert_eq!(event_loop.time(), begin + 2 * HOUR);
    // In the foreground again it holds the clock: a stop from outside ends the run, not the timer.
    event_loop.set_background(&ours, false);
    let record = Record::default();
    event_loop.call_later(MS, push(&record, "timer"));
    let threadsafe = event_loop.threadsafe();
    let stopper = thread::spawn(move || {
        thread::sleep(30 * MS);
        threadsafe.stop();
    });
    event_loop.run_forever().unwrap();
    stopper.join().unwrap();
    assert_eq!(record.len(), 0);
    assert_eq!(event_loop.time(), begin + 2 * HOUR);
}

#[test]
fn a_readable_descriptor_in_the_background_is_still_served() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let fd = ours.try_clone().unwrap();
    let record = Record::default();
    let log = record.clone();
    event_loop
        .add_reader(&fd, move || {
            ours.read_exact(&mut [0]).unwrap();
            log.push("reader");
        })
        .unwrap();
    event_loop.set_background(&fd, true);
    event_loop.call_later(HOUR, push(&record, "timer"));
    event_loop.run_until_complete(sleep(2 * HOUR)).unwrap();
    assert_eq!(record.take(), ["reader", "timer"]);
}

#[test]
fn time_advanced_by_hand_fires_in_the_next_iteration() {
    let (event_loop, clock) = virtual_loop();
    let record = Record::default();
    event_loop.call_later(SECOND, push(&record, 1));
    event_loop.call_later(2 * SECOND, push(&record, 2));
    event_loop.call_later(3 * SECOND, push(&record, 3));
    tick(&event_loop);
    assert_eq!(record.len(), 0);
    clock.advance(1500 * MS);
    tick(&event_loop);
    assert_eq!(record.items(), [1]);
    clock.advance(1500 * MS);
    tick(&event_loop);
    assert_eq!(record.take(), [1, 2, 3], "a deadline that is met exactly is due");
    clock.advance(Duration::MAX);
    assert!(clock.now() >= event_loop.time(), "a step that no clock can take changes nothing");
}

#[test]
fn time_never_goes_back() {
    let (event_loop, clock) = virtual_loop();
    let now = clock.now();
    clock.advance_to(now - SECOND);
    assert_eq!(clock.now(), now);
    event_loop.call_at(now - SECOND, || ());
    tick(&event_loop);
    assert_eq!(event_loop.time(), now);
}

/// A clock that passes by itself, ten times as fast.
struct FastClock(Instant);

impl Clock for FastClock {
    fn now(&self) -> Instant {
        self.0 + self.0.elapsed() * 10
    }
}

#[test]
fn a_clock_of_one_s_own_is_followed() {
    let _deadline = deadline();
    let event_loop = EventLoop::builder().clock(FastClock(Instant::now())).build().unwrap();
    let begin = event_loop.time();
    event_loop.run_until_complete(sleep(50 * MS)).unwrap();
    assert!(event_loop.time() - begin >= 50 * MS);
}

#[test]
fn the_order_of_events_is_that_of_real_time() {
    let _deadline = deadline();
    let story = |event_loop: EventLoop| {
        let record = Record::default();
        let tasks: Vec<_> = [30, 10, 20]
            .into_iter()
            .map(|delay| {
                let log = record.clone();
                event_loop.create_task(async move {
                    sleep(delay * MS).await?;
                    log.push(delay);
                    sleep(35 * MS).await?;
                    log.push(delay + 35);
                    Ok(())
                })
            })
            .collect();
        event_loop
            .run_until_complete(async {
                for task in tasks {
                    task.await?;
                }
                Ok(())
            })
            .unwrap();
        record.take()
    };
    assert_eq!(story(virtual_loop().0), [10, 20, 30, 45, 55, 65]);
}

/// Also where no timer stands.
#[test]
fn a_bounded_iteration_without_timers_takes_no_real_time() {
    let (event_loop, _clock) = virtual_loop();
    let (begin, real) = (event_loop.time(), Instant::now());
    event_loop.run_once(Duration::from_secs(30)).unwrap();
    assert_eq!(event_loop.time() - begin, Duration::from_secs(30));
    assert!(real.elapsed() < Duration::from_secs(10));
}

/// A clock may look at its loop.
#[test]
fn a_clock_that_asks_its_loop_is_no_panic() {
    struct Asks(std::rc::Rc<std::cell::RefCell<Option<EventLoop>>>);
    impl Clock for Asks {
        fn now(&self) -> Instant {
            if let Some(event_loop) = &*self.0.borrow() {
                let _ = event_loop.all_tasks();
            }
            Instant::now()
        }
    }
    let slot = std::rc::Rc::default();
    let event_loop = EventLoop::builder().clock(Asks(std::rc::Rc::clone(&slot))).build().unwrap();
    slot.replace(Some(event_loop.clone()));
    event_loop.run_until_complete(sleep(Duration::from_millis(2))).unwrap();
    slot.take();
}
