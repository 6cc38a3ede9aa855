//! Transports over descriptors.

pub(crate) mod datagram;
pub(crate) mod stream;

use crate::transport::Transport;

/// What a transport is a part of, such as a server: told when it has ended.
pub(crate) trait Attached {
    /// The one with this key is under `layer` now, which is to be closed in its place.
    fn replace(&self, key: usize, layer: Transport);
    /// The one with this key has ended and its descriptor is closed.
    fn detach(&self, key: usize);
}
