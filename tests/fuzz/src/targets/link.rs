//! The handshake, the seal, and the channel behind them.

use super::Input;
use logchan::channel::{Config, Timing};
use logchan::endpoint::{Endpoint, EndpointVerdict, Settings};
use logchan::frame::{FrameAck, FrameHeader, FrameKind, LaneAck};
use logchan::handshake::{
    CHALLENGE_EACH, Entropy, HANDSHAKE_FRAME_BYTES, Identity, PROTOCOL_VERSION, PresharedKey,
    Received, SecureLink, Security,
};
use logchan::health::Unfit;
use logchan::host_profile::HostProfile;
use logchan::ids::{Claimant, FrameNumber, Lane, Role, SessionId, Term, VmId, WitnessId};
use logchan::limits::{FRAME_HEADER_BYTES, WINDOW_BYTES_MIN};
use logchan::seal::{SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SealHeader};
use logchan::time::{Duration, Time};

/// Most steps of one input. More do not reach new states, and each costs cryptography.
const STEPS_MAX: usize = 64;

fn identity(role: Role, term: u64) -> Identity {
    Identity {
        protocol_version: PROTOCOL_VERSION,
        role,
        vm_id: VmId(7),
        cpu_digest: 0,
        cpu_level: 1,
        guest_digest: 0,
        disks_digest: 0,
        term: Term(term),
        witness: WitnessId(0),
        claimant: Claimant(0),
        timing: Timing::DEFAULT.fingerprint(),
        frame_bytes_max: 1500,
        host_profile: HostProfile::UNKNOWN,
    }
}

fn key() -> Security {
    Security::Sealed(PresharedKey::from_bytes(&[0x5A; 32]).expect("it is long enough"))
}

/// Returns entropy that repeats, because a finding must.
fn entropy(seed: u8) -> Box<dyn Entropy + Send> {
    let mut next = u64::from(seed) | 1;
    Box::new(move |bytes: &mut [u8]| {
        for byte in bytes {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (next >> 56) as u8;
        }
    })
}

fn transmitted(link: &mut SecureLink) -> Vec<Vec<u8>> {
    let mut buffer = [0; HANDSHAKE_FRAME_BYTES];
    std::iter::from_fn(|| link.poll_transmit(&mut buffer).map(|length| buffer[..length].to_vec()))
        .take(100)
        .collect()
}

/// Returns two links with a session.
fn session(now: Time) -> [SecureLink; 2] {
    let link = |role, seed| SecureLink::new(key(), identity(role, 1), entropy(seed));
    let mut ends = [link(Role::Primary, 1), link(Role::Backup, 2)];
    ends[0].start(now);
    for _ in 0..4 {
        for from in 0..2 {
            for mut frame in transmitted(&mut ends[from]) {
                ends[1 - from].handle_frame(now, &mut frame);
            }
        }
    }
    assert!(ends[0].peer().is_some() && ends[1].peer().is_some(), "the handshake succeeds");
    ends
}

fn sealed_around(link: &mut SecureLink, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; payload.len() + SEAL_OVERHEAD_BYTES];
    frame[SEAL_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
    link.seal(&mut frame).expect("it has a session");
    frame
}

/// Frames for a link with a session, some of them authentic frames that were changed. Only an unchanged frame is
/// opened, and only once.
pub(crate) fn sealed(bytes: &[u8]) {
    let mut now = Time::from_nanos(1 << 40);
    let [mut sender, mut receiver] = session(now);
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let (kind, length) = (input.u8(), usize::from(input.u8()));
        now = now + Duration::from_micros(10);
        let mut frame = match kind % 3 {
            // Made by the attacker.
            0 => input.piece(length).to_vec(),
            _ => sealed_around(&mut sender, input.piece(length)),
        };
        let authentic = frame.clone();
        if kind % 3 == 1 {
            let (at, mask) = (usize::from(input.u16()) % frame.len(), input.u8());
            frame[at] ^= mask;
        }
        if let Ok(header) = SealHeader::decode(&frame) {
            assert!(header.frame_bytes() <= frame.len());
        }
        let given = frame.clone();
        let is_open = matches!(receiver.handle_frame(now, &mut frame), Received::Data(_));
        assert!(!is_open || given == authentic, "a changed frame was opened");
        let mut again = given.clone();
        let is_open_again = matches!(receiver.handle_frame(now, &mut again), Received::Data(_));
        assert!(!is_open_again, "a repeated frame was opened");
        assert!(transmitted(&mut receiver).len() < 100, "the link never stops sending");
    }
    let mut frame = sealed_around(&mut sender, b"at the end");
    assert!(
        matches!(receiver.handle_frame(now, &mut frame), Received::Data(_)),
        "the session ended"
    );
}

fn fire_timeouts(link: &mut SecureLink, now: Time) {
    if link.poll_timeout().is_some_and(|timeout| timeout <= now) {
        link.handle_timeout(now);
    }
}

/// Frames for two links that have no session yet, among them their own, changed, repeated or late.
pub(crate) fn handshake(bytes: &[u8]) {
    let mut now = Time::from_nanos(1 << 40);
    let link = |role, seed| SecureLink::new(key(), identity(role, 1), entropy(seed));
    let mut ends = [link(Role::Primary, 1), link(Role::Backup, 2)];
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let kind = input.u8();
        let end = usize::from(kind >> 7);
        match kind % 8 {
            0 => ends[end].start(now),
            1 => now = now + Duration::from_micros(u64::from(input.u32())),
            2 => now = now + CHALLENGE_EACH,
            3 => {
                let length = usize::from(input.u8());
                let mut frame = input.piece(length).to_vec();
                let received = ends[end].handle_frame(now, &mut frame);
                assert!(!matches!(received, Received::Data(_)), "a made-up frame was opened");
            }
            4 | 5 if !seen.is_empty() => {
                let mut frame = seen[usize::from(input.u8()) % seen.len()].clone();
                if kind % 8 == 5 {
                    let (at, mask) = (usize::from(input.u16()) % frame.len(), input.u8());
                    frame[at] ^= mask;
                    frame.truncate(frame.len() - usize::from(input.u8() % 4));
                }
                ends[end].handle_frame(now, &mut frame);
            }
            _ => {
                for mut frame in transmitted(&mut ends[end]) {
                    seen.push(frame.clone());
                    ends[1 - end].handle_frame(now, &mut frame);
                }
                seen.drain(..seen.len().saturating_sub(32));
            }
        }
        for link in &mut ends {
            fire_timeouts(link, now);
            assert!(std::iter::from_fn(|| link.poll_event()).take(20).count() < 20);
        }
    }
    // Whatever happened, two links that want a session get one.
    for _ in 0..400 {
        if ends.iter().all(|link| link.peer().is_some()) {
            break;
        }
        now = now + CHALLENGE_EACH;
        ends[0].start(now);
        ends.iter_mut().for_each(|link| fire_timeouts(link, now));
        for _ in 0..4 {
            for end in 0..2 {
                for mut frame in transmitted(&mut ends[end]) {
                    ends[1 - end].handle_frame(now, &mut frame);
                }
            }
        }
    }
    assert!(ends.iter().all(|link| link.peer().is_some()), "no session any more");
}

/// What a peer with the key can put into frames: its bytes are the inside of sealed frames.
pub(crate) fn channel(bytes: &[u8]) {
    let mut now = Time::from_nanos(1 << 40);
    let window_bytes = [WINDOW_BYTES_MIN; 2];
    let settings = Settings { window_bytes, ..Settings::new(Role::Backup, VmId(7), Term(0)) };
    let mut victim =
        Endpoint::new(settings, key(), entropy(2), now).expect("the settings are valid");
    let Settings { cpu_digest, guest_digest, disks_digest, witness, claimant, .. } =
        *victim.settings();
    let identity = Identity {
        cpu_digest,
        guest_digest,
        disks_digest,
        witness,
        claimant,
        ..identity(Role::Primary, 3)
    };
    let mut link = SecureLink::new(key(), identity, entropy(1));
    link.start(now);
    let mut buffer = vec![0; victim.settings().frame_bytes_max];
    for _ in 0..4 {
        for mut frame in transmitted(&mut link) {
            victim.handle_frame(now, &mut frame);
        }
        while let Some(length) = victim.poll_transmit(now, &mut buffer) {
            link.handle_frame(now, &mut buffer[..length].to_vec());
        }
    }
    let session = link.peer().expect("the handshake succeeds").session;
    let Config { vm, term, .. } = *victim.channel().expect("the handshake succeeds").config();
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        now = now + Duration::from_micros(u64::from(input.u8()) * 50);
        let inner = inner_frame(&mut input, (vm, session, term));
        let mut frame = sealed_around(&mut link, &inner);
        let verdict = victim.handle_frame(now, &mut frame);
        assert!(!matches!(verdict, EndpointVerdict::Dropped(_)), "an authentic frame: {verdict:?}");
        let mut wakes = 0;
        while victim.poll_timeout().is_some_and(|timeout| timeout <= now) {
            victim.handle_timeout(now);
            wakes += 1;
            assert!(wakes < 100, "the timeout never stops being due");
        }
        let mut sent = 0;
        while victim.poll_transmit(now, &mut buffer).is_some() {
            sent += 1;
            assert!(sent < 10_000, "the endpoint never stops sending");
        }
        if let Some(channel) = victim.channel() {
            for lane in Lane::ALL {
                assert!(channel.received(lane).len() <= WINDOW_BYTES_MIN);
                assert!(channel.lane_acked(lane) <= channel.appended(lane));
            }
        }
    }
}

/// Returns a frame of the channel with any fields but the session's identifiers, which a fuzzer would not guess;
/// or any bytes.
fn inner_frame(input: &mut Input<'_>, (vm, session, term): (VmId, SessionId, Term)) -> Vec<u8> {
    let (kind, flags) = (input.u8(), input.u8());
    let length = usize::from(input.u16() % 1200);
    let Some(kind) = FrameKind::from_number(kind % 8) else { return input.piece(length).to_vec() };
    let wide = |input: &mut Input<'_>| match flags & 4 {
        0 => u64::from(input.u16()),
        _ => input.u64(),
    };
    let mut header = FrameHeader {
        kind,
        role: if flags & 1 == 0 { Role::Primary } else { Role::Backup },
        ack_now: flags & 2 != 0,
        unfit: Unfit::default(),
        vm,
        session,
        term: Term(term.0.wrapping_add(u64::from(flags >> 5))),
        number: FrameNumber(wide(input)),
        ack: FrameAck {
            newest: FrameNumber(wide(input)),
            before: input.u64(),
            held_ns: input.u32(),
        },
        lanes: [LaneAck::default(); Lane::ALL.len()],
        executed: wide(input),
        offset: 0,
    };
    for lane in &mut header.lanes {
        *lane = LaneAck { received: wide(input), window: input.u32() };
    }
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    if kind.lane().is_some() {
        header.offset = wide(input);
        frame.extend(input.piece(length));
        if frame.len() == FRAME_HEADER_BYTES {
            frame.push(0);
        }
    }
    header.encode(&mut frame);
    if flags & 8 != 0 {
        let (at, value) = (usize::from(input.u16()) % frame.len(), input.u8());
        frame[at] = value;
    }
    frame
}
