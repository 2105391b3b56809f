//! A VM on two hosts, each in its own namespace, run by the release program. Two such pairs run at a
//! time, and fewer where a test asks for it ([`tests::alone`]).

mod announce;
mod chaos;
mod disks;
mod divergence;
mod etcd;
mod events;
mod fence;
mod flood;
mod frozen;
mod full_memory;
mod handover;
mod host_faults;
mod hostile_guest;
mod kills;
mod link;
mod linux_disk;
mod log_nic;
mod metrics;
mod mistakes;
mod neighbors;
mod orderly;
mod output_rule;
mod panics;
mod rotation;
mod sandbox;
mod secrets;
mod shared_disks;
mod slow_link;
mod status;
mod stdio;
mod supervisor;
mod terms;
mod up;
