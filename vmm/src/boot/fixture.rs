//! Hand-made ELF files for the tests of this folder.

/// Address at which the text of a fixture is linked and entered.
pub(super) const TEXT_ADDRESS: u64 = 0x10_0000;
/// Bytes of zero-filled memory after the text.
pub(super) const BSS_BYTES: u64 = 0x3000;

/// A function symbol: name and offset in the text.
pub(super) type Function = (&'static str, u64);

/// A linked guest: one executable segment, a PVH note, and optionally sections and symbols.
#[derive(Clone)]
pub(super) struct ElfFixture {
    /// Machine code.
    pub(super) text: Vec<u8>,
    /// Virtual address of the text; its physical address is always [`TEXT_ADDRESS`].
    pub(super) address: u64,
    /// Symbols of the text; `None` for a file without section headers.
    pub(super) functions: Option<Vec<Function>>,
}

impl ElfFixture {
    pub(super) fn new(text: &[u8]) -> Self {
        Self { text: text.to_vec(), address: TEXT_ADDRESS, functions: Some(Vec::new()) }
    }

    pub(super) fn with_functions(text: &[u8], functions: &[Function]) -> Self {
        Self { functions: Some(functions.to_vec()), ..Self::new(text) }
    }

    pub(super) fn without_sections(text: &[u8]) -> Self {
        Self { functions: None, ..Self::new(text) }
    }

    pub(super) fn build(&self) -> Vec<u8> {
        const NOTE_AT: usize = 64 + 2 * 56;
        const TEXT_AT: usize = NOTE_AT + 20;
        let mut file = vec![0; NOTE_AT];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        put16(&mut file, 16, 2);
        put16(&mut file, 18, 62);
        put32(&mut file, 20, 1);
        put64(&mut file, 24, self.address);
        put64(&mut file, 32, 64);
        put16(&mut file, 52, 64);
        put16(&mut file, 54, 56);
        put16(&mut file, 56, 2);
        put16(&mut file, 58, 64);

        let text_bytes = self.text.len() as u64;
        let text_header = [
            (5 << 32) | 1,
            TEXT_AT as u64,
            self.address,
            TEXT_ADDRESS,
            text_bytes,
            text_bytes + BSS_BYTES,
            1,
        ];
        let note_header = [(4 << 32) | 4, NOTE_AT as u64, 0, 0, 20, 20, 4];
        for (at, word) in text_header.into_iter().chain(note_header).enumerate() {
            put64(&mut file, 64 + 8 * at, word);
        }

        for word in [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), TEXT_ADDRESS as u32] {
            file.extend(word.to_le_bytes());
        }
        assert_eq!(file.len(), TEXT_AT);
        file.extend(&self.text);
        if let Some(functions) = &self.functions {
            self.append_sections(&mut file, functions, TEXT_AT as u64);
        }
        file
    }

    /// Sections: 0 null, 1 text, 2 symbols, 3 names.
    fn append_sections(&self, file: &mut Vec<u8>, functions: &[Function], text_at: u64) {
        let (mut symbols, mut names) = (vec![0; 24], vec![0]);
        for (name, offset) in functions {
            let mut symbol = [0; 24];
            put32(&mut symbol, 0, names.len() as u32);
            symbol[4] = 0x12;
            put16(&mut symbol, 6, 1);
            put64(&mut symbol, 8, self.address + offset);
            symbols.extend(symbol);
            names.extend(name.bytes().chain([0]));
        }
        let symbols_at = file.len() as u64;
        file.extend(&symbols);
        let names_at = file.len() as u64;
        file.extend(&names);
        let table_at = file.len() as u64;
        put64(file, 40, table_at);
        put16(file, 60, 4);
        let headers = [
            [0; 8],
            [1 << 32, 6, self.address, text_at, self.text.len() as u64, 0, 1, 0],
            [2 << 32, 0, 0, symbols_at, symbols.len() as u64, 3, 8, 24],
            [3 << 32, 0, 0, names_at, names.len() as u64, 0, 1, 0],
        ];
        for word in headers.into_iter().flatten() {
            file.extend(u64::to_le_bytes(word));
        }
    }
}

/// Overwrites a little-endian field.
pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Overwrites a little-endian field.
pub(super) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Overwrites a little-endian field.
pub(super) fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// A small seeded generator (xorshift64*), so that a failing case can be identified by its seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
