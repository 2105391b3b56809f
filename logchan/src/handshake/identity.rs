//! [`Identity`]: what an endpoint states about itself in a handshake, and whether two endpoints are
//! compatible.
//!
//! An identity is part of the handshake's messages, encrypted and authenticated. All numbers are
//! little-endian. The version comes first in every version of the format, so that two builds can always
//! detect that they differ:
//!
//! ```text
//! version u16 | role u8 | incarnation u64 | vm_id u64 | cpu_digest u64 | guest_digest u64 | term u64 |
//! witness u64 | claimant u64 | disks_digest u64 | timing u32 | frame_bytes_max u16 | cpu_level u8 |
//! host_profile, 17 bytes
//! ```

use crate::error::FieldError;
use crate::host_profile::{HOST_PROFILE_BYTES, HostProfile, ProfileDifference};
use crate::ids::{Claimant, Role, Term, VmId, WitnessId};
use crate::limits::{SEALED_FRAME_BYTES_MAX, SEALED_FRAME_BYTES_MIN};
use crate::wire::Reader;
use core::fmt;

/// Version of everything that two endpoints exchange. It moves with [`crate::frame::FRAME_VERSION`],
/// with the kinds of sealed frames within a session, with the encoding of log entries and what their
/// digests cover, and with the layout of an identity.
pub const PROTOCOL_VERSION: u16 = 12;

/// Length of an encoded identity in bytes.
pub(super) const IDENTITY_BYTES: usize = 2 + 1 + 8 * 8 + 4 + 2 + 1 + HOST_PROFILE_BYTES;

/// What an endpoint states about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Version of the channel's frames and of everything in them.
    pub protocol_version: u16,
    /// Role of the endpoint. The two must differ.
    pub role: Role,
    /// The VM, as in the configurations of both hosts.
    pub vm_id: VmId,
    /// Level `n` of the CPU model that is named `vn`, or 0. It makes a mismatch readable; the digest decides.
    pub cpu_level: u8,
    /// xxh3-64 of the CPU model, as the vCPU sees it.
    pub cpu_digest: u64,
    /// xxh3-64 of the guest image, and of what else the machines of both hosts must have in common.
    pub guest_digest: u64,
    /// xxh3-64 of size, access and serial number of each disk, in their order; 0 if there is none.
    pub disks_digest: u64,
    /// Term of the endpoint; of a backup, the newest term that it knows, or 0 if it knows none.
    pub term: Term,
    /// The witness, which decides who may take the next term.
    pub witness: WitnessId,
    /// Name under which the process makes its claims at the witness. The backup needs the primary's: it
    /// claims the next term only if the witness has this name as the owner of the current term.
    pub claimant: Claimant,
    /// [`Timing::fingerprint`](crate::channel::Timing::fingerprint): the lease of one end is only safe
    /// together with the silence timeout of the other.
    pub timing: u32,
    /// Longest sealed frame in bytes: the MTU of the interface.
    pub frame_bytes_max: u16,
    /// How the host runs a guest.
    pub host_profile: HostProfile,
}

/// A CPU model in a message: name and digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuModelId {
    /// See [`Identity::cpu_level`].
    pub level: u8,
    /// See [`Identity::cpu_digest`].
    pub digest: u64,
}

impl fmt::Display for CpuModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{} ({:016x})", self.level, self.digest)
    }
}

/// Why two endpoints with the same key are incompatible. "Ours" is the endpoint that reports the
/// mismatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Different builds.
    #[error("the peer speaks protocol version {theirs}, we speak {ours}: run the same build")]
    ProtocolVersion {
        /// Our version.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// Different VMs with the same key.
    #[error("the peer serves VM {theirs}, we serve VM {ours}: compare the configurations")]
    Vm {
        /// Our VM.
        ours: VmId,
        /// The peer's.
        theirs: VmId,
    },
    /// The same role.
    #[error("the peer is {}, and so are we: start one side as the other", role_name(*role))]
    Role {
        /// The role of both.
        role: Role,
    },
    /// Different CPU models: the VM would behave differently.
    #[error(
        "the peer's CPU model is {theirs}, ours {ours}: choose the same one, on two hosts with the same processor"
    )]
    CpuModel {
        /// Ours.
        ours: CpuModelId,
        /// The peer's.
        theirs: CpuModelId,
    },
    /// Different kinds of host: what the guest does on one is not what it does on the other.
    #[error(
        "the peer's kind of host differs: {}: {} there, {} here: use hosts of one kind (see 'understudy doctor')",
        .0.name, .0.theirs, .0.ours
    )]
    HostProfile(ProfileDifference),
    /// This primary was replaced while it was away.
    #[error(
        "the peer knows of term {theirs}, we are the primary of term {ours}: we were replaced, start as the backup"
    )]
    Replaced {
        /// Our term.
        ours: Term,
        /// Newest term that the peer knows.
        theirs: Term,
    },
    /// The peer is a primary that was replaced while it was away.
    #[error(
        "the peer is the primary of term {theirs}, but term {ours} has begun: it was replaced, start it as the backup"
    )]
    OldPrimary {
        /// Newest term that we know.
        ours: Term,
        /// The peer's.
        theirs: Term,
    },
    /// Different witnesses: each host could win the next term at its own.
    #[error(
        "the peer's witness is {theirs}, ours is {ours}: give both hosts the same witness (is the shared storage mounted on both?)"
    )]
    Witness {
        /// Our witness.
        ours: WitnessId,
        /// The peer's.
        theirs: WitnessId,
    },
    /// Different times.
    #[error("the peer's silence, lease or heartbeat times are not ours: configure the same ones")]
    Timing,
    /// Different guest images, or different machines.
    #[error(
        "the peer's VM is {theirs:016x}, ours {ours:016x}: give both hosts the same guest image, memory size, MAC address and tap"
    )]
    GuestImage {
        /// Our digest.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// Different disks: a guest that goes on here would find another disk.
    #[error(
        "the peer's disks are not ours: give both hosts images with the same sizes, access and serial numbers, in the same order"
    )]
    Disks,
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
            self.disks_digest,
        ];
        for (to, word) in bytes[3..67].chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[67..71].copy_from_slice(&self.timing.to_le_bytes());
        bytes[71..73].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        bytes[73] = self.cpu_level;
        bytes[74..].copy_from_slice(&self.host_profile.encode());
        bytes
    }

    /// Decodes the peer's identity and incarnation and compares them with ours.
    pub(super) fn check_peer(
        &self,
        our_incarnation: u64,
        bytes: &[u8],
    ) -> Result<IdentityCheck, FieldError> {
        let mut reader = Reader::new(bytes);
        let theirs = reader.u16("protocol_version")?;
        let ours = self.protocol_version;
        if theirs != ours {
            // Another version may have any layout from here on.
            return Ok(IdentityCheck::Incompatible(Mismatch::ProtocolVersion { ours, theirs }));
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
            disks_digest: reader.u64("disks_digest")?,
            timing: reader.u32("timing")?,
            frame_bytes_max: reader.u16("frame_bytes_max")?,
            cpu_level: reader.u8("cpu_level")?,
            host_profile: HostProfile::decode(&reader.array("host_profile")?)?,
        };
        reader.finish()?;
        let (min, max) = (SEALED_FRAME_BYTES_MIN, SEALED_FRAME_BYTES_MAX);
        if !(min..=max).contains(&usize::from(peer.frame_bytes_max)) {
            let (value, min, max) = (peer.frame_bytes_max.into(), min as u64, max as u64);
            return Err(FieldError::OutOfBounds { field: "frame_bytes_max", value, min, max });
        }
        if incarnation == our_incarnation {
            return Ok(IdentityCheck::Reflected);
        }
        Ok(match self.mismatch(&peer) {
            Some(mismatch) => IdentityCheck::Incompatible(mismatch),
            None => IdentityCheck::Compatible { peer, incarnation },
        })
    }

    /// Returns the first difference that matters, in the order in which a user would correct them.
    fn mismatch(&self, peer: &Identity) -> Option<Mismatch> {
        if self.vm_id != peer.vm_id {
            return Some(Mismatch::Vm { ours: self.vm_id, theirs: peer.vm_id });
        }
        if self.role == peer.role {
            return Some(Mismatch::Role { role: self.role });
        }
        if self.cpu_digest != peer.cpu_digest {
            let [ours, theirs] = [self, peer].map(|identity| CpuModelId {
                level: identity.cpu_level,
                digest: identity.cpu_digest,
            });
            return Some(Mismatch::CpuModel { ours, theirs });
        }
        if let Some(difference) = self.host_profile.difference(&peer.host_profile) {
            return Some(Mismatch::HostProfile(difference));
        }
        if self.guest_digest != peer.guest_digest {
            let (ours, theirs) = (self.guest_digest, peer.guest_digest);
            return Some(Mismatch::GuestImage { ours, theirs });
        }
        if self.disks_digest != peer.disks_digest {
            return Some(Mismatch::Disks);
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

    /// Returns the term of a session between this endpoint and `peer`, which must be compatible: the
    /// primary's.
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

/// Result of comparing an identity with ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IdentityCheck {
    Compatible {
        peer: Identity,
        incarnation: u64,
    },
    Incompatible(Mismatch),
    /// Our own message, sent back.
    Reflected,
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const OURS: Identity = Identity {
        protocol_version: 3,
        role: Role::Backup,
        vm_id: VmId(1),
        cpu_level: 1,
        cpu_digest: 2,
        guest_digest: 0x0102_0304_0506_0708,
        disks_digest: 0x1112_1314_1516_1718,
        term: Term(4),
        witness: WitnessId(5),
        claimant: Claimant(6),
        timing: 0x0a0b_0c0d,
        frame_bytes_max: 1500,
        host_profile: HostProfile { sysenter_bits: 64, ..HostProfile::UNKNOWN },
    };

    #[test]
    fn identity_golden_bytes() {
        let bytes = OURS.encode(9);
        let mut expected = alloc::vec![3, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        expected.extend([0xd, 0xc, 0xb, 0xa, 0xdc, 5, 1]);
        expected.extend([0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[..], expected);
    }

    #[test]
    fn every_difference_is_named() {
        let peer = Identity { role: Role::Primary, ..OURS };
        let check = |peer: Identity| OURS.check_peer(8, &peer.encode(7)).unwrap();
        assert_eq!(check(peer), IdentityCheck::Compatible { peer, incarnation: 7 });
        assert_eq!(OURS.check_peer(7, &OURS.encode(7)), Ok(IdentityCheck::Reflected));
        let incompatible = [
            (Identity { protocol_version: 4, ..peer }, "version 4"),
            (Identity { vm_id: VmId(5), ..peer }, "VM 5"),
            (OURS, "is the backup"),
            (
                Identity { cpu_level: 3, cpu_digest: 6, ..peer },
                "CPU model is v3 (0000000000000006), ours v1 (0000000000000002)",
            ),
            (
                Identity { host_profile: HostProfile::UNKNOWN, ..peer },
                "bits of SYSENTER_ESP: unknown there, 64 here",
            ),
            (Identity { guest_digest: 6, ..peer }, "guest image"),
            (Identity { disks_digest: 6, ..peer }, "disks are not ours"),
            (Identity { witness: WitnessId(6), ..peer }, "peer's witness is 0000000000000006"),
            (Identity { timing: 6, ..peer }, "times are not ours"),
            (Identity { term: Term(3), ..peer }, "term 4 has begun"),
        ];
        for (peer, part) in incompatible {
            let IdentityCheck::Incompatible(mismatch) = check(peer) else {
                panic!("{peer:?} is compatible")
            };
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
            assert!(matches!(OURS.check_peer(8, &bytes), Err(FieldError::OutOfBounds { .. })));
        }
    }

    #[test]
    fn identity_of_an_unknown_build_needs_its_version_only() {
        let mismatch = Mismatch::ProtocolVersion { ours: 3, theirs: 9 };
        assert_eq!(OURS.check_peer(8, &[9, 0, 77]), Ok(IdentityCheck::Incompatible(mismatch)));
        assert!(OURS.check_peer(8, &[3]).is_err());
        let mut bytes = OURS.encode(0);
        bytes[2] = 0;
        assert!(matches!(OURS.check_peer(8, &bytes), Err(FieldError::OutOfBounds { .. })));
        assert!(OURS.check_peer(8, &bytes[..20]).is_err());
    }
}
