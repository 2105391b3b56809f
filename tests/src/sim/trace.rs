//! The trace of a run: one line for each event, in columns of fixed width:
//!
//! ```text
//!       true time, us  who  event       what
//!         1234567.890    0  got         #000123 1234 bytes: Channel(Accepted)
//!  |----------------|  |--|  |--------|  ...
//!          18            3       10      any length
//! ```
//!
//! *Who* is the host of the event, or `-` if it has none. The module of each scenario lists its events.

use std::fmt::{Arguments, Write as _};

/// The destination of the lines.
#[derive(Debug, Default)]
pub enum Trace {
    /// Discarded.
    #[default]
    Off,
    /// Printed to standard output immediately, so that a run that panics shows how far it came.
    Print,
    /// Kept in memory, for comparison.
    Keep(String),
}

impl Trace {
    /// Writes the line of an event of host `who`, or of no host.
    pub fn line(&mut self, at: u64, who: Option<usize>, event: &str, what: Arguments<'_>) {
        if let Trace::Off = self {
            return;
        }
        let (us, ns) = (at / 1000, at % 1000);
        let who = who.map_or('-', |host| char::from(b'0' + host as u8));
        self.text(format_args!("{us:>14}.{ns:03} {who:>4}  {event:<10}  {what}"));
    }

    /// Writes a line that is not an event.
    pub fn text(&mut self, text: Arguments<'_>) {
        match self {
            Trace::Off => {}
            Trace::Print => vmm::stdio::result_line(text),
            Trace::Keep(lines) => writeln!(lines, "{text}").expect("a string takes all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_fixed_columns() {
        let mut trace = Trace::Keep(String::new());
        trace.line(1_234_567_890, Some(1), "got", format_args!("#{:06}", 12));
        trace.line(5, None, "heal", format_args!(""));
        let Trace::Keep(lines) = trace else { unreachable!("kept") };
        let expected = "       1234567.890    1  got         #000012\n";
        assert!(lines.starts_with(expected), "{lines}");
        assert_eq!(lines.lines().last(), Some("             0.005    -  heal        "));
    }
}
