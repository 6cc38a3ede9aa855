//! A server in each worker: one port, several loops.

use std::{
    cell::Cell,
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use asyncio::{Error, Protocol, Result, Transport, Worker, run_workers};
use socket2::{Domain, Socket, Type};

use crate::{
    cancelled_with,
    main_thread::tests,
    signals::{SIG_DFL, SIGTERM, install, send},
};

tests![connections_of_one_port_spread_over_the_workers, sigterm_drains_the_servers];

/// A port for servers that share it; it is theirs as long as the socket, which does not listen, is open.
fn reserve_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Says first which worker it belongs to, and then sends back what comes.
struct Echo {
    worker: Worker,
    served: Rc<Cell<usize>>,
    transport: Option<Transport>,
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        self.served.set(self.served.get() + 1);
        transport.write(&[self.worker.index() as u8]);
        self.transport = Some(transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        self.transport.as_ref().unwrap().write(data);
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        assert!(error.is_none(), "{error:?}");
        self.transport = None;
    }
}

/// Serves until SIGTERM, and then until the last connection has ended. Gives how many there were.
async fn serve(worker: Worker, address: SocketAddr, begun: &Barrier, closed: &AtomicUsize) -> Result<usize> {
    let served = Rc::new(Cell::new(0));
    let counter = served.clone();
    let factory = move || Echo { worker: worker.clone(), served: counter.clone(), transport: None };
    let server = asyncio::get_running_loop()?.create_server(factory, address).reuse_port(true).await?;
    begun.wait();
    assert_eq!(cancelled_with().await, "SIGTERM");
    server.close();
    closed.fetch_add(1, Ordering::SeqCst);
    server.wait_closed().await?;
    Ok(served.get())
}

/// Connects, and gives the worker who answers.
fn connect(address: SocketAddr) -> io::Result<(TcpStream, u8)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut worker = [0];
    stream.read_exact(&mut worker)?;
    Ok((stream, worker[0]))
}

fn assert_echoes(stream: &mut TcpStream) {
    let (question, mut answer) = (*b"hello workers", [0; 13]);
    stream.write_all(&question).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, question);
}

fn connections_of_one_port_spread_over_the_workers() {
    install(SIGTERM, SIG_DFL);
    let (_reserved, address) = reserve_port();
    let (begun, closed) = (Barrier::new(4), AtomicUsize::new(0));
    let (counts, connections) = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            begun.wait();
            let (mut workers, mut connections) = (BTreeSet::new(), 0);
            // The system spreads them by a hash of the address: that so many miss one of three happens never.
            while workers.len() < 3 && connections < 500 {
                let (mut stream, worker) = connect(address).unwrap();
                assert_echoes(&mut stream);
                workers.insert(worker);
                connections += 1;
            }
            assert_eq!(workers, BTreeSet::from([0, 1, 2]));
            send(SIGTERM);
            connections
        });
        let counts = run_workers(3, |worker| serve(worker, address, &begun, &closed)).unwrap();
        (counts, clients.join().unwrap())
    });
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), connections, "each is served once");
}

fn sigterm_drains_the_servers() {
    install(SIGTERM, SIG_DFL);
    let (_reserved, address) = reserve_port();
    let (begun, closed) = (Barrier::new(3), AtomicUsize::new(0));
    let counts = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            begun.wait();
            let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(address).unwrap().0).collect();
            send(SIGTERM);
            while closed.load(Ordering::SeqCst) < 2 {
                thread::sleep(Duration::from_millis(1));
            }
            // Nobody listens any more, and who is there is served to the end.
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            for stream in &mut streams {
                assert_echoes(stream);
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            }
        });
        let counts = run_workers(2, |worker| serve(worker, address, &begun, &closed));
        clients.join().unwrap();
        counts
    });
    assert_eq!(counts.unwrap().iter().sum::<usize>(), 8);
}
