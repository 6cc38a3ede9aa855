//! `Timeout`, the handle.

use std::{cell::Cell, rc::Rc, time::Duration};

use asyncio::{ErrorKind, Timeout, create_task, get_running_loop, sleep};

use crate::{
    HOUR, MS, SECOND, kind, now, own, poll_pinned, run,
    support::{self, drop_guard, failure, virtual_loop},
    turns,
};

const TIMEOUT: Option<ErrorKind> = Some(ErrorKind::Timeout);

#[test]
fn a_body_borrows_from_where_it_stands() {
    run(async {
        let (mut count, text) = (0, String::from("borrowed"));
        let limit = Timeout::new(SECOND);
        let length = limit
            .scope(async |_| {
                for _ in 0..3 {
                    sleep(MS).await?;
                    count += 1;
                }
                Ok(text.len())
            })
            .await?;
        assert_eq!((length, count, text.as_str()), (8, 3, "borrowed"));
        Ok(())
    });
}

#[test]
fn earlier_later_and_never() {
    run(async {
        let (begin, limit) = (now(), Timeout::new(10 * MS));
        let outcome = limit
            .scope(async |limit| {
                limit.reschedule(begin + SECOND)?;
                assert_eq!(limit.when(), Some(begin + SECOND));
                sleep(20 * MS).await?;
                limit.reschedule(None)?;
                assert_eq!(limit.when(), None);
                assert_eq!(get_running_loop()?.next_deadline(), None);
                sleep(10 * SECOND).await?;
                limit.reschedule(now() + 10 * MS)?;
                limit.reschedule(now() + 5 * MS)?;
                limit.reschedule(now() + 7 * MS)?;
                sleep(HOUR).await
            })
            .await;
        assert_eq!(kind(&outcome), TIMEOUT);
        assert_eq!(now() - begin, 10 * SECOND + 27 * MS);
        assert_eq!((limit.when(), limit.expired()), (Some(now()), true));
        Ok(())
    });
}

#[test]
fn a_limit_that_is_moved_into_the_past_and_back() {
    run(async {
        let (begin, limit) = (now(), Timeout::new(None));
        limit
            .scope(async |limit| {
                limit.reschedule(begin - SECOND)?;
                assert!(!limit.expired(), "not at once");
                // What has not been told is taken back, as a timer that has not run.
                limit.reschedule(begin + SECOND)?;
                turns(3).await?;
                assert!(!limit.expired());
                sleep(10 * MS).await?;
                limit.reschedule(begin)?;
                limit.reschedule(None)?;
                sleep(2 * SECOND).await
            })
            .await?;
        assert!(!limit.expired());
        Ok(())
    });
}

#[test]
fn moved_from_a_callback_another_clone_and_another_task() {
    run(async {
        let (begin, limit) = (now(), Timeout::new(10 * MS));
        let (in_callback, in_task) = (limit.clone(), limit.clone());
        get_running_loop()?.call_later(5 * MS, move || in_callback.reschedule(begin + 20 * MS).unwrap());
        let other = create_task(async move {
            sleep(15 * MS).await?;
            in_task.reschedule(now() + 15 * MS)
        });
        assert_eq!(kind(&limit.scope(async |_| sleep(HOUR).await).await), TIMEOUT);
        assert_eq!(now() - begin, 30 * MS);
        other.await?;
        // A callback that shortens it, and one that ends it at once.
        for (to, takes) in [(7, 7), (0, 5)] {
            let (begin, limit) = (now(), Timeout::new(SECOND));
            let in_callback = limit.clone();
            get_running_loop()?.call_later(5 * MS, move || in_callback.reschedule(begin + to * MS).unwrap());
            assert_eq!(kind(&limit.scope(async |_| sleep(HOUR).await).await), TIMEOUT);
            assert_eq!(now() - begin, takes * MS);
        }
        Ok(())
    });
}

/// A callback that moves the limit in the iteration in which it would have passed, before and after.
#[test]
fn moved_in_the_last_moment() {
    run(async {
        let event_loop = get_running_loop()?;
        for moved_first in [true, false] {
            let (deadline, limit) = (now() + 10 * MS, Timeout::new(10 * MS));
            let mover = limit.clone();
            let moved = move || mover.reschedule(deadline + 10 * MS).is_ok();
            let (mut handle, mut moved) = (None, Some(moved));
            if moved_first {
                handle = moved.take().map(|moved| event_loop.call_at(deadline, moved));
            }
            let mut waits = Box::pin(limit.scope(async |_| sleep(HOUR).await));
            assert!(futures::poll!(waits.as_mut()).is_pending());
            let handle = handle.or_else(|| moved.take().map(|moved| event_loop.call_at(deadline, moved))).unwrap();
            let outcome = waits.await;
            assert_eq!(kind(&outcome), TIMEOUT);
            assert_eq!(handle.await?, moved_first);
            assert_eq!(now() - deadline, if moved_first { 10 * MS } else { Duration::ZERO });
        }
        Ok(())
    });
}

#[test]
fn what_it_says_in_each_state() {
    run(async {
        let limit = Timeout::new(None);
        assert_eq!((limit.when(), limit.expired()), (None, false));
        assert_eq!(format!("{limit:?}"), "<Timeout [created]>");
        let begin = now();
        let limit = Timeout::new(10 * MS);
        sleep(MS).await?;
        assert_eq!((limit.when(), limit.expired()), (Some(begin + 10 * MS), false), "counted from when it was made");
        let outcome = limit
            .scope(async |limit| {
                assert_eq!((limit.when(), limit.expired()), (Some(begin + 10 * MS), false));
                assert_eq!(format!("{limit:?}"), format!("<Timeout [active] when={:?}>", limit.when()));
                let slept = sleep(HOUR).await;
                assert_eq!((limit.when(), limit.expired()), (Some(begin + 10 * MS), true));
                assert_eq!(format!("{limit:?}"), "<Timeout [expiring]>");
                slept
            })
            .await;
        assert_eq!(kind(&outcome), TIMEOUT);
        assert_eq!((limit.when(), limit.expired()), (Some(begin + 10 * MS), true));
        assert_eq!(format!("{limit:?}"), "<Timeout [expired]>");
        let limit = Timeout::at(now() + SECOND);
        let deadline = limit.when();
        limit.scope(async |_| Ok(())).await?;
        assert_eq!((limit.when(), limit.expired()), (deadline, false));
        assert_eq!(format!("{limit:?}"), "<Timeout [finished]>");
        assert!(format!("{:?}", asyncio::timeout(SECOND, sleep(SECOND))).contains("1s"));
        assert!(!format!("{:?}", asyncio::shielded(sleep(SECOND))).is_empty());
        Ok(())
    });
}

/// A limit made outside of the loop counts from the beginning of its block.
#[test]
fn one_that_is_made_before_the_loop_runs() {
    let _deadline = support::deadline();
    let (event_loop, clock) = virtual_loop();
    let limit = Timeout::new(10 * MS);
    assert_eq!((limit.when(), limit.expired()), (None, false));
    clock.advance(SECOND);
    event_loop
        .run_until_complete(async {
            let begin = now();
            assert_eq!(kind(&limit.scope(async |_| sleep(HOUR).await).await), TIMEOUT);
            assert_eq!(now() - begin, 10 * MS);
            assert_eq!(limit.when(), Some(now()));
            Ok(())
        })
        .unwrap();
    crate::assert_clean(&event_loop);
}

/// The first one to come enters; the block's end is the handle's end, also where the block's future is dropped.
#[test]
fn a_block_that_is_dropped_midway() {
    run(async {
        for late in [false, true] {
            let limit = Timeout::new(if late { MS } else { HOUR });
            let (guard, dropped) = drop_guard();
            let mut block = Box::pin(limit.scope(async |_| {
                let _guard = guard;
                loop {
                    let _ = sleep(HOUR).await;
                }
                #[expect(unreachable_code, reason = "says the type")]
                asyncio::ok(())
            }));
            assert!(futures::poll!(block.as_mut()).is_pending());
            sleep(2 * MS).await?;
            assert_eq!((limit.expired(), own().cancelling()), (late, u32::from(late)));
            drop(block);
            assert!(dropped.get());
            assert_eq!((limit.expired(), own().cancelling()), (late, 0));
            let state = if late { "expired" } else { "finished" };
            assert_eq!(format!("{limit:?}"), format!("<Timeout [{state}]>"));
            assert!(failure(limit.reschedule(None)).1.contains(state));
            assert_eq!(get_running_loop()?.next_deadline(), None);
            turns(2).await?;
        }
        Ok(())
    });
}

/// A block that was never polled has not been entered.
#[test]
fn a_block_that_was_never_polled() {
    run(async {
        let limit = Timeout::new(SECOND);
        drop(limit.scope(async |_| Ok(())));
        assert_eq!(format!("{limit:?}"), "<Timeout [created]>");
        limit.scope(async |_| Ok(())).await
    });
}

/// Clones are one limit: two tasks cannot enter it both.
#[test]
fn two_tasks_and_one_limit() {
    run(async {
        let limit = Timeout::new(SECOND);
        let tasks = [limit.clone(), limit.clone()]
            .map(|limit| create_task(async move { limit.scope(async |_| sleep(MS).await).await }));
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(kind(&task.await));
        }
        assert_eq!(outcomes, [None, Some(ErrorKind::Runtime)]);
        Ok(())
    });
}

/// `scope` of something that holds a lock of its own: the handle is free while the body is polled and dropped.
#[test]
fn the_handle_is_free_in_the_body() {
    struct Looks(Timeout, Rc<Cell<bool>>);
    impl Drop for Looks {
        fn drop(&mut self) {
            self.1.set(self.0.expired());
            let _ = self.0.when();
            let _ = self.0.reschedule(None);
        }
    }
    run(async {
        let (limit, seen) = (Timeout::new(MS), Rc::new(Cell::new(false)));
        let looks = Looks(limit.clone(), seen.clone());
        let outcome = limit
            .scope(async |_| {
                let _looks = looks;
                std::future::pending::<asyncio::Result<()>>().await
            })
            .await;
        assert_eq!(kind(&outcome), TIMEOUT);
        assert!(seen.get());
        Ok(())
    });
}

/// Off the loop's thread the limit cannot be moved, and says so; what it knows by itself it says.
#[test]
fn another_thread_cannot_move_it() {
    run(async {
        let limit = Timeout::new(SECOND);
        limit
            .scope(async |limit| {
                let elsewhere = limit.clone();
                let refused = std::thread::spawn(move || {
                    let _ = (elsewhere.expired(), elsewhere.when(), format!("{elsewhere:?}"));
                    failure(elsewhere.reschedule(None)).0
                });
                assert_eq!(refused.join().unwrap(), ErrorKind::Runtime);
                Ok(())
            })
            .await
    });
}

/// After the loop is gone.
#[test]
fn a_handle_that_outlives_its_loop() {
    let (event_loop, _clock) = virtual_loop();
    let limit = Timeout::new(SECOND);
    let known = limit.clone();
    let task = event_loop.create_task(async move { known.scope(async |_| sleep(HOUR).await).await });
    support::tick(&event_loop);
    assert!(limit.when().is_some());
    event_loop.close().unwrap();
    assert!(task.done() && !limit.expired());
    assert!(limit.reschedule(None).is_err());
    drop(event_loop);
    assert_eq!((limit.expired(), limit.reschedule(None).is_err()), (false, true));
    let _ = (limit.when(), format!("{limit:?}"));
    // Entered without any loop.
    let limit = Timeout::new(SECOND);
    let entered = poll_pinned(std::pin::pin!(limit.scope(async |_| Ok(()))));
    assert!(matches!(entered, std::task::Poll::Ready(Err(error)) if error.to_string() == "no running event loop"));
}
