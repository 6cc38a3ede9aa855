//! The reading half of a stream.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    task::{Context as Cx, Poll},
};

use crate::{
    error::{Error, Result},
    event_loop::{running, scope::Leaf},
    streams::{
        buffer::{Amount, Exactly, Line, NextLine, Request, Until},
        core::{Half, StreamCore},
        feeder::StreamFeeder,
        separator::Separator,
        store::StreamKey,
    },
};

/// What comes in over a stream.
///
/// Bytes that were received and not read yet are held, up to about twice the *limit* (64 KiB unless said otherwise); then
/// the connection is not read from until at most the limit is left. No line may be longer than that.
///
/// Every read that is cancelled or dropped leaves what has come for the next one. One read at a time: the compiler sees
/// to it. What a read waits for may be as large as it likes, except up to a separator.
///
/// It is a `futures::io::AsyncRead` and `AsyncBufRead`, too, so `AsyncReadExt` and `AsyncBufReadExt` serve it; where a
/// name is in both (`read`), the method here is called. There, the end of a TLS connection that the other side did not
/// announce is `UnexpectedEof`; here it is the end, as in asyncio.
///
/// Dropping it stops reading from the connection; dropping the writer closes that.
///
/// `Threads:` may cross them; it reads on its loop's thread alone.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let server = asyncio::start_server(
///         async |mut reader, writer| {
///             while let Some(line) = reader.next_line().await? {
///                 writer.write(&line)?;
///                 writer.drain().await?;
///             }
///             Ok(())
///         },
///         ("127.0.0.1", 0),
///     )
///     .await?;
///     let (mut reader, writer) = asyncio::open_connection(server.sockets()[0].address()).await?;
///     writer.write(b"hello\nworld\n")?;
///     writer.write_eof()?;
///     assert_eq!(reader.readline().await?, b"hello\n");
///     assert_eq!(reader.read(None).await?, b"world\n");
///     assert!(reader.at_eof());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// A second read beside one that waits, a `RuntimeError` in asyncio, does not compile:
///
/// ```compile_fail,E0499
/// # async fn both(mut reader: asyncio::StreamReader) -> asyncio::Result<()> {
/// let line = reader.readline();
/// let byte = reader.read(1);
/// futures::try_join!(line, byte)?;
/// # Ok(())
/// # }
/// ```
///
/// asyncio: `asyncio.StreamReader`.
pub struct StreamReader {
    pub(super) key: StreamKey,
    /// A copy of the front of what the stream holds, for `AsyncBufRead`.
    pub(super) lent: Lent,
}

/// A copy of the front of what a stream holds.
#[derive(Default)]
pub(super) struct Lent {
    pub(super) bytes: Vec<u8>,
    /// How many of them have been taken.
    pub(super) start: usize,
    /// The stream's count of takings when it was made.
    pub(super) made: u64,
}

impl StreamReader {
    /// A reader that is fed by hand, with its feeder. `limit` is in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if the limit is zero; [`Error::Runtime`] without a loop: it belongs to the one that
    /// [`get_event_loop`](crate::get_event_loop) gives.
    ///
    /// # Examples
    ///
    /// ```
    /// asyncio::run(async {
    ///     let (feeder, mut reader) = asyncio::StreamReader::new(1 << 16)?;
    ///     feeder.feed_data(b"some data")?;
    ///     feeder.feed_eof()?;
    ///     assert_eq!(reader.read(None).await?, b"some data");
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `asyncio.StreamReader(limit)`. Differs: what feeds is an object of its own.
    pub fn new(limit: usize) -> Result<(StreamFeeder, StreamReader)> {
        check_limit(limit)?;
        let event_loop = running::get_event_loop()?;
        let core = StreamCore::new(&event_loop, limit);
        let key = StreamKey::share(&event_loop, &core, &[Half::Reader, Half::Feeder]);
        Ok((StreamFeeder::new(key.clone()), StreamReader::of(key)))
    }

    pub(super) fn of(key: StreamKey) -> Self {
        StreamReader { key, lent: Lent::default() }
    }

    /// Reads up to `count` bytes: what there is, at least one byte, nothing at the end. `None` reads to the end, and
    /// gives all of it.
    ///
    /// Zero gives nothing at once.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves what has come for the next read.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; what the connection broke by; [`Error::Runtime`] on another thread and when the loop is
    /// closed.
    ///
    /// # Examples
    ///
    /// See [`StreamReader`].
    ///
    /// asyncio: `StreamReader.read`, whose `-1` is `None` here.
    pub fn read(&mut self, count: impl Into<Option<usize>>) -> impl StdFuture<Output = Result<Vec<u8>>> + Send {
        self.reading(Amount(count.into()))
    }

    /// Reads a line with its `\n`; where the stream ends without one, what is left, and nothing after that.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves what has come for the next read.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a line longer than the limit, which is dropped as far as it has come, so that the next one
    /// can be read; else as [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// See [`StreamReader`].
    ///
    /// asyncio: `StreamReader.readline`.
    pub fn readline(&mut self) -> impl StdFuture<Output = Result<Vec<u8>>> + Send {
        self.reading(Line::default())
    }

    /// As [`readline`](Self::readline), with `None` at the end: for `while let`.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves what has come for the next read.
    ///
    /// # Errors
    ///
    /// As [`readline`](Self::readline).
    ///
    /// # Examples
    ///
    /// ```
    /// asyncio::run(async {
    ///     let (feeder, mut reader) = asyncio::StreamReader::new(1 << 16)?;
    ///     feeder.feed_data(b"one\ntwo")?;
    ///     feeder.feed_eof()?;
    ///     let mut lines = Vec::new();
    ///     while let Some(line) = reader.next_line().await? {
    ///         lines.push(line);
    ///     }
    ///     assert_eq!(lines, [b"one\n".to_vec(), b"two".to_vec()]);
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `async for line in reader`.
    pub fn next_line(&mut self) -> impl StdFuture<Output = Result<Option<Vec<u8>>>> + Send {
        self.reading(NextLine(Line::default()))
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves what has come for the next read.
    ///
    /// # Errors
    ///
    /// [`Error::IncompleteRead`], with what came, if the stream ends before; else as [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// asyncio::run(async {
    ///     let (feeder, mut reader) = asyncio::StreamReader::new(1 << 16)?;
    ///     feeder.feed_data(b"headrest")?;
    ///     feeder.feed_eof()?;
    ///     assert_eq!(reader.readexactly(4).await?, b"head");
    ///     match reader.readexactly(100).await {
    ///         Err(asyncio::Error::IncompleteRead(error)) => assert_eq!(error.partial(), b"rest"),
    ///         other => panic!("{other:?}"),
    ///     }
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `StreamReader.readexactly`.
    pub fn readexactly(&mut self, count: usize) -> impl StdFuture<Output = Result<Vec<u8>>> + Send {
        self.reading(Exactly(count))
    }

    /// Reads up to a separator, and gives what there is with it. Of several, the one that ends first counts.
    ///
    /// # Cancel safety
    ///
    /// Cancelled or dropped, it leaves what has come for the next read.
    ///
    /// # Errors
    ///
    /// [`Error::IncompleteRead`], with what came, if the stream ends before; [`Error::LimitOverrun`] if there is more
    /// than the limit before the separator: all stays to be read otherwise; [`Error::Value`] for an empty separator and
    /// an empty list; else as [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// See [`Separator`].
    ///
    /// asyncio: `StreamReader.readuntil`.
    pub async fn readuntil(&mut self, separator: impl Separator) -> Result<Vec<u8>> {
        let until = Until::new(separator)?;
        self.reading(until).await
    }

    /// Whether all has been read, and nothing more will come. Elsewhere than on the loop's thread and after the loop's
    /// end it is true.
    ///
    /// asyncio: `StreamReader.at_eof`.
    pub fn at_eof(&self) -> bool {
        self.key.core("at_eof()").map_or(true, |core| core.look(|buffer| buffer.at_eof()))
    }

    /// What the stream broke by, which every read gives from now on.
    ///
    /// asyncio: `StreamReader.exception`.
    pub fn exception(&self) -> Option<Error> {
        self.key.core("exception()").map_or_else(Some, |core| core.look(|buffer| buffer.exception().cloned()))
    }

    fn reading<R: Request>(&mut self, request: R) -> Reading<'_, R> {
        Reading { key: &self.key, request, leaf: Leaf::new() }
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.key.release(Half::Reader);
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(core) = self.key.core("Debug") else { return f.write_str("<StreamReader>") };
        f.write_str("<StreamReader")?;
        core.look(|buffer| write!(f, "{buffer}"))?;
        if core.has_reader() {
            f.write_str(" waiting")?;
        }
        match core.transport() {
            Some(transport) => write!(f, " transport={transport:?}>"),
            None => f.write_str(">"),
        }
    }
}

/// Refuses a limit that no line keeps to.
pub(crate) fn check_limit(limit: usize) -> Result<()> {
    if limit == 0 {
        return Err(Error::Value("the limit of a stream must not be zero".into()));
    }
    Ok(())
}

/// A read, until there is what it asks for.
struct Reading<'r, R> {
    key: &'r StreamKey,
    request: R,
    leaf: Leaf,
}

// What it asks for is never pinned.
impl<R> Unpin for Reading<'_, R> {}

impl<R: Request> StdFuture for Reading<'_, R> {
    type Output = Result<R::Output>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<R::Output>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let core = this.key.core("reading from a stream")?;
        let polled = core.poll_request(&mut this.request, cx);
        if polled.is_ready() {
            this.leaf.resume();
            return polled;
        }
        if let Err(error) = this.key.check_loop() {
            core.unpark();
            return Poll::Ready(Err(error));
        }
        running::with(|running| this.leaf.suspend(running, cx));
        Poll::Pending
    }
}

impl<R> Drop for Reading<'_, R> {
    /// Nobody waits any more: what comes is received for the next one.
    fn drop(&mut self) {
        if self.leaf.is_fresh() {
            return;
        }
        if let Ok(core) = self.key.core("giving up a read") {
            core.unpark();
        }
    }
}
