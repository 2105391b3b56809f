//! The executable code of an ELF file and its symbols.
//!
//! Sections delimit code more exactly than segments, so they are preferred. In a file without section
//! headers the executable segments are the code. The rules of [`elf`](super::elf) apply: every range is
//! inside the file, and every count has a limit.

use std::ops::Range;

use crate::boot::elf::{FILE_BYTES_MAX, Segment, file_range, u16_at, u32_at, u64_at};
use crate::boot::image::ImageFault;

/// Most section headers; a kernel has about eighty.
pub(super) const SECTIONS_MAX: usize = 4096;
/// Most symbols read; a kernel has about two hundred thousand. Code at further symbols is only reported
/// without a name.
const SYMBOLS_MAX: usize = 1 << 21;
/// Most bytes of a symbol's name in a message.
const SYMBOL_NAME_BYTES_MAX: usize = 128;

/// Bytes at the end of the address space that must not hold code, so that the end of every instruction is
/// a valid address.
const TOP_BYTES: u64 = 16;

const SHDR_BYTES: usize = 64;
const SYM_BYTES: usize = 24;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOBITS: u32 = 8;
const SHF_WRITE: u64 = 1;
const SHF_EXECINSTR: u64 = 4;
const SHN_UNDEF: u16 = 0;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;

/// A range of executable bytes in the file and the virtual address at which it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) file: Range<usize>,
    pub(super) address: u64,
    /// Whether it is a section that the program may write, too.
    writable: bool,
}

impl Code {
    fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|at| at < self.file.len() as u64)
    }
}

/// A symbol in executable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Symbol {
    /// Virtual address.
    pub(super) address: u64,
    /// True for `STT_FUNC`: an instruction begins here.
    pub(super) function: bool,
    /// Offset of the name in the file.
    name: usize,
}

/// The executable code of an ELF file.
#[derive(Debug, Clone)]
pub(super) struct CodeMap {
    /// Executable sections in the order of their addresses, or executable segments if there are no such
    /// sections.
    pub(super) pieces: Vec<Code>,
    /// Symbols of executable code, sorted by address.
    symbols: Vec<Symbol>,
    /// Range of the symbols' names in the file, or in `own_names`.
    names: Range<usize>,
    /// Names that are not in the file as text, set by [`CodeMap::set_symbols`].
    own_names: Option<Vec<u8>>,
}

impl CodeMap {
    /// Reads the section headers and symbols of `bytes`, whose segments have been read already.
    pub(super) fn parse(bytes: &[u8], segments: &[Segment]) -> Result<Self, ImageFault> {
        let sections = sections(bytes)?;
        let pieces = code(segments, &sections)?;
        let (symbols, names) = symbols(bytes, &sections);
        Ok(Self { pieces, symbols, names, own_names: None })
    }

    /// Removes sections that are writable, and their symbols.
    pub(super) fn remove_writable(&mut self) {
        self.pieces.retain(|piece| !piece.writable);
        let pieces = &self.pieces;
        self.symbols.retain(|symbol| pieces.iter().any(|piece| piece.contains(symbol.address)));
    }

    /// Replaces the symbols of the file's symbol table. Symbols outside code are left out. An instruction
    /// must begin at each symbol.
    pub(super) fn set_symbols<'a>(&mut self, symbols: impl Iterator<Item = (u64, &'a str)>) {
        let mut names = Vec::new();
        self.symbols.clear();
        for (address, name) in symbols {
            if self.pieces.iter().any(|piece| piece.contains(address)) {
                self.symbols.push(Symbol { address, function: true, name: names.len() });
                names.extend(name.bytes().chain([0]));
            }
        }
        self.symbols.sort_unstable();
        self.names = 0..names.len();
        self.own_names = Some(names);
    }

    /// Returns the address of the symbol `name`.
    pub(super) fn address_of(&self, bytes: &[u8], name: &str) -> Option<u64> {
        let names = self.own_names.as_deref().unwrap_or(bytes);
        let is = |symbol: &&Symbol| {
            let tail = names.get(symbol.name..self.names.end).unwrap_or_default();
            tail.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        };
        self.symbols.iter().find(is).map(|symbol| symbol.address)
    }

    /// Returns the offset in the file of the code at virtual `address`.
    pub(super) fn file_offset(&self, address: u64) -> Option<usize> {
        self.pieces.iter().find_map(|piece| {
            let at = usize::try_from(address.checked_sub(piece.address)?).ok()?;
            (at < piece.file.len()).then_some(piece.file.start + at)
        })
    }

    /// Returns the symbols with an address in `range`, in the order of their addresses.
    pub(super) fn symbols_in(&self, range: Range<u64>) -> &[Symbol] {
        let start = self.symbols.partition_point(|symbol| symbol.address < range.start);
        let end = self.symbols.partition_point(|symbol| symbol.address < range.end);
        &self.symbols[start..end.max(start)]
    }

    /// Returns a symbol's name, escaped for one line of output.
    pub(super) fn symbol_name(&self, bytes: &[u8], symbol: &Symbol) -> String {
        let names = self.own_names.as_deref().unwrap_or(bytes);
        let tail = names.get(symbol.name..self.names.end).unwrap_or_default();
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

/// Returns the section `name` of a file whose headers have been read already: its range in the file and
/// the virtual address of its first byte.
pub(super) fn section(bytes: &[u8], name: &str) -> Option<(Range<usize>, u64)> {
    let sections = sections(bytes).ok()?;
    let headers = u64_at(bytes, 40) as usize;
    let names = sections.get(usize::from(u16_at(bytes, 62)))?.file.clone();
    let index = (0..sections.len()).find(|index| {
        let at = names.start.saturating_add(u32_at(bytes, headers + index * SHDR_BYTES) as usize);
        let tail = bytes.get(at..names.end).unwrap_or_default();
        tail.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    })?;
    Some((sections[index].file.clone(), sections[index].address))
}

/// Returns the executable code of the file. Its total length must not exceed that of the largest file, so
/// that headers which name the same bytes repeatedly cannot make a sweep endless.
fn code(segments: &[Segment], sections: &[Section]) -> Result<Vec<Code>, ImageFault> {
    let of_sections = sections
        .iter()
        .filter(|section| section.flags & SHF_EXECINSTR != 0 && !section.file.is_empty())
        .map(|section| Code {
            file: section.file.clone(),
            address: section.address,
            writable: section.flags & SHF_WRITE != 0,
        });
    let mut code: Vec<Code> = of_sections.collect();
    if code.is_empty() {
        let executable = segments.iter().filter(|s| s.executable && !s.file.is_empty());
        let of_segment =
            |s: &Segment| Code { file: s.file.clone(), address: s.address, writable: false };
        code = executable.map(of_segment).collect();
    }
    let end = |c: &Code| c.address.checked_add(c.file.len() as u64 + TOP_BYTES);
    if code.iter().any(|c| end(c).is_none()) {
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
