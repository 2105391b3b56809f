//! The text form: one line per entry, and the format does not change by accident.

use logchan::dump::{Dump, REGISTER_NAMES};
use logchan::entry::{Entry, REGISTERS, RegisterDelta};

use crate::fixtures::check_text;
use crate::samples::samples;

#[test]
fn dump_of_the_samples_equals_the_fixture() {
    let lines: String = samples().iter().map(|(_, entry)| format!("{}\n", Dump(entry))).collect();
    check_text("dump.txt", &lines);
}

#[test]
fn dump_of_registers_lists_those_changed_or_a_dash() {
    let mut delta = RegisterDelta::default();
    let line = |delta| Dump(&Entry::Exit { digest: 0, registers: Some(delta) }).to_string();
    assert!(line(delta).ends_with(" registers=-"));
    for index in 0..REGISTERS {
        delta.changed |= 1 << index;
        delta.xor[index] = index as u64 + 1;
    }
    let line = line(delta);
    let (_, registers) = line.split_once(" registers=").expect("the line has registers");
    let expected: Vec<_> =
        REGISTER_NAMES.iter().zip(1..).map(|(name, xor)| format!("{name}^{xor:x}")).collect();
    assert_eq!(registers, expected.join(","));
}

#[test]
fn dump_of_no_bytes_shows_a_dash() {
    assert_eq!(Dump(&Entry::Console(&[])).to_string(), "console          length=0 head=-");
}
