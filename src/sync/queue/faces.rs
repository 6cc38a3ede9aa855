//! A queue as the futures crate's stream and sink.

use std::{
    pin::Pin,
    task::{Context as Cx, Poll, ready},
};

use futures::{Sink, Stream, stream::FusedStream};

use crate::{
    error::{Error, Result},
    sync::queue::{Queue, order::QueueOrder},
};

impl<T, O: QueueOrder<T>> Stream for Queue<T, O> {
    type Item = T;

    /// The next item; `None` once the queue is shut down and empty.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        // The only error is that the queue was shut down.
        this.core.poll_get(&mut this.getter, cx.waker(), true).map(Result::ok)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, None)
    }
}

impl<T, O: QueueOrder<T>> FusedStream for Queue<T, O> {
    fn is_terminated(&self) -> bool {
        let state = self.core.lock();
        state.is_shut_down && state.len == 0
    }
}

impl<T, O: QueueOrder<T>> Sink<T> for Queue<T, O> {
    type Error = Error;

    /// Waits for room and keeps it for this handle, until it sends or is dropped.
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if !this.has_reserved {
            ready!(this.core.poll_reserve(&mut this.putter, cx.waker()))?;
            this.has_reserved = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Fails if the queue was shut down, and for want of room if `poll_ready` was not asked before.
    fn start_send(self: Pin<&mut Self>, item: T) -> Result<()> {
        let this = self.get_mut();
        match std::mem::take(&mut this.has_reserved) {
            true => this.core.put_reserved(item),
            false => this.put_nowait(item),
        }
    }

    /// Ready at once: what was sent is in the queue.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Cx<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Shuts the queue down for all its handles, as `shutdown(false)` does; what is in it can still be got.
    fn poll_close(self: Pin<&mut Self>, _: &mut Cx<'_>) -> Poll<Result<()>> {
        self.shutdown(false);
        Poll::Ready(Ok(()))
    }
}
