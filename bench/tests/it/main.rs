//! Each benchmark with small counts: the structure of its result, and that it measured what it claims.
//! No times are checked, because the tests run at the same time.

mod checkpoint;
mod failover;
mod linux_guest;
mod log_rtt;
mod peers;
mod report;
mod running;
mod stages;
