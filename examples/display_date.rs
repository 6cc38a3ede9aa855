//! Displays the date every second for five seconds: a callback that schedules itself again with `call_later`.
//!
//! Try it: `cargo run --example display_date`

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use asyncio::EventLoop;

const SECOND: Duration = Duration::from_secs(1);

fn display_date(event_loop: &EventLoop, end_time: Instant) {
    println!("{}", utc(SystemTime::now()));
    if event_loop.time() + SECOND < end_time {
        let again = event_loop.clone();
        event_loop.call_later(SECOND, move || display_date(&again, end_time));
    } else {
        event_loop.stop();
    }
}

fn main() -> asyncio::Result<()> {
    let event_loop = asyncio::new_event_loop()?;

    // Schedule the first call to display_date().
    let (first, end_time) = (event_loop.clone(), event_loop.time() + 5 * SECOND);
    event_loop.call_soon(move || display_date(&first, end_time));

    // Blocks until stop() is called.
    event_loop.run_forever()?;
    event_loop.close()
}

/// Date and time as text: std has a clock and no calendar.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut day, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second, millis) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}.{millis:03} UTC", day + 1)
}
