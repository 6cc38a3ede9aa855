//! Ctrl-C under `run` and `Runner`, in every stage of main.

use std::{
    cell::{Cell, RefCell},
    future::Future as StdFuture,
    thread,
    time::{Duration, Instant},
};

use asyncio::{
    Error, ErrorKind, EventLoop, Result, Runner, Signal,
    selector::{ParkSelector, PollingSelector},
};

use crate::{
    main_thread::tests,
    signals::{
        Ended, SIG_DFL, SIG_IGN, SIGINT, disposition, foreign_calls, foreign_handler, fork, install, raise, send_later,
    },
    support::{Gate, Record, drop_guard, logs},
};

tests![
    an_interrupt_cancels_what_main_waits_for,
    an_interrupt_reaches_a_main_that_spins,
    an_interrupt_reaches_a_main_between_busy_callbacks,
    an_interrupt_acts_between_callbacks,
    an_interrupt_cancels_the_task_that_main_awaits,
    an_interrupt_drops_a_main_that_waits_for_something_foreign,
    an_interrupt_before_the_first_step_never_polls_main,
    main_may_clean_up_after_the_interrupt,
    main_may_swallow_one_interrupt,
    main_may_turn_the_interrupt_into_an_error,
    main_that_was_cancelled_by_others_too_stays_cancelled,
    the_second_interrupt_ends_a_clean_up,
    the_third_interrupt_drops_a_main_that_ignores_two,
    the_third_interrupt_drops_a_main_that_spins,
    the_third_interrupt_does_not_wait_for_the_task_that_main_awaits,
    interrupts_at_once_count_one_by_one,
    an_interrupt_in_the_last_step_is_not_lost,
    an_interrupt_in_the_last_iteration_is_not_lost,
    an_error_of_the_last_step_outlives_an_interrupt,
    a_handler_of_somebody_else_stays_in_charge,
    an_ignored_interrupt_stays_ignored,
    the_default_comes_back_after_each_run,
    a_handler_added_inside_takes_the_interrupt_over,
    a_handler_added_in_an_earlier_run_takes_the_interrupt_over,
    other_entries_leave_the_signal_alone,
    other_threads_leave_the_signal_alone,
    during_the_clean_up_the_signal_is_the_systems_again,
    an_interrupted_run_cleans_up_as_any_other,
    each_selector_is_interrupted,
    an_interrupt_while_main_waits_for_the_executor,
];

const LONG: Duration = Duration::from_secs(60);

/// Far below `LONG`, far above what a loaded machine takes.
const SOON: Duration = Duration::from_secs(20);

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// `main`, with an interrupt when `delay` has passed. It is sent from inside, for there the signal is taken care of.
async fn interrupted<T>(delay: Duration, main: impl StdFuture<Output = Result<T>>) -> Result<T> {
    let _detached = send_later(SIGINT, delay);
    main.await
}

/// RUN-011
fn an_interrupt_cancels_what_main_waits_for() {
    install(SIGINT, SIG_DFL);
    let mut runner = Runner::new();
    let future = runner.get_loop().unwrap().create_future::<()>();
    let (seen, begin) = (Cell::new(false), Instant::now());
    let main = async {
        let result = (&future).await;
        assert!(result.as_ref().is_err_and(Error::is_cancelled));
        assert_eq!(asyncio::current_task()?.unwrap().cancelling(), 1);
        seen.set(true);
        result
    };
    let result = runner.run(interrupted(Duration::from_millis(100), main));
    let taken = begin.elapsed();
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert!(future.cancelled() && seen.get());
    assert!(taken >= Duration::from_millis(98) && taken < SOON, "{taken:?}");

    // The same runner runs again, and is interrupted again.
    assert_eq!(runner.run(async { Ok(5) }).unwrap(), 5);
    let result = runner.run(async {
        raise(SIGINT);
        asyncio::sleep(LONG).await
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(runner.run(async { Ok(6) }).unwrap(), 6);
}

/// RUN-012
fn an_interrupt_reaches_a_main_that_spins() {
    install(SIGINT, SIG_DFL);
    let (seen, begin) = (Cell::new(None), Instant::now());
    let main = async {
        loop {
            if let Err(error) = asyncio::sleep(Duration::ZERO).await {
                seen.set(Some(error.kind()));
                return Err::<(), _>(error);
            }
        }
    };
    let result = Runner::new().run(interrupted(Duration::from_millis(100), main));
    let taken = begin.elapsed();
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(seen.get(), Some(ErrorKind::Cancelled));
    assert!(taken >= Duration::from_millis(98) && taken < SOON, "{taken:?}");
}

fn an_interrupt_reaches_a_main_between_busy_callbacks() {
    fn again(event_loop: EventLoop) {
        let next = event_loop.clone();
        event_loop.call_soon(move || again(next));
    }
    install(SIGINT, SIG_DFL);
    let main = async {
        again(asyncio::get_running_loop()?);
        std::future::pending::<()>().await;
        Ok(())
    };
    let result = asyncio::run(interrupted(Duration::from_millis(5), main));
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
}

fn an_interrupt_acts_between_callbacks() {
    install(SIGINT, SIG_DFL);
    let record = Record::default();
    let seen = record.clone();
    let result = asyncio::run(async move {
        let event_loop = asyncio::get_running_loop()?;
        let main = asyncio::current_task()?.unwrap();
        let (first, same) = (seen.clone(), main.clone());
        event_loop.call_soon(move || {
            raise(SIGINT);
            first.push(same.cancelling());
        });
        event_loop.call_soon(move || seen.push(main.cancelling()));
        asyncio::sleep(LONG).await
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(record.take(), [0, 1], "not inside a callback, and before the next one");
}

fn an_interrupt_cancels_the_task_that_main_awaits() {
    install(SIGINT, SIG_DFL);
    let record = Record::default();
    let seen = record.clone();
    let result = asyncio::run(async move {
        let inner = seen.clone();
        let task = asyncio::create_task(async move {
            let cancelled = asyncio::sleep(LONG).await;
            inner.push("task cancelled");
            asyncio::sleep(Duration::from_millis(1)).await?;
            inner.push("task cleaned up");
            cancelled
        });
        asyncio::get_running_loop()?.call_later(Duration::from_millis(1), || raise(SIGINT));
        let result = task.await;
        seen.push("main goes on");
        result
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(record.take(), ["task cancelled", "task cleaned up", "main goes on"]);
}

fn an_interrupt_drops_a_main_that_waits_for_something_foreign() {
    install(SIGINT, SIG_DFL);
    let (guard, dropped) = drop_guard();
    let gate = Gate::default();
    let waiting = gate.clone();
    let main = async move {
        let _guard = guard;
        waiting.await;
        unreachable!("nobody opens it")
    };
    let result: Result<()> = asyncio::run(interrupted(Duration::from_millis(5), main));
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert!(dropped.get());
    gate.open();
}

fn an_interrupt_before_the_first_step_never_polls_main() {
    install(SIGINT, SIG_DFL);
    let mut runner = Runner::new();
    runner.get_loop().unwrap().call_soon(|| raise(SIGINT));
    let (polled, (guard, dropped)) = (Cell::new(false), drop_guard());
    let result = runner.run(async {
        let _guard = guard;
        polled.set(true);
        Ok(())
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert!(!polled.get() && dropped.get());
}

fn main_may_clean_up_after_the_interrupt() {
    install(SIGINT, SIG_DFL);
    let record = Record::default();
    let seen = record.clone();
    let result = asyncio::run(async move {
        raise(SIGINT);
        let cancelled = asyncio::sleep(LONG).await;
        seen.push("cancelled");
        asyncio::sleep(Duration::from_millis(2)).await?;
        asyncio::create_task(asyncio::sleep(Duration::from_millis(1))).await?;
        seen.push("cleaned up");
        cancelled
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(record.take(), ["cancelled", "cleaned up"]);
}

fn main_may_swallow_one_interrupt() {
    install(SIGINT, SIG_DFL);
    let result = asyncio::run(async {
        raise(SIGINT);
        assert!(asyncio::sleep(LONG).await.is_err());
        asyncio::sleep(Duration::from_millis(1)).await?;
        Ok("went on")
    });
    assert_eq!(result.unwrap(), "went on");
    assert_eq!(disposition(SIGINT), SIG_DFL);
}

fn main_may_turn_the_interrupt_into_an_error() {
    install(SIGINT, SIG_DFL);
    let result: Result<()> = asyncio::run(async {
        raise(SIGINT);
        asyncio::sleep(LONG).await.map_err(|_| Error::Value("spam".into()))
    });
    assert_eq!(kind(result), Some(ErrorKind::Value));
}

fn main_that_was_cancelled_by_others_too_stays_cancelled() {
    install(SIGINT, SIG_DFL);
    let result = asyncio::run(async {
        raise(SIGINT);
        asyncio::current_task()?.unwrap().cancel();
        asyncio::sleep(LONG).await
    });
    assert_eq!(kind(result), Some(ErrorKind::Cancelled));
}

/// RUN-015
fn the_second_interrupt_ends_a_clean_up() {
    install(SIGINT, SIG_DFL);
    for clean_up_swallows in [false, true] {
        let record = Record::default();
        let (seen, (guard, dropped)) = (record.clone(), drop_guard());
        let begin = Instant::now();
        let main = async move {
            let _guard = guard;
            assert!(asyncio::sleep(LONG).await.is_err());
            seen.push("first");
            let clean_up = interrupted(Duration::from_millis(10), asyncio::sleep(LONG)).await;
            seen.push(if clean_up.is_err() { "second" } else { "slept" });
            if clean_up_swallows { Ok(()) } else { clean_up }
        };
        let result = Runner::new().run(interrupted(Duration::from_millis(50), main));
        assert!(begin.elapsed() < SOON);
        assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
        assert_eq!(record.take(), ["first", "second"]);
        assert!(dropped.get());
        assert_eq!(disposition(SIGINT), SIG_DFL);
    }
}

/// RUN-015, with a main that takes both.
fn the_third_interrupt_drops_a_main_that_ignores_two() {
    install(SIGINT, SIG_DFL);
    let record = Record::default();
    let (seen, (guard, dropped)) = (record.clone(), drop_guard());
    let result: Result<()> = Runner::new().run(async move {
        let _guard = guard;
        for name in ["first", "second", "third"] {
            asyncio::get_running_loop()?.call_later(Duration::from_millis(1), || raise(SIGINT));
            assert!(asyncio::sleep(LONG).await.is_err());
            seen.push(name);
        }
        Ok(())
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(record.take(), ["first", "second"]);
    assert!(dropped.get());
}

/// RUN-015, with a main that never looks.
fn the_third_interrupt_drops_a_main_that_spins() {
    install(SIGINT, SIG_DFL);
    let (guard, dropped) = drop_guard();
    let (taken, has_taken) = std::sync::mpsc::channel();
    // Told of the first step, then of each cancellation that main has seen.
    let sender = thread::spawn(move || {
        for _ in 0..3 {
            has_taken.recv().unwrap();
            send_later(SIGINT, Duration::from_millis(5)).join().unwrap();
        }
        has_taken.recv()
    });
    let result: Result<()> = asyncio::run(async move {
        let _guard = guard;
        taken.send(()).unwrap();
        loop {
            if asyncio::sleep(Duration::ZERO).await.is_err() {
                taken.send(()).unwrap();
            }
        }
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert!(sender.join().unwrap().is_err(), "main has gone, and has not been told of the third");
    assert!(dropped.get());
}

fn the_third_interrupt_does_not_wait_for_the_task_that_main_awaits() {
    install(SIGINT, SIG_DFL);
    let mut runner = Runner::new();
    let (guard, dropped) = drop_guard();
    let result: Result<()> = runner.run(async move {
        let _guard = guard;
        let stubborn = asyncio::create_task(async {
            for interrupts in [true, true, true, false] {
                if interrupts {
                    asyncio::get_running_loop()?.call_later(Duration::from_millis(1), || raise(SIGINT));
                }
                assert!(asyncio::sleep(LONG).await.is_err());
            }
            Ok(())
        });
        stubborn.await
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert!(dropped.get());
    let [stubborn] = <[_; 1]>::try_from(runner.get_loop().unwrap().all_tasks()).unwrap();
    assert_eq!(stubborn.cancelling(), 2, "it has taken two and waits for the third time");
    assert!(!stubborn.done());
    // Two more and it ends; the clean-up gives it one.
    stubborn.cancel();
    runner.run(asyncio::sleep(Duration::ZERO)).unwrap();
    runner.close().unwrap();
    assert!(stubborn.done() && !stubborn.cancelled());
}

fn interrupts_at_once_count_one_by_one() {
    install(SIGINT, SIG_DFL);
    for times in 1..=4 {
        let record = Record::default();
        let seen = record.clone();
        let result: Result<()> = asyncio::run(async move {
            (0..times).for_each(|_| raise(SIGINT));
            for _ in 0..3 {
                let result = asyncio::sleep(Duration::from_millis(1)).await;
                seen.push(if result.is_ok() { "slept" } else { "cancelled" });
            }
            Err(Error::cancelled())
        });
        assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
        let expected: &[&str] = match times {
            1 => &["cancelled", "slept", "slept"],
            2 => &["cancelled", "cancelled", "slept"],
            _ => &[],
        };
        assert_eq!(record.take(), expected, "{times}");
    }
}

/// A computation that is interrupted and then has nothing to wait for any more.
fn an_interrupt_in_the_last_step_is_not_lost() {
    install(SIGINT, SIG_DFL);
    let result = asyncio::run(async {
        raise(SIGINT);
        Ok(5)
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    let result = asyncio::run(async {
        asyncio::sleep(Duration::from_millis(1)).await?;
        raise(SIGINT);
        Ok(5)
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
}

fn an_interrupt_in_the_last_iteration_is_not_lost() {
    install(SIGINT, SIG_DFL);
    let result = asyncio::run(async {
        asyncio::get_running_loop()?.call_soon(|| raise(SIGINT));
        Ok(5)
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(disposition(SIGINT), SIG_DFL);
}

fn an_error_of_the_last_step_outlives_an_interrupt() {
    install(SIGINT, SIG_DFL);
    let result: Result<()> = asyncio::run(async {
        raise(SIGINT);
        Err(Error::Value("spam".into()))
    });
    assert_eq!(kind(result), Some(ErrorKind::Value));
}

/// RUN-016
fn a_handler_of_somebody_else_stays_in_charge() {
    install(SIGINT, foreign_handler());
    let result = asyncio::run(async {
        raise(SIGINT);
        assert_eq!(foreign_calls(), 1);
        asyncio::sleep(Duration::from_millis(1)).await?;
        assert_eq!(asyncio::current_task()?.unwrap().cancelling(), 0);
        assert_eq!(disposition(SIGINT), foreign_handler());
        Ok(5)
    });
    assert_eq!(result.unwrap(), 5);
    assert_eq!(disposition(SIGINT), foreign_handler());
    raise(SIGINT);
    assert_eq!(foreign_calls(), 2);

    install(SIGINT, SIG_DFL);
    let result = asyncio::run(async {
        assert_ne!(disposition(SIGINT), SIG_DFL);
        raise(SIGINT);
        asyncio::sleep(LONG).await
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(disposition(SIGINT), SIG_DFL);
    assert_eq!(foreign_calls(), 2);

    // Installed inside: it stays, too.
    let result = asyncio::run(async {
        install(SIGINT, foreign_handler());
        raise(SIGINT);
        asyncio::sleep(Duration::from_millis(1)).await
    });
    result.unwrap();
    assert_eq!(foreign_calls(), 3);
    assert_eq!(disposition(SIGINT), foreign_handler());
}

/// RUN-016, for background jobs.
fn an_ignored_interrupt_stays_ignored() {
    install(SIGINT, SIG_IGN);
    let result = asyncio::run(async {
        raise(SIGINT);
        asyncio::sleep(Duration::from_millis(1)).await?;
        Ok(5)
    });
    assert_eq!(result.unwrap(), 5);
    assert_eq!(disposition(SIGINT), SIG_IGN);
}

/// RUN-016
fn the_default_comes_back_after_each_run() {
    install(SIGINT, SIG_DFL);
    let mut runner = Runner::new();
    let mains: [fn() -> Result<()>; 3] = [|| Ok(()), || Err(Error::Value("spam".into())), || panic!("boom")];
    for main in mains {
        drop(runner.run(async move {
            assert_ne!(disposition(SIGINT), SIG_DFL);
            main()
        }));
        assert_eq!(disposition(SIGINT), SIG_DFL);
        drop(asyncio::run(async move { main() }));
        assert_eq!(disposition(SIGINT), SIG_DFL);
    }
    drop(runner.run(async {
        asyncio::get_running_loop()?.stop();
        asyncio::sleep(LONG).await
    }));
    assert_eq!(disposition(SIGINT), SIG_DFL);
    runner.get_loop().unwrap().close().unwrap();
    assert!(runner.run(async { Ok(()) }).is_err());
    assert_eq!(disposition(SIGINT), SIG_DFL);
    let mut refusing = Runner::new().loop_factory(|| Err(Error::Value("no loop".into())));
    assert!(refusing.run(async { Ok(()) }).is_err());
    assert_eq!(disposition(SIGINT), SIG_DFL);
}

fn a_handler_added_inside_takes_the_interrupt_over() {
    install(SIGINT, SIG_DFL);
    let record = Record::default();
    let seen = record.clone();
    let result = asyncio::run(async move {
        let event_loop = asyncio::get_running_loop()?;
        event_loop.add_signal_handler(Signal::Int, move || seen.push("handler"))?;
        for _ in 0..4 {
            raise(SIGINT);
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
        assert_eq!(asyncio::current_task()?.unwrap().cancelling(), 0);
        Ok(5)
    });
    assert_eq!(result.unwrap(), 5);
    assert_eq!(record.take(), ["handler"; 4]);
    assert_eq!(disposition(SIGINT), SIG_DFL);

    // Graceful shutdown: main waits for what the handler sets.
    let result = asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let stopped = event_loop.create_future();
        let stop = stopped.clone();
        event_loop.add_signal_handler(SIGINT, move || stop.set_result("stopped").unwrap())?;
        event_loop.call_later(Duration::from_millis(1), || raise(SIGINT));
        stopped.await
    });
    assert_eq!(result.unwrap(), "stopped");

    // Until it is removed.
    let result = asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        event_loop.add_signal_handler(SIGINT, || ())?;
        raise(SIGINT);
        asyncio::sleep(Duration::from_millis(1)).await?;
        assert!(event_loop.remove_signal_handler(SIGINT)?);
        raise(SIGINT);
        asyncio::sleep(LONG).await
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(disposition(SIGINT), SIG_DFL);
}

fn a_handler_added_in_an_earlier_run_takes_the_interrupt_over() {
    install(SIGINT, SIG_DFL);
    let (mut runner, record) = (Runner::new(), Record::default());
    let seen = record.clone();
    runner
        .run(async move { asyncio::get_running_loop()?.add_signal_handler(SIGINT, move || seen.push("handler")) })
        .unwrap();
    assert_ne!(disposition(SIGINT), SIG_DFL, "the handler is the loop's, not the run's");
    let spin = || async {
        raise(SIGINT);
        asyncio::sleep(Duration::from_millis(1)).await
    };
    runner.run(spin()).unwrap();
    assert_eq!(record.take(), ["handler"]);
    // Removed in the middle of a run that has begun with it: nobody is left, and the system's default is back.
    runner.run(async { asyncio::get_running_loop()?.remove_signal_handler(SIGINT) }).unwrap();
    assert_eq!(disposition(SIGINT), SIG_DFL);
    assert_eq!(kind(runner.run(spin())), Some(ErrorKind::KeyboardInterrupt));
}

/// KeyboardInterrupt comes from `run` and `Runner` only.
fn other_entries_leave_the_signal_alone() {
    install(SIGINT, SIG_DFL);
    asyncio::block_on(async { assert_eq!(disposition(SIGINT), SIG_DFL) });
    let event_loop = asyncio::new_event_loop().unwrap();
    let looked = event_loop.run_until_complete(async { Ok(disposition(SIGINT)) });
    assert_eq!(looked.unwrap(), SIG_DFL);
    let stopper = event_loop.clone();
    event_loop.call_soon(move || {
        assert_eq!(disposition(SIGINT), SIG_DFL);
        stopper.stop();
    });
    event_loop.run_forever().unwrap();

    let entries: [fn(); 2] = [
        || asyncio::block_on(async { raise(SIGINT) }),
        || {
            let event_loop = asyncio::new_event_loop().unwrap();
            let raising = async {
                raise(SIGINT);
                Ok(())
            };
            event_loop.run_until_complete(raising).unwrap();
        },
    ];
    for entry in entries {
        assert_eq!(fork(entry), Ended::Killed(SIGINT));
    }
}

fn other_threads_leave_the_signal_alone() {
    install(SIGINT, SIG_DFL);
    let run = || {
        asyncio::run(async {
            assert_eq!(disposition(SIGINT), SIG_DFL);
            asyncio::sleep(Duration::from_millis(1)).await?;
            Ok(5)
        })
    };
    assert_eq!(thread::spawn(run).join().unwrap().unwrap(), 5);

    // While the main thread runs, the signal is its main's, wherever it arrives.
    let result = asyncio::run(async {
        let thread = thread::spawn(|| {
            asyncio::run(async {
                raise(SIGINT);
                asyncio::sleep(Duration::from_millis(1)).await?;
                Ok(5)
            })
        });
        let result = asyncio::sleep(LONG).await;
        assert_eq!(thread.join().unwrap().unwrap(), 5);
        result
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
}

/// Main has ended, and so has its part of the run: a clean-up that hangs can be ended from the keyboard.
fn during_the_clean_up_the_signal_is_the_systems_again() {
    install(SIGINT, SIG_DFL);
    let ended = fork(|| {
        let _ = asyncio::run(async {
            let _leftover = asyncio::create_task(async {
                let cancelled = asyncio::sleep(LONG).await;
                assert_eq!(disposition(SIGINT), SIG_DFL);
                raise(SIGINT);
                cancelled
            });
            asyncio::sleep(Duration::ZERO).await
        });
    });
    assert_eq!(ended, Ended::Killed(SIGINT));
}

fn an_interrupted_run_cleans_up_as_any_other() {
    install(SIGINT, SIG_DFL);
    let (kept, record) = (RefCell::new(None), Record::default());
    let seen = record.clone();
    let jobs = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let job_ended = jobs.clone();
    let (result, records) = logs(|| {
        asyncio::run(async {
            kept.replace(Some(asyncio::get_running_loop()?));
            let _leftover = asyncio::create_task(async move {
                let cancelled = asyncio::sleep(LONG).await;
                asyncio::sleep(Duration::from_millis(1)).await?;
                seen.push("leftover cleaned up");
                cancelled
            });
            let (started, has_started) = std::sync::mpsc::channel();
            let job = asyncio::to_thread(move || {
                started.send(()).unwrap();
                thread::sleep(Duration::from_millis(20));
                job_ended.store(true, std::sync::atomic::Ordering::SeqCst);
                Ok(())
            });
            let _job = asyncio::create_task(job);
            asyncio::sleep(Duration::ZERO).await?;
            has_started.recv().unwrap();
            raise(SIGINT);
            asyncio::sleep(LONG).await
        })
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    assert_eq!(record.take(), ["leftover cleaned up"]);
    assert!(kept.take().unwrap().is_closed());
    assert!(jobs.load(std::sync::atomic::Ordering::SeqCst), "the executor's jobs are waited for");
    assert_eq!(records, []);
}

fn each_selector_is_interrupted() {
    install(SIGINT, SIG_DFL);
    let polling = || EventLoop::builder().selector(PollingSelector::new()?).build();
    let park = || EventLoop::builder().selector(ParkSelector::new()).build();
    let factories: [fn() -> Result<EventLoop>; 3] = [polling, park, asyncio::new_event_loop];
    for factory in factories {
        let mut runner = Runner::new().loop_factory(factory);
        let delay = Duration::from_millis(10);
        for _ in 0..3 {
            assert_eq!(kind(runner.run(interrupted(delay, asyncio::sleep(LONG)))), Some(ErrorKind::KeyboardInterrupt));
        }
        let forever: Result<()> = runner.run(interrupted(delay, std::future::pending()));
        assert_eq!(kind(forever), Some(ErrorKind::KeyboardInterrupt));
    }
}

fn an_interrupt_while_main_waits_for_the_executor() {
    install(SIGINT, SIG_DFL);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, has_started) = std::sync::mpsc::channel();
    let sender = thread::spawn(move || {
        has_started.recv().unwrap();
        crate::signals::send(SIGINT);
        thread::sleep(Duration::from_millis(5));
        drop(release);
    });
    let result = asyncio::run(async move {
        asyncio::to_thread(move || {
            started.send(()).unwrap();
            // An error says that the other side is gone, which is what it waits for.
            let _ = released.recv();
            Ok(())
        })
        .await
    });
    assert_eq!(kind(result), Some(ErrorKind::KeyboardInterrupt));
    sender.join().unwrap();
}
