//! understudy: a virtual machine monitor in which every nondeterministic input passes one boundary, so that a
//! run can be recorded, replayed, and followed by a backup on a second host.
//!
//! | module | contents |
//! |---|---|
//! | [`kvm`] | everything that talks to `/dev/kvm` |
//! | [`mem`] | guest memory: layout, dirty pages, digest |
//! | [`boot`] | guest images, PVH boot, the CPU model, the sweep for forbidden instructions |
//! | [`bus`], [`irq`], [`devices`] | the port and MMIO bus, the interrupt controller, the devices |
//! | [`vcpu`] | the machine and the run loop |
//! | [`replay`] | the nondeterminism boundary: live, recording and replaying implementations |
//! | [`replica`] | the replication engine: who may send output, which output may leave, when to take over; pure |
//! | [`pair`] | connects the engine with a real machine, logging channel, tap and witness |
//! | [`checkpoint`] | the whole machine state as data |
//! | [`link`] | the logging channel over a network interface |
//! | [`witness`] | the witness, which grants each term of a VM to exactly one process |
//! | [`telemetry`] | how long a frame takes through each stage of the machine |
//! | [`stdio`] | standard output and standard error, which may fail at any time |
//! | [`demo`] | demonstrations with the hosts, VM processes and clients of the crate `testbed` |
//! | [`cli`] | the program `understudy` |

pub mod boot;
pub mod bus;
pub mod checkpoint;
pub mod cli;
pub mod demo;
pub mod devices;
pub mod irq;
pub mod kvm;
pub mod link;
pub mod mem;
pub mod pair;
pub mod replay;
pub mod replica;
pub mod stdio;
pub mod telemetry;
pub mod vcpu;
pub mod witness;
