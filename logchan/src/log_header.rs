//! The header of a log file: what was recorded, on which machine, and in which format.
//!
//! ```text
//!  0  magic "USTDYLOG"          8
//!  8  version                   2
//! 10  header length, all of it  2
//! 12  recorded_at_unix_s        8
//! 20  memory_bytes              8
//! 28  vcpus                     2
//! 30  machine_schema            2
//! 32  nic_mac                   6
//! 38  guest_digest              8
//! 46  cpu_digest                8
//! 54  host_profile             17
//! 71  number of disks           1
//! 72  disks: flags (bit 0: read-only, bit 1: digest known, bit 2: reads in the log) 1,
//!     sectors 8, serial 20, digest 8
//!     guest_name length, bytes  1 + n
//!     cpu_name length, bytes    1 + m
//!     CRC32 of all the above    4
//! ```
//!
//! Numbers are little-endian. Magic, version and header length keep their places in every version, so
//! any build can report the version of any log.
//!
//! # When the version moves
//!
//! [`LOG_VERSION`] grows by one with every change after which a build of the version before would refuse
//! or misread a log, or this build a log of the version before. Such changes are: a field added, removed
//! or moved in this header or in a block's; another layout of an entry's body; an entry kind added that
//! a file may have; another meaning of a counter or another coverage of a digest; another limit in
//! [`crate::limits`]. The same change then also rewrites the fixtures. The contents of the `vcpu` and
//! `devices` bytes do not belong to this crate: `machine_schema` moves with those.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{FieldError, HeaderError};
use crate::host_profile::HostProfile;
use crate::limits::{
    DISK_HEADER_BYTES, DISK_SECTORS_MAX, DISK_SERIAL_BYTES, DISKS_MAX, LOG_HEADER_BYTES_MAX,
    LOG_HEADER_BYTES_MIN, MEMORY_BYTES_MAX, NAME_BYTES_MAX, PAGE_BYTES, VCPUS_MAX,
};
use crate::wire::{Reader, bounded};

/// The first eight bytes of every log.
pub const LOG_MAGIC: [u8; 8] = *b"USTDYLOG";

/// Version of the log format that this build writes and reads.
pub const LOG_VERSION: u16 = 8;

/// Magic, version, header length.
const PREFIX_BYTES: usize = LOG_MAGIC.len() + 2 + 2;
const CRC_BYTES: usize = 4;

const DISK_READ_ONLY: u8 = 1 << 0;
const DISK_DIGEST: u8 = 1 << 1;
const DISK_READS_LOGGED: u8 = 1 << 2;

/// A disk of the recorded VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedDisk {
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// The guest may only read it.
    pub read_only: bool,
    /// What the guest reads as its serial number, padded with zeros.
    pub serial: [u8; DISK_SERIAL_BYTES],
    /// Digest of the disk's contents when the recording began; `None` if it was not computed.
    pub digest: Option<u64>,
    /// The log has the data of every read, so that a replay needs no disk.
    pub reads_logged: bool,
}

/// The fields of a log header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// Time at which the recording began, in seconds since 1970-01-01T00:00Z.
    pub recorded_at_unix_s: u64,
    /// Guest memory in bytes, a whole number of pages.
    pub memory_bytes: u64,
    /// Number of vCPUs.
    pub vcpus: u16,
    /// Version of the contents of `vcpu` and `devices` in the log's checkpoints.
    pub machine_schema: u16,
    /// MAC address of the VM's NIC.
    pub nic_mac: [u8; 6],
    /// xxh3-64 of the guest image.
    pub guest_digest: u64,
    /// xxh3-64 of the CPU model, as the vCPU sees it.
    pub cpu_digest: u64,
    /// How the host that recorded runs a guest.
    pub host_profile: HostProfile,
    /// The disks, by index. At most [`DISKS_MAX`].
    pub disks: Vec<LoggedDisk>,
    /// Name of the guest image, for display. At most 255 bytes, no control characters.
    pub guest_name: String,
    /// Name of the CPU model, for display. Same limits as `guest_name`.
    pub cpu_name: String,
}

impl LogHeader {
    /// Checks that every field is within its limits, as [`encode`](Self::encode) requires. The names may
    /// come from a user, so a recorder calls this first.
    ///
    /// # Errors
    ///
    /// The first field that is out of its limits.
    pub fn check(&self) -> Result<(), FieldError> {
        let page = PAGE_BYTES as u64;
        bounded("memory_bytes", self.memory_bytes, page, MEMORY_BYTES_MAX)?;
        if !self.memory_bytes.is_multiple_of(page) {
            return Err(FieldError::NotAMultiple {
                field: "memory_bytes",
                value: self.memory_bytes,
                unit: page,
            });
        }
        bounded("vcpus", u64::from(self.vcpus), 1, u64::from(VCPUS_MAX))?;
        bounded("disks", self.disks.len() as u64, 0, DISKS_MAX as u64)?;
        for disk in &self.disks {
            bounded("sectors", disk.sectors, 1, DISK_SECTORS_MAX)?;
        }
        check_name("guest_name", &self.guest_name)?;
        check_name("cpu_name", &self.cpu_name)
    }

    /// Appends the header to `out`.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) refuses it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Err(error) = self.check() {
            panic!("a log header outside of its limits: {error}");
        }
        let length = LOG_HEADER_BYTES_MIN
            + self.disks.len() * DISK_HEADER_BYTES
            + self.guest_name.len()
            + self.cpu_name.len();
        let start = out.len();
        out.extend_from_slice(&LOG_MAGIC);
        out.extend_from_slice(&LOG_VERSION.to_le_bytes());
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&self.recorded_at_unix_s.to_le_bytes());
        out.extend_from_slice(&self.memory_bytes.to_le_bytes());
        out.extend_from_slice(&self.vcpus.to_le_bytes());
        out.extend_from_slice(&self.machine_schema.to_le_bytes());
        out.extend_from_slice(&self.nic_mac);
        out.extend_from_slice(&self.guest_digest.to_le_bytes());
        out.extend_from_slice(&self.cpu_digest.to_le_bytes());
        out.extend_from_slice(&self.host_profile.encode());
        out.push(self.disks.len() as u8);
        self.disks.iter().for_each(|disk| put_disk(disk, out));
        for name in [&self.guest_name, &self.cpu_name] {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(out.len() - start, length, "the header states a wrong length");
    }

    /// Decodes the header at the front of `bytes`. Returns the header and its length in bytes.
    /// [`LOG_HEADER_BYTES_MAX`] bytes of a file, or the whole file if it is shorter, always suffice.
    ///
    /// # Errors
    ///
    /// The first that applies, in this order: [`HeaderError::NotALog`], [`HeaderError::OtherVersion`],
    /// [`HeaderError::Truncated`], [`HeaderError::Corrupt`], [`HeaderError::Field`]. Each diagnosis is
    /// certain only because those before it were ruled out. One `Field` error precedes `Corrupt`: with a
    /// header length out of its limits, the CRC cannot be located.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        let shared = bytes.len().min(LOG_MAGIC.len());
        if bytes[..shared] != LOG_MAGIC[..shared] {
            return Err(HeaderError::NotALog);
        }
        let truncated = |need| HeaderError::Truncated { have: bytes.len(), need };
        let mut prefix = Reader::new(&bytes[shared..]);
        let version = prefix.u16("version").map_err(|_| truncated(LOG_HEADER_BYTES_MIN))?;
        if version != LOG_VERSION {
            return Err(HeaderError::OtherVersion { found: version, expected: LOG_VERSION });
        }
        let length = prefix.u16("header length").map_err(|_| truncated(LOG_HEADER_BYTES_MIN))?;
        bounded(
            "header length",
            u64::from(length),
            LOG_HEADER_BYTES_MIN as u64,
            LOG_HEADER_BYTES_MAX as u64,
        )
        .map_err(HeaderError::Field)?;
        let length = usize::from(length);
        let header = bytes.get(..length).ok_or(truncated(length))?;

        let (covered, crc) = header.split_at(length - CRC_BYTES);
        let stored = Reader::new(crc).u32("CRC").map_err(HeaderError::Field)?;
        let computed = crc32fast::hash(covered);
        if stored != computed {
            return Err(HeaderError::Corrupt { stored, computed });
        }
        let header = read_fields(&covered[PREFIX_BYTES..]).map_err(HeaderError::Field)?;
        Ok((header, length))
    }
}

fn read_fields(bytes: &[u8]) -> Result<LogHeader, FieldError> {
    let mut reader = Reader::new(bytes);
    // The fields are read in the order in which they are in the file.
    let header = LogHeader {
        recorded_at_unix_s: reader.u64("recorded_at_unix_s")?,
        memory_bytes: reader.u64("memory_bytes")?,
        vcpus: reader.u16("vcpus")?,
        machine_schema: reader.u16("machine_schema")?,
        nic_mac: reader.array("nic_mac")?,
        guest_digest: reader.u64("guest_digest")?,
        cpu_digest: reader.u64("cpu_digest")?,
        host_profile: HostProfile::decode(&reader.array("host_profile")?)?,
        disks: read_disks(&mut reader)?,
        guest_name: read_name(&mut reader, "guest_name")?,
        cpu_name: read_name(&mut reader, "cpu_name")?,
    };
    reader.finish()?;
    header.check()?;
    Ok(header)
}

fn put_disk(disk: &LoggedDisk, out: &mut Vec<u8>) {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    out.push(
        flag(disk.read_only, DISK_READ_ONLY)
            | flag(disk.digest.is_some(), DISK_DIGEST)
            | flag(disk.reads_logged, DISK_READS_LOGGED),
    );
    out.extend_from_slice(&disk.sectors.to_le_bytes());
    out.extend_from_slice(&disk.serial);
    out.extend_from_slice(&disk.digest.unwrap_or(0).to_le_bytes());
}

fn read_disks(reader: &mut Reader<'_>) -> Result<Vec<LoggedDisk>, FieldError> {
    const KNOWN: u8 = DISK_READ_ONLY | DISK_DIGEST | DISK_READS_LOGGED;
    let count = reader.u8("disks")?;
    bounded("disks", u64::from(count), 0, DISKS_MAX as u64)?;
    let mut disks = Vec::with_capacity(usize::from(count));
    for _disk in 0..count {
        let flags = reader.u8("disk flags")?;
        if flags & !KNOWN != 0 {
            let bits = u32::from(flags & !KNOWN);
            return Err(FieldError::UnknownBits { field: "disk flags", bits });
        }
        let sectors = reader.u64("sectors")?;
        let serial = reader.array("serial")?;
        let digest = reader.u64("disk digest")?;
        let has_digest = flags & DISK_DIGEST != 0;
        bounded("disk digest", digest, 0, if has_digest { u64::MAX } else { 0 })?;
        disks.push(LoggedDisk {
            sectors,
            read_only: flags & DISK_READ_ONLY != 0,
            serial,
            digest: has_digest.then_some(digest),
            reads_logged: flags & DISK_READS_LOGGED != 0,
        });
    }
    Ok(disks)
}

fn read_name(reader: &mut Reader<'_>, field: &'static str) -> Result<String, FieldError> {
    let length = reader.u8(field)?;
    let bytes = reader.take(field, usize::from(length))?;
    let name = str::from_utf8(bytes).map_err(|_| FieldError::NotText { field })?;
    Ok(String::from(name))
}

fn check_name(field: &'static str, name: &str) -> Result<(), FieldError> {
    bounded(field, name.len() as u64, 0, NAME_BYTES_MAX as u64)?;
    if name.chars().any(char::is_control) {
        return Err(FieldError::NotText { field });
    }
    Ok(())
}
