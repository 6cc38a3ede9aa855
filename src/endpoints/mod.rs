//! Transports over descriptors.

pub(crate) mod datagram;
pub(crate) mod stream;

/// What a transport is a part of, such as a server: told when it has ended.
pub(crate) trait Attached {
    /// The one with this key has ended and its descriptor is closed.
    fn detach(&self, key: usize);
}
