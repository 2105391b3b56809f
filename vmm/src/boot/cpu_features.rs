//! The names of the CPU models, and the feature bits of each.
//!
//! The tables list what is offered, not what is hidden, so that a feature that a newer host or KVM adds stays
//! invisible. **A name keeps its features for ever.** A model with other features gets another name, because a
//! snapshot or a log stays bound to the model that it was made with.

use kvm_bindings::kvm_cpuid_entry2;
use std::fmt;

/// Names a CPU model after the psABI level of x86-64 whose features it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ModelName {
    /// The baseline: SSE2, without CMPXCHG16B.
    #[default]
    V1,
    /// v1 with SSE3 to SSE4.2, POPCNT, CMPXCHG16B.
    V2,
    /// v2 with XSAVE, AVX, AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE.
    V3,
}

impl ModelName {
    /// All names, in ascending order of their features.
    pub const ALL: [ModelName; 3] = [ModelName::V1, ModelName::V2, ModelName::V3];

    /// Returns the name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            ModelName::V1 => "v1",
            ModelName::V2 => "v2",
            ModelName::V3 => "v3",
        }
    }

    /// Returns the number of the psABI level.
    pub const fn level(self) -> u8 {
        match self {
            ModelName::V1 => 1,
            ModelName::V2 => 2,
            ModelName::V3 => 3,
        }
    }

    /// Returns whether the guest may enable XSAVE (CR4.OSXSAVE), with the components of [`XCR0`].
    pub const fn has_xsave(self) -> bool {
        match self {
            ModelName::V1 | ModelName::V2 => false,
            ModelName::V3 => true,
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// State components that a guest may enable in XCR0: x87, SSE, AVX.
pub const XCR0: u32 = 0b111;
/// Offset and length of the AVX component in an XSAVE area of standard format, in bytes. Every processor has it
/// there.
pub const AVX_STATE: (u32, u32) = (576, 256);
/// Length in bytes of an XSAVE area with the legacy region, the header and the AVX component.
pub const XSAVE_BYTES: u32 = AVX_STATE.0 + AVX_STATE.1;

/// An output register of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Ebx,
    Ecx,
    Edx,
}

/// When a host without a feature cannot have a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Every model that offers the feature needs it.
    Always,
    /// v1 offers it where the host has it, and later models need it. Some hosts that are VMs themselves lack it.
    FromV2,
    /// Every model has it where the host has it: a property of the processor, like its brand.
    Never,
}

/// A feature bit, in index 0 of its leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature {
    pub(super) leaf: u32,
    pub(super) register: Register,
    pub(super) bit: u32,
    pub(super) name: &'static str,
    /// The first model that offers it.
    since: ModelName,
    need: Need,
}

const fn feature(leaf: u32, register: Register, bit: u32, name: &'static str) -> Feature {
    Feature { leaf, register, bit, name, since: ModelName::V1, need: Need::Always }
}

const fn from_v2(feature: Feature) -> Feature {
    Feature { need: Need::FromV2, ..feature }
}

const fn optional(feature: Feature) -> Feature {
    Feature { need: Need::Never, ..feature }
}

const fn v2(feature: Feature) -> Feature {
    Feature { since: ModelName::V2, ..feature }
}

const fn v3(feature: Feature) -> Feature {
    Feature { since: ModelName::V3, ..feature }
}

/// All features that any model offers.
pub(super) const FEATURES: &[Feature] = &[
    feature(0x1, Register::Edx, 0, "fpu"),
    // Nothing in 64-bit mode depends on it, and emulated processors lack it.
    optional(feature(0x1, Register::Edx, 1, "vme")),
    from_v2(feature(0x1, Register::Edx, 2, "de")),
    from_v2(feature(0x1, Register::Edx, 3, "pse")),
    feature(0x1, Register::Edx, 5, "msr"),
    feature(0x1, Register::Edx, 6, "pae"),
    feature(0x1, Register::Edx, 8, "cx8"),
    from_v2(feature(0x1, Register::Edx, 11, "sep")),
    feature(0x1, Register::Edx, 13, "pge"),
    feature(0x1, Register::Edx, 15, "cmov"),
    from_v2(feature(0x1, Register::Edx, 16, "pat")),
    from_v2(feature(0x1, Register::Edx, 17, "pse36")),
    from_v2(feature(0x1, Register::Edx, 19, "clflush")),
    feature(0x1, Register::Edx, 23, "mmx"),
    feature(0x1, Register::Edx, 24, "fxsr"),
    feature(0x1, Register::Edx, 25, "sse"),
    feature(0x1, Register::Edx, 26, "sse2"),
    v2(feature(0x1, Register::Ecx, 0, "sse3")),
    v2(feature(0x1, Register::Ecx, 9, "ssse3")),
    v3(feature(0x1, Register::Ecx, 12, "fma")),
    v2(feature(0x1, Register::Ecx, 13, "cx16")),
    v2(feature(0x1, Register::Ecx, 19, "sse4.1")),
    v2(feature(0x1, Register::Ecx, 20, "sse4.2")),
    v3(feature(0x1, Register::Ecx, 22, "movbe")),
    v2(feature(0x1, Register::Ecx, 23, "popcnt")),
    v3(feature(0x1, Register::Ecx, 26, "xsave")),
    v3(feature(0x1, Register::Ecx, 28, "avx")),
    v3(feature(0x1, Register::Ecx, 29, "f16c")),
    v3(feature(0x7, Register::Ebx, 3, "bmi1")),
    v3(feature(0x7, Register::Ebx, 5, "avx2")),
    v3(feature(0x7, Register::Ebx, 8, "bmi2")),
    optional(feature(0x7, Register::Ecx, 2, "umip")),
    from_v2(feature(0x8000_0001, Register::Ecx, 0, "lahf_lm")),
    v3(feature(0x8000_0001, Register::Ecx, 5, "lzcnt")),
    feature(0x8000_0001, Register::Edx, 11, "syscall"),
    feature(0x8000_0001, Register::Edx, 20, "nx"),
    feature(0x8000_0001, Register::Edx, 29, "lm"),
    // AMD: FXRSTOR always restores the x87 error pointers. Without this bit, a kernel clears the pointers of
    // the task before with x87 instructions, which a KVM that emulates kernels does not support.
    optional(feature(0x8000_0008, Register::Ebx, 2, "xsaveerptr")),
];

/// Returns the bits that the model offers in a register of a leaf.
pub(super) fn mask(model: ModelName, leaf: u32, register: Register) -> u32 {
    FEATURES
        .iter()
        .filter(|f| f.since <= model && (f.leaf, f.register) == (leaf, register))
        .fold(0, |mask, feature| mask | 1 << feature.bit)
}

/// Returns the features that the model needs and the host lacks, by the result of `KVM_GET_SUPPORTED_CPUID`.
pub fn lacking(model: ModelName, supported: &[kvm_cpuid_entry2]) -> Vec<&'static str> {
    let entry = |leaf, index| supported.iter().find(|e| (e.function, e.index) == (leaf, index));
    let mut lacking: Vec<_> = FEATURES
        .iter()
        .filter(|feature| {
            feature.since <= model
                && match feature.need {
                    Need::Always => true,
                    Need::FromV2 => model >= ModelName::V2,
                    Need::Never => false,
                }
        })
        .filter(|feature| {
            let value = entry(feature.leaf, 0).map_or(0, |e| match feature.register {
                Register::Ebx => e.ebx,
                Register::Ecx => e.ecx,
                Register::Edx => e.edx,
            });
            value & 1 << feature.bit == 0
        })
        .map(|feature| feature.name)
        .collect();
    let has_components = entry(0xD, 0).is_some_and(|e| e.eax & XCR0 == XCR0);
    let has_layout = entry(0xD, 2).is_some_and(|e| (e.ebx, e.eax) == AVX_STATE);
    if model.has_xsave() && !(has_components && has_layout) {
        lacking.push("avx state");
    }
    lacking
}
