//! [`HostProfile`]: how a host's KVM and processor run a guest, as far as kinds of host differ in it.
//!
//! The VMM fills a profile by running probes (`vmm/src/kvm/profile/`). A log's header and the identity in a
//! handshake contain it, so that a replay on an unlike host and an unlike pair are refused, with the first field
//! that differs. [`HostProfile::fields`] is the table of all fields: their names, their values, and whether they
//! are compared.
//!
//! Encoding: one byte for each answer (0 unknown, 1 no, 2 yes), then the other fields, little-endian.
//!
//! ```text
//!  0  emulates_kernel_code      1
//!  1  syscall_stays_at_cpl3     1
//!  2  injects_exceptions        1
//!  3  shadows_page_tables       1
//!  4  tracks_segment_loads      1
//!  5  exact_kernel_windows      1
//!  6  sysenter_bits             1
//!  7  emulator_gaps             1
//!  8  stale_fields              1
//!  9  native                    2
//! 11  cpuid_leaves              2
//! 13  cpuid_digest              4
//! ```

use core::fmt::{self, Display, Formatter};

use crate::error::FieldError;
use crate::wire::{Reader, bounded};

/// Length of an encoded profile in bytes.
pub const HOST_PROFILE_BYTES: usize = 17;

/// Result of a probe for one property of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// The probe was not run, or its result was inconclusive.
    #[default]
    Unknown,
    /// The host does not have the property.
    No,
    /// The host has the property.
    Yes,
}

impl Answer {
    fn decode(reader: &mut Reader<'_>, field: &'static str) -> Result<Answer, FieldError> {
        match reader.u8(field)? {
            0 => Ok(Answer::Unknown),
            1 => Ok(Answer::No),
            2 => Ok(Answer::Yes),
            value => Err(FieldError::OutOfBounds { field, value: value.into(), min: 0, max: 2 }),
        }
    }

    fn number(self) -> u8 {
        match self {
            Answer::Unknown => 0,
            Answer::No => 1,
            Answer::Yes => 2,
        }
    }
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Answer {
        if yes { Answer::Yes } else { Answer::No }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answer::Unknown => "unknown",
            Answer::No => "no",
            Answer::Yes => "yes",
        })
    }
}

/// Names of the bits of [`HostProfile::emulator_gaps`], from the lowest bit up.
pub const EMULATOR_GAPS: [&str; 4] = ["INT3", "INT n", "FWAIT", "MFENCE"];

/// Names of the bits of [`HostProfile::stale_fields`], from the lowest bit up.
pub const STALE_FIELDS: [&str; 3] =
    ["exception vector", "interrupt vector", "type of an unusable segment"];

/// Names of the bits of [`HostProfile::native`], from the lowest bit up.
pub const NATIVE: [&str; 10] =
    ["RDRAND", "RDSEED", "RDTSCP", "RDPID", "RDPRU", "TPAUSE", "XBEGIN", "XGETBV", "XSAVE", "AVX"];

/// Names of the bits of [`HostProfile::cpuid_leaves`], from the lowest bit up: the leaves that are probed.
pub const CPUID_LEAVES: [&str; 12] = [
    "0",
    "1",
    "2",
    "4",
    "7",
    "0xB",
    "0xD",
    "0x80000000",
    "0x80000001",
    "0x80000006",
    "0x80000007",
    "0x80000008",
];

/// How a host runs a guest. The default is [`UNKNOWN`](Self::UNKNOWN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostProfile {
    /// KVM emulates CPL0 code instruction by instruction.
    pub emulates_kernel_code: Answer,
    /// SYSCALL at CPL3 reaches its handler without changing to CPL0.
    pub syscall_stays_at_cpl3: Answer,
    /// KVM injects an exception that VMX and SVM leave to the processor.
    pub injects_exceptions: Answer,
    /// KVM keeps shadow page tables, which go stale when this program writes page tables of the guest.
    pub shadows_page_tables: Answer,
    /// KVM reports a selector that CPL3 code loaded.
    pub tracks_segment_loads: Answer,
    /// An interrupt window at CPL0 opens before the first instruction that can be interrupted. Then it is a
    /// position.
    pub exact_kernel_windows: Answer,
    /// Bits of SYSENTER_ESP and SYSENTER_EIP that KVM sets; 0 if unknown.
    pub sysenter_bits: u8,
    /// Instructions of [`EMULATOR_GAPS`] that KVM does not execute at CPL0.
    pub emulator_gaps: u8,
    /// Undefined fields of [`STALE_FIELDS`] in which KVM leaves values.
    pub stale_fields: u8,
    /// Instructions of [`NATIVE`] that run at CPL3.
    pub native: u16,
    /// Leaves of [`CPUID_LEAVES`] in which CPUID answers otherwise than the CPU model.
    pub cpuid_leaves: u16,
    /// Digest of the answers in these leaves; 0 if there are none.
    pub cpuid_digest: u32,
}

impl Default for HostProfile {
    fn default() -> HostProfile {
        HostProfile::UNKNOWN
    }
}

/// Whether a field must be equal on the hosts of a pair, and at a recording and its replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// A guest or a log can depend on it.
    Yes,
    /// The VMM makes up for a difference.
    No,
}

/// The value of a field, for comparison and for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Result of a probe.
    Answer(Answer),
    /// A number of bits; 0 if unknown.
    Bits(u8),
    /// A set of names, a bit for each.
    Names(u16, &'static [&'static str]),
    /// CPUID leaves, and the digest of what CPUID answers there.
    Leaves(u16, u32),
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Answer(answer) => answer.fmt(f),
            Value::Bits(0) => f.write_str("unknown"),
            Value::Bits(bits) => bits.fmt(f),
            Value::Names(set, names) => write_names(f, set, names),
            Value::Leaves(0, _) => f.write_str("none"),
            Value::Leaves(set, digest) => {
                write_names(f, set, &CPUID_LEAVES)?;
                write!(f, " (digest {digest:08x})")
            }
        }
    }
}

fn write_names(f: &mut Formatter<'_>, set: u16, names: &[&str]) -> fmt::Result {
    if set == 0 {
        return f.write_str("none");
    }
    let named = names.iter().enumerate().filter(|(bit, _)| set >> bit & 1 != 0);
    for (index, (_, name)) in named.enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(f, "{comma}{name}")?;
    }
    Ok(())
}

/// One row of the table [`HostProfile::fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileField {
    /// Name in machine-readable output.
    pub key: &'static str,
    /// What the field says.
    pub name: &'static str,
    /// Whether a difference is refused.
    pub compared: Compared,
    /// The value on this host.
    pub value: Value,
}

/// Number of fields.
pub const PROFILE_FIELDS: usize = 11;

/// The first field in which two hosts differ so that one can't continue what the other began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileDifference {
    /// What the field says.
    pub name: &'static str,
    /// The value on this host.
    pub ours: Value,
    /// The value on the other host, or in a file.
    pub theirs: Value,
}

impl HostProfile {
    /// A host of which nothing is known.
    pub const UNKNOWN: HostProfile = HostProfile {
        emulates_kernel_code: Answer::Unknown,
        syscall_stays_at_cpl3: Answer::Unknown,
        injects_exceptions: Answer::Unknown,
        shadows_page_tables: Answer::Unknown,
        tracks_segment_loads: Answer::Unknown,
        exact_kernel_windows: Answer::Unknown,
        sysenter_bits: 0,
        emulator_gaps: 0,
        stale_fields: 0,
        native: 0,
        cpuid_leaves: 0,
        cpuid_digest: 0,
    };

    /// Returns the table of all fields, in the order in which a difference is reported.
    pub fn fields(&self) -> [ProfileField; PROFILE_FIELDS] {
        let field = |key, name, compared, value| ProfileField { key, name, compared, value };
        let compared = |key, name, value| field(key, name, Compared::Yes, value);
        let other = |key, name, value| field(key, name, Compared::No, value);
        [
            compared(
                "emulates_kernel_code",
                "KVM emulates kernel code",
                Value::Answer(self.emulates_kernel_code),
            ),
            compared(
                "syscall_stays_at_cpl3",
                "SYSCALL stays at CPL3",
                Value::Answer(self.syscall_stays_at_cpl3),
            ),
            compared(
                "injects_exceptions",
                "KVM injects exceptions",
                Value::Answer(self.injects_exceptions),
            ),
            compared(
                "shadows_page_tables",
                "KVM shadows page tables",
                Value::Answer(self.shadows_page_tables),
            ),
            compared(
                "tracks_segment_loads",
                "KVM tracks segment loads at CPL3",
                Value::Answer(self.tracks_segment_loads),
            ),
            compared("sysenter_bits", "bits of SYSENTER_ESP", Value::Bits(self.sysenter_bits)),
            compared(
                "cpuid_leaves",
                "CPUID leaves that differ from the CPU model",
                Value::Leaves(self.cpuid_leaves, self.cpuid_digest),
            ),
            compared(
                "native",
                "instructions that run natively at CPL3",
                Value::Names(self.native, &NATIVE),
            ),
            compared(
                "exact_kernel_windows",
                "interrupt windows at CPL0 are exact",
                Value::Answer(self.exact_kernel_windows),
            ),
            other(
                "emulator_gaps",
                "instructions that KVM does not execute at CPL0",
                Value::Names(self.emulator_gaps.into(), &EMULATOR_GAPS),
            ),
            other(
                "stale_fields",
                "undefined fields with values",
                Value::Names(self.stale_fields.into(), &STALE_FIELDS),
            ),
        ]
    }

    /// Returns the first difference to `theirs` in a field that is compared.
    pub fn difference(&self, theirs: &HostProfile) -> Option<ProfileDifference> {
        self.fields().into_iter().zip(theirs.fields()).find_map(|(ours, theirs)| {
            let differs = match ours.compared {
                Compared::Yes => ours.value != theirs.value,
                Compared::No => false,
            };
            let (name, ours, theirs) = (ours.name, ours.value, theirs.value);
            differs.then_some(ProfileDifference { name, ours, theirs })
        })
    }

    /// Encodes the profile.
    pub fn encode(&self) -> [u8; HOST_PROFILE_BYTES] {
        let mut bytes = [0; HOST_PROFILE_BYTES];
        let answers = [
            self.emulates_kernel_code,
            self.syscall_stays_at_cpl3,
            self.injects_exceptions,
            self.shadows_page_tables,
            self.tracks_segment_loads,
            self.exact_kernel_windows,
        ];
        for (byte, answer) in bytes.iter_mut().zip(answers) {
            *byte = answer.number();
        }
        bytes[6..9].copy_from_slice(&[self.sysenter_bits, self.emulator_gaps, self.stale_fields]);
        bytes[9..11].copy_from_slice(&self.native.to_le_bytes());
        bytes[11..13].copy_from_slice(&self.cpuid_leaves.to_le_bytes());
        bytes[13..].copy_from_slice(&self.cpuid_digest.to_le_bytes());
        bytes
    }

    /// Decodes a profile of exactly these bytes.
    ///
    /// # Errors
    ///
    /// The first field that is outside of its limits.
    pub fn decode(bytes: &[u8; HOST_PROFILE_BYTES]) -> Result<HostProfile, FieldError> {
        let mut reader = Reader::new(bytes);
        // The fields are read in the order in which they are encoded.
        let profile = HostProfile {
            emulates_kernel_code: Answer::decode(&mut reader, "emulates_kernel_code")?,
            syscall_stays_at_cpl3: Answer::decode(&mut reader, "syscall_stays_at_cpl3")?,
            injects_exceptions: Answer::decode(&mut reader, "injects_exceptions")?,
            shadows_page_tables: Answer::decode(&mut reader, "shadows_page_tables")?,
            tracks_segment_loads: Answer::decode(&mut reader, "tracks_segment_loads")?,
            exact_kernel_windows: Answer::decode(&mut reader, "exact_kernel_windows")?,
            sysenter_bits: reader.u8("sysenter_bits")?,
            emulator_gaps: reader.u8("emulator_gaps")?,
            stale_fields: reader.u8("stale_fields")?,
            native: reader.u16("native")?,
            cpuid_leaves: reader.u16("cpuid_leaves")?,
            cpuid_digest: reader.u32("cpuid_digest")?,
        };
        reader.finish()?;
        bounded("sysenter_bits", profile.sysenter_bits.into(), 0, 64)?;
        known("emulator_gaps", profile.emulator_gaps.into(), &EMULATOR_GAPS)?;
        known("stale_fields", profile.stale_fields.into(), &STALE_FIELDS)?;
        known("native", profile.native, &NATIVE)?;
        known("cpuid_leaves", profile.cpuid_leaves, &CPUID_LEAVES)?;
        Ok(profile)
    }
}

/// Checks that every bit of `set` has a name.
fn known(field: &'static str, set: u16, names: &[&str]) -> Result<(), FieldError> {
    match u32::from(set) >> names.len() {
        0 => Ok(()),
        unknown => Err(FieldError::UnknownBits { field, bits: unknown << names.len() }),
    }
}

const _: () = assert!(EMULATOR_GAPS.len() <= 8 && STALE_FIELDS.len() <= 8);
const _: () = assert!(NATIVE.len() <= 16 && CPUID_LEAVES.len() <= 16);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    const PROFILE: HostProfile = HostProfile {
        emulates_kernel_code: Answer::Yes,
        syscall_stays_at_cpl3: Answer::No,
        injects_exceptions: Answer::Unknown,
        shadows_page_tables: Answer::Yes,
        tracks_segment_loads: Answer::No,
        exact_kernel_windows: Answer::Yes,
        sysenter_bits: 64,
        emulator_gaps: 0b0101,
        stale_fields: 0b110,
        native: 0x301,
        cpuid_leaves: 0x812,
        cpuid_digest: 0x0403_0201,
    };

    #[test]
    fn profile_golden_bytes() {
        let bytes = PROFILE.encode();
        assert_eq!(bytes, [2, 1, 0, 2, 1, 2, 64, 5, 6, 1, 3, 0x12, 8, 1, 2, 3, 4]);
        assert_eq!(HostProfile::decode(&bytes), Ok(PROFILE));
        assert_eq!(HostProfile::decode(&[0; HOST_PROFILE_BYTES]), Ok(HostProfile::default()));
    }

    #[test]
    fn values_outside_of_their_limits_are_refused() {
        for (at, value) in [(0, 3), (5, 0xFF), (6, 65), (7, 0x10), (8, 0x08), (10, 4), (12, 0x10)] {
            let mut bytes = PROFILE.encode();
            bytes[at] = value;
            assert!(HostProfile::decode(&bytes).is_err(), "byte {at}: {value}");
        }
    }

    /// Every byte belongs to one field of the table, and a difference in it is refused exactly if the field is
    /// compared.
    #[test]
    fn every_difference_is_named_or_not_compared() {
        let mut differing = Vec::new();
        for at in 0..HOST_PROFILE_BYTES {
            let mut bytes = PROFILE.encode();
            bytes[at] = if bytes[at] == 1 { 0 } else { 1 };
            let other = HostProfile::decode(&bytes).unwrap();
            let (ours, theirs) = (PROFILE.fields(), other.fields());
            let changed: Vec<_> = (0..PROFILE_FIELDS).filter(|&i| ours[i] != theirs[i]).collect();
            let [field] = changed[..] else { panic!("byte {at}: fields {changed:?}") };
            let reported = PROFILE.difference(&other).map(|difference| difference.name);
            match ours[field].compared {
                Compared::Yes => assert_eq!(reported, Some(ours[field].name)),
                Compared::No => assert_eq!(reported, None),
            }
            differing.push(field);
        }
        differing.sort_unstable();
        differing.dedup();
        assert_eq!(differing.len(), PROFILE_FIELDS, "each field is encoded");
        assert_eq!(PROFILE.difference(&PROFILE), None);
    }

    #[test]
    fn values_are_displayed() {
        let values = PROFILE.fields().map(|field| field.value.to_string());
        let expected = [
            "yes",
            "no",
            "unknown",
            "yes",
            "no",
            "64",
            "1, 7, 0x80000008 (digest 04030201)",
            "RDRAND, XSAVE, AVX",
            "yes",
            "INT3, FWAIT",
            "interrupt vector, type of an unusable segment",
        ];
        assert_eq!(values, expected);
        let nothing = HostProfile::default().fields().map(|field| field.value.to_string());
        assert_eq!([&nothing[5][..], &nothing[6], &nothing[7]], ["unknown", "none", "none"]);
    }
}
