//! Hosts, a LAN, VM processes, clients and captures on a single machine: what the demonstration, the end-to-end
//! tests and the benchmarks are made of.
//!
//! | module | contents |
//! |---|---|
//! | [`namespace`] | network namespaces, their links and taps |
//! | [`vm_process`], [`standalone`] | a VM in a child process; an unprotected VM with its client |
//! | [`supervisor`] | the supervisor that a VM's process started |
//! | [`pair`] | a protected VM: its LAN, its processes, their event logs, which host was live when |
//! | [`guest`] | the guests that a VM can run |
//! | [`pace`] | how fast a guest answers on this machine, and the load and time limits that follow from that |
//! | [`mod@etcd`] | a cluster of etcd servers, which can be a witness |
//! | [`clients`] | clients of a guest's services |
//! | [`disk`] | the images of a VM's disk, who writes to it, and what is on it |
//! | [`capture`] | frames of some interfaces, with kernel timestamps |
//! | [`cores`], [`busy`] | the cores that this process may use; load on them and on the memory |
//! | [`intruder`], [`guest_memory`] | hostile frames on the log link; errors in a VM's memory |
//! | [`figures`] | times of answers, and statistics |
//!
//! It runs the program `understudy` and knows only what a user sees of it: its options, its event log and its
//! exit status.
//!
//! Namespaces have names that no other process uses. Whatever is created here is removed when its value is
//! dropped, also after a failure or a panic. A type that owns both a process and the namespace in which it
//! runs drops the process first.

pub mod busy;
pub mod capture;
pub mod clients;
mod clock;
pub mod cores;
pub mod disk;
mod error;
pub mod etcd;
pub mod figures;
pub mod guest;
pub mod guest_memory;
pub mod intruder;
pub mod namespace;
pub mod pace;
pub mod pair;
pub mod standalone;
pub mod supervisor;
pub mod vm_process;

pub use error::TestbedError;
pub use guest::{Guest, GuestDisk};
pub use namespace::{Namespace, command};
pub use standalone::{GUEST_ADDRESS, HOST_CIDR, Standalone, TAP};
pub use vm_process::VmProcess;
