//! The protocols of the crate's own: told that there is something to receive, they receive it by themselves.

use std::{io, task::Waker};

use crate::{error::Error, transport::Transport};

/// A layer over a transport, such as TLS, or a stream. No foreign code runs in it but what it calls itself, so nothing is
/// borrowed while it is called.
///
/// ```text
/// connection_made -> readable* -> eof_received? -> connection_lost
///                    pause_writing, resume_writing, in turns
/// any --the loop is closed--> discard
/// ```
pub(crate) trait PullSink {
    fn connection_made(&self, transport: &Transport);
    /// Whom to wake instead of calling [`readable`](Self::readable), if somebody waits to receive by himself. He is woken
    /// while events are collected, and runs in the same turn.
    fn take_reader(&self) -> Option<Waker> {
        None
    }
    /// Something can be received by `receive`, which is called once at most: what it gave is given back, 0 being the end
    /// of the input, and `WouldBlock` if it was not called.
    fn readable(&self, receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize>;
    /// As [`readable`](Self::readable) where the bytes are there already; how many it took.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS has them"))]
    fn data_received(&self, data: &[u8]) -> usize {
        let taken = self.readable(&mut |memory| {
            let count = memory.len().min(data.len());
            memory[..count].copy_from_slice(&data[..count]);
            Ok(count)
        });
        taken.unwrap_or(0)
    }
    /// Whether the transport stays open for writing.
    fn eof_received(&self) -> bool;
    fn connection_lost(&self, error: Option<&Error>);
    /// Whether all that lies over it has been told, too. Until then the transport is kept, with its descriptor; it is told
    /// by [`layer_ended`](crate::transport::RawTransport::layer_ended).
    fn has_ended(&self) -> bool;
    fn pause_writing(&self);
    fn resume_writing(&self);
    /// What was written has all gone, after some of it had to wait.
    fn all_written(&self) {}
    /// The transport has got another protocol, from its user.
    fn detached(&self) {}
    /// Whether it waits for input and has nothing else to do, as far as it knows: a connection that is not at rest is busy
    /// for a server that drains.
    fn is_at_rest(&self) -> bool {
        true
    }
    /// Lets go of all that is other people's: the loop is closed.
    fn discard(&self);
    /// How reports call it.
    fn type_name(&self) -> &'static str;
}
