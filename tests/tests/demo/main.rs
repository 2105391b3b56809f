//! What a newcomer starts: `understudy demo` of a protected VM, with the reference guest and with Linux; the scenes of the
//! lecture; commands of the documentation. One demonstration runs at a time ([`tests::alone`]).

mod disk;
mod docs;
mod lecture;
mod linux_guest;
mod many;
mod reference;
