//! A VM on two hosts, each of them a namespace, as the program that ships runs it. There is one such pair at a
//! time ([`tests::alone`]).

mod divergence;
mod frozen;
mod full_memory;
mod host_faults;
mod kills;
mod link;
mod mistakes;
mod orderly;
mod output_rule;
mod status;
mod stdio;
