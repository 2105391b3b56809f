//! Every possible entry decodes to itself.

use logchan::entry::{DiskStatus, Entry, PageBytes, StateBytes};
use logchan::entry_codec::{check, decode, encode, encoded_length};
use logchan::entry_kind::EntryKind;
use logchan::entry_stats::{EntryStats, EntryStatsTable};
use logchan::error::DecodeError;
use logchan::limits::*;
use proptest::prelude::*;

use crate::ingredients::Ingredients;
use crate::rng::Rng;
use crate::samples::{channel_samples, encoded};

fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(word, shift)| word >> shift)
}

/// Mostly short byte strings, sometimes up to the maximum. The contents come from a seed, because
/// shrinking 32 KiB byte by byte shows nothing.
fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![8 => 0..64_usize, 1 => 0..=max];
    (length, any::<u64>()).prop_map(|(length, seed)| Rng(seed).bytes(length))
}

fn ingredients() -> impl Strategy<Value = Ingredients> {
    (
        prop::sample::select(EntryKind::ALL.to_vec()),
        prop::array::uniform4(number()),
        any::<bool>(),
        any::<u32>(),
        prop::collection::vec(number(), 18),
        bytes(VCPU_BYTES_MAX),
        bytes(DEVICES_BYTES_MAX),
        any::<u64>(),
    )
        .prop_map(|(kind, numbers, flag, changed, xor, first, second, page_seed)| {
            Ingredients {
                kind,
                numbers,
                flag,
                changed,
                xor: xor.try_into().expect("there is one number for each register"),
                first,
                second,
                page: Rng(page_seed).bytes(PAGE_BYTES),
                delta: Rng(page_seed).delta(),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn entry_of_any_kind_round_trips(made in ingredients()) {
        let entry = made.entry();
        prop_assert_eq!(EntryKind::of(&entry), made.kind);
        prop_assert_eq!(check(&entry), Ok(()));
        let bytes = encoded(&entry);
        prop_assert_eq!(bytes.len(), encoded_length(&entry));
        prop_assert!(bytes.len() <= ENTRY_BYTES_MAX);
        prop_assert_eq!(decode(&bytes), Ok((entry, bytes.len())));
    }

    #[test]
    fn entry_followed_by_other_bytes_consumes_only_its_own(made in ingredients(), tail in number()) {
        let entry = made.entry();
        let mut bytes = encoded(&entry);
        let length = bytes.len();
        bytes.extend_from_slice(&tail.to_le_bytes());
        prop_assert_eq!(decode(&bytes), Ok((entry, length)));
    }

    #[test]
    fn entry_cut_anywhere_is_truncated(made in ingredients(), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&made.entry());
        let cut = cut.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..cut]), Err(DecodeError::Truncated));
    }
}

#[test]
fn samples_cover_every_kind() {
    for kind in EntryKind::ALL {
        assert!(
            channel_samples().iter().any(|(_, entry)| EntryKind::of(entry) == kind),
            "no {kind}"
        );
        assert_eq!(EntryKind::from_number(kind.number()), Some(kind));
    }
    assert_eq!(EntryKind::from_number(0), None);
    assert_eq!(EntryKind::from_number(EntryKind::ALL.len() as u8 + 1), None);
}

#[test]
fn entry_with_fields_at_their_limits_round_trips() {
    let blob = vec![0xa5; ENTRY_BODY_MAX];
    let registers = logchan::entry::RegisterDelta { changed: (1 << 18) - 1, xor: [u64::MAX; 18] };
    let largest = [
        Entry::Exit { digest: u64::MAX, registers: Some(registers) },
        Entry::CheckpointBegin {
            full: true,
            pages: CHECKPOINT_PAGES_MAX,
            vcpu: StateBytes::Whole(&blob[..VCPU_BYTES_MAX]),
            devices: StateBytes::Whole(&blob[..DEVICES_BYTES_MAX]),
        },
        Entry::Page { number: PAGE_NUMBER_MAX, bytes: PageBytes::Raw(&blob[..PAGE_BYTES]) },
        Entry::Clock { advance_ns: CLOCK_ADVANCE_NS_MAX },
        Entry::WallClock { unix_ns: u64::MAX },
        Entry::Entropy(&blob[..ENTROPY_BYTES_MAX]),
        Entry::Frame(&blob[..FRAME_BYTES_MAX]),
        Entry::Console(&blob[..CONSOLE_BYTES_MAX]),
        Entry::Output { length: FRAME_BYTES_MAX as u32, digest: u64::MAX },
        Entry::DiskDone {
            disk: DISKS_MAX as u8 - 1,
            number: u64::MAX,
            status: DiskStatus::Done,
            digest: u64::MAX,
            data: &blob[..DISK_BYTES_MAX],
        },
    ];
    for entry in largest {
        let bytes = encoded(&entry);
        assert_eq!(decode(&bytes), Ok((entry, bytes.len())));
    }
}

#[test]
fn encode_into_capacity_does_not_allocate() {
    for (name, entry) in channel_samples() {
        let mut bytes = Vec::with_capacity(encoded_length(&entry));
        let (before, capacity) = (bytes.as_ptr(), bytes.capacity());
        encode(&entry, &mut bytes);
        assert_eq!((bytes.as_ptr(), bytes.capacity()), (before, capacity), "{name}");
    }
}

#[test]
fn stats_equal_the_encoded_entries() {
    let mut table = EntryStatsTable::default();
    let mut bytes = 0;
    for (_, entry) in channel_samples() {
        table.record(&entry);
        bytes += encoded(&entry).len() as u64;
    }
    assert_eq!(table.total(), EntryStats { count: channel_samples().len() as u64, bytes });
    assert_eq!(table.get(EntryKind::Exit).count, 2);
    assert_eq!(table.get(EntryKind::Interrupt), EntryStats { count: 1, bytes: 3 });
    let shown = table.to_string();
    assert_eq!(shown.lines().count(), 1 + EntryKind::ALL.len() + 1, "{shown}");
}
