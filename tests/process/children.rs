//! What these tests show: whose children are reaped, by whom, and that nothing is left of them.
#![expect(unsafe_code, reason = "waitpid and SIGCHLD's disposition are the C library's")]

use std::{process::Command, rc::Rc, thread, time::Duration};

use asyncio::subprocess::{DEVNULL, INHERIT};
use tracing::Level;

use crate::{
    Log, Place, Recorder, Told, children, exists, finish, open_descriptors, shell,
    support::{self, logs},
};

on_each_watcher! {
    a_foreign_child_is_left_to_its_parent
    each_loop_on_its_thread_sees_its_own_child
    a_thousand_children_leave_nothing
    many_children_at_once_leave_nothing
    where_sigchld_is_ignored_the_return_code_is_255
    a_child_reaped_by_somebody_else_has_return_code_255
    a_closed_loop_kills_and_reaps_its_children
    a_closed_loop_lets_protocols_go
    a_closed_loop_in_a_forked_child_leaves_the_parent_s_children_alone
    no_handler_of_sigchld_is_left_behind
    a_child_may_start_when_another_ends
}

/// PRC-021
fn a_foreign_child_is_left_to_its_parent(place: Place) {
    let event_loop = place.event_loop();
    let mut foreign = Command::new("sh").args(["-c", "exit 42"]).spawn().unwrap();
    let (transport, _) = finish(&event_loop, "sleep 0.05; exit 3", |builder| builder.stdin(DEVNULL));
    assert_eq!(transport.get_returncode(), Some(3));
    for _ in 0..5 {
        finish(&event_loop, "exit 0", |builder| builder);
    }
    assert_eq!(foreign.wait().unwrap().code(), Some(42));
}

/// PRC-024
fn each_loop_on_its_thread_sees_its_own_child(place: Place) {
    let threads: Vec<_> = (10..14)
        .map(|returncode| {
            let place = Place { ..place };
            thread::spawn(move || {
                let event_loop = place.event_loop();
                let command = format!("sleep 0.02; exit {returncode}");
                (0..3)
                    .map(|_| finish(&event_loop, &command, |builder| builder).0.get_returncode())
                    .all(|code| code == Some(returncode))
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
}

/// Part 2 of the issue: a thousand children in a row.
fn a_thousand_children_leave_nothing(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    let run = |count: usize| {
        for _ in 0..count {
            let log = Log::default();
            let recorder = Recorder::new(&log);
            event_loop.run(event_loop.subprocess_exec(|| recorder, "true"));
            event_loop.until(|| log.lost());
            assert!(log.has(&Told::Exited(Some(0))));
        }
    };
    run(1);
    let before = open_descriptors();
    run(1000);
    assert_eq!((children(), open_descriptors()), (0, before));
}

/// The same, a hundred at a time.
fn many_children_at_once_leave_nothing(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    let before = open_descriptors();
    let started: Vec<_> = (0..100)
        .map(|number| {
            let (builder, log) = shell(&event_loop, &format!("echo {number}; exit {number}"));
            (event_loop.run(builder).0, log)
        })
        .collect();
    event_loop.until(|| started.iter().all(|(_, log)| log.lost()));
    for (number, (transport, log)) in started.iter().enumerate() {
        assert_eq!(transport.get_returncode(), Some(number as i32));
        assert_eq!(log.text(1), format!("{number}\n"));
    }
    assert_eq!((children(), open_descriptors()), (0, before));
}

/// PRC-026
fn where_sigchld_is_ignored_the_return_code_is_255(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    let ((), records) = logs(|| {
        if !place.by_signal {
            ignore_sigchld();
        }
        let (builder, log) = shell(&event_loop, "read line; exit 4");
        let (transport, _) = event_loop.run(builder);
        if place.by_signal {
            // Somebody else's handler takes the place of ours, which hears nothing then.
            ignore_sigchld();
        }
        transport.get_pipe_transport(0).unwrap().write(b"go\n");
        event_loop.until(|| log.lost());
        assert_eq!(transport.get_returncode(), Some(255));
        assert!(log.has(&Told::Exited(Some(255))));
        assert!(transport.kill().is_err());
    });
    let [(Level::WARN, text)] = &records[..] else { panic!("{records:?}") };
    assert!(text.starts_with("Unknown child process pid"), "{text}");
}

fn ignore_sigchld() {
    // SAFETY: the constant is a valid disposition.
    assert_ne!(unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) }, libc::SIG_ERR);
}

/// PRC-026
fn a_child_reaped_by_somebody_else_has_return_code_255(place: Place) {
    let event_loop = place.event_loop();
    let ((), records) = logs(|| {
        let (builder, log) = shell(&event_loop, "read line; exit 4");
        let (transport, _) = event_loop.run(builder);
        crate::stdin(&transport).write(b"go\n");
        let mut status = 0;
        // SAFETY: the pointer is valid; the child has not been reaped, as no turn of the loop has passed since it ended.
        let reaped = unsafe { libc::waitpid(transport.get_pid() as i32, &mut status, 0) };
        assert_eq!(reaped, transport.get_pid() as i32);
        event_loop.until(|| log.lost());
        assert_eq!(transport.get_returncode(), Some(255));
        assert!(log.has(&Told::Exited(Some(255))));
    });
    let [(Level::WARN, text)] = &records[..] else { panic!("{records:?}") };
    assert!(text.starts_with("Unknown child process pid") && text.contains("255"), "{text}");
}

/// As asyncio's transports, which are closed when their loop goes.
fn a_closed_loop_kills_and_reaps_its_children(place: Place) {
    if !place.in_child() {
        return;
    }
    let before = open_descriptors();
    let event_loop = place.event_loop();
    let mut pids = Vec::new();
    for _ in 0..20 {
        let log = Log::default();
        let recorder = Recorder::new(&log);
        let (transport, _) = event_loop.run(event_loop.subprocess_exec(|| recorder, ["sleep", "1000"]));
        pids.push((transport.get_pid(), transport, log));
    }
    event_loop.close().unwrap();
    for (pid, transport, log) in &pids {
        assert_eq!(log.items(), [Told::Made]);
        transport.close();
        assert!(transport.is_closing() && transport.kill().is_err());
        assert!(!exists(*pid));
    }
    assert_eq!(children(), 0);
    drop(pids);
    drop(event_loop);
    assert_eq!(open_descriptors(), before);
}

/// The transport and its protocol hold each other.
fn a_closed_loop_lets_protocols_go(place: Place) {
    let event_loop = place.event_loop();
    let (guard, dropped) = support::drop_guard();
    let log = Log::default();
    let guard = Rc::new(guard);
    let held = guard.clone();
    let recorder = Recorder::new(&log).on(move |_, _| drop(held.clone()));
    let one = event_loop.run(event_loop.subprocess_exec(|| recorder, ["sleep", "1000"]));
    let held = guard;
    // And one that has ended, with a pipe that another holds.
    let recorder = Recorder::new(&log).on(move |_, _| drop(held.clone()));
    let (two, protocol) = event_loop.run(event_loop.subprocess_shell(|| recorder, "exec 3<&0; cat <&3 & exit 1"));
    event_loop.until(|| log.has(&Told::Exited(Some(1))));
    drop((one, two, protocol));
    assert!(!dropped.get());
    event_loop.close().unwrap();
    assert!(dropped.get());
}

/// The parent's children are not the forked child's.
fn a_closed_loop_in_a_forked_child_leaves_the_parent_s_children_alone(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "cat");
    let (transport, _) = event_loop.run(builder);
    // SAFETY: the child closes a loop and leaves without any clean-up; the harness's other threads hold no lock that it
    // needs, as this process runs one test.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        let sent = transport.kill();
        let closed = event_loop.event_loop.close();
        // SAFETY: it takes a number.
        unsafe { libc::_exit(if sent.is_err() && closed.is_ok() { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the pointer is valid and the child ours.
    assert_eq!(unsafe { libc::waitpid(forked, &mut status, 0) }, forked);
    assert_eq!(status, 0);
    crate::stdin(&transport).write(b"alive");
    event_loop.until(|| log.text(1) == "alive");
    crate::stdin(&transport).close();
    event_loop.until(|| log.lost());
    assert_eq!(transport.get_returncode(), Some(0));
}

/// With descriptors there is none at all, without them there is one while children run.
fn no_handler_of_sigchld_is_left_behind(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    assert_eq!(sigchld(), libc::SIG_DFL);
    let (builder, log) = shell(&event_loop, "read line");
    let (transport, _) = event_loop.run(builder.stdout(INHERIT));
    assert_eq!(sigchld() != libc::SIG_DFL, place.by_signal);
    crate::stdin(&transport).close();
    event_loop.until(|| log.lost());
    assert_eq!(sigchld(), libc::SIG_DFL);
    event_loop.run(asyncio::sleep(Duration::ZERO));
}

fn sigchld() -> libc::sighandler_t {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action sigaction only writes the old one, to a pointer that is valid; zeros are valid too.
    unsafe {
        assert_eq!(libc::sigaction(libc::SIGCHLD, std::ptr::null(), current.as_mut_ptr()), 0);
        current.assume_init().sa_sigaction
    }
}

/// A protocol may do anything when it is told.
fn a_child_may_start_when_another_ends(place: Place) {
    let event_loop = place.event_loop();
    let (second, inner) = (Log::default(), Log::default());
    let (told, started) = (second.clone(), inner.clone());
    let opener = event_loop.event_loop.clone();
    let recorder = Recorder::new(&second).on(move |_, call| {
        if let Told::Exited(_) = call {
            let recorder = Recorder::new(&started);
            let builder = opener.subprocess_shell(|| recorder, "exit 2");
            opener.create_task(async move { builder.await.map(drop) });
        }
    });
    let (transport, _) = event_loop.run(event_loop.subprocess_shell(|| recorder, "exit 1"));
    event_loop.until(|| told.lost() && inner.lost());
    assert_eq!(transport.get_returncode(), Some(1));
    assert!(inner.has(&Told::Exited(Some(2))));
}
