//! Somebody on the wire of the logging channel who hears everything, has no key, and sends what may do
//! harm: one kind of frame for each way of being wrong.

use crate::wire::Side;
use netpath::packet_port::CHANNEL_ETHERTYPE;
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of an Ethernet header, and of a seal's behind it.
const ETHERNET_BYTES: usize = 14;
const SEAL_BYTES: usize = 16;

/// Frames of the endpoint that are remembered.
const HEARD_MAX: usize = 256;

/// Frames sent before the intruder listens again and lets others run.
const BURST: usize = 64;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Nothing, but it was sent before.
    Replayed,
    /// A frame of a session that is over.
    OldSession,
    /// A frame of the session with a number to come, and nothing else right.
    Forged,
    /// The first or second message of a handshake, made up.
    ForgedHandshake,
    /// Said to be without protection.
    Unprotected,
    /// One bit.
    BitFlipped,
    /// The end is missing.
    Truncated,
    /// Longer than a port takes.
    Oversized,
    /// From another station.
    ForeignSource,
    /// To another station, or to all.
    ForeignDestination,
    /// Of a VLAN.
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

/// Frames that were sent of each kind, in the order of [`Attack::ALL`].
pub type Sent = [AtomicU64; Attack::ALL.len()];

/// On one host, beside the endpoint there: what it sends comes to the other host as if it were that
/// endpoint's.
pub struct Intruder {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    own: [u8; 6],
    /// Frames that the endpoint here sent, the newest last.
    heard: Vec<Vec<u8>>,
    random: fastrand::Rng,
}

impl Intruder {
    /// Opens the wire on this side, in the namespace of the calling thread.
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
        let (heard, random) = (Vec::new(), fastrand::Rng::with_seed(seed));
        Intruder { sender, receiver, own, heard, random }
    }

    /// Takes in what was sent from here since the last call.
    pub fn listen(&mut self) {
        loop {
            match self.receiver.next() {
                Ok(frame) => {
                    let is_channel = frame[12..14] == CHANNEL_ETHERTYPE.to_be_bytes();
                    if is_channel && frame[6..12] == self.own {
                        self.heard.push(frame.to_vec());
                    }
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => panic!("the intruder hears nothing: {error}"),
            }
        }
        let old = self.heard.len().saturating_sub(HEARD_MAX);
        self.heard.drain(..old);
    }

    /// What was heard last.
    pub fn heard(&self) -> &[Vec<u8>] {
        &self.heard
    }

    /// Sends a frame of every kind, over and over, until `stop`, and counts each. `old` are frames of a
    /// session before.
    pub fn attack(&mut self, old: &[Vec<u8>], sent: &Sent, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.listen();
            for _ in 0..BURST {
                let index = self.random.usize(..sent.len());
                let Some(frame) = self.frame(Attack::ALL[index], old) else { continue };
                // Its queue may be full: then one frame less.
                let is_sent = matches!(self.sender.send_to(&frame, None), Some(Ok(())));
                sent[index].fetch_add(u64::from(is_sent), Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// A frame with something wrong; none while there is nothing to make it of.
    fn frame(&mut self, attack: Attack, old: &[Vec<u8>]) -> Option<Vec<u8>> {
        let random = &mut self.random;
        let heard = match attack {
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
            | Attack::Noise => &self.heard,
        };
        let mut frame = heard.get(random.usize(..heard.len().max(1)))?.clone();
        let seal = ETHERNET_BYTES;
        match attack {
            Attack::Replayed | Attack::OldSession => {}
            Attack::Forged => {
                // Its number: bytes 8 to 16 of the seal's header.
                frame[seal + 11] ^= 1 + random.u8(..255);
                random.fill(&mut frame[seal + SEAL_BYTES..]);
            }
            Attack::ForgedHandshake => {
                // Kind 1 or 2, and the name that an initiation's own key gives it.
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
