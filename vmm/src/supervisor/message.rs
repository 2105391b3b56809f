//! What the VM's process says to its supervisor, one datagram each:
//!
//! ```text
//! kind u8 | the frame of the notice, for Hold; the number of the thread, i32 little-endian, for Watch
//! ```

use logchan::seal::{DEATH_NOTICE_BYTES, DeathNotice};

/// Length of the longest message in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 + DEATH_NOTICE_BYTES;

const HOLD: u8 = 1;
const STAND_DOWN: u8 = 2;
const WATCH: u8 = 3;

/// A message to the supervisor. A later one of Hold and StandDown replaces an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Send this frame when the VM's process is gone, or can send nothing any more.
    Hold([u8; DEATH_NOTICE_BYTES]),
    /// Send nothing.
    StandDown,
    /// The VM can send nothing any more when this thread has ended, even if its process has not.
    Watch(i32),
}

impl From<&DeathNotice> for Message {
    fn from(notice: &DeathNotice) -> Message {
        Message::Hold(*notice.as_bytes())
    }
}

impl Message {
    /// Encodes the message into `to`, and returns the part of it that was used.
    pub(super) fn encode<'t>(&self, to: &'t mut [u8; MESSAGE_BYTES_MAX]) -> &'t [u8] {
        match self {
            Message::Hold(frame) => {
                to[0] = HOLD;
                to[1..].copy_from_slice(frame);
                to
            }
            Message::StandDown => {
                to[0] = STAND_DOWN;
                &to[..1]
            }
            Message::Watch(thread) => {
                to[0] = WATCH;
                to[1..5].copy_from_slice(&thread.to_le_bytes());
                &to[..5]
            }
        }
    }

    /// Decodes a message; `None` if the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        match *bytes {
            [HOLD, ref frame @ ..] => frame.try_into().ok().map(Message::Hold),
            [STAND_DOWN] => Some(Message::StandDown),
            [WATCH, a, b, c, d] => Some(Message::Watch(i32::from_le_bytes([a, b, c, d]))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_golden_bytes() {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        assert_eq!(Message::StandDown.encode(&mut buffer), [2]);
        assert_eq!(Message::Watch(0x0102_0304).encode(&mut buffer), [3, 4, 3, 2, 1]);
        let frame: [u8; DEATH_NOTICE_BYTES] = std::array::from_fn(|index| index as u8);
        let encoded = Message::Hold(frame).encode(&mut buffer);
        assert_eq!((encoded[0], encoded.len()), (1, 33));
        assert_eq!(encoded[1..], frame);
    }

    #[test]
    fn message_of_any_length_round_trips_or_is_refused() {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let messages =
            [Message::StandDown, Message::Watch(77), Message::Hold([7; DEATH_NOTICE_BYTES])];
        for message in messages {
            let encoded = message.encode(&mut buffer).to_vec();
            assert_eq!(Message::decode(&encoded), Some(message));
            assert_eq!(Message::decode(&[&encoded[..], &[0]].concat()), None);
            for length in 0..encoded.len() {
                assert_eq!(Message::decode(&encoded[..length]), None, "{message:?}, {length}");
            }
        }
        for kind in (0..=u8::MAX).filter(|kind| ![HOLD, STAND_DOWN, WATCH].contains(kind)) {
            assert_eq!(Message::decode(&[kind]), None);
        }
    }
}
