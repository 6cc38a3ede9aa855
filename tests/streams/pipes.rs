//! What these tests show: streams over pipes, each of one direction.

use std::{
    fs::File,
    io::{ErrorKind as IoKind, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use asyncio::{ErrorKind, PIPE, create_task, open_read_pipe, open_write_pipe};

use crate::{
    pipe, polls,
    support::{
        failure,
        loops::On,
        transports::{PairKind, Peer, pattern},
    },
    turns,
};

on_each_selector! {
    what_goes_in_comes_out
    a_reader_ends_with_the_last_writer
    dropping_the_reader_closes_its_end
    dropping_the_writer_sends_all_and_closes_its_end
    a_writer_learns_that_nobody_reads
    a_writer_waits_for_a_slow_reader
    only_what_streams_is_taken
    sockets_are_taken_too
    devices_are_taken_too
    a_pipe_needs_a_running_loop
}

fn what_goes_in_comes_out(on: On) {
    let event_loop = on.event_loop();
    let (theirs, ours) = pipe();
    event_loop.run(async {
        let (mut reader, writer) = (open_read_pipe(theirs)?, open_write_pipe(ours)?);
        assert!(writer.can_write_eof() && writer.get_extra_info(PIPE).is_some());
        writer.write("a line\n")?;
        assert_eq!(reader.readline().await?, b"a line\n");
        let data = pattern(1_000_000);
        let receiving = create_task(async move { reader.read(None).await });
        for chunk in data.chunks(10_000) {
            writer.write(chunk)?;
            writer.drain().await?;
        }
        writer.write_eof()?;
        assert!(receiving.await? == data);
        writer.wait_closed().await
    });
}

fn a_reader_ends_with_the_last_writer(on: On) {
    let event_loop = on.event_loop();
    let (theirs, mut ours) = pipe();
    event_loop.run(async {
        let mut reader = open_read_pipe(theirs)?;
        let other = ours.try_clone().unwrap();
        ours.write_all(b"last").unwrap();
        drop(ours);
        assert_eq!(reader.readexactly(2).await?, b"la");
        assert!(polls(reader.read(None), 5).await.is_none());
        drop(other);
        assert_eq!(reader.read(None).await?, b"st");
        assert!(reader.at_eof());
        assert_eq!(reader.read(None).await?, b"");
        Ok(())
    });
}

fn dropping_the_reader_closes_its_end(on: On) {
    let event_loop = on.event_loop();
    for used in [false, true] {
        let (theirs, mut ours) = pipe();
        let number = theirs.as_raw_fd();
        let reader = event_loop.run(async {
            let mut reader = open_read_pipe(theirs)?;
            if used {
                ours.write_all(b"something").unwrap();
                reader.read(1).await?;
            }
            Ok(reader)
        });
        drop(reader);
        event_loop.until(|| ours.write(b"x").is_err_and(|error| error.kind() == IoKind::BrokenPipe));
        assert!(event_loop.remove_reader(&number).is_ok(), "it is the transport's no more");
    }
}

fn dropping_the_writer_sends_all_and_closes_its_end(on: On) {
    let event_loop = on.event_loop();
    let (mut theirs, ours) = pipe();
    let writer = event_loop.run(async { open_write_pipe(ours) });
    writer.write(pattern(1_000_000)).unwrap();
    drop(writer);
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        all
    });
    event_loop.until(|| reading.is_finished());
    assert!(reading.join().unwrap() == pattern(1_000_000));
}

fn a_writer_learns_that_nobody_reads(on: On) {
    let event_loop = on.event_loop();
    let (theirs, ours) = pipe();
    let writer = event_loop.run(async { open_write_pipe(ours) });
    writer.write(pattern(1_000_000)).unwrap();
    drop(theirs);
    let error = event_loop.fails(writer.drain());
    assert!(matches!(error.io_error().unwrap().kind(), IoKind::BrokenPipe | IoKind::ConnectionReset), "{error}");
    assert!(writer.is_closing());
    writer.write("late").unwrap();

    let (theirs, ours) = pipe();
    let writer = event_loop.run(async { open_write_pipe(ours) });
    drop(theirs);
    event_loop.run(writer.wait_closed());
}

fn a_writer_waits_for_a_slow_reader(on: On) {
    let event_loop = on.event_loop();
    let (mut theirs, ours) = pipe();
    event_loop.run(async {
        let writer = open_write_pipe(ours)?;
        writer.write(pattern(1_000_000))?;
        assert!(polls(writer.drain(), 5).await.is_none());
        let reading = std::thread::spawn(move || {
            let mut all = vec![0; 1_000_000];
            theirs.read_exact(&mut all).unwrap();
            all
        });
        writer.drain().await?;
        crate::turns_until(|| reading.is_finished()).await;
        assert!(reading.join().unwrap() == pattern(1_000_000));
        Ok(())
    });
}

fn only_what_streams_is_taken(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        for (kind, text) in [failure(open_read_pipe(file())), failure(open_write_pipe(file()))] {
            assert_eq!((kind, text.contains("only for pipes")), (ErrorKind::Value, true), "{text}");
        }
        Ok(())
    });
}

fn sockets_are_taken_too(on: On) {
    let event_loop = on.event_loop();
    let pair = PairKind::Socketpair.pair();
    event_loop.run(async {
        let copy = pair.ours.try_clone().unwrap();
        let (mut reader, writer) = (open_read_pipe(pair.ours)?, open_write_pipe(copy)?);
        writer.write("out")?;
        assert_eq!(pair.peer.read_exactly(3), b"out");
        pair.peer.send(b"in");
        assert_eq!(reader.readexactly(2).await?, b"in");
        Ok(())
    });
    event_loop.until(|| Peer::ended(&pair.peer));
}

fn devices_are_taken_too(on: On) {
    let event_loop = on.event_loop();
    event_loop.run(async {
        let mut reader = open_read_pipe(File::open("/dev/null").unwrap())?;
        let writer = open_write_pipe(File::options().write(true).open("/dev/null").unwrap())?;
        assert_eq!(reader.read(None).await?, b"");
        writer.write(pattern(1_000_000))?;
        writer.drain().await?;
        let mut zeros = open_read_pipe(File::open("/dev/zero").unwrap())?;
        assert_eq!(zeros.readexactly(100_000).await?, vec![0; 100_000]);
        turns(5).await;
        assert!(!zeros.at_eof());
        Ok(())
    });
}

fn a_pipe_needs_a_running_loop(on: On) {
    let event_loop = on.event_loop();
    let (theirs, ours) = pipe();
    assert_eq!(failure(open_read_pipe(theirs)).0, ErrorKind::Runtime);
    assert_eq!(failure(open_write_pipe(ours)).0, ErrorKind::Runtime);
    drop(event_loop);
}
