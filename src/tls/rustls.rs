//! Sessions by rustls: its unbuffered connections, which decrypt out of our memory and encrypt into it.

use std::{
    net::Ipv4Addr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rustls::{
    AlertDescription, CipherSuite, ClientConfig, Error as RustlsError, HandshakeKind, ProtocolVersion, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::ServerName,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
        WriteTraffic,
    },
};

use crate::{
    error::{Error, Result},
    tls::{
        errors::ssl_error,
        session::{Cipher, Encrypted, PeerCertificates, Processed, Session},
    },
};

/// The name of a server of which no name is known, nor checked. It is an address, for those are not sent.
pub(super) fn nobody() -> ServerName<'static> {
    ServerName::from(Ipv4Addr::UNSPECIFIED)
}

/// The end of a connection that connects.
pub(super) fn connect(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Box<dyn Session>> {
    let hostname = (name != nobody()).then(|| name.to_str().into_owned());
    let connection = UnbufferedClientConnection::new(config, name).map_err(|error| ssl_error(&error))?;
    Ok(Box::new(RustlsSession { connection, hostname, kept: Vec::new(), closed: false, failed: None }))
}

/// The end that accepts.
pub(super) fn accept(config: Arc<ServerConfig>) -> Result<Box<dyn Session>> {
    let connection = UnbufferedServerConnection::new(config).map_err(|error| ssl_error(&error))?;
    Ok(Box::new(RustlsSession { connection, hostname: None, kept: Vec::new(), closed: false, failed: None }))
}

struct RustlsSession<C> {
    connection: C,
    hostname: Option<String>,
    /// The beginning of a record, and handshake messages that are not whole yet. Its room goes when it is empty.
    kept: Vec<u8>,
    /// Set when our close alert is made; never cleared.
    closed: bool,
    /// What was wrong with what was received: rustls must not be asked again.
    failed: Option<Error>,
}

/// How much is kept of messages that are not whole, in bytes: they may have 64 KiB, and come in records of their own.
const MOST_KEPT: usize = 128 << 10;

/// What client and server have in common, which rustls gives two types.
trait Connection {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &rustls::CommonState;
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &rustls::CommonState {
        self
    }
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &rustls::CommonState {
        self
    }
}

/// What comes after a step of a connection.
enum Next {
    /// Another step.
    Again,
    /// Nothing, until more is received.
    Wait,
    /// As `Again`; the other side sends no more.
    Closed,
}

impl<C: Connection> Session for RustlsSession<C> {
    fn put_kept(&self, memory: &mut [u8]) -> usize {
        memory[..self.kept.len()].copy_from_slice(&self.kept);
        self.kept.len()
    }

    fn keeps_part(&self) -> bool {
        !self.kept.is_empty()
    }

    fn process(&mut self, incoming: &mut [u8], plain: &mut [u8], outgoing: &mut Vec<u8>) -> Processed {
        let (mut processed, mut taken) = (Processed { plain: 0, closed: false, outcome: Ok(()) }, 0);
        loop {
            if self.is_handshaking() && is_close_notify(&incoming[taken..]) {
                // In clear, as anybody could have sent it; and the end of the connection is no more.
                processed.closed = true;
                break;
            }
            let Some(status) = advance(&mut self.connection, self.closed, &mut incoming[taken..]) else {
                let text = "what was received after this side had closed is not TLS";
                processed.outcome = Err(Error::Ssl(text.into()));
                break;
            };
            let UnbufferedStatus { discard, state } = status;
            let next = state.and_then(|state| step(state, plain, &mut processed.plain, outgoing));
            taken += discard;
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Closed) => processed.closed = true,
                Ok(Next::Wait) => break,
                Err(RustlsError::AlertReceived(AlertDescription::CloseNotify)) if self.is_handshaking() => {
                    // The same, encrypted.
                    processed.closed = true;
                    break;
                }
                Err(error) => {
                    if !self.closed {
                        self.collect_alert(&mut incoming[taken..], outgoing);
                    }
                    processed.outcome = Err(ssl_error(&error));
                    break;
                }
            }
        }
        if processed.closed {
            // What follows means nothing.
            taken = incoming.len();
        }
        if taken < incoming.len() || !self.kept.is_empty() {
            self.kept.clear();
            self.kept.extend_from_slice(&incoming[taken..]);
            if self.kept.is_empty() {
                self.kept = Vec::new();
            }
        }
        if self.kept.len() > MOST_KEPT && processed.outcome.is_ok() {
            processed.outcome = Err(Error::Ssl("a message of the handshake comes in too many pieces".into()));
        }
        self.failed = processed.outcome.as_ref().err().cloned();
        processed
    }

    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<Encrypted> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut taken = data.len();
        let mut made = 0;
        loop {
            // With what was kept: it knows how far it was with that.
            let UnbufferedStatus { discard, state } = self.connection.process(&mut self.kept);
            let written = match state.map_err(|error| ssl_error(&error))? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    Some(encrypt_some(&mut traffic, data, &mut taken, &mut out[made..])?)
                }
                ConnectionState::EncodeTlsData(mut encode) => {
                    made += encode_into(&mut encode, &mut out[made..])?;
                    None
                }
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    None
                }
                ConnectionState::PeerClosed => None,
                state => return Err(Error::Ssl(format!("nothing can be encrypted now: {state:?}").into())),
            };
            self.kept.drain(..discard);
            if let Some(written) = written {
                return Ok(Encrypted { taken, made: made + written });
            }
        }
    }

    fn close_notify(&mut self, outgoing: &mut Vec<u8>) {
        self.closed = true;
        if self.failed.is_some() {
            return;
        }
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process(&mut self.kept);
            let more = match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    append(outgoing, |out| traffic.queue_close_notify(out).map_err(required_by_encrypt));
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                    append(outgoing, |out| encode.encode(out).map_err(required_by_encode));
                    true
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => true,
                Ok(_) | Err(_) => false,
            };
            self.kept.drain(..discard);
            if !more {
                return;
            }
        }
    }

    fn is_handshaking(&self) -> bool {
        self.connection.common().is_handshaking()
    }

    fn cipher(&self) -> Option<Cipher> {
        let common = self.connection.common();
        let suite = common.negotiated_cipher_suite()?;
        let protocol = match common.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "unknown",
        };
        let name = match suite.suite() {
            // Which rustls calls by names of its own.
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
            CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
            suite => suite.as_str().unwrap_or("unknown"),
        };
        let bits = if name.contains("AES_128") { 128 } else { 256 };
        Some(Cipher { name, protocol, bits })
    }

    fn alpn_protocol(&self) -> Option<Vec<u8>> {
        self.connection.common().alpn_protocol().map(<[u8]>::to_vec)
    }

    fn peer_certificates(&self) -> PeerCertificates {
        self.connection.common().peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
    }

    fn is_resumed(&self) -> bool {
        self.connection.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn server_hostname(&self) -> Option<String> {
        self.hostname.clone()
    }
}

impl<C: Connection> RustlsSession<C> {
    /// Appends the alert that says to the other side what was wrong.
    fn collect_alert(&mut self, left: &mut [u8], outgoing: &mut Vec<u8>) {
        let mut begin = outgoing.len();
        // It comes last; to ask again would be to fail again. What is left is needed: rustls knows places in it.
        while !is_alert(&outgoing[begin..]) {
            let Ok(ConnectionState::EncodeTlsData(mut encode)) = self.connection.process(left).state else { return };
            begin = outgoing.len();
            append(outgoing, |out| encode.encode(out).map_err(required_by_encode));
        }
    }
}

/// Whether a record in clear comes next that says that the other side sends no more.
fn is_close_notify(incoming: &[u8]) -> bool {
    matches!(incoming, [21, 3, _, 0, 2, _, 0, ..])
}

/// Whether this is a record with an alert: in clear, or of TLS 1.2, or as long as the two bytes of one are when TLS 1.3
/// has encrypted them, and nothing else is.
fn is_alert(record: &[u8]) -> bool {
    matches!(record, [21, ..] | [23, _, _, 0, 19, ..])
}

/// What comes next. `None` if rustls panics: in debug builds it takes it for a mistake of its own when something is wrong
/// with what comes after our close alert, for which it has an alert no more. (Where panics abort, it aborts.)
fn advance<'c, 'i, C: Connection>(
    connection: &'c mut C,
    closed: bool,
    incoming: &'i mut [u8],
) -> Option<UnbufferedStatus<'c, 'i, C::Data>> {
    if !closed {
        return Some(connection.process(incoming));
    }
    let both = (connection, incoming);
    let process = move || {
        let (connection, incoming) = both;
        connection.process(incoming)
    };
    catch_unwind(AssertUnwindSafe(process)).ok()
}

/// One step of a connection; what it decrypts goes behind the first `filled` bytes of `plain`.
fn step<D>(
    state: ConnectionState<'_, '_, D>,
    plain: &mut [u8],
    filled: &mut usize,
    outgoing: &mut Vec<u8>,
) -> Result<Next, RustlsError> {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                keep_plain(record?.payload, plain, filled)?;
            }
            Ok(Next::Again)
        }
        ConnectionState::EncodeTlsData(mut encode) => {
            append(outgoing, |out| encode.encode(out).map_err(required_by_encode));
            Ok(Next::Again)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(Next::Again)
        }
        ConnectionState::PeerClosed => Ok(Next::Closed),
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed => {
            Ok(Next::Wait)
        }
        state => Err(RustlsError::General(format!("unexpected state: {state:?}"))),
    }
}

fn keep_plain(payload: &[u8], plain: &mut [u8], filled: &mut usize) -> Result<(), RustlsError> {
    let room = plain.get_mut(*filled..*filled + payload.len());
    room.ok_or_else(|| RustlsError::General("a record grew when it was decrypted".into()))?.copy_from_slice(payload);
    *filled += payload.len();
    Ok(())
}

/// Encrypts the first `taken` bytes of `data`, or fewer where they have no room; that becomes `taken` then.
fn encrypt_some<D>(traffic: &mut WriteTraffic<'_, D>, data: &[u8], taken: &mut usize, out: &mut [u8]) -> Result<usize> {
    loop {
        match traffic.encrypt(&data[..*taken], out) {
            Ok(made) => return Ok(made),
            // Records may be configured to be small, and each adds to the size.
            Err(EncryptError::InsufficientSize(_)) if *taken > 1 => *taken /= 2,
            Err(error) => return Err(Error::Ssl(error.to_string().into())),
        }
    }
}

fn encode_into<D>(encode: &mut EncodeTlsData<'_, D>, out: &mut [u8]) -> Result<usize> {
    encode.encode(out).map_err(|error| Error::Ssl(error.to_string().into()))
}

/// Appends what `write` writes; called without room first, it says how much it needs.
fn append(outgoing: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) {
    let begin = outgoing.len();
    let mut written = write(&mut []);
    if let Err(Some(required)) = written {
        outgoing.resize(begin + required, 0);
        written = write(&mut outgoing[begin..]);
    }
    outgoing.truncate(begin + written.unwrap_or(0));
}

fn required_by_encode(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn required_by_encrypt(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncryptError::EncryptExhausted => None,
    }
}
