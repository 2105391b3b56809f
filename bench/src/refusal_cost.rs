//! Measures the cost of refusing frames: nanoseconds per frame on the thread that owns the log link, for what
//! somebody without the key can send.
//!
//! Each figure is the minimum of several runs on one core. Compare only figures of one invocation.

use crate::error::BenchError;
use logchan::handshake::{Identity, PROTOCOL_VERSION, PresharedKey, SecureLink, Security};
use logchan::host_profile::HostProfile;
use logchan::ids::{Claimant, Role, Term, VmId, WitnessId};
use logchan::seal::{SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SealKind};
use logchan::time::{Duration, Time};
use serde_json::{Map, Value};
use std::hint::black_box;
use vmm::link::now;
use vmm::outln;

/// Frames per run.
const FRAMES: usize = 4096;
const RUNS: usize = 9;
/// Longest handshake frame, with room to spare.
const FRAME_BYTES: usize = 512;

/// Options of `refusal-cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures and prints the result.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    let costs = measure();
    if args.json {
        outln!("{}", Value::from(costs));
    } else {
        outln!("{:<36} {:>10}", "frame", "ns");
        for (name, ns) in costs {
            outln!("{name:<36} {ns:>10}");
        }
    }
    Ok(())
}

fn link(role: Role) -> SecureLink {
    let identity = Identity {
        protocol_version: PROTOCOL_VERSION,
        role,
        vm_id: VmId(0),
        cpu_level: 1,
        cpu_digest: 0,
        host_profile: HostProfile::UNKNOWN,
        guest_digest: 0,
        disks_digest: 0,
        term: Term(1),
        witness: WitnessId(0),
        claimant: Claimant(0),
        timing: 0,
        frame_bytes_max: 1500,
    };
    let key = PresharedKey::from_bytes(&[7; 32]).expect("a key");
    let entropy = Box::new(|bytes: &mut [u8]| fastrand::fill(bytes));
    SecureLink::new(Security::Sealed(key), identity, entropy)
}

/// Passes frames between two links until neither sends any, and records those sent by `ends[0]`.
fn settle(ends: &mut [SecureLink; 2], at: Time) -> Vec<Vec<u8>> {
    let mut recorded = Vec::new();
    loop {
        let mut is_idle = true;
        for from in 0..2 {
            let mut buffer = [0; FRAME_BYTES];
            while let Some(length) = ends[from].poll_transmit(&mut buffer) {
                is_idle = false;
                if from == 0 {
                    recorded.push(buffer[..length].to_vec());
                }
                ends[1 - from].handle_frame(at, &mut buffer[..length]);
            }
        }
        if is_idle {
            return recorded;
        }
    }
}

/// Returns the least time in which `link` handles a frame that `make` builds from its number, nanoseconds.
fn cost(link: &mut SecureLink, at: Time, make: impl Fn(usize) -> Vec<u8>) -> u64 {
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(make).collect();
    let run = |link: &mut SecureLink| {
        let mut copies = frames.clone();
        let start = now();
        for frame in &mut copies {
            black_box(link.handle_frame(at, black_box(frame)));
        }
        now().since(start).as_nanos() / FRAMES as u64
    };
    (0..RUNS).map(|_| run(link)).min().unwrap_or_default()
}

fn measure() -> Map<String, Value> {
    let mut costs = Map::new();
    let mut at = Time::from_nanos(1);
    let mut ends = [link(Role::Primary), link(Role::Backup)];
    ends[0].start(at);
    let recorded = settle(&mut ends, at);
    let of_kind = |kind: SealKind| {
        let frame = recorded.iter().find(|frame| frame[1] == kind as u8);
        frame.expect("the initiator sends each of these").clone()
    };
    let spoiled = |frame: &[u8], n: usize| {
        let mut frame = frame.to_vec();
        let last = frame.len() - 1;
        frame[last] ^= 1 + (n % 255) as u8;
        frame
    };
    let mut put = |name: &str, ns: u64| drop(costs.insert(name.into(), ns.into()));

    let request = of_kind(SealKind::Request);
    put("request, made up", cost(&mut ends[1], at, |n| spoiled(&request, n)));
    put("request, recorded", cost(&mut ends[1], at, |_| request.clone()));
    let initiation = of_kind(SealKind::Initiation);
    put("initiation, recorded", cost(&mut ends[1], at, |_| initiation.clone()));

    // A new handshake, up to the initiation: its challenge is on the wire, and known to everybody.
    at = at + Duration::from_millis(100);
    ends[0].start(at);
    let mut buffer = [0; FRAME_BYTES];
    let mut challenge = Vec::new();
    for (from, to) in [(0, 1), (1, 0)] {
        while let Some(length) = ends[from].poll_transmit(&mut buffer) {
            challenge = buffer[..length].to_vec();
            if from == 1 {
                put("challenge, made up", cost(&mut ends[0], at, |n| spoiled(&challenge, n)));
            }
            ends[to].handle_frame(at, &mut buffer[..length]);
        }
    }
    let length = ends[0].poll_transmit(&mut buffer).expect("an initiation");
    let initiation = buffer[..length].to_vec();
    put("challenge, recorded", cost(&mut ends[0], at, |_| challenge.clone()));
    put("initiation, made up", cost(&mut ends[1], at, |n| spoiled(&initiation, n)));
    ends[1].handle_frame(at, &mut initiation.clone());
    let length = ends[1].poll_transmit(&mut buffer).expect("a response");
    let response = buffer[..length].to_vec();
    put("response, made up", cost(&mut ends[0], at, |n| spoiled(&response, n)));
    ends[0].handle_frame(at, &mut response.clone());
    put("response, recorded", cost(&mut ends[0], at, |_| response.clone()));
    settle(&mut ends, at);

    for bytes in [64, 1400] {
        let mut frame = vec![3; bytes + SEAL_OVERHEAD_BYTES];
        ends[0].seal(&mut frame).expect("a session");
        let name = format!("session's frame of {bytes} bytes, made up");
        put(&name, cost(&mut ends[1], at, |n| spoiled(&frame, n)));
    }
    let mut foreign = vec![3; 64 + SEAL_OVERHEAD_BYTES];
    ends[0].seal(&mut foreign).expect("a session");
    foreign[4] ^= 1;
    put("frame of no session", cost(&mut ends[1], at, |_| foreign.clone()));
    put("noise", cost(&mut ends[1], at, |_| vec![0x55; SEAL_HEADER_BYTES + 60]));
    costs
}
