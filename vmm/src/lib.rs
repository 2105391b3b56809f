//! understudy: a virtual machine monitor whose every input passes one door, so that a run can be
//! recorded, replayed, and executed twice on two hosts.
//!
//! | module | what |
//! |---|---|
//! | [`kvm`] | everything that talks to `/dev/kvm` |
//! | [`mem`] | guest memory: layout, dirty pages, digest |
//! | [`boot`] | guest images, PVH boot, the CPU model, the sweep for forbidden instructions |
//! | [`bus`], [`irq`], [`devices`] | what the guest sees besides CPU and RAM |
//! | [`vcpu`] | the machine and the one loop that runs it |
//! | [`replay`] | the door: live, recording and replaying event sources |
//! | [`replica`] | who may speak for the VM, what may leave, when to take over; pure |
//! | [`checkpoint`] | the whole machine as data |
//! | [`link`] | the logging channel on a wire |
//! | [`witness`] | who may speak for a VM in a term |
//! | [`telemetry`] | how long a frame takes through each stage of the machine |
//! | [`stdio`] | standard output and standard error, which may fail at any time |
//! | [`demo`] | namespaces, VM processes and clients: demonstrations, and parts for the tests |
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
