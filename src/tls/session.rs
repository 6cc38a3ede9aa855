//! What TLS is to its transport: bytes in, bytes out. The library that knows TLS is behind this.

use std::fmt;

use rustls::pki_types::CertificateDer;

use crate::error::Result;

/// One end of a TLS connection, without any input or output of its own.
///
/// ```text
/// handshaking --process--> established --process: the peer's close_notify--> the input has ended
///                          established --close_notify--> nothing more is encrypted
/// ```
///
/// What it is given and does not need yet (a part of a record) it keeps.
pub(crate) trait Session {
    /// Copies what it kept to the front of `memory` and says how much that is. Bytes that follow it are to come behind.
    fn put_kept(&self, memory: &mut [u8]) -> usize;

    /// Whether there is such a part.
    fn keeps_part(&self) -> bool;

    /// Takes what was received, after what was kept. What it decrypts goes to the front of `plain`, which is at least as
    /// long; what is to be sent is appended to `outgoing`, also where this fails.
    fn process(&mut self, incoming: &mut [u8], plain: &mut [u8], outgoing: &mut Vec<u8>) -> Processed;

    /// Encrypts the beginning of `data` into `out`: how much of it, and how many bytes that are.
    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<Encrypted>;

    /// Appends the alert that ends what this side sends.
    fn close_notify(&mut self, outgoing: &mut Vec<u8>);

    fn is_handshaking(&self) -> bool;
    /// Once the handshake is over.
    fn cipher(&self) -> Option<Cipher>;
    fn alpn_protocol(&self) -> Option<Vec<u8>>;
    /// Empty where the other side showed none.
    fn peer_certificates(&self) -> PeerCertificates;
    fn is_resumed(&self) -> bool;
    /// The server's name, at the client.
    fn server_hostname(&self) -> Option<String>;
}

/// What became of what was received.
#[derive(Debug)]
pub(crate) struct Processed {
    /// How many bytes were decrypted.
    pub(crate) plain: usize,
    /// Whether the other side has said that it sends no more.
    pub(crate) closed: bool,
    /// Whether the connection can go on.
    pub(crate) outcome: Result<()>,
}

pub(crate) struct Encrypted {
    pub(crate) taken: usize,
    pub(crate) made: usize,
}

/// How a TLS connection is encrypted: the value of [`CIPHER`](crate::CIPHER).
///
/// asyncio: the tuple of `get_extra_info('cipher')`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cipher {
    /// The name that IANA gave it, such as `TLS_AES_256_GCM_SHA384`.
    pub name: &'static str,
    /// The version of the protocol, such as `TLSv1.3`.
    pub protocol: &'static str,
    /// How many bits its key has.
    pub bits: u16,
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bits)", self.protocol, self.name, self.bits)
    }
}

/// Certificates of the other side, its own one first.
pub(crate) type PeerCertificates = Vec<CertificateDer<'static>>;
