//! An endpoint that is given arbitrary frames, by an attacker without the key and by a malicious peer
//! with it, does not panic, buffers no more than its windows, sends only valid frames, and has only
//! finitely many timeouts.

use logchan::channel::{Channel, Config, Timing};
use logchan::endpoint::{Endpoint, EndpointVerdict, Settings};
use logchan::handshake::{Identity, Received, SecureLink};
use logchan::ids::{Lane, Role, Term, VmId};
use logchan::limits::WINDOW_BYTES_MIN;
use logchan::seal::SealHeader;
use logchan::time::{Duration, Time};

use crate::channel_frames::{mutated_frame, transmit};
use crate::fuzz::{forge, random_frame};
use crate::fuzz_run::run_one_in;
use crate::pair::{PRIMARY, around, assert_same_or_wiped, endpoint, shared_key, transmitted};
use crate::rng::Rng;

pub(crate) const ROLES: [Role; 2] = [Role::Primary, Role::Backup];

pub(crate) fn settings(role: Role) -> Settings {
    let term = if role == Role::Primary { 3 } else { 0 };
    let window_bytes = [WINDOW_BYTES_MIN; 2];
    Settings { window_bytes, ..Settings::new(role, VmId(7), Term(term)) }
}

pub(crate) fn victim(role: Role, seed: u64, now: Time) -> Endpoint {
    let mut rng = Rng(seed);
    let entropy = Box::new(move |bytes: &mut [u8]| rng.fill(bytes));
    Endpoint::new(settings(role), shared_key(), entropy, now).unwrap()
}

/// Returns an attacker with the key, in the role that the victim expects.
fn attacker(role: Role, seed: u64) -> SecureLink {
    let settings = settings(role);
    let Settings { vm, term, cpu_level, cpu_digest, guest_digest, .. } = settings;
    let Settings { disks_digest, witness, claimant, .. } = settings;
    let timing = Timing::DEFAULT.fingerprint();
    let identity = Identity {
        role,
        vm_id: vm,
        term,
        cpu_level,
        cpu_digest,
        guest_digest,
        disks_digest,
        witness,
        claimant,
        timing,
        ..PRIMARY
    };
    endpoint(shared_key(), identity, seed)
}

/// Returns all frames that the endpoint sends now.
pub(crate) fn sent(endpoint: &mut Endpoint, now: Time) -> Vec<Vec<u8>> {
    let bytes_max = endpoint.settings().frame_bytes_max;
    let mut frames = Vec::new();
    let mut buffer = vec![0; bytes_max];
    while let Some(length) = endpoint.poll_transmit(now, &mut buffer) {
        let frame = buffer[..length].to_vec();
        let header = SealHeader::decode(&frame).expect("an endpoint sends valid frames");
        assert_eq!(header.frame_bytes(), length);
        frames.push(frame);
        assert!(frames.len() < 10_000, "the endpoint never stops sending");
    }
    frames
}

/// Gives `bytes` to an endpoint, does what a driver does, and checks invariants.
fn fuzz_endpoint(endpoint: &mut Endpoint, now: Time, bytes: &[u8]) -> EndpointVerdict {
    let before = endpoint.link_stats();
    let mut frame = bytes.to_vec();
    let verdict = endpoint.handle_frame(now, &mut frame);
    let after = endpoint.link_stats();
    let opened = after.open.opened - before.open.opened;
    match verdict {
        EndpointVerdict::Channel(_) | EndpointVerdict::PeerGone => assert_eq!(opened, 1),
        EndpointVerdict::Handshake(_) => assert!(opened <= 1),
        EndpointVerdict::Dropped(_) => {
            assert_eq!(opened, 0);
            assert_same_or_wiped(bytes, &frame);
        }
    }
    let mut wakes = 0;
    while endpoint.poll_timeout().is_some_and(|timeout| timeout <= now) {
        endpoint.handle_timeout(now);
        wakes += 1;
        assert!(wakes < 100, "the timeout never stops being due");
    }
    let mut events = 0;
    while endpoint.poll_event().is_some() {
        events += 1;
        assert!(events < 20, "there is at most one event of each kind");
    }
    if let Some(channel) = endpoint.channel() {
        for lane in Lane::ALL {
            assert!(channel.received(lane).len() <= WINDOW_BYTES_MIN);
            assert!(channel.lane_acked(lane) <= channel.appended(lane));
        }
    }
    verdict
}

/// A victim in an established session with an attacker that has the key, and a channel of the attacker
/// that makes plausible frames.
struct Session {
    victim: Endpoint,
    link: SecureLink,
    channel: Channel,
    now: Time,
}

impl Session {
    fn new(rng: &mut Rng) -> Session {
        let now = Time::from_nanos(1 << 40);
        let role = rng.below(2);
        let mut victim = victim(ROLES[role], rng.next(), now);
        let mut link = attacker(ROLES[1 - role], rng.next());
        link.start(now);
        for _ in 0..4 {
            for mut frame in transmitted(&mut link) {
                victim.handle_frame(now, &mut frame);
            }
            for mut frame in sent(&mut victim, now) {
                link.handle_frame(now, &mut frame);
            }
        }
        assert!(victim.channel().is_some(), "the handshake must succeed");
        let peer = link.peer().expect("the attacker has a session");
        let settings = settings(ROLES[1 - role]);
        let Config { frame_bytes_max, .. } =
            *victim.channel().expect("the handshake succeeded").config();
        let config = Config {
            frame_bytes_max,
            window_bytes: settings.window_bytes,
            ..Config::new(settings.vm, peer.session, Term(3))
        };
        let channel = Channel::new(config, ROLES[1 - role], now).expect("the victim's settings");
        Session { victim, link, channel, now }
    }

    /// Lets the attacker receive the victim's frames, so that its own frames stay plausible.
    fn receive(&mut self) {
        for mut frame in sent(&mut self.victim, self.now) {
            if let Received::Data(bytes) = self.link.handle_frame(self.now, &mut frame) {
                self.channel.handle_frame(self.now, bytes);
            }
        }
        if self.channel.poll_timeout().is_some_and(|timeout| timeout <= self.now) {
            self.channel.handle_timeout(self.now);
        }
    }

    fn sealed(&mut self, inner: &[u8]) -> Vec<u8> {
        let mut frame = around(inner);
        self.link.seal(&mut frame).expect("the attacker has a session");
        frame
    }

    /// Returns a frame that is authentic for the victim, with arbitrary contents.
    fn authentic(&mut self, rng: &mut Rng) -> Vec<u8> {
        let inner = match rng.below(16) {
            0 => {
                let length = rng.below(1600);
                rng.bytes(length)
            }
            1 => Vec::new(),
            2..=4 => transmit(&mut self.channel, self.now).unwrap_or_default(),
            _ => mutated_frame(&mut self.channel, self.now, rng),
        };
        self.sealed(&inner)
    }
}

const STEPS: u64 = 128;

#[test]
fn fuzz_endpoint_by_a_peer_with_the_key() {
    run_one_in(STEPS, "fuzz_endpoint_by_a_peer_with_the_key", |rng| {
        let mut session = Session::new(rng);
        let mut bytes = 0;
        for _ in 0..STEPS {
            session.now = session.now + Duration::from_nanos(rng.number() % 3_000_000);
            // The victim sends data, too.
            if rng.below(4) == 0 {
                let lane = Lane::ALL[rng.below(2)];
                let channel = session.victim.channel_mut().expect("the handshake succeeded");
                let _appended = channel.append(session.now, lane, &[7; 300]);
            }
            // New keys in the middle of the session.
            if rng.below(64) == 0 {
                session.link.start(session.now);
            }
            for mut frame in transmitted(&mut session.link) {
                session.victim.handle_frame(session.now, &mut frame);
            }
            let frame = session.authentic(rng);
            let verdict = fuzz_endpoint(&mut session.victim, session.now, &frame);
            assert!(matches!(verdict, EndpointVerdict::Channel(_)), "{verdict:?}");
            session.receive();
            let channel = session.victim.channel_mut().expect("an ended channel stays readable");
            for lane in Lane::ALL {
                let length = rng.below(channel.received(lane).len() + 1);
                channel.consume(lane, length);
            }
            bytes += frame.len();
        }
        bytes
    });
}

#[test]
fn fuzz_endpoint_by_an_attacker_without_the_key() {
    run_one_in(STEPS, "fuzz_endpoint_by_an_attacker_without_the_key", |rng| {
        let mut session = Session::new(rng);
        let mut samples: Vec<_> = (0..8).map(|_| session.authentic(rng)).collect();
        samples.extend(sent(&mut session.victim, session.now));
        let notice = session.link.poll_death_notice().expect("the attacker has a session");
        samples.push(notice.as_bytes().to_vec());
        samples.extend([0, 1].map(|role| {
            let mut link = attacker(ROLES[role], rng.next());
            link.start(session.now);
            transmitted(&mut link).remove(0)
        }));
        let in_handshake = rng.below(2) == 0;
        if in_handshake {
            // There is no session yet, and a handshake is in progress.
            let again = session.victim.settings().clone();
            session.victim.renew(session.now, again).unwrap();
            samples.extend(sent(&mut session.victim, session.now));
        }
        let untouched = session.victim.channel().map(|channel| channel.stats().clone());
        let mut bytes = 0;
        for _ in 0..STEPS {
            let frame = if rng.below(4) == 0 {
                random_frame(rng)
            } else {
                let mut frame = samples[rng.below(samples.len())].clone();
                forge(&mut frame, rng);
                frame
            };
            let verdict = fuzz_endpoint(&mut session.victim, session.now, &frame);
            let is_dropped = match verdict {
                EndpointVerdict::Dropped(_) | EndpointVerdict::Handshake(_) => true,
                EndpointVerdict::Channel(_) | EndpointVerdict::PeerGone => false,
            };
            assert!(is_dropped, "forged: {frame:02x?}");
            bytes += frame.len();
        }
        let channel = session.victim.channel();
        assert_eq!(channel.is_some(), !in_handshake, "a forged frame made or ended a channel");
        assert_eq!(channel.map(|channel| channel.stats().clone()), untouched);
        bytes
    });
}
