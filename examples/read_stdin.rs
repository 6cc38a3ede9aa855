//! Reads lines from standard input, numbers them, and ends where the input ends.
//!
//! A terminal, a pipe or `/dev/null` will do; a file is none of the three: `cat file |`.
//!
//! Try it: `ls | cargo run --example read_stdin`

use std::os::fd::AsFd;

fn main() -> asyncio::Result<()> {
    asyncio::run(async {
        // The stream closes what it is given, so it gets a duplicate.
        let mut lines = asyncio::open_read_pipe(std::io::stdin().as_fd().try_clone_to_owned()?)?;
        let mut count = 0;
        while let Some(line) = lines.next_line().await? {
            count += 1;
            println!("{count:>4}  {}", String::from_utf8_lossy(&line).trim_end());
        }
        println!("{count} lines");
        Ok(())
    })
}
