//! Port of the POST codes.

pub(super) const PORT: u16 = 0x80;
