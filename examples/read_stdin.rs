//! Reads lines from standard input through a protocol, numbers them, and ends where the input ends.
//!
//! A terminal, a pipe or `/dev/null` will do; a file is none of the three: `cat file |`.
//!
//! Try it: `ls | cargo run --example read_stdin`

use std::os::fd::AsFd;

use asyncio::{Error, Future, Protocol, Result};

/// Cuts what comes into lines.
struct Lines {
    /// What came after the last end of a line.
    rest: Vec<u8>,
    count: usize,
    /// Completed with the number of lines.
    ended: Future<usize>,
}

impl Lines {
    fn line(&mut self, line: &[u8]) {
        self.count += 1;
        println!("{:>4}  {}", self.count, String::from_utf8_lossy(line).trim_end());
    }
}

impl Protocol for Lines {
    fn data_received(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.rest);
                self.line(&line);
            }
        }
    }

    fn eof_received(&mut self) -> bool {
        if !self.rest.is_empty() {
            let line = std::mem::take(&mut self.rest);
            self.line(&line);
        }
        false
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        let outcome = match error {
            None => self.ended.set_result(self.count),
            Some(error) => self.ended.set_exception(error.clone()),
        };
        outcome.expect("it is completed here and nowhere else");
    }
}

fn main() -> Result<()> {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let ended = event_loop.create_future();
        let lines = Lines { rest: Vec::new(), count: 0, ended: ended.clone() };
        // The transport closes what it is given, so it gets a duplicate.
        let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
        event_loop.connect_read_pipe(|| lines, stdin).await?;
        println!("{} lines", ended.await?);
        Ok(())
    })
}
