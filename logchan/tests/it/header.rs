//! The log header: what it contains, and every way of being invalid.

use logchan::error::{FieldError, HeaderError};
use logchan::limits::*;
use logchan::log_header::{LOG_MAGIC, LOG_VERSION, LogHeader};

use crate::samples::header;

fn encoded(header: &LogHeader) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes
}

/// Returns the sample header with `bytes` at offset `at`, and a CRC that matches.
fn resealed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = encoded(&header());
    header[at..at + bytes.len()].copy_from_slice(bytes);
    reseal(&mut header);
    header
}

/// Makes the CRC match the bytes before it.
pub(crate) fn reseal(header: &mut [u8]) {
    let covered = header.len() - 4;
    let crc = crc32fast::hash(&header[..covered]);
    header[covered..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn header_round_trips_and_states_its_length() {
    let longest = LogHeader {
        guest_name: "ä".repeat(127) + "x",
        cpu_name: "c".repeat(NAME_BYTES_MAX),
        disks: vec![header().disks[0].clone(); DISKS_MAX],
        memory_bytes: MEMORY_BYTES_MAX,
        vcpus: VCPUS_MAX,
        ..header()
    };
    let shortest = LogHeader {
        guest_name: String::new(),
        cpu_name: String::new(),
        disks: Vec::new(),
        ..header()
    };
    assert_eq!(encoded(&longest).len(), LOG_HEADER_BYTES_MAX);
    assert_eq!(encoded(&shortest).len(), LOG_HEADER_BYTES_MIN);
    for header in [longest, shortest, header()] {
        let mut bytes = encoded(&header);
        let length = bytes.len();
        assert_eq!(LogHeader::decode(&bytes), Ok((header.clone(), length)));
        bytes.extend_from_slice(b"UBLK");
        assert_eq!(LogHeader::decode(&bytes), Ok((header, length)));
    }
}

#[test]
fn header_of_another_file_is_not_a_log() {
    for bytes in [&b"\x7fELF\x02\x01\x01"[..], b"USTDYLOX", b"X", &[0; 4096]] {
        assert_eq!(LogHeader::decode(bytes), Err(HeaderError::NotALog));
    }
}

#[test]
fn header_of_another_version_is_reported_with_its_version() {
    let expected = LOG_VERSION;
    for found in [0, LOG_VERSION + 1, u16::MAX] {
        // Only magic and version: another version may have anything behind them.
        let bytes = [&LOG_MAGIC[..], &found.to_le_bytes()].concat();
        assert_eq!(LogHeader::decode(&bytes), Err(HeaderError::OtherVersion { found, expected }));
    }
}

#[test]
fn header_cut_anywhere_is_truncated() {
    let bytes = encoded(&header());
    for have in 0..bytes.len() {
        let need = if have < 12 { LOG_HEADER_BYTES_MIN } else { bytes.len() };
        assert_eq!(LogHeader::decode(&bytes[..have]), Err(HeaderError::Truncated { have, need }));
    }
}

#[test]
fn header_with_any_bit_flipped_is_refused() {
    let good = encoded(&header());
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = LogHeader::decode(&bytes).expect_err("a flipped bit");
        let expected = match bit / 8 {
            0..8 => matches!(error, HeaderError::NotALog),
            8..10 => matches!(error, HeaderError::OtherVersion { .. }),
            10..12 => !matches!(error, HeaderError::NotALog | HeaderError::OtherVersion { .. }),
            _ => matches!(error, HeaderError::Corrupt { .. }),
        };
        assert!(expected, "bit {bit}: {error}");
    }
}

#[test]
fn header_field_out_of_bounds_is_named() {
    let cases: [(usize, &[u8], &str); 16] = [
        (10, &(LOG_HEADER_BYTES_MIN as u16 - 1).to_le_bytes(), "header length"),
        (10, &(LOG_HEADER_BYTES_MAX as u16 + 1).to_le_bytes(), "header length"),
        (20, &0_u64.to_le_bytes(), "memory_bytes"),
        (20, &(MEMORY_BYTES_MAX + 4096).to_le_bytes(), "memory_bytes"),
        (20, &4097_u64.to_le_bytes(), "memory_bytes"),
        (28, &0_u16.to_le_bytes(), "vcpus"),
        (28, &(VCPUS_MAX + 1).to_le_bytes(), "vcpus"),
        (54, &[3], "emulates_kernel_code"),
        (63, &[0, 4], "native"),
        (71, &[DISKS_MAX as u8 + 1], "disks"),
        (72, &[8], "disk flags"),
        (73, &0_u64.to_le_bytes(), "sectors"),
        (73, &(DISK_SECTORS_MAX + 1).to_le_bytes(), "sectors"),
        // The second disk has no digest.
        (72 + 2 * DISK_HEADER_BYTES - 1, &[1], "disk digest"),
        (73 + 2 * DISK_HEADER_BYTES, &[0xff], "guest_name"),
        (73 + 2 * DISK_HEADER_BYTES, b"\n", "guest_name"),
    ];
    for (at, bytes, field) in cases {
        match LogHeader::decode(&resealed(at, bytes)) {
            Err(HeaderError::Field(error)) => {
                assert!(error.to_string().contains(field), "{error} names {field}");
            }
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn header_names_longer_or_shorter_than_the_header_are_refused() {
    let name_length = header().guest_name.len() as u8;
    let cpu_length_at = 73 + 2 * DISK_HEADER_BYTES + usize::from(name_length);
    assert_eq!(
        LogHeader::decode(&resealed(cpu_length_at, &[0xff])),
        Err(HeaderError::Field(FieldError::Ends { field: "cpu_name" }))
    );
    assert_eq!(
        LogHeader::decode(&resealed(cpu_length_at, &[header().cpu_name.len() as u8 - 2])),
        Err(HeaderError::Field(FieldError::Trailing { count: 2 }))
    );
}

#[test]
#[should_panic(expected = "guest_name")]
fn header_encode_out_of_limits_panics() {
    encoded(&LogHeader { guest_name: "x".repeat(NAME_BYTES_MAX + 1), ..header() });
}
