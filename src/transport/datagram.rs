//! Datagram endpoints as users hold them, and the protocols that they call.

use std::{
    any::{Any, type_name},
    cell::{RefCell, RefMut},
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::BorrowedFd,
    panic::Location,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::{
    error::{Error, Result},
    sys::addr::Address,
    transport::{
        calls::{Callee, Notice},
        extra_info::{ExtraInfo, ExtraName, ExtraValue},
    },
};

/// What happens on a datagram endpoint, as calls.
///
/// ```text
/// connection_made -> (datagram_received | error_received)* -> connection_lost
///                    pause_writing, resume_writing, in turns
/// ```
///
/// The rules of [`Protocol`](crate::Protocol) hold; a panic is reported and changes nothing. Of datagrams that wait, up to
/// 64 are received in one turn of the loop, then others have theirs. While somebody else holds the protocol nothing is
/// received: held for longer than a turn that is reported once, and tried again by a timer.
///
/// # Examples
///
/// ```
/// use asyncio::{Address, DatagramProtocol, DatagramTransport};
///
/// #[derive(Default)]
/// struct Echo {
///     transport: Option<DatagramTransport>,
/// }
///
/// impl DatagramProtocol for Echo {
///     fn connection_made(&mut self, transport: &DatagramTransport) {
///         self.transport = Some(transport.clone());
///     }
///
///     fn datagram_received(&mut self, data: &[u8], address: &Address) {
///         if let Some(transport) = &self.transport {
///             transport.sendto(data, address);
///         }
///     }
/// }
/// ```
///
/// asyncio: `asyncio.DatagramProtocol`.
pub trait DatagramProtocol: 'static {
    /// The endpoint is open. Keep a clone of `transport` to send.
    fn connection_made(&mut self, transport: &DatagramTransport) {
        let _ = transport;
    }

    /// A datagram has arrived; it may be empty, and is cut off after 256 KiB. A unix socket without a name is
    /// [`Address::Unnamed`].
    fn datagram_received(&mut self, data: &[u8], address: &Address);

    /// A datagram could not be sent, or an earlier one was refused (an ICMP error). The endpoint stays open.
    fn error_received(&mut self, error: &Error) {
        let _ = error;
    }

    /// The endpoint is closed: by `close` or `abort` (`None`), or by an error.
    fn connection_lost(&mut self, error: Option<&Error>) {
        let _ = error;
    }

    /// More waits to be sent than the high-water mark.
    fn pause_writing(&mut self) {}

    /// What waits has fallen to the low-water mark.
    fn resume_writing(&mut self) {}
}

/// For factories that choose between protocols.
impl<P: DatagramProtocol + ?Sized> DatagramProtocol for Box<P> {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        (**self).connection_made(transport);
    }

    fn datagram_received(&mut self, data: &[u8], address: &Address) {
        (**self).datagram_received(data, address);
    }

    fn error_received(&mut self, error: &Error) {
        (**self).error_received(error);
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

/// A datagram endpoint: a cheap handle, clones are the same endpoint, and `==` says so.
///
/// Sending never waits: what the system does not take at once is kept and sent in order. Its size counts with 8 bytes more
/// for each datagram. Dropping the last handle does not close: the loop keeps an open endpoint.
///
/// `Threads:` bound to its loop's.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::DatagramTransport>();
/// ```
///
/// It is no byte stream:
///
/// ```compile_fail
/// fn stream(_: &asyncio::Transport) {}
/// fn endpoint(transport: &asyncio::DatagramTransport) {
///     stream(transport);
/// }
/// ```
///
/// asyncio: `asyncio.DatagramTransport`.
#[derive(Clone)]
pub struct DatagramTransport(pub(crate) Rc<dyn RawDatagramTransport>);

impl DatagramTransport {
    /// Sends one datagram to `address`, or to the address that the endpoint is connected to (`None`).
    ///
    /// What the system refuses comes to `error_received`. A mistake (an address other than the connected one, none where
    /// there is no connected one) goes to the exception handler; [`try_sendto`](Self::try_sendto) gives it back. After
    /// close it does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{Address, DatagramProtocol};
    ///
    /// struct Ignore;
    ///
    /// impl DatagramProtocol for Ignore {
    ///     fn datagram_received(&mut self, _data: &[u8], _sender: &Address) {}
    /// }
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let receiver = std::net::UdpSocket::bind("127.0.0.1:0")?;
    ///     let (transport, _) =
    ///         event_loop.create_datagram_endpoint(|| Ignore).remote_addr(receiver.local_addr()?).await?;
    ///     transport.sendto(b"to whom it is connected", None);
    ///     transport.sendto(b"to the same", receiver.local_addr()?);
    ///     assert!(transport.try_sendto(b"to somebody else", (std::net::Ipv4Addr::LOCALHOST.into(), 1)).is_err());
    ///     let mut buffer = [0; 100];
    ///     assert_eq!(receiver.recv(&mut buffer)?, 23);
    ///     transport.close();
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `DatagramTransport.sendto`. Differs: a mistake is reported, not raised, and closes nothing.
    #[track_caller]
    pub fn sendto(&self, data: &[u8], address: impl ToDestination) {
        if let Err(error) = self.try_sendto(data, address) {
            self.0.report_misuse(error, Location::caller());
        }
    }

    /// As [`sendto`](Self::sendto), and says what is wrong.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for an address that is not the one that the endpoint is connected to, and for none where the
    /// endpoint is not connected; [`Error::Io`] for a path that is too long.
    ///
    /// asyncio: `DatagramTransport.sendto`, which raises.
    pub fn try_sendto(&self, data: &[u8], address: impl ToDestination) -> Result<()> {
        self.0.sendto(data, address.to_destination())
    }

    /// Closes: receives no more at once, sends what waits, and then calls `connection_lost(None)`.
    ///
    /// asyncio: `BaseTransport.close`.
    pub fn close(&self) {
        self.0.close();
    }

    /// Closes at once and drops what waits; `connection_lost(None)` comes in the next iteration.
    ///
    /// asyncio: `DatagramTransport.abort`.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it is closing or closed.
    ///
    /// asyncio: `BaseTransport.is_closing`.
    pub fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    /// What the endpoint knows under a key such as [`SOCKNAME`](crate::SOCKNAME); `None` if it does not have it.
    ///
    /// asyncio: `BaseTransport.get_extra_info`. Differs: keys are typed constants.
    pub fn get_extra_info<T: 'static>(&self, key: ExtraInfo<T>) -> Option<T> {
        let value = self.0.extra_info(key.name)?;
        value.downcast().ok().map(|value| *value)
    }

    /// Lends the descriptor; see [`Transport::with_fd`](crate::Transport::with_fd).
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

    /// Lets another protocol be called from now on.
    ///
    /// asyncio: `BaseTransport.set_protocol`.
    pub fn set_protocol<P: DatagramProtocol>(&self, protocol: Rc<RefCell<P>>) {
        self.0.set_protocol(AnyDatagramProtocol(protocol));
    }

    /// The protocol, if it is a `P`; `None` after `connection_lost` as well.
    ///
    /// asyncio: `BaseTransport.get_protocol`.
    pub fn get_protocol<P: DatagramProtocol>(&self) -> Option<Rc<RefCell<P>>> {
        self.0.protocol()?.0.into_any().downcast().ok()
    }

    /// How many bytes wait to be sent.
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

    /// Sets the water marks; see [`Transport::set_write_buffer_limits`](crate::Transport::set_write_buffer_limits).
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if low is above high; nothing changes then.
    ///
    /// asyncio: `WriteTransport.set_write_buffer_limits`.
    pub fn set_write_buffer_limits(&self, high: impl Into<Option<usize>>, low: impl Into<Option<usize>>) -> Result<()> {
        self.0.set_write_buffer_limits(high.into(), low.into())
    }

    /// Whether the protocol is to pause writing.
    ///
    /// asyncio: has none; a protocol keeps it by itself.
    pub fn is_write_paused(&self) -> bool {
        self.0.is_write_paused()
    }
}

impl PartialEq for DatagramTransport {
    /// Whether both are handles of one endpoint.
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DatagramTransport {}

impl Hash for DatagramTransport {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Rc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl fmt::Debug for DatagramTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.describe())
    }
}

/// Where a datagram goes: an address, or `None` for the one that the endpoint is connected to.
///
/// A name is none: look it up first.
///
/// ```compile_fail
/// fn send(transport: &asyncio::DatagramTransport) {
///     transport.sendto(b"x", ("localhost", 9));
/// }
/// ```
///
/// asyncio: the `addr` argument of `sendto`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the address of a datagram",
    label = "expected an `Address`, a `SocketAddr`, a path, or `None`",
    note = "names are not looked up here: use `getaddrinfo` first"
)]
pub trait ToDestination {
    /// The address as a value of its own.
    fn to_destination(self) -> Option<Address>;
}

impl ToDestination for Option<Address> {
    fn to_destination(self) -> Option<Address> {
        self
    }
}

impl ToDestination for Address {
    fn to_destination(self) -> Option<Address> {
        Some(self)
    }
}

impl ToDestination for &Address {
    fn to_destination(self) -> Option<Address> {
        Some(self.clone())
    }
}

impl ToDestination for SocketAddr {
    fn to_destination(self) -> Option<Address> {
        Some(self.into())
    }
}

impl ToDestination for &SocketAddr {
    fn to_destination(self) -> Option<Address> {
        (*self).to_destination()
    }
}

impl ToDestination for SocketAddrV4 {
    fn to_destination(self) -> Option<Address> {
        SocketAddr::from(self).to_destination()
    }
}

impl ToDestination for SocketAddrV6 {
    fn to_destination(self) -> Option<Address> {
        SocketAddr::from(self).to_destination()
    }
}

impl ToDestination for (IpAddr, u16) {
    fn to_destination(self) -> Option<Address> {
        SocketAddr::from(self).to_destination()
    }
}

impl ToDestination for &Path {
    fn to_destination(self) -> Option<Address> {
        self.to_path_buf().to_destination()
    }
}

impl ToDestination for PathBuf {
    fn to_destination(self) -> Option<Address> {
        Some(self.into())
    }
}

/// An endpoint as its handle sees it.
pub(crate) trait RawDatagramTransport {
    fn describe(&self) -> String;
    /// Silent once it is closing.
    fn sendto(&self, data: &[u8], address: Option<Address>) -> Result<()>;
    fn close(&self);
    fn abort(&self);
    fn is_closing(&self) -> bool;
    fn extra_info(&self, name: ExtraName) -> Option<ExtraValue>;
    fn with_fd(&self, look: &mut dyn FnMut(BorrowedFd<'_>));
    fn set_protocol(&self, protocol: AnyDatagramProtocol);
    fn protocol(&self) -> Option<AnyDatagramProtocol>;
    fn write_buffer_size(&self) -> usize;
    fn write_buffer_limits(&self) -> (usize, usize);
    fn set_write_buffer_limits(&self, high: Option<usize>, low: Option<usize>) -> Result<()>;
    fn is_write_paused(&self) -> bool;
    fn report_misuse(&self, error: Error, location: &'static Location<'static>);
}

/// A protocol that has lost its type.
#[derive(Clone)]
pub(crate) struct AnyDatagramProtocol(pub(crate) Rc<dyn DatagramCell>);

pub(crate) trait DatagramCell {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn DatagramProtocol>>;
    fn into_any(self: Rc<Self>) -> Rc<dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<P: DatagramProtocol> DatagramCell for RefCell<P> {
    fn try_borrow(&self) -> Option<RefMut<'_, dyn DatagramProtocol>> {
        let borrowed = self.try_borrow_mut().ok()?;
        Some(RefMut::map(borrowed, |protocol| protocol as &mut dyn DatagramProtocol))
    }

    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }

    fn type_name(&self) -> &'static str {
        type_name::<P>()
    }
}

impl Callee for AnyDatagramProtocol {
    type Borrowed<'a> = RefMut<'a, dyn DatagramProtocol>;
    type Transport = DatagramTransport;

    #[inline]
    fn try_borrow(&self) -> Option<RefMut<'_, dyn DatagramProtocol>> {
        self.0.try_borrow()
    }

    fn notify(protocol: &mut RefMut<'_, dyn DatagramProtocol>, transport: &DatagramTransport, notice: &Notice) {
        match notice {
            Notice::Made => protocol.connection_made(transport),
            Notice::Pause => protocol.pause_writing(),
            Notice::Resume => protocol.resume_writing(),
            Notice::Error(error) => protocol.error_received(error),
            Notice::Lost(error) => protocol.connection_lost(error.as_ref()),
            Notice::Eof | Notice::Child(_) => {}
        }
    }

    fn type_name(&self) -> &'static str {
        self.0.type_name()
    }
}
