//! The symbols inside a kernel: Linux carries its own table, compressed, for its own messages.
//!
//! A distribution's kernel is stripped, and its `System.map` is a stub; what is left is `kallsyms`
//! (`kernel/kallsyms.c`, written by `scripts/kallsyms.c`): tables in read-only data that only other
//! tables point to. They are found by what they must look like, each confirmed by the next:
//!
//! ```text
//! token_table   256 strings, of which "0".."9" stand at their own codes
//! token_index   256 offsets of these strings, right behind     -- confirms token_table
//! markers       offsets of every 256th name, before that; some kernels have three bytes for each
//!               name in between (`seqs_of_names`)
//! names         length and tokens of every name, before that   -- must fall on every marker
//! num_syms      their number, before that
//! offsets       one address each: before their number until Linux 6.3, behind token_index since
//! ```
//!
//! Whatever does not fit makes the search go on; a kernel without the tables has no symbols here.

use crate::boot::elf::{u16_at, u32_at, u64_at};

/// Names between two markers.
const MARKED: usize = 256;
/// Symbols believed; a distribution's kernel has about two hundred thousand.
const SYMBOLS_MIN: u64 = 256;
const SYMBOLS_MAX: u64 = 1 << 20;
/// Most bytes between the number of names and the token table.
const TABLES_BYTES_MAX: usize = 32 << 20;
/// Most bytes of a name (KSYM_NAME_LEN is 512).
const NAME_BYTES_MAX: usize = 512;
/// Most token tables believed in one file, and bytes of all names in one of them (a distribution's
/// kernel has about five million).
const TABLES_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 32 << 20;
/// Most steps of the search in one file.
const STEPS_MAX: usize = 1 << 26;
/// Lowest address of the kernel's image (`__START_KERNEL_map`).
const KERNEL_MIN: u64 = 0xFFFF_FFFF_8000_0000;

/// A symbol: its address, its kind as nm(1) letters it, its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kallsym {
    pub(super) address: u64,
    pub(super) kind: u8,
    pub(super) name: String,
}

/// All symbols of a kernel's ELF file, in its order; empty if its tables are not found.
pub(super) fn find(bytes: &[u8]) -> Vec<Kallsym> {
    search(bytes, &mut Effort { steps: STEPS_MAX }).unwrap_or_default()
}

/// What may still be spent on the search. Names of a kernel are worth much, but not any time.
struct Effort {
    steps: usize,
}

impl Effort {
    /// `None` when it is spent.
    fn spend(&mut self, steps: usize) -> Option<()> {
        self.steps = self.steps.checked_sub(steps)?;
        Some(())
    }
}

fn search(bytes: &[u8], effort: &mut Effort) -> Option<Vec<Kallsym>> {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
    let mut from = 0;
    let mut tables = 0;
    while let Some(at) = find_bytes(&bytes[from..], &digits).map(|at| at + from) {
        if let Some(tokens) = Tokens::around(bytes, at, effort) {
            if let Some(symbols) = tokens.symbols(bytes, effort) {
                return Some(symbols);
            }
            tables += 1;
            if tables == TABLES_MAX {
                return None;
            }
        }
        effort.spend(1)?;
        from = at + 1;
    }
    None
}

fn find_bytes(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The token table and its index.
struct Tokens {
    table: usize,
    index: usize,
}

impl Tokens {
    /// The table that has the string "0" at `zero`.
    fn around(bytes: &[u8], zero: usize, effort: &mut Effort) -> Option<Self> {
        let mut table = zero;
        for _token in 0..b'0' {
            let end = table.checked_sub(1)?;
            let earliest = end.saturating_sub(NAME_BYTES_MAX);
            let before = bytes[earliest..end].iter().rposition(|&byte| byte == 0);
            effort.spend(end - before.map_or(earliest, |at| earliest + at))?;
            table = earliest + before? + 1;
        }
        let mut at = table;
        let mut offsets = [0; 256];
        for offset in &mut offsets {
            *offset = at - table;
            let token = &bytes[at..bytes.len().min(at + NAME_BYTES_MAX)];
            let length = token.iter().position(|&byte| byte == 0);
            effort.spend(length.unwrap_or(token.len()) + 1)?;
            at += length? + 1;
        }
        let index = at.next_multiple_of(8);
        let words = bytes.get(index..index + 512)?;
        let fits = offsets.iter().enumerate().all(|(i, &o)| usize::from(u16_at(words, 2 * i)) == o);
        fits.then_some(Self { table, index })
    }

    fn token<'a>(&self, bytes: &'a [u8], code: u8) -> &'a [u8] {
        let start = self.table + usize::from(u16_at(bytes, self.index + 2 * usize::from(code)));
        let end = bytes[start..].iter().position(|&byte| byte == 0).unwrap_or(0);
        &bytes[start..start + end]
    }

    fn symbols(&self, bytes: &[u8], effort: &mut Effort) -> Option<Vec<Kallsym>> {
        let names = Names::before(bytes, self.table, effort)?;
        let addresses = addresses(bytes, self, &names)?;
        let mut symbols = Vec::with_capacity(names.count);
        let mut at = names.start;
        let mut text_bytes = 0;
        for address in addresses {
            let (length, data) = name_length(bytes, at)?;
            at = data + length;
            let mut text = Vec::new();
            for &code in bytes.get(data..at)? {
                text.extend_from_slice(self.token(bytes, code));
                if text.len() > NAME_BYTES_MAX {
                    return None;
                }
            }
            text_bytes += text.len();
            if text_bytes > TEXT_BYTES_MAX {
                return None;
            }
            let (&kind, name) = text.split_first()?;
            symbols.push(Kallsym { address, kind, name: String::from_utf8_lossy(name).into() });
        }
        Some(symbols)
    }
}

/// The names, and how many there are.
struct Names {
    /// Where their number stands.
    count_at: usize,
    count: usize,
    start: usize,
}

impl Names {
    /// The names whose markers end before the token table: tried are all numbers that stand before it.
    fn before(bytes: &[u8], table: usize, effort: &mut Effort) -> Option<Self> {
        let latest = table.checked_sub(8)? & !7;
        let earliest = latest.saturating_sub(TABLES_BYTES_MAX);
        for count_at in (earliest..=latest).rev().step_by(8) {
            effort.spend(1)?;
            let count = u64_at(bytes, count_at);
            if !(SYMBOLS_MIN..=SYMBOLS_MAX).contains(&count) {
                continue;
            }
            let count = count as usize;
            let names = Self { count_at, count, start: count_at + 8 };
            let sequences = (3 * count).next_multiple_of(8);
            let markers_bytes = (4 * count.div_ceil(MARKED)).next_multiple_of(8);
            for between in [0, sequences] {
                let markers = table.checked_sub(between + markers_bytes);
                if markers.is_some_and(|markers| names.falls_on(bytes, markers, effort)) {
                    return Some(names);
                }
            }
        }
        None
    }

    /// Whether every 256th name begins where the table at `markers` says.
    fn falls_on(&self, bytes: &[u8], markers: usize, effort: &mut Effort) -> bool {
        let mut at = self.start;
        if markers <= at || u32_at(bytes, markers) != 0 {
            return false;
        }
        for number in 0..self.count {
            let marker = markers + 4 * (number / MARKED);
            if effort.spend(1).is_none() {
                return false;
            }
            if number % MARKED == 0 && at - self.start != u32_at(bytes, marker) as usize {
                return false;
            }
            match name_length(bytes, at) {
                Some((length, data)) if length > 0 && data + length <= markers => {
                    at = data + length;
                }
                _ => return false,
            }
        }
        true
    }
}

/// The length of the name at `at` and where its tokens begin. Since Linux 6.1 a length of 128 and
/// more takes two bytes.
fn name_length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    match *bytes.get(at)? {
        length if length & 0x80 == 0 => Some((usize::from(length), at + 1)),
        low => {
            let high = usize::from(*bytes.get(at + 1)?);
            Some((usize::from(low & 0x7F) | high << 7, at + 2))
        }
    }
}

/// One address for each name.
fn addresses(bytes: &[u8], tokens: &Tokens, names: &Names) -> Option<Vec<u64>> {
    let table_bytes = (4 * names.count).next_multiple_of(8);
    let before = names.count_at.checked_sub(8).map(|base| (base.checked_sub(table_bytes), base));
    let behind = (tokens.index + 512).next_multiple_of(8);
    let layouts = [before, Some((Some(behind), behind + table_bytes))];
    layouts.into_iter().flatten().find_map(|(offsets, base)| {
        let base = bytes.get(base..base + 8).map(|word| u64_at(word, 0))?;
        let offsets = bytes.get(offsets?..)?.get(..4 * names.count)?;
        if base < KERNEL_MIN || base == u64::MAX {
            return None;
        }
        let offsets = || offsets.chunks_exact(4).map(|word| u32_at(word, 0).cast_signed());
        // With CONFIG_KALLSYMS_ABSOLUTE_PERCPU what is not negative is an address by itself.
        let absolute = offsets().any(|offset| offset < 0);
        let address = |offset: i32| match (absolute, offset) {
            (true, 0..) => u64::from(offset.cast_unsigned()),
            (true, _) => base.wrapping_sub(1).wrapping_sub(i64::from(offset).cast_unsigned()),
            (false, _) => base.wrapping_add(u64::from(offset.cast_unsigned())),
        };
        Some(offsets().map(address).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_ends_where_every_table_looks_sound_and_none_is() {
        // Token tables with their index, each a kernel's own, with nothing but counts before.
        let mut table = Vec::new();
        let mut offsets = Vec::new();
        for code in 0..=255u8 {
            offsets.extend((table.len() as u16).to_le_bytes());
            table.extend([if code.is_ascii_digit() { code } else { b'x' }, 0]);
        }
        table.extend(offsets);
        let counts = 300u64.to_le_bytes().repeat(1 << 16);
        let mut bytes = [0; 8].to_vec();
        for _ in 0..40 {
            bytes.extend(&counts);
            bytes.extend(&table);
        }
        let mut effort = Effort { steps: STEPS_MAX };
        assert_eq!(search(&bytes, &mut effort), None);
        // The tables after the sixteenth were not tried.
        let before: usize =
            (1..=TABLES_MAX).map(|tables| tables * (counts.len() + table.len())).sum();
        let spent = STEPS_MAX - effort.steps;
        assert!(spent <= before / 8 * 4, "{spent} steps");
        assert_eq!(search(&bytes, &mut Effort { steps: 1000 }), None);
    }

    #[test]
    fn search_of_nothing_but_marks_is_bounded() {
        let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
        let bytes = digits.repeat(1 << 18);
        let mut effort = Effort { steps: 1 << 20 };
        assert_eq!(search(&bytes, &mut effort), None);
        assert!(effort.steps < 1000, "all of it was used: {} are left", effort.steps);
    }
}
