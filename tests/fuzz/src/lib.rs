//! Fuzz targets: functions of arbitrary bytes, with what must hold for all of them. None may panic, run long, or
//! allocate more than a small multiple of what it was given.
//!
//! `scripts/fuzz.sh` runs them guided by coverage (libFuzzer). `cargo test` runs them over `corpus/`, which has
//! inputs that a guided run found, and over mutations of those.

mod targets;

use std::path::PathBuf;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A log entry.
    Entry,
    /// The header and the blocks of a log file.
    Block,
    /// Frames for a link with a session, from an attacker and from a peer.
    Sealed,
    /// Frames for a link without a session.
    Handshake,
    /// Frames for a whole endpoint from a peer that has the key.
    Channel,
    /// The head of a snapshot.
    Snapshot,
    /// An ELF image.
    Elf,
    /// A Linux kernel.
    Bzimage,
    /// Rings and descriptors of the virtio devices.
    Virtqueue,
    /// Accesses to PCI configuration space, and to the windows that it places.
    Pci,
    /// A configuration file.
    Config,
}

impl Target {
    /// All targets.
    pub const ALL: [Target; 11] = [
        Target::Entry,
        Target::Block,
        Target::Sealed,
        Target::Handshake,
        Target::Channel,
        Target::Snapshot,
        Target::Elf,
        Target::Bzimage,
        Target::Virtqueue,
        Target::Pci,
        Target::Config,
    ];

    /// Returns the target's name, which is also its folder in `corpus/`.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Entry => "entry",
            Target::Block => "block",
            Target::Sealed => "sealed",
            Target::Handshake => "handshake",
            Target::Channel => "channel",
            Target::Snapshot => "snapshot",
            Target::Elf => "elf",
            Target::Bzimage => "bzimage",
            Target::Virtqueue => "virtqueue",
            Target::Pci => "pci",
            Target::Config => "config",
        }
    }

    /// Returns the target with this name.
    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Returns the folder of its inputs.
    pub fn corpus(self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name())
    }

    /// Runs the target.
    ///
    /// # Panics
    ///
    /// If what must hold for all bytes does not hold for these.
    pub fn run(self, bytes: &[u8]) {
        match self {
            Target::Entry => targets::log::entry(bytes),
            Target::Block => targets::log::block(bytes),
            Target::Sealed => targets::link::sealed(bytes),
            Target::Handshake => targets::link::handshake(bytes),
            Target::Channel => targets::link::channel(bytes),
            Target::Snapshot => targets::files::snapshot(bytes),
            Target::Elf => targets::files::elf(bytes),
            Target::Bzimage => targets::files::bzimage(bytes),
            Target::Virtqueue => targets::devices::virtqueue(bytes),
            Target::Pci => targets::devices::pci(bytes),
            Target::Config => targets::files::config(bytes),
        }
    }
}
