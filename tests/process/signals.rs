//! What these tests show: signals to subprocesses, and closing them.

use asyncio::{ErrorKind, Signal, subprocess::DEVNULL};

use crate::{Log, Place, Recorder, Told, children, exists, finish, open_descriptors, shell, stdin, support};

on_each_watcher! {
    signals_are_negative_return_codes
    after_the_end_there_is_no_process
    after_the_exit_there_is_no_process_though_pipes_are_open
    close_kills_and_reaps
    close_in_connection_made_ends_it
    close_drops_what_waits_to_be_written
    a_number_that_is_no_signal_is_refused
    signals_can_be_caught_and_sent_again
    a_cancelled_opener_kills_the_process
    a_dropped_handle_changes_nothing
}

/// PRC-007
fn signals_are_negative_return_codes(place: Place) {
    type Send = fn(&asyncio::SubprocessTransport) -> asyncio::Result<()>;
    let runs: [(Send, i32); 4] = [
        (|transport| transport.terminate(), -15),
        (|transport| transport.kill(), -9),
        (|transport| transport.send_signal(Signal::Hup), -1),
        (|transport| transport.send_signal(10), -10),
    ];
    let event_loop = place.event_loop();
    for (send, returncode) in runs {
        let log = Log::default();
        let recorder = Recorder::new(&log);
        let (transport, _) = event_loop.run(event_loop.subprocess_exec(|| recorder, ["sleep", "60"]));
        send(&transport).unwrap();
        event_loop.until(|| log.lost());
        assert_eq!(transport.get_returncode(), Some(returncode));
        assert!(log.has(&Told::Exited(Some(returncode))));
    }
}

/// PRC-008
fn after_the_end_there_is_no_process(place: Place) {
    let event_loop = place.event_loop();
    let (transport, log) = finish(&event_loop, "exit 0", |builder| builder);
    let calls = log.items().len();
    for sent in [transport.kill(), transport.terminate(), transport.send_signal(1)] {
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::ProcessLookup);
    }
    transport.close();
    transport.close();
    assert!(transport.is_closing());
    event_loop.ticks(3);
    assert_eq!(log.items().len(), calls);
    assert_eq!(transport.get_returncode(), Some(0));
}

/// A neighbour of PRC-008: its number may be another process's already.
fn after_the_exit_there_is_no_process_though_pipes_are_open(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "exec 3<&0; cat <&3 & exit 6");
    let (transport, _) = event_loop.run(builder);
    event_loop.until(|| log.exited());
    assert_eq!(transport.kill().unwrap_err().kind(), ErrorKind::ProcessLookup);
    assert!(!transport.is_closing());
    transport.close();
    assert!(transport.is_closing());
    event_loop.until(|| log.lost());
    assert_eq!(transport.get_returncode(), Some(6));
}

/// PRC-010
fn close_kills_and_reaps(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let (transport, _) = event_loop.run(event_loop.subprocess_exec(|| recorder, ["sleep", "60"]));
    let pid = transport.get_pid();
    assert!(!transport.is_closing());
    transport.close();
    assert!(transport.is_closing());
    assert_eq!(transport.get_returncode(), None);
    event_loop.until(|| log.lost());
    let calls = log.items();
    let mut pipes: Vec<_> = calls[1..4].iter().map(|told| format!("{told:?}")).collect();
    pipes.sort();
    assert_eq!(pipes, ["PipeLost(0, None)", "PipeLost(1, None)", "PipeLost(2, None)"]);
    assert_eq!(calls[4..], [Told::Exited(Some(-9)), Told::Lost(None)]);
    assert!(!exists(pid));
}

/// A neighbour of PRC-010.
fn close_in_connection_made_ends_it(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log).on(|transport, told| {
        if *told == Told::Made {
            transport.close();
        }
    });
    let (transport, _) = event_loop.run(event_loop.subprocess_exec(|| recorder, ["sleep", "60"]));
    assert!(transport.is_closing());
    event_loop.until(|| log.lost());
    assert_eq!(transport.get_returncode(), Some(-9));
    assert_eq!(log.items().len(), 6);
}

/// Another process may hold the other end of its input for long.
fn close_drops_what_waits_to_be_written(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "sleep 1000 & echo $!; wait");
    let (transport, _) = event_loop.run(builder.stdout(asyncio::subprocess::PIPE));
    event_loop.until(|| log.text(1).ends_with('\n'));
    stdin(&transport).write(&vec![0; 1_000_000]);
    transport.close();
    event_loop.until(|| log.lost());
    assert_eq!(transport.get_returncode(), Some(-9));
    let sleeper = rustix::process::Pid::from_raw(log.text(1).trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(sleeper, rustix::process::Signal::KILL).unwrap();
}

/// The system's word on it.
fn a_number_that_is_no_signal_is_refused(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "cat");
    let (transport, _) = event_loop.run(builder);
    for number in [-1, 1000] {
        let error = transport.send_signal(number).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EINVAL)));
    }
    // Nothing is sent, but it is looked whether it could be.
    transport.send_signal(0).unwrap();
    stdin(&transport).close();
    event_loop.until(|| log.lost());
    assert_eq!(transport.get_returncode(), Some(0));
}

/// A child that goes on.
fn signals_can_be_caught_and_sent_again(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let command = "trap 'echo caught' USR1; echo ready; while true; do sleep 0.01; done";
    let (transport, _) = event_loop.run(event_loop.subprocess_shell(|| recorder, command).stdin(DEVNULL));
    event_loop.until(|| log.text(1) == "ready\n");
    for count in 1..=3 {
        transport.send_signal(Signal::Usr1).unwrap();
        event_loop.until(|| log.text(1).matches("caught").count() == count);
    }
    assert_eq!(transport.get_returncode(), None);
    transport.kill().unwrap();
    event_loop.until(|| log.lost());
    assert_eq!(transport.get_returncode(), Some(-9));
}

/// Rule 3 of the rows: connection_lost for those that were made, and nothing for the others.
fn a_cancelled_opener_kills_the_process(place: Place) {
    if !place.in_child() {
        return;
    }
    let event_loop = place.event_loop();
    event_loop.ticks(1);
    let before = open_descriptors();
    for (ticks, is_made) in [(0, false), (1, true), (2, true)] {
        let log = Log::default();
        let recorder = Recorder::new(&log);
        let (guard, dropped) = support::drop_guard();
        let recorder = recorder.on(move |_, _| {
            let _held = &guard;
        });
        let opener = event_loop.subprocess_exec(move || recorder, ["sleep", "60"]);
        let task = event_loop.create_task(async move {
            opener.await?;
            Ok(())
        });
        event_loop.ticks(ticks);
        task.cancel();
        assert!(event_loop.fails(task).is_cancelled());
        event_loop.until(|| dropped.get() && children() == 0);
        event_loop.ticks(2);
        assert_eq!(log.items().first() == Some(&Told::Made), is_made, "{ticks}: {:?}", log.items());
        assert_eq!(log.lost(), is_made);
    }
    // Dropped when the process runs and its protocol does not know of it.
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let (guard, dropped) = support::drop_guard();
    let recorder = recorder.on(move |_, _| {
        let _held = &guard;
    });
    event_loop.run(async {
        let mut opener = asyncio::get_running_loop()?.subprocess_exec(|| recorder, ["sleep", "60"]).into_future();
        assert!(futures::poll!(&mut opener).is_pending());
        assert_eq!(children(), 1);
        Ok(())
    });
    event_loop.until(|| dropped.get() && children() == 0);
    assert!(log.items().is_empty());
    event_loop.until(|| event_loop.next_deadline().is_none());
    assert_eq!(open_descriptors(), before);
}

/// The loop keeps the process.
fn a_dropped_handle_changes_nothing(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "sleep 0.05; echo done");
    drop(event_loop.run(builder.stdin(DEVNULL)));
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1), "done\n");
    assert!(log.has(&Told::Exited(Some(0))));
}
