//! Hooks: small pieces of code that the pass installs in a kernel, in the padding between its functions.
//!
//! Both hooks are entered at the same point of an exception entry (`arch/x86/entry/entry_64.S`,
//! `idtentry_body`): at `cld; call error_entry`. The frame that the processor pushed is on top of the
//! stack, and every register has the value of the interrupted code.
//!
//! ```text
//!   RSP -> error code, RIP, CS, RFLAGS, RSP, SS
//! ```

use crate::boot::elf::{Elf, u32_at};
use crate::boot::linux::pass::TIME_STAMP_PORT;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use serde::Serialize;

/// A place where the pass installed its own code or changed an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// A short description of the purpose.
    pub what: &'static str,
    /// Symbol at the place.
    pub symbol: &'static str,
    /// Virtual address of the place.
    pub address: u64,
    /// Virtual address of the hook's code, if there is any.
    pub code: Option<u64>,
}

/// What a hook needs and a kernel does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    /// A function or label is missing in the kernel's symbol table.
    #[error("the kernel has no symbol {0}")]
    NoSymbol(&'static str),
    /// A symbol's address is outside the kernel's code.
    #[error("{symbol} ({address:#x}) is not in the kernel's code")]
    NotCode {
        /// The symbol.
        symbol: &'static str,
        /// Its virtual address.
        address: u64,
    },
    /// Code is not of a form that is known here.
    #[error("{wanted} was looked for in {bytes} bytes from {symbol} ({address:#x}) and not found")]
    NotFound {
        /// Instructions that were looked for.
        wanted: &'static str,
        /// Symbol at which the search began.
        symbol: &'static str,
        /// Its virtual address.
        address: u64,
        /// Bytes that were searched.
        bytes: usize,
    },
    /// There is no room for a hook's code.
    #[error("{bytes} bytes of padding (0xcc) were looked for in the kernel's code and not found")]
    NoPadding {
        /// Bytes that were looked for.
        bytes: usize,
    },
}

/// The byte with which functions are padded.
const PADDING: u8 = 0xCC;
/// Bytes of padding that remain before and after a hook's code.
const MARGIN: usize = 16;
/// Most bytes from the start of an exception entry to `cld; call error_entry`.
const ENTRY_BYTES_MAX: usize = 32;
/// Most bytes from a kernel's first instruction to its first setting of CR4.
const HEAD_BYTES_MAX: usize = 4096;
/// Most bytes of a function that are searched for an instruction.
const FUNCTION_BYTES_MAX: usize = 512;
/// CR4 bits: time-stamp counter disabled at CPL3 (TSD); page-size extension (PSE) and physical-address
/// extension (PAE), of which a kernel sets one first.
const CR4_TSD: u32 = 1 << 2;
const CR4_PSE: u32 = 1 << 4;
const CR4_PAE: u32 = 1 << 5;
/// `jmp rel32` and `call rel32`.
const JMP: u8 = 0xE9;
const CALL: u8 = 0xE8;
/// Bytes of each of the two.
const BRANCH_BYTES: usize = 5;
const CLD: u8 = 0xFC;
const NOP: u8 = 0x90;
const RET: u8 = 0xC3;
const ENDBR64: [u8; 4] = [0xF3, 0x0F, 0x1E, 0xFA];
/// Selectors of flat 64-bit and 32-bit user code (`__USER_CS`, `__USER32_CS`).
const USER_CS: u8 = 0x33;
const USER32_CS: u8 = 0x23;
/// User addresses are below this power of two.
const USER_ADDRESS_BITS: u8 = 47;

/// Bytes to write, by their offset in the file. They are written only when all of them are known, so that
/// a trap is installed completely or not at all.
#[derive(Default)]
struct Edits(Vec<(usize, Vec<u8>)>);

impl Edits {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0.push((at, bytes.to_vec()));
    }

    fn write(self, bytes: &mut [u8]) {
        for (at, new) in self.0 {
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
    }
}

/// Makes RDTSC and RDTSCP at CPL3 fault and answers the fault from the log: CR4.TSD is set in the first
/// instructions, the kernel no longer clears it, and a hook is installed in the #GP entry.
///
/// A process may request that RDTSC be refused (`PR_SET_TSC`), and seccomp does. The kernel then toggles
/// CR4.TSD on a switch between tasks whose settings differ. So no task may change the setting: the answer
/// to the request is -EINVAL, as on a machine without a time-stamp counter.
pub(super) fn trap_user_tsc(bytes: &mut [u8], elf: &Elf) -> Result<[Hook; 5], Misfit> {
    let mut edits = Edits::default();
    let gp = install(bytes, elf, &mut edits, "asm_exc_general_protection", user_tsc())?;
    let cr4 = set_tsd(bytes, elf, &mut edits)?;
    let kept = keep_tsd(bytes, elf, &mut edits)?;
    // mov eax, -EINVAL; ret
    let refused = [0xB8, 0xEA, 0xFF, 0xFF, 0xFF, RET];
    let modes = [
        replace_body(bytes, elf, &mut edits, "set_tsc_mode", &refused)?,
        replace_body(bytes, elf, &mut edits, "disable_TSC", &[RET])?,
    ];
    edits.write(bytes);
    let [set_mode, disable] =
        modes.map(|hook| Hook { what: "no process can change CR4.TSD", ..hook });
    let gp = Hook { what: "user rdtsc and rdtscp answered from the log", ..gp };
    Ok([cr4, kept, set_mode, disable, gp])
}

/// Returns the hook code that answers a #GP caused by a user's RDTSC or RDTSCP.
///
/// It reads the instruction at RIP in the user's address space, where a page fault would be fatal. So it
/// reads only bytes that are known to be mapped: RIP must be an address that a user can have; the first
/// byte was fetched; and each byte that is read shows whether another one was fetched. Code in a segment
/// with a base is not supported.
fn user_tsc() -> Code {
    let mut code = Code::default();
    // Everything else is handled by the kernel itself.
    code.put(&[0x66, 0x83, 0x7C, 0x24, 0x10, USER_CS]); // cmp word [rsp+0x10], __USER_CS
    let wide = code.short(0x74); // je on
    code.put(&[0x66, 0x83, 0x7C, 0x24, 0x10, USER32_CS]); // cmp word [rsp+0x10], __USER32_CS
    let kernel = code.short(0x75); // jne original
    code.land(wide);
    code.put(&[0x50]); // push rax
    code.put(&[0x48, 0x8B, 0x44, 0x24, 0x10]); // mov rax, [rsp+0x10]
    code.put(&[0x48, 0xC1, 0xE8, USER_ADDRESS_BITS]); // shr rax, 47
    let not_user_address = code.short(0x75); // jnz not_ours
    code.put(&[0x48, 0x8B, 0x44, 0x24, 0x10]); // mov rax, [rsp+0x10]
    code.put(&[0x80, 0x38, 0x0F]); // cmp byte [rax], 0x0F: a second byte follows
    let single = code.short(0x75); // jne not_ours
    code.put(&[0x80, 0x78, 0x01, 0x31]); // cmp byte [rax+1], second byte of rdtsc
    let is_rdtsc = code.short(0x74); // je answer
    code.put(&[0x80, 0x78, 0x01, 0x01]); // cmp byte [rax+1], of rdtscp: a third byte follows
    let other = code.short(0x75); // jne not_ours
    code.put(&[0x80, 0x78, 0x02, 0xF9]); // cmp byte [rax+2], last byte of rdtscp
    let another = code.short(0x75); // jne not_ours
    code.put(&[0x31, 0xC9]); // xor ecx, ecx: processor 0
    code.put(&[0x48, 0x83, 0x44, 0x24, 0x10, 0x01]); // add qword [rsp+0x10], 1
    code.land(is_rdtsc);
    code.put(&[0x48, 0x83, 0x44, 0x24, 0x10, 0x02]); // add qword [rsp+0x10], 2
    code.put(&[0xE5, TIME_STAMP_PORT]); // in eax, port: EAX and EDX
    code.put(&[0x48, 0x83, 0xC4, 0x10]); // add rsp, 16: rax and the error code
    code.put(&[0x48, 0xCF]); // iretq
    for not_ours in [not_user_address, single, other, another] {
        code.land(not_ours);
    }
    code.put(&[0x58]); // pop rax
    code.land(kernel);
    code
}

/// Installs the hook for a SYSCALL that left the processor at CPL3. The fetch of the handler's first
/// instruction then faults, and the hook in the #PF entry, which runs at CPL0, continues where the
/// handler would have begun.
///
/// A user can reach it by a jump as well, with arbitrary RFLAGS in R11, which SYSRET loads. So the hook
/// sets IOPL to 0 and IF to 1, as they are at every SYSCALL.
pub(super) fn syscall_from_cpl3(bytes: &mut [u8], elf: &Elf) -> Result<Hook, Misfit> {
    const HANDLER: &str = "entry_SYSCALL_64";
    let handler = elf.code.address_of(bytes, HANDLER).ok_or(Misfit::NoSymbol(HANDLER))?;
    let mut code = Code::default();
    code.put(&[0x48, 0x81, 0x7C, 0x24, 0x08]); // cmp qword [rsp+8], handler
    code.put(&(handler as u32).to_le_bytes());
    let other = code.short(0x75); // jne original
    code.put(&[CLD]);
    code.put(&[0x49, 0x0F, 0xBA, 0xF3, 12]); // btr r11, 12: IOPL
    code.put(&[0x49, 0x0F, 0xBA, 0xF3, 13]); // btr r11, 13
    code.put(&[0x49, 0x0F, 0xBA, 0xEB, 9]); // bts r11, 9: IF
    code.put(&[0x48, 0x8B, 0x64, 0x24, 0x20]); // mov rsp, [rsp+0x20]: as SYSCALL leaves it
    code.jump(JMP, handler);
    code.land(other);
    let mut edits = Edits::default();
    let hook = install(bytes, elf, &mut edits, "asm_exc_page_fault", code)?;
    edits.write(bytes);
    Ok(Hook { what: "SYSCALL that arrives at CPL3 continues at CPL0", ..hook })
}

/// Writes `code`, followed by the instructions that it displaces, into padding, and makes the entry
/// `symbol` jump there.
fn install(
    bytes: &[u8],
    elf: &Elf,
    edits: &mut Edits,
    symbol: &'static str,
    mut code: Code,
) -> Result<Hook, Misfit> {
    let entry = Place::of_symbol(bytes, elf, symbol, ENTRY_BYTES_MAX)?;
    let (at, target) = error_entry_call(&entry)?;
    let address = entry.address.wrapping_add(at as u64);
    // The displaced instructions: cld; call error_entry; then the jump back.
    code.put(&[CLD]);
    code.jump(CALL, target);
    code.jump(JMP, address.wrapping_add(6));
    let (room, room_address) = padding(bytes, elf, code.bytes.len())?;
    edits.put(room, &code.linked_at(room_address));
    let [a, b, c, d] = relative(address.wrapping_add(BRANCH_BYTES as u64), room_address);
    edits.put(entry.start + at, &[JMP, a, b, c, d, NOP]);
    Ok(Hook { what: "", symbol, address, code: Some(room_address) })
}

/// Code in which a pattern is looked for.
struct Place<'a> {
    symbol: &'static str,
    /// Virtual address of the first byte.
    address: u64,
    /// Offset of the first byte in the file.
    start: usize,
    code: &'a [u8],
}

impl<'a> Place<'a> {
    /// Returns up to `bytes_max` bytes of code that begin at `symbol`.
    fn of_symbol(
        bytes: &'a [u8],
        elf: &Elf,
        symbol: &'static str,
        bytes_max: usize,
    ) -> Result<Self, Misfit> {
        let address = elf.code.address_of(bytes, symbol).ok_or(Misfit::NoSymbol(symbol))?;
        let start = elf.code.file_offset(address).ok_or(Misfit::NotCode { symbol, address })?;
        let code = &bytes[start..bytes.len().min(start + bytes_max)];
        Ok(Self { symbol, address, start, code })
    }

    fn decoder(&self) -> Decoder<'a> {
        Decoder::with_ip(64, self.code, self.address, DecoderOptions::NONE)
    }

    fn not_found(&self, wanted: &'static str) -> Misfit {
        let Self { symbol, address, code, .. } = *self;
        Misfit::NotFound { wanted, symbol, address, bytes: code.len() }
    }
}

/// Finds `cld; call rel32` after ENDBR, CLAC or NOPs. Returns its offset in `entry` and the call's target.
fn error_entry_call(entry: &Place<'_>) -> Result<(usize, u64), Misfit> {
    let misfit = || entry.not_found("cld; call rel32 after only endbr64, clac and nop");
    let mut decoder = entry.decoder();
    while decoder.can_decode() {
        let at = decoder.position();
        let instruction = decoder.decode();
        match instruction.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Clac | Mnemonic::Nop => {}
            Mnemonic::Cld => {
                let call = decoder.decode();
                let is_call = call.mnemonic() == Mnemonic::Call && call.len() == 5;
                return match is_call && instruction.len() == 1 {
                    true => Ok((at, call.near_branch_target())),
                    false => Err(misfit()),
                };
            }
            _ => break,
        }
    }
    Err(misfit())
}

/// Finds `length` bytes of padding. Returns their offset in the file and their virtual address.
fn padding(bytes: &[u8], elf: &Elf, length: usize) -> Result<(usize, u64), Misfit> {
    let wanted = (length + 2 * MARGIN).next_multiple_of(16);
    for piece in &elf.code.pieces {
        let code = &bytes[piece.file.clone()];
        let free = |at: &usize| {
            code.get(*at..*at + wanted).is_some_and(|room| room.iter().all(|&b| b == PADDING))
        };
        if let Some(at) = (0..code.len()).step_by(16).find(free) {
            let at = at + MARGIN;
            return Ok((piece.file.start + at, piece.address + at as u64));
        }
    }
    Err(Misfit::NoPadding { bytes: wanted })
}

/// Adds TSD to the kernel's first setting of CR4.
///
/// Linux 6.1 loads a constant in its first instructions. Linux 6.12 and later ones keep some of the bits
/// that the boot loader has set, at `common_startup_64`:
///
/// ```text
/// 6.1     or ecx, PAE|...     becomes   or ecx, PAE|TSD|...
///         (more `or`s)
///         mov cr4, rcx
/// 6.12    and ecx, edx
///         bts ecx, 4 (PSE)    becomes   or ecx, PSE|TSD; nop
///         mov cr4, rcx
/// ```
fn set_tsd(bytes: &[u8], elf: &Elf, edits: &mut Edits) -> Result<Hook, Misfit> {
    const COMMON: &str = "common_startup_64";
    let head = match Place::of_symbol(bytes, elf, COMMON, HEAD_BYTES_MAX) {
        Err(Misfit::NoSymbol(_)) => first_code(bytes, elf)?,
        place => place?,
    };
    let misfit = || head.not_found("or r32, PAE or bts r32, 4 (PSE) before mov cr4, r64");
    let mut decoder = head.decoder();
    let mut candidate: Option<(usize, Instruction)> = None;
    while decoder.can_decode() {
        let at = decoder.position();
        let instruction = decoder.decode();
        if is_or_of_pae(&instruction) || is_bts_of_pse(&instruction) {
            candidate = Some((at, instruction));
        } else if instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_register() == Register::CR4
        {
            let (at, first) = candidate.ok_or_else(misfit)?;
            if first.op0_register().full_register() != instruction.op1_register().full_register() {
                return Err(misfit());
            }
            let file_at = head.start + at;
            if first.mnemonic() == Mnemonic::Or {
                // The immediate is the instruction's last four bytes.
                let immediate = file_at + first.len() - 4;
                let value = u32_at(bytes, immediate) | CR4_TSD;
                edits.put(immediate, &value.to_le_bytes());
            } else if first.next_ip() == instruction.ip() {
                // bts r32, 4 is 0F BA /5 ib; or r32, imm8 is 83 /1 ib. The flags differ, and nothing
                // reads them: the next instruction is the load of CR4.
                let register = head.code[at + 2] & 7;
                edits.put(file_at, &[0x83, 0xC8 | register, (CR4_PSE | CR4_TSD) as u8, NOP]);
            } else {
                return Err(misfit());
            }
            let what = "CR4.TSD set with the first setting of CR4";
            return Ok(Hook { what, symbol: head.symbol, address: first.ip(), code: None });
        }
    }
    Err(misfit())
}

/// Returns the code at the kernel's entry, at which its symbol table has several symbols.
fn first_code<'a>(bytes: &'a [u8], elf: &Elf) -> Result<Place<'a>, Misfit> {
    let symbol = "startup_64";
    let not_code = Misfit::NotCode { symbol, address: elf.entry };
    let segment = elf.segments.iter().find(|s| (s.physical..s.end()).contains(&elf.entry));
    let segment = segment.ok_or(not_code.clone())?;
    let offset = elf.entry - segment.physical;
    let start = segment.file.start + offset as usize;
    let end = segment.file.end.min(start.saturating_add(HEAD_BYTES_MAX));
    let code = bytes.get(start..end).ok_or(not_code)?;
    Ok(Place { symbol, address: segment.address.wrapping_add(offset), start, code })
}

/// Keeps TSD set in `cpu_init`, which clears the CR4 bits that a boot loader may have left (VME, PVI,
/// TSD, DE).
fn keep_tsd(bytes: &[u8], elf: &Elf, edits: &mut Edits) -> Result<Hook, Misfit> {
    const CLEARED: u32 = 0b1111;
    let symbol = "cpu_init";
    let place = Place::of_symbol(bytes, elf, symbol, FUNCTION_BYTES_MAX)?;
    let mut decoder = place.decoder();
    while decoder.can_decode() {
        let at = decoder.position();
        let instruction = decoder.decode();
        let is_mask = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Immediate32
            && instruction.immediate32() == CLEARED;
        if is_mask {
            let immediate = place.start + at + instruction.len() - 4;
            edits.put(immediate, &(CLEARED & !CR4_TSD).to_le_bytes());
            let what = "CR4.TSD not cleared with the other bits";
            return Ok(Hook { what, symbol, address: instruction.ip(), code: None });
        }
    }
    Err(place.not_found("mov r32, 0xf (VME, PVI, TSD and DE)"))
}

/// Replaces the body of the function `symbol` by `code`, after the instructions that a kernel may expect
/// at its start.
fn replace_body(
    bytes: &[u8],
    elf: &Elf,
    edits: &mut Edits,
    symbol: &'static str,
    code: &[u8],
) -> Result<Hook, Misfit> {
    let mut place = Place::of_symbol(bytes, elf, symbol, FUNCTION_BYTES_MAX)?;
    // The body ends at the next function at the latest.
    let end = place.address.saturating_add(place.code.len() as u64);
    let next = elf.code.symbols_in(place.address.saturating_add(1)..end).first();
    if let Some(next) = next {
        place.code = &place.code[..(next.address - place.address) as usize];
    }
    let mut body = 0;
    if place.code.starts_with(&ENDBR64) {
        body += ENDBR64.len();
    }
    // Skip a call for function tracing, or the no-operation that reserves its place.
    let ip = place.address.wrapping_add(body as u64);
    let first = Decoder::with_ip(64, &place.code[body..], ip, DecoderOptions::NONE).decode();
    let is_tracing = match first.mnemonic() {
        Mnemonic::Call => {
            elf.code.address_of(bytes, "__fentry__") == Some(first.near_branch_target())
        }
        Mnemonic::Nop => true,
        _ => false,
    };
    if is_tracing && first.len() == BRANCH_BYTES {
        body += BRANCH_BYTES;
    }
    if body + code.len() > place.code.len() {
        return Err(place.not_found("room for a function that returns at once"));
    }
    edits.put(place.start + body, code);
    let address = place.address.wrapping_add(body as u64);
    Ok(Hook { what: "", symbol, address, code: None })
}

fn is_or_of_pae(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Or
        && matches!(instruction.op1_kind(), OpKind::Immediate32 | OpKind::Immediate32to64)
        && instruction.op0_kind() == OpKind::Register
        && instruction.immediate32() & (CR4_PAE | 0xFFFF_FF00) == CR4_PAE
}

/// Whether it is `bts r32, 4`, of four bytes.
fn is_bts_of_pse(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Bts
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Immediate8
        && 1u64 << (instruction.immediate8() & 63) == u64::from(CR4_PSE)
        && instruction.len() == 4
}

/// Returns the displacement of a jump or call to `to` whose instruction ends at `from`.
pub(super) fn relative(from: u64, to: u64) -> [u8; 4] {
    (to.wrapping_sub(from) as u32).to_le_bytes()
}

/// Machine code under construction. Jumps out of it depend on the address at which it will run.
#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    /// Offset of a `rel32` and its target.
    far: Vec<(usize, u64)>,
}

/// A short jump within the code whose target is not known yet.
struct Short(usize);

impl Code {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn short(&mut self, opcode: u8) -> Short {
        self.put(&[opcode, 0]);
        Short(self.bytes.len() - 1)
    }

    /// Makes `from` jump to the current end of the code.
    #[expect(clippy::needless_pass_by_value, reason = "a jump lands once")]
    fn land(&mut self, from: Short) {
        let distance = self.bytes.len() - from.0 - 1;
        self.bytes[from.0] = i8::try_from(distance).expect("hooks are short").cast_unsigned();
    }

    fn jump(&mut self, opcode: u8, to: u64) {
        self.put(&[opcode]);
        self.far.push((self.bytes.len(), to));
        self.put(&[0; 4]);
    }

    fn linked_at(self, address: u64) -> Vec<u8> {
        let Self { mut bytes, far } = self;
        for (at, to) in far {
            let from = address.wrapping_add(at as u64 + 4);
            bytes[at..at + 4].copy_from_slice(&relative(from, to));
        }
        bytes
    }
}
