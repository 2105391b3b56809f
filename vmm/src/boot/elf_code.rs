//! What is executable in an ELF file, and what its places are called.
//!
//! Sections say more exactly than segments what is code, so they are preferred; a file without
//! section headers is taken by its executable segments. The rules of [`elf`](super::elf) hold here
//! too: every range is inside the file, every count has a limit.

use std::ops::Range;

use crate::boot::elf::{FILE_BYTES_MAX, Segment, file_range, u16_at, u32_at, u64_at};
use crate::boot::image::ImageFault;

/// Most section headers; a kernel has about eighty.
pub(super) const SECTIONS_MAX: usize = 4096;
/// Most symbols read; a kernel has about two hundred thousand. Later ones only lack a name.
const SYMBOLS_MAX: usize = 1 << 21;
/// Most bytes of a symbol's name in a message.
const SYMBOL_NAME_BYTES_MAX: usize = 128;

const SHDR_BYTES: usize = 64;
const SYM_BYTES: usize = 24;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOBITS: u32 = 8;
const SHF_EXECINSTR: u64 = 4;
const SHN_UNDEF: u16 = 0;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;

/// Executable bytes of the file and the virtual address they run at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) file: Range<usize>,
    pub(super) address: u64,
}

/// A named place in executable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Symbol {
    /// Virtual address.
    pub(super) address: u64,
    /// True for `STT_FUNC`: an instruction begins here.
    pub(super) function: bool,
    /// Offset of the name in the file.
    name: usize,
}

/// The executable places of an ELF file.
#[derive(Debug, Clone)]
pub(super) struct CodeMap {
    /// Executable sections by address, or executable segments where there are no such sections.
    pub(super) pieces: Vec<Code>,
    /// Names of executable places, sorted.
    symbols: Vec<Symbol>,
    /// File range of the symbols' names.
    names: Range<usize>,
}

impl CodeMap {
    /// Reads section headers and symbols of `bytes`, whose segments were read already.
    pub(super) fn parse(bytes: &[u8], segments: &[Segment]) -> Result<Self, ImageFault> {
        let sections = sections(bytes)?;
        let pieces = code(segments, &sections)?;
        let (symbols, names) = symbols(bytes, &sections);
        Ok(Self { pieces, symbols, names })
    }

    /// Symbols with an address in `range`, by address.
    pub(super) fn symbols_in(&self, range: Range<u64>) -> &[Symbol] {
        let start = self.symbols.partition_point(|symbol| symbol.address < range.start);
        let end = self.symbols.partition_point(|symbol| symbol.address < range.end);
        &self.symbols[start..end.max(start)]
    }

    /// A symbol's name, made fit for one line of output.
    pub(super) fn symbol_name(&self, bytes: &[u8], symbol: &Symbol) -> String {
        let tail = bytes.get(symbol.name..self.names.end).unwrap_or_default();
        let tail = &tail[..tail.len().min(SYMBOL_NAME_BYTES_MAX)];
        let end = tail.iter().position(|&byte| byte == 0).unwrap_or(tail.len());
        String::from_utf8_lossy(&tail[..end]).escape_debug().to_string()
    }
}

struct Section {
    kind: u32,
    flags: u64,
    address: u64,
    /// Empty for `SHT_NOBITS`.
    file: Range<usize>,
    link: usize,
}

fn sections(bytes: &[u8]) -> Result<Vec<Section>, ImageFault> {
    let offset = u64_at(bytes, 40);
    let count = usize::from(u16_at(bytes, 60));
    if offset == 0 {
        return Ok(Vec::new());
    }
    // A zero count with a table means 65,280 sections or more (ELF "extended numbering").
    if count == 0 || count > SECTIONS_MAX {
        return Err(ImageFault::TooMany { what: "sections", count, max: SECTIONS_MAX });
    }
    if usize::from(u16_at(bytes, 58)) != SHDR_BYTES {
        return Err(ImageFault::Malformed { what: "section header size" });
    }
    let table = file_range(bytes, offset, (count * SHDR_BYTES) as u64, "section headers")?;
    let mut sections = Vec::with_capacity(count);
    for (index, header) in bytes[table].chunks_exact(SHDR_BYTES).enumerate() {
        let kind = u32_at(header, 4);
        let file = if index == 0 || kind == SHT_NOBITS {
            0..0
        } else {
            file_range(bytes, u64_at(header, 24), u64_at(header, 32), "a section")?
        };
        sections.push(Section {
            kind,
            flags: u64_at(header, 8),
            address: u64_at(header, 16),
            file,
            link: u32_at(header, 40) as usize,
        });
    }
    Ok(sections)
}

/// The executable code of the file. No more bytes in all than a file may have, so that headers
/// which name the same bytes again and again cannot make a sweep endless.
fn code(segments: &[Segment], sections: &[Section]) -> Result<Vec<Code>, ImageFault> {
    let of_sections = sections
        .iter()
        .filter(|section| section.flags & SHF_EXECINSTR != 0 && !section.file.is_empty())
        .map(|section| Code { file: section.file.clone(), address: section.address });
    let mut code: Vec<Code> = of_sections.collect();
    if code.is_empty() {
        let executable = segments.iter().filter(|s| s.executable && !s.file.is_empty());
        code = executable.map(|s| Code { file: s.file.clone(), address: s.address }).collect();
    }
    if code.iter().any(|c| c.address.checked_add(c.file.len() as u64).is_none()) {
        return Err(ImageFault::Malformed { what: "code wraps around the address space" });
    }
    if code.iter().map(|c| c.file.len()).sum::<usize>() > FILE_BYTES_MAX {
        return Err(ImageFault::Malformed { what: "executable sections overlap" });
    }
    code.sort_by_key(|c| c.address);
    Ok(code)
}

fn symbols(bytes: &[u8], sections: &[Section]) -> (Vec<Symbol>, Range<usize>) {
    let Some(table) = sections.iter().find(|section| section.kind == SHT_SYMTAB) else {
        return (Vec::new(), 0..0);
    };
    let Some(names) = sections.get(table.link).filter(|section| section.kind == SHT_STRTAB) else {
        return (Vec::new(), 0..0);
    };
    let names = names.file.clone();
    let mut symbols = Vec::new();
    for symbol in bytes[table.file.clone()].chunks_exact(SYM_BYTES).take(SYMBOLS_MAX) {
        let name = (u32_at(symbol, 0) as usize).saturating_add(names.start);
        let kind = symbol[4] & 0xF;
        let section = u16_at(symbol, 6);
        let executable = section != SHN_UNDEF
            && sections.get(usize::from(section)).is_some_and(|s| s.flags & SHF_EXECINSTR != 0);
        let named = name < names.end && bytes[name] != 0;
        if executable && named && (kind == STT_FUNC || kind == STT_NOTYPE) {
            symbols.push(Symbol { address: u64_at(symbol, 8), function: kind == STT_FUNC, name });
        }
    }
    symbols.sort_unstable();
    (symbols, names)
}
