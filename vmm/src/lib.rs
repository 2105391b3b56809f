//! understudy: a virtual machine monitor in which every nondeterministic input passes one boundary, so that a
//! run can be recorded, replayed, and followed by a backup on a second host.
//!
//! | module | contents |
//! |---|---|
//! | [`files`] | opens and creates the files that a user names |
//! | [`kvm`] | everything that talks to `/dev/kvm` |
//! | [`mem`] | guest memory: layout, dirty pages, digest |
//! | [`boot`] | guest images, PVH boot, the CPU model, the sweep for forbidden instructions |
//! | [`devices`] | the devices, with the port bus and the memory bus |
//! | [`vcpu`] | the machine and the run loop |
//! | [`replay`] | the nondeterminism boundary: live, recording and replaying implementations |
//! | [`pair`] | a host of a pair: what it provides to the driver in the crate `replication`, and its status |
//! | [`checkpoint`] | the whole machine state as data |
//! | [`link`] | the logging channel over a network interface |
//! | [`sandbox`] | what the threads of a VM's process may do once it runs |
//! | [`opener`] | the process that opens for a VM's process what needs a permission |
//! | [`metrics`] | serves metrics to Prometheus |
//! | [`health`] | whether the VM can reach its LAN, watched on a thread of its own |
//! | [`disk`] | disks: their images, and the threads that read and write them |
//! | [`vm_tap`] | the VM's port on a tap that may be deleted and made again |
//! | [`witness`] | the witness, which grants each term of a VM to exactly one process |
//! | [`supervisor`] | the process that tells the peer when the VM's process is gone |
//! | [`telemetry`] | how long a frame takes through each stage of the machine |
//! | [`notify`] | tells the service manager how this process gets on |
//! | `message_limit` | how many messages may follow each other |
//! | [`stdio`] | standard output and standard error, which may fail or stall at any time |
//! | [`write_queue`] | bounded queues to threads that write, so that the vCPU thread does not wait for a reader |
//! | [`demo`] | demonstrations with the hosts, VM processes and clients of the crate `testbed` |
//! | [`cli`] | the program `understudy` |

pub mod boot;
mod bus;
pub mod checkpoint;
pub mod cli;
pub mod demo;
pub mod devices;
pub mod disk;
pub mod files;
pub mod health;
pub mod kvm;
pub mod limits;
pub mod link;
pub mod mem;
mod message_limit;
pub mod metrics;
pub mod notify;
pub mod opener;
pub mod pair;
pub mod replay;
pub mod reservation;
pub mod sandbox;
pub mod stdio;
pub mod supervisor;
pub mod telemetry;
pub mod vcpu;
pub mod vm_tap;
pub mod witness;
pub mod write_queue;
