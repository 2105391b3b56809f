//! The supervisor of a VM's process: a small process that tells the peer at once when the VM's process is gone.
//!
//! ```text
//!   understudy primary|backup  --- hold this notice, stand down --->  understudy supervise
//!   (started by the user)                                             (its child, in a session of its own)
//!            |                                                                 |
//!            +---- ends, however it ends: the pidfd of its vCPU thread is readable ->|
//!                                                                              | 3 x the newest notice
//!                                                                              v
//!                                                                        the peer's engine
//! ```
//!
//! The VM's process stays the one that the user started: exit code, signals and standard streams are its own.
//! The supervisor is started before the VM and opens what it needs then: a packet socket that receives nothing,
//! and its end of a socket pair. It has no other descriptor of the VM and no key. It can say one thing only, the
//! notice that the VM's process has sealed for the current session ([`DeathNotice`]).
//!
//! # When the notice is true
//!
//! The notice says that nothing of the VM's process can send any more. Only the vCPU thread sends, to the LAN and to
//! the peer: it owns the tap, the engine and the channel. The supervisor waits for the pidfd of that thread
//! (`PIDFD_THREAD`, Linux 6.9), which is readable when the thread has passed `exit_notify` (`pidfd_poll` in
//! fs/pidfs.c), and for that of the process, which is readable when its last thread has (before Linux 6.9 in
//! kernel/fork.c: `exit_state` and `thread_group_empty`). In `do_exit` (kernel/exit.c), each thread does the
//! following before, in this order:
//!
//! 1. `io_uring_files_cancel` and `exit_signals`, which sets `PF_EXITING`. From here on no instruction of the
//!    program runs on the thread, and requests of its rings that have not been executed end with `ECANCELED`
//!    (io_uring/io_uring.c: `io_should_terminate_tw`). Workers of io_uring are threads of the process.
//! 2. `exit_mm` frees the memory, with the last thread. If that is the vCPU thread, the notice is late by that time.
//! 3. `exit_files` closes the descriptors, with the last thread. `fput` defers the work to
//! 4. `exit_task_work`, which does it.
//! 5. `exit_notify`.
//!
//! So after the end of the vCPU thread no instruction of the VM runs, none of its requests to a ring is executed, and
//! nothing is sent. The tap and the packet socket may be open for longer, until the last thread has passed step 4;
//! nothing uses them. What was sent before is on its way as any other frame.
//!
//! A kernel without `PIDFD_THREAD` frees the memory first (step 2), and waits for grace periods of RCU when it closes
//! the tap and KVM: the notice comes some 15 ms later, and later still with a large memory. A host that loses power
//! sends none; the silence timeout covers that.

mod message;
mod port;
mod watch;

pub use port::{Supervisor, SupervisorState};
pub use watch::{WatchError, watch};

#[cfg(doc)]
use logchan::seal::DeathNotice;
