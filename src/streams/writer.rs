//! The writing half of a stream.

use std::{fmt, io::IoSlice, time::Duration};

use crate::{
    combine::sleep::sleep,
    constants::PIECES_PER_WRITE,
    error::{Error, Result},
    streams::{
        core::{Half, StreamCore, connection_lost},
        store::StreamKey,
    },
    transport::{Transport, extra_info::ExtraInfo},
};

/// What goes out over a stream, and the connection's life.
///
/// [`write`](Self::write) never waits: what the system does not take at once is kept. [`drain`](Self::drain) waits while
/// too much is kept; a loop that writes calls it each time.
///
/// It is a `futures::io::AsyncWrite`, too, whose `poll_write` takes nothing while too much is kept, whose flush waits
/// until all has gone, and whose close flushes and ends what is written (or the connection, where that cannot be done
/// alone, as over TLS).
///
/// **Dropping it closes the connection**, for reading too; what was written is sent first. So keep it as long as the
/// reader: `let (reader, _writer) = …`, not `let (reader, _) = …`.
///
/// `Threads:` may cross them; it writes on its loop's thread alone.
///
/// # Examples
///
/// See [`StreamReader`](crate::StreamReader).
///
/// asyncio: `asyncio.StreamWriter`. Differs: dropping closes without a warning.
pub struct StreamWriter {
    pub(super) key: StreamKey,
}

impl StreamWriter {
    pub(super) fn of(key: StreamKey) -> Self {
        StreamWriter { key }
    }

    fn core(&self, call: &str) -> Result<std::rc::Rc<StreamCore>> {
        self.key.core(call)
    }

    /// Writes, without waiting. On a connection that is closed or lost it does nothing: [`drain`](Self::drain) tells.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] after `write_eof`, during a `sendfile` or `start_tls`, on another thread and when the loop is
    /// closed.
    ///
    /// asyncio: `StreamWriter.write`.
    pub fn write(&self, data: impl AsRef<[u8]>) -> Result<()> {
        match self.core("write()")?.transport() {
            Some(transport) => transport.0.write(data.as_ref()),
            None => Ok(()),
        }
    }

    /// Writes one after the other, in as few system calls as possible.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// asyncio: `StreamWriter.writelines`.
    pub fn writelines<B: AsRef<[u8]>>(&self, lines: impl AsRef<[B]>) -> Result<()> {
        match self.core("writelines()")?.transport() {
            Some(transport) => transport.try_writelines(lines),
            None => Ok(()),
        }
    }

    /// Ends what is written, behind all that was: the other side reads to its end, and may still send.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] where [`can_write_eof`](Self::can_write_eof) is false; else as [`write`](Self::write).
    ///
    /// asyncio: `StreamWriter.write_eof`.
    pub fn write_eof(&self) -> Result<()> {
        match self.core("write_eof()")?.transport() {
            Some(transport) => transport.write_eof(),
            None => Ok(()),
        }
    }

    /// Whether [`write_eof`](Self::write_eof) is possible: not over TLS.
    ///
    /// asyncio: `StreamWriter.can_write_eof`.
    pub fn can_write_eof(&self) -> bool {
        self.transport().is_ok_and(|transport| transport.can_write_eof())
    }

    /// Closes the connection when all that was written has gone; nothing is read any more. On another thread it does
    /// nothing.
    ///
    /// asyncio: `StreamWriter.close`.
    pub fn close(&self) {
        if let Ok(transport) = self.transport() {
            transport.close();
        }
    }

    /// Whether the connection is closed or about to be. Elsewhere than on the loop's thread it is true.
    ///
    /// asyncio: `StreamWriter.is_closing`.
    pub fn is_closing(&self) -> bool {
        self.core("is_closing()")
            .map_or(true, |core| core.is_lost() || core.transport().is_none_or(|transport| transport.is_closing()))
    }

    /// Waits until the connection is closed. It does not close it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by cancelling or dropping it.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; what the connection broke by; [`Error::Runtime`] on another thread and when the loop is
    /// closed.
    ///
    /// # Examples
    ///
    /// See [`open_connection`](crate::open_connection).
    ///
    /// asyncio: `StreamWriter.wait_closed`.
    pub async fn wait_closed(&self) -> Result<()> {
        let waiter = self.core("wait_closed()")?.wait_closed()?;
        match waiter {
            Some(waiter) => waiter.wait().await,
            None => Ok(()),
        }
    }

    /// Waits while too much of what was written has not gone: from when it is more than the high-water mark until it is
    /// at most the low one ([`Transport::set_write_buffer_limits`]). Any number of tasks may wait.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by cancelling or dropping it.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; what the connection broke by; [`Error::Io`] `ConnectionReset` "Connection lost" after its
    /// end; [`Error::Runtime`] on another thread and when the loop is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// async fn count(writer: &asyncio::StreamWriter) -> asyncio::Result<()> {
    ///     for number in 0..1_000_000 {
    ///         writer.write(format!("{number}\n"))?;
    ///         writer.drain().await?; // never more than the high-water mark is held
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// asyncio: `StreamWriter.drain`.
    pub async fn drain(&self) -> Result<()> {
        if self.check_drain()? {
            // So that the end is heard of, by those who write in a loop.
            sleep(Duration::ZERO).await?;
        }
        let waiter = {
            let core = self.core("drain()")?;
            if core.check_drain()? { Some(core.wait_to_drain()?) } else { None }
        };
        match waiter {
            Some(waiter) => waiter.wait().await,
            None => Ok(()),
        }
    }

    /// Whether the connection is about to end; an error if the reader has one.
    fn check_drain(&self) -> Result<bool> {
        let core = self.core("drain()")?;
        if let Some(error) = core.look(|buffer| buffer.exception().cloned()) {
            return Err(error);
        }
        let transport = core.transport().ok_or_else(connection_lost)?;
        Ok(transport.is_closing())
    }

    /// What is known of the connection; `None` also elsewhere than on the loop's thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn client(writer: asyncio::StreamWriter) -> asyncio::Result<()> {
    /// println!("{:?}", writer.get_extra_info(asyncio::PEERNAME));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// asyncio: `StreamWriter.get_extra_info`.
    pub fn get_extra_info<T: 'static>(&self, key: ExtraInfo<T>) -> Option<T> {
        self.transport().ok()?.get_extra_info(key)
    }

    /// The transport under it, for what streams have no name for. `set_protocol` on it takes it away from the stream:
    /// what was received before stays readable, what comes later is the new protocol's.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] on another thread and when the loop is closed.
    ///
    /// asyncio: `StreamWriter.transport`.
    pub fn transport(&self) -> Result<Transport> {
        let transport = self.core("transport()")?.transport();
        transport.ok_or_else(|| Error::Runtime("the stream has no transport".into()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.key.release(Half::Writer);
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport() {
            Ok(transport) => write!(f, "<StreamWriter transport={transport:?}>"),
            Err(_) => f.write_str("<StreamWriter>"),
        }
    }
}

/// As many pieces as one write takes.
pub(super) fn first_pieces<'a>(pieces: &'a [IoSlice<'a>]) -> &'a [IoSlice<'a>] {
    &pieces[..pieces.len().min(PIECES_PER_WRITE)]
}
