//! [`Pcap`]: writes every frame to a capture file, in the classic pcap format.
//!
//! The format (draft-ietf-opsawg-pcap): a header of 24 bytes, then for each frame a header of 16 bytes
//! and the frame. Little-endian, nanosecond magic, link type 1 (Ethernet). Both directions go to one
//! file, in the order in which the port saw the frames; the format has no field for the direction.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::port::{FRAME_MAX, FramePort, PortError, Wake};

/// "Nanosecond-resolution" magic number. Readers find the byte order of the file from its byte order.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const VERSION: (u16, u16) = (2, 4);
const LINKTYPE_ETHERNET: u32 = 1;
const RECORD_HEADER_BYTES: usize = 16;

/// A port that writes its frames to `W` as they are received and sent.
///
/// The header of the file and each frame with its header are one `write` each, so that a `W` that does not
/// wait for its disk can drop whole frames. A write error ends the capture, but not the port: see
/// [`error`](Self::error).
pub struct Pcap<P, W: Write> {
    port: P,
    file: W,
    /// The bytes of one write.
    record: Vec<u8>,
    /// Time since the Unix epoch.
    clock: fn() -> Duration,
    error: Option<io::Error>,
    frames: u64,
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl<P: FramePort, W: Write> Pcap<P, W> {
    /// Starts a capture with the host's wall clock.
    pub fn new(port: P, file: W) -> Self {
        Self::with_clock(port, file, wall_clock)
    }

    /// Starts a capture whose timestamps come from `clock` (time since the Unix epoch).
    pub fn with_clock(port: P, file: W, clock: fn() -> Duration) -> Self {
        let record = Vec::with_capacity(RECORD_HEADER_BYTES + FRAME_MAX);
        let mut pcap = Pcap { port, file, record, clock, error: None, frames: 0 };
        let result = pcap.file.write_all(&file_header());
        pcap.check_write(result);
        pcap
    }

    /// Flushes the file.
    ///
    /// # Errors
    ///
    /// The write error that ended the capture, now or earlier.
    pub fn flush_file(&mut self) -> io::Result<()> {
        if let Some(error) = &self.error {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        self.file.flush()
    }

    /// The error that ended the capture, if one did.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Frames captured.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The wrapped port.
    pub fn port(&self) -> &P {
        &self.port
    }

    fn record(&mut self, frame: &[u8]) {
        if self.error.is_some() {
            return;
        }
        self.record.clear();
        self.record.extend_from_slice(&record_header((self.clock)(), frame.len()));
        self.record.extend_from_slice(frame);
        let result = self.file.write_all(&self.record);
        if self.check_write(result) {
            self.frames += 1;
        }
    }

    /// Ends the capture if `result` is an error, and returns whether it is none.
    fn check_write(&mut self, result: io::Result<()>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "packet capture ended: cannot write its file, check its disk");
                self.error = Some(error);
                false
            }
        }
    }
}

fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
    header[4..6].copy_from_slice(&VERSION.0.to_le_bytes());
    header[6..8].copy_from_slice(&VERSION.1.to_le_bytes());
    // Bytes 8 to 16: time zone and accuracy, both always zero.
    header[16..20].copy_from_slice(&(FRAME_MAX as u32).to_le_bytes());
    header[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    header
}

fn record_header(time: Duration, length: usize) -> [u8; RECORD_HEADER_BYTES] {
    // The format has 32 bits of seconds, which last until 2106.
    let fields = [time.as_secs() as u32, time.subsec_nanos(), length as u32, length as u32];
    let mut header = [0; RECORD_HEADER_BYTES];
    for (bytes, field) in header.chunks_exact_mut(4).zip(fields) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
    header
}

impl<P: FramePort, W: Write> FramePort for Pcap<P, W> {
    fn has_frame(&self) -> bool {
        self.port.has_frame()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        let received = self.port.receive(buffer)?;
        if let Some(length) = received {
            self.record(&buffer[..length]);
        }
        Ok(received)
    }

    /// Captures the frame when it is queued, not when it leaves.
    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        self.port.send(frame)?;
        self.record(frame);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn clock() -> Duration {
        Duration::new(0x6502_0304, 5)
    }

    #[test]
    fn capture_of_both_directions_is_golden() {
        let (a, mut b) = testing::pair();
        let mut file = Vec::new();
        {
            let mut pcap = Pcap::with_clock(a, &mut file, clock);
            pcap.send(&[0xaa; 14]).unwrap();
            b.send(&[0xbb; 15]).unwrap();
            b.flush().unwrap();
            assert_eq!(pcap.receive(&mut [0; FRAME_MAX]).unwrap(), Some(15));
            assert_eq!(pcap.receive(&mut [0; FRAME_MAX]).unwrap(), None);
            assert_eq!(pcap.frames(), 2);
        }
        let mut golden = vec![
            0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xee, 5, 0, 0, 1, 0, 0, 0,
        ];
        golden.extend([4, 3, 2, 0x65, 5, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0]);
        golden.extend([0xaa; 14]);
        golden.extend([4, 3, 2, 0x65, 5, 0, 0, 0, 15, 0, 0, 0, 15, 0, 0, 0]);
        golden.extend([0xbb; 15]);
        assert_eq!(file, golden);
    }

    #[test]
    fn full_disk_ends_the_capture_but_not_the_port() {
        let (a, mut b) = testing::pair();
        // Room for the file header and nothing else.
        let mut disk = [0u8; 24];
        let mut pcap = Pcap::new(a, &mut disk[..]);
        for _ in 0..1000 {
            pcap.send(&[1; 60]).unwrap();
        }
        pcap.flush().unwrap();
        assert!(pcap.flush_file().is_err() && pcap.error().is_some());
        assert_eq!(b.receive(&mut [0; FRAME_MAX]).unwrap(), Some(60));
    }
}
