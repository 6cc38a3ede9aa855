//! What these tests show: readers that do as they please.

use std::{
    fs::File,
    io::{self, Cursor, Read, Seek, SeekFrom},
    thread::ThreadId,
};

use asyncio::{ErrorKind, Reader, Result};

use crate::{Open, SIZE, Target, TestLoop, Way, assert_same, cases, collect, file, pattern};

on_each_selector! {
    a_reader_may_give_little_and_be_interrupted
    a_reader_is_read_on_the_loops_thread
    a_reader_that_fails_is_an_error
    a_reader_that_panics_ends_the_task_and_nothing_else
    a_reader_that_cannot_be_moved_is_not_read
    a_reader_may_be_a_file
    a_reader_may_have_lost_its_type
}

/// Sends what it is given, over whatever is open.
async fn send<R: Read + Seek>(open: &Open, reader: &mut R, offset: u64) -> Result<u64> {
    let event_loop = asyncio::get_running_loop()?;
    match &open.target {
        Target::Socket(fd) => event_loop.sock_sendfile(&**fd, Reader(reader)).offset(offset).await,
        Target::Transport(transport) => event_loop.sendfile(transport, Reader(reader)).offset(offset).await,
    }
}

fn opened(event_loop: &TestLoop) -> impl Iterator<Item = Open> + '_ {
    cases().filter(|case| case.way == Way::Reader).map(|case| case.open(event_loop))
}

/// Memory that can be made to do this and that.
struct Odd {
    memory: Cursor<Vec<u8>>,
    /// How many bytes it gives at once.
    piece: usize,
    /// Whether every other call is interrupted.
    interrupts: bool,
    /// What happens instead of reading what is at this position.
    fault: Option<(u64, Fault)>,
    /// What happens instead of moving to anywhere.
    seek_fault: Option<Fault>,
    threads: Vec<ThreadId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fails,
    Panics,
}

impl Fault {
    fn happens<T>(self) -> io::Result<T> {
        match self {
            Fault::Fails => Err(io::Error::new(io::ErrorKind::InvalidData, "scratched")),
            Fault::Panics => panic!("scratched"),
        }
    }
}

impl Odd {
    fn new(data: &[u8]) -> Self {
        let memory = Cursor::new(data.to_vec());
        Odd { memory, piece: usize::MAX, interrupts: false, fault: None, seek_fault: None, threads: Vec::new() }
    }
}

impl Read for Odd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.threads.push(std::thread::current().id());
        if self.interrupts && self.threads.len() % 2 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut size = buffer.len().min(self.piece);
        if let Some((position, fault)) = self.fault {
            if self.memory.position() == position {
                return fault.happens();
            }
            size = size.min((position - self.memory.position()) as usize);
        }
        self.memory.read(&mut buffer[..size])
    }
}

impl Seek for Odd {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match self.seek_fault {
            Some(fault) => fault.happens(),
            None => self.memory.seek(position),
        }
    }
}

fn a_reader_may_give_little_and_be_interrupted(event_loop: &TestLoop) {
    let data = pattern(3000);
    for open in opened(event_loop) {
        let received = collect(open.peer.try_clone().unwrap());
        let mut reader = Odd { piece: 7, interrupts: true, ..Odd::new(&data) };
        assert_eq!(event_loop.run(send(&open, &mut reader, 10)), 2990, "{:?}", open.case);
        assert_eq!(reader.memory.position(), 3000);
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data[10..], open.case);
    }
}

fn a_reader_is_read_on_the_loops_thread(event_loop: &TestLoop) {
    for open in opened(event_loop) {
        let mut reader = Odd { piece: 100, ..Odd::new(&pattern(1000)) };
        event_loop.run(send(&open, &mut reader, 0));
        assert!(reader.threads.len() > 10);
        assert!(reader.threads.iter().all(|thread| *thread == std::thread::current().id()));
        assert_same(&open.received(event_loop), &pattern(1000), open.case);
    }
}

fn a_reader_that_fails_is_an_error(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for end in [10, 11, 100_000, SIZE as u64] {
        for open in opened(event_loop) {
            let mut reader = Odd { fault: Some((end, Fault::Fails)), ..Odd::new(&data) };
            reader.memory.set_position(3);
            let received = collect(open.peer.try_clone().unwrap());
            let error = event_loop.run_until_complete(send(&open, &mut reader, 10)).unwrap_err();
            assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::InvalidData, "{:?}", open.case);
            assert!(error.to_string().contains("scratched"), "{error}");
            assert_eq!(reader.memory.position(), if end == 10 { 3 } else { end }, "{:?}", open.case);
            event_loop.run(open.target.write(b"SUFFIX"));
            open.target.finish();
            event_loop.until(|| received.is_finished());
            let expected = [&data[10..end as usize], b"SUFFIX"].concat();
            assert_same(&received.join().unwrap(), &expected, open.case);
        }
    }
}

fn a_reader_that_panics_ends_the_task_and_nothing_else(event_loop: &TestLoop) {
    let data = pattern(SIZE);
    for end in [10, 100_000] {
        for seek_fault in [None, Some(Fault::Panics)] {
            for open in opened(event_loop) {
                let received = collect(open.peer.try_clone().unwrap());
                let (target, case) = (open.target.clone(), open.case);
                let (data_of_reader, peer) = (data.clone(), open.peer.try_clone().unwrap());
                let task = event_loop.create_task(async move {
                    let mut reader = Odd { fault: Some((end, Fault::Panics)), ..Odd::new(&data_of_reader) };
                    let open = Open { case, target, peer, log: crate::Log::default() };
                    // Moving begins to fail behind the first move, so that the one that cleans up panics as well.
                    let mut reader = Late { reader: &mut reader, moves: 0, fault: seek_fault };
                    send(&open, &mut reader, 10).await
                });
                let error = event_loop.run_until_complete(task).unwrap_err();
                assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Panicked, "scratched"), "{case:?}");
                event_loop.reports.take(); // of a task that nobody awaited yet
                event_loop.run(open.target.write(b"SUFFIX"));
                open.target.finish();
                event_loop.until(|| received.is_finished());
                let expected = [&data[10..end as usize], b"SUFFIX"].concat();
                assert_same(&received.join().unwrap(), &expected, case);
            }
        }
    }
}

/// A reader that cannot be moved any more after it was asked where it is, and moved once.
struct Late<'a> {
    reader: &'a mut Odd,
    moves: usize,
    fault: Option<Fault>,
}

impl Read for Late<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Seek for Late<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.moves += 1;
        match self.fault {
            Some(fault) if self.moves > 2 => fault.happens(),
            _ => self.reader.seek(position),
        }
    }
}

fn a_reader_that_cannot_be_moved_is_not_read(event_loop: &TestLoop) {
    for open in opened(event_loop) {
        let mut reader = Odd { seek_fault: Some(Fault::Fails), ..Odd::new(b"content") };
        let error = event_loop.run_until_complete(send(&open, &mut reader, 0)).unwrap_err();
        assert!(error.to_string().contains("scratched"), "{error}");
        assert_eq!((reader.memory.position(), reader.threads.len()), (0, 0));

        // Everything was sent, but the position is not where it belongs: that is said.
        let mut reader = Odd::new(b"content");
        let mut reader = Late { reader: &mut reader, moves: 0, fault: Some(Fault::Fails) };
        let error = event_loop.run_until_complete(send(&open, &mut reader, 0)).unwrap_err();
        assert!(error.to_string().contains("scratched"), "{error}");
        assert_same(&open.received(event_loop), b"content", open.case);
    }
}

fn a_reader_may_be_a_file(event_loop: &TestLoop) {
    let data = pattern(50_000);
    for open in opened(event_loop) {
        let received = collect(open.peer.try_clone().unwrap());
        let mut file: File = file(&data);
        assert_eq!(event_loop.run(send(&open, &mut file, 1)), 49_999, "{:?}", open.case);
        assert_eq!(file.stream_position().unwrap(), 50_000);
        open.target.finish();
        event_loop.until(|| received.is_finished());
        assert_same(&received.join().unwrap(), &data[1..], open.case);
    }
}

fn a_reader_may_have_lost_its_type(event_loop: &TestLoop) {
    trait ReadSeek: Read + Seek {}
    impl<T: Read + Seek> ReadSeek for T {}
    for open in opened(event_loop) {
        let mut memory = Cursor::new(b"content");
        let mut erased: &mut dyn ReadSeek = &mut memory;
        assert_eq!(event_loop.run(send(&open, &mut erased, 3)), 4, "{:?}", open.case);
        assert_same(&open.received(event_loop), b"tent", open.case);
    }
}
