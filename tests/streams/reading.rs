//! What these tests show: what each kind of read gives, of a reader that is fed by hand.

use asyncio::{Error, ErrorKind, create_task};

use crate::{
    LIMIT, fed, rest,
    support::{failure, run},
    turn, turns,
};

const DATA: &[u8] = b"line1\nline2\nline3\n";

/// STR-001
#[test]
fn a_read_gives_what_there_is_and_nothing_at_the_end() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"abc")?;
        assert_eq!(reader.read(0).await?, b"");
        assert_eq!(reader.read(2).await?, b"ab");
        feeder.feed_eof()?;
        assert_eq!(reader.read(None).await?, b"c");
        assert_eq!(reader.read(5).await?, b"");
        Ok(())
    });
}

/// STR-001: without anything fed, too.
#[test]
fn a_read_of_nothing_is_over_at_once() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        assert_eq!(reader.read(0).await?, b"");
        assert_eq!(reader.readexactly(0).await?, b"");
        feeder.feed_data(DATA)?;
        assert_eq!(reader.read(0).await?, b"");
        assert_eq!(reader.readexactly(0).await?, b"");
        assert_eq!(rest(&feeder, reader).await, DATA);
        Ok(())
    });
}

#[test]
fn a_read_waits_for_the_first_bytes_and_no_more() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { Ok((reader.read(30).await?, reader)) });
        turns(3).await;
        assert!(!read.done());
        feeder.feed_data(DATA)?;
        let (data, reader) = read.await?;
        assert_eq!(data, DATA);
        assert_eq!(rest(&feeder, reader).await, b"");
        Ok(())
    });
}

#[test]
fn a_read_does_not_care_how_it_was_fed() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"line1")?;
        feeder.feed_data(b"line2")?;
        assert_eq!(reader.read(5).await?, b"line1");
        assert_eq!(rest(&feeder, reader).await, b"line2");
        Ok(())
    });
}

#[test]
fn a_read_that_waits_ends_at_the_end() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { reader.read(1024).await });
        turn().await;
        feeder.feed_eof()?;
        assert_eq!(read.await?, b"");
        Ok(())
    });
}

/// STR-003
#[test]
fn what_is_fed_before_the_reader_goes_on_counts() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { Ok((reader.read(3).await?, reader.read(3).await?)) });
        turn().await;
        feeder.feed_data(b"1")?;
        feeder.feed_data(b"2345")?;
        assert_eq!(read.await?, (b"123".to_vec(), b"45".to_vec()));
        Ok(())
    });
}

/// STR-004
#[test]
fn a_read_to_the_end_gives_all_whatever_the_limit() {
    run(async {
        let (feeder, mut reader) = fed(3);
        let read = create_task(async move { reader.read(None).await });
        for chunk in [&b"chunk1\n"[..], b"chunk2", b"", b"chunk3"] {
            turn().await;
            feeder.feed_data(chunk)?;
            turn().await;
            assert!(!read.done());
        }
        feeder.feed_eof()?;
        assert_eq!(read.await?, b"chunk1\nchunk2chunk3");
        Ok(())
    });
}

/// STR-006
#[test]
fn the_end_needs_an_empty_buffer() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        assert!(!reader.at_eof());
        feeder.feed_data(b"some data\n")?;
        assert!(!reader.at_eof());
        reader.readline().await?;
        assert!(!reader.at_eof());
        feeder.feed_data(b"some data\n")?;
        assert!(!reader.at_eof());
        feeder.feed_eof()?;
        assert!(!reader.at_eof());
        reader.readline().await?;
        assert!(reader.at_eof());
        assert_eq!(reader.readline().await?, b"");
        assert!(reader.at_eof());
        Ok(())
    });
}

/// STR-007
#[test]
fn a_line_may_come_in_pieces() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"chunk1 ")?;
        let read = create_task(async move { Ok((reader.readline().await?, reader)) });
        turn().await;
        feeder.feed_data(b"chunk2 ")?;
        feeder.feed_data(b"chunk3 ")?;
        feeder.feed_data(b"\n chunk4")?;
        let (line, reader) = read.await?;
        assert_eq!(line, b"chunk1 chunk2 chunk3 \n");
        assert_eq!(rest(&feeder, reader).await, b" chunk4");
        Ok(())
    });
}

/// STR-007: each piece in a turn of its own.
#[test]
fn a_line_may_come_slowly() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { Ok((reader.readline().await?, reader.readline().await?)) });
        for byte in b"one\ntwo\n" {
            turns(2).await;
            feeder.feed_data(&[*byte])?;
        }
        assert_eq!(read.await?, (b"one\n".to_vec(), b"two\n".to_vec()));
        Ok(())
    });
}

#[test]
fn a_line_that_is_there_is_given_at_once() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(&DATA[..6])?;
        feeder.feed_data(&DATA[6..])?;
        assert_eq!(reader.readline().await?, b"line1\n");
        assert_eq!(reader.read(7).await?, b"line2\nl");
        assert_eq!(rest(&feeder, reader).await, b"ine3\n");
        Ok(())
    });
}

/// STR-008
#[test]
fn a_line_ends_at_the_end_as_well() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"part")?;
        feeder.feed_eof()?;
        assert_eq!(reader.readline().await?, b"part");
        assert_eq!(reader.readline().await?, b"");
        Ok(())
    });
}

/// STR-008: where it is waited for.
#[test]
fn a_line_that_is_waited_for_ends_at_the_end() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"pa")?;
        let read = create_task(async move { Ok((reader.readline().await?, reader.readline().await?)) });
        turn().await;
        feeder.feed_data(b"rt")?;
        turn().await;
        feeder.feed_eof()?;
        assert_eq!(read.await?, (b"part".to_vec(), b"".to_vec()));
        Ok(())
    });
}

#[test]
fn exactly_so_many_are_waited_for() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let count = 2 * DATA.len();
        let read = create_task(async move { Ok((reader.readexactly(count).await?, reader)) });
        for piece in [DATA, &[DATA, DATA].concat()] {
            turn().await;
            assert!(!read.done());
            feeder.feed_data(piece)?;
        }
        let (data, reader) = read.await?;
        assert_eq!(data, [DATA, DATA].concat());
        assert_eq!(rest(&feeder, reader).await, DATA);
        Ok(())
    });
}

/// STR-021
#[test]
fn too_few_are_in_the_error() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { Ok((reader.readexactly(36).await, reader)) });
        turn().await;
        feeder.feed_data(DATA)?;
        feeder.feed_eof()?;
        let (outcome, mut reader) = read.await?;
        let Err(Error::IncompleteRead(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.partial(), error.expected()), (DATA, Some(36)));
        assert_eq!(error.to_string(), "18 bytes read on a total of 36 expected bytes");
        assert!(reader.at_eof());
        assert_eq!(reader.read(None).await?, b"");
        let Err(Error::IncompleteRead(error)) = reader.readexactly(1).await else { panic!("it is over") };
        assert_eq!((error.partial(), error.expected()), (&b""[..], Some(1)));
        assert_eq!(reader.readexactly(0).await?, b"");
        Ok(())
    });
}

/// STR-021: what is there at the end is enough.
#[test]
fn just_enough_at_the_end_is_no_error() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(DATA)?;
        feeder.feed_eof()?;
        assert_eq!(reader.readexactly(DATA.len()).await?, DATA);
        assert!(reader.at_eof());
        Ok(())
    });
}

/// STR-023
#[test]
fn an_exception_reaches_who_waits_and_who_comes_later() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        assert!(reader.exception().is_none());
        let read = create_task(async move { Ok((reader.readline().await, reader)) });
        turn().await;
        feeder.set_exception(Error::Value("this one".into()))?;
        let (outcome, mut reader) = read.await?;
        let told = (ErrorKind::Value, "this one".to_owned());
        assert_eq!(failure(outcome), told);
        assert_eq!(failure(reader.exception().map_or(Ok(()), Err)), told);
        assert_eq!(failure(reader.readline().await), told);
        assert_eq!(failure(reader.next_line().await), told);
        assert_eq!(failure(reader.read(2).await), told);
        assert_eq!(failure(reader.read(0).await), told);
        assert_eq!(failure(reader.read(None).await), told);
        assert_eq!(failure(reader.readexactly(2).await), told);
        assert_eq!(failure(reader.readexactly(0).await), told);
        assert_eq!(failure(reader.readuntil("x").await), told);
        Ok(())
    });
}

/// STR-023: before what was fed, too.
#[test]
fn an_exception_comes_before_what_is_unread() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"line\n")?;
        assert_eq!(reader.read(2).await?, b"li");
        feeder.set_exception(Error::Value("stop".into()))?;
        assert_eq!(failure(reader.read(2).await).0, ErrorKind::Value);
        assert_eq!(failure(reader.readline().await).0, ErrorKind::Value);
        assert!(!reader.at_eof());
        Ok(())
    });
}

/// STR-023: the exception of a reader whose only read was cancelled meets nobody.
#[test]
fn an_exception_after_a_cancelled_read_is_kept() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move {
            assert!(reader.readline().await.is_err_and(|error| error.is_cancelled()));
            turns(3).await;
            Ok(reader)
        });
        turn().await;
        assert!(read.cancel());
        turn().await;
        feeder.set_exception(Error::Runtime("message".into()))?;
        let reader = read.await?;
        assert_eq!(reader.exception().map(|error| error.kind()), Some(ErrorKind::Runtime));
        Ok(())
    });
}

/// STR-025: a second read beside one that waits does not compile, see `StreamReader`; so one after the other is all.
#[test]
fn reads_come_one_after_the_other() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let first = crate::polls(reader.readline(), 2).await;
        assert!(first.is_none());
        feeder.feed_data(b"one\ntwo\n")?;
        assert_eq!(reader.readline().await?, b"one\n");
        assert_eq!(reader.readline().await?, b"two\n");
        Ok(())
    });
}

/// STR-028
#[test]
fn lines_are_iterated() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"a\nb\nc")?;
        feeder.feed_eof()?;
        assert_eq!(reader.next_line().await?.as_deref(), Some(&b"a\n"[..]));
        assert_eq!(reader.next_line().await?.as_deref(), Some(&b"b\n"[..]));
        assert_eq!(reader.next_line().await?.as_deref(), Some(&b"c"[..]));
        assert_eq!(reader.next_line().await?, None);
        assert_eq!(reader.next_line().await?, None);
        Ok(())
    });
}

/// STR-028: empty lines are lines.
#[test]
fn empty_lines_do_not_end_the_iteration() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"\n\n")?;
        feeder.feed_eof()?;
        assert_eq!(reader.next_line().await?.as_deref(), Some(&b"\n"[..]));
        assert_eq!(reader.next_line().await?.as_deref(), Some(&b"\n"[..]));
        assert_eq!(reader.next_line().await?, None);
        Ok(())
    });
}
