//! PCI: the configuration space that every function has.

mod function;
#[cfg(test)]
mod tests;

pub(crate) use function::{Function, FunctionState, Identity, WINDOW_BYTES, window_of_slot};
