//! Streams over pipes, each of one direction.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::{
    constants::LIMIT,
    endpoints::stream::{Kind, Opening, StreamEndpoint},
    error::{Error, Result},
    event_loop::{EventLoop, running},
    streams::{
        core::{Half, StreamCore},
        reader::StreamReader,
        store::StreamKey,
        writer::StreamWriter,
    },
    sys::pipe::{self, PipeKind},
    transport::{Transport, protocol::AnyStreamProtocol},
};

/// A reader of a pipe, a socket or a character device, such as standard input.
///
/// The descriptor is the stream's from now on, and is closed with it; pass a duplicate to keep one's own, as by
/// `io::stdin().as_fd().try_clone_to_owned()?`. A file (`program < file`) is none of the three: read it in a thread, by
/// [`to_thread`](crate::to_thread).
///
/// # Errors
///
/// [`Error::Value`] for any other kind of descriptor; [`Error::Io`] of the system; [`Error::Runtime`] without a running
/// loop.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let (theirs, ours) = std::os::unix::net::UnixStream::pair()?; // or the ends of a pipe
///     let mut reader = asyncio::open_read_pipe(theirs)?;
///     let writer = asyncio::open_write_pipe(ours)?;
///     writer.write("a line\n")?;
///     assert_eq!(reader.readline().await?, b"a line\n");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: has none; `loop.connect_read_pipe(lambda: StreamReaderProtocol(reader), pipe)`.
pub fn open_read_pipe(pipe: impl Into<OwnedFd>) -> Result<StreamReader> {
    let (event_loop, fd) = (running::require()?, pipe.into());
    check_kind(&fd)?;
    StreamReader::of_pipe(&event_loop, fd, LIMIT)
}

/// A writer to a pipe, a socket or a character device, such as standard output.
///
/// The descriptor is the stream's from now on, and is closed with it; pass a duplicate to keep one's own.
///
/// # Errors
///
/// As [`open_read_pipe`].
///
/// # Examples
///
/// See [`open_read_pipe`].
///
/// asyncio: has none; `loop.connect_write_pipe` and `StreamWriter`.
pub fn open_write_pipe(pipe: impl Into<OwnedFd>) -> Result<StreamWriter> {
    let (event_loop, fd) = (running::require()?, pipe.into());
    check_kind(&fd)?;
    StreamWriter::of_pipe(&event_loop, fd)
}

fn check_kind(fd: &OwnedFd) -> Result<()> {
    if pipe::kind(fd.as_fd())? == PipeKind::NoPipe {
        let text = "Pipe transport is only for pipes, sockets and character devices";
        return Err(Error::Value(format!("{text}, descriptor {} is none", fd.as_raw_fd()).into()));
    }
    Ok(())
}

impl StreamReader {
    /// The reader of the read end of a pipe.
    pub(crate) fn of_pipe(event_loop: &EventLoop, fd: OwnedFd, limit: usize) -> Result<Self> {
        open(event_loop, fd, Kind::ReadPipe, limit, Half::Reader).map(StreamReader::of)
    }
}

impl StreamWriter {
    /// The writer to the write end of a pipe.
    pub(crate) fn of_pipe(event_loop: &EventLoop, fd: OwnedFd) -> Result<Self> {
        open(event_loop, fd, Kind::WritePipe, LIMIT, Half::Writer).map(StreamWriter::of)
    }
}

fn open(event_loop: &EventLoop, fd: OwnedFd, kind: Kind, limit: usize, half: Half) -> Result<StreamKey> {
    let core = StreamCore::new(event_loop, limit);
    let protocol = AnyStreamProtocol::of_sink(core.clone());
    let opening = Opening { fd, kind, peer: None, protocol, opener: None, attached: None };
    let endpoint = StreamEndpoint::open(event_loop, opening)?;
    core.set_transport(&Transport(endpoint));
    Ok(StreamKey::share(event_loop, &core, &[half]))
}
