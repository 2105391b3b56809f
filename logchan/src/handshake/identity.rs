//! What the two ends tell each other about themselves, and whether they fit together.
//!
//! An identity travels inside the handshake's messages, encrypted and authenticated. All numbers are
//! little-endian; the version comes first and stays there, so that two builds can always tell each
//! other that they differ:
//!
//! ```text
//! version u16 | role u8 | incarnation u64 | vm_id u64 | cpu_digest u64 | guest_digest u64 | term u64 |
//! witness u64 | claimant u64 | timing u32 | frame_bytes_max u16
//! ```

use crate::error::FieldError;
use crate::ids::{Claimant, Role, Term, VmId, WitnessId};
use crate::limits::{SEALED_FRAME_BYTES_MAX, SEALED_FRAME_BYTES_MIN};
use crate::wire::Reader;

/// Version of all that two endpoints say to each other: moves with [`crate::frame::FRAME_VERSION`],
/// with the log's entries and what their digests cover, and with the layout of an identity.
pub const PROTOCOL_VERSION: u16 = 3;

/// Bytes of an identity.
pub(super) const IDENTITY_BYTES: usize = 2 + 1 + 7 * 8 + 4 + 2;

/// What an endpoint says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Version of the channel's frames and of everything in them.
    pub protocol_version: u16,
    /// Which side it is. The two must differ.
    pub role: Role,
    /// The VM, as both hosts' configurations name it.
    pub vm_id: VmId,
    /// xxh3-64 of the CPU model, as the vCPU sees it.
    pub cpu_digest: u64,
    /// xxh3-64 of the guest image.
    pub guest_digest: u64,
    /// The term that the endpoint is in; of a backup, the newest that it knows of, 0 for none.
    pub term: Term,
    /// The witness that decides who may take the next term.
    pub witness: WitnessId,
    /// The name that the process makes its claims under. The backup needs the primary's: it claims the
    /// next term only from a witness that has this one as the owner of the current term.
    pub claimant: Claimant,
    /// [`Timing::fingerprint`](crate::channel::Timing::fingerprint): the lease of one side means
    /// nothing against the silence of another.
    pub timing: u32,
    /// Bytes that a sealed frame may have: the MTU of its interface.
    pub frame_bytes_max: u16,
}

/// Why two endpoints with the same key must not work together. "Ours" is the one that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Two builds.
    #[error("the peer speaks protocol version {theirs}, we speak {ours}: run the same build")]
    ProtocolVersion {
        /// Our version.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// Two VMs under one key.
    #[error("the peer serves VM {theirs}, we serve VM {ours}: compare the configurations")]
    Vm {
        /// Our VM.
        ours: VmId,
        /// The peer's.
        theirs: VmId,
    },
    /// Both the same.
    #[error("the peer is {}, and so are we: start one side as the other", role_name(*role))]
    Role {
        /// What both are.
        role: Role,
    },
    /// A vCPU that would behave differently.
    #[error("the peer's CPU model is {theirs:016x}, ours {ours:016x}: configure the same one")]
    CpuModel {
        /// Our digest.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// A primary that was replaced while it was away.
    #[error(
        "the peer knows of term {theirs}, we are the primary of term {ours}: we were replaced, start as the backup"
    )]
    Replaced {
        /// Our term.
        ours: Term,
        /// The newest that the peer knows of.
        theirs: Term,
    },
    /// The same, seen from the backup.
    #[error(
        "the peer is the primary of term {theirs}, but term {ours} has begun: it was replaced, start it as the backup"
    )]
    OldPrimary {
        /// The newest term that we know of.
        ours: Term,
        /// The peer's.
        theirs: Term,
    },
    /// Two witnesses: each host could win the next term at its own.
    #[error(
        "the peer's witness is {theirs}, ours is {ours}: give both hosts the same witness (is the shared storage mounted on both?)"
    )]
    Witness {
        /// Our witness.
        ours: WitnessId,
        /// The peer's.
        theirs: WitnessId,
    },
    /// Other times.
    #[error("the peer's silence, lease or heartbeat times are not ours: configure the same ones")]
    Timing,
    /// Another guest.
    #[error("the peer's guest image is {theirs:016x}, ours {ours:016x}: use the same file")]
    GuestImage {
        /// Our digest.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
}

impl Identity {
    pub(super) fn encode(&self, incarnation: u64) -> [u8; IDENTITY_BYTES] {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[..2].copy_from_slice(&self.protocol_version.to_le_bytes());
        bytes[2] = self.role.number();
        let words = [
            incarnation,
            self.vm_id.0,
            self.cpu_digest,
            self.guest_digest,
            self.term.0,
            self.witness.0,
            self.claimant.0,
        ];
        for (to, word) in bytes[3..59].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[59..63].copy_from_slice(&self.timing.to_le_bytes());
        bytes[63..].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        bytes
    }

    /// Reads an identity and its incarnation and compares both with ours.
    pub(super) fn meet(&self, our_incarnation: u64, bytes: &[u8]) -> Result<Met, FieldError> {
        let mut reader = Reader::new(bytes);
        let theirs = reader.u16("protocol_version")?;
        let ours = self.protocol_version;
        if theirs != ours {
            // What follows may be anything.
            return Ok(Met::Unfit(Mismatch::ProtocolVersion { ours, theirs }));
        }
        let number = reader.u8("role")?;
        let (value, min, max) = (number.into(), 1, 2);
        let role = Role::from_number(number).ok_or(FieldError::OutOfBounds {
            field: "role",
            value,
            min,
            max,
        })?;
        let incarnation = reader.u64("incarnation")?;
        let peer = Identity {
            protocol_version: theirs,
            role,
            vm_id: VmId(reader.u64("vm_id")?),
            cpu_digest: reader.u64("cpu_digest")?,
            guest_digest: reader.u64("guest_digest")?,
            term: Term(reader.u64("term")?),
            witness: WitnessId(reader.u64("witness")?),
            claimant: Claimant(reader.u64("claimant")?),
            timing: reader.u32("timing")?,
            frame_bytes_max: reader.u16("frame_bytes_max")?,
        };
        reader.finish()?;
        let (min, max) = (SEALED_FRAME_BYTES_MIN, SEALED_FRAME_BYTES_MAX);
        if !(min..=max).contains(&usize::from(peer.frame_bytes_max)) {
            let (value, min, max) = (peer.frame_bytes_max.into(), min as u64, max as u64);
            return Err(FieldError::OutOfBounds { field: "frame_bytes_max", value, min, max });
        }
        if incarnation == our_incarnation {
            return Ok(Met::Ourselves);
        }
        Ok(match self.mismatch(&peer) {
            Some(mismatch) => Met::Unfit(mismatch),
            None => Met::Fit { peer, incarnation },
        })
    }

    /// The first difference that matters, in the order in which a user would correct them.
    fn mismatch(&self, peer: &Identity) -> Option<Mismatch> {
        if self.vm_id != peer.vm_id {
            return Some(Mismatch::Vm { ours: self.vm_id, theirs: peer.vm_id });
        }
        if self.role == peer.role {
            return Some(Mismatch::Role { role: self.role });
        }
        if self.cpu_digest != peer.cpu_digest {
            let (ours, theirs) = (self.cpu_digest, peer.cpu_digest);
            return Some(Mismatch::CpuModel { ours, theirs });
        }
        if self.guest_digest != peer.guest_digest {
            let (ours, theirs) = (self.guest_digest, peer.guest_digest);
            return Some(Mismatch::GuestImage { ours, theirs });
        }
        if self.witness != peer.witness {
            return Some(Mismatch::Witness { ours: self.witness, theirs: peer.witness });
        }
        if self.timing != peer.timing {
            return Some(Mismatch::Timing);
        }
        let (ours, theirs) = (self.term, peer.term);
        match self.role {
            Role::Primary if theirs > ours => Some(Mismatch::Replaced { ours, theirs }),
            Role::Backup if theirs < ours => Some(Mismatch::OldPrimary { ours, theirs }),
            Role::Primary | Role::Backup => None,
        }
    }

    /// The term of a session between this endpoint and `peer`, which fit: the primary's.
    pub fn session_term(&self, peer: &Identity) -> Term {
        match self.role {
            Role::Primary => self.term,
            Role::Backup => peer.term,
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Primary => "the primary",
        Role::Backup => "the backup",
    }
}

/// What came of comparing identities.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Met {
    Fit {
        peer: Identity,
        incarnation: u64,
    },
    Unfit(Mismatch),
    /// Our own words, sent back.
    Ourselves,
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const OURS: Identity = Identity {
        protocol_version: 3,
        role: Role::Backup,
        vm_id: VmId(1),
        cpu_digest: 2,
        guest_digest: 0x0102_0304_0506_0708,
        term: Term(4),
        witness: WitnessId(5),
        claimant: Claimant(6),
        timing: 0x0a0b_0c0d,
        frame_bytes_max: 1500,
    };

    #[test]
    fn identity_golden_bytes() {
        let bytes = OURS.encode(9);
        let mut expected = alloc::vec![3, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([6, 0, 0, 0, 0, 0, 0, 0, 0xd, 0xc, 0xb, 0xa, 0xdc, 5]);
        assert_eq!(bytes[..], expected);
    }

    #[test]
    fn every_difference_is_named() {
        let peer = Identity { role: Role::Primary, ..OURS };
        let meet = |peer: Identity| OURS.meet(8, &peer.encode(7)).unwrap();
        assert_eq!(meet(peer), Met::Fit { peer, incarnation: 7 });
        assert_eq!(OURS.meet(7, &OURS.encode(7)), Ok(Met::Ourselves));
        let unfit = [
            (Identity { protocol_version: 4, ..peer }, "version 4"),
            (Identity { vm_id: VmId(5), ..peer }, "VM 5"),
            (OURS, "is the backup"),
            (Identity { cpu_digest: 6, ..peer }, "CPU model"),
            (Identity { guest_digest: 6, ..peer }, "guest image"),
            (Identity { witness: WitnessId(6), ..peer }, "peer's witness is 0000000000000006"),
            (Identity { timing: 6, ..peer }, "times are not ours"),
            (Identity { term: Term(3), ..peer }, "term 4 has begun"),
        ];
        for (peer, part) in unfit {
            let Met::Unfit(mismatch) = meet(peer) else { panic!("{peer:?} fits") };
            let text = mismatch.to_string();
            assert!(text.contains(part) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn backup_may_be_behind_the_primary_s_term_never_ahead() {
        let primary = Identity { role: Role::Primary, ..OURS };
        for (term, fits) in [(0, true), (4, true), (5, false)] {
            let backup = Identity { term: Term(term), ..OURS };
            assert_eq!(primary.mismatch(&backup).is_none(), fits, "term {term}");
            assert_eq!(backup.mismatch(&primary).is_none(), fits, "term {term}");
            assert_eq!(primary.session_term(&backup), Term(4));
            assert_eq!(backup.session_term(&primary), Term(4));
        }
    }

    #[test]
    fn claimants_of_a_fitting_pair_differ() {
        let peer = Identity { role: Role::Primary, claimant: Claimant(7), ..OURS };
        assert_eq!(OURS.mismatch(&peer), None);
    }

    #[test]
    fn frame_size_that_no_channel_could_use_is_refused() {
        for frame_bytes_max in [0, 287, 9249, u16::MAX] {
            let bytes = Identity { frame_bytes_max, role: Role::Primary, ..OURS }.encode(7);
            assert!(matches!(OURS.meet(8, &bytes), Err(FieldError::OutOfBounds { .. })));
        }
    }

    #[test]
    fn identity_of_an_unknown_build_needs_its_version_only() {
        let mismatch = Mismatch::ProtocolVersion { ours: 3, theirs: 9 };
        assert_eq!(OURS.meet(8, &[9, 0, 77]), Ok(Met::Unfit(mismatch)));
        assert!(OURS.meet(8, &[3]).is_err());
        let mut bytes = OURS.encode(0);
        bytes[2] = 0;
        assert!(matches!(OURS.meet(8, &bytes), Err(FieldError::OutOfBounds { .. })));
        assert!(OURS.meet(8, &bytes[..20]).is_err());
    }
}
