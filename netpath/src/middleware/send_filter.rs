//! [`SendFilter`]: drops frames that must not be sent.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::middleware::trace::describe;
use crate::port::{FramePort, PortError, Wake};

/// A port that sends only the frames that a function allows. The others are dropped and counted; a warning shows the
/// first of them, and another one the number when the port is closed.
pub struct SendFilter<P, F> {
    port: P,
    allow: F,
    refused: u64,
}

impl<P: FramePort, F: Fn(&[u8]) -> bool> SendFilter<P, F> {
    /// Wraps `port`.
    pub fn new(port: P, allow: F) -> SendFilter<P, F> {
        SendFilter { port, allow, refused: 0 }
    }

    /// Returns how many frames were dropped.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl<P: FramePort, F: Fn(&[u8]) -> bool> FramePort for SendFilter<P, F> {
    fn has_frame(&self) -> bool {
        self.port.has_frame()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        self.port.receive(buffer)
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        if (self.allow)(frame) {
            return self.port.send(frame);
        }
        self.refused += 1;
        if self.refused == 1 {
            tracing::warn!(
                "the guest sends from an address that is not the VM's, and such frames are dropped (see --ip and \
                 --any-source): {}",
                describe(frame)
            );
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.port.flush()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.port.pollable()
    }

    fn handle_poll_event(&mut self) -> Result<(), PortError> {
        self.port.handle_poll_event()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        self.port.wait(timeout)
    }
}

impl<P, F> Drop for SendFilter<P, F> {
    fn drop(&mut self) {
        if self.refused > 1 {
            tracing::warn!(
                "{} frames from addresses that are not the VM's were dropped",
                self.refused
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::pcap::Pcap;
    use crate::null_port::NullPort;

    #[test]
    fn only_allowed_frames_are_sent_and_the_others_are_counted() {
        let mut capture = Vec::new();
        let port = Pcap::new(NullPort::new(), &mut capture);
        let mut port = SendFilter::new(port, |frame: &[u8]| frame[0] == 1);
        for first in [1, 2, 1, 3] {
            port.send(&[first; 60]).unwrap();
        }
        port.flush().unwrap();
        assert_eq!(port.refused(), 2);
        drop(port);
        let header_bytes = 24;
        let sent = capture[header_bytes..].chunks(16 + 60).map(|record| record[16]);
        assert_eq!(sent.collect::<Vec<_>>(), [1, 1]);
    }
}
