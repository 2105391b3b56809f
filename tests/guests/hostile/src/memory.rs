//! Guest memory by address. No address that is used here is part of a Rust object.

/// Writes a value of a plain type.
pub(crate) fn write<T>(address: u64, value: T) {
    // SAFETY: the address is outside every Rust object; if nothing is mapped there, CPL3 starts anew.
    unsafe { (address as *mut T).write_unaligned(value) };
}

/// Reads a value of a plain type, for which every bit pattern is valid.
pub(crate) fn read<T: Copy>(address: u64) -> T {
    // SAFETY: as in `write`.
    unsafe { (address as *const T).read_unaligned() }
}
