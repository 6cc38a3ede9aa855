//! Hello World with `call_soon`: a callback displays "Hello World" and stops the loop.
//!
//! Try it: `cargo run --example call_soon_hello_world`
//!
//! asyncio's page has the same program; a closure takes the place of the callback and its arguments.

use asyncio::EventLoop;

/// A callback to print "Hello World" and stop the event loop.
fn hello_world(event_loop: &EventLoop) {
    println!("Hello World");
    event_loop.stop();
}

fn main() -> asyncio::Result<()> {
    let event_loop = asyncio::new_event_loop()?;

    // Schedule a call to hello_world().
    let argument = event_loop.clone();
    event_loop.call_soon(move || hello_world(&argument));

    // Blocks until stop() is called.
    event_loop.run_forever()?;
    event_loop.close()
}
