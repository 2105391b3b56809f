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
//! The library is not given the secret itself, but a key that is derived from it for this one challenge
//! ([`PresharedKey`]): what it leaves in memory opens no other handshake.
//!
//! The challenge that the first message comes with is part of the prologue, so a message is bound to it. It shows
//! that the message was made after the challenge was drawn, but not that its sender still lives. The responder
//! therefore only answers it, and takes the session into use when the initiator shows that it has the session's
//! keys.

use alloc::boxed::Box;
use core::fmt;

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::Dh;
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use super::key::PresharedKey;
use super::message::{Challenge, LinkKey};
use crate::seal::{KEY_BYTES, Protection, VERSION};
use crate::secret::wiping_stack;

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
    /// By either of two pre-shared keys, while one replaces the other: the peer may have both, or one of them.
    Rotating {
        /// The key that is tried first.
        key: PresharedKey,
        /// The other one.
        next: PresharedKey,
    },
    /// Not protected. The handshake is the same, under a well-known key of zeros, so mismatches are
    /// found, but anyone on the LAN can join and read.
    Insecure,
}

impl Security {
    pub(super) fn protection(&self) -> Protection {
        match self {
            Security::Sealed(_) | Security::Rotating { .. } => Protection::Sealed,
            Security::Insecure => Protection::Insecure,
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

/// A handshake in progress. Its state does not move, and is overwritten when it is dropped. What its steps leave on the
/// stack is wiped after each of them.
pub(super) struct Noise(Box<HandshakeState>);

/// How a state is made from its parameters.
type Build = fn(Builder<'_>) -> Result<HandshakeState, snow::Error>;

impl Noise {
    /// Creates the side that sends the first message, for the responder's `challenge`.
    pub(super) fn initiator(
        key: &LinkKey,
        challenge: &Challenge,
        entropy: &mut dyn Entropy,
    ) -> Noise {
        Noise::new(key, challenge, entropy, |builder| builder.build_initiator())
    }

    /// Creates the side that receives the first message, which came with `challenge`.
    pub(super) fn responder(
        key: &LinkKey,
        challenge: &Challenge,
        entropy: &mut dyn Entropy,
    ) -> Noise {
        Noise::new(key, challenge, entropy, |builder| builder.build_responder())
    }

    fn new(key: &LinkKey, challenge: &Challenge, entropy: &mut dyn Entropy, build: Build) -> Noise {
        let word = match key.protection() {
            Protection::Sealed => b's',
            Protection::Insecure => b'i',
        };
        let prologue = [b"understudy ".as_slice(), &[word, VERSION], challenge].concat();
        let exchange_key = key.exchange_key(challenge);
        let mut seed = Zeroizing::new([0; EPHEMERAL_BYTES]);
        entropy.fill(&mut seed[..]);
        wiping_stack(|| Noise(Box::new(state(&exchange_key, &prologue, &seed, build))))
    }

    /// Writes our message around `payload` and returns the message's length.
    pub(super) fn write(&mut self, payload: &[u8], message: &mut [u8]) -> usize {
        let written = wiping_stack(|| self.0.write_message(payload, message));
        written.expect("it is our turn, and the buffer has room")
    }

    /// Reads the peer's message and returns the length of its payload. A message that is refused does
    /// not change the state, so the genuine one may follow.
    pub(super) fn read(&mut self, message: &[u8], payload: &mut [u8]) -> Result<usize, Forged> {
        wiping_stack(|| self.0.read_message(message, payload)).map_err(|_| Forged)
    }

    /// Returns the session's keys after both messages (Noise specification, section 5.2, `Split`).
    pub(super) fn keys(mut self) -> Box<SessionKeys> {
        assert!(self.0.is_handshake_finished(), "no keys before both messages");
        let initiator = self.0.is_initiator();
        let hash = self.0.get_handshake_hash();
        let key_id = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
        // Sealing in place with a header as associated data needs the raw keys: snow's own transport
        // copies, and takes no associated data.
        wiping_stack(|| {
            let (first, second) = self.0.dangerously_get_raw_split();
            let (send, receive) = if initiator { (first, second) } else { (second, first) };
            Box::new(SessionKeys { key_id, send, receive })
        })
    }
}

/// Returns the state of a handshake that begins with these.
fn state(
    key: &[u8; KEY_BYTES],
    prologue: &[u8],
    seed: &[u8; EPHEMERAL_BYTES],
    build: Build,
) -> HandshakeState {
    let params: NoiseParams = PATTERN.parse().expect("snow supports the pattern");
    let builder = Builder::with_resolver(params, Box::new(Primitives { seed: *seed }));
    let state = builder.psk(0, key).and_then(|b| b.prologue(prologue)).and_then(build);
    state.expect("the key and the prologue are set")
}

/// Overwrites the state, from which the session's keys follow: snow does not.
impl Drop for Noise {
    fn drop(&mut self) {
        let known = [0; KEY_BYTES];
        *self.0 = state(&known, &[], &known, |builder| builder.build_initiator());
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

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(WipedDh(DefaultResolver.resolve_dh(choice)?)))
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

/// A key pair of snow whose private key is overwritten when it is dropped.
struct WipedDh(Box<dyn Dh>);

impl Dh for WipedDh {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, private_key: &[u8]) {
        self.0.set(private_key);
    }

    fn generate(&mut self, random: &mut dyn snow::types::Random) -> Result<(), snow::Error> {
        self.0.generate(random)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, public_key: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.dh(public_key, out)
    }
}

impl Drop for WipedDh {
    fn drop(&mut self) {
        if self.0.privkey().iter().any(|&byte| byte != 0) {
            self.0.set(&[0; EPHEMERAL_BYTES]);
        }
    }
}
