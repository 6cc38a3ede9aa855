//! Both halves of a stream in one object.

use crate::{
    error::{Error, Result},
    streams::{reader::StreamReader, writer::StreamWriter},
};

/// Both halves of a stream in one object: for crates that want one that reads and writes.
///
/// It is `AsyncRead`, `AsyncBufRead` and `AsyncWrite` of `futures::io`; the halves, with asyncio's methods, are its
/// fields' worth away: [`reader`](Self::reader), [`writer`](Self::writer), [`into_split`](Self::into_split).
///
/// `Threads:` may cross them; it works on its loop's thread alone.
///
/// # Examples
///
/// ```
/// use asyncio::Stream;
/// use futures::{AsyncReadExt, AsyncWriteExt};
///
/// asyncio::run(async {
///     let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
///     let (reader, writer) = asyncio::open_unix_connection(()).sock(ours).await?;
///     let mut ours = Stream::join(reader, writer)?;
///     let (reader, writer) = asyncio::open_unix_connection(()).sock(theirs).await?;
///     let mut theirs = Stream::join(reader, writer)?;
///     ours.write_all(b"ping").await?;
///     let mut received = [0; 4];
///     theirs.read_exact(&mut received).await?;
///     assert_eq!(&received, b"ping");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: has none.
#[derive(Debug)]
pub struct Stream {
    pub(super) reader: StreamReader,
    pub(super) writer: StreamWriter,
}

impl Stream {
    /// Puts together what belongs together.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if they are not the halves of one stream; both are dropped then.
    ///
    /// asyncio: has none.
    pub fn join(reader: StreamReader, writer: StreamWriter) -> Result<Self> {
        if !reader.key.is_of(&writer.key) {
            return Err(Error::Value("the reader and the writer are not of one stream".into()));
        }
        Ok(Stream { reader, writer })
    }

    /// The reading half.
    ///
    /// asyncio: has none.
    pub fn reader(&mut self) -> &mut StreamReader {
        &mut self.reader
    }

    /// The writing half.
    ///
    /// asyncio: has none.
    pub fn writer(&self) -> &StreamWriter {
        &self.writer
    }

    /// The halves by themselves again.
    ///
    /// asyncio: has none.
    pub fn into_split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}
