//! One table: asyncio beside tokio and smol, and what CONTRIBUTING.md asks for.
//! `cargo bench --bench compare [-- <filter>]`
//!
//! CPU time in ns per operation, the best of several runs that take turns, so that a busy machine harms all alike. Heap
//! allocations per operation, as `cargo bench --bench memory` counts them: spawn_join 1, yield 0, callback 1, oneshot 2
//! (two futures), timer_cancel 0 (1 by `call_later`), a wake 0, an echo 0.

mod support;

use std::time::Duration;

use support::{Group, Peer, sockets, tasks, threads, timers, together};

const ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let test = arguments.iter().any(|argument| argument == "--test");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let rounds = if test { 1 } else { ROUNDS };
    let lists =
        [tasks::GROUPS, together::GROUPS, timers::GROUPS, &[timers::TIMER_LATENESS], threads::GROUPS, sockets::GROUPS];
    let wanted = |group: &&Group| filter.is_none_or(|filter| group.name.contains(filter.as_str()));
    println!("| work | ns | of tokio | of smol | of raw | reach |\n|---|--:|--:|--:|--:|--:|");
    for group in lists.into_iter().flatten().filter(wanted) {
        let count = if test { group.count.min(100) } else { group.count };
        print_rows(group, &measure(group, count, rounds));
    }
}

/// The best times, in ns per operation.
fn measure(group: &Group, count: u64, rounds: usize) -> Vec<f64> {
    let per_operation = |time: Duration| time.as_secs_f64() * 1e9 / count as f64;
    let mut best = vec![f64::INFINITY; group.peers.len()];
    for _ in 0..rounds {
        for (peer, best) in group.peers.iter().zip(&mut best) {
            *best = best.min(per_operation((peer.run)(count)));
        }
    }
    best
}

/// A row for each way that asyncio has.
fn print_rows(group: &Group, times: &[f64]) {
    let time_of = |name: &str| group.peers.iter().zip(times).find(|(peer, _)| peer.name == name).map(|found| *found.1);
    let ours = group.peers.iter().zip(times).filter(|(peer, _)| peer.name.starts_with("asyncio"));
    for (Peer { name, .. }, time) in ours {
        let ratio =
            |peer: &str| time_of(peer).map_or(String::new(), |other| format!("{:.2} ({other:.0})", time / other));
        let reach = group.reach.map_or(String::new(), |(share, peer)| format!("{share} of {peer}"));
        let title = name.replace("asyncio", group.name);
        println!("| {title} | {time:.0} | {} | {} | {} | {reach} |", ratio("tokio"), ratio("smol"), ratio("raw epoll"));
    }
}
