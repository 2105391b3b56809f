//! Sealing, opening and refusing frames of a session does not allocate.
//!
//! This is a program of its own, because the counting allocator is that of the whole program: it has one
//! test, and nothing else runs in it.
//!
//! It has unsafe code because `GlobalAlloc` cannot be implemented without. Every request is passed to
//! the system's allocator unchanged.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use logchan::handshake::{
    Identity, PROTOCOL_VERSION, PresharedKey, Received, SecureLink, Security,
};
use logchan::host_profile::HostProfile;
use logchan::ids::{Claimant, Role, Term, VmId, WitnessId};
use logchan::time::Time;

struct Counting;

thread_local! {
    /// Allocations of this thread; the test harness allocates on its own threads while a test runs. The
    /// variable is constant-initialized and has no destructor, so that counting does not allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is passed on to `System`, which fulfils the contract; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller fulfils the contract of this function, which is the one of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `alloc` above, or the default `realloc` on it, and thus from
        // `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: Time = Time::from_nanos(1);

fn endpoint(role: Role, byte: u8) -> SecureLink {
    let identity = Identity {
        protocol_version: PROTOCOL_VERSION,
        role,
        vm_id: VmId(1),
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
    let key = Security::Sealed(PresharedKey::from_bytes(&[9; 32]).unwrap());
    let mut next = byte;
    let entropy = move |bytes: &mut [u8]| {
        bytes.fill_with(|| {
            next = next.wrapping_mul(5).wrapping_add(1);
            next
        });
    };
    SecureLink::new(key, identity, Box::new(entropy))
}

/// Delivers the next frame that `from` sends. Returns whether there was one.
fn deliver(from: &mut SecureLink, to: &mut SecureLink) -> bool {
    let mut buffer = [0; 256];
    let Some(length) = from.poll_transmit(&mut buffer) else { return false };
    assert!(matches!(to.handle_frame(NOW, &mut buffer[..length]), Received::Handshake(_)));
    true
}

#[test]
fn frames_of_a_session_allocate_nothing() {
    let (mut a, mut b) = (endpoint(Role::Primary, 1), endpoint(Role::Backup, 2));
    a.start(NOW);
    while deliver(&mut a, &mut b) || deliver(&mut b, &mut a) {}
    assert!(a.peer().is_some() && b.peer().is_some());

    let before = ALLOCATIONS.get();
    let mut opened = 0;
    for n in 0..1_000_usize {
        let mut buffer = [n as u8; 1500];
        let frame = &mut buffer[..32 + n % 1469];
        a.seal(frame).unwrap();
        let mut copy = [0; 1500];
        let copy = &mut copy[..frame.len()];
        copy.copy_from_slice(frame);
        // The frame as it is, then a duplicate, then a damaged one.
        opened += usize::from(matches!(b.handle_frame(NOW, frame), Received::Data(_)));
        assert!(matches!(b.handle_frame(NOW, copy), Received::Dropped(_)));
        copy[9 + n % 7] ^= 1;
        assert!(matches!(b.handle_frame(NOW, copy), Received::Dropped(_)));
    }
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!((opened, allocations), (1_000, 0));
}

/// Frames that an attacker without the key makes up or sends again allocate nothing either.
#[test]
fn handshake_frames_without_the_key_allocate_nothing() {
    let (mut a, mut b) = (endpoint(Role::Primary, 1), endpoint(Role::Backup, 2));
    a.start(NOW);
    let mut recorded = Vec::new();
    let mut turn = [&mut a, &mut b];
    for _ in 0..4 {
        let mut buffer = [0; 256];
        let length = turn[0].poll_transmit(&mut buffer).expect("a frame of the handshake");
        recorded.push(buffer);
        turn[1].handle_frame(NOW, &mut buffer[..length]);
        turn.reverse();
    }
    b.start(NOW);
    let before = ALLOCATIONS.get();
    for frame in &recorded {
        for n in 0..250_usize {
            let mut copy = *frame;
            // Some of them as they were.
            copy[2 + n % 20] ^= (n % 5) as u8;
            a.handle_frame(NOW, &mut copy.clone());
            b.handle_frame(NOW, &mut copy);
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    let [a, b] = [a.stats(), b.stats()];
    assert!(a.forged_handshakes > 100 && b.forged_handshakes > 100, "{a:?} {b:?}");
}
