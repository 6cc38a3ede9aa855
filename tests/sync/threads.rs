//! From several threads, each with a loop of its own.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use asyncio::{Barrier, Condition, Event, Lock, Queue, Result, Semaphore};

use crate::{support::deadline, turns};

const THREADS: usize = 4;
const ROUNDS: usize = 300;

/// Runs `work` in each of the threads, under a loop of its own.
fn threads<W>(work: W)
where
    W: AsyncFn(usize) -> Result<()> + Send + Sync + 'static,
{
    let _deadline = deadline();
    let work = Arc::new(work);
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let work = work.clone();
            thread::spawn(move || asyncio::run(async { work(number).await }))
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic").expect("no error");
    }
}

#[test]
fn a_lock_holds_between_threads() {
    let (lock, inside, count) = (Lock::new(), AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let (counter, shared) = (count.clone(), lock.clone());
    threads(async move |number| {
        for round in 0..ROUNDS {
            if (round + number) % 7 == 0 {
                // One who comes and goes.
                let _ = futures::future::poll_immediate(shared.acquire()).await;
            }
            let _guard = shared.acquire().await?;
            assert!(!inside.swap(true, Ordering::SeqCst));
            counter.fetch_add(1, Ordering::SeqCst);
            turns(round % 2).await?;
            assert!(inside.swap(false, Ordering::SeqCst));
        }
        Ok(())
    });
    assert_eq!(count.load(Ordering::SeqCst), THREADS * ROUNDS);
    assert!(!lock.locked());
}

#[test]
fn a_semaphore_holds_between_threads() {
    let (semaphore, inside) = (Semaphore::new(2), AtomicUsize::new(0));
    let shared = semaphore.clone();
    threads(async move |_| {
        for round in 0..ROUNDS {
            let _permit = shared.acquire().await?;
            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
            turns(round % 2).await?;
            inside.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    });
    assert_eq!(format!("{semaphore:?}"), "<Semaphore unlocked value=2>");
}

#[test]
fn a_queue_loses_nothing_between_threads() {
    let (queue, sum) = (Queue::new(3), Arc::new(AtomicUsize::new(0)));
    let total = sum.clone();
    let shared = queue.clone();
    threads(async move |number| {
        if number % 2 == 0 {
            for item in 1..=ROUNDS {
                shared.put(item).await?;
            }
        } else {
            for _ in 1..=ROUNDS {
                total.fetch_add(shared.get().await?, Ordering::SeqCst);
                shared.task_done()?;
            }
        }
        shared.join().await
    });
    assert_eq!(sum.load(Ordering::SeqCst), THREADS / 2 * ROUNDS * (ROUNDS + 1) / 2);
    assert!(queue.empty());
}

#[test]
fn a_barrier_brings_threads_together() {
    let (barrier, arrived) = (Barrier::new(THREADS).unwrap(), AtomicUsize::new(0));
    threads(async move |_| {
        for round in 1..=ROUNDS {
            arrived.fetch_add(1, Ordering::SeqCst);
            assert!(barrier.wait().await? < THREADS);
            assert!(arrived.load(Ordering::SeqCst) >= round * THREADS);
            barrier.wait().await?;
        }
        Ok(())
    });
}

#[test]
fn a_condition_loses_no_notification_between_threads() {
    let (condition, stock) = (Condition::new(), AtomicUsize::new(0));
    threads(async move |number| {
        for _ in 0..ROUNDS {
            let _guard = condition.acquire().await?;
            if number % 2 == 0 {
                stock.fetch_add(1, Ordering::SeqCst);
                condition.notify(1)?;
            } else {
                condition.wait_for(|| stock.load(Ordering::SeqCst) > 0).await?;
                stock.fetch_sub(1, Ordering::SeqCst);
            }
        }
        Ok(())
    });
}

#[test]
fn an_event_wakes_the_tasks_of_other_threads() {
    let (event, waiting) = (Event::new(), Arc::new(AtomicUsize::new(0)));
    threads(async move |number| {
        if number > 0 {
            waiting.fetch_add(1, Ordering::SeqCst);
            return event.wait().await;
        }
        while waiting.load(Ordering::SeqCst) < THREADS - 1 {
            turns(1).await?;
        }
        event.set();
        Ok(())
    });
}

/// What waits can be dropped on another thread, and passes on there what it was given.
#[test]
fn a_wait_can_be_dropped_on_another_thread() {
    let lock: &Lock = Box::leak(Box::default());
    let queue: &Queue<u8> = Box::leak(Box::new(Queue::new(0)));
    let guard = lock.try_acquire().unwrap();
    let (mut acquire, mut get) = (Box::pin(lock.acquire()), Box::pin(queue.get()));
    asyncio::run(async {
        assert!(futures::future::poll_immediate(acquire.as_mut()).await.is_none());
        assert!(futures::future::poll_immediate(get.as_mut()).await.is_none());
        let (next, item) = (lock.acquire(), queue.get());
        drop(guard);
        queue.put_nowait(1)?;
        let (next, item) = futures::join!(next, async {
            thread::spawn(move || drop((acquire, get))).join().expect("no panic");
            item.await
        });
        drop(next?);
        assert_eq!(item?, 1);
        Ok(())
    })
    .unwrap();
}
