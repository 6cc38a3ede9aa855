//! A chat on a unix socket: what one says, all others hear, a line at a time.
//!
//! Try it: `cargo run --example unix_chat`, where three talk for a moment; or `-- /tmp/chat`, then `nc -U /tmp/chat` in
//! some other terminals, until Ctrl-C.

use std::{cell::RefCell, collections::BTreeMap, env, path::Path, path::PathBuf, process, rc::Rc};

use asyncio::{Barrier, Result, StreamReader, StreamWriter, TaskGroup, open_unix_connection, start_unix_server};

/// How much may wait for a guest who does not read, in bytes; who has more waiting misses some.
const BEHIND: usize = 64 << 10;

/// Who is there, by number. The tasks of a loop share it without a lock.
type Room = Rc<RefCell<BTreeMap<usize, StreamWriter>>>;

/// A connection, whose task this is.
async fn serve(room: Room, mut reader: StreamReader, writer: StreamWriter) -> Result<()> {
    let number = room.borrow().last_key_value().map_or(1, |(last, _)| last + 1);
    writer.write(format!("welcome, guest {number}\n"))?;
    room.borrow_mut().insert(number, writer);
    let heard = async {
        while let Some(line) = reader.next_line().await? {
            let line = [format!("guest {number}: ").as_bytes(), &line].concat();
            for (_, other) in room.borrow().iter().filter(|(other, _)| **other != number) {
                if other.transport()?.get_write_buffer_size() < BEHIND {
                    other.write(&line)?; // never waits
                }
            }
        }
        Ok(())
    };
    let heard = heard.await;
    let gone = room.borrow_mut().remove(&number);
    drop(gone); // a writer that is dropped closes its connection
    heard
}

/// Somebody who says a word once all are there, and hears those of the others.
async fn guest(path: &Path, word: &str, all_here: &Barrier) -> Result<()> {
    let (mut reader, writer) = open_unix_connection(path).await?;
    print!("{}", String::from_utf8_lossy(&reader.readline().await?));
    all_here.wait().await?;
    writer.write(format!("{word}\n"))?;
    for _ in 0..2 {
        print!("{word} heard {}", String::from_utf8_lossy(&reader.readline().await?));
    }
    all_here.wait().await?;
    Ok(())
}

fn main() -> Result<()> {
    let given = env::args_os().nth(1).map(PathBuf::from);
    let path = given.clone().unwrap_or_else(|| env::temp_dir().join(format!("asyncio-chat-{}", process::id())));
    asyncio::run(async {
        let room = Room::default();
        let handler = async move |reader, writer| serve(room.clone(), reader, writer).await;
        let server = start_unix_server(handler, &path).await?;
        if given.is_some() {
            return server.serve_forever().await;
        }
        let all_here = Barrier::new(3)?;
        TaskGroup::scope(async |group| {
            for word in ["hi", "oh", "ah"] {
                let (path, all_here) = (path.clone(), all_here.clone());
                group.create_task(async move { guest(&path, word, &all_here).await });
            }
            Ok(())
        })
        .await
    })
}
