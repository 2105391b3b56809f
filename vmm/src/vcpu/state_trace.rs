//! The vCPU's state at the last two positions, field by field, for the report of a divergence.
//!
//! A log has the general registers of each exit, and only a digest of the other parts of the state
//! (`replication::vcpu_digest`). So a replay that diverges in one of those can't show what was recorded. It shows what it
//! found, and which fields have changed since the position before, which was equal.

use crate::kvm::canonical::events_at_position;
use crate::kvm::{Vcpu, VmExit};
use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs, kvm_vcpu_events};
use std::fmt::Write as _;

/// Name and value of each field of a state.
type Fields = Vec<(String, String)>;

/// The states at the last two positions.
#[derive(Debug, Default)]
pub struct StateTrace {
    before: Option<State>,
    last: Option<State>,
}

/// The parts of a state that a log has only digests of.
#[derive(Debug)]
struct State {
    sregs: kvm_sregs,
    events: kvm_vcpu_events,
    exit: VmExit,
}

impl StateTrace {
    /// Notes the state of `vcpu` at the position that it reached by `exit`.
    pub(super) fn note(&mut self, vcpu: &mut Vcpu, exit: &VmExit) {
        let sync = vcpu.sync_regs();
        let (sregs, events) = (*sync.sregs, events_at_position(sync.events));
        self.before = self.last.replace(State { sregs, events, exit: *exit });
    }

    /// Returns the last state, a line for each field. Where a field differs from the position before, the line is marked
    /// with `!` and ends in the value there.
    pub fn report(&self) -> String {
        let Some(last) = &self.last else { return String::from("no position was reached\n") };
        let before = self.before.as_ref().map(State::fields);
        let mut text =
            String::from("state at the last position, and where it differs from the one before\n");
        for (index, (name, value)) in last.fields().into_iter().enumerate() {
            let old = before.as_ref().map(|fields| &fields[index].1).filter(|old| **old != value);
            let _ = match old {
                Some(old) => writeln!(text, "! {name:<26} {value}; was {old}"),
                None => writeln!(text, "  {name:<26} {value}"),
            };
        }
        text
    }
}

impl State {
    fn fields(&self) -> Fields {
        let mut fields = vec![(String::from("exit"), self.exit.to_string())];
        system(&mut fields, &self.sregs);
        events(&mut fields, &self.events);
        fields
    }
}

fn system(fields: &mut Fields, sregs: &kvm_sregs) {
    let kvm_sregs { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, .. } = sregs;
    let segments: [(&str, &kvm_segment); 8] = [
        ("cs", cs),
        ("ds", ds),
        ("es", es),
        ("fs", fs),
        ("gs", gs),
        ("ss", ss),
        ("tr", tr),
        ("ldt", ldt),
    ];
    for (name, segment) in segments {
        let kvm_segment { base, limit, selector, type_, present, dpl, db, s, l, g, avl, .. } =
            *segment;
        let unusable = if segment.unusable == 0 { "" } else { " unusable" };
        let value = format!(
            "{selector:#x} base {base:#x} limit {limit:#x} type {type_:#x} p{present} dpl{dpl} db{db} s{s} l{l} g{g} \
             avl{avl}{unusable}"
        );
        fields.push((name.into(), value));
    }
    let tables: [(&str, &kvm_dtable); 2] = [("gdt", gdt), ("idt", idt)];
    for (name, table) in tables {
        fields.push((name.into(), format!("base {:#x} limit {:#x}", table.base, table.limit)));
    }
    for (name, value) in [
        ("cr0", sregs.cr0),
        ("cr2", sregs.cr2),
        ("cr3", sregs.cr3),
        ("cr4", sregs.cr4),
        ("cr8", sregs.cr8),
        ("efer", sregs.efer),
        ("apic_base", sregs.apic_base),
    ] {
        fields.push((name.into(), format!("{value:#x}")));
    }
}

fn events(fields: &mut Fields, events: &kvm_vcpu_events) {
    let (exception, interrupt) = (&events.exception, &events.interrupt);
    let (nmi, smi) = (&events.nmi, &events.smi);
    let values: [(&str, u64); 21] = [
        ("exception.injected", exception.injected.into()),
        ("exception.nr", exception.nr.into()),
        ("exception.has_error_code", exception.has_error_code.into()),
        ("exception.pending", exception.pending.into()),
        ("exception.error_code", exception.error_code.into()),
        ("exception_has_payload", events.exception_has_payload.into()),
        ("exception_payload", events.exception_payload),
        ("interrupt.injected", interrupt.injected.into()),
        ("interrupt.nr", interrupt.nr.into()),
        ("interrupt.soft", interrupt.soft.into()),
        ("nmi.injected", nmi.injected.into()),
        ("nmi.pending", nmi.pending.into()),
        ("nmi.masked", nmi.masked.into()),
        ("sipi_vector", events.sipi_vector.into()),
        ("flags", events.flags.into()),
        ("smi.smm", smi.smm.into()),
        ("smi.pending", smi.pending.into()),
        ("smi.smm_inside_nmi", smi.smm_inside_nmi.into()),
        ("smi.latched_init", smi.latched_init.into()),
        ("triple_fault.pending", events.triple_fault.pending.into()),
        ("interrupt.shadow", interrupt.shadow.into()),
    ];
    fields.extend(values.map(|(name, value)| (name.into(), format!("{value:#x}"))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_marks_the_field_that_changed() {
        let state = |cr2, error_code| {
            let mut events = kvm_vcpu_events::default();
            events.exception.error_code = error_code;
            State { sregs: kvm_sregs { cr2, ..Default::default() }, events, exit: VmExit::Halt }
        };
        let trace = StateTrace { before: Some(state(1, 2)), last: Some(state(1, 6)) };
        let report = trace.report();
        let marked: Vec<&str> = report.lines().filter(|line| line.starts_with('!')).collect();
        assert_eq!(marked, ["! exception.error_code       0x6; was 0x2"]);
        assert!(report.contains("  cr2                        0x1\n"), "{report}");
    }
}
