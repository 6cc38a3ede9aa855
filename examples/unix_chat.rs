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

/// Who is there, by number. The protocols of a loop share it without a lock.
type Room = Rc<RefCell<BTreeMap<usize, Transport>>>;

struct Guest {
    number: usize,
    room: Room,
    line: Vec<u8>, // one that has not ended yet
}

impl Protocol for Guest {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(format!("welcome, guest {}\n", self.number).as_bytes());
        self.room.borrow_mut().insert(self.number, transport.clone());
    }

    fn data_received(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                break;
            }
            let line = [format!("guest {}: ", self.number).as_bytes(), &std::mem::take(&mut self.line)].concat();
            let room = self.room.borrow();
            let others = room.iter().filter(|(number, _)| **number != self.number);
            others.for_each(|(_, other)| other.write(&line));
        }
    }

    fn connection_lost(&mut self, _error: Option<&Error>) {
        self.room.borrow_mut().remove(&self.number);
    }
}

/// Three guests in a thread, each of whom says something and hears the two others.
fn talk(path: PathBuf) -> io::Result<()> {
    let mut guests = (0..3).map(|_| UnixStream::connect(&path).map(BufReader::new)).collect::<io::Result<Vec<_>>>()?;
    let mut text = String::new();
    for guest in &mut guests {
        guest.read_line(&mut text)?; // its welcome: it is in the room
    }
    for (guest, word) in guests.iter_mut().zip(["hi", "oh", "ah"]) {
        writeln!(guest.get_mut(), "{word}")?;
    }
    for guest in &mut guests {
        guest.read_line(&mut text)?;
        guest.read_line(&mut text)?;
    }
    print!("{text}");
    Ok(())
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
        to_thread(move || Ok(talk(path)?)).await
    })
}
