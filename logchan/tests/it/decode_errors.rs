//! Every way of being invalid has an error of its own: decoding returns it, encoding panics with it.

use std::panic::catch_unwind;

use logchan::entry::{DiskStatus, Entry, PageBytes, REGISTERS, RegisterDelta, StateBytes};
use logchan::entry_codec::{check, decode};
use logchan::entry_kind::EntryKind;
use logchan::error::{DecodeError, FieldError};
use logchan::limits::*;
use logchan::page_delta::PageDelta;

use crate::samples::encoded;

fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Returns the error of a body of this kind.
fn body_error(kind: EntryKind, body: &[&[u8]]) -> FieldError {
    let body = body.concat();
    let mut bytes = vec![kind.number()];
    bytes.extend(leb128(body.len() as u64));
    bytes.extend(body);
    match decode(&bytes) {
        Err(DecodeError::Body { kind: found, error }) if found == kind => error,
        other => panic!("{kind}: {other:?}"),
    }
}

fn out_of_bounds(field: &'static str, value: u64, min: u64, max: u64) -> FieldError {
    FieldError::OutOfBounds { field, value, min, max }
}

#[test]
fn kind_zero_or_unknown_is_refused() {
    assert_eq!(decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[0, 0, 0]), Err(DecodeError::InvalidKind));
    let unknown = EntryKind::ALL.len() as u8 + 1;
    assert_eq!(decode(&[unknown, 0]), Err(DecodeError::UnknownKind(unknown)));
    assert_eq!(decode(&[0xff]), Err(DecodeError::UnknownKind(0xff)));
}

#[test]
fn body_length_invalid_is_refused_without_the_body() {
    let kind = EntryKind::Frame;
    let length_error = |length: &[u8]| match decode(&[&[kind.number()], length].concat()) {
        Err(DecodeError::Length { kind: EntryKind::Frame, error }) => error,
        other => panic!("{other:?}"),
    };
    let field = "body length";
    assert_eq!(length_error(&[0x80, 0x00]), FieldError::NotShortest { field });
    assert_eq!(length_error(&[0xff; 6]), FieldError::TooWide { field, bits: 32 });
    let over = ENTRY_BODY_MAX as u64 + 1;
    assert_eq!(length_error(&leb128(over)), out_of_bounds(field, over, 0, ENTRY_BODY_MAX as u64));
}

#[test]
fn body_too_short_or_too_long_is_refused() {
    assert_eq!(body_error(EntryKind::Interrupt, &[]), FieldError::Ends { field: "vector" });
    assert_eq!(
        body_error(EntryKind::Interrupt, &[&[0x20, 0x21]]),
        FieldError::Trailing { count: 1 }
    );
    assert_eq!(
        body_error(EntryKind::CheckpointEnd, &[&[0; 7]]),
        FieldError::Ends { field: "digest" }
    );
    assert_eq!(
        body_error(EntryKind::CheckpointBegin, &[&[1, 0, 4], b"vcp"]),
        FieldError::Ends { field: "vcpu" }
    );
    assert_eq!(
        body_error(EntryKind::Page, &[&[7, 1], &[0; PAGE_BYTES]]),
        FieldError::Trailing { count: PAGE_BYTES }
    );
}

#[test]
fn number_not_in_shortest_form_is_refused() {
    assert_eq!(
        body_error(EntryKind::Clock, &[&[0x81, 0x00]]),
        FieldError::NotShortest { field: "advance_ns" }
    );
    assert_eq!(
        body_error(EntryKind::WallClock, &[&[0xff; 10]]),
        FieldError::TooWide { field: "unix_ns", bits: 64 }
    );
    assert_eq!(
        body_error(EntryKind::Output, &[&[0xff, 0xff, 0xff, 0xff, 0x1f], &[0; 8]]),
        FieldError::TooWide { field: "length", bits: 32 }
    );
}

#[test]
fn unknown_flags_are_refused() {
    let flags = |bits| FieldError::UnknownBits { field: "flags", bits };
    assert_eq!(body_error(EntryKind::Exit, &[&[0x02], &[0; 8]]), flags(2));
    assert_eq!(body_error(EntryKind::Window, &[&[0x01], &[0; 8]]), flags(1));
    assert_eq!(body_error(EntryKind::CheckpointBegin, &[&[0x81, 0, 0, 0]]), flags(0x80));
}

#[test]
fn register_delta_not_canonical_is_refused() {
    let exit = |delta: &[&[u8]]| {
        let delta = delta.concat();
        body_error(EntryKind::Exit, &[&[1], &[0; 8], &delta])
    };
    let beyond = 1 << REGISTERS;
    assert_eq!(
        exit(&[&leb128(beyond)]),
        FieldError::UnknownBits { field: "changed", bits: beyond as u32 }
    );
    assert_eq!(exit(&[&[0x01], &[0x00]]), out_of_bounds("xor", 0, 1, u64::MAX));
    assert_eq!(exit(&[&[0x03], &[0x05]]), FieldError::Ends { field: "xor" });
    assert_eq!(exit(&[]), FieldError::Ends { field: "changed" });
}

#[test]
fn page_with_unknown_form_or_wrong_length_is_refused() {
    assert_eq!(body_error(EntryKind::Page, &[&[7, 0]]), out_of_bounds("form", 0, 1, 3));
    assert_eq!(body_error(EntryKind::Page, &[&[7, 4]]), out_of_bounds("form", 4, 1, 3));
    let short = PAGE_BYTES as u64 - 1;
    assert_eq!(
        body_error(EntryKind::Page, &[&[7, 2], &[0; PAGE_BYTES - 1]]),
        out_of_bounds("bytes", short, 4096, 4096)
    );
}

#[test]
fn invalid_delta_is_refused() {
    let page = |delta: &[u8]| body_error(EntryKind::Page, &[&[7, 3], delta]);
    assert_eq!(page(&[]), out_of_bounds("pieces", 0, 1, 1));
    assert_eq!(page(&[1, 0, 0, 0, 0, 0, 0, 0]), FieldError::Ends { field: "words" });
    assert_eq!(page(&[0; 9]), FieldError::Ends { field: "lines" });
    assert_eq!(page(&[0; 16]), out_of_bounds("pieces", 2, 1, 1));
    let state = |delta: &[u8]| {
        let length = [delta.len() as u8];
        body_error(EntryKind::CheckpointBegin, &[&[2, 0], &length, delta, &[0]])
    };
    assert_eq!(state(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), out_of_bounds("words", 0, 1, 255));
    assert_eq!(state(&[0; 9]), FieldError::Ends { field: "lines" });
}

/// Entries that exceed one limit each by one, with the name of the field that the error must name.
fn entries_out_of_limits(blob: &[u8]) -> Vec<(Entry<'_>, &'static str)> {
    let none = StateBytes::Whole(&[]);
    let no_change = PageDelta::new(&blob[..PAGE_BYTES]).expect("zeros are a delta without changes");
    let vcpu = StateBytes::Whole(&blob[..VCPU_BYTES_MAX + 1]);
    let devices = StateBytes::Whole(&blob[..DEVICES_BYTES_MAX + 1]);
    let delta = |changed, first| {
        let mut xor = [0; REGISTERS];
        xor[0] = first;
        Entry::Exit { digest: 0, registers: Some(RegisterDelta { changed, xor }) }
    };
    let done = |disk, number, data| Entry::DiskDone {
        disk,
        number,
        status: DiskStatus::Done,
        digest: 0,
        data,
    };
    let (full, pages) = (true, 0);
    vec![
        (delta(1 << REGISTERS, 0), "changed"),
        (delta(1, 0), "xor"),
        (delta(0, 1), "xor"),
        (
            Entry::CheckpointBegin {
                full,
                pages: CHECKPOINT_PAGES_MAX + 1,
                vcpu: none,
                devices: none,
            },
            "pages",
        ),
        (Entry::CheckpointBegin { full, pages, vcpu, devices: none }, "vcpu"),
        (Entry::CheckpointBegin { full, pages, vcpu: none, devices }, "devices"),
        (Entry::Page { number: PAGE_NUMBER_MAX + 1, bytes: PageBytes::Zero }, "number"),
        (Entry::Page { number: 0, bytes: PageBytes::Raw(&blob[..PAGE_BYTES - 1]) }, "bytes"),
        (Entry::Page { number: 0, bytes: PageBytes::Raw(&blob[..PAGE_BYTES + 1]) }, "bytes"),
        (Entry::Page { number: 0, bytes: PageBytes::Delta(no_change) }, "changes"),
        (Entry::Clock { advance_ns: CLOCK_ADVANCE_NS_MAX + 1 }, "advance_ns"),
        (Entry::Entropy(&blob[..ENTROPY_BYTES_MAX + 1]), "entropy"),
        (Entry::Frame(&blob[..FRAME_BYTES_MAX + 1]), "frame"),
        (Entry::Console(&blob[..CONSOLE_BYTES_MAX + 1]), "console"),
        (Entry::Output { length: FRAME_BYTES_MAX as u32 + 1, digest: 0 }, "length"),
        (done(DISKS_MAX as u8, 1, &[]), "disk"),
        (done(0, 0, &[]), "number"),
        (done(0, 1, &blob[..DISK_BYTES_MAX + 1]), "data"),
    ]
}

#[test]
fn encode_out_of_limits_panics_and_names_the_field() {
    let blob = vec![0; ENTRY_BODY_MAX];
    for (entry, field) in entries_out_of_limits(&blob) {
        let error = check(&entry).expect_err(field);
        assert!(error.to_string().contains(field), "{error} names {field}");
        let panic = catch_unwind(|| encoded(&entry)).expect_err(field);
        let message = panic.downcast_ref::<String>().expect("a formatted message");
        assert!(message.contains(&error.to_string()), "{message}");
    }
}

#[test]
fn decode_out_of_limits_names_the_field() {
    let blob = vec![0; ENTRY_BODY_MAX];
    let bytes = |max: usize| &blob[..max + 1];
    let cases: [(EntryKind, &[&[u8]], &str); 10] = [
        (
            EntryKind::CheckpointBegin,
            &[&[1], &leb128(u64::from(CHECKPOINT_PAGES_MAX) + 1), &[0, 0]],
            "pages",
        ),
        (
            EntryKind::CheckpointBegin,
            &[&[1, 0], &leb128(VCPU_BYTES_MAX as u64 + 1), bytes(VCPU_BYTES_MAX), &[0]],
            "vcpu",
        ),
        (
            EntryKind::CheckpointBegin,
            &[&[1, 0, 0], &leb128(DEVICES_BYTES_MAX as u64 + 1), bytes(DEVICES_BYTES_MAX)],
            "devices",
        ),
        (EntryKind::Page, &[&leb128(PAGE_NUMBER_MAX + 1), &[1]], "number"),
        (EntryKind::Clock, &[&leb128(CLOCK_ADVANCE_NS_MAX + 1)], "advance_ns"),
        (EntryKind::Frame, &[bytes(FRAME_BYTES_MAX)], "frame"),
        (EntryKind::Console, &[bytes(CONSOLE_BYTES_MAX)], "console"),
        (EntryKind::Entropy, &[bytes(ENTROPY_BYTES_MAX)], "entropy"),
        (EntryKind::DiskDone, &[&[DISKS_MAX as u8, 0, 1], &[0; 8]], "disk"),
        (EntryKind::DiskDone, &[&[0, 0, 1], &[0; 8], bytes(DISK_BYTES_MAX)], "data"),
    ];
    for (kind, body, expected) in cases {
        match body_error(kind, body) {
            FieldError::OutOfBounds { field, value, min: _, max } => {
                assert_eq!(field, expected);
                assert_eq!(value, max + 1, "{field}");
            }
            other => panic!("{kind}: {other}"),
        }
    }
}
