//! Timers: when they fire, in which order, and what is asked of the selector for them.
use std::{
    cell::Cell,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use asyncio::{Clock, ErrorKind, EventLoop, selector::EpollSelector, sleep, sleep_until};

use crate::{
    MS, SECOND, assert_error, push,
    support::{Record, RecordingSelector, deadline, drop_guard, new_loop, tick, virtual_loop},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// TIMER-001
#[test]
fn a_timer_fires_when_its_time_has_come() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let (stopper, was_running) = (event_loop.clone(), Rc::new(Cell::new(false)));
    let seen = was_running.clone();
    let begin = Instant::now();
    event_loop.call_later(50 * MS, move || {
        seen.set(stopper.is_running());
        stopper.stop();
    });
    event_loop.run_forever().unwrap();
    let taken = begin.elapsed();
    assert!(taken >= 50 * MS && taken < 20 * SECOND, "{taken:?}");
    assert!(was_running.get());
}

/// TIMER-002
#[test]
fn deadlines_in_the_past_run_in_the_next_iteration_by_deadline() {
    let (event_loop, record) = (new_loop(), Record::default());
    let now = event_loop.time();
    event_loop.call_at(now - SECOND, push(&record, "a"));
    event_loop.call_at(now - 2 * SECOND, push(&record, "b"));
    event_loop.call_later(Duration::ZERO, push(&record, "zero"));
    event_loop.call_at(now - 1500 * MS, push(&record, "between"));
    tick(&event_loop);
    assert_eq!(record.take(), ["b", "between", "a", "zero"]);
}

#[test]
fn timers_of_one_deadline_run_in_the_order_of_scheduling() {
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let when = event_loop.time() + SECOND;
    for number in 0..100 {
        event_loop.call_at(when, push(&record, number));
        if number % 3 == 0 {
            event_loop.call_at(when, push(&record, 1000)).cancel();
        }
    }
    event_loop.run_until_complete(sleep_until(when + MS)).unwrap();
    assert!(record.take().into_iter().eq(0..100));
}

#[test]
fn deadlines_less_than_a_millisecond_apart_keep_their_order() {
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let base = event_loop.time() + 10 * MS;
    for nanos in [700, 3, 999_999, 0, 500_000, 1] {
        event_loop.call_at(base + Duration::from_nanos(nanos), push(&record, nanos));
    }
    event_loop.run_until_complete(sleep(SECOND)).unwrap();
    assert_eq!(record.take(), [0, 1, 3, 700, 500_000, 999_999]);
}

/// TIMER-004
#[test]
fn a_cancelled_timer_is_skipped_and_a_far_one_not_waited_for() {
    let _deadline = deadline();
    let (event_loop, record) = (new_loop(), Record::default());
    let begin = Instant::now();
    event_loop.call_later(50 * MS, push(&record, 10));
    event_loop.call_later(50 * MS, push(&record, 100)).cancel();
    let (stopper, log) = (event_loop.clone(), record.clone());
    event_loop.call_later(60 * MS, move || {
        log.push(1);
        stopper.stop();
    });
    event_loop.call_later(1000 * SECOND, push(&record, 1000));
    event_loop.run_forever().unwrap();
    let taken = begin.elapsed();
    assert!(taken > 40 * MS && taken < 20 * SECOND, "{taken:?}");
    assert_eq!(record.take(), [10, 1]);
}

/// TIMER-005
#[test]
fn when_is_exactly_what_was_asked_for_at_any_time() {
    let (event_loop, _) = virtual_loop();
    let when = event_loop.time() + 100 * MS;
    let (fires, cancelled) = (event_loop.call_at(when, || ()), event_loop.call_at(when, || ()));
    assert_eq!((fires.when(), cancelled.when()), (when, when));
    cancelled.cancel();
    event_loop.run_until_complete(sleep(SECOND)).unwrap();
    assert_eq!((fires.when(), cancelled.when()), (when, when));
    fires.cancel();
    assert_eq!(fires.when(), when);
    assert_eq!(event_loop.call_later(SECOND, || ()).when(), event_loop.time() + SECOND);
}

/// TIMER-006
#[test]
fn time_goes_on_inside_an_iteration() {
    let event_loop = new_loop();
    let main = async {
        let begin = event_loop.time();
        thread::sleep(50 * MS);
        Ok(event_loop.time() - begin)
    };
    let taken = event_loop.run_until_complete(main).unwrap();
    assert!(taken > 49 * MS && taken < 20 * SECOND, "{taken:?}");
}

/// TIMER-008
#[test]
fn a_timer_is_never_early() {
    let _deadline = deadline();
    let event_loop = new_loop();
    for _ in 0..8 {
        let stopper = event_loop.clone();
        let begin = Instant::now();
        event_loop.call_later(Duration::from_secs_f64(0.06 + 0.01), move || stopper.stop());
        event_loop.run_forever().unwrap();
        assert!(begin.elapsed().as_millis() >= 69);
    }
}

#[test]
fn short_timers_are_never_early_either() {
    let _deadline = deadline();
    let event_loop = new_loop();
    for micros in (1..400).step_by(7) {
        let delay = Duration::from_micros(micros);
        let begin = event_loop.time();
        event_loop.run_until_complete(sleep(delay)).unwrap();
        assert!(event_loop.time() - begin >= delay);
        let deadline = event_loop.time() + delay;
        let now = event_loop.run_until_complete(async {
            sleep_until(deadline).await?;
            Ok(event_loop.time())
        });
        assert!(now.unwrap() >= deadline);
    }
}

fn sleep_for_ages(event_loop: &EventLoop) {
    let ages = [
        Duration::MAX,
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(1 << 55),
        Duration::from_secs(1 << 54),
    ];
    let tasks: Vec<_> = ages.into_iter().map(|age| event_loop.create_task(sleep(age))).collect();
    let main = async {
        sleep(100 * MS).await?;
        assert!(tasks.iter().all(|task| !task.done()));
        for task in tasks {
            assert!(task.cancel());
            assert_error(task.await, ErrorKind::Cancelled, "cancelled");
        }
        Ok(())
    };
    event_loop.run_until_complete(main).unwrap();
    assert_eq!(event_loop.next_deadline(), None);
}

/// TIMER-009
#[test]
fn delays_longer_than_the_clock_can_tell_do_not_overflow() {
    let _deadline = deadline();
    sleep_for_ages(&new_loop());
    sleep_for_ages(&virtual_loop().0);
}

#[test]
fn a_callback_for_the_end_of_time_stands_and_can_be_cancelled() {
    let (event_loop, record) = (new_loop(), Record::default());
    let handle = event_loop.call_later(Duration::MAX, push(&record, 1));
    tick(&event_loop);
    assert!(handle.when() > event_loop.time() + 1000 * DAY);
    assert_eq!(event_loop.next_deadline(), Some(handle.when()));
    handle.cancel();
    assert_eq!(event_loop.next_deadline(), None);
    assert_eq!(record.len(), 0);
}

/// TIMER-011
#[test]
fn cancelled_timers_are_gone_at_once() {
    let (event_loop, _) = virtual_loop();
    let fired = Record::default();
    let timers: Vec<_> = (0..100)
        .map(|number| {
            let ((guard, dropped), record) = (drop_guard(), fired.clone());
            let handle = event_loop.call_later(HOUR + number * MS, move || {
                record.push(number);
                drop(guard);
            });
            (handle, dropped)
        })
        .collect();
    timers[..51].iter().for_each(|(handle, _)| handle.cancel());
    assert!(timers[..51].iter().all(|(_, dropped)| dropped.get()));
    assert!(timers[51..].iter().all(|(_, dropped)| !dropped.get()));
    // No look inside is needed: what is scheduled is what the loop would wait for, one after the other.
    let mut scheduled = 0;
    while let Some(next) = event_loop.next_deadline() {
        let (handle, _) = timers.iter().find(|(handle, _)| handle.when() == next).expect("a timer of ours");
        assert!(!handle.cancelled(), "a tombstone");
        handle.cancel();
        scheduled += 1;
    }
    assert_eq!(scheduled, 49);
    event_loop.run_until_complete(sleep(2 * HOUR)).unwrap();
    assert_eq!(fired.len(), 0);
}

/// TIMER-013
#[test]
fn live_timers_among_cancelled_ones_all_fire_in_order() {
    let _deadline = deadline();
    let (event_loop, record) = (new_loop(), Record::default());
    let begin = event_loop.time();
    for number in 0..60_u32 {
        // 37 and 60 have no common divisor: each of the 60 places comes once.
        let place = number * 37 % 60;
        event_loop.call_at(begin + 20 * MS + place * MS, push(&record, place));
        event_loop.call_later(HOUR, || ()).cancel();
    }
    (0..40).for_each(|_| event_loop.call_later(HOUR, || ()).cancel());
    event_loop.run_until_complete(sleep_until(begin + 80 * MS)).unwrap();
    tick(&event_loop);
    assert!(record.take().into_iter().eq(0..60));
    assert_eq!(event_loop.next_deadline(), None);
}

/// A clock that stands, but says that its time passes by itself.
struct StoppedClock(Instant);

impl Clock for StoppedClock {
    fn now(&self) -> Instant {
        self.0
    }
}

/// TIMER-014
#[test]
fn the_wait_is_bounded_by_the_first_timer_that_was_not_cancelled() {
    let (selector, timeouts) = RecordingSelector::without_waiting();
    let clock = StoppedClock(Instant::now());
    let event_loop = EventLoop::builder().selector(selector).clock(clock).build().unwrap();
    let first = event_loop.call_later(5 * SECOND, || ());
    let second = event_loop.call_later(10 * SECOND, || ());
    first.cancel();
    assert_eq!(event_loop.run_once(None).unwrap(), 0);
    assert_eq!(timeouts.take(), [Some(10 * SECOND)]);
    assert_eq!(event_loop.next_deadline(), Some(second.when()));
    second.cancel();
    assert_eq!(event_loop.next_deadline(), None);
}

#[test]
fn the_wait_without_timers_is_unbounded() {
    let (selector, timeouts) = RecordingSelector::without_waiting();
    let event_loop = EventLoop::builder().selector(selector).build().unwrap();
    event_loop.call_later(HOUR, || ()).cancel();
    event_loop.run_once(None).unwrap();
    event_loop.run_once(SECOND).unwrap();
    assert_eq!(timeouts.take(), [None, Some(SECOND)]);
}

/// TIMER-016
#[test]
fn a_timer_far_ahead_is_waited_for_in_long_waits() {
    let (selector, timeouts) = RecordingSelector::without_waiting();
    let event_loop = EventLoop::builder().selector(selector).build().unwrap();
    event_loop.call_later(40 * DAY, || ());
    event_loop.run_once(None).unwrap();
    let timeouts = timeouts.take();
    assert_eq!(timeouts.len(), 1);
    let asked = timeouts[0].expect("it is bounded");
    assert!(asked >= DAY && asked <= 40 * DAY, "{asked:?}");
}

/// TIMER-017
#[test]
fn timers_compare_by_their_time() {
    let event_loop = new_loop();
    let when = event_loop.time() + SECOND;
    let (h1, h2) = (event_loop.call_at(when, || 1), event_loop.call_at(when, || 1));
    let h3 = event_loop.call_at(when + 10 * SECOND, || "another type");
    assert!(h1 == h2);
    assert_eq!([h1 < h2, h1 > h2, h1 <= h2, h1 >= h2], [false, false, true, true]);
    assert_eq!([h1 < h3, h1 > h3, h1 <= h3, h1 >= h3], [true, false, true, false]);
    assert!(h1 != h3);
    h2.cancel();
    assert!(h1 != h2);
    assert!(h2 < h3, "which comes first is still known");
}

/// TIMER-018
#[test]
fn short_sleeps_do_not_spin() {
    let _deadline = deadline();
    let (selector, timeouts) = RecordingSelector::new(EpollSelector::new().unwrap());
    let event_loop = EventLoop::builder().selector(selector).build().unwrap();
    let main = async {
        for seconds in [1e-2, 1e-4, 1e-6, 1e-8, 1e-10] {
            sleep(Duration::from_secs_f64(seconds)).await?;
        }
        Ok(())
    };
    event_loop.run_until_complete(main).unwrap();
    let waits = timeouts.take().len();
    assert!(waits <= 20, "{waits} waits");
}

#[test]
fn a_callback_may_cancel_and_set_timers() {
    let (event_loop, _) = virtual_loop();
    let record = Record::default();
    let victim = event_loop.call_later(2 * SECOND, push(&record, "victim"));
    let (scheduler, log) = (event_loop.clone(), record.clone());
    event_loop.call_later(SECOND, move || {
        log.push("first");
        victim.cancel();
        scheduler.call_later(SECOND, push(&log, "second"));
        scheduler.call_later(Duration::ZERO, push(&log, "zero"));
    });
    event_loop.run_until_complete(sleep(3 * SECOND)).unwrap();
    assert_eq!(record.take(), ["first", "zero", "second"]);
}

#[test]
fn a_repeating_timer_does_not_drift_under_a_virtual_clock() {
    let (event_loop, _) = virtual_loop();
    let begin = event_loop.time();
    let main = async {
        for round in 1..=1000 {
            sleep(SECOND).await?;
            assert_eq!(event_loop.time(), begin + round * SECOND);
        }
        Ok(())
    };
    event_loop.run_until_complete(main).unwrap();
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let event_loop = new_loop();
    let _task = event_loop.create_task(async {
        let mut sleeping = Box::pin(sleep(HOUR));
        let polled = futures::poll!(sleeping.as_mut());
        assert!(polled.is_pending());
        assert!(asyncio::get_running_loop()?.next_deadline().is_some());
        drop(sleeping);
        Ok(())
    });
    tick(&event_loop);
    assert_eq!(event_loop.next_deadline(), None);
}
