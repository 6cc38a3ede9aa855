//! Under `join!`, `select!`, `FuturesUnordered`: several waits of one task.
use std::pin::pin;

use asyncio::{Event, Lock, Queue, Semaphore, create_task, sleep};
use futures::{
    FutureExt, StreamExt,
    future::{self, Either},
    stream::FuturesUnordered,
};

use crate::{
    MS,
    support::{Record, run, virtual_loop},
    turns,
};

#[test]
fn waits_of_one_task_are_served_in_the_order_in_which_they_came() {
    run(async {
        let (lock, record) = (Lock::new(), Record::default());
        let section = async |number| {
            let _guard = lock.acquire().await?;
            record.push(number);
            turns(1).await
        };
        futures::try_join!(section(1), section(2), section(3))?;
        assert_eq!(record.take(), [1, 2, 3]);

        let many: FuturesUnordered<_> = (0..100).map(section).collect();
        let outcomes: Vec<_> = many.collect().await;
        assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
        assert_eq!(record.take(), (0..100).collect::<Vec<_>>());
        Ok(())
    });
}

#[test]
fn semaphore_permits_bound_what_runs_in_one_task() {
    let (event_loop, _) = virtual_loop();
    let outcome = event_loop.run_until_complete(async {
        let (semaphore, inside, most) = (Semaphore::new(3), std::cell::Cell::new(0), std::cell::Cell::new(0));
        let work = async |number: u32| {
            let _permit = semaphore.acquire().await?;
            inside.set(inside.get() + 1);
            most.set(most.get().max(inside.get()));
            sleep(MS * (number % 5)).await?;
            inside.set(inside.get() - 1);
            asyncio::ok(())
        };
        let many: FuturesUnordered<_> = (0..50).map(work).collect();
        assert_eq!(many.filter(|outcome| future::ready(outcome.is_ok())).count().await, 50);
        assert_eq!((inside.get(), most.get()), (0, 3));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn the_loser_of_a_select_takes_nothing() {
    run(async {
        let (left, right) = (Queue::new(0), Queue::new(0));
        for item in 0..10 {
            let task = {
                let (left, right) = (left.clone(), right.clone());
                create_task(async move {
                    match future::select(pin!(left.get()), pin!(right.get())).await {
                        Either::Left((item, _)) => item,
                        Either::Right((item, _)) => item,
                    }
                })
            };
            turns(1).await?;
            left.put_nowait(item)?;
            right.put_nowait(100 + item)?;
            assert_eq!(task.await?, item, "the first that is ready");
            assert_eq!((left.qsize(), right.get_nowait()?), (0, 100 + item));
        }
        Ok(())
    });
}

#[test]
fn a_select_in_a_loop_gets_all_of_both() {
    run(async {
        let (numbers, end) = (Queue::new(1), Event::new());
        let (source, over) = (numbers.clone(), end.clone());
        let producer = create_task(async move {
            for number in 0..20 {
                source.put(number).await?;
            }
            source.join().await?;
            over.set();
            Ok(())
        });
        let mut got = Vec::new();
        loop {
            futures::select! {
                number = numbers.get().fuse() => {
                    got.push(number?);
                    numbers.task_done()?;
                }
                ended = end.wait().fuse() => {
                    ended?;
                    break;
                }
            }
        }
        assert_eq!(got, (0..20).collect::<Vec<_>>());
        producer.await
    });
}

/// A cancellation reaches one of the awaits; the others go on.
#[test]
fn one_of_several_waits_takes_the_cancellation() {
    run(async {
        let (lock, event) = (Lock::new(), Event::new());
        let guard = lock.acquire().await?;
        let (waits, flag) = (lock.clone(), event.clone());
        let task = create_task(async move {
            let (acquired, waited) = futures::join!(waits.acquire(), flag.wait());
            Ok((acquired.is_err(), waited.is_err()))
        });
        turns(1).await?;
        task.cancel();
        turns(1).await?;
        drop(guard);
        event.set();
        let (acquired, waited) = task.await?;
        assert!(acquired ^ waited);
        assert!(!lock.locked());
        Ok(())
    });
}

#[test]
fn the_children_of_futures_unordered_see_a_cancellation() {
    run(async {
        let lock = Lock::new();
        let guard = lock.acquire().await?;
        let waits = lock.clone();
        let task = create_task(async move {
            let mut many: FuturesUnordered<_> = (0..5).map(|_| waits.acquire()).collect();
            while let Some(acquired) = many.next().await {
                drop(acquired?);
            }
            Ok(())
        });
        turns(1).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        drop(guard);
        assert!(lock.try_acquire().is_some(), "those who were dropped are gone from the line");
        Ok(())
    });
}

/// A wait that moves to another task is woken there.
#[test]
fn a_wait_can_move_to_another_task() {
    run(async {
        let event: &Event = Box::leak(Box::default());
        let mut wait = Box::pin(event.wait());
        assert!(future::poll_immediate(wait.as_mut()).await.is_none());
        let task = create_task(wait);
        turns(1).await?;
        event.set();
        task.await
    });
}
