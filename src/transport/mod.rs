//! Transports as users hold them, and the protocols that they call.

pub(crate) mod activity;
pub(crate) mod buffers;
pub(crate) mod calls;
pub(crate) mod datagram;
pub(crate) mod datagram_queue;
pub(crate) mod extra_info;
pub(crate) mod flow;
pub(crate) mod protocol;
pub(crate) mod pull_sink;
pub(crate) mod write_buffer;

use std::{
    cell::RefCell,
    fmt,
    hash::{Hash, Hasher},
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    panic::Location,
    rc::Rc,
    task::{Poll, Waker},
};

use crate::{
    constants::PIECES_PER_WRITE,
    error::{Error, Result},
    transport::{
        activity::Standing,
        extra_info::{ExtraInfo, ExtraName, ExtraValue},
        protocol::{AnyStreamProtocol, StreamProtocol},
    },
};

/// A byte stream: a socket, a pipe, or TLS over one. A cheap handle; clones are the same transport, and `==` says so.
///
/// ```text
/// Open --close, the other side ends, an error--> Closing --the buffer is written--> Lost (connection_lost)
/// Open, Closing --abort--> Lost
/// ```
///
/// Writing never waits: what the system does not take at once is kept and written as it takes more, and the protocol is
/// told to pause when that grows. After `close`, `abort` or the loss of the connection every call is harmless and does
/// nothing. Dropping the last handle does not close: the loop keeps an open transport.
///
/// `Threads:` bound to its loop's.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::Transport>();
/// ```
///
/// # Examples
///
/// ```
/// use asyncio::{PEERNAME, Protocol, Transport};
///
/// struct Hello;
///
/// impl Protocol for Hello {
///     fn connection_made(&mut self, transport: &Transport) {
///         println!("connected to {:?}", transport.get_extra_info(PEERNAME));
///         transport.write(b"hello");
///         transport.close(); // what was written is sent first
///     }
///
///     fn data_received(&mut self, _data: &[u8]) {}
/// }
///
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
///     let (transport, _) = event_loop.create_connection(|| Hello, listener.local_addr()?).await?;
///     assert!(transport.is_closing());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Transport`, with `ReadTransport` and `WriteTransport`.
#[derive(Clone)]
pub struct Transport(pub(crate) Rc<dyn RawTransport>);

impl Transport {
    /// Writes `data`: what the system takes at once, and the rest as it takes more.
    ///
    /// Writing when it is a mistake (after [`write_eof`](Self::write_eof), during `sendfile`, to a pipe that only reads)
    /// writes nothing and goes to the exception handler; [`try_write`](Self::try_write) gives it back.
    ///
    /// asyncio: `WriteTransport.write`. Differs: a mistake is reported, not raised.
    #[track_caller]
    pub fn write(&self, data: &[u8]) {
        if let Err(error) = self.0.write(data) {
            self.0.report_misuse("write", error, Location::caller());
        }
    }

    /// As [`write`](Self::write), and says what is wrong.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`](crate::Error::Runtime) after `write_eof`, during `sendfile`, and where the transport only reads.
    ///
    /// asyncio: `WriteTransport.write`, which raises.
    pub fn try_write(&self, data: &[u8]) -> Result<()> {
        self.0.write(data)
    }

    /// Writes all of `lines`, one after the other, in as few calls of the system as it takes.
    ///
    /// As [`write`](Self::write) otherwise. An empty list is nothing.
    ///
    /// asyncio: `WriteTransport.writelines`.
    #[track_caller]
    pub fn writelines<B: AsRef<[u8]>>(&self, lines: impl AsRef<[B]>) {
        if let Err(error) = self.try_writelines(lines) {
            self.0.report_misuse("writelines", error, Location::caller());
        }
    }

    /// As [`writelines`](Self::writelines), and says what is wrong.
    ///
    /// # Errors
    ///
    /// See [`try_write`](Self::try_write).
    ///
    /// asyncio: `WriteTransport.writelines`, which raises.
    pub fn try_writelines<B: AsRef<[u8]>>(&self, lines: impl AsRef<[B]>) -> Result<()> {
        let mut left = lines.as_ref();
        while !left.is_empty() {
            let (lines, after) = left.split_at(left.len().min(PIECES_PER_WRITE));
            let mut pieces = [IoSlice::new(&[]); PIECES_PER_WRITE];
            for (piece, line) in pieces.iter_mut().zip(lines) {
                *piece = IoSlice::new(line.as_ref());
            }
            self.0.write_vectored(&pieces[..lines.len()], !after.is_empty())?;
            left = after;
        }
        Ok(())
    }

    /// Ends writing once everything is written; the other side can still be read from.
    ///
    /// A second call does nothing. A pipe closes.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`](crate::Error::Runtime) "not supported" where [`can_write_eof`](Self::can_write_eof) is false, and
    /// during `sendfile`.
    ///
    /// asyncio: `WriteTransport.write_eof`.
    pub fn write_eof(&self) -> Result<()> {
        self.0.write_eof()
    }

    /// Whether [`write_eof`](Self::write_eof) is supported: by sockets and pipes, not by TLS.
    ///
    /// asyncio: `WriteTransport.can_write_eof`.
    pub fn can_write_eof(&self) -> bool {
        self.0.can_write_eof()
    }

    /// Stops `data_received` until [`resume_reading`](Self::resume_reading). Again, or after close, it does nothing.
    ///
    /// asyncio: `ReadTransport.pause_reading`.
    pub fn pause_reading(&self) {
        self.0.pause_reading();
    }

    /// Lets `data_received` be called again. If reading goes on already, or after close, it does nothing.
    ///
    /// asyncio: `ReadTransport.resume_reading`.
    pub fn resume_reading(&self) {
        self.0.resume_reading();
    }

    /// Whether new data will be received: neither paused nor closing.
    ///
    /// asyncio: `ReadTransport.is_reading`.
    pub fn is_reading(&self) -> bool {
        self.0.is_reading()
    }

    /// Closes: receives no more at once, writes what waits, and then calls `connection_lost(None)`; if that write fails,
    /// `connection_lost` gets the error.
    ///
    /// Over TLS it says so to the other side, and waits for its word: `eof_received` comes before `connection_lost` then,
    /// which gets [`Error::Timeout`](crate::Error::Timeout) where nothing moves for the `ssl_shutdown_timeout`. During the
    /// handshake it aborts.
    ///
    /// While somebody holds the protocol borrowed the call waits for its release, and the descriptor stays open.
    ///
    /// asyncio: `BaseTransport.close`.
    pub fn close(&self) {
        self.0.close();
    }

    /// Closes at once and drops what waits to be written; `connection_lost(None)` comes in the next iteration.
    ///
    /// asyncio: `WriteTransport.abort`.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it is closing or closed.
    ///
    /// asyncio: `BaseTransport.is_closing`.
    pub fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    /// What the transport knows under a key such as [`PEERNAME`](crate::PEERNAME); `None` if it does not have it.
    ///
    /// Addresses can be read after the connection is over, too.
    ///
    /// # Examples
    ///
    /// ```
    /// fn who(transport: &asyncio::Transport) -> Option<asyncio::Address> {
    ///     transport.get_extra_info(asyncio::PEERNAME)
    /// }
    /// ```
    ///
    /// asyncio: `BaseTransport.get_extra_info`. Differs: keys are typed constants.
    pub fn get_extra_info<T: 'static>(&self, key: ExtraInfo<T>) -> Option<T> {
        let value = self.0.extra_info(key.name)?;
        value.downcast().ok().map(|value| *value)
    }

    /// Lends the descriptor, to look at it or to set options; `None` once it is closed.
    ///
    /// Reading from it, writing to it and changing its mode are the transport's.
    ///
    /// asyncio: `get_extra_info('socket')`.
    pub fn with_fd<R>(&self, look: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        let (mut look, mut result) = (Some(look), None);
        self.0.with_fd(&mut |fd| {
            if let Some(look) = look.take() {
                result = Some(look(fd));
            }
        });
        result
    }

    /// Lets another protocol, of either kind, be called from now on. Neither hears of the change.
    ///
    /// After `connection_lost` it does nothing. On a transport that `start_tls` has taken over it is a mistake, which goes
    /// to the exception handler.
    ///
    /// asyncio: `BaseTransport.set_protocol`.
    #[track_caller]
    pub fn set_protocol<P: StreamProtocol<Kind>, Kind>(&self, protocol: Rc<RefCell<P>>) {
        let before = self.0.protocol().and_then(AnyStreamProtocol::into_sink);
        match self.0.set_protocol(P::erase(protocol)) {
            Ok(()) => before.into_iter().for_each(|before| before.detached()),
            Err(error) => self.0.report_misuse("set_protocol", error, Location::caller()),
        }
    }

    /// The protocol, if it is a `P`; `None` after `connection_lost` as well.
    ///
    /// asyncio: `BaseTransport.get_protocol`.
    pub fn get_protocol<P: 'static>(&self) -> Option<Rc<RefCell<P>>> {
        self.0.protocol()?.downcast()
    }

    /// How many bytes wait to be written; over TLS they are encrypted already.
    ///
    /// asyncio: `WriteTransport.get_write_buffer_size`.
    pub fn get_write_buffer_size(&self) -> usize {
        self.0.write_buffer_size()
    }

    /// The water marks in bytes, low and high.
    ///
    /// asyncio: `WriteTransport.get_write_buffer_limits`.
    pub fn get_write_buffer_limits(&self) -> (usize, usize) {
        self.0.write_buffer_limits()
    }

    /// Sets the water marks in bytes. A missing low is a quarter of high, a missing high four times low; both missing
    /// are the defaults: 16 KiB and 64 KiB, over TLS 128 KiB and 512 KiB.
    ///
    /// # Errors
    ///
    /// [`Error::Value`](crate::Error::Value) if low is above high; nothing changes then.
    ///
    /// asyncio: `WriteTransport.set_write_buffer_limits`.
    pub fn set_write_buffer_limits(&self, high: impl Into<Option<usize>>, low: impl Into<Option<usize>>) -> Result<()> {
        self.0.set_write_buffer_limits(high.into(), low.into())
    }

    /// Whether the protocol is to pause writing: true from the crossing of the high-water mark on, also inside of the
    /// very callback that crossed it, until the buffer has fallen to the low-water mark.
    ///
    /// asyncio: has none; a protocol keeps it by itself.
    pub fn is_write_paused(&self) -> bool {
        self.0.is_write_paused()
    }
}

impl PartialEq for Transport {
    /// Whether both are handles of one transport.
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Transport {}

impl Hash for Transport {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Rc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.describe())
    }
}

/// A byte stream as its handle sees it.
pub(crate) trait RawTransport {
    fn describe(&self) -> String;
    /// Silent once it is closing.
    fn write(&self, data: &[u8]) -> Result<()>;
    /// `more` says that the caller goes on: the protocol is told to pause after the last of it, or it could write between.
    fn write_vectored(&self, pieces: &[IoSlice<'_>], more: bool) -> Result<()>;
    fn write_eof(&self) -> Result<()>;
    fn can_write_eof(&self) -> bool;
    fn pause_reading(&self);
    fn resume_reading(&self);
    fn is_reading(&self) -> bool;
    fn close(&self);
    fn abort(&self);
    fn is_closing(&self) -> bool;
    /// How it stands, for a server that drains.
    fn standing(&self) -> Standing;
    /// A value of the type that belongs to the name.
    fn extra_info(&self, name: ExtraName) -> Option<ExtraValue>;
    /// Calls `look` unless the descriptor is closed.
    fn with_fd(&self, look: &mut dyn FnMut(BorrowedFd<'_>));
    fn set_protocol(&self, protocol: AnyStreamProtocol) -> Result<()>;
    fn protocol(&self) -> Option<AnyStreamProtocol>;
    /// Receives by itself what the protocol, a sink, waits for: 0 at the end of the input, of which the sink has been told
    /// then, and `WouldBlock` if there is nothing or it has to come through the protocol.
    fn try_receive(&self, memory: &mut [u8]) -> io::Result<usize> {
        let _ = memory;
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Whether the input ended without the other side's saying so, where it should have.
    fn is_truncated(&self) -> bool {
        false
    }
    fn write_buffer_size(&self) -> usize;
    fn write_buffer_limits(&self) -> (usize, usize);
    fn set_write_buffer_limits(&self, high: Option<usize>, low: Option<usize>) -> Result<()>;
    fn is_write_paused(&self) -> bool;
    /// Gives a mistake of the caller's to the exception handler.
    fn report_misuse(&self, call: &str, error: Error, location: &'static Location<'static>);

    /// How a file can be sent over it.
    fn sendfile_mode(&self) -> SendfileMode;
    /// Keeps others from writing, and lets nothing be received, until [`end_sendfile`](Self::end_sendfile).
    fn begin_sendfile(&self) -> Result<()>;
    fn end_sendfile(&self);
    /// Ready when nothing waits to be written any more. With `writable` it is pending until the descriptor, which could
    /// not be written to, may be tried again. An error once the transport is closing.
    fn poll_drained(&self, writable: bool, waker: &Waker) -> Poll<Result<()>>;
    /// Has whoever waits for that look again.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS closes before its descriptor"))]
    fn wake_drained(&self);
    /// Ends the connection, which the one that sends a file or a layer over it has found broken.
    fn fail(&self, error: Error);

    /// Keeps all but a layer over this transport from writing, for ever; an error where it cannot carry one. Gives whether
    /// the protocol has been told to pause writing: what it has not been told yet, the layer is told.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS is a layer"))]
    fn begin_layer(&self) -> Result<bool>;
    /// What this belongs to, such as a server, is to close the `layer` from now on.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS is a layer"))]
    fn hand_on(&self, layer: Transport);
    /// The layer has told its protocol that the connection is over.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS is a layer"))]
    fn layer_ended(&self);
    /// Writes for the layer, or for the one that sends a file; `more` as for [`write_vectored`](Self::write_vectored).
    fn write_for_layer(&self, pieces: &[IoSlice<'_>], more: bool) -> Result<()>;
    /// Ends a connection whose opener has gone: a protocol that has not heard of it never will.
    fn abandon(&self);
}

/// How a transport sends files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendfileMode {
    Unsupported,
    /// By writing what was read.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "what TLS has"))]
    Fallback,
    /// By the system, if the file allows it.
    TryNative,
}
