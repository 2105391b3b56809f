//! Cryptography of the handshake: `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s`.
//!
//! ```text
//! -> psk, e          identity of the initiator
//! <- e, ee           identity of the responder
//! ```
//!
//! **Why NNpsk0.** The two hosts share one secret and nothing else. A pattern with static keys (KK)
//! would need two key pairs to be generated, distributed and stored, and would authenticate no more than
//! the shared secret does. `psk0` mixes the secret in before the first byte, so the tag of a first
//! message from a sender without the secret fails before any Diffie-Hellman operation. The ephemeral
//! exchange gives each session keys that do not follow from the shared secret alone, so its later
//! disclosure does not reveal them.
//!
//! ChaChaPoly is used here although AEGIS seals the frames: a handshake has only two messages, and snow
//! 0.10 does not compile without ChaChaPoly.
//!
//! The challenge that the first message comes with is part of the prologue, so a message is bound to it. It shows
//! that the message was made after the challenge was drawn, but not that its sender still lives. The responder
//! therefore only answers it, and takes the session into use when the initiator shows that it has the session's
//! keys.

use alloc::boxed::Box;
use core::fmt;

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::{Builder, HandshakeState};
use zeroize::Zeroize;

use super::key::PresharedKey;
use super::message::Challenge;
use crate::seal::{KEY_BYTES, Protection, VERSION};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Bytes of a Curve25519 public key.
pub(super) const EPHEMERAL_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Bytes of each of the two messages in addition to its payload.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = EPHEMERAL_BYTES + TAG_BYTES;

/// Source of randomness: the operating system in production, a seeded generator in a simulation.
pub trait Entropy {
    /// Fills `bytes` with unpredictable bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Entropy for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}

/// How a link is protected.
#[derive(Debug)]
pub enum Security {
    /// By a pre-shared key.
    Sealed(PresharedKey),
    /// Not protected. The handshake is the same, under a well-known key of zeros, so mismatches are
    /// found, but anyone on the LAN can join and read.
    Insecure,
}

impl Security {
    pub(super) fn protection(&self) -> Protection {
        match self {
            Security::Sealed(_) => Protection::Sealed,
            Security::Insecure => Protection::Insecure,
        }
    }

    /// Returns the pre-shared key.
    pub(super) fn key_bytes(&self) -> &[u8; KEY_BYTES] {
        match self {
            Security::Sealed(key) => key.bytes(),
            Security::Insecure => &[0; KEY_BYTES],
        }
    }
}

/// The keys of a new session. They are wiped when dropped.
pub(super) struct SessionKeys {
    /// Identifies the keys; the same at both ends.
    pub(super) key_id: u32,
    pub(super) send: [u8; KEY_BYTES],
    pub(super) receive: [u8; KEY_BYTES],
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        self.send.zeroize();
        self.receive.zeroize();
    }
}

/// A message that no peer with our key sent to us at this point of the handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forged;

/// A handshake in progress.
pub(super) struct Noise(HandshakeState);

impl Noise {
    /// Creates the side that sends the first message, for the responder's `challenge`.
    pub(super) fn initiator(
        security: &Security,
        challenge: &Challenge,
        entropy: &mut dyn Entropy,
    ) -> Noise {
        Noise::new(security, challenge, entropy, |builder| builder.build_initiator())
    }

    /// Creates the side that receives the first message, which came with `challenge`.
    pub(super) fn responder(
        security: &Security,
        challenge: &Challenge,
        entropy: &mut dyn Entropy,
    ) -> Noise {
        Noise::new(security, challenge, entropy, |builder| builder.build_responder())
    }

    fn new(
        security: &Security,
        challenge: &Challenge,
        entropy: &mut dyn Entropy,
        build: fn(Builder<'_>) -> Result<HandshakeState, snow::Error>,
    ) -> Noise {
        let word = match security {
            Security::Sealed(_) => b's',
            Security::Insecure => b'i',
        };
        let prologue = [b"understudy ".as_slice(), &[word, VERSION], challenge].concat();
        let params: NoiseParams = PATTERN.parse().expect("snow supports the pattern");
        let mut seed = [0; EPHEMERAL_BYTES];
        entropy.fill(&mut seed);
        let builder = Builder::with_resolver(params, Box::new(Primitives { seed }));
        seed.zeroize();
        let state = builder
            .psk(0, security.key_bytes())
            .and_then(|b| b.prologue(&prologue))
            .and_then(build);
        Noise(state.expect("the key and the prologue are set"))
    }

    /// Writes our message around `payload` and returns the message's length.
    pub(super) fn write(&mut self, payload: &[u8], message: &mut [u8]) -> usize {
        self.0.write_message(payload, message).expect("it is our turn, and the buffer has room")
    }

    /// Reads the peer's message and returns the length of its payload. A message that is refused does
    /// not change the state, so the genuine one may follow.
    pub(super) fn read(&mut self, message: &[u8], payload: &mut [u8]) -> Result<usize, Forged> {
        self.0.read_message(message, payload).map_err(|_| Forged)
    }

    /// Returns the session's keys after both messages (Noise specification, section 5.2, `Split`).
    pub(super) fn keys(mut self) -> SessionKeys {
        assert!(self.0.is_handshake_finished(), "no keys before both messages");
        let initiator = self.0.is_initiator();
        let hash = self.0.get_handshake_hash();
        let key_id = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
        // Sealing in place with a header as associated data needs the raw keys: snow's own transport
        // copies, and takes no associated data.
        let (mut first, mut second) = self.0.dangerously_get_raw_split();
        let (send, receive) = if initiator { (first, second) } else { (second, first) };
        first.zeroize();
        second.zeroize();
        SessionKeys { key_id, send, receive }
    }
}

impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Noise(..)")
    }
}

/// Primitives for snow: its own, except that the randomness for one ephemeral key is ours.
struct Primitives {
    seed: [u8; EPHEMERAL_BYTES],
}

impl Drop for Primitives {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        Some(Box::new(OneSeed(Some(self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn snow::types::Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn snow::types::Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn snow::types::Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Returns its bytes once: each side of a handshake generates one ephemeral key.
struct OneSeed(Option<[u8; EPHEMERAL_BYTES]>);

impl snow::types::Random for OneSeed {
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), snow::Error> {
        let mut seed = self.0.take().ok_or(snow::Error::Rng)?;
        if to.len() != seed.len() {
            return Err(snow::Error::Rng);
        }
        to.copy_from_slice(&seed);
        seed.zeroize();
        Ok(())
    }
}

impl Drop for OneSeed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
