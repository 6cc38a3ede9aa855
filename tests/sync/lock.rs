use std::{cell::Cell, pin::pin, rc::Rc, task::Poll};

use asyncio::{Error, ErrorKind, Lock, Result, create_task, sleep};

use crate::{
    MS, SECOND, poll_now, poll_pinned,
    support::{Record, failure, run, virtual_loop},
    turns,
};

/// A task that acquires the lock, records its number and keeps the lock.
fn taker(lock: &Lock, record: &Record<u8>, number: u8) -> asyncio::Task<()> {
    let (lock, record) = (lock.clone(), record.clone());
    create_task(async move {
        lock.acquire().await?.forget();
        record.push(number);
        Ok(())
    })
}

/// LOCK-001
#[test]
fn those_who_wait_get_the_lock_in_the_order_in_which_they_came() {
    run(async {
        let (lock, record) = (Lock::new(), Record::default());
        lock.acquire().await?.forget();
        let tasks = [taker(&lock, &record, 1), taker(&lock, &record, 2)];
        turns(1).await?;
        assert_eq!(record.items(), []);
        lock.release()?;
        assert!(!lock.locked(), "until the first one runs");
        turns(1).await?;
        assert!(lock.locked());
        assert_eq!(record.items(), [1]);
        turns(1).await?;
        assert_eq!(record.items(), [1]);
        let last = taker(&lock, &record, 3);
        lock.release()?;
        turns(1).await?;
        assert_eq!(record.items(), [1, 2]);
        turns(1).await?;
        assert_eq!(record.items(), [1, 2]);
        lock.release()?;
        turns(1).await?;
        assert_eq!(record.items(), [1, 2, 3]);
        for task in tasks {
            task.await?;
        }
        last.await
    });
}

#[test]
fn a_newcomer_queues_behind_one_who_was_woken() {
    run(async {
        let (lock, record) = (Lock::new(), Record::default());
        let guard = lock.acquire().await?;
        let first = taker(&lock, &record, 1);
        turns(1).await?;
        drop(guard);
        assert!(!lock.locked());
        assert!(lock.try_acquire().is_none(), "it is another one's turn");
        let mut newcomer = pin!(lock.acquire());
        assert!(poll_pinned(newcomer.as_mut()).is_pending());
        first.await?;
        assert!(lock.locked());
        lock.release()?;
        drop(newcomer.await?);
        assert_eq!(record.take(), [1]);
        assert!(!lock.locked());
        Ok(())
    });
}

/// LOCK-003
#[test]
fn a_release_and_the_cancellation_of_the_first_who_waits_leave_the_lock_to_the_second() {
    // In either order, and whoever of the two is cancelled.
    for (cancelled, first) in [(0, true), (0, false), (1, true), (1, false)] {
        run(async move {
            let (lock, record) = (Lock::new(), Record::default());
            let guard = lock.acquire().await?;
            let mut tasks = [taker(&lock, &record, 0), taker(&lock, &record, 1)].map(Some);
            turns(1).await?;
            let victim = tasks[cancelled].take().unwrap();
            if first {
                assert!(victim.cancel());
                drop(guard);
            } else {
                drop(guard);
                assert!(victim.cancel());
            }
            assert_eq!(failure(victim.await).0, ErrorKind::Cancelled);
            tasks.into_iter().flatten().next().unwrap().await?;
            assert_eq!(record.take(), [1 - cancelled as u8]);
            assert!(lock.locked());
            lock.release()?;
            assert!(lock.try_acquire().is_some());
            Ok(())
        });
    }
}

#[test]
fn cancelling_all_who_wait_leaves_the_lock_free() {
    run(async {
        let (lock, record) = (Lock::new(), Record::default());
        let guard = lock.acquire().await?;
        let tasks = [1, 2, 3].map(|number| taker(&lock, &record, number));
        turns(1).await?;
        tasks.iter().for_each(|task| assert!(task.cancel()));
        drop(guard);
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(lock.try_acquire().is_some());
        assert_eq!(record.take(), []);
        Ok(())
    });
}

#[test]
fn who_was_woken_and_is_dropped_wakes_the_next() {
    run(async {
        let lock = Lock::new();
        let guard = lock.acquire().await?;
        let mut first = Box::pin(lock.acquire());
        let (mut second, mut third) = (pin!(lock.acquire()), pin!(lock.acquire()));
        assert!(poll_pinned(first.as_mut()).is_pending());
        assert!(poll_pinned(second.as_mut()).is_pending());
        assert!(poll_pinned(third.as_mut()).is_pending());
        drop(guard);
        assert!(poll_pinned(second.as_mut()).is_pending(), "it is the first one's turn");
        drop(first);
        assert!(poll_pinned(third.as_mut()).is_pending(), "it is the second one's turn");
        let Poll::Ready(Ok(guard)) = poll_pinned(second.as_mut()) else { panic!("it was woken") };
        drop(guard);
        third.await?.forget();
        lock.release()
    });
}

#[test]
fn who_waits_and_is_dropped_is_not_woken() {
    let lock = Lock::new();
    let guard = lock.try_acquire().unwrap();
    assert!(poll_now(lock.acquire()).is_pending());
    let mut second = pin!(lock.acquire());
    assert!(poll_pinned(second.as_mut()).is_pending());
    drop(guard);
    assert!(poll_pinned(second.as_mut()).is_ready());
}

#[test]
fn after_a_cancellation_an_acquire_can_be_awaited_again() {
    run(async {
        let lock = Lock::new();
        let guard = lock.acquire().await?;
        let waits = lock.clone();
        let task = create_task(async move {
            let mut acquire = waits.acquire();
            assert!((&mut acquire).await.unwrap_err().is_cancelled());
            acquire.await?.forget();
            Ok(())
        });
        turns(1).await?;
        task.cancel();
        turns(1).await?;
        drop(guard);
        assert!(task.await.is_ok());
        lock.release()
    });
}

/// LOCK-005
#[test]
fn a_lock_that_nobody_holds_cannot_be_released() {
    let lock = Lock::new();
    assert_eq!(failure(lock.release()), (ErrorKind::Runtime, "Lock is not acquired.".into()));
    lock.try_acquire().unwrap().forget();
    lock.release().unwrap();
    assert_eq!(failure(lock.release()), (ErrorKind::Runtime, "Lock is not acquired.".into()));
    drop(lock.try_acquire().unwrap());
    assert_eq!(failure(lock.release()), (ErrorKind::Runtime, "Lock is not acquired.".into()));
}

#[test]
fn a_lock_whose_next_holder_was_woken_cannot_be_released_once_more() {
    run(async {
        let (lock, record) = (Lock::new(), Record::default());
        let guard = lock.acquire().await?;
        let task = taker(&lock, &record, 1);
        turns(1).await?;
        drop(guard);
        assert_eq!(failure(lock.release()).0, ErrorKind::Runtime);
        task.await?;
        lock.release()
    });
}

/// LOCK-006
#[test]
fn a_guard_releases_on_success_failure_and_cancellation() {
    use asyncio::{BoundedSemaphore, Condition, Semaphore};

    /// Holds something over a sleep which fails, which does not, and which is cancelled.
    fn check<G>(acquire: impl AsyncFn() -> Result<G> + 'static, is_locked: impl Fn() -> bool + 'static) {
        let (event_loop, _) = virtual_loop();
        let shared = Rc::new((acquire, is_locked));
        for way in 0..3 {
            let inside = Rc::new(Cell::new(false));
            let (seen, scope) = (inside.clone(), shared.clone());
            let task = event_loop.create_task(async move {
                let _guard = (scope.0)().await?;
                seen.set((scope.1)());
                sleep(10 * MS).await?;
                if way == 0 { Err(Error::Value("E".into())) } else { Ok(()) }
            });
            if way == 2 {
                event_loop.run_until_complete(turns(2)).unwrap();
                task.cancel();
            }
            let kind = event_loop.run_until_complete(task).err().map(|error| error.kind());
            assert_eq!(kind, [Some(ErrorKind::Value), None, Some(ErrorKind::Cancelled)][way]);
            assert!(inside.get(), "locked inside");
            assert!(!(shared.1)(), "and not after it");
        }
    }

    // The guards borrow, so that what they guard is made to live for ever.
    let lock: &Lock = Box::leak(Box::default());
    check(async || lock.acquire().await, || lock.locked());
    let condition: &Condition = Box::leak(Box::default());
    check(async || condition.acquire().await, || condition.locked());
    let semaphore: &Semaphore = Box::leak(Box::new(Semaphore::new(1)));
    check(async || semaphore.acquire().await, || semaphore.locked());
    let bounded: &BoundedSemaphore = Box::leak(Box::new(BoundedSemaphore::new(1)));
    check(async || bounded.acquire().await, || bounded.locked());
}

#[test]
fn a_guard_releases_its_own_acquisition_alone() {
    let lock = Lock::new();
    let guard = lock.try_acquire().unwrap();
    lock.release().unwrap();
    let other = lock.try_acquire().unwrap();
    drop(guard);
    assert!(lock.locked(), "another one holds it now");
    drop(other);
    assert!(!lock.locked());
}

#[test]
fn a_lock_is_taken_at_the_first_poll_whatever_cancellation_is_pending() {
    run(async {
        let lock = Lock::new();
        let shared = lock.clone();
        let task = create_task(async move {
            asyncio::current_task()?.unwrap().cancel();
            let guard = shared.acquire().await?;
            let cancelled = turns(1).await;
            drop(guard);
            cancelled
        });
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!lock.locked());
        Ok(())
    });
}

#[test]
fn a_timeout_takes_nothing_away_from_the_others() {
    let (event_loop, _) = virtual_loop();
    let lock = Lock::new();
    let outcome = event_loop.run_until_complete(async {
        let guard = lock.acquire().await?;
        {
            let (acquire, timer) = (pin!(lock.acquire()), pin!(sleep(SECOND)));
            let first = futures::future::select(acquire, timer).await;
            assert!(matches!(first, futures::future::Either::Right(_)));
        }
        let waits = lock.clone();
        let second = create_task(async move {
            drop(waits.acquire().await?);
            Ok(())
        });
        turns(1).await?;
        drop(guard);
        second.await
    });
    outcome.unwrap();
    assert!(!lock.locked());
}

#[test]
fn a_lock_works_without_a_loop() {
    futures::executor::block_on(async {
        let lock = Lock::new();
        let guard = lock.acquire().await.unwrap();
        let waits = async {
            drop(lock.acquire().await.unwrap());
        };
        futures::join!(waits, async { drop(guard) });
    });
}

#[test]
fn what_a_lock_says_of_itself() {
    let lock = Lock::new();
    assert_eq!(format!("{lock:?}"), "<Lock unlocked>");
    let guard = lock.try_acquire();
    assert_eq!(format!("{lock:?}"), "<Lock locked>");
    let mut acquire = pin!(lock.acquire());
    assert!(poll_pinned(acquire.as_mut()).is_pending());
    assert_eq!(format!("{lock:?}"), "<Lock locked waiters=1>");
    assert!(format!("{guard:?} {acquire:?}").contains("Lock"));
}
