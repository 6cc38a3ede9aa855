//! `Runner`: its stages, its loop and the context that its runs share.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use asyncio::{ContextVar, Error, ErrorKind, EventLoop, Runner, selector::ParkSelector};

use crate::{
    main_thread::tests,
    support::{Record, drop_guard, handler, logs},
};

tests![
    a_runner_is_open_until_close_and_closed_for_good,
    a_runner_that_was_closed_before_it_was_used_makes_no_loop,
    the_runs_of_a_runner_share_one_context,
    the_context_is_captured_when_the_loop_is_made,
    tasks_of_one_run_go_on_in_the_next,
    a_failed_run_leaves_the_runner_open,
    the_factory_makes_the_loop_once,
    a_factory_that_fails_is_the_error_of_run_and_get_loop,
    dropping_the_runner_closes_its_loop,
    dropping_a_runner_that_was_never_used_does_nothing,
    dropping_a_runner_while_another_loop_runs_closes_its_loop,
    two_runners_may_be_used_in_turns,
    a_loop_that_was_closed_behind_the_runner_is_an_error,
    close_inside_its_own_run_cannot_be,
    the_loop_of_a_runner_may_be_used_directly,
    debug_prints_the_stage,
];

/// RUN-008
fn a_runner_is_open_until_close_and_closed_for_good() {
    let mut runner = Runner::new();
    let value = runner.run(async {
        asyncio::sleep(Duration::ZERO).await?;
        Ok("done")
    });
    assert_eq!(value.unwrap(), "done");
    let event_loop = runner.get_loop().unwrap();
    assert!(!event_loop.is_closed());
    assert_eq!(runner.run(async { asyncio::get_running_loop() }).unwrap(), event_loop);
    runner.close().unwrap();
    assert!(event_loop.is_closed());
    runner.close().unwrap();
    let text = "Runner is closed";
    let error = runner.get_loop().unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, text.into()));
    let polled = Cell::new(false);
    let error = runner.run(async {
        polled.set(true);
        Ok(())
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, text.into()));
    assert!(!polled.get());
    assert!(event_loop.is_closed());
}

/// RUN-008, without a run.
fn a_runner_that_was_closed_before_it_was_used_makes_no_loop() {
    let made = Rc::new(Cell::new(false));
    let flag = made.clone();
    let mut runner = Runner::new().loop_factory(move || {
        flag.set(true);
        asyncio::new_event_loop()
    });
    runner.close().unwrap();
    assert_eq!(runner.get_loop().unwrap_err().to_string(), "Runner is closed");
    assert_eq!(runner.run(async { Ok(()) }).unwrap_err().to_string(), "Runner is closed");
    assert!(!made.get());
}

static VARIABLE: ContextVar<i32> = ContextVar::with_default("variable", || -1);

async fn exchange(value: i32) -> asyncio::Result<i32> {
    let before = VARIABLE.get()?;
    VARIABLE.set(value);
    Ok(before)
}

/// RUN-009
fn the_runs_of_a_runner_share_one_context() {
    let mut runner = Runner::new();
    assert_eq!(runner.run(exchange(1)).unwrap(), -1);
    assert_eq!(runner.run(exchange(2)).unwrap(), 1);
    assert_eq!(VARIABLE.get().unwrap(), -1);
    // Callbacks and tasks of a run begin with a copy of it.
    let seen = runner.run(async {
        let event_loop = asyncio::get_running_loop()?;
        let task = asyncio::create_task(exchange(3)).await?;
        let callback = event_loop.call_soon(|| VARIABLE.get()).await??;
        Ok((task, callback))
    });
    assert_eq!(seen.unwrap(), (2, 2));
    assert_eq!(runner.run(exchange(4)).unwrap(), 2);
    // Another runner has another one.
    assert_eq!(Runner::new().run(exchange(5)).unwrap(), -1);
}

/// RUN-009
fn the_context_is_captured_when_the_loop_is_made() {
    let mut runner = Runner::new();
    VARIABLE.set(10);
    runner.get_loop().unwrap();
    VARIABLE.set(20);
    assert_eq!(runner.run(exchange(11)).unwrap(), 10);
    assert_eq!(VARIABLE.get().unwrap(), 20);

    let mut runner = Runner::new();
    VARIABLE.set(30);
    assert_eq!(runner.run(exchange(31)).unwrap(), 30);
    VARIABLE.set(40);
    assert_eq!(runner.run(exchange(32)).unwrap(), 31);
    assert_eq!(VARIABLE.get().unwrap(), 40);

    // What a failed or panicked run has set stays too.
    let failed = runner.run::<(), _>(async {
        VARIABLE.set(33);
        Err(Error::Value("spam".into()))
    });
    assert!(failed.is_err());
    assert_eq!(runner.run(exchange(34)).unwrap(), 33);
    let panicked = runner.run::<(), _>(async {
        VARIABLE.set(35);
        panic!("boom")
    });
    assert!(panicked.is_err());
    assert_eq!(runner.run(exchange(36)).unwrap(), 35);
    assert_eq!(VARIABLE.get().unwrap(), 40);
}

fn tasks_of_one_run_go_on_in_the_next() {
    let (mut runner, record) = (Runner::new(), Record::default());
    let seen = record.clone();
    let task = runner.run(async move {
        Ok(asyncio::create_task(async move {
            seen.push("begun");
            asyncio::sleep(Duration::ZERO).await?;
            asyncio::sleep(Duration::ZERO).await?;
            asyncio::sleep(Duration::ZERO).await?;
            seen.push("ended");
            Ok(5)
        }))
    });
    let task = task.unwrap();
    assert!(!task.done() && task.cancelling() == 0);
    assert_eq!(record.take(), ["begun"]);
    assert_eq!(runner.run(task).unwrap(), 5);
    assert_eq!(record.take(), ["ended"]);
    runner.close().unwrap();
}

fn a_failed_run_leaves_the_runner_open() {
    let mut runner = Runner::new();
    let error = runner.run::<(), _>(async { Err(Error::Value("spam".into())) });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Value);
    assert!(!runner.get_loop().unwrap().is_closed());
    assert_eq!(runner.run(async { Ok(1) }).unwrap(), 1);
    let error = runner.run::<(), _>(async {
        asyncio::get_running_loop()?.stop();
        std::future::pending().await
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Runtime);
    assert_eq!(runner.run(async { Ok(2) }).unwrap(), 2);
}

fn the_factory_makes_the_loop_once() {
    let made = Rc::new(Cell::new(0));
    let count = made.clone();
    let mut runner = Runner::new().debug(true).loop_factory(move || {
        count.set(count.get() + 1);
        EventLoop::builder().selector(ParkSelector::new()).name("made").build()
    });
    assert_eq!(made.get(), 0, "not before it is needed");
    runner.run(async { asyncio::sleep(Duration::from_millis(1)).await }).unwrap();
    runner.run(asyncio::sleep(Duration::ZERO)).unwrap();
    let event_loop = runner.get_loop().unwrap();
    assert_eq!((made.get(), event_loop.name()), (1, Some("made")));
    assert!(event_loop.get_debug());
    runner.close().unwrap();
    assert!(event_loop.is_closed());
}

fn a_factory_that_fails_is_the_error_of_run_and_get_loop() {
    let (guard, dropped) = drop_guard();
    let mut runner = Runner::new().loop_factory(|| Err(Error::Value("no loop".into())));
    let polled = Cell::new(false);
    let error = runner.run(async {
        let _guard = guard;
        polled.set(true);
        Ok(())
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, "no loop".into()));
    assert!(!polled.get() && dropped.get());
    runner.close().unwrap();

    let mut runner = Runner::new().loop_factory(|| Err(Error::Value("no loop".into())));
    assert_eq!(runner.get_loop().unwrap_err().kind(), ErrorKind::Value);
    drop(runner);
}

fn dropping_the_runner_closes_its_loop() {
    let mut runner = Runner::new();
    let (guard, dropped) = drop_guard();
    let record = Record::default();
    let seen = record.clone();
    runner
        .run(async move {
            let _leftover = asyncio::create_task(async move {
                let _guard = guard;
                let cancelled = asyncio::sleep(Duration::from_secs(60)).await;
                asyncio::sleep(Duration::from_millis(1)).await?;
                seen.push("cleaned up");
                cancelled
            });
            asyncio::sleep(Duration::ZERO).await
        })
        .unwrap();
    let event_loop = runner.get_loop().unwrap();
    assert!(!dropped.get());
    drop(runner);
    assert!(event_loop.is_closed() && dropped.get());
    assert_eq!(record.take(), ["cleaned up"]);
}

fn dropping_a_runner_that_was_never_used_does_nothing() {
    drop(Runner::new());
    drop(Runner::default().debug(true).loop_factory(|| panic!("made")));
}

fn dropping_a_runner_while_another_loop_runs_closes_its_loop() {
    let mut inner = Runner::new();
    let (guard, dropped) = drop_guard();
    inner
        .run(async move {
            let _leftover = asyncio::create_task(async move {
                let _guard = guard;
                asyncio::sleep(Duration::from_secs(60)).await
            });
            Ok(())
        })
        .unwrap();
    let event_loop = inner.get_loop().unwrap();
    let reports = handler(&event_loop);
    let outer = asyncio::run(async move {
        drop(inner);
        asyncio::get_running_loop()
    });
    outer.unwrap();
    assert!(event_loop.is_closed() && dropped.get(), "its tasks could not be awaited, but they are gone");
    let messages: Vec<String> = reports.take().into_iter().map(|report| report.message).collect();
    assert_eq!(messages, ["Task was destroyed but it is pending!"]);
}

fn two_runners_may_be_used_in_turns() {
    let (mut one, mut two) = (Runner::new(), Runner::new());
    for value in 0..3 {
        assert_eq!(one.run(exchange(value)).unwrap(), value - 1);
        assert_eq!(two.run(exchange(value)).unwrap(), value - 1);
    }
    assert_ne!(one.get_loop().unwrap(), two.get_loop().unwrap());
    one.close().unwrap();
    assert_eq!(two.run(exchange(3)).unwrap(), 2);
}

fn a_loop_that_was_closed_behind_the_runner_is_an_error() {
    let mut runner = Runner::new();
    runner.get_loop().unwrap().close().unwrap();
    let polled = Cell::new(false);
    let error = runner.run(async {
        polled.set(true);
        Ok(())
    });
    assert_eq!(error.unwrap_err().to_string(), "Event loop is closed");
    assert!(!polled.get());
    runner.close().unwrap();
}

/// The borrow checker sees to the plain case; a cell does not help either.
fn close_inside_its_own_run_cannot_be() {
    let runner = Rc::new(RefCell::new(Runner::new()));
    let inside = runner.clone();
    let main = async move {
        assert!(inside.try_borrow_mut().is_err());
        let event_loop = asyncio::get_running_loop()?;
        assert_eq!(event_loop.close().unwrap_err().to_string(), "Cannot close a running event loop");
        Ok(())
    };
    runner.borrow_mut().run(main).unwrap();
    runner.borrow_mut().close().unwrap();
}

fn the_loop_of_a_runner_may_be_used_directly() {
    let mut runner = Runner::new();
    let event_loop = runner.get_loop().unwrap();
    assert_eq!(event_loop.run_until_complete(async { Ok(1) }).unwrap(), 1);
    let (record, seen) = (Record::default(), Record::default());
    let early = record.clone();
    event_loop.call_soon(move || early.push("queued before the run"));
    let late = record.clone();
    runner
        .run(async move {
            late.push("main");
            seen.push(());
            Ok(())
        })
        .unwrap();
    assert_eq!(record.take(), ["queued before the run", "main"]);
    assert_eq!(event_loop.run_until_complete(async { Ok(2) }).unwrap(), 2);
}

fn debug_prints_the_stage() {
    let mut runner = Runner::new();
    assert!(format!("{runner:?}").contains("new"));
    runner.get_loop().unwrap();
    assert!(format!("{runner:?}").contains("open"));
    let ((), records) = logs(|| runner.close().unwrap());
    assert_eq!(records, []);
    assert!(format!("{runner:?}").contains("closed"));
}
