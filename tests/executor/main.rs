//! Executors, and what other threads do with a loop.
#[path = "../support/mod.rs"]
mod support;

mod custom;
mod jobs;
mod remote;
mod shutdown;
mod threadsafe_future;
mod wrap;
