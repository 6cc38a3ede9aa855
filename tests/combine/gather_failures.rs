//! What becomes of errors: those of children, and those that nobody looks at.

use std::{cell::RefCell, rc::Rc, time::Duration};

use asyncio::{Error, ErrorKind, Future, create_task, gather, sleep, timeout};
use futures::future::{Either, select};

use crate::{
    FOREVER, MS, after, assert_cancelled, assert_error, error, fails, run, run_reporting, support::failure, turns,
};

const TASK: &str = "Task exception was never retrieved";
const FUTURE: &str = "Future exception was never retrieved";

fn report(message: &str, text: &str) -> (String, String) {
    (message.into(), text.into())
}

#[test]
fn a_panic_of_a_child_is_the_gatherings_error() {
    run(async {
        let panics = || async {
            sleep(MS).await?;
            if true {
                panic!("boom");
            }
            Ok(())
        };
        assert_eq!(failure(gather((after(5, ()), panics())).await), (ErrorKind::Panicked, "boom".into()));
        let (good, bad) = gather((after(5, 1), panics())).return_exceptions().await?;
        assert_eq!(good?, 1);
        assert_eq!(failure(bad), (ErrorKind::Panicked, "boom".into()));
        let given = create_task(panics());
        assert_eq!(failure(gather(vec![given]).await), (ErrorKind::Panicked, "boom".into()));
        sleep(MS * 5).await
    });
}

#[test]
fn cancellations_and_timeouts_can_be_results() {
    let (_, took) = run(async {
        let (doomed, late) = (create_task(after(100, "never")), timeout(MS * 3, after(100, "late")));
        let canceller = doomed.any();
        let all = gather((doomed, late, async move {
            sleep(MS).await?;
            Ok(canceller.cancel_with("third party"))
        }));
        let (cancelled, late, told) = all.return_exceptions().await?;
        match cancelled {
            Err(Error::Cancelled(cancelled)) => assert_eq!(cancelled.message.as_deref(), Some("third party")),
            other => panic!("{other:?}"),
        }
        assert_eq!(failure(late).0, ErrorKind::Timeout);
        assert!(told?);
        Ok(())
    });
    assert_eq!(took, MS * 3);
}

/// Where a child is cancelled by a third party, that is an error as any other: the other children go on.
#[test]
fn a_child_that_somebody_cancels_fails_the_gathering() {
    run(async {
        let [a, b, c] = std::array::from_fn(|_| Future::<u8>::new());
        let mut all = gather((a.clone(), b.clone(), c.clone())).start();
        a.set_result(1)?;
        b.cancel_with("third party");
        match (&mut all).await {
            Err(Error::Cancelled(cancelled)) => assert_eq!(cancelled.message.as_deref(), Some("third party")),
            other => panic!("{other:?}"),
        }
        assert!(all.done() && all.cancelled() && !all.cancel());
        assert!(!c.done());
        // As in CPython, it can be caught, and nobody else is cancelled by it.
        assert_eq!(asyncio::current_task()?.unwrap().cancelling(), 0);
        sleep(MS).await
    });
}

/// A child that somebody cancels and that swallows it has not failed.
#[test]
fn a_child_that_swallows_a_third_partys_cancellation_gives_its_value() {
    run(async {
        let stubborn = create_task(async {
            assert_cancelled(sleep(FOREVER).await);
            after(2, "survived").await
        });
        let any = stubborn.any();
        let all = gather((stubborn, after(1, 1))).start();
        turns(2).await?;
        assert!(any.cancel());
        assert_eq!(all.await?, ("survived", 1));
        Ok(())
    });
}

/// After the first error the others go on; their errors are reported when nobody looks, their values are not.
#[test]
fn later_errors_of_children_are_reported_once() {
    let (result, took, reports) = run_reporting(async {
        assert_error(gather((fails::<()>(1, "first"), fails::<()>(2, "second"), after(3, ()))).await, "first");
        sleep(MS * 5).await
    });
    result.unwrap();
    assert_eq!((took, reports), (MS * 6, vec![report(TASK, "second")]));

    // Somebody holds a handle and looks.
    run(async {
        let second = create_task(fails::<()>(2, "second"));
        let looks = second.any();
        assert_error(gather((fails::<()>(1, "first"), second)).await, "first");
        sleep(MS * 5).await?;
        assert_eq!(looks.exception()?.unwrap().to_string(), "second");
        Ok(())
    });

    // In the very iteration of the first one.
    let (result, _, reports) = run_reporting(async {
        let [a, b] = std::array::from_fn(|_| Future::<u8>::new());
        let all = gather((a.clone(), b.clone())).start();
        a.set_exception(error("a"))?;
        b.set_exception(error("b"))?;
        assert_error(all.await, "a");
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports, [report(FUTURE, "b")]);
}

#[test]
fn results_that_are_errors_are_looked_at_by_whoever_gets_them() {
    let (result, _, reports) = run_reporting(async {
        let outcomes = gather(vec![fails::<()>(1, "a"), fails::<()>(2, "b")]).return_exceptions().await?;
        drop(outcomes);
        let _ = gather((fails::<()>(1, "c"), fails::<()>(2, "d"))).return_exceptions().await?;
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports, []);
}

/// Nothing fails in silence: what was started and never awaited.
#[test]
fn the_error_of_a_gathering_that_nobody_awaits_is_reported() {
    let (result, _, reports) = run_reporting(async {
        let all = gather((fails::<()>(1, "E"), after(2, ()))).start();
        sleep(MS * 5).await?;
        assert!(all.done());
        drop(all);
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports, [report(TASK, "E")]);

    let (result, _, reports) = run_reporting(async {
        let future = Future::<u8>::new();
        let all = gather(vec![future.clone()]).start();
        future.set_exception(error("E"))?;
        drop(future);
        turns(3).await?;
        assert!(all.done());
        drop(all);
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports, [report(FUTURE, "E")]);

    // Errors that would have been results.
    let (result, _, reports) = run_reporting(async {
        let all = gather((fails::<()>(1, "E"), fails::<()>(2, "F"), after(2, ()))).return_exceptions().start();
        sleep(MS * 5).await?;
        assert!(all.done());
        drop(all);
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports.len(), 2, "{reports:?}");

    // Successes and cancellations are no news.
    run(async {
        let all = gather((after(1, ()), after(2, ()))).start();
        sleep(MS * 5).await?;
        drop(all);
        let future = Future::<u8>::new();
        let all = gather((future.clone(), after(2, ()))).start();
        future.cancel();
        sleep(MS * 5).await?;
        assert!(all.cancelled());
        drop(all);
        Ok(())
    });
}

/// The gathering failed, and whoever awaited it was cancelled or gave it up in the same moment.
#[test]
fn an_error_that_came_too_late_is_reported() {
    let (result, _, reports) = run_reporting(async {
        let future = Future::<u8>::new();
        let child = future.clone();
        let task = create_task(async move { gather((child, after(1, ()))).await });
        turns(2).await?;
        future.set_exception(error("E"))?;
        drop(future);
        turns(1).await?; // the gathering has failed, the task has not been told
        assert!(task.cancel());
        assert_cancelled(task.await);
        sleep(MS).await
    });
    result.unwrap();
    assert_eq!(reports, [report(FUTURE, "E")]);

    let (result, _, reports) = run_reporting(async {
        let future = Future::<u8>::new();
        let all = gather((future.clone(),)).start();
        future.set_exception(error("E"))?;
        drop(future);
        turns(2).await?;
        match select(std::future::ready(()), all).await {
            Either::Left(((), left)) => drop(left),
            Either::Right(_) => panic!("the first is asked first"),
        }
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports, [report(FUTURE, "E")]);
}

/// A look at the gathering is a look at the error, and `cancel` on one that is done is a look.
#[test]
fn a_look_at_a_failed_gathering_is_enough() {
    run(async {
        let all = gather((fails::<()>(1, "E"), after(2, ()))).start();
        sleep(MS * 5).await?;
        assert!(!all.cancel());
        drop(all);
        Ok(())
    });
}

/// An error that is no child's is reported as well.
#[test]
fn a_gathering_that_could_not_begin_is_reported() {
    let other = crate::support::new_loop();
    let foreign = other.create_future::<u8>();
    let (result, _, reports) = run_reporting(async {
        let all = gather((foreign.clone(),)).start();
        assert!(all.done());
        drop(all);
        assert_eq!(failure(gather((foreign.clone(),)).await).0, ErrorKind::Value);
        Ok(())
    });
    result.unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].0, "Gathering exception was never retrieved");
    assert!(!foreign.done());
    // Without a loop there is no handler: a record is written.
    let ((), records) = crate::support::logs(|| drop(gather(()).start()));
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(records[0].1.contains("no current event loop"), "{records:?}");
}

/// What the brief calls "others are not cancelled": not at the failure, and not when the gathering goes after it.
#[test]
fn after_a_failure_nothing_is_cancelled() {
    run(async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let work = |name: &'static str, millis| {
            let log = log.clone();
            async move {
                let outcome = after(millis, name).await;
                log.borrow_mut().push((name, outcome.is_ok()));
                outcome
            }
        };
        let mut all = gather((work("a", 5), fails::<()>(1, "E"), create_task(work("b", 6)))).start();
        assert_error((&mut all).await, "E");
        assert!(!all.cancel() && !all.cancel_with("x"));
        drop(all);
        sleep(MS * 10).await?;
        assert_eq!(*log.borrow(), [("a", true), ("b", true)]);
        Ok(())
    });
}

/// Errors of children's clean-up after a cancellation are errors, as in CPython: they win over it.
#[test]
fn an_error_of_the_clean_up_wins_over_the_cancellation() {
    run(async {
        let task = create_task(async {
            let clean_up = async {
                assert_cancelled(sleep(FOREVER).await);
                sleep(MS).await?;
                Err::<(), _>(error("clean-up"))
            };
            let stubborn = async {
                assert_cancelled(sleep(FOREVER).await);
                after(9, ()).await
            };
            gather((clean_up, stubborn)).await
        });
        turns(2).await?;
        task.cancel();
        assert_error(task.await, "clean-up");
        sleep(Duration::from_millis(20)).await
    });
}
