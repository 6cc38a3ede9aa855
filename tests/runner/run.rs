//! `run`: what it gives, and that its loop is closed in every case.

use std::{
    cell::{Cell, RefCell},
    future::Future as StdFuture,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use asyncio::{ContextVar, Error, ErrorKind, EventLoop, Result, Runner};

use crate::{
    main_thread::tests,
    signals::set_environment,
    support::{Gate, Record, drop_guard, logs},
};

tests![
    run_gives_what_main_gives_and_closes_the_loop,
    run_inside_a_running_loop_is_refused,
    run_inside_a_callback_is_refused,
    debug_follows_the_environment_unless_it_is_said,
    run_makes_a_new_loop_each_time,
    run_works_on_every_thread,
    main_may_borrow,
    main_may_be_anything_that_becomes_a_future,
    main_is_dropped_before_run_returns,
    a_main_that_panics_is_an_error_and_is_not_reported_twice,
    a_main_that_stops_its_loop_is_an_error,
    a_main_that_is_cancelled_is_cancelled,
    main_is_the_current_task_in_a_context_of_its_own,
    no_loop_is_running_or_set_after_run,
    run_leaves_the_set_loop_alone,
    what_the_last_step_scheduled_still_runs,
    the_default_executor_is_shut_down_in_every_case,
    a_job_that_runs_at_the_end_is_waited_for,
    a_closed_loop_that_outlives_run_refuses,
];

/// RUN-001
fn run_gives_what_main_gives_and_closes_the_loop() {
    let kept = RefCell::new(None);
    let value = asyncio::run(async {
        kept.replace(Some(asyncio::get_running_loop()?));
        asyncio::sleep(Duration::ZERO).await?;
        Ok(42)
    });
    assert_eq!(value.unwrap(), 42);
    let event_loop = kept.take().unwrap();
    assert!(event_loop.is_closed() && !event_loop.is_running());

    let error = asyncio::run::<(), _>(async {
        kept.replace(Some(asyncio::get_running_loop()?));
        asyncio::sleep(Duration::ZERO).await?;
        Err(Error::Value("spam".into()))
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Value, "spam".into()));
    let event_loop = kept.take().unwrap();
    assert!(event_loop.is_closed() && !event_loop.is_running());
}

/// Panics when it is polled: for what must never be.
struct NeverPolled;

impl StdFuture for NeverPolled {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        panic!("polled");
    }
}

fn check_refusals() {
    let error = asyncio::run(NeverPolled).unwrap_err();
    let text = "asyncio.run() cannot be called from a running event loop";
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, text.into()));
    let error = Runner::new().run(NeverPolled).unwrap_err();
    let text = "Runner.run() cannot be called from a running event loop";
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, text.into()));
}

/// RUN-002
fn run_inside_a_running_loop_is_refused() {
    asyncio::run(async {
        check_refusals();
        // The loop goes on as if nothing had been.
        asyncio::sleep(Duration::ZERO).await?;
        assert!(asyncio::get_running_loop()?.is_running());
        Ok(())
    })
    .unwrap();

    // The runner that runs; it can be borrowed once only, so that nesting needs a second one, or a cell.
    let runner = Rc::new(RefCell::new(Runner::new()));
    let inside = runner.clone();
    runner
        .borrow_mut()
        .run(async move {
            assert!(inside.try_borrow_mut().is_err());
            check_refusals();
            Ok(())
        })
        .unwrap();
}

/// RUN-002
fn run_inside_a_callback_is_refused() {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        event_loop.call_soon(check_refusals).await?;
        event_loop.call_later(Duration::ZERO, check_refusals).await
    })
    .unwrap();
    // An argument that was refused has been dropped.
    let dropped = asyncio::run(async {
        let (guard, dropped) = drop_guard();
        let main = async move {
            let _guard = guard;
            Ok(())
        };
        asyncio::run(main).unwrap_err();
        Ok(dropped)
    });
    assert!(dropped.unwrap().get());
}

/// RUN-006
fn debug_follows_the_environment_unless_it_is_said() {
    let get_debug = || async { Ok(asyncio::get_running_loop()?.get_debug()) };
    for (variable, on) in [(None, false), (Some(""), false), (Some("1"), true)] {
        set_environment("ASYNCIO_DEBUG", variable);
        assert_eq!(asyncio::run(get_debug()).unwrap(), on);
        assert_eq!(Runner::new().run(get_debug()).unwrap(), on);
        for said in [false, true] {
            assert_eq!(Runner::new().debug(said).run(get_debug()).unwrap(), said);
            let opposite = move || EventLoop::builder().debug(!said).build();
            assert_eq!(Runner::new().debug(said).loop_factory(opposite).run(get_debug()).unwrap(), said);
        }
        // Unsaid, a loop from a factory stays as it was made.
        let made = || EventLoop::builder().debug(true).build();
        assert!(Runner::new().loop_factory(made).run(get_debug()).unwrap());
    }
}

fn run_makes_a_new_loop_each_time() {
    let get = || asyncio::run(async { asyncio::get_running_loop() }).unwrap();
    let (one, two) = (get(), get());
    assert_ne!(one, two);
    assert!(one.is_closed() && two.is_closed());
}

fn run_works_on_every_thread() {
    let threads = [0, 1, 2, 3].map(|number| {
        thread::spawn(move || {
            asyncio::run(async move {
                asyncio::sleep(Duration::from_millis(1)).await?;
                Ok(number)
            })
        })
    });
    assert_eq!(threads.map(|thread| thread.join().unwrap().unwrap()), [0, 1, 2, 3]);
}

fn main_may_borrow() {
    let name = String::from("asyncio");
    let mut lengths = Vec::new();
    let cell = Cell::new(0);
    let first = asyncio::run(async {
        lengths.push(name.len());
        asyncio::sleep(Duration::ZERO).await?;
        cell.set(1);
        Ok(&name[..1])
    });
    assert_eq!(first.unwrap(), "a");
    let mut runner = Runner::new();
    runner
        .run(async {
            lengths.push(1);
            asyncio::sleep(Duration::ZERO).await
        })
        .unwrap();
    assert_eq!((lengths, cell.get()), (vec![7, 1], 1));
}

fn main_may_be_anything_that_becomes_a_future() {
    asyncio::run(asyncio::sleep(Duration::ZERO)).unwrap();
    let mut boxed: Pin<Box<dyn StdFuture<Output = Result<i32>>>> = Box::pin(async { Ok(1) });
    assert_eq!(asyncio::run(&mut boxed).unwrap(), 1);
    assert_eq!(asyncio::run(std::future::ready(Ok(2))).unwrap(), 2);
    let mut runner = Runner::new();
    let event_loop = runner.get_loop().unwrap();
    let future = event_loop.create_future();
    future.set_result(String::from("text")).unwrap();
    // By reference: cloned, and there for another look.
    assert_eq!(runner.run(&future).unwrap(), "text");
    assert_eq!(runner.run(&future).unwrap(), "text");
    assert_eq!(runner.run(future).unwrap(), "text");
    let task = event_loop.create_task(async { Ok(3) });
    assert_eq!(runner.run(task).unwrap(), 3);
    let handle = event_loop.call_soon(|| 4);
    assert_eq!(runner.run(handle).unwrap(), 4);
}

fn main_is_dropped_before_run_returns() {
    let (guard, dropped) = drop_guard();
    let (seen, record) = (dropped.clone(), Record::default());
    let leftover_record = record.clone();
    asyncio::run(async move {
        let _guard = guard;
        let _leftover = asyncio::create_task(async move {
            let result = asyncio::sleep(Duration::from_secs(60)).await;
            leftover_record.push(seen.get());
            result
        });
        asyncio::sleep(Duration::ZERO).await
    })
    .unwrap();
    assert!(dropped.get());
    assert_eq!(record.take(), [true], "main's end comes before the clean-up");
}

fn a_main_that_panics_is_an_error_and_is_not_reported_twice() {
    let kept = RefCell::new(None);
    let (guard, dropped) = drop_guard();
    let (left, left_dropped) = drop_guard();
    let (error, records) = logs(|| {
        asyncio::run::<(), _>(async {
            let _guard = guard;
            kept.replace(Some(asyncio::get_running_loop()?));
            let _leftover = asyncio::create_task(async move {
                let _left = left;
                asyncio::sleep(Duration::from_secs(60)).await
            });
            asyncio::sleep(Duration::ZERO).await?;
            panic!("spam {}", 1);
        })
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Panicked, "spam 1".into()));
    assert!(dropped.get() && left_dropped.get());
    assert!(kept.take().unwrap().is_closed());
    assert_eq!(records, [], "whoever called run has the error");

    // The same in a runner, which can run again.
    let mut runner = Runner::new();
    let (error, records) = logs(|| runner.run::<(), _>(async { panic!("boom") }));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Panicked);
    assert_eq!(records, []);
    assert_eq!(runner.run(async { Ok(1) }).unwrap(), 1);
}

fn a_main_that_stops_its_loop_is_an_error() {
    let (guard, dropped) = drop_guard();
    let kept = RefCell::new(None);
    let error = asyncio::run::<(), _>(async {
        let _guard = guard;
        let event_loop = asyncio::get_running_loop()?;
        event_loop.stop();
        kept.replace(Some(event_loop));
        asyncio::sleep(Duration::from_secs(60)).await
    });
    let error = error.unwrap_err();
    let text = "Event loop stopped before Future completed.";
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, text.into()));
    assert!(dropped.get());
    assert!(kept.take().unwrap().is_closed());
}

fn a_main_that_is_cancelled_is_cancelled() {
    let error = asyncio::run(async {
        asyncio::current_task()?.unwrap().cancel_with("enough");
        asyncio::sleep(Duration::from_secs(60)).await
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Cancelled, "enough".into()));

    // Nobody takes it, for what main waits for is foreign.
    let (gate, polls) = (Gate::default(), Gate::default());
    let waiting = polls.clone();
    let error = asyncio::run(async move {
        asyncio::current_task()?.unwrap().cancel();
        let _other = &polls;
        gate.await;
        Ok(())
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(waiting.polls(), 0);
}

static VARIABLE: ContextVar<i32> = ContextVar::with_default("variable", || -1);

fn main_is_the_current_task_in_a_context_of_its_own() {
    VARIABLE.set(1);
    asyncio::run(async {
        let task = asyncio::current_task()?.unwrap();
        assert_eq!(asyncio::all_tasks()?, std::slice::from_ref(&task));
        assert!(!task.done());
        assert_eq!(VARIABLE.get()?, 1);
        VARIABLE.set(2);
        asyncio::sleep(Duration::ZERO).await?;
        assert_eq!(VARIABLE.get()?, 2);
        Ok(())
    })
    .unwrap();
    assert_eq!(VARIABLE.get().unwrap(), 1);
}

fn no_loop_is_running_or_set_after_run() {
    for main in [Ok(()), Err(Error::Value("spam".into()))] {
        drop(asyncio::run(async { main }));
        assert_eq!(asyncio::get_running_loop().unwrap_err().kind(), ErrorKind::Runtime);
        assert!(asyncio::current_task().is_err());
    }
    thread::spawn(|| {
        asyncio::run(asyncio::sleep(Duration::ZERO)).unwrap();
        assert_eq!(asyncio::get_event_loop().unwrap_err().kind(), ErrorKind::Runtime);
    })
    .join()
    .unwrap();
}

fn run_leaves_the_set_loop_alone() {
    let event_loop = asyncio::new_event_loop().unwrap();
    asyncio::set_event_loop(&event_loop);
    let inside = asyncio::run(async { asyncio::get_event_loop() }).unwrap();
    assert_ne!(inside, event_loop);
    assert_eq!(asyncio::get_event_loop().unwrap(), event_loop);
    assert!(!event_loop.is_closed());
    asyncio::set_event_loop(None);
}

fn what_the_last_step_scheduled_still_runs() {
    let record = Record::default();
    let seen = record.clone();
    asyncio::run(async move {
        let event_loop = asyncio::get_running_loop()?;
        let (inner, next) = (seen.clone(), event_loop.clone());
        event_loop.call_soon(move || {
            seen.push("scheduled by the last step");
            next.call_soon(move || inner.push("scheduled by that"));
        });
        Ok(())
    })
    .unwrap();
    // The executor's shutdown is awaited in the loop, so that what comes later may run as well, in order.
    assert_eq!(record.items()[0], "scheduled by the last step");
}

/// An executor that counts what happens to it.
#[derive(Clone, Default)]
struct Counting {
    submitted: Arc<AtomicUsize>,
    shut_down: Arc<AtomicUsize>,
}

impl asyncio::Executor for Counting {
    fn submit(&self, job: asyncio::Job) -> Result<()> {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        thread::spawn(job);
        Ok(())
    }

    fn shutdown(&self, done: Box<dyn FnOnce() + Send>) {
        self.shut_down.fetch_add(1, Ordering::SeqCst);
        thread::spawn(done);
    }
}

fn the_default_executor_is_shut_down_in_every_case() {
    type Main = fn() -> Result<()>;
    let mains: [(Main, Option<ErrorKind>); 3] = [
        (|| Ok(()), None),
        (|| Err(Error::Value("spam".into())), Some(ErrorKind::Value)),
        (|| panic!("boom"), Some(ErrorKind::Panicked)),
    ];
    for (main, kind) in mains {
        let executor = Counting::default();
        let default = executor.clone();
        let result = asyncio::run(async move {
            let event_loop = asyncio::get_running_loop()?;
            event_loop.set_default_executor(default)?;
            assert_eq!(event_loop.run_in_executor(None, || 5).await?, 5);
            main()
        });
        assert_eq!(result.err().map(|error| error.kind()), kind);
        assert_eq!(executor.submitted.load(Ordering::SeqCst), 1);
        assert_eq!(executor.shut_down.load(Ordering::SeqCst), 1);
    }
}

fn a_job_that_runs_at_the_end_is_waited_for() {
    for fails in [false, true] {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = ended.clone();
        let result = asyncio::run(async move {
            let (started, has_started) = std::sync::mpsc::channel();
            let job = asyncio::get_running_loop()?.run_in_executor(None, move || {
                started.send(()).unwrap();
                thread::sleep(Duration::from_millis(30));
                count.fetch_add(1, Ordering::SeqCst);
            });
            has_started.recv().unwrap();
            drop(job);
            if fails { Err(Error::Value("spam".into())) } else { Ok(()) }
        });
        assert_eq!(result.is_err(), fails);
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }
}

fn a_closed_loop_that_outlives_run_refuses() {
    let event_loop = asyncio::run(async { asyncio::get_running_loop() }).unwrap();
    let error = event_loop.run_until_complete(NeverPolled).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Runtime, "Event loop is closed".into()));
    let handle = event_loop.call_soon(|| ());
    assert_eq!(asyncio::run(handle).unwrap_err().to_string(), "Event loop is closed");
}
