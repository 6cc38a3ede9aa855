//! SIGINT and SIGTERM, which the main thread passes on to all workers.

use std::{
    cell::Cell,
    process::Command,
    rc::Rc,
    sync::{
        Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use asyncio::{Canceller, Error, ErrorKind, Result, Signal, run_workers};

use crate::{
    LONG, Seen, cancelled_with,
    main_thread::tests,
    signals::{
        Ended, SIG_DFL, SIG_IGN, SIGINT, SIGTERM, disposition, foreign_calls, foreign_handler, fork, install, raise,
        send,
    },
    support::{drop_guard, failure},
    until,
};

tests![
    sigterm_cancels_each_worker_and_those_that_answer_with_ok_count_as_ok,
    a_sigterm_that_a_worker_lets_out_is_its_cancellation,
    one_that_lets_it_out_does_not_cancel_those_that_clean_up,
    sigint_is_a_keyboard_interrupt,
    workers_may_swallow_one_sigint,
    a_worker_may_turn_sigint_into_an_error,
    a_second_sigint_cancels_again,
    a_third_sigint_drops_the_mains,
    a_second_sigterm_cancels_again,
    signals_at_once_count_one_by_one,
    a_signal_reaches_workers_that_have_not_begun,
    a_signal_in_the_last_step_is_not_lost,
    a_signal_from_another_process_is_passed_on,
    a_child_ends_as_its_signal_says,
    a_failure_before_the_signal_is_the_result,
    a_failure_after_the_signal_leaves_those_that_clean_up_alone,
    those_that_have_ended_keep_their_results,
    signals_get_their_dispositions_back,
    while_the_last_one_cleans_up_the_signal_is_the_systems_again,
    a_handler_of_somebody_else_stays_in_charge,
    ignored_signals_stay_ignored,
    workers_have_no_signal_handlers,
    off_the_main_thread_signals_are_left_alone,
    run_takes_sigint_as_before_afterwards,
];

/// Both signals as a program finds them.
fn defaults() {
    install(SIGINT, SIG_DFL);
    install(SIGTERM, SIG_DFL);
}

/// Sends a signal to this process when all workers are there.
fn send_together(together: &Barrier, number: i32) {
    if together.wait().is_leader() {
        send(number);
    }
}

fn sigterm_cancels_each_worker_and_those_that_answer_with_ok_count_as_ok() {
    defaults();
    let together = Barrier::new(3);
    let results = run_workers(3, async |worker| {
        send_together(&together, SIGTERM);
        let result = asyncio::sleep(LONG).await;
        let Err(Error::Cancelled(cancelled)) = result else { panic!("{result:?}") };
        assert_eq!((cancelled.message.as_deref(), cancelled.by), (Some("SIGTERM"), Some(Canceller::Workers)));
        asyncio::sleep(Duration::from_millis(2)).await?; // cleans up
        Ok(worker.index())
    });
    assert_eq!(results.unwrap(), [0, 1, 2]);
}

fn a_sigterm_that_a_worker_lets_out_is_its_cancellation() {
    defaults();
    let together = Barrier::new(2);
    let result = run_workers(2, async |worker| {
        send_together(&together, SIGTERM);
        let result = asyncio::sleep(LONG).await;
        if worker.index() == 0 { Ok(()) } else { result }
    });
    assert_eq!(failure(result), (ErrorKind::Cancelled, "SIGTERM".into()));
}

fn one_that_lets_it_out_does_not_cancel_those_that_clean_up() {
    defaults();
    for number in [SIGTERM, SIGINT] {
        let (together, ended) = (Barrier::new(2), AtomicBool::new(false));
        let (guard, thread_gone) = drop_guard();
        let guard = Mutex::new(Some(guard));
        let result = run_workers(2, async |worker| {
            thread_local!(static KEPT: Cell<Option<crate::support::DropGuard>> = const { Cell::new(None) });
            send_together(&together, number);
            let result = asyncio::sleep(LONG).await;
            if worker.index() == 0 {
                KEPT.set(guard.lock().unwrap().take()); // dropped with the thread
                return result;
            }
            until(|| thread_gone.get()).await?;
            asyncio::sleep(Duration::from_millis(20)).await?;
            ended.store(true, Ordering::SeqCst);
            Ok(())
        });
        let expected = if number == SIGTERM { ErrorKind::Cancelled } else { ErrorKind::KeyboardInterrupt };
        assert_eq!(result.unwrap_err().kind(), expected);
        assert!(ended.load(Ordering::SeqCst));
    }
}

fn sigint_is_a_keyboard_interrupt() {
    defaults();
    let (seen, together) = (Seen::default(), Barrier::new(3));
    let result = run_workers(3, async |_| {
        send_together(&together, SIGINT);
        let result = asyncio::sleep(LONG).await;
        let Err(Error::Cancelled(cancelled)) = &result else { panic!("{result:?}") };
        assert_eq!((cancelled.message.as_deref(), cancelled.by), (Some("SIGINT"), Some(Canceller::Interrupt)));
        seen.push("cancelled");
        result
    });
    assert_eq!(failure(result).0, ErrorKind::KeyboardInterrupt);
    assert_eq!(seen.sorted(), ["cancelled"; 3]);
}

fn workers_may_swallow_one_sigint() {
    defaults();
    let together = Barrier::new(2);
    let results = run_workers(2, async |_| {
        send_together(&together, SIGINT);
        Ok(cancelled_with().await)
    });
    assert_eq!(results.unwrap(), ["SIGINT", "SIGINT"]);
}

fn a_worker_may_turn_sigint_into_an_error() {
    defaults();
    let together = Barrier::new(2);
    let result = run_workers::<(), _, _>(2, async |worker| {
        send_together(&together, SIGINT);
        cancelled_with().await;
        if worker.index() == 0 {
            return Err(Error::Value("on Ctrl-C".into()));
        }
        Ok(())
    });
    assert_eq!(failure(result), (ErrorKind::Value, "on Ctrl-C".into()));
}

fn a_second_sigint_cancels_again() {
    defaults();
    let (seen, together) = (Seen::default(), Barrier::new(2));
    let result = run_workers(2, async |_| {
        for _ in 0..2 {
            send_together(&together, SIGINT);
            seen.push(cancelled_with().await);
        }
        Ok(())
    });
    assert_eq!(failure(result).0, ErrorKind::KeyboardInterrupt);
    assert_eq!(seen.sorted(), ["SIGINT"; 4]);
}

fn a_third_sigint_drops_the_mains() {
    defaults();
    let together = Barrier::new(2);
    let (guard, dropped) = drop_guard();
    let guard = Mutex::new(Some(guard));
    let result = run_workers::<(), _, _>(2, async |_| {
        let _guard = guard.lock().unwrap().take();
        loop {
            send_together(&together, SIGINT);
            cancelled_with().await;
        }
    });
    assert_eq!(failure(result).0, ErrorKind::KeyboardInterrupt);
    assert!(dropped.get());
}

fn a_second_sigterm_cancels_again() {
    defaults();
    let (seen, together) = (Seen::default(), Barrier::new(2));
    let results = run_workers(2, async |_| {
        for _ in 0..4 {
            send_together(&together, SIGTERM);
            seen.push(cancelled_with().await);
        }
        Ok(asyncio::current_task()?.unwrap().cancelling())
    });
    assert_eq!(results.unwrap(), [4, 4]);
    assert_eq!(seen.sorted(), ["SIGTERM"; 8]);
}

fn signals_at_once_count_one_by_one() {
    defaults();
    let (seen, together) = (Seen::default(), Barrier::new(2));
    let result = run_workers(2, async |worker| {
        together.wait();
        if worker.index() == 0 {
            // To this thread: the system would make one of two that wait.
            raise(SIGINT);
            raise(SIGINT);
        }
        seen.push(cancelled_with().await);
        seen.push(cancelled_with().await);
        Ok(())
    });
    assert_eq!(failure(result).0, ErrorKind::KeyboardInterrupt);
    assert_eq!(seen.sorted(), ["SIGINT"; 4]);
}

fn a_signal_reaches_workers_that_have_not_begun() {
    defaults();
    for (number, name) in [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT")] {
        for _ in 0..10 {
            let results = run_workers(16, async |worker| {
                if worker.index() == 0 {
                    send(number);
                }
                Ok(cancelled_with().await)
            });
            assert_eq!(results.unwrap(), [name; 16]);
        }
    }
}

fn a_signal_in_the_last_step_is_not_lost() {
    defaults();
    for count in [1, 4] {
        for _ in 0..20 {
            let together = Barrier::new(count);
            let result = run_workers(count, async |_| {
                send_together(&together, SIGINT);
                together.wait();
                Ok(())
            });
            assert_eq!(failure(result).0, ErrorKind::KeyboardInterrupt);
            // There is nothing to interrupt for a SIGTERM, and Ok is Ok.
            let together = Barrier::new(count);
            let result = run_workers(count, async |_| {
                send_together(&together, SIGTERM);
                together.wait();
                Ok(())
            });
            result.unwrap();
        }
    }
}

/// The signal as a shell sends it.
fn kill(name: &str) {
    let kill = format!("kill -s {name} {}", std::process::id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

fn a_signal_from_another_process_is_passed_on() {
    defaults();
    for name in ["TERM", "INT"] {
        let together = Barrier::new(2);
        let results = run_workers(2, async |_| {
            if together.wait().is_leader() {
                thread::spawn(move || kill(name));
            }
            Ok(cancelled_with().await)
        });
        assert_eq!(results.unwrap(), [format!("SIG{name}"), format!("SIG{name}")]);
    }
}

/// What a program makes of it.
fn exit_code(result: Result<Vec<()>>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(Error::KeyboardInterrupt) => 130,
        Err(Error::Cancelled(_)) => 143,
        Err(_) => 1,
    }
}

fn a_child_ends_as_its_signal_says() {
    let child = |name: &'static str, drains: bool| {
        fork(|| {
            defaults();
            let together = Barrier::new(2);
            let result = run_workers(2, async |_| {
                if together.wait().is_leader() {
                    thread::spawn(move || kill(name));
                }
                let result = asyncio::sleep(LONG).await;
                if drains { Ok(()) } else { result }
            });
            std::process::exit(exit_code(result));
        })
    };
    assert_eq!(child("TERM", true), Ended::Exited(0));
    assert_eq!(child("TERM", false), Ended::Exited(143));
    assert_eq!(child("INT", false), Ended::Exited(130));
    assert_eq!(child("KILL", false), Ended::Killed(libc::SIGKILL));
}

fn a_failure_before_the_signal_is_the_result() {
    defaults();
    let result = run_workers::<(), _, _>(2, async |worker| {
        if worker.index() == 0 {
            return Err(Error::Value("0".into()));
        }
        cancelled_with().await;
        send(SIGINT);
        assert_eq!(cancelled_with().await, "SIGINT");
        send(SIGINT);
        assert_eq!(cancelled_with().await, "SIGINT");
        Ok(())
    });
    assert_eq!(failure(result), (ErrorKind::Value, "0".into()));
}

fn a_failure_after_the_signal_leaves_those_that_clean_up_alone() {
    defaults();
    let (together, failed) = (Barrier::new(2), AtomicBool::new(false));
    let cleaned = AtomicBool::new(false);
    let result = run_workers(2, async |worker| {
        send_together(&together, SIGTERM);
        cancelled_with().await;
        if worker.index() == 0 {
            failed.store(true, Ordering::SeqCst);
            return Err(Error::Value("the drain failed".into()));
        }
        until(|| failed.load(Ordering::SeqCst)).await?;
        asyncio::sleep(Duration::from_millis(50)).await?;
        cleaned.store(true, Ordering::SeqCst);
        Ok(())
    });
    assert_eq!(failure(result), (ErrorKind::Value, "the drain failed".into()));
    assert!(cleaned.load(Ordering::SeqCst));
}

fn those_that_have_ended_keep_their_results() {
    defaults();
    let (guard, thread_gone) = drop_guard();
    let guard = Mutex::new(Some(guard));
    let results = run_workers(2, async |worker| {
        thread_local!(static KEPT: Cell<Option<crate::support::DropGuard>> = const { Cell::new(None) });
        if worker.index() == 0 {
            KEPT.set(guard.lock().unwrap().take());
            return Ok("early".to_owned());
        }
        until(|| thread_gone.get()).await?;
        send(SIGTERM);
        Ok(cancelled_with().await)
    });
    assert_eq!(results.unwrap(), ["early", "SIGTERM"]);
}

fn signals_get_their_dispositions_back() {
    defaults();
    for result in [Ok(()), Err(Error::cancelled())] {
        let outcome = run_workers(2, |_| {
            let result = result.clone();
            async move {
                assert!(disposition(SIGINT) != SIG_DFL && disposition(SIGTERM) != SIG_DFL);
                result
            }
        });
        assert_eq!(outcome.is_ok(), result.is_ok());
        assert_eq!((disposition(SIGINT), disposition(SIGTERM)), (SIG_DFL, SIG_DFL));
    }
    let ended = fork(|| {
        run_workers(2, async |_| Ok(())).unwrap();
        send(SIGTERM);
    });
    assert_eq!(ended, Ended::Killed(SIGTERM));
}

fn while_the_last_one_cleans_up_the_signal_is_the_systems_again() {
    defaults();
    let cleaned = AtomicUsize::new(0);
    run_workers(2, |_| {
        // Shared with a task, which is `'static`.
        let done = Rc::new(Cell::new(false));
        let cleaned = &cleaned;
        async move {
            let seen = done.clone();
            let task = asyncio::create_task(async move {
                let result = asyncio::sleep(LONG).await;
                until(|| disposition(SIGINT) == SIG_DFL && disposition(SIGTERM) == SIG_DFL).await?;
                seen.set(true);
                result
            });
            asyncio::sleep(Duration::ZERO).await?;
            assert!(!task.done() && !done.get());
            cleaned.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .unwrap();
    assert_eq!(cleaned.load(Ordering::SeqCst), 2);
}

fn a_handler_of_somebody_else_stays_in_charge() {
    install(SIGINT, foreign_handler());
    install(SIGTERM, SIG_DFL);
    let together = Barrier::new(2);
    let results = run_workers(2, async |_| {
        send_together(&together, SIGINT);
        until(|| foreign_calls() == 1).await?;
        asyncio::sleep(Duration::from_millis(5)).await?;
        send_together(&together, SIGTERM);
        Ok(cancelled_with().await)
    });
    assert_eq!(results.unwrap(), ["SIGTERM", "SIGTERM"]);
    assert_eq!(disposition(SIGINT), foreign_handler());
}

fn ignored_signals_stay_ignored() {
    install(SIGINT, SIG_IGN);
    install(SIGTERM, SIG_IGN);
    let together = Barrier::new(2);
    let results = run_workers(2, async |_| {
        send_together(&together, SIGINT);
        send_together(&together, SIGTERM);
        asyncio::sleep(Duration::from_millis(20)).await?;
        Ok(asyncio::current_task()?.unwrap().cancelling())
    });
    assert_eq!(results.unwrap(), [0, 0]);
    assert_eq!((disposition(SIGINT), disposition(SIGTERM)), (SIG_IGN, SIG_IGN));
}

fn workers_have_no_signal_handlers() {
    defaults();
    run_workers(2, async |_| {
        let result = asyncio::get_running_loop()?.add_signal_handler(Signal::Usr1, || ());
        assert_eq!(failure(result).0, ErrorKind::Runtime);
        Ok(())
    })
    .unwrap();
}

fn off_the_main_thread_signals_are_left_alone() {
    let ended = fork(|| {
        defaults();
        let caller = thread::spawn(|| {
            run_workers(1, async |_| {
                send(SIGTERM);
                asyncio::sleep(LONG).await
            })
        });
        drop(caller.join());
    });
    assert_eq!(ended, Ended::Killed(SIGTERM));
}

fn run_takes_sigint_as_before_afterwards() {
    defaults();
    run_workers(2, async |_| Ok(())).unwrap();
    let result = asyncio::run(async {
        send(SIGINT);
        asyncio::sleep(LONG).await
    });
    assert_eq!(failure(result).0, ErrorKind::KeyboardInterrupt);
}
