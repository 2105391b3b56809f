//! [`PayloadFilter`]: the frames that the kernel delivers to one of several ports on an interface.
//!
//! It is a program of classic BPF on the socket (socket(7), SO_ATTACH_FILTER; the kernel's
//! `Documentation/networking/filter.rst`). The kernel runs it before it copies a frame to the port, so a frame that is
//! not for a port costs it a few instructions, takes no slot of its ring, does not wake its thread, and is counted
//! nowhere.

use crate::port::FRAME_MIN;

/// Number of instructions of a filter.
pub(crate) const INSTRUCTIONS: usize = 9;

/// Bytes at the beginning of a payload by which ports on one interface are told apart.
pub const LABEL_BYTES: usize = 8;

/// Which frames of the EtherType the kernel delivers to a port, by their payload. A frame whose payload ends before the
/// bytes that are compared is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadFilter {
    /// Frames whose payload begins with these bytes are delivered.
    pub label: [u8; LABEL_BYTES],
    /// Frames with this byte in their payload are delivered, whatever they begin with.
    pub or_byte: PayloadByte,
}

/// A byte of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadByte {
    /// Its position in the payload.
    pub at: u8,
    /// Its bits that are compared.
    pub mask: u8,
    /// What they must be.
    pub value: u8,
}

impl PayloadFilter {
    /// Returns the filter as the kernel takes it. Positions are those in the frame, whose Ethernet header is part of
    /// what a packet socket receives.
    pub(crate) fn program(&self) -> [libc::sock_filter; INSTRUCTIONS] {
        const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
        const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
        const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
        let [a, b, c, d, e, f, g, h] = self.label;
        let PayloadByte { at, mask, value } = self.or_byte;
        let payload = FRAME_MIN as u32;
        // Words are loaded as big-endian numbers. A load beyond the frame's end ends the program with 0.
        let step = |code: u32, k: u32, [jt, jf]: [u8; 2]| {
            let code = code as u16;
            libc::sock_filter { code, jt, jf, k }
        };
        [
            step(WORD, payload, [0, 0]),
            step(IS, u32::from_be_bytes([a, b, c, d]), [0, 2]),
            step(WORD, payload + 4, [0, 0]),
            step(IS, u32::from_be_bytes([e, f, g, h]), [3, 0]),
            step(BYTE, payload + u32::from(at), [0, 0]),
            step(AND, u32::from(mask), [0, 0]),
            step(IS, u32::from(value & mask), [0, 1]),
            // The number of bytes that are delivered.
            step(RETURN, u32::MAX, [0, 0]),
            step(RETURN, 0, [0, 0]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: PayloadFilter =
        PayloadFilter { label: *b"01234567", or_byte: PayloadByte { at: 9, mask: 0x7f, value: 6 } };

    /// Executes the program for a frame with this payload, as the kernel does.
    fn is_delivered(payload: &[u8]) -> bool {
        let frame = [&[0; FRAME_MIN], payload].concat();
        let program = FILTER.program();
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let code = u32::from(code);
            match code & 0x07 {
                libc::BPF_LD => {
                    let bytes = if code & libc::BPF_B == 0 { 4 } else { 1 };
                    let Some(loaded) = frame.get(k as usize..k as usize + bytes) else {
                        return false;
                    };
                    accumulator = loaded.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                }
                libc::BPF_ALU => accumulator &= k,
                libc::BPF_JMP => at += usize::from(if accumulator == k { jt } else { jf }),
                libc::BPF_RET => return k != 0,
                other => panic!("class {other}"),
            }
        }
    }

    #[test]
    fn only_frames_with_the_label_or_the_byte_are_delivered() {
        assert!(is_delivered(b"01234567 x") && is_delivered(b"01234567"));
        assert!(!is_delivered(b"0123456") && !is_delivered(b""));
        for other in [b"01234568 x", b"11234567 x", b"76543210 x"] {
            assert!(!is_delivered(other));
        }
        for byte in [6, 0x86] {
            let mut other = *b"other VM x";
            other[9] = byte;
            assert!(is_delivered(&other));
            assert!(!is_delivered(&other[..9]));
        }
    }
}
