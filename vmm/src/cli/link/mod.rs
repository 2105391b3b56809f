//! `understudy link`: meets another `understudy link` on the logging channel and measures it.
//!
//! Everything that a VM's log will pass is in use: handshake, seal, channel, packet port. Only the
//! entries are made up.
//!
//! - `options`: what a user may choose
//! - `meet`: waiting for the other end
//! - `primary`, `backup`: the two ends; `entries`: what passes between them
//! - `turn`: what both do in each turn, and how a channel ends
//! - `report`: what there is to say afterwards
//! - `failure`: what can go wrong

mod backup;
mod drive;
mod entries;
mod failure;
mod meet;
mod options;
mod primary;
mod report;

pub use failure::LinkFailure;
pub use options::LinkArgs;

use super::exit_code::CliError;
use super::{output, session, signals};
use crate::link::{LogLink, now};
use crate::stdio;
use drive::End;
use logchan::ids::Role;
use report::{Measured, Report};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Meets the other end and measures.
pub fn main(args: &LinkArgs) -> Result<(), CliError> {
    args.check()?;
    let security = args.security()?;
    if args.insecure {
        stdio::message(
            "understudy: WARNING: --insecure: the channel is neither encrypted nor authenticated, \
             everybody on this network can read it and pose as either host",
        );
    }
    let stop = stop_on_signals()?;
    if let Some(core) = args.core {
        session::pin(core)?;
    }
    let mut link = LogLink::open(&args.link_options(), args.settings(), security)?;
    args.say(|| link.port().describe());
    args.say(|| args.describe());

    let met = meet::meet(&mut link, args, &stop)?;
    args.say(|| {
        let (mac, ms) = (args.peer, met.after.as_nanos() / 1_000_000);
        format!("met {mac} after {ms} ms; the session is {:016x}", met.peer.session.0)
    });
    let start = now();
    let (measured, end) = match args.role() {
        Role::Primary => {
            let (sent, end) = primary::run(&mut link, &args.plan(), &stop);
            (Measured::Sent(sent), end)
        }
        Role::Backup => {
            let (received, end) = backup::run(&mut link, &stop);
            (Measured::Received(received), end)
        }
    };
    let elapsed = now().since(start);
    let printed =
        Report { args, met: &met, measured: &measured, end: &end, elapsed }.print(&mut link);
    let outcome = match end {
        Ok(End::Left) => Ok(()),
        Ok(End::PeerLeft) => {
            args.say(|| format!("the {} said Bye", args.peer_name()));
            Ok(())
        }
        Ok(End::Silent { heard_ago }) => Err(failure::silent(&link, args, heard_ago).into()),
        Ok(End::Foreign { entry }) => Err(LinkFailure::Foreign { entry }.into()),
        Err(error) => Err(error.into()),
    };
    output::after_print(printed, outcome)
}

/// A flag that the first [signal](signals::ending) sets; the second one ends the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signals::ending() {
        // In this order: the first signal finds the flag unset.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|source| CliError::Os { doing: "installing signals", source })?;
    }
    Ok(stop)
}
