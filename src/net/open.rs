//! From a descriptor to a transport whose protocol knows of it.

use std::{
    cell::RefCell,
    fmt,
    future::Future as StdFuture,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll, ready},
};

use crate::{
    endpoints::stream::{Kind, Opening, StreamEndpoint},
    error::Result,
    event_loop::EventLoop,
    net::options::{TlsOptions, check_stream, is_inet},
    sys::{addr::Address, socket},
    transport::{
        Transport,
        protocol::{AnyStreamProtocol, StreamProtocol},
    },
};

type Boxed<T> = Pin<Box<dyn StdFuture<Output = Result<T>>>>;

/// A descriptor that is ready for its transport: non-blocking, if it is a socket.
pub(crate) struct Prepared {
    pub(crate) event_loop: EventLoop,
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
    pub(crate) peer: Option<Address>,
    pub(crate) tls: Option<TlsOptions>,
}

impl Prepared {
    /// A connected socket.
    pub(crate) fn socket(event_loop: EventLoop, fd: OwnedFd, peer: Option<Address>) -> Self {
        if is_inet(&fd) {
            // Only a wish: some sockets of IP have no such option.
            let _ = socket::set_nodelay(fd.as_fd());
        }
        Prepared { event_loop, fd, kind: Kind::Socket, peer, tls: None }
    }

    /// A connected stream socket that the caller gave.
    pub(crate) fn given(event_loop: EventLoop, fd: OwnedFd) -> Result<Self> {
        check_stream(&fd)?;
        socket::set_nonblocking(&fd, true)?;
        let peer = socket::peer_address(fd.as_fd());
        Ok(Prepared::socket(event_loop, fd, peer))
    }

    /// With TLS over it, if there are options for that.
    pub(crate) fn with_tls(self, tls: Option<TlsOptions>) -> Self {
        Prepared { tls, ..self }
    }
}

/// Makes the transport of a descriptor, with TLS over it if there are options for that.
pub(crate) fn open_transport(event_loop: &EventLoop, opening: Opening, tls: Option<TlsOptions>) -> Result<Transport> {
    match tls {
        None => Ok(Transport(StreamEndpoint::open(event_loop, opening)?)),
        #[cfg(feature = "tls")]
        Some(options) => {
            use crate::tls::protocol::TlsTransport;
            let Opening { protocol, opener, .. } = opening;
            let tls = TlsTransport::new(event_loop, options, protocol, opener)?;
            let protocol = AnyStreamProtocol::of_sink(tls.clone());
            let inner = StreamEndpoint::open(event_loop, Opening { protocol, opener: None, ..opening })?;
            tls.lay_over(Transport(inner))?;
            Ok(Transport(tls))
        }
        #[cfg(not(feature = "tls"))]
        Some(options) => match options {},
    }
}

/// The work of [`EventLoop::create_connection`] and its kin: gives the transport and its protocol.
///
/// The factory need not be `'static`; it is called once, when there is a connection.
#[must_use = "futures do nothing unless they are awaited"]
pub struct OpenStream<F, P> {
    /// Taken when the protocol is made.
    factory: Option<F>,
    erase: fn(Rc<RefCell<P>>) -> AnyStreamProtocol,
    stage: Stage<P>,
}

enum Stage<P> {
    Preparing(Boxed<Prepared>),
    Opening(Boxed<(Transport, Rc<RefCell<P>>)>),
}

impl<F: FnOnce() -> P, P: 'static> OpenStream<F, P> {
    pub(crate) fn new<K>(factory: F, prepare: impl StdFuture<Output = Result<Prepared>> + 'static) -> Self
    where
        P: StreamProtocol<K>,
    {
        OpenStream { factory: Some(factory), erase: P::erase, stage: Stage::Preparing(Box::pin(prepare)) }
    }
}

// The factory is called, never pinned.
impl<F, P> Unpin for OpenStream<F, P> {}

impl<F: FnOnce() -> P, P: 'static> StdFuture for OpenStream<F, P> {
    type Output = Result<(Transport, Rc<RefCell<P>>)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.stage {
                Stage::Opening(opening) => return opening.as_mut().poll(cx),
                Stage::Preparing(preparing) => {
                    let prepared = ready!(preparing.as_mut().poll(cx))?;
                    let factory = this.factory.take().expect("a future is not polled after its end");
                    let protocol = Rc::new(RefCell::new(factory()));
                    this.stage = Stage::Opening(Box::pin(open(prepared, protocol, this.erase)));
                }
            }
        }
    }
}

impl<F, P> fmt::Debug for OpenStream<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenStream").finish_non_exhaustive()
    }
}

/// Makes the transport and waits until its protocol knows.
async fn open<P: 'static>(
    prepared: Prepared,
    protocol: Rc<RefCell<P>>,
    erase: fn(Rc<RefCell<P>>) -> AnyStreamProtocol,
) -> Result<(Transport, Rc<RefCell<P>>)> {
    let Prepared { event_loop, fd, kind, peer, tls } = prepared;
    let opener = event_loop.create_future();
    let opening =
        Opening { fd, kind, peer, protocol: erase(protocol.clone()), opener: Some(opener.clone()), attached: None };
    let mut transport = Unclaimed(Some(open_transport(&event_loop, opening, tls)?));
    // A future that holds its loop would keep it alive.
    drop(event_loop);
    opener.await?;
    let transport = transport.0.take().expect("nobody else takes it");
    Ok((transport, protocol))
}

/// A transport that nobody has yet: given up where its opening is.
pub(crate) struct Unclaimed(pub(crate) Option<Transport>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(transport) = self.0.take() {
            transport.0.abandon();
        }
    }
}
