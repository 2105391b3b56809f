//! `understudy events`.

use super::control::ControlArgs;
use super::exit_code::{CliError, Code};
use crate::limits::EVENTS_BYTES_MAX;
use crate::pair::Request;
use crate::stdio;
use clap::Args;
use serde::Deserialize;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

/// Options of `events`.
#[derive(Args, Debug)]
#[command(after_help = "\
Shows the last events of the process, at most 1024: what it has said on standard error since its start.
With --follow, goes on with new ones until the process ends. A reader that is too slow misses events, and is
told how many.

Examples:
  understudy events
  understudy events --follow --json | jq --unbuffered -r .event

Exits with code 15 if no process answers, or if the process that is followed is gone without having ended in
order.")]
pub struct EventsArgs {
    #[command(flatten)]
    process: ControlArgs,
    /// Go on with new events until the process ends
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object for each event
    #[arg(long)]
    json: bool,
}

/// An event as the control socket sends it: what a person sees of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ShownEvent {
    /// Wall clock, milliseconds since 1970.
    pub unix_ms: u64,
    /// "info" or "warning".
    pub level: String,
    /// The term.
    pub term: u64,
    /// The message.
    pub text: String,
    /// Name of the event.
    pub event: String,
    /// How many events are missing, if the event says so.
    pub count: u64,
}

impl ShownEvent {
    /// Reads a line of the control socket; `None` if it is none of an event.
    pub fn of_line(line: &str) -> Option<ShownEvent> {
        serde_json::from_str(line).ok()
    }

    /// Returns whether an operator should look at it.
    pub fn is_warning(&self) -> bool {
        self.level == "warning" || self.is_gap()
    }

    /// Returns whether it stands for events that are missing.
    pub fn is_gap(&self) -> bool {
        self.event == "events_lost"
    }

    /// Returns the line for a picture: with the time of the day only, and without the term.
    pub(super) fn short_line(&self) -> String {
        if self.is_gap() {
            return format!("... {} events are missing here", self.count);
        }
        let (time, mark) = (utc(self.unix_ms), if self.is_warning() { '!' } else { ' ' });
        let time = time.get(11..19).unwrap_or_default();
        format!("{time} {mark} {}", self.text)
    }

    /// Returns the line for a person.
    fn line(&self) -> String {
        if self.is_gap() {
            return format!("... {} events are missing here\n", self.count);
        }
        let mark = if self.is_warning() { '!' } else { ' ' };
        format!("{} {mark} term {}  {}\n", utc(self.unix_ms), self.term, self.text)
    }
}

/// Runs `understudy events`.
///
/// # Errors
///
/// If no process answers, a followed process is gone, or standard output can't be written.
pub fn main(args: &EventsArgs) -> Result<(), CliError> {
    let request = if args.follow { Request::Follow } else { Request::Events };
    let mut lines = EventLines::new(args.process.open(request)?);
    let mut has_ended = false;
    while let Some(line) = lines.next_line() {
        let event = ShownEvent::of_line(&line).unwrap_or_default();
        has_ended = event.event == "ended";
        let text = if args.json { format!("{line}\n") } else { event.line() };
        match stdio::Results.write_all(text.as_bytes()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(CliError::Output(error)),
        }
    }
    if args.follow && !has_ended {
        let path = args.process.path();
        stdio::message(format_args!(
            "understudy: {}: the process is gone, or has too many followers",
            path.display()
        ));
        return Err(CliError::Silent(Code::NoAnswer));
    }
    Ok(())
}

/// The lines of events that a process sends.
pub struct EventLines(BufReader<UnixStream>);

impl EventLines {
    /// Reads the lines of `stream`.
    pub fn new(stream: UnixStream) -> EventLines {
        EventLines(BufReader::new(stream))
    }

    /// Waits for the next line, and returns it without its end. `None` if there are no more.
    pub fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let longest = EVENTS_BYTES_MAX as u64;
        match self.0.by_ref().take(longest).read_line(&mut line) {
            Ok(_) if line.pop() == Some('\n') => Some(line),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Formats a time of the wall clock, as RFC 3339 does.
pub fn utc(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // H. Hinnant, "chrono-Compatible Low-Level Date Algorithms": civil_from_days. A year begins in March there, so that
    // the leap day is its last one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_formatted_as_rfc_3339() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599_001, "2026-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(unix_ms), text);
        }
    }

    #[test]
    fn line_has_time_term_and_text_and_marks_what_an_operator_should_look_at() {
        let line = r#"{"schema":1,"seq":4,"unix_ms":0,"level":"warning","text":"LIVE","t_ns":1,"term":2,"event":"went_live","sent_again":0}"#;
        let event = ShownEvent::of_line(line).unwrap();
        assert_eq!(event.line(), "1970-01-01T00:00:00.000Z ! term 2  LIVE\n");
        let lost = r#"{"schema":1,"seq":9,"event":"events_lost","count":5}"#;
        assert_eq!(ShownEvent::of_line(lost).unwrap().line(), "... 5 events are missing here\n");
        assert_eq!(ShownEvent::of_line("nothing of the kind"), None);
    }
}
