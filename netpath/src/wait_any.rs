//! [`wait_any`]: waits for several ports at once.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::error::PortError;
use crate::port::{FramePort, Wake};
use crate::sys::signal::{self, SignalMask};
use crate::wait::{WaitPolicy, spin};

/// Waits until one of `ports` has a frame, a signal arrives or `timeout` passes, in the way each of them
/// waits alone under `policy`: polls, polls and yields, then blocks. Flushes all ports first.
///
/// A port whose [`pollable`](FramePort::pollable) is `None` cannot end the block.
///
/// # Errors
///
/// [`PortError`] if a port fails to flush or to handle a poll event, or a system call fails.
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
                    port.handle_poll_event()?;
                }
            }
            let frame = found.iter().any(|events| events & libc::POLLIN != 0);
            Ok(if frame { Wake::Frame } else { Wake::Timeout })
        }
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(Wake::Interrupted),
        Err(source) => Err(PortError::System { doing: "cannot wait in ppoll", source }),
    }
}
