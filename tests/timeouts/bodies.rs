//! What a body can do with the cancellation of its limit.

use std::{cell::Cell, rc::Rc};

use asyncio::{Error, ErrorKind, Timeout, create_task, get_running_loop, sleep, timeout};
use futures::FutureExt;

use crate::{
    HOUR, MS, SECOND, kind, now, own, run,
    support::{self, Gate, drop_guard, failure, handler, virtual_loop},
};

#[test]
fn a_body_that_swallows_it_goes_on() {
    run(async {
        let begin = now();
        let limit = Timeout::new(10 * MS);
        let outcome = limit
            .scope(async |_| {
                assert!(sleep(HOUR).await.is_err());
                assert_eq!(own().cancelling(), 1);
                sleep(10 * MS).await?;
                assert_eq!(own().cancelling(), 1, "until the block ends");
                Ok(5)
            })
            .await;
        assert_eq!((outcome?, limit.expired(), own().cancelling()), (5, true, 0));
        assert_eq!(now() - begin, 20 * MS);
        Ok(())
    });
}

#[test]
fn a_body_cleans_up_with_awaits() {
    run(async {
        let begin = now();
        let outcome = timeout(10 * MS, async {
            let slept = sleep(HOUR).await;
            for _ in 0..5 {
                sleep(10 * MS).await?;
            }
            let told = create_task(async { sleep(MS).await.map(|()| "told") });
            assert_eq!(told.await?, "told");
            slept
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
        assert_eq!(now() - begin, 61 * MS);
        Ok(())
    });
}

#[test]
fn a_body_that_fails_in_its_clean_up_gives_that() {
    run(async {
        let outcome = timeout(10 * MS, async {
            let _ = sleep(HOUR).await;
            sleep(MS).await?;
            Err::<(), _>(Error::Lookup("clean-up".into()))
        });
        assert_eq!(failure(outcome.await), (ErrorKind::Lookup, "clean-up".into()));
        // An own Timeout stays what it is.
        let outcome = timeout(10 * MS, async {
            let _ = sleep(HOUR).await;
            Err::<(), _>(Error::Timeout("mine".into()))
        });
        assert_eq!(failure(outcome.await), (ErrorKind::Timeout, "mine".into()));
        assert_eq!(own().cancelling(), 0);
        Ok(())
    });
}

#[test]
fn a_body_that_panics_takes_the_limit_with_it() {
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    for late in [false, true] {
        let task = event_loop.create_task(timeout(SECOND, async move {
            let _ = sleep(if late { HOUR } else { MS }).await;
            panic!("oh");
            #[expect(unreachable_code, reason = "says the type")]
            asyncio::ok(())
        }));
        let outcome = event_loop.run_until_complete(task);
        assert_eq!(failure(outcome).0, ErrorKind::Panicked);
        crate::assert_clean(&event_loop);
    }
    // Where it is caught in the task, the task goes on, and its count is right.
    let caught = event_loop.run_until_complete(async {
        let limit = Timeout::new(MS);
        let known = limit.clone();
        let block = std::panic::AssertUnwindSafe(async move {
            known
                .scope(async |_| {
                    let _ = sleep(HOUR).await;
                    assert_eq!(own().cancelling(), 1);
                    panic!("oh");
                    #[expect(unreachable_code, reason = "says the type")]
                    asyncio::ok(())
                })
                .await
        });
        assert!(block.catch_unwind().await.is_err());
        assert_eq!((own().cancelling(), limit.expired()), (0, true));
        sleep(MS).await?;
        timeout(SECOND, sleep(MS)).await
    });
    caught.unwrap();
    crate::assert_clean(&event_loop);
}

/// A panic in the drop of a body that is given up is reported, as in any task, and the loop goes on.
#[test]
fn a_body_that_panics_when_it_is_given_up() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    let _deadline = support::deadline();
    let (event_loop, _clock) = virtual_loop();
    let _reports = handler(&event_loop);
    let task = event_loop.create_task(timeout(MS, async {
        let _bomb = Bomb;
        std::future::pending::<asyncio::Result<()>>().await
    }));
    let outcome = event_loop.run_until_complete(task);
    assert_eq!(failure(outcome), (ErrorKind::Panicked, "boom".into()));
    crate::assert_clean(&event_loop);
}

/// Nobody can take it: the body is dropped, not the task.
#[test]
fn a_body_of_foreign_futures_is_dropped() {
    run(async {
        let (guard, dropped) = drop_guard();
        let (own_guard, own_dropped) = drop_guard();
        let (begin, gate, sees) = (now(), Gate::default(), dropped.clone());
        let task = create_task(async move {
            let _own = own_guard;
            let limit = Timeout::new(10 * MS);
            let outcome = limit
                .scope(async |_| {
                    let _guard = guard;
                    gate.await;
                    Ok(())
                })
                .await;
            assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
            assert!(sees.get(), "before the outcome is given");
            assert_eq!((limit.expired(), own().cancelling()), (true, 0));
            sleep(10 * MS).await?;
            asyncio::ok("lives")
        });
        sleep(15 * MS).await?;
        assert!(dropped.get() && !own_dropped.get());
        assert_eq!(task.await?, "lives");
        assert!(own_dropped.get());
        assert_eq!(now() - begin, 20 * MS);
        Ok(())
    });
}

/// The same with nobody else's await in the task, and a limit of no time.
#[test]
fn a_task_of_foreign_futures_lives_on_after_each_limit() {
    run(async {
        let seen = Rc::new(Cell::new(0));
        let sees = seen.clone();
        let task = create_task(async move {
            for delay in [0, 1, 2] {
                let outcome = timeout(delay * MS, std::future::pending::<asyncio::Result<()>>()).await;
                assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
                sees.set(sees.get() + 1);
            }
            asyncio::ok(())
        });
        task.await?;
        assert_eq!(seen.get(), 3);
        Ok(())
    });
}

/// The limit passes, and in the same instant the foreign future is ready: it is polled once more.
#[test]
fn a_foreign_future_that_is_ready_in_time_wins() {
    run(async {
        let gate = Gate::default();
        let (opens, deadline) = (gate.clone(), now() + 10 * MS);
        get_running_loop()?.call_at(deadline, move || opens.open());
        let outcome = asyncio::timeout_at(deadline, async {
            gate.await;
            Ok("ready")
        });
        assert_eq!(outcome.await?, "ready");
        assert_eq!(own().cancelling(), 0);
        Ok(())
    });
}

/// A foreign await after the cancellation was taken is no reason to drop the body: it may clean up with those, too.
#[test]
fn a_clean_up_may_await_foreign_futures() {
    run(async {
        let gate = Gate::default();
        let (opens, begin) = (gate.clone(), now());
        get_running_loop()?.call_later(50 * MS, move || opens.open());
        let outcome = timeout(10 * MS, async {
            let slept = sleep(HOUR).await;
            gate.await;
            slept
        });
        assert_eq!(kind(&outcome.await), Some(ErrorKind::Timeout));
        assert_eq!(now() - begin, 50 * MS);
        Ok(())
    });
}

/// The cancellation of the task where only foreign futures are pending inside of a limit drops the task.
#[test]
fn a_cancelled_task_with_a_foreign_body_is_dropped() {
    run(async {
        let (guard, dropped) = drop_guard();
        let task = create_task(async move {
            let outcome = timeout(HOUR, async move {
                let _guard = guard;
                std::future::pending::<asyncio::Result<()>>().await
            });
            let _ = outcome.await;
            panic!("nobody sees it");
            #[expect(unreachable_code, reason = "says the type")]
            asyncio::ok(())
        });
        crate::turns(2).await?;
        task.cancel();
        assert_eq!(kind(&task.await), Some(ErrorKind::Cancelled));
        assert!(dropped.get());
        assert_eq!(get_running_loop()?.next_deadline(), None);
        Ok(())
    });
}
