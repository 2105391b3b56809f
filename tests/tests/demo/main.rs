//! `understudy demo` of a protected VM, with the reference guest and with Linux. One demonstration runs
//! at a time ([`tests::alone`]).

mod disk;
mod linux_guest;
mod many;
mod reference;
