//! Waiting for the handshake with the peer.

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

/// After this long without a peer, a message says what the program waits for.
const NOTICE_AFTER: Duration = Duration::from_millis(2_000);

/// The peer of a completed handshake.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) peer: Peer,
    pub(super) term: Term,
    /// How long the handshake took, including the wait for the peer.
    pub(super) after: Duration,
}

/// Sends handshakes until the peer answers, proves not to match, `--wait` has passed, or `stop` is set.
pub(super) fn meet(
    link: &mut LogLink,
    args: &LinkArgs,
    stop: &AtomicBool,
) -> Result<Met, CliError> {
    let start = now();
    let give_up = start + Duration::from_nanos((args.wait * 1e9) as u64);
    // An interface that is down needs the user, so the message comes at once. A missing carrier may appear
    // by itself.
    let is_down = link.port().link() == LinkState::Down;
    let mut notice = Some(if is_down { start } else { start + NOTICE_AFTER });
    let mut unproven: Option<Mismatch> = None;
    loop {
        link.receive()?;
        let event = link.poll_event();
        // Transmit before a refusal is returned, so that the peer learns about the mismatch, too.
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
                    args.message(|| format!("still waiting: {}", advice(&mismatch, false)));
                }
                (unproven, notice) = (Some(mismatch), None);
            }
            // There are no channel events before the handshake completes.
            Some(EndpointEvent::Channel(_)) | None => {}
        }
        let now = now();
        if now >= give_up || stop.load(Ordering::Relaxed) {
            return Err(no_peer(link, args, unproven, now.since(start)).into());
        }
        if notice.is_some_and(|at| now >= at) {
            notice = None;
            let why = why(link);
            args.message(|| {
                format!("waiting for the {} at {}: {why}", args.peer_name(), args.peer)
            });
        }
        let until = notice.map_or(give_up, |at: Time| at.min(give_up));
        wait_for_work(link, Some(until))?;
    }
}

fn no_peer(
    link: &mut LogLink,
    args: &LinkArgs,
    unproven: Option<Mismatch>,
    waited: Duration,
) -> LinkFailure {
    match unproven {
        Some(mismatch) => LinkFailure::Refused { why: advice(&mismatch, false) },
        None => LinkFailure::NoPeer {
            peer: args.peer_name(),
            seconds: waited.as_nanos() as f64 / 1e9,
            why: why(link),
        },
    }
}

fn why(link: &mut LogLink) -> String {
    let report = link.report();
    why_nobody(&report, link.port().name(), (link.peer(), link.vm()))
}
