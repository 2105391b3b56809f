//! Each measurement with small counts: the shape of its result, and that it measured what it says. No times: they
//! run beside each other.

mod checkpoint;
mod failover;
mod linux_guest;
mod log_rtt;
mod peers;
mod report;
mod running;
mod stages;
