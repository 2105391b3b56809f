//! The entries that are measured with: console input, which no other entry is like in length and
//! content. Each begins with its number.

use logchan::entry::Entry;
use logchan::entry_codec::encode;

/// What fills an entry behind its number, over and over. Plain to see in a capture, if it is there.
const TEXT: &[u8] = b"understudy link measures the logging channel. ";

/// Bytes of the number.
const NUMBER_BYTES: usize = 8;

/// Makes entries of one size. Allocates nothing after [`new`](Self::new).
#[derive(Debug)]
pub(super) struct EntryMaker {
    body: Vec<u8>,
    encoded: Vec<u8>,
}

impl EntryMaker {
    /// Entries of `bytes` bytes, their frame of two or three bytes not counted.
    pub(super) fn new(bytes: usize) -> EntryMaker {
        let mut body = vec![0; NUMBER_BYTES];
        body.extend(TEXT.iter().cycle().take(bytes - NUMBER_BYTES));
        let mut encoded = Vec::new();
        encode(&Entry::Console(&body), &mut encoded);
        EntryMaker { body, encoded }
    }

    /// Entry `number`, encoded.
    pub(super) fn make(&mut self, number: u64) -> &[u8] {
        self.body[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
        self.encoded.clear();
        encode(&Entry::Console(&self.body), &mut self.encoded);
        &self.encoded
    }
}

/// Whether this is entry `number`, whole.
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
    fn entry_is_known_by_number_and_text() {
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
