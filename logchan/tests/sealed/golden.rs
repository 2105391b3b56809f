//! Sealed frames of every kind byte for byte, with and without protection. `it/golden.rs` says what a
//! difference means. Here, the version that moves is `seal::VERSION`, or `PROTOCOL_VERSION` for the
//! contents of an identity. To rewrite the fixtures:
//!
//! ```text
//! LOGCHAN_WRITE_FIXTURES=1 cargo test -p logchan --test sealed -- golden
//! ```

use logchan::handshake::{Proof, Received, SecureLink, Security};
use logchan::seal::{Protection, SealHeader, SealKind};
use logchan::time::Time;

use crate::fixtures::check_bytes;
use crate::pair::{BACKUP, PRIMARY, around, endpoint, shared_key, transmitted};

const NOW: Time = Time::from_nanos(1);
const PAYLOAD: &[u8] = b"a frame of the channel";

/// Returns the same two ends every time: their randomness comes from two seeds.
fn ends(protection: Protection) -> [SecureLink; 2] {
    let security = || match protection {
        Protection::Sealed => shared_key(),
        Protection::Insecure => Security::Insecure,
    };
    [endpoint(security(), PRIMARY, 1), endpoint(security(), BACKUP, 2)]
}

/// Compares `frame` with its fixture. Returns the fixture's bytes, so that the test goes on with what
/// was once written.
fn golden(protection: Protection, kind: SealKind, frame: &[u8]) -> Vec<u8> {
    let name = format!("{protection:?}_{kind:?}").to_lowercase();
    let golden = check_bytes(&name, &format!("a frame: {protection:?}, {kind:?}"), frame);
    let header = SealHeader::decode(&golden).expect("a frame");
    assert_eq!((header.protection, header.kind), (protection, kind));
    golden
}

#[test]
fn golden_handshake_frames_establish_a_session_whose_frames_open() {
    for protection in [Protection::Sealed, Protection::Insecure] {
        let golden = |kind, frame: &[u8]| golden(protection, kind, frame);
        let [mut initiator, mut responder] = ends(protection);
        initiator.start(NOW);
        let mut request = golden(SealKind::Request, &transmitted(&mut initiator)[0]);
        assert_eq!(responder.handle_frame(NOW, &mut request), Received::Handshake(Proof::Key));
        let mut challenge = golden(SealKind::Challenge, &transmitted(&mut responder)[0]);
        assert_eq!(initiator.handle_frame(NOW, &mut challenge), Received::Handshake(Proof::Key));
        let mut initiation = golden(SealKind::Initiation, &transmitted(&mut initiator)[0]);
        assert_eq!(responder.handle_frame(NOW, &mut initiation), Received::Handshake(Proof::Key));
        let mut response = golden(SealKind::Response, &transmitted(&mut responder)[0]);
        assert_eq!(
            initiator.handle_frame(NOW, &mut response),
            Received::Handshake(Proof::Presence)
        );
        assert!(initiator.peer().is_some() && responder.peer().is_none());
        let mut confirm = golden(SealKind::Confirm, &transmitted(&mut initiator)[0]);
        assert_eq!(responder.handle_frame(NOW, &mut confirm), Received::Handshake(Proof::Presence));
        assert_eq!(responder.peer().map(|peer| peer.identity), Some(PRIMARY));
        let mut frame = around(PAYLOAD);
        initiator.seal(&mut frame).expect("a session");
        let mut data = golden(SealKind::Data, &frame);
        let mut payload = PAYLOAD.to_vec();
        assert_eq!(responder.handle_frame(NOW, &mut data), Received::Data(&mut payload));
        let notice = initiator.poll_death_notice().expect("a session");
        let mut notice = golden(SealKind::DeathNotice, notice.as_bytes());
        assert_eq!(responder.handle_frame(NOW, &mut notice), Received::PeerGone);
    }
}
