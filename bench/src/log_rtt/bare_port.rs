//! The channel's port without the channel: receive ring and io_uring; frames are echoed as they arrive.
//! The difference to the channel is the channel's own cost; the rest is the kernel's.

use super::variant::{Client, PAYLOAD_BYTES, Server, check, request};
use crate::PATIENCE;
use crate::error::BenchError;
use crate::lan::{Host, INTERFACE};
use logchan::time::Time;
use netpath::{FRAME_MAX, FRAME_MIN, FramePort, PacketConfig, PacketPort, WaitPolicy, Wake};

/// One side.
pub(super) struct BarePort {
    port: PacketPort,
    /// The Ethernet header of its frames.
    header: [u8; FRAME_MIN],
    frame: Box<[u8; FRAME_MAX]>,
}

impl BarePort {
    /// Opens the port. Must be called on its host.
    pub(super) fn open(host: Host, wait: WaitPolicy) -> Result<BarePort, BenchError> {
        let port = PacketPort::open(&PacketConfig { wait, ..PacketConfig::new(INTERFACE) })?;
        let header = port.header_to(host.other().mac());
        Ok(BarePort { port, header, frame: Box::new([0; FRAME_MAX]) })
    }

    fn send(&mut self, payload: &[u8; PAYLOAD_BYTES]) -> Result<(), BenchError> {
        let mut frame = [0; FRAME_MIN + PAYLOAD_BYTES];
        frame[..FRAME_MIN].copy_from_slice(&self.header);
        frame[FRAME_MIN..].copy_from_slice(payload);
        self.port.send(&frame)?;
        Ok(self.port.flush()?)
    }

    /// Receives the next message, which must be `number`.
    fn receive(&mut self, number: u64) -> Result<(), BenchError> {
        loop {
            if let Some(length) = self.port.receive(&mut self.frame[..])? {
                return check(&self.frame[FRAME_MIN..length], number);
            }
            match self.port.wait(Some(PATIENCE))? {
                Wake::Frame | Wake::Interrupted => {}
                Wake::Timeout => return Err(BenchError::no_answer("the other side")),
            }
        }
    }
}

impl Client for BarePort {
    fn exchange(&mut self, _now: Time, number: u64) -> Result<(), BenchError> {
        self.send(&request(number))?;
        self.receive(number)
    }
}

impl Server for BarePort {
    fn serve(&mut self, count: u64) -> Result<(), BenchError> {
        for number in 0..count {
            self.receive(number)?;
            self.send(&request(number))?;
        }
        Ok(())
    }
}
