//! A bridge to crates that need tokio: its traits for streams, and its reactor beside the loop.
//!
//! [`Stream`], [`StreamReader`] and [`StreamWriter`] have tokio's traits of reading and writing, for crates that need no
//! more than these; no runtime of tokio's is involved.
//!
//! A crate that needs tokio's reactor or its timers panics where there is none. [`Compat`] around a future, or
//! [`compat`](CompatExt::compat) of it, lets it see one: a runtime of tokio's in a thread of its own, which starts when
//! the first [`Compat`] is polled or dropped, not before, and stays to the end of the process. The future is still
//! polled by its task here, on the loop's thread, and may hold `Rc`; that thread wakes it, and runs what it gives to
//! `tokio::spawn`, nothing else. What makes tokio's objects must be inside: `async { tokio::time::sleep(delay).await }`,
//! not the sleep alone. A task that is made inside is not, unless it is wrapped, too.
//!
//! [`Compat`] around something that reads or writes gives it the other traits: what is tokio's, those of `futures`.
//!
//! # Cancel safety
//!
//! What is awaited inside [`Compat`] sees a cancellation as it does outside: this crate's awaitables take it, tokio's
//! are dropped unless they are [`cancellable`](crate::cancellable).
//!
//! # Examples
//!
//! ```
//! use asyncio::tokio_compat::CompatExt;
//! use std::{rc::Rc, time::Duration};
//!
//! asyncio::run(async {
//!     let state = Rc::new(5);
//!     let theirs = state.clone();
//!     let task = asyncio::create_task(
//!         async move {
//!             tokio::time::sleep(Duration::from_millis(1)).await; // would panic without `compat`
//!             asyncio::sleep(Duration::from_millis(1)).await?;
//!             Ok(*theirs)
//!         }
//!         .compat(),
//!     );
//!     assert_eq!(task.await?, 5);
//!     Ok(())
//! })?;
//! # asyncio::ok(())
//! ```
//!
//! asyncio: has no counterpart.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context as Cx, Poll, ready},
};

use futures::{AsyncBufRead, AsyncRead, AsyncWrite};
use tokio::io as theirs;

use crate::streams::{reader::StreamReader, stream::Stream, writer::StreamWriter};

#[doc(inline)]
pub use async_compat::{Compat, CompatExt};

impl theirs::AsyncRead for StreamReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Cx<'_>, buffer: &mut theirs::ReadBuf<'_>) -> Poll<io::Result<()>> {
        read(self.get_mut(), cx, buffer)
    }
}

impl theirs::AsyncBufRead for StreamReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<&[u8]>> {
        AsyncBufRead::poll_fill_buf(self, cx)
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        AsyncBufRead::consume(self, count);
    }
}

impl theirs::AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Cx<'_>, buffer: &mut theirs::ReadBuf<'_>) -> Poll<io::Result<()>> {
        read(self.get_mut().reader(), cx, buffer)
    }
}

impl theirs::AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<&[u8]>> {
        AsyncBufRead::poll_fill_buf(self, cx)
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        AsyncBufRead::consume(self, count);
    }
}

fn read(reader: &mut StreamReader, cx: &mut Cx<'_>, buffer: &mut theirs::ReadBuf<'_>) -> Poll<io::Result<()>> {
    if buffer.initialized().len() < buffer.capacity() {
        // Cheaper than to make memory for what may never come.
        return reader.poll_lend(buffer.remaining(), cx, |bytes| buffer.put_slice(bytes));
    }
    let count = ready!(Pin::new(reader).poll_read(cx, buffer.initialize_unfilled()))?;
    buffer.advance(count);
    Poll::Ready(Ok(()))
}

impl theirs::AsyncWrite for StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Cx<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Cx<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}

impl theirs::AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Cx<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Cx<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx)
    }
}
