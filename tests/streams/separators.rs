//! What these tests show: reads up to a separator, or to one of several.

use asyncio::{Error, ErrorKind, Separator, create_task};

use crate::{
    LIMIT, fed, rest,
    support::{failure, run},
    turn,
};

/// STR-012
#[test]
fn a_separator_may_come_in_pieces() {
    run(async {
        for chunks in [&["QWEaa", "XYaa", "a"][..], &["QWEaa", "XYa", "aa"], &["QWEaaXYaaa"]] {
            let (feeder, mut reader) = fed(LIMIT);
            for chunk in chunks {
                feeder.feed_data(chunk.as_bytes())?;
            }
            assert_eq!(reader.readuntil("aaa").await?, b"QWEaaXYaaa");
            assert_eq!(rest(&feeder, reader).await, b"");
        }
        Ok(())
    });
}

/// STR-012: each piece in a turn of its own, and what comes behind stays.
#[test]
fn a_separator_may_come_slowly() {
    run(async {
        for data in ["QWEaaXYaaa", "aaa", "Xaaa", "XXXaaa", "aaXaaXaaa"] {
            let (feeder, mut reader) = fed(LIMIT);
            let read = create_task(async move { Ok((reader.readuntil(b"aaa").await?, reader)) });
            for byte in data.as_bytes() {
                turn().await;
                assert!(!read.done());
                feeder.feed_data(&[*byte])?;
            }
            feeder.feed_data(b"xxx")?;
            let (line, reader) = read.await?;
            assert_eq!(line, data.as_bytes());
            assert_eq!(rest(&feeder, reader).await, b"xxx");
        }
        Ok(())
    });
}

#[test]
fn what_comes_behind_the_separator_stays() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"lineAAA")?;
        assert_eq!(reader.readuntil(b"AAA").await?, b"lineAAA");
        feeder.feed_data(b"lineAAAxxx")?;
        assert_eq!(reader.readuntil(b"AAA").await?, b"lineAAA");
        assert_eq!(rest(&feeder, reader).await, b"xxx");
        Ok(())
    });
}

/// STR-013
#[test]
fn the_end_without_a_separator_is_an_error_with_what_came() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"some dataAA")?;
        feeder.feed_eof()?;
        let outcome = reader.readuntil("AAA").await;
        let Err(Error::IncompleteRead(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.partial(), error.expected()), (&b"some dataAA"[..], None));
        assert!(error.to_string().contains("undefined expected bytes"), "{error}");
        assert!(reader.at_eof());
        assert_eq!(reader.read(None).await?, b"");
        Ok(())
    });
}

/// STR-013: where the read waits, and where nothing came at all.
#[test]
fn the_end_reaches_who_waits_for_a_separator() {
    run(async {
        for data in ["", "some dataAA"] {
            let (feeder, mut reader) = fed(LIMIT);
            feeder.feed_data(data.as_bytes())?;
            let read = create_task(async move { reader.readuntil("AAA").await });
            turn().await;
            feeder.feed_eof()?;
            let outcome = read.await;
            let Err(Error::IncompleteRead(error)) = outcome else { panic!("{outcome:?}") };
            assert_eq!((error.partial(), error.expected()), (data.as_bytes(), None));
        }
        Ok(())
    });
}

/// STR-013: a separator that is there at the end is found.
#[test]
fn a_separator_at_the_very_end_is_found() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"some dataAAA")?;
        feeder.feed_eof()?;
        assert_eq!(reader.readuntil("AAA").await?, b"some dataAAA");
        assert!(reader.at_eof());
        Ok(())
    });
}

/// STR-016
#[test]
fn each_of_several_separators_counts() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"line 1\nline 2\r")?;
        assert_eq!(reader.readuntil([b"\r", b"\n"]).await?, b"line 1\n");
        assert_eq!(reader.readuntil([b"\r", b"\n"]).await?, b"line 2\r");
        assert_eq!(rest(&feeder, reader).await, b"");
        Ok(())
    });
}

/// STR-016: the one that ends first, even where it is the longer one and begins first.
#[test]
fn of_several_separators_the_one_that_ends_first_counts() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"ABCDEFG")?;
        assert_eq!(reader.readuntil(["DEF", "BCDE"]).await?, b"ABCDE");
        feeder.feed_data(b"ABCDEFG")?;
        assert_eq!(reader.readuntil(["BCDE", "DEF", "F"]).await?, b"F");
        assert_eq!(rest(&feeder, reader).await, b"GABCDEFG");
        Ok(())
    });
}

#[test]
fn separators_may_differ_in_length() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"data")?;
        let read = create_task(async move { Ok((reader.readuntil(["A", "long sep"]).await?, reader)) });
        turn().await;
        feeder.feed_data(b"Z")?;
        feeder.feed_data(b"Aaaa")?;
        let (line, reader) = read.await?;
        assert_eq!(line, b"dataZA");
        assert_eq!(rest(&feeder, reader).await, b"aaa");
        Ok(())
    });
}

#[test]
fn the_longest_separator_may_come_in_pieces() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        let read = create_task(async move { reader.readuntil(["~", "long sep"]).await });
        for byte in b"data long se long sep" {
            turn().await;
            feeder.feed_data(&[*byte])?;
        }
        assert_eq!(read.await?, b"data long se long sep");
        Ok(())
    });
}

/// STR-020
#[test]
fn separators_must_not_be_empty() {
    run(async {
        let (_feeder, mut reader) = fed(LIMIT);
        let empty: [&str; 0] = [];
        let at_least_a_byte = (ErrorKind::Value, "Separator should be at least one-byte string".to_owned());
        assert_eq!(failure(reader.readuntil("").await), at_least_a_byte);
        assert_eq!(failure(reader.readuntil(b"").await), at_least_a_byte);
        assert_eq!(failure(reader.readuntil([""]).await), at_least_a_byte);
        assert_eq!(failure(reader.readuntil(["\n", ""]).await), at_least_a_byte);
        let at_least_one = (ErrorKind::Value, "Separator should contain at least one element".to_owned());
        assert_eq!(failure(reader.readuntil(empty).await), at_least_one);
        assert_eq!(failure(reader.readuntil(Vec::<Vec<u8>>::new()).await), at_least_one);
        Ok(())
    });
}

/// STR-020: that is found before an error of the reader, as asyncio does.
#[test]
fn separators_are_looked_at_first() {
    run(async {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.set_exception(Error::Runtime("broken".into()))?;
        assert_eq!(failure(reader.readuntil("").await).0, ErrorKind::Value);
        assert_eq!(failure(reader.readuntil("x").await).0, ErrorKind::Runtime);
        Ok(())
    });
}

#[test]
fn separators_are_of_many_types() {
    async fn splits(separator: impl Separator) {
        let (feeder, mut reader) = fed(LIMIT);
        feeder.feed_data(b"left;right").unwrap();
        assert_eq!(reader.readuntil(separator).await.unwrap(), b"left;");
    }
    run(async {
        splits(b';').await;
        splits(b";").await;
        splits(&b";"[..]).await;
        splits(b";".to_vec()).await;
        splits(&b";".to_vec()).await;
        splits(";").await;
        splits(";".to_owned()).await;
        splits(&";".to_owned()).await;
        splits([b";"]).await;
        splits([b";", b"\n"]).await;
        splits([&b";"[..], b"end"]).await;
        splits(&[&b";"[..], b"end"][..]).await;
        splits(vec![&b";"[..], b"end"]).await;
        splits([";", "end"]).await;
        splits(vec![";", "end"]).await;
        splits([b";".to_vec(), b"end".to_vec()]).await;
        splits(vec![b";".to_vec()]).await;
        splits([";".to_owned()]).await;
        splits(vec![";".to_owned()]).await;
        Ok(())
    });
}
