//! [`DiskBug`]: bugs that tests plant into the copy of disks and into the rules of their generations.

/// A planted bug. Tests must find each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBug {
    /// A block leaves the set of changed ones when it is sent, also if it has changed since it was read.
    BitmapClearedEarly,
    /// Any complete image is taken for the newest.
    StaleDiskBoots,
    /// A primary whose backup has left goes on in the generation that the backup's image has.
    ByeKeepsGeneration,
}

/// The bug that is planted; there is none outside of tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskBugs {
    bug: Option<DiskBug>,
}

impl DiskBugs {
    /// Plants `bug`.
    #[cfg(any(test, feature = "host-tests"))]
    pub fn planted(bug: DiskBug) -> DiskBugs {
        DiskBugs { bug: Some(bug) }
    }

    /// Returns whether `bug` is planted.
    pub fn has(self, bug: DiskBug) -> bool {
        self.bug == Some(bug)
    }
}
