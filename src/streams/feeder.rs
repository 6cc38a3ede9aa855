//! What feeds a reader by hand.

use std::fmt;

use crate::{
    error::{Error, Result},
    streams::{core::Half, store::StreamKey},
    transport::{Transport, protocol::Protocol},
};

/// Feeds a [`StreamReader`](crate::StreamReader) of one's own.
///
/// It is a [`Protocol`], too: `connect_read_pipe(|| feeder, pipe)` makes the reader read a pipe, and pauses that while
/// much is unread. Dropping it ends the stream.
///
/// `Threads:` may cross them; it feeds on its loop's thread alone.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let (feeder, mut reader) = asyncio::StreamReader::new(1 << 16)?;
///     let (theirs, mut ours) = std::os::unix::net::UnixStream::pair()?; // a pipe or a socket
///     let event_loop = asyncio::get_running_loop()?;
///     event_loop.connect_read_pipe(|| feeder, theirs).await?;
///     std::io::Write::write_all(&mut ours, b"a line\n")?;
///     assert_eq!(reader.readline().await?, b"a line\n");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: the feeding methods of `StreamReader`, and `StreamReaderProtocol`.
pub struct StreamFeeder {
    key: StreamKey,
}

impl StreamFeeder {
    pub(super) fn new(key: StreamKey) -> Self {
        StreamFeeder { key }
    }

    /// Adds bytes to what the reader can read.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] after `feed_eof`, on another thread and when the loop is closed.
    ///
    /// asyncio: `StreamReader.feed_data`.
    pub fn feed_data(&self, data: &[u8]) -> Result<()> {
        let core = self.key.core("feed_data()")?;
        if core.look(|buffer| buffer.is_ended()) {
            return Err(Error::Runtime("feed_data() after feed_eof()".into()));
        }
        if !data.is_empty() {
            core.feed(data);
        }
        Ok(())
    }

    /// Ends the stream behind what was fed.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] on another thread and when the loop is closed.
    ///
    /// asyncio: `StreamReader.feed_eof`.
    pub fn feed_eof(&self) -> Result<()> {
        self.key.core("feed_eof()")?.feed_eof();
        Ok(())
    }

    /// Makes every read fail with `error`, the one that waits first.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] on another thread and when the loop is closed.
    ///
    /// asyncio: `StreamReader.set_exception`.
    pub fn set_exception(&self, error: Error) -> Result<()> {
        self.key.core("set_exception()")?.set_exception(error);
        Ok(())
    }
}

impl Protocol for StreamFeeder {
    fn connection_made(&mut self, transport: &Transport) {
        if let Ok(core) = self.key.core("connection_made()") {
            core.set_transport(transport);
        }
    }

    fn data_received(&mut self, data: &[u8]) {
        // After an end of the user's own there is nobody to read it.
        let _ = self.feed_data(data);
    }

    fn eof_received(&mut self) -> bool {
        let _ = self.feed_eof(); // a closed loop calls nobody
        false
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        let _ = match error {
            None => self.feed_eof(),
            Some(error) => self.set_exception(error.clone()),
        };
    }
}

impl Drop for StreamFeeder {
    fn drop(&mut self) {
        self.key.release(Half::Feeder);
    }
}

impl fmt::Debug for StreamFeeder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamFeeder").finish_non_exhaustive()
    }
}
