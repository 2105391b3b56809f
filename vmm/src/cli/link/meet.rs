//! Waiting for the other end.

use super::LinkFailure;
use super::drive::wait_for_work;
use super::failure::advice;
use super::options::LinkArgs;
use crate::cli::exit_code::CliError;
use crate::link::diagnosis::why_nobody;
use crate::link::{LogLink, now};
use logchan::endpoint::EndpointEvent;
use logchan::handshake::{Mismatch, Peer};
use logchan::ids::Term;
use logchan::time::{Duration, Time};
use netpath::LinkState;
use std::sync::atomic::{AtomicBool, Ordering};

/// A user who sees nothing happen for this long is told what is waited for.
const NOTICE_AFTER: Duration = Duration::from_millis(2_000);

/// The other end.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) peer: Peer,
    pub(super) term: Term,
    /// How long that took.
    pub(super) after: Duration,
}

/// Asks for the peer until it is there, is shown not to fit, the time is up, or `stop`.
pub(super) fn meet(
    link: &mut LogLink,
    args: &LinkArgs,
    stop: &AtomicBool,
) -> Result<Met, CliError> {
    let start = now();
    let give_up = start + Duration::from_nanos((args.wait * 1e9) as u64);
    // Nothing comes before somebody sets the interface up; a carrier may come by itself.
    let is_down = link.port().link() == LinkState::Down;
    let mut notice = Some(if is_down { start } else { start + NOTICE_AFTER });
    let mut unproven: Option<Mismatch> = None;
    loop {
        link.receive()?;
        let event = link.poll_event();
        // In any case: the peer shall learn that it does not fit, too.
        link.transmit()?;
        match event {
            Some(EndpointEvent::Met { peer, term }) => {
                return Ok(Met { peer, term, after: now().since(start) });
            }
            Some(EndpointEvent::Refused { mismatch, proven: true }) => {
                return Err(LinkFailure::Refused { why: advice(&mismatch, true) }.into());
            }
            Some(EndpointEvent::Refused { mismatch, proven: false }) => {
                if unproven != Some(mismatch) {
                    args.say(|| format!("waiting on: {}", advice(&mismatch, false)));
                }
                (unproven, notice) = (Some(mismatch), None);
            }
            // There is no channel before somebody was met.
            Some(EndpointEvent::Channel(_)) | None => {}
        }
        let now = now();
        if now >= give_up || stop.load(Ordering::Relaxed) {
            return Err(nobody(link, args, unproven, now.since(start)).into());
        }
        if notice.is_some_and(|at| now >= at) {
            notice = None;
            let why = why(link);
            args.say(|| format!("waiting for the {} at {}: {why}", args.peer_name(), args.peer));
        }
        let until = notice.map_or(give_up, |at: Time| at.min(give_up));
        wait_for_work(link, Some(until))?;
    }
}

fn nobody(
    link: &mut LogLink,
    args: &LinkArgs,
    unproven: Option<Mismatch>,
    waited: Duration,
) -> LinkFailure {
    match unproven {
        Some(mismatch) => LinkFailure::Refused { why: advice(&mismatch, false) },
        None => LinkFailure::NobodyMet {
            peer: args.peer_name(),
            seconds: waited.as_nanos() as f64 / 1e9,
            why: why(link),
        },
    }
}

fn why(link: &mut LogLink) -> String {
    let report = link.report();
    why_nobody(&report, link.port(), link.peer())
}
