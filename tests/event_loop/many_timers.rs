//! A million timers at once.
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use asyncio::{TimerHandle, sleep_until};

use crate::{
    SECOND,
    support::{deadline, virtual_loop},
};

const TIMERS: usize = 1_000_000;

/// Numbers without a pattern, always the same ones.
fn shuffle(number: usize) -> u64 {
    let mut x = number as u64 + 0x9e37_79b9_7f4a_7c15;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[test]
fn a_million_timers_half_of_them_cancelled_fire_in_order() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    let begin = event_loop.time();
    // The last deadline and number that fired, and how many did.
    let last = Rc::new(Cell::new((begin, 0)));
    let fired = Rc::new(Cell::new(0_usize));
    let wrong = Rc::new(Cell::new(0_usize));
    // Between a microsecond and three days, in steps of 997 ns: many share a millisecond, some a deadline.
    let deadline_of = |number| begin + Duration::from_nanos(shuffle(number) % 260_000_000 * 997 + 1000);
    let handles: Vec<TimerHandle<()>> = (0..TIMERS)
        .map(|number| {
            let when = deadline_of(number);
            let (last, fired, wrong, clock) = (last.clone(), fired.clone(), wrong.clone(), event_loop.clone());
            event_loop.call_at(when, move || {
                if last.replace((when, number)) > (when, number) || clock.time() < when {
                    wrong.set(wrong.get() + 1);
                }
                fired.set(fired.get() + 1);
            })
        })
        .collect();
    for handle in handles.iter().skip(1).step_by(2) {
        handle.cancel();
    }
    let real = Instant::now();
    event_loop.run_until_complete(sleep_until(begin + Duration::from_secs(300))).unwrap();
    assert!(real.elapsed() < 55 * SECOND);
    assert_eq!((fired.get(), wrong.get()), (TIMERS / 2, 0));
    assert_eq!(event_loop.next_deadline(), None);
}

#[test]
fn timers_that_replace_each_other_do_not_pile_up() {
    let _deadline = deadline();
    let (event_loop, _) = virtual_loop();
    // What every request of a server does to its time-out.
    let (held, dropped) = (Rc::new(()), RefCell::new(None::<TimerHandle<()>>));
    for _ in 0..100_000 {
        let capture = held.clone();
        let timer = event_loop.call_later(30 * SECOND, move || drop(capture));
        if let Some(before) = dropped.replace(Some(timer)) {
            before.cancel();
        }
        assert_eq!(Rc::strong_count(&held), 2);
    }
    event_loop.run_until_complete(asyncio::sleep(31 * SECOND)).unwrap();
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn a_hundred_thousand_sleeping_tasks_wake_in_order() {
    let _deadline = deadline();
    const TASKS: usize = 100_000;
    let (event_loop, _) = virtual_loop();
    let begin = event_loop.time();
    let order = Rc::new(RefCell::new(Vec::with_capacity(TASKS)));
    for number in 0..TASKS {
        let (order, end) = (order.clone(), begin + Duration::from_micros(shuffle(number) % 10_000_000 + 1));
        drop(event_loop.create_task(async move {
            sleep_until(end).await?;
            order.borrow_mut().push((end, number));
            Ok(())
        }));
    }
    event_loop.run_until_complete(sleep_until(begin + 11 * SECOND)).unwrap();
    let order = order.take();
    assert_eq!(order.len(), TASKS);
    assert!(order.is_sorted());
    assert_eq!(event_loop.all_tasks(), []);
}
