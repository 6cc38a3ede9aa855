//! The files of unix sockets, which outlive those who made them.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::{
    report,
    sys::{addr::Address, fork},
};

/// Removes the file that a socket of before has left, so that its path can be bound again.
pub(crate) fn remove_stale(address: &Address) {
    let Address::UnixPath(path) = address else { return };
    let removed = match fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // The directory may allow no more than making a socket; the bind says what comes of it.
            report::error(&format!("Unable to check or remove stale UNIX socket {address}: {error}"));
        }
        _ => {}
    }
}

/// The file of a server's socket: removed when this is dropped, if it is still that one.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and number: what tells it from another file at its path.
    identity: (u64, u64),
    /// A forked child leaves the file to its parent.
    generation: u32,
}

impl SocketFile {
    /// The file at `address`, if it is one.
    pub(crate) fn of(address: &Address) -> Option<Self> {
        let Address::UnixPath(path) = address else { return None };
        Some(SocketFile { identity: identity(path).ok()?, path: path.clone(), generation: fork::generation() })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = self.generation == fork::generation();
        if is_ours && identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Somebody else may be faster, and nobody is left to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}
