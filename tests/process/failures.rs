//! What these tests show: programs that cannot be started, and arguments that contradict each other.
#![expect(unsafe_code, reason = "a descriptor that is not open can be had in no other way")]

use std::{
    cell::Cell,
    io,
    os::{fd::BorrowedFd, unix::fs::PermissionsExt},
    rc::Rc,
};

use asyncio::{
    ErrorKind, EventLoop,
    subprocess::{CreateSubprocess, PIPE, Program, STDOUT, WithProtocol},
};

use crate::{Log, Place, Recorder, children, open_descriptors};

on_each_watcher! {
    what_cannot_be_started_says_why_and_leaves_nothing
    contradictions_are_found_before_anything_is_started
    a_factory_that_panics_leaves_no_process
    an_opener_that_is_never_awaited_starts_nothing
    a_loop_that_is_not_the_running_one_starts_nothing
}

/// A builder with a recorder, and how often the factory was called.
fn exec(
    event_loop: &EventLoop,
    program: impl Into<Program>,
) -> (CreateSubprocess<WithProtocol<'static, Recorder>>, Log, Rc<Cell<usize>>) {
    let (log, calls) = (Log::default(), Rc::new(Cell::new(0)));
    let (recorder, count) = (Recorder::new(&log), calls.clone());
    let factory = move || {
        count.set(count.get() + 1);
        recorder
    };
    (event_loop.subprocess_exec(factory, program), log, calls)
}

/// PRC-015
fn what_cannot_be_started_says_why_and_leaves_nothing(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    // One success before, so that what is made once is there.
    let (builder, log, _) = exec(&event_loop, "true");
    event_loop.run(builder);
    event_loop.until(|| log.lost());
    event_loop.settle();
    let before = open_descriptors();
    for _ in 0..10 {
        let (missing, log, calls) = exec(&event_loop, "/no/such/program");
        let error = event_loop.fails(missing);
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/no/such/program"), "{error}");
        assert!(log.items().is_empty() && calls.get() == 0);

        let (missing, log, calls) = exec(&event_loop, ["no-such-name-in-path", "argument"]);
        let error = event_loop.fails(missing.stderr(STDOUT));
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("no-such-name-in-path"), "{error}");
        assert!(log.items().is_empty() && calls.get() == 0);

        let (forbidden, log, calls) = exec(&event_loop, plain.clone());
        let error = event_loop.fails(forbidden);
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("plain"), "{error}");
        assert!(log.items().is_empty() && calls.get() == 0);

        let (homeless, log, calls) = exec(&event_loop, "true");
        let error = event_loop.fails(homeless.cwd("/no/such/directory"));
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("true") && error.to_string().contains("/no/such/directory"), "{error}");
        assert!(log.items().is_empty() && calls.get() == 0);

        // SAFETY: nothing has this number, and nothing is done with it but asking for a duplicate, which fails.
        let closed = unsafe { BorrowedFd::borrow_raw(9999) };
        for number in 0..3 {
            let (closing, log, calls) = exec(&event_loop, "true");
            let error = event_loop.fails(match number {
                0 => closing.stdin(closed),
                1 => closing.stdout(closed),
                _ => closing.stderr(closed),
            });
            assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
            assert!(log.items().is_empty() && calls.get() == 0);
        }
        let (passing, log, calls) = exec(&event_loop, "true");
        assert_eq!(event_loop.fails(passing.pass_fds([closed])).raw_os_error(), Some(libc::EBADF));
        assert!(log.items().is_empty() && calls.get() == 0);
    }
    assert_eq!(open_descriptors(), before);
    assert_eq!(children(), 0);
}

/// DESIGN.md: what contradicts itself is an error of value.
fn contradictions_are_found_before_anything_is_started(place: Place) {
    let event_loop = place.event_loop();
    let nothing: [&str; 0] = [];
    let null = "a\0b";
    let file = tempfile::tempfile().unwrap();
    let builders = [
        exec(&event_loop, "true").0.stdin(STDOUT),
        exec(&event_loop, "true").0.stdout(STDOUT),
        exec(&event_loop, "true").0.stdout(STDOUT).stderr(PIPE),
        exec(&event_loop, nothing).0,
        exec(&event_loop, null).0,
        exec(&event_loop, ["true", null]).0,
        exec(&event_loop, "true").0.arg(null),
        exec(&event_loop, "true").0.env("A", null),
        exec(&event_loop, "true").0.cwd(null),
        exec(&event_loop, "true").0.executable(null),
        exec(&event_loop, "true").0.start_new_session(true).process_group(0),
        exec(&event_loop, "true").0.process_group(-1),
        exec(&event_loop, "true").0.close_fds(false).pass_fds([&file]),
        exec(&event_loop, std::process::Command::new("true")).0.executable("false"),
        event_loop.subprocess_shell(|| Recorder::new(&Log::default()), "true").arg("more"),
        event_loop.subprocess_shell(|| Recorder::new(&Log::default()), null),
    ];
    for (index, builder) in builders.into_iter().enumerate() {
        let error = event_loop.fails(builder);
        assert_eq!(error.kind(), ErrorKind::Value, "{index}: {error}");
    }
}

/// The panic is the awaiter's, and the process is gone.
fn a_factory_that_panics_leaves_no_process(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    event_loop.run(async { Ok(()) });
    let before = open_descriptors();
    let factory = || -> Recorder { panic!("no protocol") };
    let builder = event_loop.subprocess_exec(factory, ["sleep", "60"]);
    assert_eq!(event_loop.fails(builder).kind(), ErrorKind::Panicked);
    assert_eq!((children(), open_descriptors()), (0, before));
}

/// As of all openers.
fn an_opener_that_is_never_awaited_starts_nothing(place: Place) {
    let event_loop = place.event_loop();
    let mark = tempfile::tempdir().unwrap();
    let path = mark.path().join("started");
    drop(event_loop.subprocess_exec(|| Recorder::new(&Log::default()), ["touch", path.to_str().unwrap()]));
    let future = {
        let builder = event_loop.subprocess_exec(|| Recorder::new(&Log::default()), ["touch", path.to_str().unwrap()]);
        IntoFuture::into_future(builder)
    };
    drop(future);
    event_loop.ticks(3);
    assert!(!path.exists());
}

/// A subprocess belongs to the loop that it was asked of.
fn a_loop_that_is_not_the_running_one_starts_nothing(place: Place) {
    let (event_loop, other) = (place.event_loop(), place.event_loop());
    let (builder, log, calls) = exec(&other, "true");
    assert_eq!(event_loop.fails(builder).kind(), ErrorKind::Value);
    let (builder, _, _) = exec(&other, "true");
    let outside = futures::executor::block_on(IntoFuture::into_future(builder));
    assert_eq!(outside.map(drop).unwrap_err().kind(), ErrorKind::Runtime);
    assert!(log.items().is_empty() && calls.get() == 0);
}
