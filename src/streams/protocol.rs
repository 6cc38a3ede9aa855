//! What a transport calls of a stream.

use std::{cell::RefCell, rc::Rc};

use crate::{
    streams::core::StreamCore,
    transport::protocol::{AnyStreamProtocol, StreamProtocol},
};

/// A stream as a factory makes it.
pub(crate) struct StreamSide(pub(super) Rc<StreamCore>);

/// Marks what is a stream.
#[derive(Debug)]
pub(crate) struct IsStream(());

impl StreamProtocol<IsStream> for StreamSide {
    fn erase(protocol: Rc<RefCell<Self>>) -> AnyStreamProtocol {
        AnyStreamProtocol::of_sink(protocol.borrow().0.clone())
    }
}
