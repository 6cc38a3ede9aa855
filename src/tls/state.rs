//! How far a TLS connection is.

/// ```text
/// Handshake --handshake done--> Open --close, the other side ends--> Closing --the connection is lost--> Ended
/// Handshake, Open --abort, failure--> (the transport under it closes) --it is lost--> Ended
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Open,
    /// Our close_notify is on its way behind all that was written; nothing that comes is delivered any more.
    Closing,
    /// The protocol has been told, or never will be.
    Ended,
}
