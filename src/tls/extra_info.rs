//! What a TLS transport tells of itself beside what the transport under it does.

use rustls::pki_types::CertificateDer;

use crate::{
    tls::{context::SslContext, session::Cipher},
    transport::extra_info::{ExtraInfo, ExtraName, TlsInfo},
};

/// The configuration of a TLS connection. (asyncio: `'sslcontext'`)
pub const SSLCONTEXT: ExtraInfo<SslContext> = ExtraInfo::new(ExtraName::Tls(TlsInfo::SslContext));
/// The certificate of the other side, in DER; none where it did not show one, such as most clients.
/// (asyncio: `'peercert'`. Differs: the certificate itself, not a dictionary of its parts.)
pub const PEERCERT: ExtraInfo<CertificateDer<'static>> = ExtraInfo::new(ExtraName::Tls(TlsInfo::PeerCert));
/// The certificates that the other side showed, in DER, its own one first.
/// (asyncio: `ssl_object.get_unverified_chain()`)
pub const PEERCERT_CHAIN: ExtraInfo<Vec<CertificateDer<'static>>> =
    ExtraInfo::new(ExtraName::Tls(TlsInfo::PeerCertChain));
/// The cipher suite, the version of the protocol and the size of the key. (asyncio: `'cipher'`)
pub const CIPHER: ExtraInfo<Cipher> = ExtraInfo::new(ExtraName::Tls(TlsInfo::Cipher));
/// The version of the protocol, such as `TLSv1.3`. (asyncio: `ssl_object.version()`)
pub const SSL_VERSION: ExtraInfo<&'static str> = ExtraInfo::new(ExtraName::Tls(TlsInfo::SslVersion));
/// The protocol that both sides have agreed on, such as `h2`; none where nothing was negotiated.
/// (asyncio: `ssl_object.selected_alpn_protocol()`)
pub const ALPN_PROTOCOL: ExtraInfo<Vec<u8>> = ExtraInfo::new(ExtraName::Tls(TlsInfo::AlpnProtocol));
/// The name or address that the client asked for, and that the server's certificate has if it was checked; none at the
/// server. (asyncio: `ssl_object.server_hostname`)
pub const SERVER_HOSTNAME: ExtraInfo<String> = ExtraInfo::new(ExtraName::Tls(TlsInfo::ServerHostname));
/// Whether an earlier session was resumed. (asyncio: `ssl_object.session_reused`)
pub const SESSION_REUSED: ExtraInfo<bool> = ExtraInfo::new(ExtraName::Tls(TlsInfo::SessionReused));
/// Whether the other side has said that it sends no more; false while it may go on, and for ever where the connection
/// just ended: what was received may have been cut off by somebody else then. (asyncio: has none)
pub const CLOSE_NOTIFY: ExtraInfo<bool> = ExtraInfo::new(ExtraName::Tls(TlsInfo::CloseNotify));
