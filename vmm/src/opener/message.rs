//! Requests to the opener, of one byte each, and its answers:
//!
//! ```text
//! result u8 | index of the bridge u32 little-endian, or text
//! ```

use crate::limits::OPENER_TEXT_BYTES_MAX;

/// Length of the longest answer, bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 1 + OPENER_TEXT_BYTES_MAX;

/// What to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The tap. The answer has its two files.
    Tap,
    /// The packet socket of the log link. The answer has its two files.
    Link,
    /// A socket on the tap's bridge. The answer has it, and the index of the bridge.
    Bridge,
    /// The control socket, if nothing is at its path. The answer has the socket.
    Listen,
    /// Remove the control socket.
    Unlink,
    /// Remove the socket of the metrics.
    UnlinkMetrics,
    /// Create the draft of the output. The answer has its file.
    Draft,
    /// Rename the draft to its final path.
    Keep,
    /// Remove the draft, if there is one.
    Discard,
    /// Create the report. The answer has its file.
    Report,
}

impl Request {
    const ALL: [Self; 10] = [
        Self::Tap,
        Self::Link,
        Self::Bridge,
        Self::Listen,
        Self::Unlink,
        Self::UnlinkMetrics,
        Self::Draft,
        Self::Keep,
        Self::Discard,
        Self::Report,
    ];

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Tap => 1,
            Self::Link => 2,
            Self::Bridge => 3,
            Self::Listen => 4,
            Self::Unlink => 5,
            Self::Draft => 6,
            Self::Keep => 7,
            Self::Discard => 8,
            Self::Report => 9,
            Self::UnlinkMetrics => 10,
        }
    }

    /// Decodes a request; `None` if the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Request> {
        let [code] = *bytes else { return None };
        Self::ALL.into_iter().find(|request| request.code() == code)
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is open. The number is the index of the bridge.
    Opened(u32),
    /// There is no such interface or draft; or there is something at the path of the control socket.
    Absent,
    /// Why it is not open, in one line.
    Failed(String),
}

const OPENED: u8 = 1;
const ABSENT: u8 = 2;
const FAILED: u8 = 3;

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Answer::Opened(bridge) => [&[OPENED][..], &bridge.to_le_bytes()].concat(),
            Answer::Absent => vec![ABSENT],
            Answer::Failed(text) => {
                let mut end = text.len().min(OPENER_TEXT_BYTES_MAX);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                [&[FAILED], &text.as_bytes()[..end]].concat()
            }
        }
    }

    /// Decodes an answer; `None` if the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Answer> {
        match *bytes {
            [OPENED, a, b, c, d] => Some(Answer::Opened(u32::from_le_bytes([a, b, c, d]))),
            [ABSENT] => Some(Answer::Absent),
            [FAILED, ref text @ ..] => {
                Some(Answer::Failed(String::from_utf8_lossy(text).into_owned()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_length_round_trip_or_are_refused() {
        for request in Request::ALL {
            assert_eq!(Request::decode(&[request.code()]), Some(request));
            assert_eq!(Request::decode(&[request.code(), 0]), None);
        }
        for code in (0..=u8::MAX).filter(|code| !(1..=10).contains(code)) {
            assert_eq!(Request::decode(&[code]), None);
            assert!(Answer::decode(&[code]).is_none() || code == FAILED);
        }
        assert_eq!(Request::decode(&[]), None);
        let long = "\u{e9}".repeat(ANSWER_BYTES_MAX);
        for answer in [Answer::Opened(77), Answer::Absent, Answer::Failed("no".into())] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        let encoded = Answer::Failed(long.clone()).encode();
        assert!(encoded.len() <= ANSWER_BYTES_MAX);
        let Some(Answer::Failed(cut)) = Answer::decode(&encoded) else { panic!("{encoded:?}") };
        assert!(long.starts_with(&cut) && !cut.is_empty());
        assert_eq!((Answer::decode(&[]), Answer::decode(&[OPENED, 1])), (None, None));
    }
}
