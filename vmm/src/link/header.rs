//! The header of a frame of the log link, in front of what the transport sends:
//!
//! ```text
//!  0        6       12          14           22
//!  +--------+--------+-----------+------------+----------------------
//!  | to     | from   | EtherType | VM: u64 LE | sealed frame (logchan::seal)
//!  +--------+--------+-----------+------------+----------------------
//! ```
//!
//! The number of the VM says which process on the host a frame is for: several VMs can share one interface, and the
//! kernel gives each process only its own frames. It is an address, like the two in front of it: neither encrypted nor
//! authenticated. The handshake compares the numbers of both hosts, and the keys of a session belong to one VM.

use logchan::ids::VmId;
use logchan::seal::SealKind;
use netpath::{FRAME_MIN, LABEL_BYTES, PayloadByte, PayloadFilter};
use replication::driver::LINK_HEADER_BYTES;
use std::ops::Range;

/// Position of the destination address.
pub(super) const DESTINATION: Range<usize> = 0..6;
/// Position of the source address.
pub(super) const SOURCE: Range<usize> = 6..12;
/// Position of the number of the VM.
const VM: Range<usize> = FRAME_MIN..LINK_HEADER_BYTES;

const _: () = assert!(LINK_HEADER_BYTES == FRAME_MIN + LABEL_BYTES);

/// Position of the kind of a sealed frame behind the header ([`SealKind`]), counted from the end of the Ethernet header.
const KIND_AT: u8 = LABEL_BYTES as u8 + 1;
/// Its bits that are the kind's number. The other one says whether the frame is encrypted.
const KIND_MASK: u8 = 0x7f;

/// Returns the bytes between the Ethernet header and the sealed frame.
pub fn label(vm: VmId) -> [u8; LABEL_BYTES] {
    vm.0.to_le_bytes()
}

/// Returns the filter for the frames of `vm`. The requests with which a handshake begins pass for every VM: they are
/// rare, and a host that meets nobody can say that the other one has another number.
pub fn filter(vm: VmId) -> PayloadFilter {
    let or_byte = PayloadByte { at: KIND_AT, mask: KIND_MASK, value: SealKind::Request as u8 };
    PayloadFilter { label: label(vm), or_byte }
}

/// Returns the number of the VM in `frame`; `None` if the frame is shorter than its header.
pub(super) fn vm(frame: &[u8]) -> Option<VmId> {
    let bytes = frame.get(VM)?;
    bytes.try_into().ok().map(|bytes| VmId(u64::from_le_bytes(bytes)))
}

/// Writes the header of a frame of `vm` into `frame`, with this Ethernet header.
#[inline]
pub(super) fn write(frame: &mut [u8], ethernet: [u8; FRAME_MIN], vm: VmId) {
    frame[..FRAME_MIN].copy_from_slice(&ethernet);
    frame[VM].copy_from_slice(&label(vm));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_golden_bytes() {
        let mut frame = [0xff; LINK_HEADER_BYTES + 1];
        write(&mut frame, [7; FRAME_MIN], VmId(0x0102));
        assert_eq!(frame[..FRAME_MIN], [7; FRAME_MIN]);
        assert_eq!(frame[FRAME_MIN..], [2, 1, 0, 0, 0, 0, 0, 0, 0xff]);
        assert_eq!(vm(&frame), Some(VmId(0x0102)));
        assert_eq!(vm(&frame[..LINK_HEADER_BYTES - 1]), None);
    }

    #[test]
    fn filter_lets_requests_of_every_vm_pass() {
        use logchan::seal::{Protection, SealHeader};
        let PayloadFilter { or_byte: PayloadByte { at, mask, value }, label: _ } = filter(VmId(1));
        for protection in [Protection::Sealed, Protection::Insecure] {
            let of = |kind| SealHeader { kind, protection, length: 0, key_id: 0, sequence: 0 };
            let is_let_through = |kind| {
                let frame = [&label(VmId(2)), of(kind).encode().as_slice()].concat();
                frame[usize::from(at)] & mask == value
            };
            assert!(is_let_through(SealKind::Request));
            assert!(!is_let_through(SealKind::Data) && !is_let_through(SealKind::DeathNotice));
        }
    }
}
