use std::{cell::Cell, pin::pin, rc::Rc};

use asyncio::{Condition, ErrorKind, Lock, Task, create_task};

use crate::{
    poll_now, poll_pinned,
    support::{Record, failure, run},
    turns,
};

/// A task that acquires, waits once, records its number, and keeps the lock for an iteration.
fn waiter(condition: &Condition, record: &Record<u8>, number: u8) -> Task<()> {
    let (condition, record) = (condition.clone(), record.clone());
    create_task(async move {
        let _guard = condition.acquire().await?;
        condition.wait().await?;
        assert!(condition.locked());
        record.push(number);
        turns(1).await
    })
}

async fn notify(condition: &Condition, count: usize) -> asyncio::Result<()> {
    let _guard = condition.acquire().await?;
    condition.notify(count)
}

/// COND-001
#[test]
fn without_the_lock_nobody_waits_or_notifies() {
    run(async {
        let condition = Condition::new();
        let wait = (ErrorKind::Runtime, "cannot wait on un-acquired lock".into());
        let notify = (ErrorKind::Runtime, "cannot notify on un-acquired lock".into());
        assert_eq!(failure(condition.wait().await), wait);
        assert_eq!(failure(condition.notify(1)), notify);
        assert_eq!(failure(condition.notify_all()), notify);
        let asked = Cell::new(0);
        let never = || {
            asked.set(asked.get() + 1);
            false
        };
        assert_eq!(failure(condition.wait_for(never).await), wait);
        assert_eq!(asked.get(), 1);
        assert!(condition.wait_for(|| true).await?);
        assert!(!condition.locked());
        // Nobody is left in the line.
        let guard = condition.acquire().await?;
        assert_eq!(format!("{condition:?}"), "<Condition locked>");
        drop(guard);
        Ok(())
    });
}

/// COND-002
#[test]
fn nobody_who_was_notified_returns_before_the_lock_is_released() {
    run(async {
        let (condition, record) = (Condition::new(), Record::<u8>::default());
        let holder = Rc::new(Cell::new(0));
        let tasks = [1, 2, 3].map(|number| {
            let (condition, record, holder) = (condition.clone(), record.clone(), holder.clone());
            create_task(async move {
                condition.acquire().await?.forget();
                condition.wait().await?;
                record.push(number);
                holder.set(number);
                Ok(())
            })
        });
        turns(1).await?;
        assert!(!condition.locked());
        let guard = condition.acquire().await?;
        condition.notify(1)?;
        turns(1).await?;
        assert_eq!(record.items(), []);
        turns(3).await?;
        assert_eq!(record.items(), []);
        drop(guard);
        turns(1).await?;
        assert_eq!(record.items(), [1]);
        assert!(condition.locked(), "by the one that returned");
        assert_eq!(holder.get(), 1);
        turns(3).await?;
        assert_eq!(record.items(), [1]);
        condition.notify(2)?;
        turns(1).await?;
        assert_eq!(record.items(), [1]);
        condition.release()?;
        turns(1).await?;
        assert_eq!(record.items(), [1, 2]);
        turns(2).await?;
        assert_eq!(record.items(), [1, 2]);
        condition.release()?;
        turns(1).await?;
        assert_eq!(record.items(), [1, 2, 3]);
        assert!(condition.locked());
        condition.release()?;
        for task in tasks {
            task.await?;
        }
        Ok(())
    });
}

/// COND-003
#[test]
fn notify_tells_as_many_as_it_says_in_the_order_of_waiting() {
    run(async {
        let (condition, record) = (Condition::new(), Record::default());
        let tasks = [1, 2, 3].map(|number| waiter(&condition, &record, number));
        turns(1).await?;
        notify(&condition, 0).await?;
        turns(5).await?;
        assert_eq!(record.items(), []);
        notify(&condition, 1).await?;
        turns(5).await?;
        assert_eq!(record.items(), [1]);
        notify(&condition, 1).await?;
        notify(&condition, 2048).await?;
        for task in tasks {
            task.await?;
        }
        assert_eq!(record.take(), [1, 2, 3]);
        assert!(!condition.locked());
        Ok(())
    });
}

#[test]
fn notify_all_tells_all_who_wait_and_nobody_who_comes_later() {
    run(async {
        let (condition, record) = (Condition::new(), Record::default());
        let tasks = [1, 2, 3].map(|number| waiter(&condition, &record, number));
        turns(1).await?;
        let guard = condition.acquire().await?;
        condition.notify_all()?;
        drop(guard);
        let last = waiter(&condition, &record, 4);
        turns(9).await?;
        assert_eq!(record.items(), [1, 2, 3]);
        notify(&condition, 1).await?;
        last.await?;
        for task in tasks {
            task.await?;
        }
        assert_eq!(record.take(), [1, 2, 3, 4]);
        Ok(())
    });
}

#[test]
fn wait_for_looks_again_after_each_notification() {
    run(async {
        let (condition, level) = (Condition::new(), Rc::new(Cell::new(0)));
        let (changed, seen, asked) = (condition.clone(), level.clone(), Rc::new(Cell::new(0)));
        let count = asked.clone();
        let task = create_task(async move {
            let _guard = changed.acquire().await?;
            changed
                .wait_for(|| {
                    count.set(count.get() + 1);
                    seen.get() == 3
                })
                .await
        });
        for now in 1..=3 {
            turns(1).await?;
            let _guard = condition.acquire().await?;
            level.set(now);
            condition.notify_all()?;
        }
        assert!(task.await?);
        assert_eq!(asked.get(), 4);
        Ok(())
    });
}

#[test]
fn a_cancelled_wait_acquires_the_lock_before_it_fails() {
    run(async {
        let (condition, record) = (Condition::new(), Record::<&str>::default());
        let (shared, seen) = (condition.clone(), record.clone());
        let task = create_task(async move {
            let guard = shared.acquire().await?;
            let outcome = shared.wait().await;
            assert!(outcome.as_ref().is_err_and(|error| error.is_cancelled()));
            assert!(shared.locked());
            seen.push("back");
            drop(guard);
            assert!(!shared.locked(), "the guard from before the wait releases");
            outcome
        });
        turns(1).await?;
        let guard = condition.acquire().await?;
        task.cancel();
        turns(3).await?;
        assert_eq!(record.len(), 0);
        // However often it is cancelled.
        task.cancel_with("the second");
        turns(2).await?;
        task.cancel_with("the third");
        turns(2).await?;
        assert_eq!(record.len(), 0);
        drop(guard);
        let error = task.await.unwrap_err();
        assert_eq!(error.to_string(), "the third", "the last one counts");
        assert_eq!(record.take(), ["back"]);
        assert!(!condition.locked());
        Ok(())
    });
}

/// Neither in the same iteration as the notification nor while the lock is acquired again is it lost.
#[test]
fn who_was_notified_and_is_cancelled_passes_it_on() {
    for delay in 0..4 {
        run(async move {
            let (condition, state) = (Condition::new(), Rc::new(Cell::new(0)));
            let consumers = [0, 1].map(|_| {
                let (condition, state) = (condition.clone(), state.clone());
                create_task(async move {
                    let _guard = condition.acquire().await?;
                    condition.wait_for(|| state.get() != 0).await?;
                    state.set(state.get() - 1);
                    condition.notify_all()
                })
            });
            turns(1).await?;
            let guard = condition.acquire().await?;
            state.set(1);
            condition.notify(1)?;
            turns(delay).await?;
            consumers[0].cancel();
            assert!(condition.wait_for(|| state.get() == 0).await?);
            drop(guard);
            let [first, second] = consumers;
            assert!(first.await.unwrap_err().is_cancelled());
            second.await
        });
    }
}

/// The lock is held by the notifier until the end, so that the wait goes on in the second line.
#[test]
fn who_was_notified_and_is_dropped_passes_it_on() {
    // While it is woken, and while it acquires the lock again.
    for polled in [false, true] {
        let condition = Condition::new();
        condition.try_acquire().unwrap().forget();
        let mut first = Box::pin(condition.wait());
        assert!(poll_pinned(first.as_mut()).is_pending());
        condition.try_acquire().unwrap().forget();
        let mut second = pin!(condition.wait());
        assert!(poll_pinned(second.as_mut()).is_pending());
        let guard = condition.try_acquire().unwrap();
        condition.notify(1).unwrap();
        if polled {
            assert!(poll_pinned(first.as_mut()).is_pending());
        }
        drop(first);
        drop(guard);
        assert!(poll_pinned(second.as_mut()).is_ready());
        assert!(condition.locked());
        condition.release().unwrap();
    }
}

#[test]
fn who_waits_and_is_dropped_is_not_notified() {
    let condition = Condition::new();
    condition.try_acquire().unwrap().forget();
    assert!(poll_now(condition.wait()).is_pending());
    assert!(!condition.locked(), "the lock was released and is not acquired again");
    let guard = condition.try_acquire().unwrap();
    condition.notify(1).unwrap();
    assert_eq!(format!("{condition:?}"), "<Condition locked>");
    drop(guard);
}

#[test]
fn a_wait_that_is_dropped_leaves_its_guard_without_a_lock() {
    let condition = Condition::new();
    let guard = condition.try_acquire().unwrap();
    assert!(poll_now(condition.wait()).is_pending());
    assert!(!condition.locked());
    let other = condition.try_acquire().unwrap();
    drop(guard);
    assert!(condition.locked(), "another one's lock stays");
    drop(other);
    assert!(!condition.locked());
}

#[test]
fn the_guard_from_before_the_wait_releases_after_it() {
    let condition = Condition::new();
    let guard = condition.try_acquire().unwrap();
    let mut wait = pin!(condition.wait());
    assert!(poll_pinned(wait.as_mut()).is_pending());
    let other = condition.try_acquire().unwrap();
    condition.notify(1).unwrap();
    drop(other);
    assert!(poll_pinned(wait.as_mut()).is_ready());
    assert!(condition.locked());
    drop(guard);
    assert!(!condition.locked());
}

#[test]
fn two_conditions_can_share_a_lock() {
    run(async {
        let lock = Lock::new();
        let (full, empty) = (Condition::with_lock(&lock), Condition::with_lock(&lock));
        let record = Record::default();
        let tasks = [waiter(&full, &record, 1), waiter(&empty, &record, 2)];
        turns(1).await?;
        let guard = lock.acquire().await?;
        assert!(full.locked() && empty.locked());
        empty.notify_all()?;
        drop(guard);
        turns(5).await?;
        assert_eq!(record.items(), [2]);
        notify(&full, 1).await?;
        for task in tasks {
            task.await?;
        }
        assert_eq!(record.take(), [2, 1]);
        Ok(())
    });
}

#[test]
fn what_a_condition_says_of_itself() {
    let condition = Condition::new();
    assert_eq!(format!("{condition:?}"), "<Condition unlocked>");
    condition.try_acquire().unwrap().forget();
    let mut wait = pin!(condition.wait());
    assert!(poll_pinned(wait.as_mut()).is_pending());
    assert_eq!(format!("{condition:?}"), "<Condition unlocked waiters=1>");
    assert!(format!("{wait:?}").starts_with("ConditionWait"));
}
