//! What is sent, and how far that has come.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{
    combine::sleep::sleep,
    error::{Error, Result},
    net::sock::local,
    sys::sendfile,
};

/// Something to send that is no [`File`]: read on the loop's thread, a piece at a time.
///
/// The system cannot send it by itself: with `fallback(false)` it is
/// [`Error::SendfileNotAvailable`](crate::Error::SendfileNotAvailable).
///
/// # Examples
///
/// ```
/// use std::{io::{Cursor, Read}, os::unix::net::UnixStream};
///
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let (ours, mut theirs) = UnixStream::pair()?;
///     ours.set_nonblocking(true)?;
///     let mut memory = Cursor::new(b"hello world");
///     event_loop.sock_sendfile(&ours, asyncio::Reader(&mut memory)).offset(6).await?;
///     assert_eq!(memory.position(), 11);
///     let mut received = [0; 5];
///     theirs.read_exact(&mut received)?;
///     assert_eq!(&received, b"world");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: a file object without a `fileno`.
#[derive(Debug)]
pub struct Reader<'f, R>(pub &'f mut R);

/// What [`sock_sendfile`](crate::EventLoop::sock_sendfile) and [`sendfile`](crate::EventLoop::sendfile) send: a
/// `&`[`File`] or a [`Reader`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a file to send",
    label = "expected a `&std::fs::File` or a `Reader(&mut ..)`",
    note = "wrap what is `Read + Seek` in `asyncio::Reader`"
)]
pub trait SendfileSource<'f> {
    #[doc(hidden)]
    fn into_source(self) -> AnySource<'f>;
}

impl<'f> SendfileSource<'f> for &'f File {
    fn into_source(self) -> AnySource<'f> {
        AnySource(Source::File(self))
    }
}

impl<'f, R: Read + Seek> SendfileSource<'f> for Reader<'f, R> {
    fn into_source(self) -> AnySource<'f> {
        AnySource(Source::Reader(self.0))
    }
}

/// A source that has lost its type.
#[doc(hidden)]
pub struct AnySource<'f>(Source<'f>);

enum Source<'f> {
    File(&'f File),
    Reader(&'f mut dyn ReadSeek),
}

trait ReadSeek: Read + Seek {}

impl<R: Read + Seek> ReadSeek for R {}

impl fmt::Debug for AnySource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(file) => file.fmt(f),
            Source::Reader(_) => f.write_str("Reader"),
        }
    }
}

/// A source on its way. When it is dropped, the position is where it belongs.
pub(crate) struct Progress<'f> {
    source: Source<'f>,
    /// Where the next byte to send is.
    offset: u64,
    /// How many may still be sent.
    left: Option<u64>,
    sent: u64,
    /// Where a reader stood before it was read from.
    before: Option<u64>,
    /// A file to be read in another thread, while it is here.
    copy: Option<File>,
    /// Set by settle(); never cleared.
    settled: bool,
}

impl<'f> Progress<'f> {
    pub(crate) fn new(source: AnySource<'f>, offset: u64, left: Option<u64>) -> Self {
        Progress { source: source.0, offset, left, sent: 0, before: None, copy: None, settled: false }
    }

    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&'f File> {
        match self.source {
            Source::File(file) => Some(file),
            Source::Reader(_) => None,
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether all that was asked for was sent.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == Some(0)
    }

    /// How many bytes may be sent next, if it is to be no more than `most`.
    pub(crate) fn size(&self, most: usize) -> usize {
        let left = self.left.and_then(|left| usize::try_from(left).ok());
        left.map_or(most, |left| left.min(most))
    }

    /// So many bytes more were sent.
    pub(crate) fn advance(&mut self, count: usize) {
        let count = count as u64;
        self.sent += count;
        self.offset = self.offset.saturating_add(count);
        self.left = self.left.map(|left| left - count);
    }

    pub(crate) fn begin_reading(&mut self) -> io::Result<()> {
        match &mut self.source {
            Source::File(file) => self.copy = Some(file.try_clone()?),
            Source::Reader(reader) => {
                self.before = Some(reader.stream_position()?);
                reader.seek(SeekFrom::Start(self.offset))?;
            }
        }
        Ok(())
    }

    /// Reads up to `size` bytes from the offset on into `buffer`, whose content is replaced; none at the end.
    pub(crate) async fn read(&mut self, loop_id: u64, mut buffer: Vec<u8>, size: usize) -> Result<Vec<u8>> {
        let reader = match &mut self.source {
            Source::File(_) => return self.read_elsewhere(loop_id, buffer, size).await,
            Source::Reader(reader) => reader,
        };
        if self.sent > 0 {
            sleep(Duration::ZERO).await?; // the others' turn
        }
        buffer.resize(size, 0);
        let count = loop {
            match reader.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Reads a file, which may take its time, in the default executor.
    async fn read_elsewhere(&mut self, loop_id: u64, mut buffer: Vec<u8>, size: usize) -> Result<Vec<u8>> {
        let file = self.copy.take().expect("it comes back with each read, and after a failure there is none more");
        let offset = self.offset;
        let read = local(loop_id)?.run_in_executor(None, move || {
            buffer.resize(size, 0);
            let count = sendfile::read_at(&file, &mut buffer, offset)?;
            buffer.truncate(count);
            io::Result::Ok((file, buffer))
        });
        let (file, buffer) = read.await??;
        self.copy = Some(file);
        Ok(buffer)
    }

    /// Puts the position behind what was sent; if that is nothing, where it was.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        let position = if self.sent > 0 { Some(self.offset) } else { self.before };
        let Some(position) = position.map(SeekFrom::Start) else { return Ok(()) };
        match &mut self.source {
            Source::File(file) => file.seek(position)?,
            Source::Reader(reader) => reader.seek(position)?,
        };
        Ok(())
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        // Perhaps because the reader has panicked, which must not happen twice; nobody is left to tell.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.settle())) {
            drop(Error::from_panic(payload));
        }
    }
}
