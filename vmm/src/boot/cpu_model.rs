//! The CPU model: the fixed CPUID values that a guest sees on every host of a pair.
//!
//! A model has a [name](ModelName), which determines the features that are offered
//! ([`cpu_features`]). Brand, family, model, stepping and caches are the processor's. So two
//! hosts with equal processors give equal models, whatever else differs between them: a host or a KVM that adds
//! features, or KVM's parameters. Every model is without:
//!
//! - clocks and randomness that replay could not intercept: TSC, TSC-deadline, RDTSCP, RDPID, RDRAND, RDSEED,
//!   MONITOR, performance counters, invariant TSC, TSC leaves 0x15 and 0x16, TSX;
//! - interrupt sources in KVM: no APIC, no x2APIC; no hypervisor bit, no KVM leaves;
//! - AES, ERMS, SMAP, FSGSBASE: these are deterministic, but are in no psABI level;
//! - topology: one processor, APIC id 0, no cores and threads; no 1 GiB pages, no PCID;
//! - values that depend on the version or the parameters of KVM: L1 caches and TLBs of AMD's leaf
//!   0x8000_0005 (zero on Linux 6.1, filled on 6.12), reserved bits of 0x8000_0006, address widths of
//!   0x8000_0008 (which depend on memory encryption, nested paging and GuestPhysAddrSize), stateful flags of
//!   leaf 2. In the leaves of the model, all versions pass on everything else as the processor reports it.
//!
//! v1 and v2 have no XSAVE, and therefore no AVX: XSAVE reveals which state components are "in use", and
//! processors are free in how they track that. v3 has it, only with x87, SSE and AVX, and only in its plain
//! form: XSAVEOPT, XSAVEC, XSAVES and XGETBV with ECX=1 are not offered. A host offers v3 only if saving and
//! restoring leaves the tracking as it is (`vmm/src/kvm/xsave_tracking.rs`). v1 is also without what kernels
//! would use at CPL0 where a KVM that emulates guest kernels does not support it: SSE4.2, POPCNT, CMPXCHG16B.
//!
//! **Limits:** some KVMs put host features back into leaves 1, 7 and 0xD. The highest basic leaf of v1 and v2 is
//! therefore 4, so that software that queries the range first (Linux, the GNU C library) never reads 7 and
//! 0xD. v2 and v3 are not offered there. Leaf 7 stays in the tables of v1 and v2 with UMIP alone, because KVM
//! lets a guest set CR4.UMIP only if it is there. [`sweep`](crate::boot::sweep) checks which instructions the
//! guest really contains.
//!
//! Leaf layouts: Intel SDM vol. 2A "CPUID" and AMD APM vol. 3 appendix E.

use std::collections::BTreeMap;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use xxhash_rust::xxh3::Xxh3;

use super::cpu_features::{self, AVX_STATE, FEATURES, ModelName, Register, XCR0, XSAVE_BYTES};

/// Highest extended leaf reported to the guest: the address widths.
pub const EXTENDED_LEAF_MAX: u32 = 0x8000_0008;

/// CLFLUSH line of 64 bytes in leaf 1 EBX bits 15:8 (in 8-byte units), one logical processor in
/// bits 23:16, APIC id 0 and brand index 0.
const LEAF1_EBX: u32 = (8 << 8) | (1 << 16);
/// Cache type and level, self-initialising, fully associative (leaf 4 EAX 9:0); the sharing counts
/// above are zero for one processor.
const LEAF4_EAX: u32 = 0x3FF;
/// Physical address bits: the minimum among processors that run VMs, and enough for a machine with nothing
/// above 4 GiB.
const PHYSICAL_BITS: u32 = 36;
/// Linear address bits. More would need LA57, which is not offered.
const LINEAR_BITS: u32 = 48;
/// Reserved bits of leaf 0x8000_0006 EDX, between the associativity and the size of the L3 cache.
const LEAF6_EDX_RESERVED: u32 = 3 << 16;

/// Length of the legacy region and the header of an XSAVE area, bytes.
const XSAVE_HEADER_END: u32 = 576;
/// CR4.OSXSAVE, and the bit of leaf 1 ECX that shows it.
const CR4_OSXSAVE: u64 = 1 << 18;
const LEAF1_OSXSAVE: u32 = 1 << 27;
/// The AVX component in XCR0.
const XCR0_AVX: u64 = 1 << 2;

/// The guest's registers that CPUID shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controls {
    /// CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
}

impl Controls {
    /// Reset values.
    pub const RESET: Controls = Controls { cr4: 0, xcr0: 1 };
}

/// The host lacks features of a model. Displays as a clause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it lacks {}", features.join(", "))]
pub struct Lacking {
    /// Names of the features.
    pub features: Vec<&'static str>,
}

/// The fixed CPU model: canonical CPUID entries, unique and ordered by (leaf, index).
#[derive(Debug, Clone, PartialEq)]
pub struct CpuModel {
    named: ModelName,
    entries: Vec<kvm_cpuid_entry2>,
}

impl CpuModel {
    /// Derives the model v1, without the features that the host lacks, from the result of
    /// `KVM_GET_SUPPORTED_CPUID` on this host.
    pub fn from_supported(supported: &[kvm_cpuid_entry2]) -> Self {
        Self::derive(ModelName::V1, supported)
    }

    /// Derives the model with this name from the result of `KVM_GET_SUPPORTED_CPUID` on this host.
    ///
    /// # Errors
    ///
    /// The features that the model needs and the host lacks.
    pub fn named(named: ModelName, supported: &[kvm_cpuid_entry2]) -> Result<Self, Lacking> {
        let features = cpu_features::lacking(named, supported);
        if features.is_empty() {
            Ok(Self::derive(named, supported))
        } else {
            Err(Lacking { features })
        }
    }

    /// Among entries with the same leaf and index, the first one is used. Otherwise the order does not matter.
    fn derive(named: ModelName, supported: &[kvm_cpuid_entry2]) -> Self {
        let mut entries = BTreeMap::new();
        for offered in supported {
            if let Some(entry) = canonical(named, offered) {
                entries.entry((entry.function, entry.index)).or_insert(entry);
            }
        }
        // The terminating level of leaf 0xB has type 0 (ECX 15:8).
        if entries.contains_key(&(0xB, 0)) {
            let end = kvm_cpuid_entry2 { index: 1, ecx: 1, ..entries[&(0xB, 0)] };
            entries.insert((0xB, 1), kvm_cpuid_entry2 { ebx: 0, ..end });
        }
        Self { named, entries: entries.into_values().collect() }
    }

    /// Returns the name that the model is chosen by.
    pub fn model_name(&self) -> ModelName {
        self.named
    }

    /// Returns the entries for `KVM_SET_CPUID2`.
    pub fn entries(&self) -> &[kvm_cpuid_entry2] {
        &self.entries
    }

    /// Returns the XXH3-64 digest of the entries. Equal models have equal digests on every host.
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        for e in &self.entries {
            for word in [e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx] {
                hash.update(&word.to_le_bytes());
            }
        }
        hash.digest()
    }

    /// Returns the model's name and the processor in one line, as in `v1: Intel(R) Xeon(R) CPU (family 6 model
    /// 85 stepping 7)`.
    pub fn name(&self) -> String {
        format!("{}: {}", self.named, self.processor())
    }

    /// Returns brand, family, model and stepping of the processor.
    pub fn processor(&self) -> String {
        let eax = self.entry(0x1, 0).map_or(0, |entry| entry.eax);
        let (family, model, stepping) = signature(eax);
        let brand = self.brand();
        format!("{brand} (family {family} model {model} stepping {stepping})")
    }

    /// Returns whether the guest may set CR4.UMIP.
    pub fn has_umip(&self) -> bool {
        self.entry(0x7, 0).is_some_and(|entry| entry.ecx & (1 << 2) != 0)
    }

    /// Returns EAX, EBX, ECX and EDX of CPUID, with zeros for a leaf or index that the model does not have.
    pub fn answer(&self, leaf: u32, index: u32, controls: Controls) -> [u32; 4] {
        let found = self.entries.iter().find(|e| {
            let indexed = e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
            e.function == leaf && (!indexed || e.index == index)
        });
        let Some(e) = found else { return [0; 4] };
        let mut answer = [e.eax, e.ebx, e.ecx, e.edx];
        if self.named.has_xsave() {
            match (leaf, index) {
                (0x1, _) if controls.cr4 & CR4_OSXSAVE != 0 => answer[2] |= LEAF1_OSXSAVE,
                (0xD, 0) if controls.xcr0 & XCR0_AVX != 0 => answer[1] = XSAVE_BYTES,
                _ => {}
            }
        }
        answer
    }

    /// Returns the first leaf and index that a vCPU at reset, which was given this model, shows with other
    /// values. `shown` is the result of `KVM_GET_CPUID2`.
    pub fn altered(&self, shown: &[kvm_cpuid_entry2]) -> Option<(u32, u32)> {
        let values = |e: &kvm_cpuid_entry2| {
            // KVM shows the local APIC's enable bit here (leaf 1 EDX 9), which is state of the vCPU.
            let apic = if e.function == 0x1 { 1 << 9 } else { 0 };
            (e.function, e.index, e.eax, e.ebx, e.ecx, e.edx & !apic)
        };
        let same = |a: &kvm_cpuid_entry2, b: &kvm_cpuid_entry2| values(a) == values(b);
        let missing = self.entries.iter().find(|e| !shown.iter().any(|s| same(e, s)));
        let added = shown.iter().find(|s| !self.entries.iter().any(|e| same(e, s)));
        missing.or(added).map(|e| (e.function, e.index))
    }

    fn entry(&self, leaf: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        self.entries.iter().find(|e| (e.function, e.index) == (leaf, index))
    }

    fn brand(&self) -> String {
        let words = |leaf| self.entry(leaf, 0).map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx]);
        let brand = text((0x8000_0002..=0x8000_0004).flat_map(words));
        if !brand.is_empty() {
            return brand;
        }
        let vendor = self.entry(0, 0).map_or([0; 3], |e| [e.ebx, e.edx, e.ecx]);
        match text(vendor) {
            vendor if vendor.is_empty() => "unknown processor".to_owned(),
            vendor => vendor,
        }
    }
}

/// Returns the model's version of a host entry, or `None` if the model does not have that leaf.
fn canonical(named: ModelName, offered: &kvm_cpuid_entry2) -> Option<kvm_cpuid_entry2> {
    let (leaf, index) = (offered.function, offered.index);
    let mask = |register| cpu_features::mask(named, leaf, register);
    let mut e = kvm_cpuid_entry2 { flags: 0, padding: [0; 3], ..*offered };
    match (leaf, index) {
        (0x0, 0) => e.eax = e.eax.min(basic_leaf_max(named)),
        (0x1, 0) => e.ebx = LEAF1_EBX,
        (0x4, _) => {
            e.eax &= LEAF4_EAX;
            e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        }
        (0x7, 0) => {
            (e.eax, e.edx) = (0, 0);
            e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        }
        (0xB, 0) => {
            // One thread in the first level (type 1, SMT), x2APIC id 0.
            (e.eax, e.ebx, e.ecx, e.edx) = (0, 1, 0x100, 0);
            e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        }
        // Index 1, which would offer the other forms of XSAVE, is absent and thus zero. KVM replaces EBX of
        // index 0 by the length for the guest's XCR0.
        (0xD, 0) if named.has_xsave() => {
            (e.eax, e.ebx, e.ecx, e.edx) = (XCR0, XSAVE_HEADER_END, XSAVE_BYTES, 0);
            e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        }
        (0xD, 2) if named.has_xsave() => {
            (e.eax, e.ebx, e.ecx, e.edx) = (AVX_STATE.1, AVX_STATE.0, 0, 0);
            e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        }
        (0x8000_0000, 0) => e.eax = e.eax.min(EXTENDED_LEAF_MAX),
        (0x8000_0001, 0) => e.ebx = 0,
        (0x8000_0008, 0) => {
            e.ebx &= mask(Register::Ebx);
            (e.eax, e.ecx, e.edx) = ((LINEAR_BITS << 8) | PHYSICAL_BITS.min(e.eax & 0xFF), 0, 0);
        }
        (0x8000_0006, 0) => e.edx &= !LEAF6_EDX_RESERVED,
        // Cache descriptors and brand string are constants of the processor.
        (0x2 | 0x8000_0002..=0x8000_0004, 0) => {}
        _ => return None,
    }
    if leaf == 0x7 {
        e.ebx &= mask(Register::Ebx);
    }
    if let 0x1 | 0x7 | 0x8000_0001 = leaf {
        e.ecx &= mask(Register::Ecx);
        e.edx &= mask(Register::Edx);
    }
    Some(e)
}

/// Returns the highest basic leaf that the guest sees; see the module documentation.
fn basic_leaf_max(named: ModelName) -> u32 {
    match named {
        ModelName::V1 | ModelName::V2 => 4,
        ModelName::V3 => 0xD,
    }
}

/// Returns the differences between two models, one line each. "The first" and "the second" are the arguments
/// in their order.
pub fn diff(first: &CpuModel, second: &CpuModel) -> Vec<String> {
    let mut lines = Vec::new();
    let (a_name, b_name) = (first.name(), second.name());
    if a_name != b_name {
        lines.push(format!("the first is {a_name}, the second is {b_name}"));
    }
    let mut keys: Vec<(u32, u32)> =
        first.entries.iter().chain(&second.entries).map(|e| (e.function, e.index)).collect();
    keys.sort_unstable();
    keys.dedup();
    for (leaf, index) in keys {
        match (first.entry(leaf, index), second.entry(leaf, index)) {
            (Some(a), Some(b)) => diff_entry(&mut lines, a, b),
            (Some(_), None) => lines.push(format!("leaf {leaf:#x}.{index}: only the first has it")),
            (None, _) => lines.push(format!("leaf {leaf:#x}.{index}: only the second has it")),
        }
    }
    lines
}

fn diff_entry(lines: &mut Vec<String>, a: &kvm_cpuid_entry2, b: &kvm_cpuid_entry2) {
    let (leaf, index) = (a.function, a.index);
    // The names, which are compared first, include the brand string.
    if (0x8000_0002..=0x8000_0004).contains(&leaf) {
        return;
    }
    for (name, of_a, of_b) in [
        ("eax", a.eax, b.eax),
        ("ebx", a.ebx, b.ebx),
        ("ecx", a.ecx, b.ecx),
        ("edx", a.edx, b.edx),
        ("flags", a.flags, b.flags),
    ] {
        if of_a == of_b {
            continue;
        }
        let register = match name {
            "ebx" => Some(Register::Ebx),
            "ecx" => Some(Register::Ecx),
            "edx" => Some(Register::Edx),
            _ => None,
        };
        let features = FEATURES.iter().filter(|f| f.leaf == leaf && Some(f.register) == register);
        let mut named = 0;
        for f in features.filter(|f| (of_a ^ of_b) & (1 << f.bit) != 0) {
            named |= 1 << f.bit;
            let owner = if of_a & (1 << f.bit) != 0 { "first" } else { "second" };
            lines.push(format!("{}: only the {owner} has it", f.name));
        }
        if (of_a ^ of_b) & !named != 0 {
            lines.push(format!(
                "leaf {leaf:#x}.{index} {name}: {of_a:#010x} in the first, {of_b:#010x} in the second"
            ));
        }
    }
}

/// Returns family, model and stepping from leaf 1 EAX (SDM vol. 2A, figure 3-6).
fn signature(eax: u32) -> (u32, u32, u32) {
    let (base_family, base_model) = (eax >> 8 & 0xF, eax >> 4 & 0xF);
    let family = if base_family == 0xF { base_family + (eax >> 20 & 0xFF) } else { base_family };
    let extended = matches!(base_family, 0x6 | 0xF);
    let model = if extended { base_model | (eax >> 16 & 0xF) << 4 } else { base_model };
    (family, model, eax & 0xF)
}

/// Converts words to text in memory order: stops at the first zero byte, replaces what is not printable ASCII
/// by spaces, and collapses spaces.
fn text(words: impl IntoIterator<Item = u32>) -> String {
    let bytes = words.into_iter().flat_map(u32::to_le_bytes).take_while(|&byte| byte != 0);
    let text: String =
        bytes.map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { ' ' }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "cpu_model_tests.rs"]
mod tests;
