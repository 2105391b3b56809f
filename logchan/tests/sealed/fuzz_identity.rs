//! An endpoint whose peer has the key and sends an arbitrary identity.

use blake2::Blake2sMac256;
use blake2::digest::Mac;
use logchan::channel::Timing;
use logchan::endpoint::{EndpointEvent, EndpointVerdict, Settings};
use logchan::ids::Role;
use logchan::seal::{SealKind, VERSION};
use logchan::time::{Duration, Time};

use crate::fuzz_endpoint::{ROLES, sent, settings, victim};
use crate::fuzz_run::run_one_in;
use crate::pair::PRIMARY;
use crate::rng::Rng;

/// Returns an encoded identity with some fields wrong.
fn identity_bytes(rng: &mut Rng, role: Role) -> Vec<u8> {
    let Settings { vm, term, .. } = settings(role);
    let fits = |rng: &mut Rng| rng.below(8) != 0;
    let pick = |rng: &mut Rng, good: u64| if fits(rng) { good } else { rng.number() };
    let mut bytes = (pick(rng, PRIMARY.protocol_version.into()) as u16).to_le_bytes().to_vec();
    bytes.push(pick(rng, role.number().into()) as u8);
    bytes.extend(rng.next().to_le_bytes());
    for good in [vm.0, 0, 0, term.0, 0, 0] {
        bytes.extend(pick(rng, good).to_le_bytes());
    }
    bytes.extend((pick(rng, Timing::DEFAULT.fingerprint().into()) as u32).to_le_bytes());
    bytes.extend((pick(rng, 1500) as u16).to_le_bytes());
    match rng.below(8) {
        0 => {
            let length = rng.below(300);
            bytes = rng.bytes(length);
        }
        1 => bytes.truncate(rng.below(bytes.len())),
        2 => bytes.extend([0; 7]),
        _ => {}
    }
    bytes
}

/// Returns a side of a handshake with the right key, whose payload is up to the caller.
fn noise(rng: &mut Rng, initiator: bool, challenge: &[u8]) -> snow::HandshakeState {
    struct Seed([u8; 32]);
    impl snow::types::Random for Seed {
        fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), snow::Error> {
            to.copy_from_slice(&self.0[..to.len()]);
            Ok(())
        }
    }
    struct Primitives(u64);
    impl snow::resolvers::CryptoResolver for Primitives {
        fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
            let mut seed = [0; 32];
            Rng(self.0).fill(&mut seed);
            Some(Box::new(Seed(seed)))
        }
        fn resolve_dh(&self, choice: &snow::params::DHChoice) -> Option<Box<dyn snow::types::Dh>> {
            snow::resolvers::DefaultResolver.resolve_dh(choice)
        }
        fn resolve_hash(
            &self,
            choice: &snow::params::HashChoice,
        ) -> Option<Box<dyn snow::types::Hash>> {
            snow::resolvers::DefaultResolver.resolve_hash(choice)
        }
        fn resolve_cipher(
            &self,
            choice: &snow::params::CipherChoice,
        ) -> Option<Box<dyn snow::types::Cipher>> {
            snow::resolvers::DefaultResolver.resolve_cipher(choice)
        }
    }
    let pattern = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".parse().unwrap();
    let prologue = [b"understudy s".as_slice(), &[VERSION], challenge].concat();
    let builder = snow::Builder::with_resolver(pattern, Box::new(Primitives(rng.next())));
    let exchange = Blake2sMac256::new_from_slice(&[0x5a; 32]).unwrap();
    let exchange = exchange.chain_update(b"understudy key exchange 1").chain_update(challenge);
    let key = exchange.finalize().into_bytes().into();
    let builder = builder.psk(0, &key).unwrap().prologue(&prologue).unwrap();
    if initiator { builder.build_initiator() } else { builder.build_responder() }.unwrap()
}

/// Returns `payload` as a frame of a handshake, with the tag of the right key.
fn handshake_frame(kind: SealKind, id: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mac = |key: &[u8]| Blake2sMac256::new_from_slice(key).unwrap();
    let key = mac(&[0x5a; 32]).chain_update(b"understudy handshake 1").finalize().into_bytes();
    let mut frame = vec![VERSION, kind as u8];
    frame.extend((payload.len() as u16).to_le_bytes());
    frame.extend(id);
    frame.extend([0; 8]);
    frame.extend(payload);
    let tag = mac(&key).chain_update(&frame).finalize().into_bytes();
    frame.extend(&tag[..16]);
    frame
}

/// Returns the payload of a frame of this kind that the victim sent.
fn payload_of(frames: &[Vec<u8>], kind: SealKind) -> &[u8] {
    let frame = frames.iter().find(|frame| frame[1] == kind as u8);
    let frame = frame.unwrap_or_else(|| panic!("the victim sends a {kind:?}"));
    &frame[16..frame.len() - 16]
}

const HANDSHAKES: u64 = 16;

/// Whatever identity an authentic peer sends, it is accepted, refused with a mismatch, or counted as
/// forged.
#[test]
fn fuzz_identity_of_a_peer_with_the_key() {
    run_one_in(8 * HANDSHAKES, "fuzz_identity_of_a_peer_with_the_key", |rng| {
        let mut now = Time::from_nanos(1 << 40);
        let role = rng.below(2);
        let mut victim = victim(ROLES[role], rng.next(), now);
        let mut bytes = 0;
        for _ in 0..HANDSHAKES {
            now = now + Duration::from_millis(2_000);
            victim.handle_timeout(now);
            let requests = sent(&mut victim, now);
            let identity = identity_bytes(rng, ROLES[1 - role]);
            let mut message = [0; 400];
            let answers = rng.below(2) == 0;
            let mut frame = if answers {
                let request = &payload_of(&requests, SealKind::Request)[8..];
                let challenge = rng.bytes(16);
                let answer = [&challenge, request].concat();
                victim
                    .handle_frame(now, &mut handshake_frame(SealKind::Challenge, [0; 4], &answer));
                let initiations = sent(&mut victim, now);
                let initiation = payload_of(&initiations, SealKind::Initiation);
                assert_eq!(initiation[..16], challenge);
                let mut noise = noise(rng, false, &challenge);
                noise.read_message(&initiation[16..], &mut [0; 400]).expect("the key is right");
                let length = noise.write_message(&identity, &mut message).expect("room");
                let id = *initiation[16..].first_chunk().expect("a key");
                handshake_frame(SealKind::Response, id, &message[..length])
            } else {
                // The victim asks, too. It answers an incarnation that is greater than its own.
                let request = [[0xff; 8], rng.next().to_le_bytes()].concat();
                victim.handle_frame(now, &mut handshake_frame(SealKind::Request, [0; 4], &request));
                let challenges = sent(&mut victim, now);
                let challenge = &payload_of(&challenges, SealKind::Challenge)[..16];
                let mut noise = noise(rng, true, challenge);
                let length = noise.write_message(&identity, &mut message).expect("room");
                let id = *message.first_chunk().expect("a message begins with an ephemeral key");
                let initiation = [challenge, &message[..length]].concat();
                handshake_frame(SealKind::Initiation, id, &initiation)
            };
            bytes += frame.len();

            let before = victim.link_stats();
            let verdict = victim.handle_frame(now, &mut frame);
            assert!(matches!(verdict, EndpointVerdict::Handshake(_)), "{verdict:?}");
            let after = victim.link_stats();
            let events: Vec<_> = std::iter::from_fn(|| victim.poll_event()).collect();
            let reported = |wanted: fn(&EndpointEvent) -> bool| events.iter().any(wanted);
            let is_met = reported(|event| matches!(event, EndpointEvent::Met { .. }));
            let is_refused = reported(|event| matches!(event, EndpointEvent::Refused { .. }));
            let is_forged = after.forged_handshakes > before.forged_handshakes;
            let is_crossed = after.crossed > before.crossed;
            let is_answered =
                sent(&mut victim, now).iter().any(|frame| frame[1] == SealKind::Response as u8);
            // An initiation may be a recording, so it never establishes a session; a compatible one is
            // answered.
            let outcomes = if answers {
                [is_met, is_refused, is_forged].map(u32::from)
            } else {
                [is_answered, is_crossed, is_forged].map(u32::from)
            };
            assert_eq!(outcomes.iter().sum::<u32>(), 1, "{outcomes:?} of {identity:02x?}");
            assert_eq!(victim.channel().is_some(), is_met);
            if is_met {
                let again = victim.settings().clone();
                victim.renew(now, again).unwrap();
            }
        }
        bytes
    });
}
