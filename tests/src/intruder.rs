//! An attacker on the wire of the logging channel who reads everything but has no key, and sends
//! harmful frames: one kind for each way in which a frame can be invalid.

use crate::wire::Side;
use netpath::packet_port::CHANNEL_ETHERTYPE;
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of an Ethernet header, and of the seal header behind it.
const ETHERNET_BYTES: usize = 14;
const SEAL_BYTES: usize = 16;

/// Captured frames to keep.
const CAPTURED_MAX: usize = 256;

/// Frames per burst. Between bursts the intruder captures frames and yields the core.
const BURST: usize = 64;

/// The way in which a frame is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// A valid frame, sent again.
    Replayed,
    /// A valid frame of an earlier session.
    OldSession,
    /// A frame of the current session with a future frame number and otherwise random contents.
    Forged,
    /// A forged first or second message of a handshake.
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
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    own: [u8; 6],
    /// Captured frames of this host's endpoint, the newest last.
    captured: Vec<Vec<u8>>,
    random: fastrand::Rng,
}

impl Intruder {
    /// Opens the wire on `side`, in the namespace of the calling thread.
    pub fn open(side: Side, seed: u64) -> Intruder {
        let interfaces = datalink::interfaces();
        let interface = interfaces.iter().find(|found| found.name == side.interface());
        let interface = interface.expect("the wire is there");
        let config = Config {
            write_buffer_size: 1 << 16,
            read_timeout: Some(Duration::ZERO),
            ..Config::default()
        };
        let Ok(Channel::Ethernet(sender, receiver)) = datalink::channel(interface, config) else {
            panic!("no raw socket on {}: run this as root", side.interface());
        };
        let own = interface.mac.expect("an Ethernet interface").octets();
        let (captured, random) = (Vec::new(), fastrand::Rng::with_seed(seed));
        Intruder { sender, receiver, own, captured, random }
    }

    /// Captures the frames that this host sent since the last call.
    pub fn capture(&mut self) {
        loop {
            match self.receiver.next() {
                Ok(frame) => {
                    let is_channel = frame[12..14] == CHANNEL_ETHERTYPE.to_be_bytes();
                    if is_channel && frame[6..12] == self.own {
                        self.captured.push(frame.to_vec());
                    }
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => panic!("the intruder cannot capture frames: {error}"),
            }
        }
        let old = self.captured.len().saturating_sub(CAPTURED_MAX);
        self.captured.drain(..old);
    }

    /// Returns the frames captured last.
    pub fn captured(&self) -> &[Vec<u8>] {
        &self.captured
    }

    /// Sends random kinds of frames until `stop` is set and counts each kind in `sent`. `old` are
    /// frames of an earlier session.
    pub fn attack(&mut self, old: &[Vec<u8>], sent: &Sent, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.capture();
            for _ in 0..BURST {
                let index = self.random.usize(..sent.len());
                let Some(frame) = self.frame(Attack::ALL[index], old) else { continue };
                // The frame is not sent if the queue is full.
                let is_sent = matches!(self.sender.send_to(&frame, None), Some(Ok(())));
                sent[index].fetch_add(u64::from(is_sent), Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
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
        let seal = ETHERNET_BYTES;
        match attack {
            Attack::Replayed | Attack::OldSession => {}
            Attack::Forged => {
                // Changes the frame number: bytes 8 to 16 of the seal header.
                frame[seal + 11] ^= 1 + random.u8(..255);
                random.fill(&mut frame[seal + SEAL_BYTES..]);
            }
            Attack::ForgedHandshake => {
                // Kind 1 or 2, with the identifier that is derived from the key in the initiation.
                frame.resize(seal + SEAL_BYTES + 97, 0);
                frame[seal + 1] = random.u8(1..=2);
                frame[seal + 2..seal + 4].copy_from_slice(&97_u16.to_le_bytes());
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
