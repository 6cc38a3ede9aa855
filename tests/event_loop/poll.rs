//! poll(2), for a host's loop and for a selector of one's own.
#![expect(unsafe_code, reason = "poll is a call of the C library")]

use std::{io, time::Duration};

/// Waits until something happens to one of the descriptors, and gives to how many.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    // Rounded up: who waits for a deadline must not come too early again and again.
    let millis = |timeout: Duration| i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    let (count, millis) = (libc::nfds_t::try_from(entries.len()).unwrap(), timeout.map_or(-1, millis));
    loop {
        // SAFETY: the pointer is to as many entries as the count says.
        let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, millis) };
        match usize::try_from(ready) {
            Ok(ready) => return Ok(ready),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
