//! The entries that the measurement sends: console input, the only kind of entry whose length and content can
//! be chosen freely. Each begins with its number.

use logchan::entry::Entry;
use logchan::entry_codec::encode;

/// Text that is repeated after the number to fill an entry. Easy to recognize in a capture of an unencrypted
/// channel.
const TEXT: &[u8] = b"understudy link measures the logging channel. ";

/// Bytes of the number.
const NUMBER_BYTES: usize = 8;

/// Encodes entries of one size. Allocates only in [`new`](Self::new).
#[derive(Debug)]
pub(super) struct EntryMaker {
    body: Vec<u8>,
    encoded: Vec<u8>,
}

impl EntryMaker {
    /// Creates an encoder for entries of `bytes` bytes, without their framing of two or three bytes.
    pub(super) fn new(bytes: usize) -> EntryMaker {
        let mut body = vec![0; NUMBER_BYTES];
        body.extend(TEXT.iter().cycle().take(bytes - NUMBER_BYTES));
        let mut encoded = Vec::new();
        encode(&Entry::Console(&body), &mut encoded);
        EntryMaker { body, encoded }
    }

    /// Returns entry `number`, encoded.
    pub(super) fn make(&mut self, number: u64) -> &[u8] {
        self.body[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
        self.encoded.clear();
        encode(&Entry::Console(&self.body), &mut self.encoded);
        &self.encoded
    }
}

/// Returns whether `entry` is entry `number`, undamaged.
pub(super) fn is_entry(entry: &Entry<'_>, number: u64) -> bool {
    let Entry::Console(body) = entry else { return false };
    let Some((found, text)) = body.split_first_chunk::<NUMBER_BYTES>() else { return false };
    *found == number.to_le_bytes()
        && text.chunks(TEXT.len()).all(|chunk| *chunk == TEXT[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::entry_codec::decode;

    #[test]
    fn entry_with_another_number_or_text_is_rejected() {
        for bytes in [16, 64, 100, 4096] {
            let mut maker = EntryMaker::new(bytes);
            let encoded = maker.make(7).to_vec();
            let (entry, length) = decode(&encoded).unwrap();
            assert_eq!(length, encoded.len());
            assert!(is_entry(&entry, 7) && !is_entry(&entry, 8));
            let mut damaged = encoded.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert!(!is_entry(&decode(&damaged).unwrap().0, 7));
        }
        assert!(!is_entry(&Entry::Interrupt { vector: 1 }, 7));
        assert!(!is_entry(&Entry::Console(b"short"), 7));
    }
}
