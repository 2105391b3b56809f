//! Code that is generated, changes itself while it runs, and ends with RET. It has only instructions whose
//! results are functions of the guest's state.

use crate::memory;
use crate::random::Random;

const CODE: u64 = 0x50_0000;
/// Instructions as templates; zero bytes at the end are replaced by random ones.
const TEMPLATES: [(&[u8], usize); 12] = [
    (&[0x48, 0x05], 4),                   // add rax, imm32
    (&[0x48, 0x35], 4),                   // xor rax, imm32
    (&[0x48, 0xC1, 0xC0], 1),             // rol rax, imm8
    (&[0x48, 0x69, 0xC0], 4),             // imul rax, rax, imm32
    (&[0xB8], 4),                         // mov eax, imm32
    (&[0x48, 0x0F, 0xC8], 0),             // bswap rax
    (&[0x66, 0x48, 0x0F, 0x6E, 0xC0], 0), // movq xmm0, rax
    (&[0x0F, 0x57, 0xC1], 0),             // xorps xmm0, xmm1
    (&[0x90], 0),                         // nop
    (&[0xD9, 0xE8, 0xDD, 0xD8], 0),       // fld1; fstp st(0)
    (&[0xE4], 1),                         // in al, imm8
    (&[0xE6], 1),                         // out imm8, al
];

/// Writes a function at a random place, some of whose instructions overwrite an immediate byte of a later
/// one, and calls it.
pub(crate) fn run(random: &mut Random) {
    let begin = CODE + random.below(0x1_0000);
    let mut at = begin;
    let mut put = |bytes: &[u8]| {
        for byte in bytes {
            memory::write(at, *byte);
            at += 1;
        }
        at
    };
    for _ in 0..1 + random.below(40) {
        if random.once_in(4) {
            // mov byte [rip + 1], imm8; add al, imm8: the first changes the second.
            put(&[0xC6, 0x05, 1, 0, 0, 0, random.next() as u8, 0x04, random.next() as u8]);
            continue;
        }
        let (code, immediate) = random.pick(&TEMPLATES);
        put(code);
        for _ in 0..immediate {
            // Of the ports below 0x100 only the reset ports end the guest (0x64, 0x92).
            let byte = match (code[0], random.next() as u8) {
                (0xE4 | 0xE6, 0x64 | 0x92) => 0x80,
                (_, byte) => byte,
            };
            put(&[byte]);
        }
    }
    if random.once_in(20) {
        put(&random.next().to_le_bytes()[..1]);
        put(&[0xFF, 0xFF]);
    }
    put(&[0xC3]);
    let mut result = random.next();
    // SAFETY: the code changes RAX, XMM0, flags and itself, and returns; or it faults, and CPL3 starts anew.
    unsafe {
        core::arch::asm!("call {}", in(reg) begin, inout("rax") result, out("xmm0") _, out("st(0)") _,
            out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _,
            out("st(7)") _);
    }
    random.fold(result);
}
