//! The protocols of the crate's own: told that there is something to receive, they receive it by themselves.

use std::io;

use crate::error::Error;

/// A layer over a transport, such as TLS. No foreign code runs in it but what it calls itself, so nothing is borrowed
/// while it is called.
///
/// ```text
/// connection_made -> readable* -> eof_received? -> connection_lost
///                    pause_writing, resume_writing, in turns
/// any --the loop is closed--> discard
/// ```
pub(crate) trait PullSink {
    fn connection_made(&self);
    /// Something can be received by `receive`, which is called once at most: what it gave is given back, 0 being the end
    /// of the input, and `WouldBlock` if it was not called.
    fn readable(&self, receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize>;
    /// Whether the transport stays open for writing.
    fn eof_received(&self) -> bool;
    fn connection_lost(&self, error: Option<&Error>);
    /// Whether all that lies over it has been told, too. Until then the transport is kept, with its descriptor; it is told
    /// by [`layer_ended`](crate::transport::RawTransport::layer_ended).
    fn has_ended(&self) -> bool;
    fn pause_writing(&self);
    fn resume_writing(&self);
    /// Lets go of all that is other people's: the loop is closed.
    fn discard(&self);
    /// How reports call it.
    fn type_name(&self) -> &'static str;
}
