//! Tasks that cross threads.

use std::{thread, time::Duration};

use asyncio::{Error, ErrorKind, create_task, sleep};

use crate::support::{self, failure, handler, new_loop, tick};

#[test]
fn a_task_may_be_awaited_on_another_thread() {
    let _deadline = support::deadline();
    support::run(async {
        let task = create_task(async {
            sleep(Duration::from_millis(5)).await?;
            Ok(String::from("moved"))
        });
        let other = thread::spawn(move || smol::block_on(task));
        assert_eq!(asyncio::to_thread(move || other.join().unwrap()).await?, "moved");
        let shared = create_task(async {
            sleep(Duration::from_millis(5)).await?;
            Ok(String::from("cloned"))
        })
        .shared();
        let theirs = shared.clone();
        let other = thread::spawn(move || {
            let first = smol::block_on(theirs.clone())?;
            assert_eq!(smol::block_on(async { (&*theirs).await })?, first);
            asyncio::ok(first)
        });
        assert_eq!(asyncio::to_thread(move || other.join().unwrap()).await?, "cloned");
        assert_eq!(shared.await?, "cloned");
        Ok(())
    });
}

#[test]
fn a_done_task_gives_its_outcome_on_every_thread() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async { Ok(vec![1, 2]) });
    let failed = event_loop.create_task(async { Err::<u8, _>(Error::Value("v".into())) });
    tick(&event_loop);
    let reports = handler(&event_loop);
    thread::spawn(move || {
        assert!(task.done() && !task.cancelled());
        assert_eq!(task.result().unwrap(), [1, 2]);
        assert!(task.exception().unwrap().is_none());
        assert_eq!(asyncio::block_on(task).unwrap(), [1, 2]);
        assert_eq!(failure(smol::block_on(failed)).0, ErrorKind::Value);
    })
    .join()
    .unwrap();
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0);
}

#[test]
fn a_pending_task_is_refused_in_another_threads_loop() {
    let event_loop = new_loop();
    let mut task = event_loop.create_task(async { Ok(1) });
    let task = thread::spawn(move || {
        assert_eq!(failure(asyncio::block_on(&mut task)).0, ErrorKind::Value);
        assert!(!task.done());
        task
    })
    .join()
    .unwrap();
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 1);
}

#[test]
fn a_failure_or_a_panic_reaches_the_other_thread() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    for panics in [false, true] {
        let (ready, waits) = std::sync::mpsc::channel();
        let gate = support::Gate::default();
        let opened = gate.clone();
        let mut task = event_loop.create_task(async move {
            opened.await;
            if panics {
                panic!("boom");
            }
            Err::<u8, _>(Error::Value("boom".into()))
        });
        let other = thread::spawn(move || {
            smol::block_on(async {
                assert!(futures::FutureExt::now_or_never(&mut task).is_none());
                ready.send(()).unwrap();
                task.await
            })
        });
        waits.recv().unwrap();
        gate.open();
        while !other.is_finished() {
            tick(&event_loop);
            thread::yield_now();
        }
        let expected = if panics { ErrorKind::Panicked } else { ErrorKind::Value };
        assert_eq!(failure(other.join().unwrap()), (expected, "boom".into()));
        tick(&event_loop);
        assert_eq!(reports.take().len(), 0);
    }
}

#[test]
fn names_and_states_are_read_and_written_on_every_thread() {
    let event_loop = new_loop();
    let task = event_loop.task(sleep(Duration::from_secs(60))).name("before").start();
    tick(&event_loop);
    let task = thread::spawn(move || {
        assert_eq!(task.get_name(), "before");
        task.set_name("after");
        assert!(!task.done() && task.cancelling() == 0);
        assert_eq!(failure(task.exception()).0, ErrorKind::InvalidState);
        assert_eq!(task.get_loop().map(drop).unwrap_err().kind(), ErrorKind::Runtime);
        assert!(format!("{task:?}").contains("pending"));
        task
    })
    .join()
    .unwrap();
    assert_eq!(task.get_name(), "after");
}

#[test]
fn a_handle_may_be_dropped_on_another_thread() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (guard, dropped) = support::drop_guard();
    let local = std::rc::Rc::new(guard);
    let detached = event_loop.create_task(async move {
        sleep(Duration::ZERO).await?;
        drop(local);
        Ok(())
    });
    let failed = event_loop.create_task(async { Err::<u8, _>(Error::Value("v".into())) });
    tick(&event_loop);
    thread::spawn(move || drop((detached, failed))).join().unwrap();
    assert_eq!(reports.len(), 0, "reported on the loop's thread");
    tick(&event_loop);
    tick(&event_loop);
    assert!(dropped.get());
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].message, "Task exception was never retrieved");
}

/// The loop is closed between the drop on the other thread and the report's arrival: the record is written.
#[test]
fn a_report_that_the_loop_does_not_live_to_see_is_written() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let failed = event_loop.create_task(async { Err::<u8, _>(Error::Value("v".into())) });
    tick(&event_loop);
    thread::spawn(move || drop(failed)).join().unwrap();
    let (closed, logs) = support::logs(|| event_loop.close());
    closed.unwrap();
    assert_eq!(reports.len() + logs.len(), 1, "{logs:?}");
}

#[test]
fn an_await_on_another_thread_ends_when_the_loop_is_closed() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let _reports = handler(&event_loop);
    let (ready, waits) = std::sync::mpsc::channel();
    let mut task = event_loop.create_task(sleep(Duration::from_secs(60)));
    let shared = event_loop.create_task(sleep(Duration::from_secs(60))).shared();
    tick(&event_loop);
    let other = thread::spawn(move || {
        smol::block_on(async {
            let mut theirs = shared.clone();
            assert!(futures::FutureExt::now_or_never(&mut task).is_none());
            assert!(futures::FutureExt::now_or_never(&mut theirs).is_none());
            let both = futures::future::join(task, theirs);
            ready.send(()).unwrap();
            both.await
        })
    });
    waits.recv().unwrap();
    event_loop.close().unwrap();
    let (one, two) = other.join().unwrap();
    assert_eq!((failure(one).0, failure(two).0), (ErrorKind::Cancelled, ErrorKind::Cancelled));
}

#[test]
fn a_done_callback_cannot_be_added_on_another_thread() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(async { Ok(1) });
    let (guard, dropped) = support::drop_guard();
    let task = thread::spawn(move || {
        let token = task.add_done_callback(move |_| drop(guard));
        assert!(!task.remove_done_callback(&token));
        task
    })
    .join()
    .unwrap();
    assert!(dropped.get());
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
    assert_eq!(task.result().unwrap(), 1);
}

#[test]
fn the_value_may_be_sent_but_not_shared() {
    let event_loop = new_loop();
    let task = event_loop.create_task(async { Ok(std::cell::Cell::new(3)) });
    tick(&event_loop);
    assert_eq!(thread::spawn(move || smol::block_on(task).unwrap().get()).join().unwrap(), 3);
}

#[test]
fn awaits_on_many_threads_all_end() {
    let _deadline = support::deadline();
    support::run(async {
        for _ in 0..100 {
            let task = create_task(async {
                sleep(Duration::ZERO).await?;
                Ok(7)
            })
            .shared();
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let task = task.clone();
                    thread::spawn(move || smol::block_on(task))
                })
                .collect();
            assert_eq!(task.await?, 7);
            for thread in threads {
                assert_eq!(thread.join().unwrap()?, 7);
            }
        }
        Ok(())
    });
}
