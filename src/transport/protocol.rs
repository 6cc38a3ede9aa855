//! Protocols of byte streams: what a transport calls.

use std::{
    any::{Any, type_name},
    cell::{RefCell, RefMut},
    rc::Rc,
    task::Waker,
};

use crate::{
    error::Error,
    transport::{
        Transport,
        calls::{Callee, Calls, Notice},
        pull_sink::PullSink,
    },
};

/// What happens on a byte stream, as calls.
///
/// ```text
/// connection_made -> data_received* -> eof_received? -> connection_lost
///                    pause_writing, resume_writing, in turns
/// ```
///
/// `connection_made` is first and `connection_lost` last, each exactly once. All run on the loop's thread, one at a time,
/// in the context in which the transport was made. A call that is due while another one of the same protocol runs (a
/// `write` in `data_received` that wants `pause_writing`) comes right after it.
///
/// A panic in `data_received` or `eof_received` of a socket is fatal: it is reported, what waits to be written is
/// dropped, and `connection_lost` gets the error. Over TLS so is one in `connection_made`, which is the error of whoever
/// opens the connection, too. Other panics are reported and change nothing. Where the loop is closed with a transport
/// open, `connection_lost` is not called any more.
///
/// **Do not hold a borrow of the protocol over an await.** `protocol.borrow_mut().request().await` keeps the transport from
/// calling it: when data has come and the protocol is still borrowed in the next iteration, that is reported and the
/// connection aborted. Let a short borrow make a future, let it go, and await the future then:
///
/// ```
/// # struct Client;
/// # impl Client {
/// #     fn request(&mut self) -> asyncio::Future<String> { asyncio::Future::new() }
/// # }
/// # async fn ask(protocol: std::rc::Rc<std::cell::RefCell<Client>>) -> asyncio::Result<String> {
/// let answer = protocol.borrow_mut().request(); // what data_received will complete
/// answer.await
/// # }
/// ```
///
/// The lint `clippy::await_holding_refcell_ref` finds such borrows.
///
/// # Examples
///
/// ```
/// use asyncio::{Error, Protocol, Transport};
///
/// #[derive(Default)]
/// struct Echo {
///     transport: Option<Transport>,
/// }
///
/// impl Protocol for Echo {
///     fn connection_made(&mut self, transport: &Transport) {
///         self.transport = Some(transport.clone());
///     }
///
///     fn data_received(&mut self, data: &[u8]) {
///         if let Some(transport) = &self.transport {
///             transport.write(data);
///         }
///     }
///
///     fn connection_lost(&mut self, _error: Option<&Error>) {
///         self.transport = None;
///     }
/// }
///
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let server = event_loop.create_server(Echo::default, ("127.0.0.1", 0)).await?;
///     assert!(server.is_serving());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Protocol`.
pub trait Protocol: 'static {
    /// The connection stands. Keep a clone of `transport` to write.
    fn connection_made(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// Bytes have arrived: at least one, split anyhow.
    fn data_received(&mut self, data: &[u8]);

    /// The other side will send no more. `true` keeps this side open for writing, `false` closes the transport. Over TLS
    /// nothing keeps it open: both sides close.
    ///
    /// asyncio: `None` is `false`.
    fn eof_received(&mut self) -> bool {
        false
    }

    /// The connection is over: closed or aborted by this side, or ended by the other (`None`), or failed.
    fn connection_lost(&mut self, error: Option<&Error>) {
        let _ = error;
    }

    /// More waits to be written than the high-water mark: write no more for now.
    fn pause_writing(&mut self) {}

    /// What waits has fallen to the low-water mark: go on.
    fn resume_writing(&mut self) {}
}

/// A [`Protocol`] that receives into memory of its own.
///
/// `get_buffer` and `buffer_updated` take the place of `data_received`; everything else is the same, and so is what
/// panics do. An empty buffer is fatal: [`Error::Runtime`].
///
/// # Examples
///
/// ```
/// use asyncio::BufferedProtocol;
///
/// struct Collect {
///     memory: Box<[u8; 4096]>,
///     received: Vec<u8>,
/// }
///
/// impl BufferedProtocol for Collect {
///     fn get_buffer(&mut self, _size_hint: Option<usize>) -> &mut [u8] {
///         &mut self.memory[..]
///     }
///
///     fn buffer_updated(&mut self, count: usize) {
///         self.received.extend_from_slice(&self.memory[..count]);
///     }
/// }
/// ```
///
/// asyncio: `asyncio.BufferedProtocol`.
pub trait BufferedProtocol: 'static {
    /// See [`Protocol::connection_made`].
    fn connection_made(&mut self, transport: &Transport) {
        let _ = transport;
    }

    /// Where the next bytes go: at least one byte of memory, any size. `size_hint` is the recommended size, if one is
    /// known.
    fn get_buffer(&mut self, size_hint: Option<usize>) -> &mut [u8];

    /// The first `count` bytes of what `get_buffer` gave have been received.
    fn buffer_updated(&mut self, count: usize);

    /// See [`Protocol::eof_received`].
    fn eof_received(&mut self) -> bool {
        false
    }

    /// See [`Protocol::connection_lost`].
    fn connection_lost(&mut self, error: Option<&Error>) {
        let _ = error;
    }

    /// See [`Protocol::pause_writing`].
    fn pause_writing(&mut self) {}

    /// See [`Protocol::resume_writing`].
    fn resume_writing(&mut self) {}
}

/// For factories that choose between protocols.
impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn connection_made(&mut self, transport: &Transport) {
        (**self).connection_made(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        (**self).data_received(data);
    }

    fn eof_received(&mut self) -> bool {
        (**self).eof_received()
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        (**self).connection_lost(error);
    }

    fn pause_writing(&mut self) {
        (**self).pause_writing();
    }

    fn resume_writing(&mut self) {
        (**self).resume_writing();
    }
}

/// For factories that choose between protocols.
impl<P: BufferedProtocol + ?Sized> BufferedProtocol for Box<P> {
    fn connection_made(&mut self, transport: &Transport) {
        (**self).connection_made(transport);
    }

    fn get_buffer(&mut self, size_hint: Option<usize>) -> &mut [u8] {
        (**self).get_buffer(size_hint)
    }

    fn buffer_updated(&mut self, count: usize) {
        (**self).buffer_updated(count);
    }

    fn eof_received(&mut self) -> bool {
        (**self).eof_received()
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        (**self).connection_lost(error);
    }

    fn pause_writing(&mut self) {
        (**self).pause_writing();
    }

    fn resume_writing(&mut self) {
        (**self).resume_writing();
    }
}

/// A protocol of a byte stream, of either kind: what `create_connection` and its kin take.
///
/// It is implemented for every [`Protocol`] and every [`BufferedProtocol`]; `Kind` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a protocol of a byte stream",
    label = "expected a `Protocol` or a `BufferedProtocol`",
    note = "implement one of the two, and only one"
)]
pub trait StreamProtocol<Kind>: Sized + 'static {
    #[doc(hidden)]
    fn erase(protocol: Rc<RefCell<Self>>) -> AnyStreamProtocol;
}

/// Marks what is a [`Protocol`].
#[derive(Debug)]
pub struct IsProtocol(());

/// Marks what is a [`BufferedProtocol`].
#[derive(Debug)]
pub struct IsBufferedProtocol(());

impl<P: Protocol> StreamProtocol<IsProtocol> for P {
    fn erase(protocol: Rc<RefCell<P>>) -> AnyStreamProtocol {
        AnyStreamProtocol(Kind::Plain(protocol))
    }
}

impl<P: BufferedProtocol> StreamProtocol<IsBufferedProtocol> for P {
    fn erase(protocol: Rc<RefCell<P>>) -> AnyStreamProtocol {
        AnyStreamProtocol(Kind::Buffered(protocol))
    }
}

/// A protocol that has lost its type.
#[derive(Clone)]
#[doc(hidden)]
pub struct AnyStreamProtocol(Kind);

#[derive(Clone)]
enum Kind {
    Plain(Rc<dyn PlainCell>),
    Buffered(Rc<dyn BufferedCell>),
    Sink(Rc<dyn PullSink>),
}

impl std::fmt::Debug for AnyStreamProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.type_name())
    }
}

trait PlainCell {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn Protocol>>;
    fn into_any(self: Rc<Self>) -> Rc<dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<P: Protocol> PlainCell for RefCell<P> {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn Protocol>> {
        let borrowed = self.try_borrow_mut().ok()?;
        Some(RefMut::map(borrowed, |protocol| protocol as &mut dyn Protocol))
    }

    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }

    fn type_name(&self) -> &'static str {
        type_name::<P>()
    }
}

trait BufferedCell {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn BufferedProtocol>>;
    fn into_any(self: Rc<Self>) -> Rc<dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<P: BufferedProtocol> BufferedCell for RefCell<P> {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn BufferedProtocol>> {
        let borrowed = self.try_borrow_mut().ok()?;
        Some(RefMut::map(borrowed, |protocol| protocol as &mut dyn BufferedProtocol))
    }

    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }

    fn type_name(&self) -> &'static str {
        type_name::<P>()
    }
}

impl Calls<AnyStreamProtocol> {
    /// Whether the protocol is a layer that has yet to tell its own protocol of the end.
    pub(crate) fn waits_for_layer(&self) -> bool {
        self.protocol().and_then(AnyStreamProtocol::into_sink).is_some_and(|sink| !sink.has_ended())
    }

    /// Whether a layer of the crate's own says so; what other protocols do cannot be seen.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.protocol().and_then(AnyStreamProtocol::into_sink).is_none_or(|sink| sink.is_at_rest())
    }
}

impl AnyStreamProtocol {
    pub(crate) fn of_sink(sink: Rc<dyn PullSink>) -> Self {
        AnyStreamProtocol(Kind::Sink(sink))
    }

    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS takes over"))]
    pub(crate) fn is_same_sink(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Sink(one), Kind::Sink(other)) => Rc::ptr_eq(one, other),
            _ => false,
        }
    }

    pub(crate) fn is_sink(&self) -> bool {
        matches!(self.0, Kind::Sink(_))
    }

    /// Who is to be woken instead of being called to receive.
    #[inline]
    pub(crate) fn take_reader(&self) -> Option<Waker> {
        match &self.0 {
            Kind::Sink(sink) => sink.take_reader(),
            Kind::Plain(_) | Kind::Buffered(_) => None,
        }
    }

    /// The layer of the crate's own that it is, if it is one.
    pub(crate) fn into_sink(self) -> Option<Rc<dyn PullSink>> {
        match self.0 {
            Kind::Sink(sink) => Some(sink),
            Kind::Plain(_) | Kind::Buffered(_) => None,
        }
    }

    /// The protocol with its type, if it is a `P`.
    pub(crate) fn downcast<P: 'static>(self) -> Option<Rc<RefCell<P>>> {
        match self.0 {
            Kind::Plain(cell) => cell.into_any().downcast().ok(),
            Kind::Buffered(cell) => cell.into_any().downcast().ok(),
            Kind::Sink(_) => None,
        }
    }
}

/// A protocol for the time of a call.
pub(crate) enum BorrowedProtocol<'a> {
    Plain(RefMut<'a, dyn Protocol>),
    Buffered(RefMut<'a, dyn BufferedProtocol>),
    Sink(&'a dyn PullSink),
}

impl BorrowedProtocol<'_> {
    pub(crate) fn eof_received(&mut self) -> bool {
        match self {
            BorrowedProtocol::Plain(protocol) => protocol.eof_received(),
            BorrowedProtocol::Buffered(protocol) => protocol.eof_received(),
            BorrowedProtocol::Sink(sink) => sink.eof_received(),
        }
    }
}

impl Callee for AnyStreamProtocol {
    type Borrowed<'a> = BorrowedProtocol<'a>;
    type Transport = Transport;

    #[inline]
    fn try_borrow(&self) -> Option<BorrowedProtocol<'_>> {
        match &self.0 {
            Kind::Plain(cell) => cell.try_borrow().map(BorrowedProtocol::Plain),
            Kind::Buffered(cell) => cell.try_borrow().map(BorrowedProtocol::Buffered),
            Kind::Sink(sink) => Some(BorrowedProtocol::Sink(&**sink)),
        }
    }

    fn notify(borrowed: &mut BorrowedProtocol<'_>, transport: &Transport, notice: &Notice) {
        match borrowed {
            BorrowedProtocol::Plain(protocol) => match notice {
                Notice::Made => protocol.connection_made(transport),
                Notice::Pause => protocol.pause_writing(),
                Notice::Resume => protocol.resume_writing(),
                Notice::Lost(error) => protocol.connection_lost(error.as_ref()),
                Notice::Eof => drop(protocol.eof_received()),
                Notice::Error(_) | Notice::Child(_) => {}
            },
            BorrowedProtocol::Buffered(protocol) => match notice {
                Notice::Made => protocol.connection_made(transport),
                Notice::Pause => protocol.pause_writing(),
                Notice::Resume => protocol.resume_writing(),
                Notice::Lost(error) => protocol.connection_lost(error.as_ref()),
                Notice::Eof => drop(protocol.eof_received()),
                Notice::Error(_) | Notice::Child(_) => {}
            },
            BorrowedProtocol::Sink(sink) => match notice {
                Notice::Made => sink.connection_made(transport),
                Notice::Pause => sink.pause_writing(),
                Notice::Resume => sink.resume_writing(),
                Notice::Lost(error) => sink.connection_lost(error.as_ref()),
                Notice::Eof => drop(sink.eof_received()),
                Notice::Error(_) | Notice::Child(_) => {}
            },
        }
    }

    fn type_name(&self) -> &'static str {
        match &self.0 {
            Kind::Plain(cell) => cell.type_name(),
            Kind::Buffered(cell) => cell.type_name(),
            Kind::Sink(sink) => sink.type_name(),
        }
    }
}
