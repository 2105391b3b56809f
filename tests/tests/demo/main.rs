//! What a newcomer starts: `understudy demo` of a protected VM, with the reference guest and with Linux; commands of the
//! documentation. One demonstration runs at a time ([`tests::alone`]).

mod disk;
mod docs;
mod linux_guest;
mod many;
mod reference;
