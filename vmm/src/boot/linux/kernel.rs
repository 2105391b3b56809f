//! A Linux kernel: decompressed, made deterministic, ready to be loaded.

use super::bzimage::Bzimage;
use super::pass::{self, PassOptions, PassReport};
use super::{kallsyms, payload};
use crate::boot::elf::Elf;
use crate::boot::image::{ImageError, ImageFault};
use xxhash_rust::xxh3::xxh3_64;

/// A kernel whose instructions have been rewritten and that passed every check that does not depend on
/// the size of guest memory.
#[derive(Debug, Clone)]
pub struct LinuxKernel {
    name: String,
    setup: Bzimage,
    /// The rewritten ELF file, as it is loaded.
    bytes: Vec<u8>,
    elf: Elf,
    digest: u64,
    report: PassReport,
}

impl LinuxKernel {
    /// Decompresses `file`, a bzImage known to the user as `name`, and makes it deterministic. Arbitrary
    /// bytes never cause a panic.
    ///
    /// # Errors
    ///
    /// The file is not a kernel that can be booted here, or cannot be made deterministic; see
    /// [`ImageFault`].
    pub fn from_bytes(name: &str, file: &[u8], options: &PassOptions) -> Result<Self, ImageError> {
        let name = name.escape_debug().to_string();
        Self::read(&name, file, options).map_err(|fault| ImageError { name, fault })
    }

    fn read(name: &str, file: &[u8], options: &PassOptions) -> Result<Self, ImageFault> {
        let setup = Bzimage::parse(file)?;
        let mut bytes = payload::unpack(&file[setup.payload.clone()])?;
        let mut elf = Elf::parse(&bytes)?;
        if !elf.is_in_file(elf.entry) {
            return Err(ImageFault::Malformed { what: "the entry is outside every segment" });
        }
        // Linux 6.18 marks its data as executable, because they contain the code that kexec copies. The
        // kernel maps them as not executable, so what looks like an instruction there is a value.
        elf.code.remove_writable();
        let symbols = kallsyms::find(&bytes, &elf.segments);
        let code = symbols.iter().filter(|symbol| matches!(symbol.kind, b't' | b'T' | b'w' | b'W'));
        elf.code.set_symbols(code.map(|symbol| (symbol.address, symbol.name.as_str())));
        let mut report = pass::rewrite(&mut bytes, &elf, options)?;
        report.symbols = symbols.len() as u64;
        Ok(Self { name: name.to_owned(), setup, bytes, elf, digest: xxh3_64(file), report })
    }

    /// Returns the name given to [`Self::from_bytes`], escaped for one line of output.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the XXH3-64 of the bzImage, which identifies the kernel.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns the report of the determinism pass.
    pub fn report(&self) -> &PassReport {
        &self.report
    }

    /// Returns the physical address of the first instruction, which runs in 64-bit mode.
    pub fn entry(&self) -> u64 {
        self.elf.entry
    }

    /// Returns the least guest memory that the kernel needs, bytes: for itself, and for its start-up
    /// before it has read the memory map.
    pub fn memory_bytes_min(&self) -> u64 {
        let first = self.elf.segments.first().map_or(0, |segment| segment.physical);
        let last = self.elf.segments.last().map_or(0, |segment| segment.end());
        last.max(first.saturating_add(self.setup.init_bytes))
    }

    pub(super) fn setup(&self) -> &Bzimage {
        &self.setup
    }

    pub(super) fn elf(&self) -> &Elf {
        &self.elf
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
