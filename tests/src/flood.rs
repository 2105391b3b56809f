//! [`Flood`]: an attacker on the log link who has no key, but recordings of all that was ever sent there.

use logchan::handshake::{Identity, PROTOCOL_VERSION, SecureLink, Security};
use logchan::host_profile::HostProfile;
use logchan::ids::{Claimant, Role, Term, VmId, WitnessId};
use logchan::seal::{Protection, SEAL_OVERHEAD_BYTES, SealHeader, SealKind};
use logchan::time::{Duration as Span, Time};
use netpath::{FramePort, MacAddr, PacketConfig, PacketPort};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vmm::link::header::label;
use vmm::link::key_file;

/// The VM that is flooded.
const VM: VmId = VmId(0);

/// Frames given to the kernel at once.
const BATCH: usize = 64;

/// Longest payload of a handshake frame.
const PAYLOAD_MAX: usize = 224;

/// The frames of a flood.
#[derive(Clone, Debug)]
pub enum Frames {
    /// Handshake frames of every kind with a valid header and otherwise random contents.
    Handshakes,
    /// Frames of a session that nobody has, with a valid header and otherwise random contents: what an attacker
    /// without any knowledge can send.
    Junk,
    /// These frames, without their Ethernet header, again and again.
    Recorded(Vec<Vec<u8>>),
}

/// A flood from one interface to one station.
#[derive(Clone, Debug)]
pub struct Flood {
    /// The interface, in the namespace of the calling thread.
    pub interface: String,
    /// The source address; by default that of the interface.
    pub source: Option<MacAddr>,
    /// The station that it is sent to.
    pub to: MacAddr,
    /// What is sent.
    pub frames: Frames,
    /// Frames per second at most.
    pub rate_max: u64,
}

impl Flood {
    /// Sends frames until `stop` is set, and counts them in `sent`. Returns the rate reached, in frames per second.
    ///
    /// # Panics
    ///
    /// If the interface can't be used.
    pub fn run(&self, sent: &AtomicU64, stop: &AtomicBool) -> u64 {
        let port = PacketPort::open(&PacketConfig::new(self.interface.as_str()));
        let mut port = port.unwrap_or_else(|error| panic!("no flood: {error}"));
        let mut header = port.header_to(self.to).to_vec();
        if let Some(source) = self.source {
            header[6..12].copy_from_slice(&source.octets());
        }
        header.extend(label(VM));
        let mut random = fastrand::Rng::with_seed(7);
        let (begin, mut count) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                let frame = [header.as_slice(), &self.payload(count, &mut random)].concat();
                port.send(&frame).unwrap_or_else(|error| panic!("the flood ended: {error}"));
                count += 1;
            }
            port.flush().unwrap_or_else(|error| panic!("the flood ended: {error}"));
            sent.store(count, Ordering::Relaxed);
            let due = begin + Duration::from_nanos(count * 1_000_000_000 / self.rate_max);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        (count as f64 / begin.elapsed().as_secs_f64()) as u64
    }

    fn payload(&self, count: u64, random: &mut fastrand::Rng) -> Vec<u8> {
        const KINDS: [SealKind; 4] =
            [SealKind::Initiation, SealKind::Response, SealKind::Request, SealKind::Challenge];
        let (kind, length) = match &self.frames {
            Frames::Recorded(frames) => return frames[count as usize % frames.len()].clone(),
            Frames::Handshakes => match KINDS[count as usize % KINDS.len()] {
                SealKind::Request => (SealKind::Request, 16),
                kind => (kind, random.usize(16..PAYLOAD_MAX)),
            },
            Frames::Junk => (SealKind::Data, 113),
        };
        let key_id = random.u32(..);
        let (protection, sequence) = (Protection::Sealed, 0);
        let header = SealHeader { kind, protection, length: length as u16, key_id, sequence };
        let mut frame = header.encode().to_vec();
        frame.resize(length + SEAL_OVERHEAD_BYTES, 0);
        random.fill(&mut frame[header.encode().len()..]);
        frame
    }
}

/// Returns all handshake frames of `sessions` earlier sessions of the pair with the key in this file: what somebody who recorded
/// them could send again. Those of each role are in an element of their own, the primary's first.
///
/// # Panics
///
/// If the key can't be read.
pub fn recorded_handshakes(key: &Path, sessions: usize) -> [Vec<Vec<u8>>; 2] {
    let mut recorded = [Vec::new(), Vec::new()];
    for _ in 0..sessions {
        let mut now = Time::from_nanos(1);
        let mut ends = [Role::Primary, Role::Backup].map(|role| link(key, role));
        ends.iter_mut().for_each(|end| end.start(now));
        while ends.iter().any(|end| end.peer().is_none()) {
            let mut buffer = [0; 512];
            for from in 0..2 {
                while let Some(length) = ends[from].poll_transmit(&mut buffer) {
                    recorded[from].push(buffer[..length].to_vec());
                    ends[1 - from].handle_frame(now, &mut buffer[..length]);
                }
            }
            now = now + Span::from_millis(1);
            ends.iter_mut().for_each(|end| end.handle_timeout(now));
        }
    }
    recorded
}

fn link(key: &Path, role: Role) -> SecureLink {
    let key = key_file::read(key).unwrap_or_else(|error| panic!("no key: {error}"));
    let identity = Identity {
        protocol_version: PROTOCOL_VERSION,
        role,
        vm_id: VM,
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
    let entropy = Box::new(|bytes: &mut [u8]| fastrand::fill(bytes));
    SecureLink::new(Security::Sealed(key), identity, entropy)
}
