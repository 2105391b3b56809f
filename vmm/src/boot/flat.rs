//! Flat segments, which cover all of memory. Every mode of entry starts with them.

use kvm_bindings::{kvm_segment, kvm_sregs};

/// The selectors and the kind of a set of flat segments.
pub(crate) struct FlatSegments {
    /// Selector of CS.
    pub(crate) code: u16,
    /// Selector of DS, ES, FS, GS and SS.
    pub(crate) data: u16,
    /// Selector of the task register.
    pub(crate) task: u16,
    /// Address of the TSS.
    pub(crate) task_base: u64,
    /// Privilege level of code and data.
    pub(crate) privilege_level: u8,
    /// True for 64-bit code, false for 32-bit code.
    pub(crate) is_64_bit: bool,
}

impl FlatSegments {
    /// Writes the segments to `sregs`. There is no LDT.
    pub(crate) fn load(&self, sregs: &mut kvm_sregs) {
        let data = kvm_segment {
            base: 0,
            limit: u32::MAX,
            selector: self.data,
            type_: 0b0011, // read and write, accessed (SDM vol. 3, table 3-1)
            present: 1,
            dpl: self.privilege_level,
            db: 1,
            s: 1,
            l: 0,
            g: 1,
            avl: 0,
            unusable: 0,
            padding: 0,
        };
        let (db, l) = if self.is_64_bit { (0, 1) } else { (1, 0) };
        sregs.cs = kvm_segment { selector: self.code, type_: 0b1011, db, l, ..data };
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        // A busy TSS of 0x68 bytes, which the VM-entry checks require (SDM vol. 3, "Checks on Guest
        // Segment Registers").
        sregs.tr = kvm_segment {
            base: self.task_base,
            limit: 0x67,
            selector: self.task,
            type_: 0b1011,
            dpl: 0,
            db: 0,
            s: 0,
            g: 0,
            ..data
        };
        sregs.ldt = kvm_segment { unusable: 1, type_: 0b0010, ..kvm_segment::default() };
    }
}
