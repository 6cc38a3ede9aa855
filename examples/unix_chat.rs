//! A chat on a unix socket: what one says, all others hear, a line at a time.
//!
//! Try it: `cargo run --example unix_chat`, where three talk for a moment; or `-- /tmp/chat`, then `nc -U /tmp/chat` in
//! some other terminals, until Ctrl-C.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process,
    rc::Rc,
};

use asyncio::{Error, Protocol, Result, Transport, get_running_loop, to_thread};

/// Who is there, by number. Protocols of one loop share it without a lock.
type Room = Rc<RefCell<BTreeMap<usize, Transport>>>;

struct Guest {
    number: usize,
    room: Room,
    /// A line that has not ended yet.
    line: Vec<u8>,
}

impl Guest {
    fn tell_others(&self, text: &str) {
        for (_, other) in self.room.borrow().iter().filter(|(number, _)| **number != self.number) {
            other.write(format!("guest {} {text}\n", self.number).as_bytes());
        }
    }
}

impl Protocol for Guest {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(format!("welcome, guest {}\n", self.number).as_bytes());
        self.tell_others("comes");
        self.room.borrow_mut().insert(self.number, transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        self.line.extend_from_slice(data);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            self.tell_others(&format!("says: {}", String::from_utf8_lossy(&line).trim_end()));
        }
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.room.borrow_mut().remove(&self.number);
        self.tell_others("goes");
    }
}

/// A guest in a thread of its own, who hears `lines` lines before it says something and goes.
fn visit(path: PathBuf, lines: usize, word: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    for line in BufReader::new(stream.try_clone()?).lines().take(lines) {
        println!("{word} hears: {}", line?);
    }
    writeln!(stream, "{word}")
}

fn main() -> Result<()> {
    let given = env::args_os().nth(1).map(PathBuf::from);
    let path = given.clone().unwrap_or_else(|| env::temp_dir().join(format!("asyncio-chat-{}", process::id())));
    asyncio::run(async {
        let (room, mut last) = (Room::default(), 0);
        let factory = move || {
            last += 1;
            Guest { number: last, room: room.clone(), line: Vec::new() }
        };
        let server = get_running_loop()?.create_unix_server(factory, &path).await?;
        if given.is_some() {
            return server.serve_forever().await;
        }
        let visits = [(3, "ah"), (2, "oh"), (1, "hi")].map(|(lines, word)| {
            let path = path.clone();
            to_thread(move || Ok(visit(path, lines, word)?))
        });
        asyncio::gather(Vec::from(visits)).await?;
        Ok(())
    })
}
