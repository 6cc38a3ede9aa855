//! Two tables: servers by transports and protocols beside a hand-written epoll loop, tokio and smol; over TLS, where the
//! crate has it, beside tokio-rustls. `cargo bench --features tls --bench transports [-- <filter>]`
//!
//! The first has CPU time of the server per operation. All take turns, and each figure is the median over the rounds: of
//! the times, and of the ratios within a round, so that a busy machine harms all alike.
//!
//! The second has system calls and heap allocations of the server's thread per operation. The calls are counted by
//! `strace` where that is installed, in processes of their own, which run slowly: a share of a call that many requests
//! have in common is smaller than at full speed.

#[path = "../tests/support/counting.rs"]
mod counting;
mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use counting::{Counting, allocations};
use support::{
    Group,
    transports::{RAW, groups},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 9;

/// What the process that `strace` watches is told first.
const ONCE: &str = "--once";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, group, peer, count] = &arguments[..] {
        if first == ONCE {
            return run_once(group, peer, count.parse().expect("it is a number"));
        }
    }
    let test = arguments.iter().any(|argument| argument == "--test");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let wanted = |group: &&Group| filter.is_none_or(|filter| group.name.contains(filter.as_str()));
    println!("| work | ns | of raw | of tokio | of smol | tokio of raw | reach |\n|---|--:|--:|--:|--:|--:|---|");
    for group in groups().filter(wanted) {
        print_times(group, &measure(group, test));
    }
    println!("\n| calls; allocations | asyncio | its other way | raw | tokio | smol |\n|---|---|---|---|---|---|");
    for group in groups().filter(wanted) {
        print_counts(group, test);
    }
}

/// The times of each peer, in ns per operation, round by round.
fn measure(group: &Group, test: bool) -> Vec<Vec<f64>> {
    let (count, rounds) = if test { (group.count.min(100), 1) } else { (group.count, ROUNDS) };
    let mut times = vec![Vec::new(); group.peers.len()];
    for round in 0..rounds {
        // Nobody is always first.
        for place in 0..group.peers.len() {
            let place = (place + round) % group.peers.len();
            let time = (group.peers[place].run)(count);
            times[place].push(time.as_secs_f64() * 1e9 / count as f64);
        }
    }
    times
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A row for each way that asyncio has.
fn print_times(group: &Group, times: &[Vec<f64>]) {
    let times_of = |name: &str| {
        let place = group.peers.iter().position(|peer| peer.name == name)?;
        Some(&times[place])
    };
    // Empty where somebody has no part in it.
    let ratio = |ours: Option<&Vec<f64>>, peer| {
        let ratios =
            ours.zip(times_of(peer)).map(|(ours, theirs)| ours.iter().zip(theirs).map(|(one, other)| one / other));
        ratios.map_or(String::new(), |ratios| format!("{:.2}", median(ratios)))
    };
    let reach = group.reach.map_or(String::new(), |(share, peer)| format!("{share} of {peer}"));
    for (peer, ours) in group.peers.iter().zip(times).filter(|(peer, _)| peer.name.starts_with("asyncio")) {
        let title = peer.name.replace("asyncio", group.name);
        let [raw, tokio, smol] = [RAW, "tokio", "smol"].map(|peer| ratio(Some(ours), peer));
        let (time, theirs) = (median(ours.iter().copied()), ratio(times_of("tokio"), RAW));
        println!("| {title} | {time:.0} | {raw} | {tokio} | {smol} | {theirs} | {reach} |");
    }
}

fn print_counts(group: &Group, test: bool) {
    let few = if test { 20 } else { 3000 };
    let count_calls = |peer, count| if test { None } else { system_calls(group.name, peer, count) };
    print!("| {} |", group.name);
    let other_way = group.peers.iter().find(|peer| peer.name.starts_with("asyncio_")).map_or("", |peer| peer.name);
    for name in ["asyncio", other_way, RAW, "tokio", "smol"] {
        let Some(peer) = group.peer(name) else {
            print!(" |");
            continue;
        };
        // Two runs, so that what is done once drops out.
        let [less, more] = [few, 2 * few].map(|count| {
            let before = allocations();
            (peer.run)(count);
            (allocations() - before) as f64
        });
        let calls = match [few, 2 * few].map(|count| count_calls(name, count)) {
            [Some(less), Some(more)] => describe(&less, &more, few),
            _ => "?".into(),
        };
        print!(" {calls}; {:.2} |", (more - less) / few as f64);
    }
    println!();
}

type Calls = BTreeMap<String, u64>;

/// All of them, and those that count.
fn describe(less: &Calls, more: &Calls, operations: u64) -> String {
    let per_operation = |name: &String, count: u64| {
        let before = less.get(name).copied().unwrap_or_default();
        (count as f64 - before as f64) / operations as f64
    };
    let calls = more.iter().map(|(name, count)| (name, per_operation(name, *count)));
    let mut calls: Vec<_> = calls.filter(|(_, calls)| *calls >= 0.005).collect();
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    let all: f64 = calls.iter().map(|(_, calls)| calls).sum();
    let named: Vec<_> = calls.into_iter().map(|(name, calls)| format!("{name} {calls:.2}")).collect();
    format!("{all:.2} ({})", named.join(", "))
}

/// The system calls of the server's thread; `None` where they cannot be counted.
fn system_calls(group: &str, peer: &str, count: u64) -> Option<Calls> {
    let directory = tempfile::tempdir().ok()?;
    let trace = directory.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-ff", "-qq", "-s", "0", "-o"]).arg(&trace).arg(std::env::current_exe().ok()?);
    command.args([ONCE, group, peer, &count.to_string()]);
    let output = command.stderr(Stdio::null()).output().ok()?;
    let thread = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    read_trace(&trace.with_extension(thread.trim()))
}

fn read_trace(path: &Path) -> Option<Calls> {
    let mut calls = Calls::new();
    for line in std::fs::read_to_string(path).ok()?.lines() {
        if let Some((name, _)) = line.split_once('(') {
            *calls.entry(name.into()).or_default() += 1;
        }
    }
    Some(calls)
}

/// The work alone, and whose thread is to be looked at.
fn run_once(group: &str, peer: &str, count: u64) {
    let group = groups().find(|found| found.name == group).expect("it is one of the groups");
    (group.peer(peer).expect("it is one of its peers").run)(count);
    println!("{}", std::process::id());
}
