//! What these tests show: the executor and the timer that hyper is given, by themselves.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use asyncio::{ErrorKind, hyper_rt};
use hyper::rt::{Executor, Timer};

use crate::support::{logs, loops::On};

on_each_selector! {
    futures_that_are_not_send_become_tasks
    a_panic_is_reported_with_its_task
    what_is_left_ends_with_the_loop
    timers_go_by_the_loops_clock
    a_timer_counts_from_the_call
    a_timer_that_is_past_waits_an_iteration
    a_timer_is_set_anew_in_its_place
    a_timer_leaves_the_cancellation_to_the_task
}

fn futures_that_are_not_send_become_tasks(on: On) {
    let event_loop = on.event_loop();
    let sum = Rc::new(Cell::new(0));
    event_loop.run(async {
        for number in 1..=10 {
            let sum = sum.clone();
            hyper_rt::Executor.execute(async move { sum.set(sum.get() + number) });
        }
        assert_eq!(sum.get(), 0, "not before the next iteration");
        asyncio::sleep(Duration::ZERO).await
    });
    assert_eq!(sum.get(), 55);
}

fn a_panic_is_reported_with_its_task(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        hyper_rt::Executor.execute(async { panic!("boom") });
        asyncio::sleep(Duration::from_millis(1)).await
    });
    let reports = event_loop.reports.take();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(report.exception.as_ref().map(|error| error.kind()), Some(ErrorKind::Panicked));
    assert!(report.task.is_some());
}

fn what_is_left_ends_with_the_loop(on: On) {
    let dropped = Rc::new(Cell::new(false));
    struct Guard(Rc<Cell<bool>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let mut runner = asyncio::Runner::new().loop_factory(move || (on.builder)().build());
    let guard = Guard(dropped.clone());
    runner
        .run(async move {
            hyper_rt::Executor.execute(async move {
                let _guard = guard;
                std::future::pending().await
            });
            asyncio::sleep(Duration::ZERO).await
        })
        .unwrap();
    runner.close().unwrap();
    assert!(dropped.get());
}

#[test]
fn a_future_without_a_loop_is_reported() {
    let ((), records) = logs(|| hyper_rt::Executor.execute(async { unreachable!() }));
    let [(_, text)] = &records[..] else { panic!("{records:?}") };
    assert!(text.contains("no running event loop"), "{text}");
}

fn timers_go_by_the_loops_clock(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    event_loop.run(async {
        let timer = hyper_rt::Timer;
        let begin = timer.now();
        timer.sleep(Duration::from_secs(3600)).await;
        assert_eq!(timer.now() - begin, Duration::from_secs(3600));
        timer.sleep_until(begin + Duration::from_secs(7200)).await;
        assert_eq!(timer.now() - begin, Duration::from_secs(7200));
        clock.advance(Duration::from_secs(1));
        assert_eq!(timer.now() - begin, Duration::from_secs(7201));
        Ok(())
    });
}

fn a_timer_counts_from_the_call(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    event_loop.run(async {
        let begin = hyper_rt::Timer.now();
        let sleep = hyper_rt::Timer.sleep(Duration::from_secs(10));
        clock.advance(Duration::from_secs(4));
        sleep.await;
        assert_eq!(hyper_rt::Timer.now() - begin, Duration::from_secs(10));
        Ok(())
    });
}

fn a_timer_that_is_past_waits_an_iteration(on: On) {
    let (event_loop, clock) = on.virtual_loop();
    event_loop.run(async {
        let begin = hyper_rt::Timer.now();
        clock.advance(Duration::from_secs(1));
        for mut sleep in [hyper_rt::Timer.sleep_until(begin), hyper_rt::Timer.sleep(Duration::ZERO)] {
            assert!(futures::poll!(&mut sleep).is_pending());
            sleep.await;
            assert_eq!(hyper_rt::Timer.now() - begin, Duration::from_secs(1));
        }
        Ok(())
    });
    assert!(event_loop.has_no_timer());
}

fn a_timer_is_set_anew_in_its_place(on: On) {
    let (event_loop, _clock) = on.virtual_loop();
    event_loop.run(async {
        let (timer, begin) = (hyper_rt::Timer, hyper_rt::Timer.now());
        let mut sleep = timer.sleep(Duration::from_secs(1000));
        assert!(futures::poll!(&mut sleep).is_pending());
        let address: *const () = (&raw const *sleep).cast();
        timer.reset(&mut sleep, begin + Duration::from_secs(5));
        assert_eq!((&raw const *sleep).cast(), address, "without another allocation");
        sleep.await;
        assert_eq!(timer.now() - begin, Duration::from_secs(5));
        Ok(())
    });
    assert!(event_loop.has_no_timer(), "the old one is gone");
}

fn a_timer_leaves_the_cancellation_to_the_task(on: On) {
    let event_loop = on.event_loop();
    let seen = Rc::new(RefCell::new(Vec::new()));
    event_loop.run(async {
        let record = seen.clone();
        let task = asyncio::create_task(async move {
            let slept = asyncio::cancellable(hyper_rt::Timer.sleep(Duration::from_secs(3600))).await;
            record.borrow_mut().push(slept.unwrap_err().kind());
            Ok(())
        });
        let dropped = asyncio::create_task(async move {
            hyper_rt::Timer.sleep(Duration::from_secs(3600)).await;
            unreachable!();
        });
        asyncio::sleep(Duration::ZERO).await?;
        task.cancel();
        dropped.cancel();
        task.await?;
        let dropped: asyncio::Result<()> = dropped.await;
        assert_eq!(dropped.unwrap_err().kind(), ErrorKind::Cancelled);
        Ok(())
    });
    assert_eq!(*seen.borrow(), [ErrorKind::Cancelled]);
}
