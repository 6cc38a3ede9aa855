//! Runs a program, reads its lines as they come, numbers them, and gives it a time limit. Try
//! `cargo run --example subprocess_lines -- ping -c 3 127.0.0.1`, or without arguments.

use std::time::Duration;

use asyncio::{
    StreamReader,
    subprocess::{DEVNULL, PIPE},
};

/// Prints every line with its number and its origin.
async fn number_lines(name: &'static str, mut stream: StreamReader) -> asyncio::Result<usize> {
    let mut count = 0;
    while let Some(line) = stream.next_line().await? {
        count += 1;
        println!("{name} {count}: {}", String::from_utf8_lossy(&line).trim_end());
    }
    Ok(count)
}

fn main() -> asyncio::Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        let command = "for n in 1 2 3; do echo line $n; sleep 0.2; done; echo a complaint >&2; exit 3";
        words = ["sh", "-c", command].map(str::to_owned).to_vec();
    }
    asyncio::run(async {
        // Whatever ends this program's interest, such as the time limit or Ctrl-C, ends the child and what it has started.
        let mut process = asyncio::create_subprocess_exec(words)
            .stdin(DEVNULL)
            .stdout(PIPE)
            .stderr(PIPE)
            .kill_on_drop(Duration::from_secs(2))
            .await?;
        println!("process {} runs", process.pid());
        let stdout = process.stdout.take().expect("it is piped");
        let stderr = process.stderr.take().expect("it is piped");
        let work = async {
            let (lines, complaints) =
                asyncio::gather((number_lines("out", stdout), number_lines("err", stderr))).await?;
            let returncode = process.wait().await?;
            println!("return code {returncode} after {lines} lines and {complaints} complaints");
            Ok(())
        };
        asyncio::timeout(Duration::from_secs(60), work).await
    })
}
