//! How many iterations lie between a wake-up and the one who waits: CPython 3.13's numbers.
use std::{cell::Cell, rc::Rc};

use asyncio::{Barrier, Condition, Event, Lock, Queue, Result, Semaphore};
use futures::StreamExt;

use crate::{
    support::{count_iterations, new_loop, tick},
    turns,
};

/// Lets `waits` wait in a task, and counts the iterations from `wake` to its going on.
fn distance<W, K>(waits: W, wake: K) -> usize
where
    W: AsyncFnOnce() -> Result<()> + 'static,
    K: AsyncFnOnce() -> Result<()>,
{
    let event_loop = new_loop();
    let count = count_iterations(&event_loop);
    let (counter, resumed) = (count.clone(), Rc::new(Cell::new(None)));
    let seen = resumed.clone();
    let task = event_loop.create_task(async move {
        waits().await?;
        seen.set(Some(counter.get()));
        Ok(())
    });
    (0..5).for_each(|_| tick(&event_loop));
    assert_eq!(resumed.get(), None);
    let mut begin = 0;
    event_loop
        .run_until_complete(async {
            begin = count.get();
            wake().await?;
            turns(9).await
        })
        .unwrap();
    assert!(task.done());
    resumed.get().expect("the task has gone on") - begin
}

/// SCHED-017 for what is here: one iteration, as for a bare future.
#[test]
fn whoever_is_woken_goes_on_in_the_next_iteration() {
    let lock = Lock::new();
    lock.try_acquire().unwrap().forget();
    let waits = lock.clone();
    assert_eq!(distance(async move || waits.acquire().await.map(drop), async || lock.release()), 1, "lock");

    let event = Event::new();
    let waits = event.clone();
    let set = async || {
        event.set();
        Ok(())
    };
    assert_eq!(distance(async move || waits.wait().await, set), 1, "event");

    let condition = Condition::new();
    let waits = condition.clone();
    let wait = async move || {
        let _guard = waits.acquire().await?;
        waits.wait().await
    };
    let notify = async || {
        let _guard = condition.acquire().await?;
        condition.notify(1)
    };
    assert_eq!(distance(wait, notify), 1, "condition");

    let semaphore = Semaphore::new(0);
    let waits = semaphore.clone();
    let release = async || {
        semaphore.release();
        Ok(())
    };
    assert_eq!(distance(async move || waits.acquire().await.map(drop), release), 1, "semaphore");

    let barrier = Barrier::new(2).unwrap();
    let waits = barrier.clone();
    assert_eq!(
        distance(async move || waits.wait().await.map(drop), async || barrier.wait().await.map(drop)),
        1,
        "barrier"
    );
    let waits = barrier.clone();
    let wait = async move || {
        assert!(waits.wait().await.is_err());
        Ok(())
    };
    assert_eq!(distance(wait, async || barrier.reset().await), 1, "barrier that is reset");
}

#[test]
fn whoever_waits_for_a_queue_goes_on_in_the_next_iteration() {
    let queue = Queue::new(1);
    let waits = queue.clone();
    assert_eq!(distance(async move || waits.get().await.map(drop), async || queue.put_nowait(1)), 1, "get");

    let queue = Queue::new(1);
    let mut waits = queue.clone();
    let next = async move || {
        waits.next().await;
        Ok(())
    };
    assert_eq!(distance(next, async || queue.put(1).await), 1, "stream");

    let queue = Queue::new(1);
    queue.put_nowait(0).unwrap();
    let waits = queue.clone();
    assert_eq!(distance(async move || waits.put(1).await, async || queue.get_nowait().map(drop)), 1, "put");

    let queue = Queue::new(0);
    queue.put_nowait(0).unwrap();
    let waits = queue.clone();
    assert_eq!(distance(async move || waits.join().await, async || queue.task_done()), 1, "join");
}

/// The notifier keeps the lock for two iterations more.
#[test]
fn who_was_notified_goes_on_one_iteration_after_the_release() {
    let condition = Condition::new();
    let waits = condition.clone();
    let wait = async move || {
        let _guard = waits.acquire().await?;
        waits.wait().await
    };
    let notify = async || {
        let _guard = condition.acquire().await?;
        condition.notify(1)?;
        turns(2).await
    };
    assert_eq!(distance(wait, notify), 3);
}

#[test]
fn what_is_free_costs_no_iteration() {
    let event_loop = new_loop();
    let count = count_iterations(&event_loop);
    event_loop
        .run_until_complete(async {
            turns(1).await?;
            let begin = count.get();
            let (lock, semaphore, condition) = (Lock::new(), Semaphore::new(1), Condition::new());
            drop(lock.acquire().await?);
            drop(semaphore.acquire().await?);
            drop(condition.acquire().await?);
            let event = Event::new();
            event.set();
            event.wait().await?;
            Barrier::new(1)?.wait().await?;
            let queue = Queue::new(1);
            queue.put(1).await?;
            queue.get().await?;
            queue.task_done()?;
            queue.join().await?;
            assert_eq!(count.get(), begin);
            Ok(())
        })
        .unwrap();
}
