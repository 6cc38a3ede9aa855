//! The handshake between a loop that falls asleep and threads that bring it work, in every order that loom finds: no
//! wake-up is lost (a lost one is a deadlock of the model, which loom reports), and a sleep is rung for once at most.
#![cfg(not(miri))]

#[path = "../src/event_loop/handshake.rs"]
mod handshake;

/// What `handshake` takes its atomics from. Loom takes an access that is SeqCst for one that is AcqRel, and then finds
/// orders that cannot happen. It knows fences, and that a swap finds the newest value: so such an access has a fence on
/// each side here, and such a store is a swap, as it is on x86.
mod sync {
    pub(crate) use loom::sync::atomic::Ordering;
    use loom::sync::atomic::{self, fence};

    #[derive(Debug)]
    pub(crate) struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            AtomicBool(atomic::AtomicBool::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> bool {
            fenced(order, |order| self.0.load(order))
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            match order {
                Ordering::SeqCst => _ = self.swap(value, order),
                _ => self.0.store(value, order),
            }
        }

        pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
            fenced(order, |order| self.0.swap(value, order))
        }
    }

    fn fenced<R>(order: Ordering, access: impl FnOnce(Ordering) -> R) -> R {
        if order != Ordering::SeqCst {
            return access(order);
        }
        fence(order);
        let result = access(order);
        fence(order);
        result
    }
}

use std::mem;

use handshake::Handshake;
use loom::{
    model::Builder,
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// What a selector's waker does: a ring while nobody waits ends the next wait at once.
#[derive(Default)]
struct Bell {
    rings: Mutex<Rings>,
    rung: Condvar,
}

#[derive(Default)]
struct Rings {
    pending: bool,
    count: usize,
}

impl Bell {
    fn ring(&self) {
        let mut rings = self.rings.lock().unwrap();
        rings.pending = true;
        rings.count += 1;
        drop(rings);
        self.rung.notify_one();
    }

    fn wait(&self) {
        let mut rings = self.rings.lock().unwrap();
        while !rings.pending {
            rings = self.rung.wait(rings).unwrap();
        }
        rings.pending = false;
    }

    fn count(&self) -> usize {
        self.rings.lock().unwrap().count
    }
}

/// The shared part of a loop, reduced to what the handshake is about.
struct Shared {
    inbox: Mutex<usize>,
    handshake: Handshake,
    bell: Bell,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Shared { inbox: Mutex::new(0), handshake: Handshake::new(), bell: Bell::default() })
    }

    /// A push from another thread: the work goes in first.
    fn push(&self) {
        *self.inbox.lock().unwrap() += 1;
        if self.handshake.fill() {
            self.bell.ring();
        }
    }

    fn take(&self) -> usize {
        if self.handshake.take() { mem::take(&mut *self.inbox.lock().unwrap()) } else { 0 }
    }
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Starts threads that push so many times each; gives them, and how much they push in all.
fn fillers(shared: &Arc<Shared>, pushes: &'static [usize]) -> (Vec<thread::JoinHandle<()>>, usize) {
    let start = |count: &usize| {
        let (shared, count) = (shared.clone(), *count);
        thread::spawn(move || (0..count).for_each(|_| shared.push()))
    };
    (pushes.iter().map(start).collect(), pushes.iter().sum())
}

/// The loop's own turns: take, fall asleep unless there is something, wait, wake up.
fn run_until_all_is_taken(shared: &Shared, expected: usize) {
    let (mut taken, mut announced) = (0, 0);
    while taken < expected {
        taken += shared.take();
        if taken == expected {
            break;
        }
        announced += 1;
        if shared.handshake.fall_asleep() {
            shared.bell.wait();
        }
        shared.handshake.wake_up();
    }
    assert_eq!(taken, expected);
    assert!(shared.bell.count() <= announced, "{} rings for {announced} sleeps", shared.bell.count());
}

#[test]
fn no_wake_up_of_two_threads_is_lost() {
    explore(|| {
        let shared = Shared::new();
        let (threads, expected) = fillers(&shared, &[1, 1]);
        run_until_all_is_taken(&shared, expected);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn no_wake_up_of_a_burst_is_lost() {
    explore(|| {
        let shared = Shared::new();
        let (threads, expected) = fillers(&shared, &[3]);
        run_until_all_is_taken(&shared, expected);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn no_wake_up_is_lost_between_two_calls_of_a_host() {
    explore(|| {
        let shared = Shared::new();
        let (threads, expected) = fillers(&shared, &[2]);
        let mut taken = 0;
        loop {
            // As `run_once` does: between the host's calls the loop counts as asleep.
            shared.handshake.wake_up();
            taken += shared.take();
            if !shared.handshake.fall_asleep() {
                shared.bell.ring();
            }
            if taken == expected {
                break;
            }
            shared.bell.wait();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
