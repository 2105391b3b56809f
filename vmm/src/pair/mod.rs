//! A VM of a pair: the pure [engine](crate::replica) with a real machine, wire, tap and witness.
//!
//! - `source`: [`PairSource`], the event source behind the vCPU loop of a primary and of a backup
//! - `image`: a checkpoint as the engine wants it
//! - [`event`]: what a process of a pair tells of itself, for programs

pub mod event;
mod image;
mod source;

pub use source::{Observer, PairParts, PairSource};
