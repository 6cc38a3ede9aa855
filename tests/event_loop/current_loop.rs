//! Which loop is the current one, by thread.
use std::{thread, time::Duration};

use asyncio::{
    ErrorKind, Future, ensure_future, gather, get_event_loop, get_running_loop, new_event_loop, set_event_loop, shield,
};

use crate::{
    MS, assert_error,
    support::{Record, deadline, handler, new_loop, tick},
    value_error,
};

const NO_RUNNING: &str = "no running event loop";

/// CUR-001
#[test]
fn there_is_no_running_loop_outside_of_one() {
    assert_error(get_running_loop(), ErrorKind::Runtime, NO_RUNNING);
    let event_loop = new_loop();
    assert_error(get_running_loop(), ErrorKind::Runtime, NO_RUNNING);
    set_event_loop(&event_loop);
    assert_error(get_running_loop(), ErrorKind::Runtime, NO_RUNNING);
    set_event_loop(None);
}

/// CUR-002
#[test]
fn coroutines_and_callbacks_see_the_loop_they_run_in() {
    let _deadline = deadline();
    let (event_loop, record) = (new_loop(), Record::default());
    let seen = record.clone();
    let mut soon = event_loop.call_soon(move || seen.push(("soon", get_running_loop().unwrap())));
    let seen = record.clone();
    let mut later = event_loop.call_later(MS, move || seen.push(("later", get_running_loop().unwrap())));
    let failed = event_loop.run_until_complete(async {
        record.push(("coroutine", get_running_loop()?));
        (&mut soon).await?;
        (&mut later).await?;
        Err::<(), _>(value_error("over"))
    });
    assert_error(failed, ErrorKind::Value, "over");
    let mut seen = record.take();
    assert!(seen.iter().all(|(_, running)| *running == event_loop));
    seen.sort_by_key(|(place, _)| *place);
    assert_eq!(seen.iter().map(|(place, _)| *place).collect::<Vec<_>>(), ["coroutine", "later", "soon"]);
    assert_error(get_running_loop(), ErrorKind::Runtime, NO_RUNNING);
}

#[test]
fn after_a_panicking_main_no_loop_runs() {
    let event_loop = new_loop();
    let failed = event_loop.run_until_complete::<(), _>(async { panic!("over") });
    assert_error(failed, ErrorKind::Panicked, "over");
    assert_error(get_running_loop(), ErrorKind::Runtime, NO_RUNNING);
    assert!(!event_loop.is_running());
}

#[test]
fn done_callbacks_readers_and_exception_handlers_see_the_running_loop() {
    let (event_loop, record) = (new_loop(), Record::default());
    let reports = record.clone();
    event_loop.set_exception_handler(Some(std::rc::Rc::new(move |_, _| {
        reports.push(("handler", get_running_loop().unwrap()));
    })));
    let future = event_loop.create_future::<()>();
    let seen = record.clone();
    future.add_done_callback(move |_| seen.push(("done callback", get_running_loop().unwrap())));
    future.set_result(()).unwrap();
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let seen = record.clone();
    event_loop.add_writer(&one, move || seen.push(("writer", get_running_loop().unwrap()))).unwrap();
    event_loop.call_soon(|| panic!("to be reported"));
    tick(&event_loop);
    event_loop.remove_writer(&one).unwrap();
    let seen = record.take();
    assert!(seen.iter().all(|(_, running)| *running == event_loop));
    let mut places: Vec<_> = seen.iter().map(|(place, _)| *place).collect();
    places.sort_unstable();
    assert_eq!(places, ["done callback", "handler", "writer"]);
}

/// CUR-003
#[test]
fn the_running_loop_comes_before_the_one_that_was_set() {
    let (a, b) = (new_loop(), new_loop());
    set_event_loop(&a);
    let inside = b.run_until_complete(async { get_event_loop() }).unwrap();
    assert!(inside == b);
    assert!(get_event_loop().unwrap() == a);
    set_event_loop(None);
}

/// CUR-006
#[test]
fn a_thread_without_a_loop_of_its_own_has_none() {
    let a = new_loop();
    set_event_loop(&a);
    let named = thread::Builder::new().name("nobody".into()).spawn(|| get_event_loop().map(drop)).unwrap();
    let text = "There is no current event loop in thread 'nobody'.";
    assert_error(named.join().unwrap(), ErrorKind::Runtime, text);
    let own = thread::spawn(|| {
        let b = new_loop();
        set_event_loop(&b);
        get_event_loop().unwrap() == b
    });
    assert!(own.join().unwrap());
    assert!(get_event_loop().unwrap() == a, "the setting is per thread");
    set_event_loop(None);
    assert_eq!(get_event_loop().unwrap_err().kind(), ErrorKind::Runtime);
}

/// CUR-007
#[test]
fn a_new_loop_is_not_set() {
    let a = new_loop();
    set_event_loop(&a);
    let b = new_event_loop().unwrap();
    assert!(a != b);
    assert!(get_event_loop().unwrap() == a);
    set_event_loop(None);
}

/// CUR-008
#[test]
fn a_job_of_the_executor_has_no_running_loop() {
    let _deadline = deadline();
    let event_loop = new_loop();
    let here = thread::current().id();
    let main = async {
        let job = event_loop.run_in_executor(None, || (thread::current().id(), get_running_loop().map(drop)));
        let (there, seen) = job.await?;
        assert_ne!(here, there);
        assert_error(seen, ErrorKind::Runtime, NO_RUNNING);
        assert!(get_running_loop()? == event_loop);
        Ok(())
    };
    event_loop.run_until_complete(main).unwrap();
}

/// CUR-009
#[test]
fn what_is_made_without_a_loop_takes_the_one_that_was_set() {
    set_event_loop(None);
    let (gathering, shielded) = (gather(()).start(), shield(async { Ok(1) }));
    let task = ensure_future(async { Ok(1) });
    let future = Future::<u8>::new();
    assert!(gathering.done());
    let event_loop = new_loop();
    let errors = [
        event_loop.run_until_complete(gathering).unwrap_err(),
        event_loop.run_until_complete(shielded).unwrap_err(),
        task.exception().unwrap().unwrap(),
        future.exception().unwrap().unwrap(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(error.to_string().contains("no current event loop"), "{error}");
    }
    assert_eq!(event_loop.all_tasks(), []);
    set_event_loop(&event_loop);
    let (gathering, shielded) = (gather(()).start(), shield(async { Ok(1) }));
    assert_eq!(event_loop.all_tasks().len(), 1, "that of the shield");
    let (task, future) = (ensure_future(async { Ok(1) }), Future::<u8>::new());
    set_event_loop(None);
    assert!(task.get_loop().unwrap() == event_loop);
    assert!(future.get_loop().unwrap() == event_loop);
    let other = new_loop();
    let (mut task, mut shielded) = (task, shielded);
    for refused in [other.run_until_complete(&mut task), other.run_until_complete(&mut shielded)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Value);
    }
    assert_eq!(event_loop.run_until_complete(task).unwrap(), 1);
    assert_eq!(event_loop.run_until_complete(shielded).unwrap(), 1);
    event_loop.run_until_complete(gathering).unwrap();
}

#[test]
fn a_set_loop_is_held_and_closed_at_the_end_of_its_thread() {
    let _deadline = deadline();
    let threadsafe = thread::spawn(|| {
        let event_loop = new_loop();
        let reports = handler(&event_loop);
        set_event_loop(&event_loop);
        event_loop.run_until_complete(asyncio::sleep(Duration::ZERO)).unwrap();
        assert!(reports.take().is_empty());
        event_loop.threadsafe()
    });
    assert!(threadsafe.join().unwrap().is_closed());
}
