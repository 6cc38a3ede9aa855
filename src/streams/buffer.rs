//! What a stream has received and its reader has not taken yet.

use std::fmt;

use memchr::{memchr, memmem};

use crate::{
    constants::LIMIT,
    error::{Error, IncompleteReadError, LimitOverrunError, Result},
    streams::separator::{See, Separator},
};

/// Capacity that an empty buffer keeps, in bytes: enough for lines, nothing beside an idle connection's other memory.
pub(super) const KEPT: usize = 1 << 10;

/// Bytes between the connection and the reader, and how they end.
///
/// ```text
/// Open --feed_eof--> Ended
/// Open, Ended --set_exception--> Failed: whoever reads gets the error
/// ```
#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    /// What lies before it has been taken.
    start: usize,
    /// What a line may have, and half of what is held before reading pauses, in bytes.
    limit: usize,
    /// Set by feed_eof(); never cleared.
    ended: bool,
    exception: Option<Error>,
    /// Set when reading is to pause, cleared when it is to go on.
    paused: bool,
    /// Counts what makes a copy of the front stale.
    taken: u64,
}

/// What a read comes to with what is there now.
pub(super) enum Attempt<T> {
    Done(Result<T>),
    /// More has to come.
    Starved,
}

/// What is to be read, as far as it has got.
pub(super) trait Request {
    type Output;
    fn attempt(&mut self, buffer: &mut ReadBuffer) -> Attempt<Self::Output>;
    /// How many bytes more it could do with, at most.
    fn wants(&self, held: usize) -> usize;
}

impl ReadBuffer {
    pub(super) fn new(limit: usize) -> Self {
        ReadBuffer { bytes: Vec::new(), start: 0, limit, ended: false, exception: None, paused: false, taken: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Changes whenever something is taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn at_eof(&self) -> bool {
        self.ended && self.is_empty()
    }

    pub(super) fn exception(&self) -> Option<&Error> {
        self.exception.as_ref()
    }

    /// Adds what was received; whether reading is to pause now.
    pub(super) fn feed(&mut self, data: &[u8]) -> bool {
        if self.start > 0 && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(data);
        !self.paused && self.len() > self.limit.saturating_mul(2) && !std::mem::replace(&mut self.paused, true)
    }

    pub(super) fn feed_eof(&mut self) {
        self.ended = true;
    }

    pub(super) fn set_exception(&mut self, error: Error) {
        self.exception = Some(error);
    }

    /// Whether reading, which was to pause, is to go on: little is left.
    pub(super) fn resumes(&mut self) -> bool {
        self.paused && self.len() <= self.limit && std::mem::take(&mut self.paused)
    }

    /// Whether reading is to go on whatever is left, because somebody waits for more.
    pub(super) fn resumes_for_more(&mut self) -> bool {
        std::mem::take(&mut self.paused)
    }

    /// Takes the first `count` bytes away.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        self.taken += 1;
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Gives memory back while there is nothing to hold.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }

    /// Takes the first `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.len());
        // All of much is moved, not copied.
        if count == self.bytes.len() && count > KEPT && self.bytes.capacity() / 2 <= count {
            self.taken += 1;
            return std::mem::take(&mut self.bytes);
        }
        let taken = self.bytes()[..count].to_vec();
        self.consume(count);
        taken
    }

    pub(super) fn take_all(&mut self) -> Vec<u8> {
        self.take(self.len())
    }

    /// Puts back what was taken last, of a stream that is not paused; whether reading is to pause now.
    #[cfg(feature = "tls")]
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) -> bool {
        let after = std::mem::replace(&mut self.bytes, bytes).split_off(self.start);
        self.start = 0;
        self.taken += 1;
        self.feed(&after)
    }

    /// What was set by set_exception(), as an attempt.
    fn check<T>(&self) -> Option<Attempt<T>> {
        self.exception.clone().map(|error| Attempt::Done(Err(error)))
    }
}

impl fmt::Display for ReadBuffer {
    /// What the stream's `Debug` tells of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_empty() {
            write!(f, " {} bytes", self.len())?;
        }
        if self.ended {
            f.write_str(" eof")?;
        }
        if self.limit != LIMIT {
            write!(f, " limit={}", self.limit)?;
        }
        if let Some(exception) = &self.exception {
            write!(f, " exception={exception:?}")?;
        }
        if self.paused {
            f.write_str(" paused")?;
        }
        Ok(())
    }
}

/// As many bytes as there are, at least one and at most this many; or everything up to the end.
pub(super) struct Amount(pub(super) Option<usize>);

impl Request for Amount {
    type Output = Vec<u8>;

    fn attempt(&mut self, buffer: &mut ReadBuffer) -> Attempt<Vec<u8>> {
        if let Some(failed) = buffer.check() {
            return failed;
        }
        let starved = match self.0 {
            None => !buffer.is_ended(),
            Some(count) => count > 0 && buffer.is_empty() && !buffer.is_ended(),
        };
        if starved { Attempt::Starved } else { Attempt::Done(Ok(buffer.take(self.0.unwrap_or(usize::MAX)))) }
    }

    fn wants(&self, _held: usize) -> usize {
        self.0.unwrap_or(usize::MAX)
    }
}

/// Just so many bytes.
pub(super) struct Exactly(pub(super) usize);

impl Request for Exactly {
    type Output = Vec<u8>;

    fn attempt(&mut self, buffer: &mut ReadBuffer) -> Attempt<Vec<u8>> {
        if let Some(failed) = buffer.check() {
            return failed;
        }
        if buffer.len() >= self.0 {
            return Attempt::Done(Ok(buffer.take(self.0)));
        }
        if !buffer.is_ended() {
            return Attempt::Starved;
        }
        let partial = IncompleteReadError::new(buffer.take_all(), Some(self.0));
        Attempt::Done(Err(Error::IncompleteRead(partial.into())))
    }

    fn wants(&self, held: usize) -> usize {
        self.0.saturating_sub(held)
    }
}

/// Everything up to a separator and with it.
pub(super) struct Until<S> {
    separator: S,
    /// Where a separator may begin that was not seen yet.
    offset: Searched,
}

/// How much of the front of a buffer needs no more search, unless somebody else takes it away: `start_tls()` does.
#[derive(Default)]
struct Searched {
    count: usize,
    taken: u64,
}

impl Searched {
    #[inline]
    fn of(&mut self, buffer: &ReadBuffer) -> usize {
        if self.taken != buffer.taken() {
            *self = Searched { count: 0, taken: buffer.taken() };
        }
        self.count
    }
}

/// What of the front of a buffer a separator ends.
struct Match {
    start: usize,
    end: usize,
}

impl<S: Separator> Until<S> {
    pub(super) fn new(separator: S) -> Result<Self> {
        let (mut count, mut shortest) = (0, usize::MAX);
        separator.each(See(&mut |one| {
            count += 1;
            shortest = shortest.min(one.len());
        }));
        if count == 0 {
            return Err(Error::Value("Separator should contain at least one element".into()));
        }
        if shortest == 0 {
            return Err(Error::Value("Separator should be at least one-byte string".into()));
        }
        Ok(Until { separator, offset: Searched::default() })
    }

    /// The separator behind `offset` that ends first, the shortest of those that end together.
    fn find(&self, bytes: &[u8], offset: usize) -> Option<Match> {
        let mut found: Option<Match> = None;
        self.separator.each(See(&mut |one| {
            let unseen = bytes.get(offset..).unwrap_or_default();
            let at = if let [byte] = one { memchr(*byte, unseen) } else { memmem::find(unseen, one) };
            let Some(at) = at else { return };
            let it = Match { start: offset + at, end: offset + at + one.len() };
            let better = |best: &Match| it.end < best.end || (it.end == best.end && it.start > best.start);
            if found.as_ref().is_none_or(better) {
                found = Some(it);
            }
        }));
        found
    }

    fn longest(&self) -> usize {
        let mut longest = 0;
        self.separator.each(See(&mut |one| longest = longest.max(one.len())));
        longest
    }

    /// Where what is asked for ends.
    fn locate(&mut self, buffer: &ReadBuffer) -> Attempt<Match> {
        if let Some(failed) = buffer.check() {
            return failed;
        }
        let overrun = |text, consumed| {
            let error = LimitOverrunError::new(text, consumed);
            Attempt::Done(Err(Error::LimitOverrun(error.into())))
        };
        let offset = self.offset.of(buffer);
        if let Some(found) = self.find(buffer.bytes(), offset) {
            if found.start > buffer.limit() {
                return overrun("Separator is found, but chunk is longer than limit", found.start);
            }
            return Attempt::Done(Ok(found));
        }
        let offset = offset.max((buffer.len() + 1).saturating_sub(self.longest()));
        self.offset.count = offset;
        if offset > buffer.limit() {
            return overrun("Separator is not found, and chunk exceed the limit", offset);
        }
        Attempt::Starved
    }
}

impl<S: Separator> Request for Until<S> {
    type Output = Vec<u8>;

    fn attempt(&mut self, buffer: &mut ReadBuffer) -> Attempt<Vec<u8>> {
        match self.locate(buffer) {
            Attempt::Done(Ok(found)) => Attempt::Done(Ok(buffer.take(found.end))),
            Attempt::Done(Err(error)) => Attempt::Done(Err(error)),
            Attempt::Starved if buffer.is_ended() => {
                let partial = IncompleteReadError::new(buffer.take_all(), None);
                Attempt::Done(Err(Error::IncompleteRead(partial.into())))
            }
            Attempt::Starved => Attempt::Starved,
        }
    }

    fn wants(&self, _held: usize) -> usize {
        usize::MAX
    }
}

/// A line with its end, or what is left where the stream ends without one.
#[derive(Default)]
pub(super) struct Line {
    /// How much has no end of a line.
    searched: Searched,
}

impl Request for Line {
    type Output = Vec<u8>;

    #[inline]
    fn attempt(&mut self, buffer: &mut ReadBuffer) -> Attempt<Vec<u8>> {
        if let Some(failed) = buffer.check() {
            return failed;
        }
        let (bytes, limit, searched) = (buffer.bytes(), buffer.limit(), self.searched.of(buffer));
        match memchr(b'\n', &bytes[searched..]) {
            Some(at) if searched + at <= limit => Attempt::Done(Ok(buffer.take(searched + at + 1))),
            // The line goes, so that the next one can be read.
            Some(at) => {
                buffer.consume(searched + at + 1);
                Attempt::Done(Err(Error::Value("Separator is found, but chunk is longer than limit".into())))
            }
            None if bytes.len() > limit => {
                buffer.consume(buffer.len());
                Attempt::Done(Err(Error::Value("Separator is not found, and chunk exceed the limit".into())))
            }
            None if buffer.is_ended() => Attempt::Done(Ok(buffer.take_all())),
            None => {
                self.searched.count = bytes.len();
                Attempt::Starved
            }
        }
    }

    fn wants(&self, _held: usize) -> usize {
        usize::MAX
    }
}

/// As a line, with nothing at the end.
pub(super) struct NextLine(pub(super) Line);

impl Request for NextLine {
    type Output = Option<Vec<u8>>;

    #[inline]
    fn attempt(&mut self, buffer: &mut ReadBuffer) -> Attempt<Option<Vec<u8>>> {
        match self.0.attempt(buffer) {
            Attempt::Done(line) => Attempt::Done(line.map(|line| (!line.is_empty()).then_some(line))),
            Attempt::Starved => Attempt::Starved,
        }
    }

    fn wants(&self, held: usize) -> usize {
        self.0.wants(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(limit: usize, data: &[u8]) -> ReadBuffer {
        let mut buffer = ReadBuffer::new(limit);
        buffer.feed(data);
        buffer
    }

    fn done<R: Request>(mut request: R, buffer: &mut ReadBuffer) -> Option<Result<R::Output>> {
        match request.attempt(buffer) {
            Attempt::Done(outcome) => Some(outcome),
            Attempt::Starved => None,
        }
    }

    /// STR-026
    #[test]
    fn reading_pauses_above_twice_the_limit_and_goes_on_at_the_limit() {
        let mut buffer = ReadBuffer::new(10);
        let pauses = [20, 1, 1].map(|count| buffer.feed(&vec![0; count]));
        assert_eq!(pauses, [false, true, false]);
        let resumes = [11, 1, 1].map(|count| {
            buffer.take(count);
            buffer.resumes()
        });
        assert_eq!(resumes, [false, true, false]);
    }

    #[test]
    fn what_is_searched_once_is_not_searched_again() {
        let mut buffer = fed(100, b"aaaa");
        let mut until = Until::new("ab").unwrap();
        assert!(matches!(until.attempt(&mut buffer), Attempt::Starved));
        assert_eq!(until.offset.count, 3);
        buffer.feed(b"bc");
        let Attempt::Done(Ok(line)) = until.attempt(&mut buffer) else { panic!("the separator has come") };
        assert_eq!((line.as_slice(), buffer.bytes()), (b"aaaab".as_slice(), b"c".as_slice()));
    }

    #[test]
    fn what_somebody_else_took_was_not_searched() {
        let mut buffer = fed(100, b"no end of it");
        let (mut line, mut until) = (Line::default(), Until::new("d\n").unwrap());
        assert!(matches!(line.attempt(&mut buffer), Attempt::Starved));
        assert!(matches!(until.attempt(&mut buffer), Attempt::Starved));
        buffer.take_all();
        assert!(matches!(line.attempt(&mut buffer), Attempt::Starved));
        buffer.feed(b"end\nend\n");
        let Attempt::Done(Ok(first)) = line.attempt(&mut buffer) else { panic!("the line has come") };
        let Attempt::Done(Ok(second)) = until.attempt(&mut buffer) else { panic!("the separator has come") };
        assert_eq!((first, second), (b"end\n".to_vec(), b"end\n".to_vec()));
    }

    #[test]
    fn what_comes_in_pieces_and_goes_in_others_is_the_same() {
        let data: Vec<u8> = (0..10_000_u32).map(|number| (number % 251) as u8).collect();
        for (fed, taken) in [(1, 7), (7, 1), (4096, 999), (999, 4096)] {
            let (mut buffer, mut seen, mut left) = (ReadBuffer::new(1), Vec::new(), data.as_slice());
            while !left.is_empty() || !buffer.is_empty() {
                let (piece, after) = left.split_at(left.len().min(fed));
                buffer.feed(piece);
                left = after;
                seen.extend(buffer.take(taken));
            }
            assert!(seen == data, "{fed} {taken}");
        }
    }

    #[test]
    fn much_is_moved_and_not_copied() {
        let mut buffer = fed(1, &[7; 100_000]);
        let address = buffer.bytes().as_ptr();
        let taken = buffer.take(100_000);
        assert_eq!(taken.as_ptr(), address);
        assert!(buffer.is_empty());
    }

    #[test]
    fn the_separator_that_ends_first_decides() {
        let mut buffer = fed(100, b"some dataA rest");
        let separators: [&[u8]; 2] = [b"ome dataA", b"A"];
        let line = done(Until::new(separators).unwrap(), &mut buffer).unwrap().unwrap();
        assert_eq!(line, b"some dataA");
    }

    #[test]
    fn a_line_of_just_the_limit_is_none_too_long() {
        let mut buffer = fed(7, b"1234567\n12345678\nok\n");
        assert_eq!(done(Line::default(), &mut buffer).unwrap().unwrap(), b"1234567\n");
        assert_eq!(done(Line::default(), &mut buffer).unwrap().unwrap_err().kind(), crate::ErrorKind::Value);
        assert_eq!(done(Line::default(), &mut buffer).unwrap().unwrap(), b"ok\n");
        assert!(done(Line::default(), &mut buffer).is_none());
    }
}
