//! What both ends do in each turn, and how a channel ends.

use crate::link::{LogLink, now};
use logchan::channel::Event;
use logchan::endpoint::EndpointEvent;
use logchan::time::{Duration, Time};
use netpath::PortError;

/// Longest wait: a signal that comes between the look at its flag and the wait is not lost for
/// longer.
const STOP_WITHIN: Duration = Duration::from_millis(100);

/// How a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// We said Bye, and the peer heard it.
    Left,
    /// The peer said Bye.
    PeerLeft,
    /// The peer was not heard for the silence timeout; or it did not answer our Bye.
    Silent {
        /// For how long.
        heard_ago: Duration,
    },
    /// The peer sent an entry that is none of ours.
    Foreign {
        /// Which one.
        entry: u64,
    },
}

/// Takes in what arrived; how the channel ended, if it did.
pub(super) fn take_in(link: &mut LogLink) -> Result<Option<End>, PortError> {
    link.receive()?;
    let mut end = None;
    while let Some(event) = link.poll_event() {
        let EndpointEvent::Channel(event) = event else {
            // A channel is bound to the peer that was met: nobody else is answered.
            continue;
        };
        let ended = match event {
            Event::PeerSilent { heard_at } => {
                Some(End::Silent { heard_ago: now().since(heard_at) })
            }
            Event::PeerBye => Some(End::PeerLeft),
            Event::Left { confirmed: true } => Some(End::Left),
            Event::Left { confirmed: false } => {
                let heard_at = link.channel().map(|channel| channel.heard_at());
                Some(End::Silent { heard_ago: now().since(heard_at.unwrap_or_default()) })
            }
            // The handshake compared terms and roles; what contradicts it is counted.
            Event::PeerTermNewer { .. } | Event::PeerSameRole => None,
            // Asked for where they matter.
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

/// Waits until there is something to do, `until` at most; never for long.
pub(super) fn wait_for_work(link: &mut LogLink, until: Option<Time>) -> Result<(), PortError> {
    let look_again = now() + STOP_WITHIN;
    let until = until.map_or(look_again, |until| until.min(look_again));
    link.wait(Some(until)).map(drop)
}

/// Answers for a while: the peer said Bye, and says it again until it hears that it was heard.
pub(super) fn see_off(link: &mut LogLink) -> Result<(), PortError> {
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
