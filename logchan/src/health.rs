//! [`Unfit`]: what a host lacks to run the VM. Every frame carries its sender's.

use core::fmt;

/// Reasons why a host is unfit to run the VM. Empty: it is fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unfit(u8);

impl Unfit {
    /// The host is fit.
    pub const NONE: Self = Self(0);
    /// Frames can't pass between the VM's tap and the LAN.
    pub const LAN: Self = Self(1 << 0);
    /// The host can't reach the witness.
    pub const WITNESS: Self = Self(1 << 1);
    /// A request to a disk of the VM has failed on the host.
    pub const DISK: Self = Self(1 << 2);

    /// All reasons, with what they say about a host.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::LAN, "its VM can't reach the LAN"),
        (Self::WITNESS, "it can't reach the witness"),
        (Self::DISK, "a disk has failed"),
    ];

    /// Returns the reasons as bits: bit `i` is reason `i` of [`ALL`](Self::ALL).
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns the reasons with these bits; `None` if a bit has no meaning.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits >> Self::ALL.len() == 0).then_some(Self(bits))
    }

    /// Returns these reasons and those of `other`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether every reason in `other` is one of these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether there is no reason: the host is fit.
    pub const fn is_fit(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, text) in Self::ALL.iter().filter(|(reason, _)| self.has(*reason)) {
            write!(f, "{separator}{text}")?;
            separator = " and ";
        }
        if separator.is_empty() { f.write_str("fit") } else { Ok(()) }
    }
}
