//! Watches a descriptor: waits until a socket has received data, with `add_reader`, and stops the loop.
//!
//! Try it: `cargo run --example watch_file_descriptor`

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
};

use asyncio::{EventLoop, Result};

fn reader(event_loop: &EventLoop, rsock: &UnixStream) -> Result<()> {
    let mut data = [0; 100];
    let mut socket = rsock;
    let count = socket.read(&mut data)?;
    println!("Received: {}", String::from_utf8_lossy(&data[..count]));

    // We are done: unregister the descriptor and stop the event loop.
    event_loop.remove_reader(rsock)?;
    event_loop.stop();
    Ok(())
}

fn main() -> Result<()> {
    // A pair of connected descriptors.
    let (rsock, mut wsock) = UnixStream::pair()?;
    let rsock = Rc::new(rsock);

    let event_loop = asyncio::new_event_loop()?;

    // Register the descriptor for reading. What fails inside of a callback is reported if it panics.
    let (own_loop, own_socket) = (event_loop.clone(), rsock.clone());
    event_loop.add_reader(&rsock, move || reader(&own_loop, &own_socket).expect("the socket can be read"))?;

    // Simulate the reception of data from the network.
    event_loop.call_soon(move || wsock.write_all(b"abc").expect("there is room for three bytes"));

    event_loop.run_forever()?;
    event_loop.close()
}
