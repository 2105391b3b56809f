//! One VM: run, recorded, replayed, saved and restored, and the errors of each.

mod core_dump;
mod disks;
mod files_in_use;
mod hostile_files;
mod hostile_guest;
mod linux_kernel;
mod log_damage;
mod manual;
mod mistakes;
mod record_replay;
mod sandbox;
mod standalone;
mod stdio;
mod wall_clock;
