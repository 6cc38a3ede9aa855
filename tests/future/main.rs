//! `Future`: its states, its callbacks, who waits for it and where.
#[path = "../support/mod.rs"]
mod support;

mod awaiting;
mod callbacks;
mod other_loops;
mod reports;
mod state;
mod threads;
