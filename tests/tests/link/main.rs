//! The logging channel on a real wire, two hosts in namespaces: `understudy link` from outside, and both ends
//! driven by hand.

mod by_hand;
mod capture;
mod ends;
mod flood;
mod mistakes;
