//! An entry as one line of text.
//!
//! A line is the kind, padded to [`EntryKind::NAME_WIDTH`], and `key=value` fields in the order of the
//! fields of [`Entry`], separated by one space. No value contains a space, so a line splits into words.
//!
//! | value | printed as |
//! |---|---|
//! | digest | 16 hex digits |
//! | page number, vector | `0x` and hex digits |
//! | other number | decimal; the key ends in the unit |
//! | registers | `rax^1f,rip^2`: the registers that changed, old ^ new in hex; `-` if none changed; no field if the entry has no registers |
//! | page or state delta | `changes=`, or the state's name and `_changes=`: length of the delta in bytes |
//! | bytes | `length=` in bytes, and `head=` the first 16 bytes in hex, `-` if there are none, `zero` for a page of zeros |

use core::fmt;

use crate::disk_copy::DiskCopy;
use crate::entry::{DiskStatus, Entry, PageBytes, REGISTERS, RegisterDelta, StateBytes};
use crate::entry_kind::EntryKind;

/// Names of the registers of a [`RegisterDelta`], by index.
pub const REGISTER_NAMES: [&str; REGISTERS] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags",
];

/// Number of bytes that `head=` shows: an Ethernet header and the first two bytes of its payload.
const HEAD_BYTES: usize = 16;

/// Displays an entry as one line without a line break.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a>(pub &'a Entry<'a>);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:1$}", EntryKind::of(self.0), EntryKind::NAME_WIDTH)?;
        match *self.0 {
            Entry::Exit { digest, ref registers } => {
                write!(f, " digest={digest:016x}")?;
                registers.as_ref().map_or(Ok(()), |delta| write_registers(f, delta))
            }
            Entry::Window { digest } | Entry::CheckpointEnd { digest } => {
                write!(f, " digest={digest:016x}")
            }
            Entry::CheckpointBegin { full, pages, vcpu, devices } => {
                write!(f, " full={full} pages={pages}")?;
                write_state(f, "vcpu", vcpu)?;
                write_state(f, "devices", devices)
            }
            Entry::Page { number, bytes } => {
                write!(f, " number={number:#x}")?;
                match bytes {
                    PageBytes::Zero => f.write_str(" length=4096 head=zero"),
                    PageBytes::Raw(raw) => write_bytes(f, raw),
                    PageBytes::Delta(delta) => write!(f, " changes={}", delta.bytes().len()),
                }
            }
            Entry::Clock { advance_ns } => write!(f, " advance_ns={advance_ns}"),
            Entry::WallClock { unix_ns } => write!(f, " unix_ns={unix_ns}"),
            Entry::Entropy(bytes) | Entry::Frame(bytes) | Entry::Console(bytes) => {
                write_bytes(f, bytes)
            }
            Entry::Interrupt { vector } => write!(f, " vector={vector:#04x}"),
            Entry::Output { length, digest } => write!(f, " length={length} digest={digest:016x}"),
            Entry::End { natural_exits, interrupts, memory_digest, state_digest } => write!(
                f,
                " natural_exits={natural_exits} interrupts={interrupts} \
                 memory_digest={memory_digest:016x} state_digest={state_digest:016x}"
            ),
            Entry::HandOver => Ok(()),
            Entry::DiskCopy(ref message) => write_copy(f, message),
            Entry::DiskDone { disk, number, status, digest, data } => {
                let status = match status {
                    DiskStatus::Done => "done",
                    DiskStatus::Failed => "failed",
                };
                write!(f, " disk={disk} number={number} status={status} digest={digest:016x}")?;
                write_bytes(f, data)
            }
        }
    }
}

fn write_copy(f: &mut fmt::Formatter<'_>, message: &DiskCopy<'_>) -> fmt::Result {
    match *message {
        DiskCopy::Have { disk, generation, extents } => {
            write!(f, " disk={disk} form=have")?;
            if let Some(generation) = generation {
                write!(f, " term={} owner={}", generation.term, generation.owner)?;
            }
            let changed: u32 = extents.iter().map(|byte| byte.count_ones()).sum();
            write!(f, " changed={changed}")
        }
        DiskCopy::Digests { disk, block, digests } => {
            write!(f, " disk={disk} form=digests block={block}")?;
            write_bytes(f, digests)
        }
        DiskCopy::Wanted { disk, block, blocks } => {
            write!(f, " disk={disk} form=wanted block={block} blocks={blocks:#x}")
        }
        DiskCopy::Zeros { disk, sector, sectors } => {
            write!(f, " disk={disk} form=zeros sector={sector} sectors={sectors}")
        }
        DiskCopy::Data { disk, sector, data } => {
            write!(f, " disk={disk} form=data sector={sector}")?;
            write_bytes(f, data)
        }
        DiskCopy::Flush { disk, mark } => write!(f, " disk={disk} form=flush mark={mark}"),
        DiskCopy::Flushed { disk, mark } => write!(f, " disk={disk} form=flushed mark={mark}"),
    }
}

fn write_state(f: &mut fmt::Formatter<'_>, name: &str, state: StateBytes<'_>) -> fmt::Result {
    let what = match state {
        StateBytes::Whole(_) => "bytes",
        StateBytes::Delta(_) => "changes",
    };
    write!(f, " {name}_{what}={}", state.bytes().len())
}

fn write_registers(f: &mut fmt::Formatter<'_>, delta: &RegisterDelta) -> fmt::Result {
    f.write_str(" registers=")?;
    let mut separator = "";
    for (name, xor) in REGISTER_NAMES.iter().zip(delta.xor) {
        if xor != 0 {
            write!(f, "{separator}{name}^{xor:x}")?;
            separator = ",";
        }
    }
    if separator.is_empty() { f.write_str("-") } else { Ok(()) }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    write!(f, " length={} head=", bytes.len())?;
    if bytes.is_empty() {
        return f.write_str("-");
    }
    bytes.iter().take(HEAD_BYTES).try_for_each(|byte| write!(f, "{byte:02x}"))
}
