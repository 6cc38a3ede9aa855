//! Tasks: their steps, who awaits them, how they are cancelled, how they are made.
#[path = "../support/mod.rs"]
mod support;

mod any_task;
mod awaiting;
mod basics;
mod cancel;
mod cancel_chain;
mod cancel_scope;
mod cancel_threads;
mod eager;
mod factory;
mod outcome;
mod panics;
mod reports;
mod spawn;
mod threads;
mod wakers;
