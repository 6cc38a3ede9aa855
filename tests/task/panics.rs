//! Panics in coroutines and in what they drop.

use std::{future::Future as _, time::Duration};

use asyncio::{Error, ErrorKind, Task, create_task, sleep};

use crate::support::{self, Gate, Record, failure, handler, new_loop, tick};

async fn panics(text: &'static str) -> asyncio::Result<u8> {
    if text.is_empty() { Ok(0) } else { panic!("{text}") }
}

/// A value whose drop panics.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

/// TASK-025
#[test]
fn a_panic_ends_the_task_and_not_the_loop() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let first = event_loop.create_task(panics("boom"));
    let known = first.any();
    let others: Vec<Task<u8>> = (0..2)
        .map(|number| {
            event_loop.create_task(async move {
                sleep(Duration::ZERO).await?;
                Ok(number)
            })
        })
        .collect();
    let seen = record.clone();
    first.add_done_callback(move |_| seen.push("done"));
    tick(&event_loop);
    let seen = reports.take();
    assert_eq!(seen.len(), 1, "when it panics");
    assert_eq!(seen[0].task.as_ref(), Some(&known));
    assert_eq!(seen[0].exception.as_ref().unwrap().to_string(), "boom");
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), ["done"]);
    assert!(others.iter().all(Task::done));
    assert!(!first.cancelled());
    let (kind, text) = failure(first.result());
    assert_eq!(kind, ErrorKind::Panicked);
    assert!(text.contains("boom"), "{text}");
    assert_eq!(first.exception().unwrap().unwrap().kind(), ErrorKind::Panicked);
    drop((first, known, seen));
    tick(&event_loop);
    assert_eq!(reports.take().len(), 0, "not again at the drop");
}

/// TASK-025: not again at the drop, also if nobody read it.
#[test]
fn a_panic_is_reported_once() {
    for detached in [true, false] {
        let event_loop = new_loop();
        let reports = handler(&event_loop);
        let task = event_loop.create_task(panics("boom"));
        if detached {
            drop(task);
            tick(&event_loop);
        } else {
            tick(&event_loop);
            drop(task);
        }
        tick(&event_loop);
        assert_eq!(reports.take().len(), 1, "detached: {detached}");
    }
}

#[test]
fn a_panic_that_is_awaited_goes_to_the_awaiter_alone() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let by_value = |task: Task<u8>| event_loop.create_task(task);
    let by_reference = |task: Task<u8>| event_loop.create_task(async move { (&task).await });
    let shared = |task: Task<u8>| event_loop.create_task(task.shared());
    let erased = |task: Task<u8>| {
        event_loop.create_task(async move {
            task.any().await?;
            Ok(0)
        })
    };
    let ways: [&dyn Fn(Task<u8>) -> Task<u8>; 4] = [&by_value, &by_reference, &shared, &erased];
    for way in ways {
        let gate = Gate::default();
        let open = gate.clone();
        let waiter = way(event_loop.create_task(async move {
            open.await;
            panics("boom").await
        }));
        tick(&event_loop);
        gate.open();
        tick(&event_loop);
        tick(&event_loop);
        assert_eq!(failure(waiter.result()), (ErrorKind::Panicked, "boom".into()));
        drop(waiter);
        tick(&event_loop);
        assert_eq!(reports.take().len(), 0);
    }
}

#[test]
fn a_panic_of_the_main_future_is_returned() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    assert_eq!(failure(event_loop.run_until_complete(panics("boom"))), (ErrorKind::Panicked, "boom".into()));
    let task = event_loop.create_task(async {
        sleep(Duration::ZERO).await?;
        panics("bang").await
    });
    assert_eq!(failure(event_loop.run_until_complete(task)), (ErrorKind::Panicked, "bang".into()));
    assert_eq!(reports.take().len(), 0);
    assert_eq!(event_loop.run_until_complete(async { Ok(1) }).unwrap(), 1);
}

#[test]
fn a_panic_with_any_payload_has_a_text() {
    let event_loop = new_loop();
    let _reports = handler(&event_loop);
    let number = 5;
    let formatted = async move { if number > 0 { panic!("number {number}") } else { asyncio::ok(()) } };
    assert_eq!(failure(event_loop.run_until_complete(formatted)).1, "number 5");
    let odd = async { if true { std::panic::panic_any(7) } else { asyncio::ok(()) } };
    assert_eq!(failure(event_loop.run_until_complete(odd)).0, ErrorKind::Panicked);
}

/// A panic after the awaiter was dropped with the handle is not lost.
#[test]
fn a_panic_whose_awaiter_is_gone_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let gate = Gate::default();
    let open = gate.clone();
    let task = event_loop.create_task(async move {
        open.await;
        panics("boom").await
    });
    event_loop
        .run_until_complete(async {
            drop(futures::future::select(task, std::future::ready(())).await);
            Ok(())
        })
        .unwrap();
    gate.open();
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
}

/// A panic whose awaiter lost interest, while the handle is held, is reported at the latest when that is dropped.
#[test]
fn a_panic_whose_awaiter_lost_interest_is_reported_once() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let gate = Gate::default();
    let open = gate.clone();
    let mut task = event_loop.create_task(async move {
        open.await;
        panics("boom").await
    });
    event_loop
        .run_until_complete(async {
            drop(futures::future::select(&mut task, std::future::ready(())).await);
            Ok(())
        })
        .unwrap();
    gate.open();
    tick(&event_loop);
    drop(task);
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
}

#[test]
fn a_panic_in_the_drop_of_a_finished_coroutine_is_reported_and_the_result_kept() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let bomb = Bomb("in drop");
    let mut inner = Box::pin(async move { asyncio::ok(5) });
    // Dropped with the coroutine, not by its body.
    let task = event_loop.create_task(std::future::poll_fn(move |cx| {
        let _held = &bomb;
        inner.as_mut().poll(cx)
    }));
    let known = task.any();
    tick(&event_loop);
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "in drop");
    assert_eq!(reports[0].task.as_ref(), Some(&known));
    assert!(task.done());
    assert_eq!(task.result().unwrap(), 5);
    assert_eq!(event_loop.all_tasks(), []);
}

#[test]
fn a_panic_in_the_drop_of_a_cancelled_coroutine_is_reported_and_the_task_ends() {
    for started in [true, false] {
        let event_loop = new_loop();
        let reports = handler(&event_loop);
        let bomb = Bomb("in drop");
        let task = event_loop.create_task(async move {
            let _bomb = bomb;
            std::future::pending::<asyncio::Result<()>>().await
        });
        if started {
            tick(&event_loop);
        }
        assert!(task.cancel_with("bye"));
        tick(&event_loop);
        assert!(task.cancelled(), "started: {started}");
        assert_eq!(failure(task.result()).1, "bye");
        let reports = reports.take();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].exception.as_ref().unwrap().to_string(), "in drop");
        assert_eq!(event_loop.run_until_complete(async { Ok(1) }).unwrap(), 1, "the loop goes on");
    }
}

#[test]
fn a_panic_in_a_local_variables_drop_is_the_coroutines() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(async {
        let _bomb = Bomb("at the end");
        sleep(Duration::ZERO).await?;
        Ok(1)
    });
    assert_eq!(failure(event_loop.run_until_complete(task)), (ErrorKind::Panicked, "at the end".into()));
    assert_eq!(reports.take().len(), 0);
}

#[test]
fn a_panic_in_the_drop_of_a_discarded_result_is_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(async {
        asyncio::current_task()?.unwrap().cancel();
        Ok(Bomb("discarded"))
    });
    tick(&event_loop);
    assert!(task.cancelled(), "the value is thrown away");
    assert_eq!(reports.take().len(), 1);
    drop(event_loop.create_task(async { Ok(Bomb("detached")) }));
    tick(&event_loop);
    assert_eq!(reports.take().len(), 1);
    assert_eq!(event_loop.run_until_complete(async { Ok(1) }).unwrap(), 1);
}

#[test]
fn a_panic_in_a_drop_during_close_is_reported_and_the_rest_is_closed() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let ((guard, dropped), bomb) = (support::drop_guard(), Bomb("closing"));
    let _first = event_loop.create_task(async move {
        let _bomb = bomb;
        sleep(Duration::from_secs(60)).await
    });
    let second = event_loop.create_task(async move {
        let _guard = guard;
        sleep(Duration::from_secs(60)).await
    });
    tick(&event_loop);
    event_loop.close().unwrap();
    assert!(dropped.get() && second.cancelled());
    let texts: Vec<_> =
        reports.take().into_iter().filter_map(|report| report.exception).map(|error| error.to_string()).collect();
    assert_eq!(texts, ["closing"]);
}

#[test]
fn a_panicking_done_callback_is_reported_and_the_others_run() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let record = Record::default();
    let task = event_loop.create_task(async { Ok(1) });
    task.add_done_callback(|_| panic!("callback"));
    let seen = record.clone();
    task.add_done_callback(move |_| seen.push(2));
    tick(&event_loop);
    tick(&event_loop);
    assert_eq!(record.take(), [2]);
    assert_eq!(reports.take().len(), 1);
    assert_eq!(task.result().unwrap(), 1);
}

#[test]
fn a_panic_while_a_cancellation_is_handled_is_the_outcome() {
    support::run(async {
        let task = create_task(async {
            let error: Error = sleep(Duration::from_secs(60)).await.unwrap_err();
            if error.is_cancelled() { panic!("cleaning up") } else { asyncio::ok(()) }
        });
        sleep(Duration::ZERO).await?;
        task.cancel();
        assert_eq!(failure((&task).await), (ErrorKind::Panicked, "cleaning up".into()));
        assert!(!task.cancelled());
        Ok(())
    });
}

/// What is current is alive: a panic whose payload panics again when it is dropped leaves no task current behind.
#[test]
fn a_payload_that_panics_leaves_no_task_current() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let task = event_loop.create_task(async {
        if true {
            std::panic::panic_any(Bomb("the payload's drop"));
        }
        Ok(1)
    });
    let handle = event_loop.call_soon(|| std::panic::panic_any(Bomb("again")));
    let others = Record::default();
    let record = others.clone();
    event_loop.call_soon(move || record.push("the rest of the batch"));
    tick(&event_loop);
    assert_eq!(others.take(), ["the rest of the batch"]);
    assert_eq!(event_loop.current_task(), None);
    assert_eq!(task.exception().unwrap().unwrap().kind(), ErrorKind::Panicked);
    assert_eq!(event_loop.run_until_complete(handle).unwrap_err().kind(), ErrorKind::Panicked);
    assert_eq!(reports.take().len(), 2);
}

/// A waker that panics harms nobody but itself.
#[test]
fn a_panicking_waker_keeps_no_other_from_being_woken() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: std::sync::Arc<Self>) {
            panic!("a waker's own");
        }
    }
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let waker = std::task::Waker::from(std::sync::Arc::new(Panics));
    let mut first = Box::pin(IntoFuture::into_future(&future));
    assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let second = future.clone();
    let task = event_loop.create_task(async move { (&second).await });
    tick(&event_loop);
    future.set_result(3).unwrap();
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 3);
}
