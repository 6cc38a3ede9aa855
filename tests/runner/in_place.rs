//! `run_until_complete`: what is polled in place, lent and borrowed.

use std::{cell::Cell, future::Future as StdFuture, pin::Pin, rc::Rc, time::Duration};

use asyncio::{ContextVar, Error, ErrorKind, Result};

use crate::{
    main_thread::tests,
    support::{Gate, Record, drop_guard, handler, logs, new_loop},
};

tests![
    a_task_that_is_lent_goes_on_later,
    a_future_by_reference_may_be_awaited_again,
    a_boxed_future_that_is_lent_goes_on_later,
    main_may_borrow_mutably,
    main_has_ended_or_been_dropped_when_the_call_returns,
    a_main_that_panics_is_an_error_and_is_not_reported,
    a_main_that_panics_in_its_drop_is_reported,
    a_lent_task_that_fails_or_panics_gives_its_error,
    a_stopped_run_of_a_lent_future_leaves_it_pending,
    cancelling_main_cancels_what_it_was_lent,
    main_has_a_copy_of_the_context,
    main_is_a_task_among_the_tasks_while_it_lasts,
    a_waker_that_outlives_main_is_harmless,
    a_main_that_is_ready_at_once_still_runs_what_is_queued,
];

fn a_task_that_is_lent_goes_on_later() {
    let event_loop = new_loop();
    let stopper = event_loop.clone();
    let mut task = event_loop.create_task(async move {
        stopper.stop();
        asyncio::sleep(Duration::from_millis(5)).await?;
        Ok(5)
    });
    let error = event_loop.run_until_complete(&mut task).unwrap_err();
    assert_eq!(error.to_string(), "Event loop stopped before Future completed.");
    assert!(!task.done() && !task.cancelled() && task.cancelling() == 0);
    assert_eq!(event_loop.run_until_complete(&mut task).unwrap(), 5);
    assert!(task.done());
    // Awaiting has taken the value.
    let error = event_loop.run_until_complete(&mut task).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidState, "Result was already taken".into()));
}

fn a_future_by_reference_may_be_awaited_again() {
    let event_loop = new_loop();
    let future = event_loop.create_future();
    let setter = future.clone();
    event_loop.call_soon(move || setter.set_result(String::from("text")).unwrap());
    for _ in 0..2 {
        assert_eq!(event_loop.run_until_complete(&future).unwrap(), "text");
    }
    assert_eq!(future.result().unwrap(), "text");
    let task = event_loop.create_task(async { Ok(String::from("task")) });
    for _ in 0..2 {
        assert_eq!(event_loop.run_until_complete(&task).unwrap(), "task");
    }
    assert_eq!(event_loop.run_until_complete(future.shared()).unwrap(), "text");
}

fn a_boxed_future_that_is_lent_goes_on_later() {
    let (event_loop, record) = (new_loop(), Record::default());
    let (seen, stopper) = (record.clone(), event_loop.clone());
    let mut future: Pin<Box<dyn StdFuture<Output = Result<i32>>>> = Box::pin(async move {
        seen.push("begun");
        stopper.stop();
        asyncio::sleep(Duration::from_millis(1)).await?;
        seen.push("ended");
        Ok(5)
    });
    let error = event_loop.run_until_complete(&mut future).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Runtime);
    assert_eq!(record.items(), ["begun"]);
    assert_eq!(event_loop.run_until_complete(&mut future).unwrap(), 5);
    assert_eq!(record.take(), ["begun", "ended"]);
}

fn main_may_borrow_mutably() {
    let event_loop = new_loop();
    let (mut numbers, text) = (Vec::new(), String::from("asyncio"));
    let borrowed: &str = event_loop
        .run_until_complete(async {
            for number in 0..3 {
                numbers.push(number);
                asyncio::sleep(Duration::ZERO).await?;
            }
            Ok(&text[..])
        })
        .unwrap();
    assert_eq!((borrowed, numbers), ("asyncio", vec![0, 1, 2]));
}

fn main_has_ended_or_been_dropped_when_the_call_returns() {
    let event_loop = new_loop();
    // Ended, failed, stopped, cancelled, refused.
    let (guard, dropped) = drop_guard();
    let returning = async move {
        let _guard = guard;
        Ok(())
    };
    event_loop.run_until_complete(returning).unwrap();
    assert!(dropped.get());

    let (guard, dropped) = drop_guard();
    let failing = async move {
        let _guard = guard;
        Err::<(), _>(Error::Value("spam".into()))
    };
    assert!(event_loop.run_until_complete(failing).is_err());
    assert!(dropped.get());

    let (guard, dropped) = drop_guard();
    let stopper = event_loop.clone();
    let stopped = async move {
        let _guard = guard;
        stopper.stop();
        asyncio::sleep(Duration::from_secs(60)).await
    };
    assert_eq!(event_loop.run_until_complete(stopped).unwrap_err().kind(), ErrorKind::Runtime);
    assert!(dropped.get());
    assert_eq!(event_loop.all_tasks(), []);
    event_loop.run_once(Duration::ZERO).unwrap();
    assert_eq!(event_loop.next_deadline(), None, "its timer has gone with it");

    let (guard, dropped) = drop_guard();
    let gate = Gate::default();
    let waiting = gate.clone();
    let cancelled = async move {
        let _guard = guard;
        asyncio::current_task()?.unwrap().cancel();
        waiting.await;
        Ok(())
    };
    assert_eq!(event_loop.run_until_complete(cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(dropped.get());
    gate.open();

    event_loop.close().unwrap();
    let (guard, dropped) = drop_guard();
    let refused = async move {
        let _guard = guard;
        Ok(())
    };
    assert_eq!(event_loop.run_until_complete(refused).unwrap_err().kind(), ErrorKind::Runtime);
    assert!(dropped.get());
}

fn a_main_that_panics_is_an_error_and_is_not_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let error = event_loop.run_until_complete::<(), _>(async {
        asyncio::sleep(Duration::ZERO).await?;
        panic!("boom");
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panicked, "boom".into()));
    assert_eq!(event_loop.run_until_complete(async { Ok(5) }).unwrap(), 5);
    event_loop.close().unwrap();
    assert_eq!(reports.len(), 0, "whoever ran it has the error");
}

fn a_main_that_panics_in_its_drop_is_reported() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let stopper = event_loop.clone();
    let error = event_loop.run_until_complete(async move {
        let _bomb = PanicsInDrop;
        stopper.stop();
        asyncio::sleep(Duration::from_secs(60)).await
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Runtime);
    let [report] = <[_; 1]>::try_from(reports.take()).unwrap();
    assert_eq!(report.exception.unwrap().to_string(), "dropped");
    assert_eq!(event_loop.run_until_complete(async { Ok(5) }).unwrap(), 5);
}

fn a_lent_task_that_fails_or_panics_gives_its_error() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let mut failing = event_loop.create_task::<(), _>(async { Err(Error::Value("spam".into())) });
    assert_eq!(event_loop.run_until_complete(&mut failing).unwrap_err().kind(), ErrorKind::Value);
    let mut panicking = event_loop.create_task::<(), _>(async {
        asyncio::sleep(Duration::ZERO).await?;
        panic!("boom")
    });
    let error = event_loop.run_until_complete(&mut panicking).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panicked, "boom".into()));
    drop((failing, panicking));
    assert_eq!(reports.len(), 0);
}

fn a_stopped_run_of_a_lent_future_leaves_it_pending() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<u8>();
    let stopper = event_loop.clone();
    event_loop.call_soon(move || stopper.stop());
    assert_eq!(event_loop.run_until_complete(&future).unwrap_err().kind(), ErrorKind::Runtime);
    assert!(!future.done());
    future.set_result(5).unwrap();
    assert_eq!(event_loop.run_until_complete(future).unwrap(), 5);
}

fn cancelling_main_cancels_what_it_was_lent() {
    let event_loop = new_loop();
    let mut task = event_loop.create_task(asyncio::sleep(Duration::from_secs(60)));
    let looker = event_loop.clone();
    let cancelled = Rc::new(Cell::new(0));
    let count = cancelled.clone();
    event_loop.call_later(Duration::from_millis(1), move || {
        let lent = looker.all_tasks();
        count.set(lent.len());
        // The main task is the younger one of the two.
        let main = lent.iter().max_by_key(|task| task.get_name()).unwrap();
        assert!(main.cancel());
    });
    let error = event_loop.run_until_complete(&mut task).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(task.cancelled());
    assert_eq!(cancelled.get(), 2);
}

static VARIABLE: ContextVar<i32> = ContextVar::with_default("variable", || -1);

fn main_has_a_copy_of_the_context() {
    let event_loop = new_loop();
    VARIABLE.set(1);
    for _ in 0..2 {
        let seen = event_loop.run_until_complete(async {
            let before = VARIABLE.get()?;
            VARIABLE.set(2);
            asyncio::sleep(Duration::ZERO).await?;
            Ok((before, VARIABLE.get()?))
        });
        assert_eq!(seen.unwrap(), (1, 2));
    }
    assert_eq!(VARIABLE.get().unwrap(), 1);

    // Unless it is given one.
    let context = asyncio::copy_context();
    for (before, after) in [(1, 2), (2, 3)] {
        let seen = event_loop.in_context(&context).run_until_complete(async {
            let before = VARIABLE.get()?;
            VARIABLE.set(before + 1);
            Ok(before)
        });
        assert_eq!((seen.unwrap(), context.get(&VARIABLE)), (before, Some(after)));
    }
}

fn main_is_a_task_among_the_tasks_while_it_lasts() {
    let event_loop = new_loop();
    let main = event_loop
        .run_until_complete(async {
            let main = asyncio::current_task()?.unwrap();
            assert_eq!(asyncio::all_tasks()?, std::slice::from_ref(&main));
            Ok(main)
        })
        .unwrap();
    assert!(main.done() && !main.cancelled());
    assert!(main.exception().unwrap().is_none());
    assert_eq!(event_loop.all_tasks(), []);
    assert!(!main.cancel());
}

fn a_waker_that_outlives_main_is_harmless() {
    let event_loop = new_loop();
    let gate = Gate::default();
    let (waiting, stopper) = (gate.clone(), event_loop.clone());
    let ((), records) = logs(|| {
        let stopped = event_loop.run_until_complete(async move {
            stopper.stop();
            waiting.await;
            Ok(())
        });
        assert!(stopped.is_err());
        let waker = gate.waker().unwrap();
        waker.wake_by_ref();
        event_loop.run_until_complete(asyncio::sleep(Duration::from_millis(1))).unwrap();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        event_loop.run_until_complete(asyncio::sleep(Duration::from_millis(1))).unwrap();
        event_loop.close().unwrap();
    });
    gate.open();
    assert_eq!(records, []);
}

fn a_main_that_is_ready_at_once_still_runs_what_is_queued() {
    let (event_loop, record) = (new_loop(), Record::default());
    let seen = record.clone();
    event_loop.call_soon(move || seen.push("queued before"));
    let (seen, inside) = (record.clone(), event_loop.clone());
    event_loop
        .run_until_complete(async move {
            seen.push("main");
            inside.call_soon(move || seen.push("queued inside"));
            Ok(())
        })
        .unwrap();
    assert_eq!(record.take(), ["queued before", "main", "queued inside"]);
}
