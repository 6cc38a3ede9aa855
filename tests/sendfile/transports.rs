//! What these tests show: what a transport does besides sending the file.

use std::io::{Read, Write};

use asyncio::ErrorKind;

use crate::{
    Open, Range, SIZE, Target, TestLoop, WHOLE, Way, assert_same, collect, pattern, support::failure, transports,
};

on_each_selector! {
    what_is_written_before_and_afterwards_keeps_its_place
    writes_meanwhile_are_mistakes
    a_second_file_has_to_wait
    everything_is_sent_when_it_returns
    nothing_is_received_meanwhile
    whoever_paused_reading_finds_it_paused
    an_end_of_the_input_does_not_end_the_file
    the_files_bytes_do_not_pause_the_protocol
    what_is_left_of_a_cancelled_file_pauses_the_protocol
    what_paused_the_protocol_before_resumes_it
    files_follow_each_other
}

fn transport(open: &Open) -> &asyncio::Transport {
    let Target::Transport(transport) = &open.target else { unreachable!() };
    transport
}

/// SND-006
fn what_is_written_before_and_afterwards_keeps_its_place(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        for prefix in [&b"PREFIX"[..], b"", &pattern(8_000_000)[1..]] {
            let (open, source) = (case.open(event_loop), case.source(&data));
            let received = collect(open.peer.try_clone().unwrap());
            let sent = event_loop.run(async {
                transport(&open).write(prefix);
                let sent = open.target.send(&source, WHOLE).await?;
                transport(&open).write(b"SUFFIX");
                Ok(sent)
            });
            assert_eq!(sent, SIZE as u64, "{case:?}");
            open.target.finish();
            event_loop.until(|| received.is_finished());
            assert_same(&received.join().unwrap(), &[prefix, &data, b"SUFFIX"].concat(), case);
        }
    }
}

/// SND-007
fn writes_meanwhile_are_mistakes(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        open.until_blocked(event_loop);
        let transport = transport(&open);
        for refused in [transport.try_write(b"data"), transport.try_writelines(["x"]), transport.write_eof()] {
            let (kind, text) = failure(refused);
            assert_eq!(kind, ErrorKind::Runtime, "{case:?}");
            assert!(text.contains("sendfile"), "{text}");
        }
        assert_eq!(event_loop.reports.len(), 0);
        transport.write(b"data");
        assert_eq!(event_loop.reports.len(), 1);
        transport.writelines(["x"]);
        for report in event_loop.reports.take() {
            assert!(format!("{report:?}").contains("sendfile"), "{report:?}");
        }
        let received = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(task), SIZE as u64, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

fn a_second_file_has_to_wait(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        let (open, source, second) = (case.open_with(event_loop, Some(4096)), case.source(&data), case.source(b"two"));
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        open.until_blocked(event_loop);
        second.set_position(1);
        let (kind, text) = failure(event_loop.run_until_complete(open.target.send(&second, WHOLE)));
        assert_eq!((kind, second.position()), (ErrorKind::Runtime, 1), "{case:?}");
        assert!(text.contains("sendfile"), "{text}");
        // The one that was refused has ended nothing.
        assert!(transport(&open).try_write(b"data").is_err(), "{case:?}");

        let received = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(task), SIZE as u64, "{case:?}");
        assert_eq!(event_loop.run(open.target.send(&second, WHOLE)), 3, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &[&data[..], b"two"].concat(), case);
    }
}

fn everything_is_sent_when_it_returns(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        let received = collect(open.peer.try_clone().unwrap());
        event_loop.run(open.target.send(&source, WHOLE));
        assert_eq!(transport(&open).get_write_buffer_size(), 0, "{case:?}");
        transport(&open).abort(); // drops what is left
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

fn nothing_is_received_meanwhile(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        let (mut open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        assert!(transport(&open).is_reading(), "{case:?}");
        open.until_blocked(event_loop);
        open.peer.write_all(b"hello").unwrap();
        event_loop.linger();
        assert!(!transport(&open).is_reading(), "{case:?}");
        assert!(open.log.0.items().is_empty(), "{case:?}: {:?}", open.log.0.items());

        let received = collect(open.peer.try_clone().unwrap());
        event_loop.run(task);
        assert!(transport(&open).is_reading(), "{case:?}");
        event_loop.until(|| open.log.0.len() > 0);
        assert_eq!(open.log.0.take(), ["data(5)"], "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

fn whoever_paused_reading_finds_it_paused(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        for (before, meanwhile, after) in [(true, None, true), (false, Some(true), true), (true, Some(false), false)] {
            let (mut open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
            let pause = |paused: bool| match paused {
                true => transport(&open).pause_reading(),
                false => transport(&open).resume_reading(),
            };
            pause(before);
            let task = event_loop.create_task(open.target.sending(&source, WHOLE));
            open.until_blocked(event_loop);
            meanwhile.into_iter().for_each(pause);
            open.peer.write_all(b"hello").unwrap();
            let received = collect(open.peer.try_clone().unwrap());
            event_loop.run(task);
            assert_eq!(transport(&open).is_reading(), !after, "{case:?}");
            if after {
                event_loop.linger();
                assert!(open.log.0.items().is_empty(), "{case:?}");
                transport(&open).resume_reading();
            }
            event_loop.until(|| open.log.0.len() > 0);
            assert_eq!(open.log.0.take(), ["data(5)"], "{case:?}");
            open.target.finish();
            event_loop.until(|| received.is_finished());
            assert_same(&received.join().unwrap(), &data, case);
        }
    }
}

/// As of a client that has sent its request and waits for the file.
fn an_end_of_the_input_does_not_end_the_file(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        open.until_blocked(event_loop);
        open.peer.shutdown(std::net::Shutdown::Write).unwrap();
        event_loop.linger();
        assert!(open.log.0.items().is_empty(), "{case:?}");
        let received = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(task), SIZE as u64, "{case:?}");
        event_loop.until(|| open.log.0.len() > 0);
        assert_eq!(open.log.0.take(), ["eof"], "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

fn the_files_bytes_do_not_pause_the_protocol(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        transport(&open).set_write_buffer_limits(0, 0).unwrap();
        let received = collect(open.peer.try_clone().unwrap());
        event_loop.run(open.target.send(&source, WHOLE));
        assert!(open.log.0.items().is_empty(), "{case:?}: {:?}", open.log.0.items());
        assert!(!transport(&open).is_write_paused(), "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data, case);
    }
}

/// It may write again then, and too much waits already.
fn what_is_left_of_a_cancelled_file_pauses_the_protocol(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for case in transports() {
        let (open, source) = (case.open_with(event_loop, Some(4096)), case.source(&data));
        transport(&open).set_write_buffer_limits(0, 0).unwrap();
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        open.until_blocked(event_loop);
        task.cancel();
        assert_eq!(failure(event_loop.run_until_complete(task)).0, ErrorKind::Cancelled, "{case:?}");
        let left = transport(&open).get_write_buffer_size() > 0;
        assert_eq!(left, case.way != Way::System, "{case:?}");
        assert_eq!(transport(&open).is_write_paused(), left, "{case:?}");
        let received = collect(open.peer.try_clone().unwrap());
        event_loop.until(|| transport(&open).get_write_buffer_size() == 0);
        event_loop.ticks(1);
        assert_eq!(open.log.0.take(), if left { &["pause", "resume"][..] } else { &[] }, "{case:?}");
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data[..source.position() as usize], case);
    }
}

fn what_paused_the_protocol_before_resumes_it(event_loop: &TestLoop) {
    let (prefix, data) = (pattern(8_000_000), pattern(SIZE));
    for case in transports() {
        let (mut open, source) = (case.open_with(event_loop, Some(16 << 10)), case.source(&data));
        transport(&open).write(&prefix);
        assert_eq!(open.log.0.take(), ["pause"], "{case:?}");
        let task = event_loop.create_task(open.target.sending(&source, WHOLE));
        event_loop.ticks(3);
        let mut received = vec![0; prefix.len()];
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| open.peer.read_exact(&mut received).unwrap());
            event_loop.until(|| reader.is_finished());
        });
        event_loop.ticks(3);
        assert_eq!(open.log.0.take(), ["resume"], "{case:?}");
        let rest = collect(open.peer.try_clone().unwrap());
        assert_eq!(event_loop.run(task), SIZE as u64, "{case:?}");
        assert!(open.log.0.items().is_empty(), "{case:?}");
        open.target.finish();
        event_loop.until(|| rest.is_finished());
        received.extend(rest.join().unwrap());
        assert_same(&received, &[prefix.clone(), data.clone()].concat(), case);
    }
}

fn files_follow_each_other(event_loop: &TestLoop) {
    let data = pattern(3000);
    for case in transports() {
        let (open, source) = (case.open(event_loop), case.source(&data));
        let mut expected = Vec::new();
        for round in 0..20 {
            if round % 3 == 0 {
                transport(&open).write(b"between");
                expected.extend_from_slice(b"between");
            }
            let size = if case.way == Way::Reader { 100 } else { 101 };
            event_loop.run(open.target.send(&source, Range::new(round, size)));
            expected.extend_from_slice(&data[round..round + size]);
        }
        assert_same(&open.received(event_loop), &expected, case);
    }
}
