//! The boot log and the last words: a 16550 at 0x3f8, polled.
//!
//! Each byte is an exit, so the guest says little: a line when it is ready, one for each boot parameter
//! it cannot use, and one when it dies.

use core::fmt::{self, Write};

use crate::port::{inb, outb, outsb};

const DATA: u16 = 0x3f8;
const FIFO_CONTROL: u16 = DATA + 2;
const LINE_STATUS: u16 = DATA + 5;
/// Line status: the transmit holding register (with FIFO: the whole FIFO) is empty.
const TRANSMIT_EMPTY: u8 = 0x20;
const FIFO_BYTES: usize = 16;
/// A UART that is absent or stuck costs this many exits per chunk, not the boot.
const POLLS_MAX: u32 = 1000;

/// Turns on the FIFO, so that the status is read once per 16 bytes. Line settings are the firmware's.
pub(crate) fn init() {
    outb(FIFO_CONTROL, 0x07);
}

/// A line under construction: bytes past its end are dropped, so that no message can run away.
pub(crate) struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }

    /// Sends the line and a newline.
    pub(crate) fn send(mut self) {
        self.len = self.len.min(self.bytes.len() - 1);
        self.bytes[self.len] = b'\n';
        for chunk in self.bytes[..=self.len].chunks(FIFO_BYTES) {
            let ready = (0..POLLS_MAX).any(|_| inb(LINE_STATUS) & TRANSMIT_EMPTY != 0);
            if !ready {
                return;
            }
            outsb(DATA, chunk);
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let n = room.len().min(text.len());
        room[..n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Prints one line with the guest's name in front.
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let mut line = $crate::console::Line::new();
        // A `Line` takes everything.
        let _ = write!(line, "refguest: {}", format_args!($($arg)*));
        line.send();
    }};
}
pub(crate) use say;
