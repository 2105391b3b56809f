//! The content of a claim file: one line.
//!
//! ```text
//! understudy-claim 2 <claimant> <tag> <host>
//! ```
//!
//! The claimant has 16 hexadecimal digits. The tag (`logchan::claim`) has 64; it is `-` if the pair runs with
//! `--insecure`. A host with two keys (`--key-next`) writes two tags with a `+` between them. The host's name is for people, and the tag does not cover it. Version 1 had neither the first
//! two words nor a tag.

use crate::limits::HOST_NAME_BYTES_MAX;
use logchan::claim::{CLAIM_TAG_BYTES, Claim, ClaimKey};
use logchan::ids::{Claimant, Term, VmId, WitnessId};
use std::fmt::Write;

const MAGIC: &str = "understudy-claim";
const VERSION: &str = "2";
/// In place of the tag.
const NO_TAG: &str = "-";
const TAG_SEPARATOR: char = '+';
/// Most tags of a claim.
const TAGS_MAX: usize = 2;

/// Why the content of a claim file is not a claim of this pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFault {
    /// Another version of this program wrote it.
    #[error(
        "was written by another version of understudy: end the VM on both hosts, then remove its claims"
    )]
    Version,
    /// Not a whole claim.
    #[error("is not a claim: remove it if neither host made it, or restore it")]
    Damaged,
    /// There is a tag, but this process has no key.
    #[error(
        "was made with a key, but this host runs with --insecure: start both hosts in the same way"
    )]
    HasTag,
    /// There is no tag, but this process has a key.
    #[error(
        "has no tag of the pair's key: start both hosts with --key, and remove the claim if neither made it"
    )]
    NoTag,
    /// The tag is not one of the pair's key for this claim.
    #[error(
        "does not authenticate with the pair's key: remove it if neither host made it, and see who can write to the witness"
    )]
    NotAuthentic,
}

/// A claim as its file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimFile {
    pub(crate) claimant: Claimant,
    /// At most two.
    tags: Vec<[u8; CLAIM_TAG_BYTES]>,
    pub(crate) host: String,
}

impl ClaimFile {
    /// Encodes `claim` of the host named `host`, with a tag of each key.
    pub(super) fn encode(claim: &Claim, key: Option<&ClaimKey>, host: &str) -> String {
        let mut line = format!("{MAGIC} {VERSION} {} ", claim.claimant);
        match key {
            Some(key) => {
                for (index, tag) in key.tags(claim).enumerate() {
                    line.extend((index > 0).then_some(TAG_SEPARATOR));
                    for byte in tag {
                        write!(line, "{byte:02x}").expect("a string grows");
                    }
                }
            }
            None => line.push_str(NO_TAG),
        }
        let host = host.chars().filter(char::is_ascii_graphic).take(HOST_NAME_BYTES_MAX);
        line.extend(std::iter::once(' ').chain(host));
        line.push('\n');
        line
    }

    /// Decodes the content of a claim file. Any content is possible.
    pub(super) fn decode(content: &[u8]) -> Result<ClaimFile, ClaimFault> {
        // A claim without its line break was cut.
        let line = str::from_utf8(content).ok().and_then(|text| text.strip_suffix('\n'));
        let line = line.ok_or(ClaimFault::Damaged)?;
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(ClaimFault::Damaged);
        match word()? {
            MAGIC => {}
            first if hex::<8>(first).is_some() => return Err(ClaimFault::Version),
            _ => return Err(ClaimFault::Damaged),
        }
        if word()? != VERSION {
            return Err(ClaimFault::Version);
        }
        let claimant = Claimant(u64::from_be_bytes(hex(word()?).ok_or(ClaimFault::Damaged)?));
        let tags = match word()? {
            NO_TAG => Vec::new(),
            text => {
                let tags = text.split(TAG_SEPARATOR).map(hex).collect::<Option<Vec<_>>>();
                tags.filter(|tags| tags.len() <= TAGS_MAX).ok_or(ClaimFault::Damaged)?
            }
        };
        let host = word()?;
        let is_name =
            host.len() <= HOST_NAME_BYTES_MAX && host.bytes().all(|b| b.is_ascii_graphic());
        match is_name && words.next().is_none() {
            true => Ok(ClaimFile { claimant, tags, host: host.to_string() }),
            false => Err(ClaimFault::Damaged),
        }
    }

    /// Checks that a host with `key` made this claim of `term` at `witness`, and returns its owner.
    pub(crate) fn owner(
        &self,
        (witness, vm, term): (WitnessId, VmId, Term),
        key: Option<&ClaimKey>,
    ) -> Result<Claimant, ClaimFault> {
        let claimant = self.claimant;
        let claim = Claim { witness, vm, term, claimant };
        match (key, self.tags.is_empty()) {
            (Some(_), true) => Err(ClaimFault::NoTag),
            (None, false) => Err(ClaimFault::HasTag),
            (None, true) => Ok(claimant),
            (Some(key), false) => match self.tags.iter().any(|tag| key.is_authentic(&claim, tag)) {
                true => Ok(claimant),
                false => Err(ClaimFault::NotAuthentic),
            },
        }
    }
}

/// Decodes exactly `N` bytes from hexadecimal digits.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(digits[0])? << 4 | digit(digits[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WITNESS_FILE_BYTES_MAX;
    use logchan::handshake::{PresharedKey, Security};

    const PLACE: (WitnessId, VmId, Term) = (WitnessId(1), VmId(2), Term(3));
    const CLAIM: Claim =
        Claim { witness: WitnessId(1), vm: VmId(2), term: Term(3), claimant: Claimant(0xa) };

    fn key(byte: u8) -> ClaimKey {
        ClaimKey::derive(&PresharedKey::from_bytes(&[byte; 32]).unwrap())
    }

    fn both(one: u8, other: u8) -> ClaimKey {
        let [key, next] = [one, other].map(|byte| PresharedKey::from_bytes(&[byte; 32]).unwrap());
        ClaimKey::of(&Security::Rotating { key, next }).unwrap()
    }

    #[test]
    fn claim_golden_bytes() {
        let insecure = ClaimFile::encode(&CLAIM, None, "a host\n");
        assert_eq!(insecure, "understudy-claim 2 000000000000000a - ahost\n");
        let file = ClaimFile::decode(insecure.as_bytes()).unwrap();
        assert_eq!((file.claimant, file.host.as_str()), (Claimant(0xa), "ahost"));
        let longest = ClaimFile::encode(&CLAIM, Some(&both(1, 2)), &"h".repeat(1000));
        assert!(longest.len() as u64 <= WITNESS_FILE_BYTES_MAX, "{longest}");
        assert!(ClaimFile::decode(longest.as_bytes()).is_ok());
    }

    #[test]
    fn owner_needs_tag_exactly_if_there_is_a_key() {
        let owner = |made_with: Option<&ClaimKey>, read_with: Option<&ClaimKey>| {
            let content = ClaimFile::encode(&CLAIM, made_with, "h");
            ClaimFile::decode(content.as_bytes()).unwrap().owner(PLACE, read_with)
        };
        let (ours, other) = (key(1), key(2));
        assert_eq!(owner(Some(&ours), Some(&ours)), Ok(Claimant(0xa)));
        assert_eq!(owner(None, None), Ok(Claimant(0xa)));
        assert_eq!(owner(Some(&other), Some(&ours)), Err(ClaimFault::NotAuthentic));
        assert_eq!(owner(None, Some(&ours)), Err(ClaimFault::NoTag));
        assert_eq!(owner(Some(&ours), None), Err(ClaimFault::HasTag));
        // While one key replaces another.
        let both = both(1, 2);
        for one in [&ours, &other, &both] {
            assert_eq!(owner(Some(&both), Some(one)), Ok(Claimant(0xa)));
            assert_eq!(owner(Some(one), Some(&both)), Ok(Claimant(0xa)));
        }
        assert_eq!(owner(Some(&both), Some(&key(3))), Err(ClaimFault::NotAuthentic));
        assert_eq!(owner(Some(&both), None), Err(ClaimFault::HasTag));
    }

    #[test]
    fn every_prefix_and_every_other_content_is_refused() {
        let whole = ClaimFile::encode(&CLAIM, Some(&key(1)), "host");
        for length in 0..whole.len() {
            let result = ClaimFile::decode(&whole.as_bytes()[..length]);
            assert_eq!(result, Err(ClaimFault::Damaged), "{length} bytes");
        }
        for content in [
            "\n",
            "x\n",
            "mallory h\n",
            "understudy-claim 2 +00000000000000a - h\n",
            "understudy-claim 2 000000000000000a + h\n",
        ] {
            assert_eq!(
                ClaimFile::decode(content.as_bytes()),
                Err(ClaimFault::Damaged),
                "{content}"
            );
        }
        assert_eq!(ClaimFile::decode(b"\xff\n"), Err(ClaimFault::Damaged));
        for content in ["000000000000000a host\n", "understudy-claim 3 what\n"] {
            assert_eq!(
                ClaimFile::decode(content.as_bytes()),
                Err(ClaimFault::Version),
                "{content}"
            );
        }
    }
}
