//! Cancellation from other threads.

use std::{thread, time::Duration};

use asyncio::{ErrorKind, create_task, sleep};

use crate::support::{self, failure, new_loop, tick};

fn long() -> asyncio::Sleep {
    sleep(Duration::from_secs(3600))
}

#[test]
fn a_cancel_from_another_thread_is_queued_to_the_loop() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let task = event_loop.create_task(future.clone());
    tick(&event_loop);
    let task = thread::spawn(move || {
        assert!(task.cancel_with("from afar"));
        assert_eq!(task.cancelling(), 1);
        assert!(!task.done());
        task
    })
    .join()
    .unwrap();
    assert!(!future.done(), "the loop has not run since");
    tick(&event_loop);
    assert!(future.cancelled());
    tick(&event_loop);
    assert!(task.cancelled());
    assert_eq!(failure(task.result()).1, "from afar");
}

#[test]
fn a_cancel_from_another_thread_wakes_a_loop_that_sleeps() {
    let _deadline = support::deadline();
    support::run(async {
        let task = create_task(long()).shared();
        let theirs = task.clone();
        let canceller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            assert!(theirs.cancel());
        });
        assert_eq!(failure(task.await).0, ErrorKind::Cancelled);
        canceller.join().unwrap();
        Ok(())
    });
}

#[test]
fn a_cancel_from_another_thread_comes_after_what_was_queued_before() {
    let event_loop = new_loop();
    let record = support::Record::default();
    let seen = record.clone();
    let task = event_loop.create_task(async move {
        seen.push("first step");
        assert!(long().await.is_err());
        seen.push("cancelled");
        Ok(())
    });
    let task = thread::spawn(move || {
        assert!(task.cancel());
        task
    })
    .join()
    .unwrap();
    tick(&event_loop);
    assert_eq!(record.items(), ["first step"]);
    tick(&event_loop);
    assert_eq!(record.take(), ["first step", "cancelled"]);
    assert!(task.done() && !task.cancelled());
}

/// A coroutine that the other thread handed over itself, and took back before it began.
#[test]
fn a_cancel_from_another_thread_may_come_before_the_first_step() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let remote = event_loop.threadsafe();
    thread::spawn(move || {
        let future = remote.run_coroutine_threadsafe(async move {
            let _guard = guard;
            if true {
                panic!("it ran");
            }
            Ok(())
        });
        assert!(future.cancel());
    })
    .join()
    .unwrap();
    let reports = support::handler(&event_loop);
    tick(&event_loop);
    tick(&event_loop);
    assert!(dropped.get());
    assert_eq!(event_loop.all_tasks(), []);
    assert_eq!(reports.take().len(), 0);
}

#[test]
fn an_uncancel_before_the_queued_cancel_arrives_withdraws_it() {
    let event_loop = new_loop();
    let task = event_loop.create_task(long());
    tick(&event_loop);
    let task = thread::spawn(move || {
        assert!(task.cancel());
        task
    })
    .join()
    .unwrap();
    assert_eq!(task.uncancel(), 0);
    tick(&event_loop);
    tick(&event_loop);
    assert!(!task.done());
    assert_eq!(task.cancelling(), 0);
    task.cancel();
    tick(&event_loop);
    assert!(task.cancelled());
}

#[test]
fn a_cancel_of_a_task_that_waits_for_a_foreign_future_works_from_another_thread() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let local = std::rc::Rc::new(guard);
    let task = event_loop.create_task(async move {
        let _local = local;
        std::future::pending::<asyncio::Result<()>>().await
    });
    tick(&event_loop);
    let task = thread::spawn(move || {
        assert!(task.cancel_with("bye"));
        task
    })
    .join()
    .unwrap();
    assert!(!dropped.get(), "what is not Send is dropped on the loop's thread");
    tick(&event_loop);
    tick(&event_loop);
    assert!(dropped.get() && task.cancelled());
}

#[test]
fn a_cancel_of_a_done_task_from_another_thread_is_false() {
    let event_loop = new_loop();
    let reports = support::handler(&event_loop);
    let task = event_loop.create_task(async { Err::<u8, _>(asyncio::Error::Value("v".into())) });
    tick(&event_loop);
    thread::spawn(move || assert!(!task.cancel())).join().unwrap();
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0, "it was a look");
    let task = event_loop.create_task(long());
    event_loop.close().unwrap();
    thread::spawn(move || assert!(!task.cancel() && task.cancelled())).join().unwrap();
}

#[test]
fn cancels_of_many_threads_end_every_task_once() {
    let _deadline = support::deadline();
    support::run(async {
        for _ in 0..20 {
            let tasks: Vec<_> = (0..20).map(|_| create_task(long()).shared()).collect();
            sleep(Duration::ZERO).await?;
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let tasks = tasks.clone();
                    thread::spawn(move || tasks.iter().for_each(|task| _ = task.cancel()))
                })
                .collect();
            for task in &tasks {
                assert_eq!(failure(task.clone().await).0, ErrorKind::Cancelled);
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(tasks.iter().all(|task| (1..=3).contains(&task.cancelling())));
        }
        Ok(())
    });
}

#[test]
fn a_cancel_may_race_with_the_end_of_the_task() {
    let _deadline = support::deadline();
    support::run(async {
        for _ in 0..200 {
            let task = create_task(async {
                sleep(Duration::ZERO).await?;
                sleep(Duration::ZERO).await?;
                Ok(5)
            })
            .shared();
            let theirs = task.clone();
            let canceller = thread::spawn(move || theirs.cancel());
            match task.clone().await {
                Ok(5) => assert!(!task.cancelled()),
                other => {
                    assert_eq!(failure(other).0, ErrorKind::Cancelled);
                    assert!(task.cancelled());
                }
            }
            canceller.join().unwrap();
        }
        Ok(())
    });
}
