//! SIGBUS in guest memory that is mapped from a file.
//!
//! A page of a private mapping that was not written yet is still the file's page. If someone cuts the file short
//! while the VM runs, for example with `cp new.snap old.snap`, an access of this program to such a page raises
//! SIGBUS, whose default action ends the process without a message. The handler here writes one line to standard
//! error and ends the process with an exit code of its own.
//!
//! It decides by the address alone. A SIGBUS with another address, another cause (a memory error of the host) or
//! a sender gets the action that was installed before.
//!
//! An access by the guest itself makes `KVM_RUN` return EFAULT instead. The caller finds the reason in the file.

use super::error::KvmError;
use libc::{c_int, c_void, sigaction, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

/// Longest message, bytes. A pipe takes this much at once if poll(2) says that it is writable (`PIPE_BUF`).
const MESSAGE_BYTES_MAX: usize = 4096;

/// Longest wait for a standard error that is full, milliseconds.
const WRITE_MS_MAX: c_int = 100;

/// What the handler needs. It is complete before the handler is installed, and never changes.
struct Watched {
    /// Addresses of the mapping.
    addresses: Range<usize>,
    message: Vec<u8>,
    exit_code: u8,
    /// The action that was installed before.
    previous: sigaction,
}

static WATCHED: OnceLock<Watched> = OnceLock::new();

/// From here on, a SIGBUS at one of `addresses` writes `message` and a line break to standard error and ends the
/// process with `exit_code`. The mapping may end earlier than the process: an anonymous mapping at the same place
/// raises no SIGBUS of this kind.
///
/// # Errors
///
/// If sigaction(2) fails.
///
/// # Panics
///
/// If it was called before: a process maps the memory of one VM.
pub fn watch(addresses: Range<usize>, message: &str, exit_code: u8) -> Result<(), KvmError> {
    let mut message = message.as_bytes().to_vec();
    message.truncate(MESSAGE_BYTES_MAX - 1);
    message.push(b'\n');
    let previous = current_action()?;
    let watched = Watched { addresses, message, exit_code, previous };
    assert!(WATCHED.set(watched).is_ok(), "a process watches the memory of one VM");
    // Rust's threads have a stack of their own for handlers.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_bus_error), flags, SigSet::empty());
    // SAFETY: `on_bus_error` is async-signal-safe: it reads a cell that was set before, without a lock, and calls
    // only functions that signal-safety(7) lists.
    unsafe { nix::sys::signal::sigaction(Signal::SIGBUS, &action) }
        .map(|_previous| ())
        .map_err(KvmError::os("sigaction"))
}

fn current_action() -> Result<sigaction, KvmError> {
    // SAFETY: all-zero bytes are a valid `sigaction`: integers, and a null restorer.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with a null new action, sigaction(2) only writes the current one to `action`, which is large enough.
    match unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut action) } {
        0 => Ok(action),
        _ => Err(KvmError::Os { call: "sigaction", source: io::Error::last_os_error() }),
    }
}

extern "C" fn on_bus_error(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let Some(watched) = WATCHED.get() else {
        // The cell is set before the handler is installed.
        std::process::abort();
    };
    // SAFETY: to a handler with SA_SIGINFO the kernel passes a valid `siginfo_t`, whose address is meaningful if the
    // code says that the signal is a fault's; otherwise the number is not used.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code == libc::BUS_ADRERR && watched.addresses.contains(&address) {
        end(watched);
    }
    // SAFETY: sigaction(2) is async-signal-safe, and `previous` is an action that the kernel had accepted.
    unsafe { libc::sigaction(libc::SIGBUS, &watched.previous, ptr::null_mut()) };
    // After a fault, the instruction is executed again, and the signal comes again with all it says. A signal that
    // a process has sent does not come again.
    if code <= 0 {
        // SAFETY: raise(3) is async-signal-safe. The signal is blocked until this handler returns.
        unsafe { libc::raise(libc::SIGBUS) };
    }
}

/// Writes the message and ends the process. A standard error that is full does not keep it.
fn end(watched: &Watched) -> ! {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: poll(2), write(2) and _exit(2) are async-signal-safe. `stderr` is one valid pollfd, and the message is
    // readable for its length. This thread and the others are in any state, and _exit(2) runs none of their code.
    unsafe {
        if libc::poll(&mut stderr, 1, WRITE_MS_MAX) == 1 {
            libc::write(
                libc::STDERR_FILENO,
                watched.message.as_ptr().cast(),
                watched.message.len(),
            );
        }
        libc::_exit(watched.exit_code.into())
    }
}
