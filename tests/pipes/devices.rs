//! What these tests show: terminals, other devices, and FIFOs whose ends open at different times.

use std::{
    cell::Cell,
    ffi::CStr,
    fs::{File, OpenOptions},
    io::Write,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    rc::Rc,
};

use asyncio::ErrorKind;

use crate::{
    End, Fifo, LARGE, TestLoop, duplicate, is_nonblocking, set_nonblocking,
    support::transports::{BufferedRecorder, Told, pattern},
};

on_each_selector! {
    the_end_of_a_terminal_is_no_error
    a_terminal_that_is_gone_already_has_ended
    a_terminal_is_read_and_written
    a_terminal_gives_lines
    a_large_amount_goes_into_a_terminal
    a_terminal_nobody_reads_from_may_be_aborted
    a_write_to_a_terminal_that_is_gone_is_an_error
    the_null_device_has_ended
    the_null_device_takes_everything
    an_endless_device_can_be_paused_and_closed
    pausing_an_endless_device_does_not_make_it_faster
    an_endless_device_lets_others_run
    an_endless_device_fills_buffers
    a_full_device_is_an_error
    a_fifo_without_a_writer_has_not_ended
}

/// A pseudo-terminal: its master, and its slave in raw mode.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (master, slave) = cooked_terminal();
    make_raw(&slave);
    (master, slave)
}

fn cooked_terminal() -> (OwnedFd, OwnedFd) {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    let master = options.open("/dev/ptmx").unwrap();
    let slave = options.open(std::ffi::OsStr::from_bytes(&name_of_slave(&master))).unwrap();
    (master.into(), slave.into())
}

#[expect(unsafe_code, reason = "pseudo-terminals have no safe interface here")]
fn name_of_slave(master: &File) -> Vec<u8> {
    let mut name = [0; 128];
    // SAFETY: the descriptor is open, and the memory is as large as is said.
    unsafe {
        assert_eq!(libc::grantpt(master.as_raw_fd()), 0);
        assert_eq!(libc::unlockpt(master.as_raw_fd()), 0);
        assert_eq!(libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr().cast(), name.len()), 0);
    }
    CStr::from_bytes_until_nul(&name).unwrap().to_bytes().to_vec()
}

#[expect(unsafe_code, reason = "terminals have no safe interface here")]
fn make_raw(terminal: &OwnedFd) {
    // SAFETY: the descriptor is open, and the modes, which are plain data, live as long as the calls.
    unsafe {
        let mut modes = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut modes), 0);
        libc::cfmakeraw(&mut modes);
        assert_eq!(libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &modes), 0);
    }
}

fn device(name: &str) -> OwnedFd {
    File::options().read(true).write(true).open(name).unwrap().into()
}

/// PIP-014
fn the_end_of_a_terminal_is_no_error(event_loop: &TestLoop) {
    let (master, slave) = cooked_terminal();
    let mode = duplicate(&master);
    let (transport, log) = event_loop.read(master);
    let mut slave = File::from(slave);
    slave.write_all(b"1").unwrap();
    event_loop.until(|| log.received_len() == 1);
    slave.write_all(b"2345").unwrap();
    event_loop.until(|| log.received_len() == 5);
    drop(slave);
    event_loop.until(|| log.lost());
    transport.close();
    event_loop.ticks(2);
    assert_eq!(log.joined(), [Told::Made, Told::Data(5), Told::Eof, Told::Lost(None)]);
    assert_eq!(log.received(), b"12345");
    assert!(!is_nonblocking(mode));
}

/// PIP-014
fn a_terminal_that_is_gone_already_has_ended(event_loop: &TestLoop) {
    let (master, slave) = terminal();
    File::from(slave).write_all(b"last").unwrap();
    let (_, log) = event_loop.read(master);
    event_loop.until(|| log.lost());
    assert_eq!(log.joined(), [Told::Made, Told::Data(4), Told::Eof, Told::Lost(None)]);
}

/// PIP-014: the slave, twice, as standard input and output are; and by another kind of protocol.
fn a_terminal_is_read_and_written(event_loop: &TestLoop) {
    let (master, slave) = terminal();
    let mode = duplicate(&slave);
    let (input, _, read) = event_loop.read_with(duplicate(&slave), |recorder| BufferedRecorder::new(recorder, 3));
    let (output, written) = event_loop.write(slave);
    let master = End::new(master);
    master.send(b"typed");
    event_loop.until(|| read.received_len() == 5);
    assert_eq!(read.received(), b"typed");
    output.writelines(["sh", "own"]);
    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(master.drain());
        got.len() == 5
    });
    assert_eq!(got, b"shown");
    // One of the two ends; the other one goes on as before, and the mode is as before when both have ended.
    input.close();
    event_loop.until(|| read.lost());
    assert!(is_nonblocking(&mode));
    output.write(b"more");
    event_loop.until(|| {
        got.extend(master.drain());
        got.len() == 9
    });
    output.close();
    event_loop.until(|| written.lost());
    assert!(!is_nonblocking(&mode));
    assert_eq!(written.take(), [Told::Made, Told::Lost(None)]);
}

/// PIP-014: as they are typed, until the end is typed.
fn a_terminal_gives_lines(event_loop: &TestLoop) {
    let (master, slave) = cooked_terminal();
    let (_, log) = event_loop.read(slave);
    let master = End::new(master);
    master.send(b"a li");
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made]);
    master.send(b"ne\n");
    event_loop.until(|| log.received_len() == 7);
    assert_eq!((log.take(), log.received()), (vec![Told::Data(7)], b"a line\n".to_vec()));
    master.send(&[4]);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Eof, Told::Lost(None)]);
}

/// PIP-010, for terminals.
fn a_large_amount_goes_into_a_terminal(event_loop: &TestLoop) {
    let (master, slave) = terminal();
    let (transport, log) = event_loop.write(slave);
    let master = End::new(master);
    transport.write(&pattern(LARGE));
    assert!(transport.is_write_paused());
    transport.close();
    let mut got = Vec::new();
    event_loop.until(|| {
        got.extend(master.recv(1 << 16).unwrap_or_default());
        got.len() == LARGE
    });
    assert!(got == pattern(LARGE));
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Made, Told::Pause, Told::Resume, Told::Lost(None)]);
}

/// FLW-010, for terminals.
fn a_terminal_nobody_reads_from_may_be_aborted(event_loop: &TestLoop) {
    let (_master, slave) = terminal();
    let (transport, log) = event_loop.write(slave);
    transport.write(&pattern(LARGE));
    transport.close();
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made, Told::Pause]);
    transport.abort();
    event_loop.ticks(1);
    assert_eq!((log.take(), transport.get_write_buffer_size()), (vec![Told::Lost(None)], 0));
}

/// PIP-013: devices do not tell, but writes fail.
fn a_write_to_a_terminal_that_is_gone_is_an_error(event_loop: &TestLoop) {
    let (master, slave) = terminal();
    let (transport, log) = event_loop.write(slave);
    drop(master);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made]);
    transport.write(b"x");
    event_loop.ticks(2);
    assert_eq!(log.take(), [Told::Lost(Some(ErrorKind::Io))]);
    assert_eq!(log.error().unwrap().raw_os_error(), Some(libc::EIO));
}

/// PIP-001, PIP-002: the system cannot watch it.
fn the_null_device_has_ended(event_loop: &TestLoop) {
    for pauses in [false, true] {
        let null = device("/dev/null");
        let mode = duplicate(&null);
        let log = crate::Log::default();
        let make = || {
            crate::Recorder::new(&log).on_made(move |transport| {
                if pauses {
                    transport.pause_reading();
                }
            })
        };
        let (transport, _) = event_loop
            .run_until_complete(async {
                let connected = event_loop.connect_read_pipe(make, null).await;
                log.note("returned");
                connected
            })
            .unwrap();
        if pauses {
            assert!(is_nonblocking(&mode));
            event_loop.ticks(3);
            assert_eq!(log.items(), [Told::Made, Told::Note("returned")]);
            transport.resume_reading();
        }
        event_loop.until(|| log.lost());
        assert_eq!(log.take(), [Told::Made, Told::Note("returned"), Told::Eof, Told::Lost(None)]);
        assert!(!is_nonblocking(&mode));
    }
}

/// PIP-008, for what the system cannot watch.
fn the_null_device_takes_everything(event_loop: &TestLoop) {
    let (transport, log) = event_loop.write(device("/dev/null"));
    transport.write(&pattern(LARGE));
    transport.writelines(["a", "b"]);
    assert_eq!(transport.get_write_buffer_size(), 0);
    event_loop.ticks(2);
    assert_eq!(event_loop.run_once(std::time::Duration::from_millis(1)).unwrap(), 0, "it spins");
    transport.pause_reading();
    transport.resume_reading();
    transport.write_eof().unwrap();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Made, Told::Lost(None)]);
}

/// PIP-004, PIP-005, for what the system cannot watch.
fn an_endless_device_can_be_paused_and_closed(event_loop: &TestLoop) {
    let (transport, log) = event_loop.read(device("/dev/zero"));
    event_loop.until(|| log.received_len() > LARGE);
    transport.pause_reading();
    log.take();
    event_loop.ticks(3);
    assert_eq!(log.take(), []);
    assert_eq!(event_loop.run_once(std::time::Duration::from_millis(1)).unwrap(), 0, "it spins");
    transport.resume_reading();
    event_loop.until(|| log.received_len() > 2 * LARGE);
    log.take();
    transport.close();
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Lost(None)]);
}

/// PIP-004: one delivery an iteration, however often it was paused and resumed.
fn pausing_an_endless_device_does_not_make_it_faster(event_loop: &TestLoop) {
    let (transport, log) = event_loop.read(device("/dev/zero"));
    for _ in 0..10 {
        for _ in 0..10 {
            transport.pause_reading();
            transport.resume_reading();
        }
        log.take();
        event_loop.ticks(1);
        assert!(log.take().len() <= 1);
    }
    log.take();
    event_loop.ticks(5);
    assert_eq!(log.take().len(), 5);
    transport.abort();
    event_loop.ticks(1);
}

/// PIP-001: it takes its turn like everybody else.
fn an_endless_device_lets_others_run(event_loop: &TestLoop) {
    let (reader, end) = crate::Channel::Pipe.reader();
    let (_, log) = event_loop.read(reader);
    let (zero, zeros) = event_loop.read(device("/dev/zero"));
    end.send(b"abc");
    event_loop.until(|| log.received_len() == 3);
    event_loop.run_until_complete(asyncio::sleep(std::time::Duration::from_millis(1))).unwrap();
    assert!(zeros.received_len() > 0);
    zero.close();
    event_loop.until(|| zeros.lost());
}

/// BUF-001, for what the system cannot watch.
fn an_endless_device_fills_buffers(event_loop: &TestLoop) {
    let count = Rc::new(Cell::new(0));
    let seen = count.clone();
    let (transport, _, log) = event_loop.read_with(device("/dev/zero"), |recorder| {
        let recorder = recorder.on_data(move |transport, data| {
            assert_eq!(data, [0; 16]);
            seen.set(seen.get() + 1);
            if seen.get() == 5 {
                transport.close();
            }
        });
        BufferedRecorder::new(recorder, 16)
    });
    event_loop.until(|| log.lost());
    assert_eq!((count.get(), transport.is_closing()), (5, true));
}

/// PIP-013: an error of a write is the connection's end, and not reported.
fn a_full_device_is_an_error(event_loop: &TestLoop) {
    let (transport, log) = event_loop.write(device("/dev/full"));
    event_loop.ticks(2);
    transport.write(b"x");
    event_loop.ticks(1);
    assert_eq!(log.take(), [Told::Made, Told::Lost(Some(ErrorKind::Io))]);
    assert_eq!(log.error().unwrap().raw_os_error(), Some(libc::ENOSPC));
}

/// PIP-002: the end comes when a writer has come and gone.
fn a_fifo_without_a_writer_has_not_ended(event_loop: &TestLoop) {
    let fifo = Fifo::new();
    let reader = fifo.open(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK));
    let mode = duplicate(&reader);
    let (_, log) = event_loop.read(reader);
    event_loop.ticks(3);
    assert_eq!(log.take(), [Told::Made]);
    let writer = End::new(fifo.open(OpenOptions::new().write(true)));
    event_loop.ticks(3);
    writer.send(b"abc");
    event_loop.until(|| log.received_len() == 3);
    drop(writer);
    event_loop.until(|| log.lost());
    assert_eq!(log.take(), [Told::Data(3), Told::Eof, Told::Lost(None)]);
    // It was non-blocking before.
    assert!(is_nonblocking(&mode));
    set_nonblocking(&mode, false);
}
