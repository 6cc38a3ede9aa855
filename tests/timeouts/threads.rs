//! Timeouts and shielded sections in coroutines that come from other threads, and handles elsewhere.

use std::time::{Duration, Instant};

use asyncio::{ErrorKind, Timeout, run_coroutine_threadsafe, shielded, sleep, timeout, wait_for};

use crate::{
    HOUR, MS, SECOND, kind, own,
    support::{deadline, new_loop},
};

/// Runs a loop in a thread of its own, for `work`.
fn beside(work: impl FnOnce(asyncio::ThreadsafeLoop)) {
    let _deadline = deadline();
    let (sends, receives) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let event_loop = new_loop();
        sends.send(event_loop.threadsafe()).unwrap();
        event_loop.run_forever().unwrap();
        crate::assert_clean(&event_loop);
        event_loop.close().unwrap();
    });
    let event_loop = receives.recv().unwrap();
    work(event_loop.clone());
    event_loop.stop();
    thread.join().unwrap();
}

#[test]
fn a_coroutine_that_may_cross_threads_has_limits() {
    beside(|event_loop| {
        let future = run_coroutine_threadsafe(timeout(5 * MS, sleep(HOUR)), &event_loop);
        assert_eq!(kind(&future.result(30 * SECOND)), Some(ErrorKind::Timeout));
        let future = run_coroutine_threadsafe(
            async {
                let outcome = wait_for(async { sleep(HOUR).await }, 5 * MS).await;
                assert_eq!(kind(&outcome), Some(ErrorKind::Timeout));
                shielded(timeout(HOUR, sleep(MS))).await?;
                timeout(Duration::ZERO, std::future::pending::<asyncio::Result<()>>()).await
            },
            &event_loop,
        );
        assert_eq!(kind(&future.result(30 * SECOND)), Some(ErrorKind::Timeout));
        let limit = Timeout::new(None);
        let known = limit.clone();
        let future = run_coroutine_threadsafe(
            async move {
                known
                    .scope(async |limit| {
                        limit.reschedule(Instant::now() + 5 * MS)?;
                        sleep(HOUR).await
                    })
                    .await
            },
            &event_loop,
        );
        assert_eq!(kind(&future.result(30 * SECOND)), Some(ErrorKind::Timeout));
        assert!(limit.expired() && limit.when().is_some());
    });
}

#[test]
fn cancelled_from_the_other_thread() {
    beside(|event_loop| {
        let (sends, receives) = std::sync::mpsc::channel();
        let future = run_coroutine_threadsafe(
            timeout(HOUR, async move {
                let slept = sleep(HOUR).await;
                sends.send((slept.is_err(), own().cancelling())).unwrap();
                slept
            }),
            &event_loop,
        );
        std::thread::sleep(MS);
        assert!(future.cancel());
        // Unless it was cancelled before its first step, and then it never runs.
        if let Ok(seen) = receives.recv_timeout(10 * SECOND) {
            assert_eq!(seen, (true, 1));
        }
        assert_eq!(kind(&future.result(30 * SECOND)), Some(ErrorKind::Cancelled));
    });
}

/// A task that waits under a limit on one loop, awaited by another loop's thread.
#[test]
fn the_outcome_reaches_another_loop() {
    beside(|event_loop| {
        let future = run_coroutine_threadsafe(timeout(5 * MS, sleep(HOUR)), &event_loop);
        let other = new_loop();
        let outcome = other.run_until_complete(async { timeout(30 * SECOND, future).await });
        assert_eq!(crate::support::failure(outcome), (ErrorKind::Timeout, "timed out".into()));
        assert_eq!(other.next_deadline(), None);
    });
}
