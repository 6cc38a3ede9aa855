//! What nobody received: the exception handler, the default record, and where reports go.

use std::{
    cell::{Cell, RefCell},
    io::Write,
    os::{fd::AsRawFd, unix::net::UnixStream},
    rc::Rc,
    thread,
    time::Duration,
};

use asyncio::{
    Context, ContextVar, Error, ErrorKind, EventLoop, ExceptionContext, ExceptionHandler, current_task, sleep,
};
use tracing::Level;

use crate::support::{self, Record, handler, logs, new_loop, run_in_child, tick, virtual_loop};

fn messages(reports: &Record<ExceptionContext>) -> Vec<String> {
    reports.take().into_iter().map(|report| report.message).collect()
}

const FUTURE: &str = "Future exception was never retrieved";
const TASK: &str = "Task exception was never retrieved";

/// EXC-001
#[test]
fn a_callback_that_panics_is_logged_and_the_batch_goes_on() {
    let (event_loop, _clock) = virtual_loop();
    let record = Record::default();
    let pushed = record.clone();
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| panic!("boom"));
        event_loop.call_soon(move || pushed.push(1));
        tick(&event_loop);
    });
    assert_eq!(record.take(), [1]);
    let check = |logged: &[(Level, String)]| {
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert_eq!(logged[0].0, Level::ERROR);
        assert!(logged[0].1.starts_with("Exception in callback"), "{logged:?}");
        assert!(logged[0].1.contains("boom"), "{logged:?}");
    };
    check(&logged);
    let stopper = event_loop.clone();
    let ((), logged) = logs(|| {
        event_loop.call_later(Duration::from_millis(10), || panic!("boom"));
        event_loop.call_later(Duration::from_millis(20), move || stopper.stop());
        event_loop.run_forever().unwrap();
    });
    check(&logged);
}

/// EXC-002
#[test]
fn the_handler_gets_message_exception_and_handle() {
    let event_loop = new_loop();
    assert!(event_loop.get_exception_handler().is_none());
    let calls = Record::default();
    let record = calls.clone();
    let handler: ExceptionHandler =
        Rc::new(move |event_loop: &EventLoop, context| record.push((event_loop.clone(), context.clone())));
    event_loop.set_exception_handler(Some(handler.clone()));
    assert!(Rc::ptr_eq(&event_loop.get_exception_handler().unwrap(), &handler));
    let handle = event_loop.call_soon(|| panic!("boom"));
    tick(&event_loop);
    let calls = calls.take();
    assert_eq!(calls.len(), 1);
    let (of_loop, context) = &calls[0];
    assert_eq!(of_loop, &event_loop);
    assert_eq!(context.keys(), ["exception", "handle", "message"]);
    assert!(context.message.starts_with("Exception in callback"), "{}", context.message);
    let exception = context.exception.as_ref().unwrap();
    assert_eq!((exception.kind(), exception.to_string()), (ErrorKind::Panicked, "boom".into()));
    assert_eq!(context.handle, Some(handle.any()));
    assert_ne!(context.handle, Some(event_loop.call_soon(|| ()).any()));
}

/// Of the callback or the task that it is called for, as the specification says.
#[test]
fn the_handler_runs_in_the_context_of_what_failed() {
    static V: ContextVar<u32> = ContextVar::new("v");
    let event_loop = new_loop();
    let seen = Record::default();
    let record = seen.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |_, _| record.push(V.get().ok()))));
    let place = |value: u32| {
        let context = Context::new();
        context.run(|| V.set(value)).unwrap();
        event_loop.in_context(&context)
    };
    place(1).call_soon(|| panic!("expected: a callback"));
    place(2).call_soon(|| {
        V.set(3);
        panic!("expected: it has changed its context");
    });
    drop(place(4).create_task(async { Err::<(), _>(Error::other("nobody is left")) }));
    drop(place(5).create_task(async {
        sleep(Duration::ZERO).await?;
        V.set(6);
        drop(current_task()?.unwrap().get_context());
        Err::<(), _>(Error::other("its context is shared"))
    }));
    let panics = place(7).create_task(async {
        sleep(Duration::ZERO).await?;
        if true { panic!("expected: a task") } else { asyncio::ok(()) }
    });
    let (ours, theirs) = UnixStream::pair().unwrap();
    (&theirs).write_all(b"x").unwrap();
    let own_loop = event_loop.clone();
    let number = ours.as_raw_fd();
    place(8)
        .add_reader(&ours, move || {
            own_loop.remove_reader(&number).unwrap();
            panic!("expected: a reader");
        })
        .unwrap();
    event_loop.run_until_complete(sleep(Duration::from_millis(20))).unwrap();
    let mut values = seen.take();
    values.sort();
    assert_eq!(values, [1, 3, 4, 6, 7, 8].map(Some));
    drop(panics);

    // A task has given its context back when it is too late; the loop's own callbacks go on in theirs.
    let fails = place(9).create_task(async { Err::<(), _>(Error::other("somebody is left")) });
    tick(&event_loop);
    drop(fails);
    place(10).call_soon(|| ());
    event_loop.call_exception_handler(&ExceptionContext::new("of nobody"));
    assert_eq!(seen.take(), [None, None]);
}

/// EXC-003
#[test]
fn without_a_handler_again_the_default_one_writes() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.set_exception_handler(None);
    assert!(event_loop.get_exception_handler().is_none());
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| panic!("boom"));
        tick(&event_loop);
    });
    assert_eq!(reports.len(), 0);
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0].0, Level::ERROR);
    assert!(logged[0].1.starts_with("Exception in callback"));
}

/// EXC-005
#[test]
fn a_handler_may_pass_on_to_the_default_one() {
    let event_loop = new_loop();
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |event_loop, context| {
        count.set(count.get() + 1);
        event_loop.default_exception_handler(context);
    })));
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| panic!("boom"));
        tick(&event_loop);
    });
    assert_eq!(calls.get(), 1);
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0].0, Level::ERROR);
    assert!(logged[0].1.contains("boom"));
}

/// EXC-006
#[test]
fn the_default_record_has_the_keys_in_order() {
    let event_loop = new_loop();
    let context = ExceptionContext::new("mm").extra("zeta", 1).extra("alpha", 2);
    let ((), logged) = logs(|| event_loop.call_exception_handler(&context));
    assert_eq!(logged, [(Level::ERROR, "mm\nalpha: 2\nzeta: 1".to_owned())]);
    assert_eq!(context.keys(), ["alpha", "message", "zeta"]);
}

/// Keys of the caller's own and ours are one order; the error comes last, the place is not a key.
#[test]
fn the_default_record_sorts_all_keys_together() {
    let event_loop = new_loop();
    let future = event_loop.create_future::<()>();
    let context = ExceptionContext::new("mm")
        .extra("zeta", 1)
        .extra("golf", "g")
        .exception(Error::other("oh"))
        .socket(7)
        .future(future.any())
        .source_location(std::panic::Location::caller());
    let ((), logged) = logs(|| event_loop.default_exception_handler(&context));
    let lines: Vec<&str> = logged[0].1.lines().collect();
    assert_eq!(lines[0], "mm");
    assert!(lines[1].starts_with("future: <Future pending"), "{lines:?}");
    assert_eq!(&lines[2..], ["golf: g", "socket: 7", "zeta: 1", "Other: oh"]);
    assert_eq!(context.keys(), ["exception", "future", "golf", "message", "socket", "zeta"]);
}

/// EXC-008: of readers and writers. Signal handlers need the main thread and have their test in `tests/signals`.
#[test]
fn a_reader_that_panics_stays() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let line = line!() + 1;
    event_loop.add_reader(&ours, || panic!("read")).unwrap();
    event_loop.add_writer(&ours, || panic!("write")).unwrap();
    for _ in 0..3 {
        tick(&event_loop);
        let reports = reports.take();
        let mut errors: Vec<_> = reports.iter().map(|report| report.exception.clone().unwrap().to_string()).collect();
        errors.sort();
        assert_eq!(errors, ["read", "write"]);
        for report in reports {
            assert!(report.message.starts_with("Exception in callback"), "{}", report.message);
            assert!(report.handle.is_some());
            let place = report.source_location.unwrap();
            assert!(place.file().ends_with("reports.rs") && (line..line + 2).contains(&place.line()), "{place}");
        }
    }
    assert!(event_loop.remove_reader(&ours).unwrap());
    assert!(event_loop.remove_writer(&ours).unwrap());
    tick(&event_loop);
    assert_eq!(reports.len(), 0);
}

/// EXC-009
#[test]
fn a_job_that_panics_is_the_error_of_who_awaits_it() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let pool = asyncio::ThreadPool::new(1);
    event_loop
        .run_until_complete(async {
            let event_loop = asyncio::get_running_loop()?;
            let worker = event_loop.run_in_executor(Some(&pool), || thread::current().id()).await?;
            let error = event_loop.run_in_executor(Some(&pool), || panic!("pool")).await.map(|(): ()| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Panicked);
            assert!(error.to_string().contains("pool"), "{error}");
            let after = event_loop.run_in_executor(Some(&pool), || thread::current().id()).await?;
            assert_eq!(after, worker, "the thread goes on");
            let error = asyncio::to_thread::<()>(|| panic!("pool too")).await.unwrap_err();
            assert!(error.to_string().contains("pool too"), "{error}");
            sleep(Duration::ZERO).await
        })
        .unwrap();
    event_loop.close().unwrap();
    assert_eq!(messages(&reports), Vec::<String>::new());
}

/// A handler that fails is reported by default, together with what it was called with; the loop goes on.
#[test]
fn a_handler_that_panics_loses_nothing() {
    let event_loop = new_loop();
    event_loop.set_exception_handler(Some(Rc::new(|_, _| panic!("bad handler"))));
    let record = Record::default();
    let pushed = record.clone();
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| panic!("boom"));
        event_loop.call_soon(move || pushed.push(1));
        tick(&event_loop);
        event_loop.call_exception_handler(&ExceptionContext::new("mm"));
    });
    assert_eq!(record.take(), [1]);
    assert_eq!(logged.len(), 2, "{logged:?}");
    for ((level, text), what) in logged.iter().zip(["boom", "mm"]) {
        assert_eq!(*level, Level::ERROR);
        assert!(text.starts_with("Unhandled error in exception handler"), "{text}");
        assert!(text.contains("bad handler") && text.contains(what), "{text}");
    }
}

/// Nothing is borrowed while the handler runs.
#[test]
fn a_handler_may_change_handlers_schedule_and_report() {
    let event_loop = new_loop();
    let record = Record::default();
    let (first, second) = (record.clone(), record.clone());
    event_loop.set_exception_handler(Some(Rc::new(move |event_loop, context| {
        first.push(format!("first {}", context.message));
        let second = second.clone();
        event_loop.set_exception_handler(Some(Rc::new(move |_, context| {
            second.push(format!("second {}", context.message));
        })));
        event_loop.call_exception_handler(&ExceptionContext::new("inner"));
        event_loop.call_soon(|| panic!("later"));
        event_loop.create_task(async { Ok(()) });
    })));
    event_loop.call_exception_handler(&ExceptionContext::new("outer"));
    tick(&event_loop);
    let seen = record.take();
    assert_eq!(seen[..2], ["first outer", "second inner"]);
    assert!(seen[2].starts_with("second Exception in callback"), "{seen:?}");
    assert_eq!(seen.len(), 3);
}

/// The handler that is replaced while it runs is dropped after it.
#[test]
fn a_handler_may_take_itself_away() {
    let event_loop = new_loop();
    let (guard, dropped) = support::drop_guard();
    let seen = dropped.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |event_loop, _| {
        let _ = &guard;
        event_loop.set_exception_handler(None);
        assert!(!seen.get());
    })));
    event_loop.call_exception_handler(&ExceptionContext::new("mm"));
    assert!(dropped.get());
}

#[test]
fn a_handler_may_try_to_close_and_to_run_the_loop() {
    let event_loop = new_loop();
    let results = Record::default();
    let record = results.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |event_loop, _| {
        record.push((event_loop.run_forever().is_ok(), event_loop.close().is_ok()));
    })));
    event_loop.call_soon(|| panic!("boom"));
    tick(&event_loop);
    assert_eq!(results.take(), [(false, false)], "it runs");
    assert!(!event_loop.is_closed());
    event_loop.stop();
    event_loop.call_exception_handler(&ExceptionContext::new("mm"));
    assert_eq!(results.take(), [(true, true)], "it does not");
    assert!(event_loop.is_closed());
}

/// What close reports is reported while nothing is borrowed.
#[test]
fn a_handler_may_close_and_schedule_in_close() {
    let event_loop = new_loop();
    let record = Record::default();
    let messages = record.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |event_loop, context| {
        messages.push(context.message.clone());
        assert!(event_loop.is_closed());
        event_loop.close().unwrap();
        // This handle fails unread, which comes here as well.
        if context.task.is_some() {
            drop(event_loop.call_soon(|| ()));
        }
    })));
    let task = event_loop.create_task(std::future::pending::<asyncio::Result<()>>());
    let other = event_loop.create_task(std::future::pending::<asyncio::Result<()>>());
    tick(&event_loop);
    event_loop.close().unwrap();
    assert!(task.cancelled() && other.cancelled());
    let messages = record.take();
    let (destroyed, unread) = ("Task was destroyed but it is pending!", "Handle exception was never retrieved");
    assert_eq!(messages, [destroyed, unread, destroyed, unread]);
}

/// Whoever awaits a callback, or holds a result, gets the failure; an `Err` that a callback returns is its value.
#[test]
fn what_somebody_receives_is_not_reported() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop
        .run_until_complete(async {
            let event_loop = asyncio::get_running_loop()?;
            let error = event_loop.call_soon(|| panic!("awaited")).await.map(|(): ()| ()).unwrap_err();
            assert_eq!(error.to_string(), "awaited");
            let error = event_loop.call_later(Duration::ZERO, || panic!("timer")).await.map(|(): ()| ()).unwrap_err();
            assert_eq!(error.to_string(), "timer");
            let task = asyncio::create_task::<(), _>(async { panic!("task") });
            assert_eq!(task.await.unwrap_err().to_string(), "task");
            drop(event_loop.call_soon(|| Err::<(), _>(Error::other("a value"))));
            let future = event_loop.create_future::<()>();
            future.set_exception(Error::other("looked at"))?;
            assert!(future.exception()?.is_some());
            let task = asyncio::create_task::<(), _>(async { Err(Error::other("looked at")) });
            sleep(Duration::ZERO).await?;
            assert!(task.result().is_err());
            let future = event_loop.create_future::<()>();
            future.set_exception(Error::other("cancel looks"))?;
            assert!(!future.cancel());
            Ok(())
        })
        .unwrap();
    event_loop.close().unwrap();
    assert_eq!(messages(&reports), Vec::<String>::new());
}

/// A handle that is held is not awaited: the panic is reported at once, once, and stays for who asks later.
#[test]
fn a_panic_that_nobody_awaits_is_reported_at_once_and_once() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let handle = event_loop.call_soon(|| panic!("callback"));
    let task = event_loop.create_task::<(), _>(async { panic!("task") });
    let with_callback = event_loop.create_task::<(), _>(async { panic!("with a done callback") });
    with_callback.add_done_callback(|_| ());
    drop(event_loop.create_task::<(), _>(async { panic!("detached") }));
    tick(&event_loop);
    let seen = reports.take();
    let errors: Vec<_> = seen.iter().map(|report| report.exception.clone().unwrap().to_string()).collect();
    assert_eq!(errors, ["callback", "task", "with a done callback", "detached"]);
    assert_eq!(seen[1].message, TASK);
    assert_eq!(seen[1].task.as_ref().unwrap(), &task.any());
    assert_eq!(seen[1].keys(), ["exception", "message", "task"]);
    drop(seen);
    assert_eq!(event_loop.run_until_complete(handle).map(|(): ()| ()).unwrap_err().to_string(), "callback");
    assert_eq!(task.result().unwrap_err().to_string(), "task");
    drop((task, with_callback));
    tick(&event_loop);
    event_loop.close().unwrap();
    assert_eq!(messages(&reports), Vec::<String>::new());
}

/// An error waits for the last handle; a detached task's is reported when it ends.
#[test]
fn an_error_that_nobody_looked_at_is_reported_with_the_last_handle() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let line = line!() + 1;
    let future = event_loop.create_future::<()>();
    let (clone, id) = (future.clone(), future.any());
    future.set_exception(Error::other("future")).unwrap();
    drop(future);
    assert_eq!(reports.len(), 0);
    drop(clone);
    let seen = reports.take();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].message.as_str(), seen[0].keys()), (FUTURE, vec!["exception", "future", "message"]));
    assert_eq!(seen[0].future.as_ref(), Some(&id));
    assert_eq!(seen[0].exception.as_ref().unwrap().to_string(), "future");
    assert_eq!(seen[0].source_location.unwrap().line(), line);

    let line = line!() + 1;
    let task = event_loop.create_task::<(), _>(async { Err(Error::other("task")) });
    let any = task.any();
    tick(&event_loop);
    drop(task);
    assert_eq!(reports.len(), 0);
    let id = any.id();
    drop(any);
    let seen = reports.take();
    assert_eq!((seen.len(), seen[0].message.as_str(), seen[0].keys()), (1, TASK, vec!["exception", "message", "task"]));
    assert_eq!(seen[0].task.as_ref().unwrap().id(), id);
    assert_eq!(seen[0].source_location.unwrap().line(), line);
    drop(seen);

    drop(event_loop.create_task::<(), _>(async {
        sleep(Duration::ZERO).await?;
        Err(Error::other("detached"))
    }));
    (0..3).for_each(|_| tick(&event_loop));
    let seen = reports.take();
    assert_eq!((seen.len(), seen[0].message.as_str()), (1, TASK));
    drop(seen);
    // Reported once: the handles in the reports were the last ones.
    tick(&event_loop);
    assert_eq!(messages(&reports), Vec::<String>::new());
}

/// Cancellations are nobody's fault.
#[test]
fn cancelled_futures_and_tasks_are_not_reported() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<()>();
    future.cancel();
    drop(future);
    let task = event_loop.create_task(std::future::pending::<asyncio::Result<()>>());
    task.cancel();
    drop(task);
    drop(event_loop.create_task::<(), _>(async { Err(Error::cancelled()) }));
    event_loop.call_soon(|| ()).cancel();
    (0..3).for_each(|_| tick(&event_loop));
    event_loop.close().unwrap();
    assert_eq!(messages(&reports), Vec::<String>::new());
}

/// A report that arises on another thread comes to the handler on the loop's.
#[test]
fn what_other_threads_drop_is_reported_on_the_loops_thread() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let threads = Rc::new(RefCell::new(Vec::new()));
    let seen = threads.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |event_loop, context| {
        let error = context.exception.as_ref().unwrap().to_string();
        seen.borrow_mut().push((thread::current().id(), context.message.clone(), error));
        event_loop.stop();
    })));
    let future = event_loop.create_future::<()>();
    future.set_exception(Error::other("future")).unwrap();
    thread::spawn(move || drop(future));
    event_loop.run_forever().unwrap();
    let task = event_loop.create_task::<(), _>(async { Err(Error::other("task")) });
    tick(&event_loop);
    thread::spawn(move || drop(task));
    event_loop.run_forever().unwrap();
    // Dropped elsewhere while it runs: reported when it ends.
    let task = event_loop.create_task::<(), _>(async { Err(Error::other("ends later")) });
    thread::spawn(move || drop(task)).join().unwrap();
    event_loop.run_forever().unwrap();
    let here = thread::current().id();
    let expected = [(FUTURE, "future"), (TASK, "task"), (TASK, "ends later")];
    assert_eq!(*threads.borrow(), expected.map(|(message, error)| (here, message.to_owned(), error.to_owned())));
}

/// A report that is under way when the loop is closed is not lost.
#[test]
fn a_report_from_another_thread_survives_the_close() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (future, task) = failed_future_and_task(&event_loop);
    let ((), logged) = logs(|| {
        thread::spawn(move || drop((future, task))).join().unwrap();
        event_loop.close().unwrap();
    });
    let mut all = messages(&reports);
    all.extend(logged.into_iter().map(|(_, text)| text.lines().next().unwrap().to_owned()));
    all.sort();
    assert_eq!(all, [FUTURE, TASK]);
}

/// And the same where the loop is dropped instead, with nobody to ask for.
#[test]
fn a_report_from_another_thread_survives_the_loop() {
    let event_loop = new_loop();
    let (future, task) = failed_future_and_task(&event_loop);
    let ((), logged) = logs(|| {
        thread::spawn(move || drop((future, task))).join().unwrap();
        drop(event_loop);
    });
    let mut all: Vec<_> = logged.iter().map(|(_, text)| text.lines().next().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, [FUTURE, TASK]);
}

fn failed_future_and_task(event_loop: &EventLoop) -> (asyncio::Future<()>, asyncio::Task<()>) {
    let future = event_loop.create_future::<()>();
    future.set_exception(Error::other("lost?")).unwrap();
    let task = event_loop.create_task::<(), _>(async { Err(Error::other("lost?")) });
    tick(event_loop);
    (future, task)
}

/// On its own thread a closed loop's handler still hears; other threads write the record themselves.
#[test]
fn a_closed_loop_is_reported_for_all_the_same() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (here, there) = (failed_future_and_task(&event_loop), failed_future_and_task(&event_loop));
    event_loop.close().unwrap();
    let ((), logged) = logs(|| drop(here));
    assert_eq!((messages(&reports), logged.len()), (vec![FUTURE.to_owned(), TASK.to_owned()], 0));
    let logged = thread::spawn(move || logs(|| drop(there)).1).join().unwrap();
    let texts: Vec<_> = logged.iter().map(|(level, text)| (*level, text.lines().next().unwrap())).collect();
    assert_eq!(texts, [(Level::ERROR, FUTURE), (Level::ERROR, TASK)]);
    assert!(logged.iter().all(|(_, text)| text.contains("Other: lost?")), "{logged:?}");
    assert_eq!(reports.len(), 0);
}

/// What a call on a closed loop gives is born failed; unread, that is reported too.
#[test]
fn errors_of_a_closed_loop_are_reported_if_nobody_looks() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    event_loop.close().unwrap();
    drop(event_loop.call_soon(|| ()));
    drop(event_loop.create_task(async { Ok(()) }));
    drop(event_loop.run_in_executor(None, || ()));
    drop(event_loop.call_soon_threadsafe(|| ()));
    drop(event_loop.threadsafe().run_coroutine_threadsafe(async { Ok(()) }));
    let seen = reports.take();
    assert_eq!(seen.len(), 5, "{seen:?}");
    for report in seen {
        assert!(report.message.ends_with("exception was never retrieved"), "{}", report.message);
        assert_eq!(report.exception.unwrap().to_string(), "Event loop is closed");
    }
}

/// Where the loop is gone, the default record is written, whatever handler it had.
#[test]
fn a_loop_that_is_gone_is_reported_for_by_default() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let (here, there) = (failed_future_and_task(&event_loop), failed_future_and_task(&event_loop));
    drop(event_loop);
    let ((), logged) = logs(|| drop(here));
    let first_lines = |logged: &[(Level, String)]| {
        logged.iter().map(|(level, text)| (*level, text.lines().next().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let expected = [(Level::ERROR, FUTURE.to_owned()), (Level::ERROR, TASK.to_owned())];
    assert_eq!(first_lines(&logged), expected);
    let logged = thread::spawn(move || logs(|| drop(there)).1).join().unwrap();
    assert_eq!(first_lines(&logged), expected);
    assert_eq!(reports.len(), 0);
}

/// A drop in a callback that panics reports too: the handler runs while the stack unwinds.
#[test]
fn reports_may_arise_while_a_callback_panics() {
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let future = event_loop.create_future::<()>();
    future.set_exception(Error::other("unread")).unwrap();
    event_loop.call_soon(move || {
        let _future = future;
        panic!("boom");
    });
    tick(&event_loop);
    let errors: Vec<_> = reports.take().iter().map(|report| report.exception.clone().unwrap().to_string()).collect();
    assert_eq!(errors, ["unread", "boom"]);
}

/// Without any subscriber the record goes to stderr; so it does on a thread that has none while another has one.
#[test]
fn without_a_subscriber_reports_go_to_stderr() {
    let Some(output) = run_in_child("reports::without_a_subscriber_reports_go_to_stderr", &[]) else {
        let event_loop = new_loop();
        event_loop.call_exception_handler(&ExceptionContext::new("no subscriber").extra("key", "value"));
        event_loop.set_debug(true);
        event_loop.set_slow_callback_duration(Duration::ZERO);
        tick(&event_loop);
        let ((), logged) = logs(|| {
            event_loop.call_exception_handler(&ExceptionContext::new("to the subscriber"));
            thread::spawn(|| {
                let event_loop = new_loop();
                event_loop.call_exception_handler(&ExceptionContext::new("another thread"));
            })
            .join()
            .unwrap();
        });
        assert_eq!(logged, [(Level::ERROR, "to the subscriber".to_owned())]);
        event_loop.call_exception_handler(&ExceptionContext::new("subscriber gone"));
        return;
    };
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no subscriber\nkey: value\n"), "{text}");
    assert!(text.contains("Executing <Handle "), "{text}");
    assert!(text.contains("another thread\n"), "{text}");
    assert!(text.contains("subscriber gone\n"), "{text}");
    assert!(!text.contains("to the subscriber"), "{text}");
}

/// A record is written of what can be written: the error's own text is other people's code.
#[test]
fn an_error_whose_text_panics_harms_nobody() {
    #[derive(Debug)]
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no words")
        }
    }
    impl std::error::Error for Unspeakable {}
    let event_loop = new_loop();
    let context = || ExceptionContext::new("what happened").exception(Error::other(Unspeakable));
    let ((), records) = logs(|| event_loop.call_exception_handler(&context()));
    assert!(records[0].1.starts_with("what happened"), "{records:?}");
    event_loop.set_exception_handler(Some(Rc::new(|_, _| panic!("the handler's own"))));
    let ((), records) = logs(|| event_loop.call_exception_handler(&context()));
    assert!(records[0].1.contains("the handler's own") && records[0].1.contains("what happened"), "{records:?}");
}
