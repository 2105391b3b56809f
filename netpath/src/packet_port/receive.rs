//! The two ways in which a packet port receives.

use std::fmt;
use std::io;

use crate::port::FRAME_MIN;
use crate::ring::packet_ring::{Head, PacketRing, SLOT_BYTES, SLOTS};
use crate::sys::packet_socket::{FrameInfo, PacketSocket};

/// How a port shall receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceivePath {
    /// The ring if the kernel gives one, calls if not.
    #[default]
    Auto,
    /// A ring shared with the kernel: no system call for a look or for a frame.
    Ring,
    /// One system call for each look and each frame.
    Calls,
}

/// Receive buffer of the socket without a ring: bytes the kernel accounts, at some 768 for a small
/// frame, 256 full ones.
const SOCKET_BUFFER_BYTES: i32 = 1 << 20;

/// Frames on their way to us.
pub(super) enum Receiver {
    Ring { ring: PacketRing, head: Option<Head> },
    Calls { buffer: Box<[u8; SLOT_BYTES]>, length: Option<usize>, taken: u64, why: String },
}

/// The front of a frame, enough to judge it by.
pub(super) type Front = [u8; FRAME_MIN];

impl Receiver {
    /// Prepares a socket that is not bound yet.
    pub(super) fn new(socket: &PacketSocket, path: ReceivePath) -> io::Result<Receiver> {
        let why = match path {
            ReceivePath::Auto => match PacketRing::new(socket) {
                Ok(ring) => return Ok(Receiver::Ring { ring, head: None }),
                Err(error) => format!("no ring: {error}"),
            },
            ReceivePath::Ring => {
                return Ok(Receiver::Ring { ring: PacketRing::new(socket)?, head: None });
            }
            ReceivePath::Calls => "as configured".to_string(),
        };
        socket.set_receive_buffer(SOCKET_BUFFER_BYTES)?;
        Ok(Receiver::Calls { buffer: Box::new([0; SLOT_BYTES]), length: None, taken: 0, why })
    }

    /// Whether a frame may be there: a load, or the truth that only a call could tell.
    #[inline]
    pub(super) fn may_have_frame(&self) -> bool {
        match self {
            Receiver::Ring { ring, head } => head.is_some() || ring.has_frame(),
            Receiver::Calls { .. } => true,
        }
    }

    /// The number of the frame that is lent next, or of one that nobody wanted before it.
    pub(super) fn position(&self) -> u64 {
        match self {
            Receiver::Ring { ring, .. } => ring.taken(),
            Receiver::Calls { taken, .. } => *taken,
        }
    }

    /// The number of the first frame that has not arrived yet, or of an earlier one: `at_most` behind
    /// the next of a ring, or behind the one that was fetched.
    pub(super) fn arrived(&self, at_most: usize) -> u64 {
        match self {
            Receiver::Ring { ring, .. } => ring.arrived(at_most),
            Receiver::Calls { length, taken, .. } => taken + u64::from(length.is_some()),
        }
    }

    /// Whether a frame or an error is there.
    pub(super) fn announced(&self, socket: &PacketSocket) -> bool {
        match self {
            Receiver::Ring { ring, .. } => ring.has_frame(),
            // An error is something to see, too; whoever looks next gets it.
            Receiver::Calls { .. } => socket.is_readable().unwrap_or(true),
        }
    }

    /// Goes on to the next frame that `accept` takes; whether there is one. Frames that it does not
    /// take are gone. At most a ring's worth of them at a time, so that a flood does not hold us.
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

    /// Lends the frame fetched before, and is then done with it.
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
