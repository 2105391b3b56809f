//! The logging channel on a real wire, with two hosts in namespaces: `understudy link` from outside,
//! and both ends driven by the tests.

mod by_hand;
mod capture;
mod ends;
mod flood;
mod mistakes;
