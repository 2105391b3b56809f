//! The symbols of a kernel: Linux carries its own compressed symbol table for its messages.
//!
//! A distribution's kernel is stripped, and its `System.map` is a stub. What remains is `kallsyms`
//! (`kernel/kallsyms.c`, written by `scripts/kallsyms.c`): tables in read-only data that no header
//! describes. They are found by their structure, and each table confirms another one:
//!
//! ```text
//! token_table   256 strings, of which "0".."9" stand at their own codes
//! token_index   256 offsets of these strings, directly after it  -- confirms token_table
//! markers       offsets of every 256th name, before token_table; some kernels have three bytes for
//!               each name in between (`seqs_of_names`)
//! names         length and tokens of every name, before markers  -- must match every marker
//! num_syms      the number of names, before names
//! offsets       one address each: before num_syms until Linux 6.3, after token_index since
//! ```
//!
//! The tables have one of two forms ([`Form`]): in that of Linux 6.1 to 6.18, each begins at a multiple of
//! eight bytes, and `offsets` are relative to a base address in a table of its own. In that of 7.3, each
//! begins at a multiple of four bytes, and an offset is relative to its own address.
//!
//! If anything does not match, the search continues. A kernel without the tables has no symbols here.

use crate::boot::elf::{Segment, u16_at, u32_at, u64_at};

/// Number of names between two markers.
const MARKED: usize = 256;
/// Least and greatest plausible number of symbols. A distribution's kernel has about two hundred
/// thousand.
const SYMBOLS_MIN: u64 = 256;
const SYMBOLS_MAX: u64 = 1 << 20;
/// Most bytes between the number of names and the token table.
const TABLES_BYTES_MAX: usize = 32 << 20;
/// Most bytes of a name (KSYM_NAME_LEN is 512).
const NAME_BYTES_MAX: usize = 512;
/// Most token tables that are examined in one file, and most bytes of all names that one of them may
/// give. The names of a distribution's kernel have about five million bytes.
const TABLES_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 32 << 20;
/// Most steps of the search in one file.
const STEPS_MAX: usize = 1 << 26;
/// Lowest address of the kernel's image (`__START_KERNEL_map`).
const KERNEL_MIN: u64 = 0xFFFF_FFFF_8000_0000;

/// A symbol: its address, its kind as a letter of nm(1), its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kallsym {
    pub(super) address: u64,
    pub(super) kind: u8,
    pub(super) name: String,
}

/// The form of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Aligned to eight bytes; offsets relative to `kallsyms_relative_base`.
    ToBase,
    /// Aligned to four bytes; offsets relative to their own addresses.
    ToSelf,
}

impl Form {
    const ALL: [Self; 2] = [Self::ToBase, Self::ToSelf];

    /// Alignment of each table, and bytes of the number of names.
    fn alignment(self) -> usize {
        match self {
            Self::ToBase => 8,
            Self::ToSelf => 4,
        }
    }
}

/// Returns all symbols of a kernel's ELF file, which has `segments`, in the order of its tables, or none
/// if the tables are not found.
pub(super) fn find(bytes: &[u8], segments: &[Segment]) -> Vec<Kallsym> {
    search(bytes, segments, &mut Budget { steps: STEPS_MAX }).unwrap_or_default()
}

/// The remaining budget of the search. It bounds the time that a crafted file can take.
struct Budget {
    steps: usize,
}

impl Budget {
    /// Subtracts `steps`. Returns `None` if the budget is exhausted.
    fn spend(&mut self, steps: usize) -> Option<()> {
        self.steps = self.steps.checked_sub(steps)?;
        Some(())
    }
}

fn search(bytes: &[u8], segments: &[Segment], budget: &mut Budget) -> Option<Vec<Kallsym>> {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
    let mut from = 0;
    let mut tables = 0;
    while let Some(at) = find_bytes(&bytes[from..], &digits).map(|at| at + from) {
        if let Some(tokens) = Tokens::around(bytes, at, budget) {
            if let Some(symbols) = tokens.symbols(bytes, segments, budget) {
                return Some(symbols);
            }
            tables += 1;
            if tables == TABLES_MAX {
                return None;
            }
        }
        budget.spend(1)?;
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
    /// Returns the table that has the string "0" at offset `zero`, if it is one.
    fn around(bytes: &[u8], zero: usize, budget: &mut Budget) -> Option<Self> {
        let mut table = zero;
        for _token in 0..b'0' {
            let end = table.checked_sub(1)?;
            let earliest = end.saturating_sub(NAME_BYTES_MAX);
            let before = bytes[earliest..end].iter().rposition(|&byte| byte == 0);
            budget.spend(end - before.map_or(earliest, |at| earliest + at))?;
            table = earliest + before? + 1;
        }
        let mut at = table;
        let mut offsets = [0; 256];
        for offset in &mut offsets {
            *offset = at - table;
            let token = &bytes[at..bytes.len().min(at + NAME_BYTES_MAX)];
            let length = token.iter().position(|&byte| byte == 0);
            budget.spend(length.unwrap_or(token.len()) + 1)?;
            at += length? + 1;
        }
        Form::ALL.into_iter().find_map(|form| {
            let index = at.next_multiple_of(form.alignment());
            let words = bytes.get(index..index + 512)?;
            let mut pairs = offsets.iter().enumerate();
            let fits = pairs.all(|(i, &offset)| usize::from(u16_at(words, 2 * i)) == offset);
            fits.then_some(Self { table, index })
        })
    }

    fn token<'a>(&self, bytes: &'a [u8], code: u8) -> &'a [u8] {
        let start = self.table + usize::from(u16_at(bytes, self.index + 2 * usize::from(code)));
        let end = bytes[start..].iter().position(|&byte| byte == 0).unwrap_or(0);
        &bytes[start..start + end]
    }

    fn symbols(
        &self,
        bytes: &[u8],
        segments: &[Segment],
        budget: &mut Budget,
    ) -> Option<Vec<Kallsym>> {
        let (names, addresses) = Form::ALL.into_iter().find_map(|form| {
            let names = Names::before(bytes, self.table, form, budget)?;
            let addresses = match form {
                Form::ToBase => addresses_to_base(bytes, self, &names),
                Form::ToSelf => addresses_to_self(bytes, self, &names, segments),
            };
            Some((names, addresses?))
        })?;
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

/// The table of names and their number.
struct Names {
    /// Offset of the number of names.
    count_at: usize,
    count: usize,
    start: usize,
}

impl Names {
    /// Returns the names whose markers end before the token table. Every number before the token table is
    /// tried as their count.
    fn before(bytes: &[u8], table: usize, form: Form, budget: &mut Budget) -> Option<Self> {
        let alignment = form.alignment();
        let latest = table.checked_sub(alignment)? & !(alignment - 1);
        let earliest = latest.saturating_sub(TABLES_BYTES_MAX);
        for count_at in (earliest..=latest).rev().step_by(alignment) {
            budget.spend(1)?;
            let count = match form {
                Form::ToBase => u64_at(bytes, count_at),
                Form::ToSelf => u64::from(u32_at(bytes, count_at)),
            };
            if !(SYMBOLS_MIN..=SYMBOLS_MAX).contains(&count) {
                continue;
            }
            let count = count as usize;
            let names = Self { count_at, count, start: count_at + alignment };
            let sequences = (3 * count).next_multiple_of(alignment);
            let markers_bytes = (4 * count.div_ceil(MARKED)).next_multiple_of(alignment);
            for between in [0, sequences] {
                let markers = table.checked_sub(between + markers_bytes);
                if markers.is_some_and(|markers| names.matches_markers(bytes, markers, budget)) {
                    return Some(names);
                }
            }
        }
        None
    }

    /// Returns whether every 256th name begins where the table at `markers` says.
    fn matches_markers(&self, bytes: &[u8], markers: usize, budget: &mut Budget) -> bool {
        let mut at = self.start;
        if markers <= at || u32_at(bytes, markers) != 0 {
            return false;
        }
        for number in 0..self.count {
            let marker = markers + 4 * (number / MARKED);
            if budget.spend(1).is_none() {
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

/// Returns the length of the name at `at` and the offset of its tokens. Since Linux 6.1 a length of 128
/// or more takes two bytes.
fn name_length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    match *bytes.get(at)? {
        length if length & 0x80 == 0 => Some((usize::from(length), at + 1)),
        low => {
            let high = usize::from(*bytes.get(at + 1)?);
            Some((usize::from(low & 0x7F) | high << 7, at + 2))
        }
    }
}

/// Returns one address for each name, from offsets that are relative to a base.
fn addresses_to_base(bytes: &[u8], tokens: &Tokens, names: &Names) -> Option<Vec<u64>> {
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
        // With CONFIG_KALLSYMS_ABSOLUTE_PERCPU an offset that is not negative is an absolute address.
        let absolute = offsets().any(|offset| offset < 0);
        let address = |offset: i32| match (absolute, offset) {
            (true, 0..) => u64::from(offset.cast_unsigned()),
            (true, _) => base.wrapping_sub(1).wrapping_sub(i64::from(offset).cast_unsigned()),
            (false, _) => base.wrapping_add(u64::from(offset.cast_unsigned())),
        };
        Some(offsets().map(address).collect())
    })
}

/// Returns one address for each name, from offsets behind `token_index` that are relative to their own
/// addresses. No table confirms them, but they are sorted and in the kernel's image.
fn addresses_to_self(
    bytes: &[u8],
    tokens: &Tokens,
    names: &Names,
    segments: &[Segment],
) -> Option<Vec<u64>> {
    let start = tokens.index + 512;
    let offsets = bytes.get(start..start + 4 * names.count)?;
    let segment = segments.iter().find(|segment| segment.file.contains(&start))?;
    let first = segment.address.wrapping_add((start - segment.file.start) as u64);
    let places = (0..names.count as u64).map(|number| first.wrapping_add(4 * number));
    let address = |(place, offset): (u64, &[u8])| {
        place.wrapping_add_signed(i64::from(u32_at(offset, 0).cast_signed()))
    };
    let addresses: Vec<u64> = places.zip(offsets.chunks_exact(4)).map(address).collect();
    (addresses.is_sorted() && *addresses.first()? >= KERNEL_MIN).then_some(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address of the tables in the tests.
    const ADDRESS: u64 = 0xFFFF_FFFF_8200_0000;

    /// Returns the tables of `count` names in `form`, as `scripts/kallsyms.c` writes them, at
    /// [`ADDRESS`]. Symbol `n` is `Tsn` at 16 * n.
    fn tables(form: Form, count: u32) -> Vec<u8> {
        let align = |bytes: &mut Vec<u8>| {
            bytes.resize(bytes.len().next_multiple_of(form.alignment()), 0);
        };
        let mut bytes = vec![0; 64];
        bytes.extend(&count.to_le_bytes());
        align(&mut bytes);
        let (start, mut markers) = (bytes.len(), Vec::new());
        for number in 0..count {
            if number % 256 == 0 {
                markers.extend(((bytes.len() - start) as u32).to_le_bytes());
            }
            let name = format!("Ts{number}");
            bytes.push(name.len() as u8);
            bytes.extend(name.bytes());
        }
        align(&mut bytes);
        bytes.extend(markers);
        align(&mut bytes);
        // Each printable character is its own token; no other code is used.
        let mut index = Vec::new();
        let tokens = bytes.len();
        for code in 0..=255u8 {
            index.extend(((bytes.len() - tokens) as u16).to_le_bytes());
            bytes.extend([if code.is_ascii_graphic() { code } else { b'?' }, 0]);
        }
        align(&mut bytes);
        bytes.extend(index);
        for number in 0..count {
            let offset = match form {
                Form::ToBase => 16 * number,
                Form::ToSelf => {
                    let place = ADDRESS + bytes.len() as u64;
                    (KERNEL_MIN + 16 * u64::from(number)).wrapping_sub(place) as u32
                }
            };
            bytes.extend(offset.to_le_bytes());
        }
        align(&mut bytes);
        if form == Form::ToBase {
            bytes.extend(KERNEL_MIN.to_le_bytes());
        }
        bytes.resize(bytes.len() + 64, 0);
        bytes
    }

    fn segment(bytes: &[u8]) -> Segment {
        Segment {
            file: 0..bytes.len(),
            physical: ADDRESS - KERNEL_MIN,
            address: ADDRESS,
            memory_bytes: bytes.len() as u64,
            executable: false,
        }
    }

    #[test]
    fn tables_of_each_form_give_their_symbols() {
        for form in Form::ALL {
            // 299 names: the tables of the second form are not at multiples of eight.
            let bytes = tables(form, 299);
            let symbols = find(&bytes, &[segment(&bytes)]);
            assert_eq!(symbols.len(), 299, "{form:?}");
            for (number, symbol) in (0..).zip(&symbols) {
                let expected = (KERNEL_MIN + 16 * number, b'T', format!("s{number}"));
                assert_eq!(
                    (symbol.address, symbol.kind, symbol.name.clone()),
                    expected,
                    "{form:?}"
                );
            }
        }
    }

    #[test]
    fn offsets_to_themselves_that_are_not_sorted_are_refused() {
        let mut bytes = tables(Form::ToSelf, 299);
        let at = bytes.len() - 64 - 4 * 100;
        bytes[at..at + 4].fill(0);
        assert_eq!(find(&bytes, &[segment(&bytes)]), []);
        let bytes = tables(Form::ToSelf, 299);
        assert_eq!(find(&bytes, &[]), [], "no segment tells the address");
    }

    #[test]
    fn search_with_only_plausible_tables_is_bounded() {
        // Token tables with a valid index, preceded only by plausible counts.
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
        let mut budget = Budget { steps: STEPS_MAX };
        assert_eq!(search(&bytes, &[], &mut budget), None);
        // The tables after the sixteenth were not tried.
        let before: usize =
            (1..=TABLES_MAX).map(|tables| tables * (counts.len() + table.len())).sum();
        let spent = STEPS_MAX - budget.steps;
        assert!(spent <= before / 8 * 4, "{spent} steps");
        assert_eq!(search(&bytes, &[], &mut Budget { steps: 1000 }), None);
    }

    #[test]
    fn search_with_only_digit_marks_is_bounded() {
        let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
        let bytes = digits.repeat(1 << 18);
        let mut budget = Budget { steps: 1 << 20 };
        assert_eq!(search(&bytes, &[], &mut budget), None);
        assert!(
            budget.steps < 1000,
            "the budget must be used up, but {} steps are left",
            budget.steps
        );
    }
}
