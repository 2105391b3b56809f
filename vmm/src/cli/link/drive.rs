//! The steps that both ends repeat (receive, wait), and the ways in which a channel ends.

use crate::link::{LogLink, now};
use logchan::channel::Event;
use logchan::endpoint::EndpointEvent;
use logchan::time::{Duration, Time};
use netpath::PortError;

/// Longest wait. It limits the delay of a signal that arrives after its flag was checked and before the wait
/// begins.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// How a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This side sent Bye, and the peer confirmed it.
    Left,
    /// The peer sent Bye.
    PeerLeft,
    /// Nothing was received from the peer for the silence timeout, or the peer did not confirm our Bye.
    Silent {
        /// Time since the last frame from the peer.
        heard_ago: Duration,
    },
    /// The peer sent an entry that `understudy link` does not send.
    UnexpectedEntry {
        /// Number of the entry.
        entry: u64,
    },
}

/// Receives frames and handles the channel's events. Returns how the channel ended, if it did.
pub(super) fn receive_events(link: &mut LogLink) -> Result<Option<End>, PortError> {
    link.receive()?;
    let mut end = None;
    while let Some(event) = link.poll_event() {
        let EndpointEvent::Channel(event) = event else {
            // The channel is bound to its peer; handshakes of other peers are not answered.
            continue;
        };
        let ended = match event {
            Event::PeerSilent { heard_at } => {
                Some(End::Silent { heard_ago: now().since(heard_at) })
            }
            // `understudy link` has no supervisor, but its peer may be another program with the key.
            Event::PeerGone => Some(End::Silent { heard_ago: Duration::ZERO }),
            Event::PeerBye => Some(End::PeerLeft),
            Event::Left { confirmed: true } => Some(End::Left),
            Event::Left { confirmed: false } => {
                let heard_at = link.channel().map(|channel| channel.heard_at());
                Some(End::Silent { heard_ago: now().since(heard_at.unwrap_or_default()) })
            }
            // The handshake compared terms and roles. Frames that contradict it are counted.
            Event::PeerTermNewer { .. } | Event::PeerSameRole => None,
            // The primary and the backup query these states where they need them.
            Event::LeaseHeld
            | Event::LeaseLost
            | Event::Acked { .. }
            | Event::PeerExecuted { .. }
            | Event::Room { .. } => None,
        };
        end = end.or(ended);
    }
    Ok(end)
}

/// Waits until there is work or until `until`, but no longer than [`WAIT_MAX`].
pub(super) fn wait_for_work(link: &mut LogLink, until: Option<Time>) -> Result<(), PortError> {
    let latest = now() + WAIT_MAX;
    let until = until.map_or(latest, |until| until.min(latest));
    link.wait(Some(until)).map(drop)
}

/// Answers the peer for a while after its Bye: the peer repeats the Bye until it receives a confirmation.
pub(super) fn linger(link: &mut LogLink) -> Result<(), PortError> {
    let timing = link.endpoint().settings().timing;
    let latest = now() + timing.silence;
    loop {
        link.receive()?;
        link.transmit()?;
        let heard_at = link.channel().map_or_else(now, |channel| channel.heard_at());
        let end = latest.min(heard_at + timing.retransmit_max * 5);
        if now() >= end {
            return Ok(());
        }
        wait_for_work(link, Some(end))?;
    }
}
