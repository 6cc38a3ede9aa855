//! What these tests show: what a job gives whose process does not bring a result, and that the pool goes on.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use asyncio::{ErrorKind, EventLoop, ProcessPool, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{main_thread::tests, process_number, with_pool};

tests! {
    a_panic_is_an_error_with_its_text,
    a_function_that_exits_is_terminated_abruptly,
    a_process_that_is_killed_fails_its_job_alone,
    a_process_that_is_killed_while_it_is_idle_is_replaced,
    arguments_that_cannot_be_sent_are_an_error,
    results_that_cannot_be_sent_are_an_error,
    results_that_cannot_be_read_are_an_error,
    the_dead_are_reaped,
}

/// What a job is for its loop: the outcome of a job that fails, and then that another job works.
async fn failing<A, R, F>(event_loop: &EventLoop, pool: &ProcessPool, function: F, args: A) -> (ErrorKind, String)
where
    A: Serialize + serde::de::DeserializeOwned + Send + 'static,
    R: Serialize + serde::de::DeserializeOwned + Send + std::fmt::Debug + 'static,
    F: Fn(A) -> R + Copy + Send + 'static,
{
    let error = event_loop.run_in_executor(Some(pool), pool.job(function, args)).await.unwrap().unwrap_err();
    let number = event_loop.run_in_executor(Some(pool), pool.job(process_number, ())).await.unwrap().unwrap();
    assert_ne!(number, std::process::id());
    (error.kind(), error.to_string())
}

fn kill(number: u32) {
    assert!(Command::new("kill").args(["-s", "KILL", &number.to_string()]).status().unwrap().success());
}

fn a_panic_is_an_error_with_its_text() {
    fn panics(text: String) {
        panic!("expected: {text}");
    }
    with_pool(1, |event_loop, pool| async move {
        let number = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
        let (kind, text) = failing(&event_loop, &pool, panics, "of a job".into()).await;
        assert_eq!((kind, &*text), (ErrorKind::Panicked, "expected: of a job"));
        let same = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
        assert_eq!(same, number, "a panic harms no process");
        Ok(())
    });
}

fn a_function_that_exits_is_terminated_abruptly() {
    fn exit(code: i32) {
        std::process::exit(code);
    }
    with_pool(1, |event_loop, pool| async move {
        for code in [0, 3] {
            let (kind, text) = failing(&event_loop, &pool, exit, code).await;
            assert_eq!(kind, ErrorKind::Runtime);
            assert!(text.starts_with("A process in the process pool was terminated abruptly"), "{text}");
        }
        Ok(())
    });
}

fn a_process_that_is_killed_fails_its_job_alone() {
    /// Tells its number and waits to be killed, or for the second file.
    fn wait((tell, go): (String, String)) -> u32 {
        let own = std::process::id();
        std::fs::write(format!("{tell}.new"), own.to_string()).unwrap();
        std::fs::rename(format!("{tell}.new"), tell).unwrap();
        while !Path::new(&go).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        own
    }
    async fn number_in(path: &str) -> Result<u32> {
        loop {
            if let Ok(text) = std::fs::read_to_string(path) {
                return text.parse().map_err(asyncio::Error::other);
            }
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    with_pool(2, |event_loop, pool| {
        let (one, other, never, go) = (path("one"), path("other"), path("never"), path("go"));
        async move {
            let dies = event_loop.run_in_executor(Some(&pool), pool.job(wait, (one.clone(), never)));
            let lives = event_loop.run_in_executor(Some(&pool), pool.job(wait, (other.clone(), go.clone())));
            let survivor = number_in(&other).await?;
            kill(number_in(&one).await?);
            let error = dies.await?.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Runtime);
            assert!(error.to_string().starts_with("A process in the process pool was terminated"), "{error}");
            std::fs::write(go, "")?;
            assert_eq!(lives.await??, survivor);
            Ok(())
        }
    });
}

fn a_process_that_is_killed_while_it_is_idle_is_replaced() {
    with_pool(1, |event_loop, pool| async move {
        let number = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
        kill(number);
        // The one job that finds it dead may fail, and says why; the next one has a new process.
        match event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await? {
            Ok(other) => assert_ne!(other, number),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Runtime, "{error}"),
        }
        let other = event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??;
        assert_ne!(other, number);
        Ok(())
    });
}

/// Refuses one side or the other.
struct Odd;

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("expected: it cannot be sent"))
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Ok(Odd)
    }
}

/// Can be sent, and not read.
#[derive(Debug)]
struct Unreadable;

impl Serialize for Unreadable {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom("expected: it cannot be read"))
    }
}

fn arguments_that_cannot_be_sent_are_an_error() {
    with_pool(1, |event_loop, pool| async move {
        let (kind, text) = failing(&event_loop, &pool, |_: Odd| (), Odd).await;
        assert_eq!(kind, ErrorKind::Runtime);
        assert!(text.starts_with("the arguments could not be sent to a process of the pool: "), "{text}");
        let (kind, text) = failing(&event_loop, &pool, |_: Unreadable| (), Unreadable).await;
        assert_eq!(kind, ErrorKind::Runtime, "{text}");
        Ok(())
    });
}

fn results_that_cannot_be_sent_are_an_error() {
    with_pool(1, |event_loop, pool| async move {
        let job = pool.job(|_: ()| Odd, ());
        let error = event_loop.run_in_executor(Some(&pool), job).await?.err().expect("it cannot be sent");
        assert_eq!(error.kind(), ErrorKind::Runtime);
        assert!(error.to_string().contains("its result cannot be sent"), "{error}");
        Ok(())
    });
}

fn results_that_cannot_be_read_are_an_error() {
    with_pool(1, |event_loop, pool| async move {
        let (kind, text) = failing(&event_loop, &pool, |_: ()| Unreadable, ()).await;
        assert_eq!(kind, ErrorKind::Runtime);
        assert!(text.contains("its result cannot be sent"), "{text}");
        Ok(())
    });
}

fn the_dead_are_reaped() {
    fn exit(_: ()) {
        std::process::exit(1);
    }
    with_pool(1, |event_loop, pool| async move {
        let mut numbers = Vec::new();
        for _ in 0..5 {
            numbers.push(event_loop.run_in_executor(Some(&pool), pool.job(process_number, ())).await??);
            failing(&event_loop, &pool, exit, ()).await;
        }
        let begin = Instant::now();
        while numbers.iter().any(|number| Path::new(&format!("/proc/{number}")).exists()) {
            assert!(begin.elapsed() < Duration::from_secs(20), "some of {numbers:?} are still there");
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
        Ok(())
    });
}
