//! Protocols that record what they are told, and connected pairs: our side for a transport, the other a plain socket.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::Shutdown,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Mutex,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use asyncio::{BufferedProtocol, Error, ErrorKind, EventLoop, Protocol, StreamProtocol, Transport};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, SockAddr, Socket, Type};

/// How long anything may take that waits for the system.
const LIMIT: Duration = Duration::from_secs(40);

/// What a protocol is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Made,
    /// `data_received`, with so many bytes.
    Data(usize),
    /// `get_buffer`, with this hint.
    Get(Option<usize>),
    /// `buffer_updated`, with so many bytes.
    Updated(usize),
    Eof,
    Pause,
    Resume,
    Lost(Option<ErrorKind>),
    /// What a test puts between.
    Note(&'static str),
}

/// What a protocol was told, in order, with the bytes it received and the error it was lost with. Clones are one log.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<LogState>>);

#[derive(Default)]
struct LogState {
    told: Vec<Told>,
    received: Vec<u8>,
    error: Option<Error>,
}

impl Log {
    pub(crate) fn push(&self, told: Told) {
        self.0.borrow_mut().told.push(told);
    }

    pub(crate) fn note(&self, note: &'static str) {
        self.push(Told::Note(note));
    }

    pub(crate) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.borrow_mut().told)
    }

    pub(crate) fn items(&self) -> Vec<Told> {
        self.0.borrow().told.clone()
    }

    /// As `items`, with the sum of each unbroken row of `Data`: the system splits as it likes.
    pub(crate) fn joined(&self) -> Vec<Told> {
        let mut joined = Vec::new();
        for told in self.items() {
            match (joined.last_mut(), told) {
                (Some(Told::Data(sum)), Told::Data(count)) => *sum += count,
                (_, told) => joined.push(told),
            }
        }
        joined
    }

    pub(crate) fn count(&self, told: &Told) -> usize {
        self.0.borrow().told.iter().filter(|item| *item == told).count()
    }

    pub(crate) fn has(&self, told: &Told) -> bool {
        self.count(told) > 0
    }

    pub(crate) fn lost(&self) -> bool {
        self.0.borrow().told.iter().any(|told| matches!(told, Told::Lost(_)))
    }

    /// All that was received.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.0.borrow().received.clone()
    }

    pub(crate) fn received_len(&self) -> usize {
        self.0.borrow().received.len()
    }

    /// What `connection_lost` was called with.
    pub(crate) fn error(&self) -> Option<Error> {
        self.0.borrow().error.clone()
    }
}

/// What a hook does in a callback, beside its being logged.
type Hook = Box<dyn FnMut(&Transport)>;

/// A protocol that logs what it is told. Hooks run after that, and get the transport; a panic of theirs is the callback's.
/// What it was made with it keeps until `connection_lost`, the transport too, as protocols do.
pub(crate) struct Recorder {
    log: Log,
    transport: Option<Transport>,
    made: Hook,
    data: Box<dyn FnMut(&Transport, &[u8])>,
    eof: Box<dyn FnMut(&Transport) -> bool>,
    pause: Hook,
    resume: Hook,
    lost: Box<dyn FnMut(&Transport, Option<&Error>)>,
}

impl Recorder {
    pub(crate) fn new(log: &Log) -> Self {
        Recorder {
            log: log.clone(),
            transport: None,
            made: Box::new(|_| {}),
            data: Box::new(|_, _| {}),
            eof: Box::new(|_| false),
            pause: Box::new(|_| {}),
            resume: Box::new(|_| {}),
            lost: Box::new(|_, _| {}),
        }
    }

    /// For a protocol that is set later, and so never hears `connection_made`.
    pub(crate) fn with_transport(mut self, transport: &Transport) -> Self {
        self.transport = Some(transport.clone());
        self
    }

    pub(crate) fn on_made(mut self, hook: impl FnMut(&Transport) + 'static) -> Self {
        self.made = Box::new(hook);
        self
    }

    pub(crate) fn on_data(mut self, hook: impl FnMut(&Transport, &[u8]) + 'static) -> Self {
        self.data = Box::new(hook);
        self
    }

    /// Its result is that of `eof_received`.
    pub(crate) fn on_eof(mut self, hook: impl FnMut(&Transport) -> bool + 'static) -> Self {
        self.eof = Box::new(hook);
        self
    }

    pub(crate) fn keep_open(self) -> Self {
        self.on_eof(|_| true)
    }

    pub(crate) fn on_pause(mut self, hook: impl FnMut(&Transport) + 'static) -> Self {
        self.pause = Box::new(hook);
        self
    }

    pub(crate) fn on_resume(mut self, hook: impl FnMut(&Transport) + 'static) -> Self {
        self.resume = Box::new(hook);
        self
    }

    pub(crate) fn on_lost(mut self, hook: impl FnMut(&Transport, Option<&Error>) + 'static) -> Self {
        self.lost = Box::new(hook);
        self
    }

    fn transport(&self) -> Transport {
        self.transport.clone().expect("it was made, or given its transport")
    }

    fn is_made(&mut self, transport: &Transport) {
        self.transport = Some(transport.clone());
        self.log.push(Told::Made);
        (self.made)(transport);
    }

    fn is_at_eof(&mut self) -> bool {
        self.log.push(Told::Eof);
        let transport = self.transport();
        (self.eof)(&transport)
    }

    fn is_paused(&mut self) {
        self.log.push(Told::Pause);
        let transport = self.transport();
        (self.pause)(&transport);
    }

    fn is_resumed(&mut self) {
        self.log.push(Told::Resume);
        let transport = self.transport();
        (self.resume)(&transport);
    }

    fn is_lost(&mut self, error: Option<&Error>) {
        self.log.push(Told::Lost(error.map(Error::kind)));
        self.log.0.borrow_mut().error = error.cloned();
        if let Some(transport) = self.transport.take() {
            (self.lost)(&transport, error);
        }
    }
}

impl Protocol for Recorder {
    fn connection_made(&mut self, transport: &Transport) {
        self.is_made(transport);
    }

    fn data_received(&mut self, data: &[u8]) {
        self.log.push(Told::Data(data.len()));
        self.log.0.borrow_mut().received.extend_from_slice(data);
        let transport = self.transport();
        (self.data)(&transport, data);
    }

    fn eof_received(&mut self) -> bool {
        self.is_at_eof()
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.is_lost(error);
    }

    fn pause_writing(&mut self) {
        self.is_paused();
    }

    fn resume_writing(&mut self) {
        self.is_resumed();
    }
}

/// A [`Recorder`] that receives into memory of its own.
pub(crate) struct BufferedRecorder {
    recorder: Recorder,
    memory: Vec<u8>,
    get: Hook,
}

impl BufferedRecorder {
    /// With `size` bytes of memory. The data hook is called with what `buffer_updated` tells.
    pub(crate) fn new(recorder: Recorder, size: usize) -> Self {
        BufferedRecorder { recorder, memory: vec![0; size], get: Box::new(|_| {}) }
    }

    pub(crate) fn on_get(mut self, hook: impl FnMut(&Transport) + 'static) -> Self {
        self.get = Box::new(hook);
        self
    }
}

impl BufferedProtocol for BufferedRecorder {
    fn connection_made(&mut self, transport: &Transport) {
        self.recorder.is_made(transport);
    }

    fn get_buffer(&mut self, size_hint: Option<usize>) -> &mut [u8] {
        self.recorder.log.push(Told::Get(size_hint));
        let transport = self.recorder.transport();
        (self.get)(&transport);
        &mut self.memory
    }

    fn buffer_updated(&mut self, count: usize) {
        self.recorder.log.push(Told::Updated(count));
        self.recorder.log.0.borrow_mut().received.extend_from_slice(&self.memory[..count]);
        let transport = self.recorder.transport();
        (self.recorder.data)(&transport, &self.memory[..count]);
    }

    fn eof_received(&mut self) -> bool {
        self.recorder.is_at_eof()
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.recorder.is_lost(error);
    }

    fn pause_writing(&mut self) {
        self.recorder.is_paused();
    }

    fn resume_writing(&mut self) {
        self.recorder.is_resumed();
    }
}

/// What two connected stream sockets can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairKind {
    Tcp,
    /// Unix sockets, connected by a path.
    Unix,
    Socketpair,
}

/// Two connected stream sockets.
pub(crate) struct Pair {
    /// Who connected, or one of the two.
    pub(crate) ours: OwnedFd,
    pub(crate) peer: Peer,
}

impl PairKind {
    pub(crate) fn pair(self) -> Pair {
        self.make(None)
    }

    /// A pair whose system buffers are as small as the system allows, near 4 KiB, both ways.
    pub(crate) fn small_pair(self) -> Pair {
        self.make(Some(4096))
    }

    fn make(self, size: Option<usize>) -> Pair {
        let sized = |socket: &Socket| {
            if let Some(size) = size {
                socket.set_send_buffer_size(size).unwrap();
                socket.set_recv_buffer_size(size).unwrap();
            }
        };
        let (ours, peer) = match self {
            PairKind::Socketpair => {
                let (ours, peer) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
                sized(&ours);
                sized(&peer);
                (ours, peer)
            }
            PairKind::Tcp | PairKind::Unix => {
                let place = tempfile::tempdir().unwrap();
                let (domain, address) = match self {
                    PairKind::Tcp => (Domain::IPV4, std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()),
                    _ => (Domain::UNIX, SockAddr::unix(place.path().join("socket")).unwrap()),
                };
                let listener = Socket::new(domain, Type::STREAM, None).unwrap();
                let ours = Socket::new(domain, Type::STREAM, None).unwrap();
                // Before they are connected: TCP agrees on its windows then.
                sized(&listener);
                sized(&ours);
                if size.is_none() {
                    // Else it grows while data flows, until 8 MB fit.
                    listener.set_recv_buffer_size(1 << 18).unwrap();
                }
                listener.bind(&address).unwrap();
                listener.listen(1).unwrap();
                ours.connect(&listener.local_addr().unwrap()).unwrap();
                let (peer, _) = listener.accept().unwrap();
                sized(&peer);
                (ours, peer)
            }
        };
        Pair { ours: ours.into(), peer: Peer::new(peer) }
    }
}

/// The other side of a connection, driven by the test itself. Its own calls do not block, unless they say so.
pub(crate) struct Peer(pub(crate) Socket);

impl Peer {
    pub(crate) fn new(socket: impl Into<Socket>) -> Self {
        let socket = socket.into();
        socket.set_nonblocking(true).unwrap();
        Peer(socket)
    }

    /// Sends all of `data`, which the system must take at once.
    #[track_caller]
    pub(crate) fn send(&self, data: &[u8]) {
        assert_eq!((&self.0).write(data).unwrap(), data.len());
    }

    /// Sends what the system takes of `data`.
    pub(crate) fn send_some(&self, data: &[u8]) -> usize {
        match (&self.0).write(data) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Receives what is there. The end is no bytes, as nothing is; see [`ended`](Self::ended).
    pub(crate) fn drain(&self) -> Vec<u8> {
        let (mut all, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match (&self.0).read(&mut chunk) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return all,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Receives once, at most `most` bytes; `None` if there is nothing.
    pub(crate) fn recv(&self, most: usize) -> Option<Vec<u8>> {
        let mut chunk = vec![0; most];
        match (&self.0).read(&mut chunk) {
            Ok(count) => {
                chunk.truncate(count);
                Some(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether there is nothing more to receive, because the other side has ended, one way or the other.
    pub(crate) fn ended(&self) -> bool {
        match self.0.peek(&mut [std::mem::MaybeUninit::uninit()]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Waits for exactly `count` bytes, while no loop runs.
    #[track_caller]
    pub(crate) fn read_exactly(&self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            self.until_readable();
            let chunk = self.recv(count - all.len()).unwrap_or_default();
            assert!(!chunk.is_empty() || !self.ended(), "only {} bytes came", all.len());
            all.extend(chunk);
        }
        all
    }

    /// Waits, outside of any loop, until there is something to read, or the end.
    #[track_caller]
    pub(crate) fn until_readable(&self) {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec { tv_sec: 40, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "nothing came");
    }

    /// Receives everything to the end, or to a reset, in a thread of its own.
    pub(crate) fn collect(self) -> JoinHandle<(Vec<u8>, Peer)> {
        std::thread::spawn(move || {
            self.0.set_nonblocking(false).unwrap();
            self.0.set_read_timeout(Some(LIMIT)).unwrap();
            let mut all = Vec::new();
            match (&self.0).read_to_end(&mut all) {
                Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
                _ => (all, Peer::new(self.0)),
            }
        })
    }

    /// Ends its writing.
    pub(crate) fn half_close(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes so that the other side gets a reset. On a unix socket that takes data that was not received.
    pub(crate) fn reset(self) {
        self.0.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A transport with its protocol, what that has heard, and who is at the other side.
pub(crate) struct Connected<P = Recorder> {
    pub(crate) transport: Transport,
    pub(crate) protocol: Rc<RefCell<P>>,
    pub(crate) log: Log,
    pub(crate) peer: Peer,
}

/// Connects a recorder without hooks.
pub(crate) fn connect(event_loop: &EventLoop, pair: Pair) -> Connected {
    connect_with(event_loop, pair, |recorder| recorder)
}

/// Connects a protocol made of a recorder, with hooks for instance.
pub(crate) fn connect_with<P: StreamProtocol<K>, K: 'static>(
    event_loop: &EventLoop,
    pair: Pair,
    make: impl FnOnce(Recorder) -> P,
) -> Connected<P> {
    let log = Log::default();
    let Pair { ours, peer } = pair;
    let opening = event_loop.create_connection(|| make(Recorder::new(&log)), ()).sock(ours);
    let (transport, protocol) = event_loop.run_until_complete(opening).unwrap();
    Connected { transport, protocol, log, peer }
}

/// Runs the loop until `done`, which is looked at after each iteration and may itself drive the other side.
#[track_caller]
pub(crate) fn until(event_loop: &EventLoop, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "it never came");
        event_loop.run_once(Duration::from_millis(2)).unwrap();
    }
}

/// Bytes that tell one place from another, so that none can be lost, doubled or moved unseen.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    static KNOWN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap();
    let missing = known.len() as u64..count as u64;
    known.extend(missing.map(|index| (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8));
    known[..count].to_vec()
}
