//! One VM: run, recorded, replayed, saved and restored, and what can be wrong with that.

mod linux_kernel;
mod log_damage;
mod mistakes;
mod record_replay;
mod standalone;
mod stdio;
mod wall_clock;
