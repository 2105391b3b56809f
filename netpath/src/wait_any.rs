//! Waiting for several ports at once.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::error::PortError;
use crate::port::{FramePort, Wake};
use crate::sys::signal::{self, SignalMask};
use crate::wait::{WaitPolicy, spin};

/// Waits until one of `ports` has a frame, a signal came, or `timeout` passed, as each of them would
/// alone under `policy`: look, look and yield, block. What was queued for sending leaves first.
///
/// A port that cannot be polled (there is nothing to wait for on it) ends the wait by nothing.
pub fn wait_any<const N: usize>(
    ports: &mut [&mut dyn FramePort; N],
    policy: &WaitPolicy,
    timeout: Option<Duration>,
) -> Result<Wake, PortError> {
    for port in ports.iter_mut() {
        port.flush()?;
    }
    let seen = |ports: &[&mut dyn FramePort; N]| ports.iter().any(|port| port.has_frame());
    if seen(ports) {
        return Ok(Wake::Frame);
    }
    let mut now = Instant::now();
    let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
    if spin(policy, &mut now, deadline, || seen(ports)) {
        return Ok(Wake::Frame);
    }
    let mask = policy.wake_signal.map(SignalMask::current_without).transpose();
    let mask = mask.map_err(PortError::system("cannot read the signal mask"))?;
    let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
    if left.is_some_and(|left| left.is_zero()) {
        return Ok(Wake::Timeout);
    }
    let files: [Option<BorrowedFd<'_>>; N] = std::array::from_fn(|index| ports[index].pollable());
    match signal::poll_any(files, left, mask.as_ref()) {
        Ok(found) => {
            for (port, events) in ports.iter_mut().zip(found) {
                if events & !libc::POLLIN != 0 {
                    port.attend()?;
                }
            }
            let frame = found.iter().any(|events| events & libc::POLLIN != 0);
            Ok(if frame { Wake::Frame } else { Wake::Timeout })
        }
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(Wake::Interrupted),
        Err(source) => Err(PortError::System { doing: "cannot wait in ppoll", source }),
    }
}
