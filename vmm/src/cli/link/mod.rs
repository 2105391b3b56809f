//! `understudy link`: connects to another `understudy link` over the logging channel and measures it.
//!
//! The measurement uses every layer that a VM's log uses: handshake, seal, channel, packet port. Only the
//! entries are artificial.
//!
//! - `options`: the command line options
//! - `meet`: waiting for the handshake with the peer
//! - `primary`, `backup`: the two ends; `entries`: the entries between them
//! - `drive`: the steps that both ends repeat, and the ways in which a channel ends
//! - `report`: the result
//! - `failure`: the failures

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

/// Runs `understudy link`: waits for the peer, measures, and prints the result.
///
/// # Errors
///
/// If an option or the key can't be used, the interface fails, no matching peer is found, or the peer falls
/// silent.
pub fn main(args: &LinkArgs) -> Result<(), CliError> {
    args.check()?;
    let security = args.security()?;
    if args.insecure {
        stdio::warning(
            "understudy: WARNING: --insecure: the channel is neither encrypted nor authenticated; \
             anyone on this network can read it and impersonate either host",
        );
    }
    let stop = stop_on_signals()?;
    if let Some(core) = args.core {
        session::pin(core)?;
    }
    let mut link = LogLink::open(&args.link_options(), args.settings(), security)?;
    args.message(|| link.port().describe());
    args.message(|| args.describe());

    let met = meet::meet(&mut link, args, &stop)?;
    args.message(|| {
        let (mac, ms) = (args.peer, met.after.as_nanos() / 1_000_000);
        format!("met {mac} after {ms} ms; session {:016x}", met.peer.session.0)
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
            args.message(|| format!("the {} ended the measurement", args.peer_name()));
            Ok(())
        }
        Ok(End::Silent { heard_ago }) => Err(failure::silent(&link, args, heard_ago).into()),
        Ok(End::UnexpectedEntry { entry }) => Err(LinkFailure::UnexpectedEntry { entry }.into()),
        Err(error) => Err(error.into()),
    };
    output::after_print(printed, outcome)
}

/// Returns a flag that the first [signal](signals::ending) sets. The second signal ends the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signals::ending() {
        // The order matters: the conditional shutdown must run before the flag is set by the first signal.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|source| CliError::Os { doing: "installing signals", source })?;
    }
    Ok(stop)
}
