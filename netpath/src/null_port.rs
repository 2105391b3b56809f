//! [`NullPort`]: the port of a VM without a network.

use std::time::Duration;

use crate::port::{FramePort, PortError, Wake, assert_receive_buffer};
use crate::sys::signal::{self, SignalMask};

/// A port that never receives a frame and discards the frames that are sent.
#[derive(Debug, Default)]
pub struct NullPort {
    wake_signal: Option<i32>,
}

impl NullPort {
    /// A port whose [`wait`](FramePort::wait) ends for any signal that is not blocked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Unblocks `signal` while waiting, as
    /// [`WaitPolicy::wake_signal`](crate::wait::WaitPolicy::wake_signal) does.
    pub fn with_wake_signal(signal: i32) -> Self {
        Self { wake_signal: Some(signal) }
    }
}

impl FramePort for NullPort {
    fn has_frame(&self) -> bool {
        false
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        assert_receive_buffer(buffer);
        Ok(None)
    }

    fn send(&mut self, _frame: &[u8]) -> Result<(), PortError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    /// Sleeps; with `None` until a signal arrives.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        let mask = match self.wake_signal {
            Some(signal) => Some(
                SignalMask::current_without(signal)
                    .map_err(PortError::system("cannot read the signal mask"))?,
            ),
            None => None,
        };
        match signal::sleep(timeout, mask.as_ref()) {
            Ok(()) => Ok(Wake::Timeout),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Ok(Wake::Interrupted),
            Err(e) => Err(PortError::System { doing: "cannot sleep in ppoll", source: e }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::FRAME_MAX;

    #[test]
    fn null_port_is_silent_and_times_out() {
        let mut port: Box<dyn FramePort + Send> = Box::new(NullPort::new());
        port.send(&[0; 60]).unwrap();
        port.flush().unwrap();
        assert!(!port.has_frame());
        assert_eq!(port.receive(&mut [0; FRAME_MAX]).unwrap(), None);
        assert_eq!(port.wait(Some(Duration::from_millis(1))).unwrap(), Wake::Timeout);
    }
}
