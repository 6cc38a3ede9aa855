//! A proxy: passes on bytes and ends in both directions, and lets a slow reader slow the other side down.
//!
//! Try it: `cargo run --example tcp_proxy`, which asks itself; or `-- 8888 example.org 80`, until Ctrl-C.

use std::{
    cell::Cell,
    env,
    io::{self, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    rc::Rc,
};

use asyncio::{Endpoint, Error, Protocol, Result, ToAddress, Transport, create_task, get_running_loop, to_thread};

/// One of the two sides of a connection.
#[derive(Default)]
struct Side {
    other: Option<Transport>,
    ended: Rc<Cell<u8>>,      // how many of the two directions have
    target: Option<Endpoint>, // what a side that was accepted is to be connected to
}

#[rustfmt::skip] // a line a call
impl Protocol for Side {
    fn connection_made(&mut self, transport: &Transport) {
        if let Some(target) = self.target.take() {
            transport.pause_reading(); // until there is somebody to write to
            create_task(connect(transport.clone(), target, self.ended.clone()));
        }
    }

    fn data_received(&mut self, data: &[u8]) { self.other.iter().for_each(|other| other.write(data)); }

    fn eof_received(&mut self) -> bool {
        self.ended.set(self.ended.get() + 1);
        let passed_on = self.other.as_ref().is_some_and(|other| other.write_eof().is_ok());
        passed_on && self.ended.get() < 2 // the other direction goes on
    }

    fn connection_lost(&mut self, _error: Option<&Error>) { self.other.take().iter().for_each(Transport::close); }
    fn pause_writing(&mut self) { self.other.iter().for_each(Transport::pause_reading); }
    fn resume_writing(&mut self) { self.other.iter().for_each(Transport::resume_reading); }
}

async fn connect(front: Transport, target: Endpoint, ended: Rc<Cell<u8>>) -> Result<()> {
    let side = Side { other: Some(front.clone()), ended, target: None };
    let connected = get_running_loop()?.create_connection(|| side, target).await;
    match (connected, front.get_protocol::<Side>()) {
        (Ok((back, _)), Some(side)) => side.borrow_mut().other = Some(back),
        (Ok((back, _)), None) => back.close(), // who asked has gone
        (Err(error), _) => {
            println!("{error}");
            front.close();
        }
    }
    front.resume_reading();
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let target = TcpListener::bind("127.0.0.1:0")?;
    let (port, endpoint) = match &*arguments {
        [port, host, service] => (port.parse().map_err(Error::other)?, (&**host, &**service).to_address()),
        _ => (0, target.local_addr()?.to_address()),
    };
    asyncio::run(async {
        let factory = move || Side { target: Some(endpoint.clone()), ..Side::default() };
        let server = get_running_loop()?.create_server(factory, ("127.0.0.1", port)).await?;
        println!("{server:?}");
        if port != 0 {
            return server.serve_forever().await;
        }
        let address = server.sockets()[0].address().as_inet().expect("it is IPv4");
        let both_ends = to_thread(move || {
            let mut client = TcpStream::connect(address)?;
            client.write_all(b"hello through the proxy")?;
            client.shutdown(Shutdown::Write)?;
            let (mut served, _) = target.accept()?;
            let question = io::read_to_string(&served)?;
            served.write_all(question.to_uppercase().as_bytes())?;
            drop(served);
            Ok(io::read_to_string(client)?)
        });
        println!("{}", both_ends.await?);
        Ok(())
    })
}
