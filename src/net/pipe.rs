//! Pipes, terminals and the like as byte streams that only read or only write.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::{
    endpoints::stream::Kind,
    error::Error,
    event_loop::EventLoop,
    net::{
        open::{OpenStream, Prepared},
        sock::Home,
    },
    sys::pipe::{self, PipeKind},
    transport::protocol::StreamProtocol,
};

impl EventLoop {
    /// Lets a protocol have what comes out of `pipe`: the read end of a pipe, a FIFO, a socket, a terminal or another
    /// character device.
    ///
    /// At the end of the input the protocol's `eof_received` is called and the transport closes, whatever that returns.
    /// The transport cannot be written to. A panic in the protocol, also in `data_received`, is reported and changes
    /// nothing.
    ///
    /// The descriptor becomes the transport's, which closes it. It is made non-blocking, and blocking again at the end
    /// if it was: a program shares its standard input with whoever started it. Waiting for it takes no thread, so an
    /// input that never ends keeps no program from ending.
    ///
    /// # Cancel safety
    ///
    /// A cancelled or dropped call closes the descriptor. What has not been read by then stays in the pipe.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a regular file, a directory or a disk; the descriptor is closed, and its mode not changed.
    /// [`Error::Runtime`] where no loop runs, [`Error::Value`] in another loop than this one.
    ///
    /// # Panics
    ///
    /// A panic of the factory comes out of the await.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::{Command, Stdio};
    ///
    /// use asyncio::{Error, Future, Protocol};
    ///
    /// struct Words {
    ///     text: Vec<u8>,
    ///     ended: Future<usize>,
    /// }
    ///
    /// impl Protocol for Words {
    ///     fn data_received(&mut self, data: &[u8]) {
    ///         self.text.extend_from_slice(data);
    ///     }
    ///
    ///     fn connection_lost(&mut self, _error: Option<&Error>) {
    ///         let words = self.text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    ///         let _ = self.ended.set_result(words.count()); // unless nobody waits for it any more
    ///     }
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let mut child = Command::new("echo").args(["one", "two"]).stdout(Stdio::piped()).spawn()?;
    ///     let stdout = child.stdout.take().expect("it is piped");
    ///     let ended = event_loop.create_future();
    ///     let words = Words { text: Vec::new(), ended: ended.clone() };
    ///     let (transport, _) = event_loop.connect_read_pipe(|| words, stdout).await?;
    ///     assert!(transport.is_reading());
    ///     assert_eq!(ended.await?, 2);
    ///     child.wait()?;
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// Standard input, by a duplicate of its descriptor: `std::io::stdin().as_fd().try_clone_to_owned()?`.
    ///
    /// asyncio: `loop.connect_read_pipe`. Differs: a blocking pipe is made blocking again; what fails in `EIO`, as a
    /// terminal does when its other side is gone, has ended.
    pub fn connect_read_pipe<P, K, F>(&self, factory: F, pipe: impl Into<OwnedFd>) -> OpenStream<F, P>
    where
        F: FnOnce() -> P,
        P: StreamProtocol<K>,
    {
        self.connect_pipe(factory, pipe.into(), Kind::ReadPipe)
    }

    /// Lets a protocol write into `pipe`: the write end of a pipe, a FIFO, a socket, a terminal or another character
    /// device.
    ///
    /// [`write_eof`](crate::Transport::write_eof) closes, and closing writes what waits first. When nobody reads any
    /// more the connection is lost, with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe) if something waits to be
    /// written; that is noticed without a write, except on devices. The transport receives nothing.
    ///
    /// The descriptor is as in [`connect_read_pipe`](Self::connect_read_pipe), and so are panics of the protocol.
    ///
    /// # Cancel safety
    ///
    /// A cancelled or dropped call closes the descriptor.
    ///
    /// # Errors
    ///
    /// As [`connect_read_pipe`](Self::connect_read_pipe).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::{Command, Stdio};
    ///
    /// struct Ignore;
    ///
    /// impl asyncio::Protocol for Ignore {
    ///     fn data_received(&mut self, _data: &[u8]) {}
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    ///     let stdin = child.stdin.take().expect("it is piped");
    ///     let (transport, _) = event_loop.connect_write_pipe(|| Ignore, stdin).await?;
    ///     transport.writelines(["one", "two"]);
    ///     transport.write_eof()?;
    ///     let output = asyncio::to_thread(|| Ok(child.wait_with_output()?)).await?;
    ///     assert_eq!(output.stdout, b"onetwo");
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.connect_write_pipe`. Differs: a blocking pipe is made blocking again; what is sent to a socket or
    /// is in a FIFO that is open for both does not count as its reader's going.
    pub fn connect_write_pipe<P, K, F>(&self, factory: F, pipe: impl Into<OwnedFd>) -> OpenStream<F, P>
    where
        F: FnOnce() -> P,
        P: StreamProtocol<K>,
    {
        self.connect_pipe(factory, pipe.into(), Kind::WritePipe)
    }

    fn connect_pipe<P, K, F>(&self, factory: F, fd: OwnedFd, kind: Kind) -> OpenStream<F, P>
    where
        F: FnOnce() -> P,
        P: StreamProtocol<K>,
    {
        let home = Home::of(self);
        OpenStream::new(factory, async move {
            let event_loop = home.event_loop()?;
            if pipe::kind(fd.as_fd())? == PipeKind::NoPipe {
                let text = "Pipe transport is only for pipes, sockets and character devices";
                return Err(Error::Value(format!("{text}, descriptor {} is none", fd.as_raw_fd()).into()));
            }
            Ok(Prepared { event_loop, fd, kind, peer: None, tls: None })
        })
    }
}
