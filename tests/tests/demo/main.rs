//! `understudy demo` of a protected VM, with the reference guest and with Linux. There is one at a time
//! ([`tests::alone`]).

mod linux_guest;
mod reference;
