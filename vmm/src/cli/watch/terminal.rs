//! [`Screen`]: the terminal of `understudy watch`, in raw mode and with its alternate screen. It is restored when the
//! program ends: in order, by a signal, or by a panic.
//!
//! No message is written to standard output or standard error meanwhile.

use crate::cli::exit_code::CliError;
use crate::cli::signals;
use nix::poll::{PollFd, PollFlags, poll};
use ratatui::backend::TermionBackend;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use ratatui::termion::raw::{IntoRawMode, RawTerminal};
use ratatui::termion::{cursor, screen, style};
use ratatui::{Frame, Terminal};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most bytes of keys that are read at a time.
const KEYS_BYTES_MAX: usize = 256;

/// The terminal with its attributes before raw mode.
static TERMINAL: OnceLock<RawTerminal<File>> = OnceLock::new();

/// Whether the terminal was restored.
static IS_RESTORED: AtomicBool = AtomicBool::new(false);

/// The terminal. Dropping it restores the terminal.
pub(super) struct Screen {
    terminal: Terminal<TermionBackend<File>>,
}

impl Screen {
    /// Takes the terminal. To be called once.
    ///
    /// # Errors
    ///
    /// If standard input or standard output is none, or it can't be set up.
    pub(super) fn open() -> Result<Screen, CliError> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(CliError::Usage(
                "watch needs a terminal as standard input and output: without one, use 'understudy status' or \
                 'understudy events --follow'"
                    .into(),
            ));
        }
        Screen::set_up().map_err(|source| CliError::Os { doing: "setting up the terminal", source })
    }

    fn set_up() -> io::Result<Screen> {
        let output = || io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let mut signals = Signals::new(signals::ending())?;
        let raw = output()?.into_raw_mode()?;
        assert!(TERMINAL.set(raw).is_ok(), "a process has one terminal");
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        // On a thread of its own, because a write to the terminal may wait.
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                restore();
                std::process::exit(128 + signal);
            }
        })?;
        // Restores the terminal if the rest fails.
        let mut screen = Screen { terminal: Terminal::new(TermionBackend::new(output()?))? };
        let backend = screen.terminal.backend_mut();
        write!(backend, "{}{}", screen::ToAlternateScreen, cursor::Hide)?;
        backend.flush()?;
        Ok(screen)
    }

    /// Draws a picture.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw)?;
        Ok(())
    }

    /// Waits for keys, but not longer than `longest`.
    ///
    /// # Errors
    ///
    /// If the terminal is gone.
    pub(super) fn keys(&self, longest: Duration) -> io::Result<Vec<Key>> {
        let input = io::stdin();
        let mut wanted = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, longest.as_millis() as u16) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut bytes = [0; KEYS_BYTES_MAX];
        match nix::unistd::read(&input, &mut bytes)? {
            // A terminal in raw mode has no end but its own.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(keys_of(&bytes[..count])),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Returns the keys in `bytes`; what is none is left out.
fn keys_of(bytes: &[u8]) -> Vec<Key> {
    match bytes {
        // With nothing behind it, it begins no sequence.
        [0x1b] => vec![Key::Esc],
        _ => bytes.keys().flatten().collect(),
    }
}

/// Restores the terminal, if it was taken and was not restored before.
fn restore() {
    let Some(terminal) = TERMINAL.get() else { return };
    if !IS_RESTORED.swap(true, Ordering::SeqCst) {
        let _ = terminal.suspend_raw_mode();
        let mut output: &File = terminal;
        let _ = write!(output, "{}{}{}", style::Reset, cursor::Show, screen::ToMainScreen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_what_terminals_send() {
        assert_eq!(keys_of(b"q"), [Key::Char('q')]);
        assert_eq!(keys_of(b"\x1b[A\x1b[B\t"), [Key::Up, Key::Down, Key::Char('\t')]);
        assert_eq!(keys_of(b"\x1b"), [Key::Esc]);
        assert_eq!(keys_of(b"\x03"), [Key::Ctrl('c')]);
    }
}
