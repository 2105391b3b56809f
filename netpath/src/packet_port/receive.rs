//! The two ways in which a packet port receives: a ring shared with the kernel, or system calls.

use std::fmt;
use std::io;

use crate::port::FRAME_MIN;
use crate::ring::packet_ring::{Head, PacketRing, SLOT_BYTES, SLOTS};
use crate::sys::packet_socket::{FrameInfo, PacketSocket};

/// How a port receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceivePath {
    /// The ring if the kernel provides one, otherwise system calls.
    #[default]
    Auto,
    /// A ring shared with the kernel: neither polling nor receiving makes a system call.
    Ring,
    /// One system call for each poll and each frame.
    Calls,
}

/// Receive buffer of a socket without a ring, in bytes as the kernel accounts for them: about 768 for a
/// small frame. The buffer holds 256 frames of full length.
const SOCKET_BUFFER_BYTES: i32 = 1 << 20;

/// What the kernel accounts for a small frame that waits in such a buffer, in bytes, at least.
const SMALL_FRAME_BYTES: usize = 512;

/// The receive side of a port. At most one frame is fetched (`head`, `length`) before it is taken.
pub(super) enum Receiver {
    Ring { ring: PacketRing, head: Option<Head> },
    Calls { buffer: Box<[u8; SLOT_BYTES]>, length: Option<usize>, taken: u64, why: String },
}

/// The first bytes of a frame, as many as the filter needs.
pub(super) type Front = [u8; FRAME_MIN];

impl Receiver {
    /// Prepares a socket that is not bound yet for receiving.
    pub(super) fn prepare(socket: &PacketSocket, path: ReceivePath) -> io::Result<()> {
        let has_ring = match path {
            ReceivePath::Auto => PacketRing::make(socket).is_ok(),
            ReceivePath::Ring => PacketRing::make(socket).map(|()| true)?,
            ReceivePath::Calls => false,
        };
        if has_ring { Ok(()) } else { socket.set_receive_buffer(SOCKET_BUFFER_BYTES) }
    }

    /// Receives from a socket that was prepared, perhaps by another process.
    pub(super) fn new(socket: &PacketSocket, path: ReceivePath) -> io::Result<Receiver> {
        let why = match path {
            // A socket without a ring can't be mapped.
            ReceivePath::Auto => match PacketRing::map(socket) {
                Ok(ring) => return Ok(Receiver::Ring { ring, head: None }),
                Err(error) => format!("no ring: {error}"),
            },
            ReceivePath::Ring => {
                return Ok(Receiver::Ring { ring: PacketRing::map(socket)?, head: None });
            }
            ReceivePath::Calls => "as configured".to_string(),
        };
        Ok(Receiver::Calls { buffer: Box::new([0; SLOT_BYTES]), length: None, taken: 0, why })
    }

    /// Whether a frame may be waiting: one load with a ring, always true without one, because only a
    /// system call could tell.
    #[inline]
    pub(super) fn may_have_frame(&self) -> bool {
        match self {
            Receiver::Ring { ring, head } => head.is_some() || ring.has_frame(),
            Receiver::Calls { .. } => true,
        }
    }

    /// The most frames that can wait.
    pub(super) fn frames_max(&self) -> usize {
        match self {
            Receiver::Ring { .. } => SLOTS,
            // The kernel doubles what it was asked for.
            Receiver::Calls { .. } => 2 * SOCKET_BUFFER_BYTES as usize / SMALL_FRAME_BYTES,
        }
    }

    /// The number of the next frame to take. Frames that the filter discards before it count too.
    pub(super) fn position(&self) -> u64 {
        match self {
            Receiver::Ring { ring, .. } => ring.taken(),
            Receiver::Calls { taken, .. } => *taken,
        }
    }

    /// A number below which all frames have arrived: with a ring, of the first frame that has not arrived,
    /// but at most `at_most` after the next one; without a ring, of the frame after the fetched one.
    pub(super) fn arrived(&self, at_most: usize) -> u64 {
        match self {
            Receiver::Ring { ring, .. } => ring.arrived(at_most),
            Receiver::Calls { length, taken, .. } => taken + u64::from(length.is_some()),
        }
    }

    /// Whether a frame or an error is waiting.
    pub(super) fn announced(&self, socket: &PacketSocket) -> bool {
        match self {
            Receiver::Ring { ring, .. } => ring.has_frame(),
            // An error counts as announced, so that the next fetch reports it.
            Receiver::Calls { .. } => socket.is_readable().unwrap_or(true),
        }
    }

    /// Fetches the next frame that `accept` accepts and returns whether there is one. Discards the frames
    /// that it does not accept, at most a ring's worth per call, so that a flood cannot keep the caller here.
    pub(super) fn fetch(
        &mut self,
        socket: &PacketSocket,
        mut accept: impl FnMut(&Front, &FrameInfo) -> bool,
    ) -> io::Result<bool> {
        let mut front = Front::default();
        for _ in 0..SLOTS {
            match self {
                Receiver::Ring { head: Some(_), .. } | Receiver::Calls { length: Some(_), .. } => {
                    return Ok(true);
                }
                Receiver::Ring { ring, head } => {
                    let Some(next) = ring.head() else { return Ok(false) };
                    let there = next.info.length.min(FRAME_MIN);
                    ring.copy(&next, &mut front[..there]);
                    if accept(&front, &next.info) {
                        *head = Some(next);
                    } else {
                        ring.release();
                    }
                }
                Receiver::Calls { buffer, length, .. } => {
                    let Some(info) = socket.receive(&mut buffer[..])? else { return Ok(false) };
                    front.copy_from_slice(&buffer[..FRAME_MIN]);
                    if accept(&front, &info) {
                        *length = Some(info.length);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Passes the fetched frame to `with`, then discards it.
    ///
    /// # Panics
    ///
    /// If no frame was fetched.
    pub(super) fn take<R>(&mut self, with: impl FnOnce(&mut [u8]) -> R) -> R {
        match self {
            Receiver::Ring { ring, head } => {
                let head = head.take().expect("a frame was fetched");
                let result = with(ring.frame_mut(&head));
                ring.release();
                result
            }
            Receiver::Calls { buffer, length, taken, .. } => {
                *taken += 1;
                with(&mut buffer[..length.take().expect("a frame was fetched")])
            }
        }
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Receiver::Ring { .. } => {
                write!(f, "TPACKET_V2 ring of {SLOTS} frames of {SLOT_BYTES} bytes")
            }
            Receiver::Calls { why, .. } => write!(f, "recvfrom ({why})"),
        }
    }
}
