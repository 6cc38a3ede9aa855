//! Streams as the futures ecosystem has them.
//!
//! These faces have no room for a cancellation: they do not take it, and are cancelled by dropping what polls them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context as Cx, Poll, ready},
};

use futures::io::{AsyncBufRead, AsyncRead, AsyncWrite};

use crate::streams::{
    buffer::KEPT,
    core::StreamCore,
    reader::StreamReader,
    stream::Stream,
    writer::{StreamWriter, first_pieces},
};

/// How many bytes `AsyncBufRead` lends at once, at most.
const LENT: usize = 64 << 10;

/// How many bytes one write takes at most: what the system does not take of them is copied.
const TAKEN: usize = 1 << 20;

/// Up to how many bytes the pieces of a write are put together, in bytes: the system takes one piece with less work.
const JOINED: usize = 1 << 10;

impl AsyncRead for StreamReader {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Cx<'_>, memory: &mut [u8]) -> Poll<io::Result<usize>> {
        self.key.core("reading from a stream")?.poll_read(memory, cx)
    }
}

impl AsyncBufRead for StreamReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let core = this.key.core("reading from a stream")?;
        ready!(core.poll_fill(cx))?;
        core.look(|buffer| {
            let lent = &mut this.lent;
            if lent.made != buffer.taken() || lent.start >= lent.bytes.len() {
                lent.bytes.clear();
                lent.bytes.extend_from_slice(&buffer.bytes()[..buffer.len().min(LENT)]);
                (lent.start, lent.made) = (0, buffer.taken());
            }
        });
        Poll::Ready(Ok(&this.lent.bytes[this.lent.start..]))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        let this = self.get_mut();
        let Ok(core) = this.key.core("reading from a stream") else { return };
        if count == 0 || this.lent.made != core.look(|buffer| buffer.taken()) {
            return; // what was lent is not the front any more
        }
        let count = count.min(this.lent.bytes.len() - this.lent.start);
        core.consume(count);
        this.lent.start += count;
        this.lent.made = core.look(|buffer| buffer.taken());
        if this.lent.start == this.lent.bytes.len() {
            this.lent.start = 0;
            this.lent.bytes.clear();
            if this.lent.bytes.capacity() > KEPT {
                this.lent.bytes = Vec::new();
            }
        }
    }
}

impl StreamWriter {
    #[inline]
    fn poll_core<T>(
        &self,
        cx: &Cx<'_>,
        poll: impl FnOnce(&StreamCore, &Cx<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        poll(&*self.key.core("writing to a stream")?, cx)
    }

    pub(super) fn poll_write_data(&self, cx: &Cx<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let transport = ready!(self.poll_core(cx, StreamCore::poll_writable))?;
        let data = &data[..data.len().min(TAKEN)];
        transport.0.write(data)?;
        Poll::Ready(Ok(data.len()))
    }

    pub(super) fn poll_write_pieces(&self, cx: &Cx<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let transport = ready!(self.poll_core(cx, StreamCore::poll_writable))?;
        let pieces = first_pieces(pieces);
        let count = pieces.iter().fold(0, |count: usize, piece| count.saturating_add(piece.len()));
        if count > TAKEN {
            let first = pieces.iter().find(|piece| !piece.is_empty()).expect("all together are not empty");
            return self.poll_write_data(cx, first);
        }
        if count <= JOINED {
            let mut joined = [0; JOINED];
            let mut rest = &mut joined[..];
            for piece in pieces {
                let (front, back) = rest.split_at_mut(piece.len());
                front.copy_from_slice(piece);
                rest = back;
            }
            transport.0.write(&joined[..count])?;
        } else {
            transport.0.write_vectored(pieces, false)?;
        }
        Poll::Ready(Ok(count))
    }

    pub(super) fn poll_flush_all(&self, cx: &Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_core(cx, StreamCore::poll_flushed)
    }

    pub(super) fn poll_end(&self, cx: &Cx<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_all(cx))?;
        let Ok(transport) = self.transport() else { return Poll::Ready(Ok(())) };
        if transport.can_write_eof() {
            transport.write_eof()?;
        } else {
            transport.close();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamWriter {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Cx<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_data(cx, data)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Cx<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_write_pieces(cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_all(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}

/// A writer that several tasks share.
impl AsyncWrite for &StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Cx<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_data(cx, data)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Cx<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_write_pieces(cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_all(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Cx<'_>, memory: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().reader).poll_read(cx, memory)
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().reader).poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        Pin::new(&mut self.get_mut().reader).consume(count);
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Cx<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.poll_write_data(cx, data)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Cx<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.writer.poll_write_pieces(cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_flush_all(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_end(cx)
    }
}

#[cfg(any(feature = "hyper", feature = "tokio-compat"))]
impl StreamReader {
    /// Lends what there is to `take`, at most `most` bytes, none at the end.
    #[inline]
    pub(crate) fn poll_lend(&self, most: usize, cx: &Cx<'_>, take: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        self.key.core("reading from a stream")?.poll_lend(most, cx, take)
    }
}

#[cfg(feature = "hyper")]
impl Stream {
    /// As [`StreamReader::poll_lend`].
    #[inline]
    pub(crate) fn poll_lend(&self, most: usize, cx: &Cx<'_>, take: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        self.reader.poll_lend(most, cx, take)
    }
}
