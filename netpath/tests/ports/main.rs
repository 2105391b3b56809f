//! Ports on real taps and veth pairs. Each test has its own network namespaces; all need root.

#[path = "../common/mod.rs"]
mod common;

mod frame_sender;
mod lan_health;
mod packet;
mod packet_link;
mod packet_time;
mod tap;
mod tap_open;
mod wait_any;
mod wait_signal;
