//! An attacker on the wire of the logging channel who reads everything but has no key, and sends
//! harmful frames: one kind for each way in which a frame can be invalid.

use crate::TestbedError;
use pnet_datalink::{self as datalink, Channel, Config, DataLinkReceiver, DataLinkSender};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of an Ethernet header, of the number of the VM behind it, and of the seal header behind that.
const ETHERNET_BYTES: usize = 14;
const VM_BYTES: usize = 8;
const SEAL_BYTES: usize = 16;
/// Bytes of the tag at its end.
const TAG_BYTES: usize = 16;

/// Captured frames to keep.
const CAPTURED_MAX: usize = 256;

/// How many frames an intruder sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Frames per burst.
    pub burst: usize,
    /// Pause between bursts. The intruder captures frames then, and yields the core.
    pub pause: Duration,
}

impl Intensity {
    /// As many frames as the intruder can send.
    pub const FLOOD: Intensity = Intensity { burst: 64, pause: Duration::from_micros(100) };
}

/// The way in which a frame is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// A valid frame, sent again.
    Replayed,
    /// A valid frame of an earlier session.
    OldSession,
    /// A frame of the current session with a future frame number and otherwise random contents.
    Forged,
    /// A forged frame of a handshake.
    ForgedHandshake,
    /// The header claims that the frame is not sealed.
    Unprotected,
    /// One bit is flipped.
    BitFlipped,
    /// The end is cut off.
    Truncated,
    /// Longer than a port accepts.
    Oversized,
    /// From another station.
    ForeignSource,
    /// To another station, or to all.
    ForeignDestination,
    /// With a VLAN tag.
    ForeignVlan,
    /// Random bytes.
    Noise,
}

impl Attack {
    /// Every kind.
    pub const ALL: [Attack; 12] = [
        Attack::Replayed,
        Attack::OldSession,
        Attack::Forged,
        Attack::ForgedHandshake,
        Attack::Unprotected,
        Attack::BitFlipped,
        Attack::Truncated,
        Attack::Oversized,
        Attack::ForeignSource,
        Attack::ForeignDestination,
        Attack::ForeignVlan,
        Attack::Noise,
    ];
}

/// Number of frames sent of each kind, in the order of [`Attack::ALL`].
pub type Sent = [AtomicU64; Attack::ALL.len()];

/// An attacker on the host of one endpoint. The other host receives its frames as if they came from
/// that endpoint.
pub struct Intruder {
    interface: String,
    ethertype: u16,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    own: [u8; 6],
    /// Captured frames of this host's endpoint, the newest last.
    captured: Vec<Vec<u8>>,
    random: fastrand::Rng,
}

impl Intruder {
    /// Opens `interface`, in the namespace of the calling thread. The channel has frames of `ethertype`.
    ///
    /// # Errors
    ///
    /// If there is no such Ethernet interface, or no raw socket can be opened.
    pub fn open(interface: &str, ethertype: u16, seed: u64) -> Result<Intruder, TestbedError> {
        let open = || -> io::Result<Intruder> {
            let interfaces = datalink::interfaces();
            let found = interfaces.iter().find(|found| found.name == interface);
            let found = found.ok_or(ErrorKind::NotFound)?;
            let config = Config {
                write_buffer_size: 1 << 16,
                read_timeout: Some(Duration::ZERO),
                ..Config::default()
            };
            let Channel::Ethernet(sender, receiver) = datalink::channel(found, config)? else {
                return Err(ErrorKind::Unsupported.into());
            };
            let own = found.mac.ok_or(ErrorKind::Unsupported)?.octets();
            let (captured, random) = (Vec::new(), fastrand::Rng::with_seed(seed));
            let interface = interface.to_owned();
            Ok(Intruder { interface, ethertype, sender, receiver, own, captured, random })
        };
        open().map_err(TestbedError::client(format!("opening a raw socket on {interface}")))
    }

    /// Captures the frames that this host sent since the last call.
    ///
    /// # Errors
    ///
    /// If the interface can't be read.
    pub fn capture(&mut self) -> Result<(), TestbedError> {
        loop {
            match self.receiver.next() {
                Ok(frame) => {
                    let is_channel = frame.get(12..14) == Some(&self.ethertype.to_be_bytes()[..]);
                    if is_channel && frame[6..12] == self.own {
                        self.captured.push(frame.to_vec());
                    }
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => {
                    let doing = format!("capturing frames on {}", self.interface);
                    return Err(TestbedError::client(doing)(error));
                }
            }
        }
        let old = self.captured.len().saturating_sub(CAPTURED_MAX);
        self.captured.drain(..old);
        Ok(())
    }

    /// Returns the frames captured last.
    pub fn captured(&self) -> &[Vec<u8>] {
        &self.captured
    }

    /// Sends random kinds of frames until `stop` is set and counts each kind in `sent`. `old` are
    /// frames of an earlier session.
    ///
    /// # Errors
    ///
    /// If the interface can't be read.
    pub fn attack(
        &mut self,
        old: &[Vec<u8>],
        intensity: Intensity,
        sent: &Sent,
        stop: &AtomicBool,
    ) -> Result<(), TestbedError> {
        while !stop.load(Ordering::Relaxed) {
            self.capture()?;
            for _ in 0..intensity.burst {
                let index = self.random.usize(..sent.len());
                let Some(frame) = self.frame(Attack::ALL[index], old) else { continue };
                // The frame is not sent if the queue is full.
                let is_sent = matches!(self.sender.send_to(&frame, None), Some(Ok(())));
                sent[index].fetch_add(u64::from(is_sent), Ordering::Relaxed);
            }
            std::thread::sleep(intensity.pause);
        }
        Ok(())
    }

    /// Builds an invalid frame from a captured one; returns `None` if none was captured yet.
    fn frame(&mut self, attack: Attack, old: &[Vec<u8>]) -> Option<Vec<u8>> {
        let random = &mut self.random;
        let captured = match attack {
            Attack::OldSession => old,
            Attack::Replayed
            | Attack::Forged
            | Attack::ForgedHandshake
            | Attack::Unprotected
            | Attack::BitFlipped
            | Attack::Truncated
            | Attack::Oversized
            | Attack::ForeignSource
            | Attack::ForeignDestination
            | Attack::ForeignVlan
            | Attack::Noise => &self.captured,
        };
        let mut frame = captured.get(random.usize(..captured.len().max(1)))?.clone();
        // Frames of another VM would not reach the endpoint.
        let seal = ETHERNET_BYTES + VM_BYTES;
        match attack {
            Attack::Replayed | Attack::OldSession => {}
            Attack::Forged => {
                // Changes the frame number: bytes 8 to 16 of the seal header.
                frame[seal + 11] ^= 1 + random.u8(..255);
                random.fill(&mut frame[seal + SEAL_BYTES..]);
            }
            Attack::ForgedHandshake => {
                // Initiation, response, request or challenge.
                frame.resize(seal + SEAL_BYTES + 129 + TAG_BYTES, 0);
                frame[seal + 1] = [1, 2, 6, 7][random.usize(..4)];
                frame[seal + 2..seal + 4].copy_from_slice(&129_u16.to_le_bytes());
                random.fill(&mut frame[seal + SEAL_BYTES..]);
                frame.copy_within(seal + SEAL_BYTES..seal + SEAL_BYTES + 4, seal + 4);
            }
            Attack::Unprotected => frame[seal + 1] |= 0x80,
            Attack::BitFlipped => {
                let bit = random.usize(8 * seal..8 * frame.len());
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            Attack::Truncated => frame.truncate(random.usize(ETHERNET_BYTES..frame.len())),
            Attack::Oversized => frame.resize(random.usize(1519..8000), 0),
            Attack::ForeignSource => frame[11] ^= 0x40,
            Attack::ForeignDestination if random.bool() => frame[..6].fill(0xff),
            Attack::ForeignDestination => frame[5] ^= 0x40,
            Attack::ForeignVlan => drop(frame.splice(12..12, [0x81, 0x00, 0x00, 0x05])),
            Attack::Noise => random.fill(&mut frame[seal..]),
        }
        Some(frame)
    }
}
