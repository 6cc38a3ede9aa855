//! A worker that fails takes the others down, and says why.

use std::{
    rc::Rc,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use asyncio::{Canceller, Error, ErrorKind, Result, run_workers};

use crate::{
    LONG, Seen, cancelled_with,
    main_thread::tests,
    support::{drop_guard, failure, logs},
    until,
};

tests![
    the_first_failure_cancels_the_others_and_wins,
    the_first_in_time_wins_and_not_the_first_in_order,
    a_panic_is_a_failure,
    a_panic_of_the_closure_is_a_failure,
    an_error_of_the_clean_up_is_a_failure,
    others_may_clean_up_first,
    a_worker_that_answers_with_ok_changes_nothing,
    an_error_after_the_first_is_reported,
    a_worker_that_cancels_itself_has_failed,
    a_loop_that_was_stopped_has_failed,
    a_worker_that_spins_is_cancelled,
    a_worker_that_waits_for_something_foreign_is_dropped,
    workers_that_have_not_begun_are_cancelled_too,
    who_has_ended_is_not_disturbed,
    all_fail_at_once_and_one_wins,
];

fn the_first_failure_cancels_the_others_and_wins() {
    let (seen, together) = (Seen::default(), Barrier::new(3));
    let result = run_workers::<(), _, _>(3, async |worker| {
        together.wait();
        if worker.index() == 1 {
            return Err(Error::other("the disk is full"));
        }
        let result = asyncio::sleep(LONG).await;
        let Err(Error::Cancelled(cancelled)) = &result else { panic!("{result:?}") };
        assert_eq!(cancelled.by, Some(Canceller::Workers));
        seen.push(format!("{}: {}", worker.index(), cancelled.message.as_deref().unwrap()));
        assert_eq!(asyncio::current_task()?.unwrap().cancelling(), 1);
        result
    });
    assert_eq!(failure(result), (ErrorKind::Other, "the disk is full".into()));
    assert_eq!(seen.sorted(), ["0: worker 1 failed: the disk is full", "2: worker 1 failed: the disk is full"]);
}

fn the_first_in_time_wins_and_not_the_first_in_order() {
    for first in 0..3 {
        let result = run_workers::<(), _, _>(3, async |worker| {
            if worker.index() == first {
                return Err(Error::Value(format!("{first}").into()));
            }
            cancelled_with().await;
            Err(Error::cancelled())
        });
        assert_eq!(failure(result), (ErrorKind::Value, first.to_string()));
    }
}

fn a_panic_is_a_failure() {
    let result = run_workers::<(), _, _>(2, async |worker| {
        asyncio::sleep(Duration::from_millis(1)).await?;
        if worker.index() == 0 {
            panic!("worker nought gives up");
        }
        assert_eq!(cancelled_with().await, "worker 0 failed: worker nought gives up");
        Err(Error::cancelled())
    });
    assert_eq!(failure(result), (ErrorKind::Panicked, "worker nought gives up".into()));
}

fn a_panic_of_the_closure_is_a_failure() {
    let result = run_workers(2, |worker| {
        assert_ne!(worker.index(), 1, "the closure gives up");
        async { asyncio::sleep(LONG).await }
    });
    let (kind, text) = failure(result);
    assert!(kind == ErrorKind::Panicked && text.contains("the closure gives up"), "{text}");
}

fn an_error_of_the_clean_up_is_a_failure() {
    let result = run_workers(2, async |worker| {
        if worker.index() == 1 {
            assert_eq!(cancelled_with().await, "worker 0 failed: Event loop stopped before Future completed.");
            return Ok(());
        }
        // Main ends well; what is left does not let the loop come to its end.
        asyncio::create_task(async {
            let cancelled = asyncio::sleep(LONG).await;
            asyncio::get_running_loop()?.stop();
            asyncio::sleep(LONG).await?;
            cancelled
        });
        asyncio::sleep(Duration::ZERO).await
    });
    assert_eq!(failure(result), (ErrorKind::Runtime, "Event loop stopped before Future completed.".into()));
}

fn others_may_clean_up_first() {
    let (seen, together) = (Seen::default(), Barrier::new(3));
    let result = run_workers::<(), _, _>(3, async |worker| {
        together.wait();
        if worker.index() == 2 {
            return Err(Error::Value("2".into()));
        }
        let result = asyncio::sleep(LONG).await;
        asyncio::sleep(Duration::from_millis(5)).await?;
        seen.push(format!("{} cleaned up", worker.index()));
        result
    });
    assert_eq!(failure(result), (ErrorKind::Value, "2".into()));
    assert_eq!(seen.sorted(), ["0 cleaned up", "1 cleaned up"]);
}

fn a_worker_that_answers_with_ok_changes_nothing() {
    let (guard, dropped) = drop_guard();
    let (guard, together) = (Mutex::new(Some(guard)), Barrier::new(2));
    let result = run_workers(2, async |worker| {
        together.wait();
        if worker.index() == 0 {
            return Err(Error::Value("0".into()));
        }
        cancelled_with().await;
        Ok(guard.lock().unwrap().take())
    });
    assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::Value));
    assert!(dropped.get(), "what the others gave is dropped");
}

fn an_error_after_the_first_is_reported() {
    let (seen, together) = (Arc::new(Seen::default()), Barrier::new(4));
    let result = run_workers::<(), _, _>(4, async |worker| {
        together.wait();
        let reports = seen.clone();
        asyncio::get_running_loop()?.set_exception_handler(Some(Rc::new(move |_, context| {
            reports.push(format!("{}: {}", context.message, context.exception.as_ref().unwrap()));
        })));
        match worker.index() {
            0 => return Err(Error::Value("first".into())),
            index => assert_eq!((index, cancelled_with().await), (index, "worker 0 failed: first".into())),
        }
        match worker.index() {
            1 => Err(Error::Value("second".into())),
            2 => panic!("third"),
            _ => Err(Error::cancelled()),
        }
    });
    assert_eq!(failure(result), (ErrorKind::Value, "first".into()));
    let expected =
        ["worker 1 failed, but not as the first one: second", "worker 2 failed, but not as the first one: third"];
    assert_eq!(seen.sorted(), expected);
}

fn a_worker_that_cancels_itself_has_failed() {
    let (seen, together) = (Seen::default(), Barrier::new(2));
    let result = run_workers::<(), _, _>(2, async |worker| {
        together.wait();
        if worker.index() == 0 {
            asyncio::current_task()?.unwrap().cancel_with("enough");
            asyncio::sleep(Duration::ZERO).await?;
        }
        seen.push(cancelled_with().await);
        Err(Error::cancelled())
    });
    assert_eq!(failure(result), (ErrorKind::Cancelled, "enough".into()));
    assert_eq!(seen.sorted(), ["worker 0 failed: enough"]);
}

fn a_loop_that_was_stopped_has_failed() {
    let result = run_workers::<(), _, _>(2, async |worker| {
        if worker.index() == 1 {
            asyncio::get_running_loop()?.stop();
        }
        asyncio::sleep(LONG).await
    });
    assert_eq!(failure(result), (ErrorKind::Runtime, "Event loop stopped before Future completed.".into()));
}

fn a_worker_that_spins_is_cancelled() {
    let spins = AtomicUsize::new(0);
    let result = run_workers::<(), _, _>(2, async |worker| {
        if worker.index() == 0 {
            until(|| spins.load(Ordering::SeqCst) > 10).await?;
            return Err(Error::Value("enough".into()));
        }
        loop {
            spins.fetch_add(1, Ordering::SeqCst);
            asyncio::sleep(Duration::ZERO).await?;
        }
    });
    assert_eq!(failure(result), (ErrorKind::Value, "enough".into()));
}

fn a_worker_that_waits_for_something_foreign_is_dropped() {
    let (guard, dropped) = drop_guard();
    let (guard, waits) = (Mutex::new(Some(guard)), AtomicBool::new(false));
    let result = run_workers::<(), _, _>(2, async |worker| {
        if worker.index() == 0 {
            until(|| waits.load(Ordering::SeqCst)).await?;
            return Err(Error::Value("0".into()));
        }
        let _guard = guard.lock().unwrap().take();
        waits.store(true, Ordering::SeqCst);
        std::future::pending().await
    });
    assert_eq!(failure(result), (ErrorKind::Value, "0".into()));
    assert!(dropped.get());
}

fn workers_that_have_not_begun_are_cancelled_too() {
    for _ in 0..20 {
        let cancelled = AtomicUsize::new(0);
        let result = run_workers(16, async |worker| -> Result<()> {
            if worker.index() == 0 {
                return Err(Error::Value("0".into()));
            }
            assert_eq!(cancelled_with().await, "worker 0 failed: 0");
            cancelled.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        assert_eq!(failure(result), (ErrorKind::Value, "0".into()));
        assert_eq!(cancelled.load(Ordering::SeqCst), 15);
    }
}

fn who_has_ended_is_not_disturbed() {
    let ended = AtomicBool::new(false);
    let result = run_workers(2, async |worker| {
        if worker.index() == 0 {
            // It is cancelled by the runner alone, when main has ended.
            asyncio::create_task(async {
                let result = asyncio::sleep(LONG).await;
                let Err(Error::Cancelled(cancelled)) = &result else { panic!("{result:?}") };
                assert_eq!(cancelled.by, Some(Canceller::Runner));
                result
            });
            asyncio::sleep(Duration::ZERO).await?;
            ended.store(true, Ordering::SeqCst);
            return Ok(());
        }
        until(|| ended.load(Ordering::SeqCst)).await?;
        Err(Error::Value("1".into()))
    });
    assert_eq!(failure(result), (ErrorKind::Value, "1".into()));
}

fn all_fail_at_once_and_one_wins() {
    for _ in 0..20 {
        let together = Barrier::new(4);
        let (result, _) = logs(|| {
            run_workers::<(), _, _>(4, async |worker| {
                asyncio::get_running_loop()?.set_exception_handler(Some(Rc::new(|_, _| ())));
                together.wait();
                Err(Error::Value(worker.index().to_string().into()))
            })
        });
        let (kind, text) = failure(result);
        assert!(kind == ErrorKind::Value && ["0", "1", "2", "3"].contains(&&*text), "{text}");
    }
}
