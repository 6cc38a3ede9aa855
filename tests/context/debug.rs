//! Debug mode: how it is switched on, slow callbacks, and where things were made.

use std::{io::Write, os::unix::net::UnixStream, thread, time::Duration};

use asyncio::{Error, EventLoop, sleep};
use tracing::Level;

use crate::support::{self, handler, logs, new_loop, run_in_child, tick};

/// DBG-001
#[test]
fn the_environment_switches_debug_mode_on() {
    const NAME: &str = "debug::the_environment_switches_debug_mode_on";
    for (variables, expected) in [
        (&[("ASYNCIO_DEBUG", None)], "false"),
        (&[("ASYNCIO_DEBUG", Some(""))], "false"),
        (&[("ASYNCIO_DEBUG", Some("1"))], "true"),
        (&[("ASYNCIO_DEBUG", Some("yes"))], "true"),
    ] {
        let Some(output) = run_in_child(NAME, variables) else {
            let debug = new_loop().get_debug();
            println!("debug mode is {debug}");
            assert_eq!(EventLoop::new().unwrap().get_debug(), debug);
            assert_eq!(EventLoop::builder().build().unwrap().get_debug(), debug);
            assert!(!EventLoop::builder().debug(false).build().unwrap().get_debug());
            assert!(EventLoop::builder().debug(true).build().unwrap().get_debug());
            asyncio::run(async {
                assert_eq!(asyncio::get_running_loop()?.get_debug(), debug);
                Ok(())
            })
            .unwrap();
            let mut runner = asyncio::Runner::new().debug(!debug);
            assert_eq!(runner.get_loop().unwrap().get_debug(), !debug);
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("debug mode is {expected}\n")), "{variables:?}: {text}");
    }
}

/// DBG-002
#[test]
fn debug_mode_is_a_switch_and_slow_is_100_ms() {
    let event_loop = new_loop();
    event_loop.set_debug(true);
    assert!(event_loop.get_debug());
    event_loop.set_debug(false);
    assert!(!event_loop.get_debug());
    assert_eq!(event_loop.slow_callback_duration(), Duration::from_millis(100));
    event_loop.set_slow_callback_duration(Duration::from_millis(5));
    assert_eq!(event_loop.slow_callback_duration(), Duration::from_millis(5));
    assert_eq!(new_loop().slow_callback_duration(), Duration::from_millis(100));
}

/// Checks that one warning was written, and gives its text: the place is in it and the time it took.
#[track_caller]
fn one_slow_report(logged: &[(Level, String)], begin: &str, least: f64) -> String {
    let [(Level::WARN, text)] = logged else { panic!("one warning is expected: {logged:?}") };
    assert!(text.starts_with(begin), "{text}");
    assert!(text.contains("debug.rs:"), "{text}");
    let (_, end) = text.split_once(" took ").unwrap();
    let seconds: f64 = end.strip_suffix(" seconds").unwrap().parse().unwrap();
    assert!(seconds >= least && seconds < 20.0, "{text}");
    let decimals = end.split_once('.').unwrap().1;
    assert_eq!(decimals.len(), "xyz seconds".len(), "{text}");
    text.clone()
}

fn block(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// DBG-003
#[test]
fn a_slow_callback_is_reported() {
    let event_loop = new_loop();
    event_loop.set_debug(true);
    event_loop.set_slow_callback_duration(Duration::from_millis(200));
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| block(300));
        tick(&event_loop);
    });
    let text = one_slow_report(&logged, "Executing <Handle ", 0.3);
    assert!(text.contains("a_slow_callback_is_reported"), "the callback's type name: {text}");
    let ((), logged) = logs(|| {
        let stop = event_loop.clone();
        event_loop.call_later(Duration::from_millis(10), move || {
            block(300);
            stop.stop();
        });
        event_loop.run_forever().unwrap();
    });
    let text = one_slow_report(&logged, "Executing <TimerHandle ", 0.3);
    assert!(text.contains("a_slow_callback_is_reported"), "the callback's type name: {text}");
}

/// A task's step is reported with the task's name; steps count one by one.
#[test]
fn a_slow_step_of_a_task_is_reported() {
    let event_loop = new_loop();
    event_loop.set_debug(true);
    event_loop.set_slow_callback_duration(Duration::from_millis(200));
    let ((), logged) = logs(|| {
        let steps = event_loop.task(async {
            block(250);
            sleep(Duration::ZERO).await
        });
        let task = steps.name("sluggish").start();
        event_loop.run_until_complete(task).unwrap();
    });
    let text = one_slow_report(&logged, "Executing <Task ", 0.25);
    assert!(text.contains("sluggish"), "{text}");
}

/// What comes from descriptors, other threads and ended futures is timed as well.
#[test]
fn every_kind_of_callback_is_timed() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    event_loop.set_debug(true);
    event_loop.set_slow_callback_duration(Duration::from_millis(200));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let ((), logged) = logs(|| {
        event_loop.add_reader(&ours, || block(210)).unwrap();
        tick(&event_loop);
        event_loop.remove_reader(&ours).unwrap();
    });
    one_slow_report(&logged, "Executing <Handle ", 0.21);
    let ((), logged) = logs(|| {
        let future = event_loop.create_future();
        future.add_done_callback(|_| block(210));
        future.set_result(()).unwrap();
        tick(&event_loop);
    });
    one_slow_report(&logged, "Executing <Handle ", 0.21);
    let ((), logged) = logs(|| {
        let remote = event_loop.threadsafe();
        thread::spawn(move || remote.call_soon_threadsafe(|| block(210))).join().unwrap();
        tick(&event_loop);
    });
    one_slow_report(&logged, "Executing <Handle ", 0.21);
}

/// DBG-005
#[test]
fn without_debug_mode_nothing_is_timed() {
    let event_loop = new_loop();
    event_loop.set_debug(false);
    event_loop.set_slow_callback_duration(Duration::from_millis(20));
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| block(30));
        event_loop.call_later(Duration::ZERO, || block(30));
        event_loop.create_task(async {
            block(30);
            Ok(())
        });
        tick(&event_loop);
        tick(&event_loop);
    });
    assert_eq!(logged, []);
}

/// In debug mode too what is quick is not mentioned; and the mode may change while the loop runs.
#[test]
fn only_what_is_slow_is_reported() {
    let event_loop = new_loop();
    event_loop.set_debug(true);
    event_loop.set_slow_callback_duration(Duration::from_secs(20));
    let switch = event_loop.clone();
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| block(5));
        event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
        event_loop.set_debug(false);
        event_loop.call_soon(move || {
            switch.set_debug(true);
            switch.set_slow_callback_duration(Duration::from_millis(200));
        });
        event_loop.call_soon(|| block(250));
        tick(&event_loop);
    });
    one_slow_report(&logged, "Executing <Handle ", 0.25);
}

/// A slow callback that panics is reported as both.
#[test]
fn a_slow_callback_that_panics_is_reported_twice() {
    let event_loop = new_loop();
    event_loop.set_debug(true);
    event_loop.set_slow_callback_duration(Duration::from_millis(200));
    let reports = handler(&event_loop);
    let ((), logged) = logs(|| {
        event_loop.call_soon(|| {
            block(210);
            panic!("boom")
        });
        tick(&event_loop);
    });
    one_slow_report(&logged, "Executing <Handle ", 0.21);
    assert_eq!(reports.len(), 1);
}

/// DBG-007
#[test]
fn reports_say_where_their_objects_were_made() {
    for debug in [true, false] {
        let event_loop = new_loop();
        event_loop.set_debug(debug);
        let reports = handler(&event_loop);
        let callback_line = line!() + 1;
        event_loop.call_soon(|| panic!("boom"));
        tick(&event_loop);
        let future_line = line!() + 1;
        let future = event_loop.create_future::<()>();
        future.set_exception(Error::other("unread")).unwrap();
        drop(future);
        let seen = reports.take();
        assert_eq!(seen.len(), 2);
        for (report, line) in seen.iter().zip([callback_line, future_line]) {
            let place = report.source_location.unwrap();
            assert!(place.file().ends_with("debug.rs"), "{place}");
            assert_eq!(place.line(), line);
        }
        assert_eq!(seen[0].handle.as_ref().unwrap().source_location().line(), callback_line);
        assert_eq!(seen[1].future.as_ref().unwrap().source_location().line(), future_line);
    }
}

/// The same for everything else that is made somewhere.
#[test]
fn all_kinds_of_reports_have_a_place() {
    let _deadline = support::deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let first = line!();
    event_loop.call_later(Duration::ZERO, || panic!("timer"));
    drop(event_loop.create_task::<(), _>(async { Err(Error::other("task")) }));
    drop(event_loop.task(async { Err::<(), _>(Error::other("built task")) }).start());
    event_loop.call_soon_threadsafe(|| panic!("threadsafe"));
    drop(event_loop.run_in_executor(None, || panic!("job")));
    drop(event_loop.threadsafe().run_coroutine_threadsafe::<_, _>(async { Err::<(), _>(Error::other("coroutine")) }));
    let last = line!();
    event_loop.run_until_complete(sleep(Duration::from_millis(1))).unwrap();
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap();
    tick(&event_loop);
    let mut seen: Vec<_> = reports.take();
    seen.sort_by_key(|report| report.source_location.unwrap().line());
    let errors: Vec<_> = seen.iter().map(|report| report.exception.clone().unwrap().to_string()).collect();
    assert_eq!(errors, ["timer", "task", "built task", "threadsafe", "job", "coroutine"]);
    for report in &seen {
        let place = report.source_location.unwrap();
        assert!(place.file().ends_with("debug.rs") && (first..last).contains(&place.line()), "{place}: {report:?}");
    }
}
