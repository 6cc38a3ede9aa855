//! How a signal reaches the loop: while it waits, while it is busy, many at once, on each selector.

use std::{
    cell::Cell,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use asyncio::selector::EpollSelector;
use asyncio::{
    ErrorKind, EventLoop, Signal,
    selector::{ParkSelector, PollingSelector},
};

use crate::{
    main_thread::tests,
    signals::{
        SIG_DFL, SIGALRM, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, disposition, install, is_readable, raise, send, send_later,
    },
    support::{Record, new_loop, tick},
};

tests![
    a_signal_wakes_a_loop_that_waits,
    a_signal_wakes_a_loop_that_waits_without_limit,
    a_signal_to_another_thread_wakes_the_loop,
    each_selector_is_woken_again_and_again,
    a_signal_for_a_host_makes_the_descriptor_readable,
    a_signal_that_came_while_the_loop_did_not_run_is_delivered_by_the_next_run,
    a_handler_runs_between_callbacks_and_not_inside_one,
    signals_reach_a_loop_that_is_never_idle,
    each_arrival_of_a_burst_is_delivered,
    each_arrival_of_bursts_from_many_threads_is_delivered,
    signals_of_different_kinds_in_one_iteration_all_run,
    signals_do_not_shorten_a_sleep,
    signals_for_another_loop_run_nothing_here,
    a_handler_may_finish_what_a_task_waits_for,
    a_handler_may_cancel_a_task,
    a_handler_may_start_a_task,
    a_handler_for_sigint_takes_it_over_from_run_until_it_is_removed,
];

/// A loop on each selector there is.
fn loops() -> Vec<EventLoop> {
    let build = |builder: asyncio::EventLoopBuilder| builder.build().unwrap();
    vec![
        #[cfg(target_os = "linux")]
        build(EventLoop::builder().selector(EpollSelector::new().unwrap()).name("epoll")),
        build(EventLoop::builder().selector(PollingSelector::new().unwrap()).name("polling")),
        build(EventLoop::builder().selector(ParkSelector::new()).name("park")),
    ]
}

/// Far below the timer that the loop would wait for, far above what a loaded machine takes.
const SOON: Duration = Duration::from_secs(20);

/// SIG-004
fn a_signal_wakes_a_loop_that_waits() {
    for event_loop in loops() {
        let (calls, timer) = (Record::default(), Record::default());
        let (seen, stopper) = (calls.clone(), event_loop.clone());
        event_loop
            .add_signal_handler(SIGALRM, move || {
                seen.push("alarm");
                stopper.stop();
            })
            .unwrap();
        let seen = timer.clone();
        event_loop.call_later(Duration::from_secs(60), move || seen.push("timer"));
        let begin = Instant::now();
        let sender = thread::spawn(|| {
            thread::sleep(Duration::from_millis(10));
            raise(SIGALRM);
        });
        event_loop.run_forever().unwrap();
        let taken = begin.elapsed();
        sender.join().unwrap();
        assert!(taken >= Duration::from_millis(8) && taken < SOON, "{event_loop:?}: {taken:?}");
        assert_eq!(calls.take(), ["alarm"]);
        assert_eq!(timer.len(), 0);
        event_loop.close().unwrap();
    }
}

fn a_signal_wakes_a_loop_that_waits_without_limit() {
    for event_loop in loops() {
        let stopper = event_loop.clone();
        event_loop.add_signal_handler(SIGUSR1, move || stopper.stop()).unwrap();
        let sender = send_later(SIGUSR1, Duration::from_millis(10));
        event_loop.run_forever().unwrap();
        sender.join().unwrap();

        let sender = send_later(SIGUSR1, Duration::from_millis(10));
        assert!(event_loop.run_once(None).unwrap() <= 1);
        sender.join().unwrap();
        event_loop.close().unwrap();
    }
}

/// The C handler runs on the thread that is hit; the loop's runs on the loop's.
fn a_signal_to_another_thread_wakes_the_loop() {
    for event_loop in loops() {
        let (stopper, main) = (event_loop.clone(), thread::current().id());
        event_loop
            .add_signal_handler(SIGUSR1, move || {
                assert_eq!(thread::current().id(), main);
                stopper.stop();
            })
            .unwrap();
        let threads = [(); 4].map(|()| {
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(10));
                raise(SIGUSR1);
            })
        });
        event_loop.run_forever().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        event_loop.close().unwrap();
    }
}

fn each_selector_is_woken_again_and_again() {
    for event_loop in loops() {
        let calls = Rc::new(Cell::new(0));
        let (count, stopper) = (calls.clone(), event_loop.clone());
        event_loop
            .add_signal_handler(SIGUSR1, move || {
                count.set(count.get() + 1);
                stopper.stop();
            })
            .unwrap();
        for round in 1..=50 {
            // Now before the loop waits, now while it does.
            let sender = send_later(SIGUSR1, Duration::from_micros(round * 20));
            event_loop.run_forever().unwrap();
            sender.join().unwrap();
            assert_eq!(calls.get(), round);
        }
        event_loop.close().unwrap();
    }
}

fn a_signal_for_a_host_makes_the_descriptor_readable() {
    for event_loop in loops() {
        let calls = Record::default();
        let seen = calls.clone();
        event_loop.add_signal_handler(SIGUSR1, move || seen.push("called")).unwrap();
        for _ in 0..3 {
            assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 0);
            assert_eq!(event_loop.next_deadline(), None);
            assert!(!event_loop.as_fd().is_some_and(is_readable));
            raise(SIGUSR1);
            assert!(event_loop.as_fd().is_none_or(is_readable));
            assert!(event_loop.next_deadline().unwrap() <= event_loop.time());
            assert_eq!(event_loop.run_once(Duration::ZERO).unwrap(), 1);
            assert_eq!(calls.take(), ["called"]);
            // The wake is taken by this one at the latest.
            event_loop.run_once(Duration::ZERO).unwrap();
        }
        event_loop.close().unwrap();
    }
}

fn a_signal_that_came_while_the_loop_did_not_run_is_delivered_by_the_next_run() {
    let (event_loop, calls) = (new_loop(), Record::default());
    let seen = calls.clone();
    event_loop.add_signal_handler(SIGTERM, move || seen.push("called")).unwrap();
    raise(SIGTERM);
    raise(SIGTERM);
    assert_eq!(calls.len(), 0);
    event_loop.run_until_complete(asyncio::sleep(Duration::ZERO)).unwrap();
    assert_eq!(calls.take(), ["called", "called"]);
}

fn a_handler_runs_between_callbacks_and_not_inside_one() {
    let (event_loop, record) = (new_loop(), Record::default());
    let seen = record.clone();
    event_loop.add_signal_handler(SIGUSR1, move || seen.push("handler")).unwrap();
    let seen = record.clone();
    event_loop.call_soon(move || {
        raise(SIGUSR1);
        seen.push("first");
    });
    let seen = record.clone();
    event_loop.call_soon(move || seen.push("second"));
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), ["first", "second", "handler"]);
}

fn signals_reach_a_loop_that_is_never_idle() {
    fn again(event_loop: EventLoop) {
        let next = event_loop.clone();
        event_loop.call_soon(move || again(next));
    }
    for event_loop in loops() {
        again(event_loop.clone());
        let stopper = event_loop.clone();
        event_loop.add_signal_handler(SIGUSR1, move || stopper.stop()).unwrap();
        let sender = send_later(SIGUSR1, Duration::from_millis(5));
        event_loop.run_forever().unwrap();
        sender.join().unwrap();
        event_loop.close().unwrap();
    }
}

/// SIG-005: once per delivery.
fn each_arrival_of_a_burst_is_delivered() {
    for event_loop in loops() {
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        event_loop.add_signal_handler(SIGUSR1, move || count.set(count.get() + 1)).unwrap();
        (0..1000).for_each(|_| raise(SIGUSR1));
        tick(&event_loop);
        assert_eq!(calls.get(), 1000);
        event_loop.call_soon(|| (0..1000).for_each(|_| raise(SIGUSR1)));
        tick(&event_loop);
        tick(&event_loop);
        assert_eq!(calls.get(), 2000);
        event_loop.close().unwrap();
    }
}

fn each_arrival_of_bursts_from_many_threads_is_delivered() {
    for event_loop in loops() {
        let calls = Rc::new(Cell::new(0));
        let (count, stopper) = (calls.clone(), event_loop.clone());
        event_loop
            .add_signal_handler(SIGUSR1, move || {
                count.set(count.get() + 1);
                if count.get() == 1000 {
                    stopper.stop();
                }
            })
            .unwrap();
        // A thread's own raise returns when the signal has been handled, so that none falls together with another.
        let threads = [(); 4].map(|()| thread::spawn(|| (0..250).for_each(|_| raise(SIGUSR1))));
        event_loop.run_forever().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        tick(&event_loop);
        assert_eq!(calls.get(), 1000);
        event_loop.close().unwrap();
    }
}

fn signals_of_different_kinds_in_one_iteration_all_run() {
    let (event_loop, calls) = (new_loop(), Record::default());
    for signal in [Signal::Usr1, Signal::Usr2, Signal::Term, Signal::Hup] {
        let seen = calls.clone();
        event_loop.add_signal_handler(signal, move || seen.push(signal as i32)).unwrap();
    }
    let mut sent = vec![SIGUSR1, SIGUSR2, SIGTERM, libc::SIGHUP, SIGUSR1];
    sent.iter().for_each(|number| raise(*number));
    tick(&event_loop);
    let mut calls = calls.take();
    calls.sort_unstable();
    sent.sort_unstable();
    assert_eq!(calls, sent);
}

fn signals_do_not_shorten_a_sleep() {
    for event_loop in loops() {
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        event_loop.add_signal_handler(SIGUSR1, move || count.set(count.get() + 1)).unwrap();
        let sender = thread::spawn(|| {
            for _ in 0..20 {
                thread::sleep(Duration::from_millis(1));
                send(SIGUSR1);
            }
        });
        let (begin, delay) = (Instant::now(), Duration::from_millis(60));
        event_loop.run_until_complete(asyncio::sleep(delay)).unwrap();
        assert!(begin.elapsed() >= delay, "{event_loop:?}");
        sender.join().unwrap();
        tick(&event_loop);
        // Signals that are sent to the process fall together while one is pending.
        assert!((1..=20).contains(&calls.get()), "{event_loop:?}: {}", calls.get());
        event_loop.close().unwrap();
    }
}

fn signals_for_another_loop_run_nothing_here() {
    for event_loop in loops() {
        let other = new_loop();
        other.add_signal_handler(SIGUSR1, || panic!("the other loop does not run")).unwrap();
        let sender = send_later(SIGUSR1, Duration::from_millis(5));
        let (begin, delay) = (Instant::now(), Duration::from_millis(30));
        event_loop.run_until_complete(asyncio::sleep(delay)).unwrap();
        assert!(begin.elapsed() >= delay, "{event_loop:?}");
        sender.join().unwrap();
        event_loop.close().unwrap();
    }
}

fn a_handler_may_finish_what_a_task_waits_for() {
    for event_loop in loops() {
        let running = event_loop.clone();
        let stopped = event_loop.run_until_complete(async move {
            let stopped = running.create_future();
            let stop = stopped.clone();
            running.add_signal_handler(Signal::Term, move || stop.set_result("stopped").unwrap())?;
            let sender = send_later(SIGTERM, Duration::from_millis(10));
            let text = stopped.await?;
            sender.join().unwrap();
            assert!(running.remove_signal_handler(Signal::Term)?);
            Ok(text)
        });
        assert_eq!(stopped.unwrap(), "stopped");
        assert_eq!(disposition(SIGTERM), SIG_DFL);
    }
}

fn a_handler_may_cancel_a_task() {
    let event_loop = new_loop();
    let running = event_loop.clone();
    let error = event_loop.run_until_complete(async move {
        let task = asyncio::current_task()?.unwrap();
        running.add_signal_handler(SIGTERM, move || assert!(task.cancel_with("terminated")))?;
        raise(SIGTERM);
        asyncio::sleep(Duration::from_secs(60)).await
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Cancelled, "terminated".into()));
}

fn a_handler_may_start_a_task() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (seen, starter) = (record.clone(), event_loop.clone());
    event_loop
        .add_signal_handler(SIGUSR1, move || {
            let (seen, stopper) = (seen.clone(), starter.clone());
            let _detached = starter.create_task(async move {
                asyncio::sleep(Duration::ZERO).await?;
                seen.push("task");
                stopper.stop();
                Ok(())
            });
        })
        .unwrap();
    raise(SIGUSR1);
    event_loop.run_forever().unwrap();
    assert_eq!(record.take(), ["task"]);
}

fn a_handler_for_sigint_takes_it_over_from_run_until_it_is_removed() {
    install(SIGINT, SIG_DFL);
    let text = asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let stopped = event_loop.create_future();
        let stop = stopped.clone();
        event_loop.add_signal_handler(Signal::Int, move || stop.set_result("stopped").unwrap())?;
        raise(SIGINT);
        asyncio::sleep(Duration::ZERO).await?;
        stopped.await
    });
    assert_eq!(text.unwrap(), "stopped");

    let interrupted = asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        event_loop.add_signal_handler(Signal::Int, || ())?;
        assert!(event_loop.remove_signal_handler(Signal::Int)?);
        raise(SIGINT);
        asyncio::sleep(Duration::from_secs(60)).await
    });
    assert_eq!(interrupted.unwrap_err().kind(), ErrorKind::KeyboardInterrupt);
    assert_eq!(disposition(SIGINT), SIG_DFL);
}
