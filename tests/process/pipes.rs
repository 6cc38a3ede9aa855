//! What these tests show: the transports of a subprocess's pipes, how they fill and how they break.

use std::{io, time::Duration};

use asyncio::{PIPE as PIPE_KEY, subprocess::DEVNULL};

use crate::{Log, Place, Recorder, Told, finish, shell, stdin};

on_each_watcher! {
    each_pipe_has_a_transport
    a_child_that_does_not_read_breaks_the_pipe
    a_pipe_closed_here_is_broken_there
    a_full_pipe_pauses_the_protocol
    much_data_comes_back_as_it_was
    a_paused_pipe_receives_nothing
    what_the_child_wrote_before_its_end_arrives
    the_input_can_be_closed_in_connection_made
    a_pipe_without_a_reader_is_noticed_without_a_write
}

/// PRC-002
fn each_pipe_has_a_transport(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "cat");
    let (transport, _) = event_loop.run(builder);
    let [stdin, stdout, stderr] = [0, 1, 2].map(|fd| transport.get_pipe_transport(fd).unwrap());
    assert!(stdin.can_write_eof() && !stdin.is_reading());
    for reader in [&stdout, &stderr] {
        assert!(reader.is_reading() && !reader.can_write_eof());
        assert!(reader.try_write(b"x").is_err());
    }
    assert!(transport.get_pipe_transport(7).is_none() && transport.get_pipe_transport(-1).is_none());
    assert!(stdin.get_extra_info(PIPE_KEY).is_some());
    assert_eq!(transport.get_returncode(), None);
    stdin.write(b"Python ");
    event_loop.until(|| log.text(1) == "Python ");
    stdin.write(b"The Winner");
    event_loop.until(|| log.text(1) == "Python The Winner");
    stdin.close();
    event_loop.until(|| log.lost());
    assert_eq!(transport.get_returncode(), Some(0));
}

/// PRC-013
fn a_child_that_does_not_read_breaks_the_pipe(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    // Later the end of the reader could have been noticed already, without anything to be written.
    let recorder = Recorder::new(&log).on(|transport, told| {
        if *told == Told::Made {
            stdin(transport).write(&vec![b'x'; 1_000_000]);
        }
    });
    event_loop.run(event_loop.subprocess_shell(|| recorder, "exec 0<&-; exit 9"));
    event_loop.until(|| log.lost());
    let errors = log.0.pipe_errors.borrow();
    let [(0, error)] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::BrokenPipe);
    assert!(log.has(&Told::PipeLost(1, None)) && log.has(&Told::PipeLost(2, None)));
    assert!(log.has(&Told::Exited(Some(9))));
}

/// PRC-014
fn a_pipe_closed_here_is_broken_there(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "trap '' PIPE; read go; echo out || echo broken >&2; exit 8");
    let (transport, _) = event_loop.run(builder);
    transport.get_pipe_transport(1).unwrap().close();
    event_loop.ticks(2);
    assert_eq!(log.items(), [Told::Made, Told::PipeLost(1, None)]);
    assert_eq!(transport.get_returncode(), None);
    stdin(&transport).write(b"go\n");
    event_loop.until(|| log.lost());
    assert!(log.text(2).contains("broken"), "{:?}", log.text(2));
    assert!(log.has(&Told::Exited(Some(8))));
    assert_eq!(log.text(1), "");
}

/// PRC-022
fn a_full_pipe_pauses_the_protocol(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "sleep 0.1; wc -c");
    let (transport, _) = event_loop.run(builder);
    stdin(&transport).write(&vec![b'x'; 500_000]);
    assert_eq!(log.items(), [Told::Made, Told::Pause]);
    event_loop.until(|| log.has(&Told::Resume));
    assert_eq!(log.items(), [Told::Made, Told::Pause, Told::Resume]);
    stdin(&transport).close();
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1).trim(), "500000");
}

/// Both directions at once, and one byte after the other in its order.
fn much_data_comes_back_as_it_was(place: Place) {
    let event_loop = place.event_loop();
    let data: Vec<u8> = (0..5_000_000_u32).map(|number| ((number * 31) >> 3) as u8).collect();
    let (builder, log) = shell(&event_loop, "cat");
    let (transport, _) = event_loop.run(builder);
    stdin(&transport).write(&data);
    stdin(&transport).write_eof().unwrap();
    event_loop.until(|| log.lost());
    assert!(log.received(1) == data);
    assert_eq!(log.without_data().iter().filter(|told| **told == Told::Pause).count(), 1);
}

/// `pause_reading` of a pipe's transport.
fn a_paused_pipe_receives_nothing(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log).on(|transport, told| {
        if *told == Told::Made {
            transport.get_pipe_transport(1).unwrap().pause_reading();
        }
    });
    let opening = event_loop.subprocess_shell(|| recorder, "echo out; echo err >&2");
    let (transport, _) = event_loop.run(opening.stdin(DEVNULL));
    event_loop.until(|| log.has(&Told::Exited(Some(0))) && log.has(&Told::PipeLost(2, None)));
    event_loop.ticks(5);
    assert_eq!((log.text(1), log.text(2)), (String::new(), "err\n".to_owned()));
    assert!(!log.lost());
    transport.get_pipe_transport(1).unwrap().resume_reading();
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1), "out\n");
}

/// PRH-012, as protocols see it.
fn what_the_child_wrote_before_its_end_arrives(place: Place) {
    let event_loop = place.event_loop();
    for _ in 0..10 {
        let (transport, log) = finish(&event_loop, "head -c 65536 /dev/zero; exit 1", |builder| builder.stdin(DEVNULL));
        assert_eq!(log.received(1).len(), 65_536);
        assert_eq!(transport.get_returncode(), Some(1));
    }
}

/// The transport and its pipes are whole in `connection_made`.
fn the_input_can_be_closed_in_connection_made(place: Place) {
    let event_loop = place.event_loop();
    let log = Log::default();
    let recorder = Recorder::new(&log).on(|transport, told| {
        if *told == Told::Made {
            stdin(transport).writelines(["one ", "two"]);
            stdin(transport).close();
        }
    });
    event_loop.run(event_loop.subprocess_exec(|| recorder, "cat"));
    event_loop.until(|| log.lost());
    assert_eq!(log.text(1), "one two");
}

/// As of every write pipe.
fn a_pipe_without_a_reader_is_noticed_without_a_write(place: Place) {
    let event_loop = place.event_loop();
    let (builder, log) = shell(&event_loop, "exec 0<&-; exec sleep 60");
    let (transport, _) = event_loop.run(builder);
    event_loop.until(|| log.has(&Told::PipeLost(0, None)));
    assert_eq!(transport.get_returncode(), None);
    transport.close();
    event_loop.until(|| log.lost());
    event_loop.run(asyncio::sleep(Duration::ZERO));
}
