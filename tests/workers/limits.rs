//! Threads and loops that cannot be made.

use asyncio::{ErrorKind, run_workers};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{LONG, main_thread::tests, signals::set_environment, support::failure};

#[cfg(target_os = "linux")]
tests![
    without_a_loop_to_supervise_nobody_begins,
    a_loop_that_cannot_be_made_stops_the_others,
    a_thread_that_cannot_be_started_stops_the_others,
];

#[cfg(not(target_os = "linux"))]
tests![without_a_loop_to_supervise_nobody_begins, a_loop_that_cannot_be_made_stops_the_others];

/// Leaves room for so many more descriptors.
fn leave_descriptors(count: u64) {
    let next = rustix::io::dup(std::io::stdin()).expect("there is room for one");
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(std::os::fd::AsRawFd::as_raw_fd(&next) as u64 + count);
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn without_a_loop_to_supervise_nobody_begins() {
    leave_descriptors(1);
    let result = run_workers::<(), _, _>(2, async |_| panic!("nobody is there"));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EMFILE));
}

fn a_loop_that_cannot_be_made_stops_the_others() {
    leave_descriptors(7);
    let result = run_workers::<(), _, _>(20, async |_| {
        let result = asyncio::sleep(LONG).await;
        assert!(result.as_ref().unwrap_err().to_string().contains("failed: "), "{result:?}");
        result
    });
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EMFILE));
}

#[cfg(target_os = "linux")]
fn a_thread_that_cannot_be_started_stops_the_others() {
    const STACK: u64 = 64 << 20;
    set_environment("RUST_MIN_STACK", Some(&STACK.to_string()));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let mut limit = getrlimit(Resource::As);
    limit.current = Some(size * 1024 + 4 * STACK + STACK / 2);
    setrlimit(Resource::As, limit).unwrap();
    let (kind, text) = failure(run_workers::<(), _, _>(20, async |_| asyncio::sleep(LONG).await));
    assert!(kind == ErrorKind::Io && text.starts_with("the thread could not be started: "), "{text}");
}
