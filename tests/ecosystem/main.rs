//! Programs that mix this crate with others: foreign channels, combinators, executors and threads.
#[path = "../support/mod.rs"]
mod support;

mod channels;
mod combinators;
mod executors;
mod programs;
mod threads;
