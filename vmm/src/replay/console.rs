//! The VM's serial console, as the operator sees it.
//!
//! A guest may write any bytes, and the operator's terminal must not obey them: an escape sequence can change
//! its title, hide lines, or type into the operator's shell. Therefore lines that are shown contain only printable
//! UTF-8, tabs and line breaks. Every other byte is shown as `\x1b`. A carriage return in front of a line break is
//! left out.
//!
//! With `--stdin` the operator's terminal is the guest's terminal, and gets the bytes as they are.

use crate::limits::CONSOLE_LINE_BYTES_MAX;
use std::io::Write;

/// How the console's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleStyle {
    /// As text, which cannot control a terminal.
    Text,
    /// As they are.
    Raw,
}

/// See the [module](self).
pub struct Console {
    /// Its writes must not wait.
    output: Box<dyn Write + Send>,
    style: ConsoleStyle,
    /// What will be written at the end of the line, or when it is as long as a line may be.
    line: Vec<u8>,
    /// Bytes whose meaning depends on the next one: a carriage return, or the beginning of a character; at most 4.
    undecided: Vec<u8>,
}

impl Console {
    /// Creates a console.
    pub fn new(output: Box<dyn Write + Send>, style: ConsoleStyle) -> Console {
        let line = Vec::with_capacity(CONSOLE_LINE_BYTES_MAX);
        Console { output, style, line, undecided: Vec::with_capacity(4) }
    }

    /// Outputs a byte that the guest wrote.
    pub fn put(&mut self, byte: u8) {
        match self.style {
            ConsoleStyle::Raw => self.push(&[byte]),
            ConsoleStyle::Text => {
                self.undecided.push(byte);
                while self.decide() {}
            }
        }
    }

    /// Writes an unfinished line: the guest waits, so it is probably a prompt.
    pub fn show_unfinished(&mut self) {
        if !self.line.is_empty() {
            self.write();
        }
    }

    /// Adds the first character of `undecided` to the line. Returns false if the next byte is needed for that.
    fn decide(&mut self) -> bool {
        let length = match (self.undecided.as_slice(), std::str::from_utf8(&self.undecided)) {
            ([] | [b'\r'], _) => return false,
            ([b'\r', b'\n'], _) => {
                self.undecided.remove(0);
                return true;
            }
            ([b'\r', ..], _) => 0,
            (_, Ok(text)) => text.chars().next().filter(|&c| is_text(c)).map_or(0, char::len_utf8),
            (_, Err(error)) if error.error_len().is_none() => return false,
            (_, Err(_)) => 0,
        };
        let mut shown = [0; 4];
        match length {
            0 => {
                let byte = self.undecided.remove(0);
                self.push(format!("\\x{byte:02x}").as_bytes());
            }
            _ => {
                shown[..length].copy_from_slice(&self.undecided[..length]);
                self.undecided.drain(..length);
                self.push(&shown[..length]);
            }
        }
        true
    }

    /// Adds the bytes of one character to the line, and writes the line if it is complete.
    fn push(&mut self, shown: &[u8]) {
        if self.line.len() + shown.len() > CONSOLE_LINE_BYTES_MAX {
            self.write();
        }
        self.line.extend_from_slice(shown);
        if shown == b"\n" {
            self.write();
        }
    }

    fn write(&mut self) {
        // An error is ignored: a console that nobody reads any more (a closed pipe) must not stop the machine.
        let _ = self.output.write_all(&self.line);
        let _ = self.output.flush();
        self.line.clear();
    }
}

impl Drop for Console {
    /// Shows the unfinished line, whatever ended the machine.
    fn drop(&mut self) {
        for byte in std::mem::take(&mut self.undecided) {
            self.push(format!("\\x{byte:02x}").as_bytes());
        }
        self.show_unfinished();
    }
}

/// Whether a terminal shows this character and does nothing else: neither C0, DEL nor C1.
fn is_text(c: char) -> bool {
    !c.is_control() || matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// What a console has written, in its pieces.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns what is written for `bytes` if the guest waits after each `pause` of them.
    fn pieces(bytes: &[u8], style: ConsoleStyle, pause: usize) -> Vec<Vec<u8>> {
        let written = Written::default();
        let mut console = Console::new(Box::new(written.clone()), style);
        for piece in bytes.chunks(pause) {
            piece.iter().for_each(|&byte| console.put(byte));
            console.show_unfinished();
        }
        drop(console);
        let pieces = written.0.lock().unwrap();
        pieces.clone()
    }

    fn shown(bytes: &[u8]) -> String {
        String::from_utf8(pieces(bytes, ConsoleStyle::Text, usize::MAX).concat()).unwrap()
    }

    #[test]
    fn text_passes_and_control_bytes_are_shown_as_numbers() {
        assert_eq!(shown("µs\tgrün 漢 🦀\n".as_bytes()), "µs\tgrün 漢 🦀\n");
        assert_eq!(
            shown(b"\x1b]0;title\x07\x1b[2J\0\x7f\n"),
            "\\x1b]0;title\\x07\\x1b[2J\\x00\\x7f\n"
        );
        // C1 controls: U+009B is CSI.
        assert_eq!(shown("\u{9b}2J\u{80}".as_bytes()), "\\xc2\\x9b2J\\xc2\\x80");
        assert_eq!(shown(b"a\x9bb\xff\xe2\x82c\xf0\x9f"), "a\\x9bb\\xff\\xe2\\x82c\\xf0\\x9f");
    }

    #[test]
    fn carriage_return_is_left_out_only_before_a_line_break() {
        assert_eq!(shown(b"a\r\nb\r\r\nroot# \rlogin"), "a\nb\\x0d\nroot# \\x0dlogin");
        assert_eq!(shown(b"end\r"), "end\\x0d");
    }

    #[test]
    fn raw_console_changes_nothing() {
        let bytes: Vec<u8> = (0..=255).chain(0..=255).chain(0..=255).collect();
        for pause in [1, 100, usize::MAX] {
            assert_eq!(pieces(&bytes, ConsoleStyle::Raw, pause).concat(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_shown_in_bounded_pieces_that_do_not_depend_on_pauses() {
        let mut rng = 1_u64;
        let mut byte = || {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let byte = (rng >> 56) as u8;
            // Make line breaks, escapes and whole characters likely.
            match rng >> 40 & 7 {
                0 => b'\r',
                1 => b'\n',
                2 => 0xc2,
                3 => 0x80 | byte & 0x3f,
                _ => byte,
            }
        };
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..1000).map(|_| byte()).collect();
            let all = shown(&bytes);
            assert!(all.chars().all(is_text), "{all:?}");
            for pause in [1, 2, 3, 7] {
                let pieces = pieces(&bytes, ConsoleStyle::Text, pause);
                assert!(pieces.iter().all(|piece| piece.len() <= CONSOLE_LINE_BYTES_MAX));
                assert_eq!(pieces.concat(), all.as_bytes(), "pause {pause}");
            }
        }
    }
}
