//! The counter on port 7000: each line is answered with the next number.
//!
//! There is one counter for all connections and it only ever goes up by one, so any client can see
//! whether an answer was lost, repeated or made up: the numbers it gets must rise, and those of all clients
//! together must have no gap. That makes a failover visible that TCP alone would hide.

use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;

use super::{Service, send_room};

/// Bytes of a line without its newline.
const LINE_BYTES_MAX: usize = 256;
/// A `u64` in decimal, and a newline.
const ANSWER_BYTES_MAX: usize = 21;
/// Lines are looked for in this much input at a time.
const WINDOW: usize = 1024;

pub(super) struct Counter {
    /// The number given last.
    pub(super) count: u64,
}

/// Why a look at the input ended.
enum Ended {
    /// What is left is not a complete line.
    NeedsInput,
    /// The next answer has no room.
    NeedsRoom,
    LineTooLong,
}

impl Counter {
    pub(super) fn new() -> Self {
        Self { count: 0 }
    }

    /// Answers the complete lines of `input` for which there is room. A line is taken only together with
    /// its answer, so nothing is kept in between. Returns the bytes taken.
    fn answer(&mut self, socket: &mut Socket<'_>, input: &[u8]) -> (usize, Ended) {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            match rest.iter().position(|&byte| byte == b'\n') {
                None if rest.len() <= LINE_BYTES_MAX => return (taken, Ended::NeedsInput),
                Some(len) if len <= LINE_BYTES_MAX => {
                    if send_room(socket) < ANSWER_BYTES_MAX {
                        return (taken, Ended::NeedsRoom);
                    }
                    self.count += 1;
                    let mut answer = [0; ANSWER_BYTES_MAX];
                    let answer = decimal_line(self.count, &mut answer);
                    socket.send_slice(answer).expect("room was checked");
                    taken += len + 1;
                }
                None | Some(_) => return (taken, Ended::LineTooLong),
            }
        }
    }
}

impl Service for Counter {
    const PORT: u16 = 7000;
    type Connection = ();

    fn serve(&mut self, socket: &mut Socket<'_>, (): &mut (), _: Instant) -> bool {
        let mut progressed = false;
        let mut window = [0; WINDOW];
        loop {
            let len = socket.peek_slice(&mut window).unwrap_or(0);
            let (taken, ended) = self.answer(socket, &window[..len]);
            if taken > 0 {
                socket.recv_slice(&mut window[..taken]).expect("these bytes were just seen");
                progressed = true;
            }
            let more = socket.recv_queue() > len - taken;
            match ended {
                // The window ended in a line that goes on behind it.
                Ended::NeedsInput if more => {}
                // Half a line before the end of input is no request.
                Ended::NeedsInput if socket.state() == State::CloseWait => {
                    socket.close();
                    return true;
                }
                Ended::NeedsInput | Ended::NeedsRoom => return progressed,
                Ended::LineTooLong => {
                    socket.close();
                    return true;
                }
            }
        }
    }
}

/// `number` in decimal with a newline, at the end of `buffer`.
fn decimal_line(mut number: u64, buffer: &mut [u8; ANSWER_BYTES_MAX]) -> &[u8] {
    let mut start = buffer.len() - 1;
    buffer[start] = b'\n';
    loop {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[start..];
        }
    }
}
