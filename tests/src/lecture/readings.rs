//! A random number and a clock reading, recorded and replayed.

use super::recording::Recording;
use super::screen::Screen;
use super::watch::{self, Seen};
use logchan::entry::Entry;
use serde_json::Value;
use testbed::clients::fetch;
use testbed::{GUEST_ADDRESS, TestbedError};

/// What a client got, and what the log has.
struct Reading {
    recording: Recording,
    /// The page as the client got it.
    page: String,
    /// Its random number, and its time stamp counter, which counts nanoseconds.
    seen: (u64, u64),
}

pub(super) fn play(screen: &mut Screen) -> Result<(), TestbedError> {
    screen.say("The page /status of the guest has a random number and a time stamp. A client reads it while the VM is recorded:");
    let first = Reading::new()?;
    screen.show(format_args!("client:  {}", first.page.trim()));
    let logged = first.logged()?;
    screen.say("The log has the random bytes and, before the next reading, how far the clock had advanced:");
    screen.show(format_args!("log:     random {:016x}, guest time {} ns", logged.0, logged.1));
    screen.check(logged == first.seen, "the client's numbers are the logged ones")?;
    screen.say("The log is replayed. No entropy and no clock is read; the machine computes the page again:");
    let replayed = watch::replay(&first.recording.log())?;
    let is_page = |frame: &[u8]| {
        let page = first.page.as_bytes();
        frame.windows(page.len()).any(|part| part == page)
    };
    let made = replayed.iter().filter(|seen| matches!(seen, Seen::Output(frame) if is_page(frame)));
    let made = made.count();
    screen.show(format_args!("replay:  {}", first.page.trim()));
    screen
        .check(made == 1, "the replaying machine transmitted the same page, byte for byte, once")?;
    screen.say("The same VM, recorded once more, without the log of the first run:");
    let second = Reading::new()?;
    screen.show(format_args!("client:  {}", second.page.trim()));
    screen.check(
        first.seen.0 != second.seen.0 && first.seen.1 != second.seen.1,
        "both numbers differ: they are not a function of the guest's state",
    )?;
    screen.figure("random", format!("{:016x}", first.seen.0));
    screen.figure("clock_ns", first.seen.1);
    Ok(())
}

impl Reading {
    fn new() -> Result<Reading, TestbedError> {
        let (recording, page) = Recording::during(|| fetch(GUEST_ADDRESS, "/status"))?;
        let wrong = || TestbedError::Wrong(format!("the page is {page:?}"));
        let status: Value = serde_json::from_str(&page).map_err(|_| wrong())?;
        let random = status["random"].as_str().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let seen = random.zip(status["tsc"].as_u64()).ok_or_else(wrong)?;
        Ok(Reading { recording, page, seen })
    }

    /// Returns the last random number of the log, and guest time at the next reading of the clock.
    fn logged(&self) -> Result<(u64, u64), TestbedError> {
        let (mut random, mut now_ns, mut read_ns) = (0, 0, None);
        self.recording.visit(|_index, entry| match entry {
            Entry::Entropy(bytes) => {
                random = <[u8; 8]>::try_from(*bytes).map_or(0, u64::from_le_bytes);
                read_ns = None;
            }
            Entry::Clock { advance_ns } => {
                now_ns += advance_ns;
                read_ns.get_or_insert(now_ns);
            }
            Entry::Exit { .. }
            | Entry::Window { .. }
            | Entry::CheckpointBegin { .. }
            | Entry::Page { .. }
            | Entry::CheckpointEnd { .. }
            | Entry::WallClock { .. }
            | Entry::Frame(_)
            | Entry::Console(_)
            | Entry::DiskDone { .. }
            | Entry::Interrupt { .. }
            | Entry::Output { .. }
            | Entry::End { .. }
            | Entry::HandOver
            | Entry::DiskCopy(_) => {}
        })?;
        Ok((random, read_ns.unwrap_or_default()))
    }
}
