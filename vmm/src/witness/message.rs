//! What a VM's process and the process that asks its witness say to each other, one message each:
//!
//! ```text
//! question  kind u8 | up to two numbers u64 little-endian | cause u8, for a claim
//! answer    kind u8 | term u64 little-endian, or text
//! ```

use crate::limits::WITNESS_TEXT_BYTES_MAX;
use logchan::ids::{Claimant, Term};
use replication::witness::{Answer, ClaimCause, Question};

/// Length of the longest question, bytes.
pub(super) const QUESTION_BYTES_MAX: usize = 1 + 2 * 8 + 1;

/// Length of the longest answer, bytes.
pub(super) const REPLY_BYTES_MAX: usize = 1 + WITNESS_TEXT_BYTES_MAX;

const BOOT: u8 = 1;
const BOOT_AGAIN: u8 = 2;
const CLAIM: u8 = 3;
const CONFIRM: u8 = 4;
const RELEASE: u8 = 5;

const CAUSES: [ClaimCause; 3] =
    [ClaimCause::BackupLost, ClaimCause::PrimarySilent, ClaimCause::HandedOver];

/// Returns the position of `cause` in [`CAUSES`].
const fn cause_code(cause: ClaimCause) -> u8 {
    match cause {
        ClaimCause::BackupLost => 0,
        ClaimCause::PrimarySilent => 1,
        ClaimCause::HandedOver => 2,
    }
}

/// Encodes a question.
pub(super) fn encode_question(question: Question) -> Vec<u8> {
    match question {
        Question::Boot { again, after } => {
            let kind = if again { BOOT_AGAIN } else { BOOT };
            let after = after.map(|term| term.0.to_le_bytes());
            [&[kind][..], after.as_ref().map_or(&[], |after| &after[..])].concat()
        }
        Question::Claim { term, previous, cause } => {
            [&[CLAIM][..], &term.0.to_le_bytes(), &previous.0.to_le_bytes(), &[cause_code(cause)]]
                .concat()
        }
        Question::Confirm { term, owner } => {
            [&[CONFIRM][..], &term.0.to_le_bytes(), &owner.0.to_le_bytes()].concat()
        }
        Question::Release { term } => [&[RELEASE][..], &term.0.to_le_bytes()].concat(),
    }
}

/// Takes a number off the front of `bytes`.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

/// Decodes a question; `None` if the bytes are none.
pub(super) fn decode_question(bytes: &[u8]) -> Option<Question> {
    let (kind, mut rest) = bytes.split_first()?;
    let question = match *kind {
        BOOT | BOOT_AGAIN => {
            let after = match rest.is_empty() {
                true => None,
                false => Some(Term(number(&mut rest)?)),
            };
            Question::Boot { again: *kind == BOOT_AGAIN, after }
        }
        CLAIM => {
            let (term, previous) = (Term(number(&mut rest)?), Claimant(number(&mut rest)?));
            let (code, none) = rest.split_first()?;
            rest = none;
            Question::Claim { term, previous, cause: *CAUSES.get(usize::from(*code))? }
        }
        CONFIRM => {
            let (term, owner) = (Term(number(&mut rest)?), Claimant(number(&mut rest)?));
            Question::Confirm { term, owner }
        }
        RELEASE => Question::Release { term: Term(number(&mut rest)?) },
        _ => return None,
    };
    rest.is_empty().then_some(question)
}

/// What the witness's process says while it works on a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The answer, or why there is none.
    Answer(Result<Answer, String>),
    /// The command of `--fence` has begun; an answer follows.
    FenceRuns,
    /// It has ended.
    FenceEnded,
}

const WON: u8 = 1;
const LOST: u8 = 2;
const UNREACHABLE: u8 = 3;
const FAILED: u8 = 4;
const FENCE_RUNS: u8 = 5;
const FENCE_ENDED: u8 = 6;

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Reply::Answer(Ok(Answer::Won { term })) => [&[WON][..], &term.0.to_le_bytes()].concat(),
            Reply::Answer(Ok(Answer::Lost { newest })) => {
                [&[LOST][..], &newest.0.to_le_bytes()].concat()
            }
            Reply::Answer(Ok(Answer::Unreachable)) => vec![UNREACHABLE],
            Reply::Answer(Err(text)) => {
                let mut end = text.len().min(WITNESS_TEXT_BYTES_MAX);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                [&[FAILED], &text.as_bytes()[..end]].concat()
            }
            Reply::FenceRuns => vec![FENCE_RUNS],
            Reply::FenceEnded => vec![FENCE_ENDED],
        }
    }

    /// Decodes a reply; `None` if the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Reply> {
        let (kind, mut rest) = bytes.split_first()?;
        let reply = match *kind {
            WON => Reply::Answer(Ok(Answer::Won { term: Term(number(&mut rest)?) })),
            LOST => Reply::Answer(Ok(Answer::Lost { newest: Term(number(&mut rest)?) })),
            UNREACHABLE => Reply::Answer(Ok(Answer::Unreachable)),
            FAILED => {
                let text = String::from_utf8_lossy(rest).into_owned();
                return Some(Reply::Answer(Err(text)));
            }
            FENCE_RUNS => Reply::FenceRuns,
            FENCE_ENDED => Reply::FenceEnded,
            _ => return None,
        };
        rest.is_empty().then_some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions() -> Vec<Question> {
        let claim = |cause| Question::Claim { term: Term(7), previous: Claimant(0xa1), cause };
        let mut questions = CAUSES.map(claim).to_vec();
        questions.extend([
            Question::Boot { again: false, after: None },
            Question::Boot { again: false, after: Some(Term(0)) },
            Question::Boot { again: true, after: None },
            Question::Boot { again: true, after: Some(Term(u64::MAX)) },
            Question::Confirm { term: Term(u64::MAX), owner: Claimant(3) },
            Question::Release { term: Term(9) },
        ]);
        questions
    }

    #[test]
    fn question_of_any_length_round_trips_or_is_refused() {
        for question in questions() {
            let encoded = encode_question(question);
            assert!(encoded.len() <= QUESTION_BYTES_MAX);
            assert_eq!(decode_question(&encoded), Some(question));
            assert_eq!(decode_question(&[&encoded[..], &[0]].concat()), None);
            // A question to boot may end before the term.
            let is_short = |length| match question {
                Question::Boot { after: Some(_), .. } => length == 1,
                Question::Boot { .. }
                | Question::Claim { .. }
                | Question::Confirm { .. }
                | Question::Release { .. } => false,
            };
            for length in (0..encoded.len()).filter(|length| !is_short(*length)) {
                assert_eq!(decode_question(&encoded[..length]), None, "{question:?}, {length}");
            }
        }
        assert_eq!(decode_question(&[0]), None);
        let no_cause = [&[CLAIM][..], &[0; 16], &[3]].concat();
        assert_eq!(decode_question(&no_cause), None);
    }

    #[test]
    fn reply_round_trips_and_a_long_reason_is_cut() {
        for reply in [
            Reply::Answer(Ok(Answer::Won { term: Term(3) })),
            Reply::Answer(Ok(Answer::Lost { newest: Term(4) })),
            Reply::Answer(Ok(Answer::Unreachable)),
            Reply::Answer(Err("the storage is full".into())),
            Reply::FenceRuns,
            Reply::FenceEnded,
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
        let long = "\u{20ac}".repeat(REPLY_BYTES_MAX);
        let encoded = Reply::Answer(Err(long.clone())).encode();
        assert!(encoded.len() <= REPLY_BYTES_MAX);
        let Some(Reply::Answer(Err(cut))) = Reply::decode(&encoded) else { panic!("{encoded:?}") };
        assert!(long.starts_with(&cut) && !cut.is_empty());
        for wrong in [&[][..], &[0], &[7], &[WON], &[WON, 1], &[FENCE_RUNS, 0]] {
            assert_eq!(Reply::decode(wrong), None, "{wrong:?}");
        }
    }
}
