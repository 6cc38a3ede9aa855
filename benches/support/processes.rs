//! Subprocesses: started and waited for, one after the other and many at once. Wall time, for it is the system's work.

use std::{process::Stdio, time::Duration};

use futures::future::join_all;

use super::{Group, Peer, Stopwatch, batches, on_asyncio, on_tokio};

pub(crate) const GROUPS: &[Group] = &[SPAWN_AND_WAIT, SPAWN_AND_WAIT_CPU, SPAWN_MANY, OUTPUT];

/// A program that does nothing.
const PROGRAM: &str = "/bin/true";

/// How many run at once, where many do.
const MANY: u64 = 20;

pub(crate) const SPAWN_AND_WAIT: Group = Group {
    name: "spawn_and_wait",
    about: "/bin/true is started and waited for, by the clock on the wall",
    count: 500,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| one::asyncio(count, Stopwatch::wall()) },
        Peer { name: "tokio", run: |count| one::tokio(count, Stopwatch::wall()) },
    ],
};

pub(crate) const SPAWN_AND_WAIT_CPU: Group = Group {
    name: "spawn_and_wait_cpu",
    about: "the same, CPU time of this process",
    count: 500,
    reach: Some((1.0, "tokio")),
    peers: &[
        Peer { name: "asyncio", run: |count| one::asyncio(count, Stopwatch::process()) },
        Peer { name: "tokio", run: |count| one::tokio(count, Stopwatch::process()) },
    ],
};

pub(crate) const SPAWN_MANY: Group = Group {
    name: "spawn_many",
    about: "twenty /bin/true at once",
    count: 500,
    reach: Some((1.0, "tokio")),
    peers: &[Peer { name: "asyncio", run: many::asyncio }, Peer { name: "tokio", run: many::tokio }],
};

pub(crate) const OUTPUT: Group = Group {
    name: "process_output",
    about: "/bin/echo is started and what it writes is read to the end",
    count: 500,
    reach: Some((1.0, "tokio")),
    peers: &[Peer { name: "asyncio", run: output::asyncio }, Peer { name: "tokio", run: output::tokio }],
};

mod one {
    use super::*;

    pub(super) fn asyncio(count: u64, begin: Stopwatch) -> Duration {
        on_asyncio(async move {
            for _ in 0..count {
                let process = asyncio::create_subprocess_exec(PROGRAM).await?;
                assert_eq!(process.wait().await?, 0);
            }
            Ok(())
        });
        begin.elapsed()
    }

    pub(super) fn tokio(count: u64, begin: Stopwatch) -> Duration {
        on_tokio(async move {
            for _ in 0..count {
                let mut process = tokio::process::Command::new(PROGRAM).spawn().expect("it can be started");
                assert!(process.wait().await.expect("it ends").success());
            }
        });
        begin.elapsed()
    }
}

mod many {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        let begin = Stopwatch::wall();
        on_asyncio(async move {
            for batch in batches(count, MANY) {
                let processes = (0..batch).map(|_| async {
                    let process = asyncio::create_subprocess_exec(PROGRAM).await?;
                    process.wait().await
                });
                assert!(join_all(processes).await.into_iter().all(|code| code.is_ok_and(|code| code == 0)));
            }
            Ok(())
        });
        begin.elapsed()
    }

    pub(super) fn tokio(count: u64) -> Duration {
        let begin = Stopwatch::wall();
        on_tokio(async move {
            for batch in batches(count, MANY) {
                let processes = (0..batch).map(|_| async {
                    let mut process = tokio::process::Command::new(PROGRAM).spawn()?;
                    process.wait().await
                });
                assert!(
                    join_all(processes).await.into_iter().all(|status| status.is_ok_and(|status| status.success()))
                );
            }
        });
        begin.elapsed()
    }
}

mod output {
    use super::*;

    pub(super) fn asyncio(count: u64) -> Duration {
        let begin = Stopwatch::wall();
        on_asyncio(async move {
            for _ in 0..count {
                let builder = asyncio::create_subprocess_exec(["/bin/echo", "some words"]);
                let mut process = builder.stdout(asyncio::subprocess::PIPE).await?;
                assert_eq!(process.communicate(None).await?.0.expect("it is piped").len(), 11);
            }
            Ok(())
        });
        begin.elapsed()
    }

    pub(super) fn tokio(count: u64) -> Duration {
        let begin = Stopwatch::wall();
        on_tokio(async move {
            for _ in 0..count {
                let mut command = tokio::process::Command::new("/bin/echo");
                let process = command.arg("some words").stdout(Stdio::piped()).spawn().expect("it can be started");
                assert_eq!(process.wait_with_output().await.expect("it ends").stdout.len(), 11);
            }
        });
        begin.elapsed()
    }
}
