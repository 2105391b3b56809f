//! The logging channel: the whole path that the product has, from `append` to the acknowledgement.

use super::variant::{Client, PAYLOAD_BYTES, Server, check, request};
use crate::PATIENCE;
use crate::error::BenchError;
use crate::lan::{Host, INTERFACE};
use logchan::channel::{Channel, Event, Timing};
use logchan::endpoint::{EndpointEvent, Settings};
use logchan::handshake::{PresharedKey, Security};
use logchan::ids::{Lane, LogSeq, Role, Term, VmId};
use logchan::seal::{KEY_BYTES, Protection};
use logchan::time::{self, Time};
use netpath::{ReceivePath, WaitPolicy};
use std::ops::Range;
use vmm::link::{LinkOptions, LogLink, now};

/// The times that ships, but for patience: a machine that stands still for a moment must not end a
/// measurement. Frames and heartbeats are the same.
const TIMING: Timing = Timing {
    silence: time::Duration::from_millis(PATIENCE.as_millis() as u64),
    lease: time::Duration::from_millis(PATIENCE.as_millis() as u64 / 2),
    ..Timing::DEFAULT
};

const _: () = assert!(TIMING.check().is_ok());

/// The name in reports.
pub(super) const fn name(protection: Protection) -> &'static str {
    match protection {
        Protection::Sealed => "channel",
        Protection::Insecure => "channel-insecure",
    }
}

/// Opens one end of a channel, on its host.
pub(super) fn open(
    host: Host,
    protection: Protection,
    wait: WaitPolicy,
) -> Result<LogLink, BenchError> {
    let role = match host {
        Host::Client => Role::Primary,
        Host::Server => Role::Backup,
    };
    let security = match protection {
        Protection::Sealed => Security::Sealed(
            PresharedKey::from_bytes(&[0x5a; KEY_BYTES]).expect("a key that is not zero"),
        ),
        Protection::Insecure => Security::Insecure,
    };
    let mut settings = Settings::new(role, VmId(1), Term(1));
    settings.timing = TIMING;
    let receive = ReceivePath::Ring;
    let options =
        LinkOptions { interface: INTERFACE.into(), peer: host.other().mac(), wait, receive };
    Ok(LogLink::open(&options, settings, security)?)
}

/// The channel of a link whose peer was met.
pub(super) fn channel(link: &mut LogLink) -> &mut Channel {
    link.channel_mut().expect("the peer was met")
}

/// Appends, where there is room.
pub(super) fn append(
    link: &mut LogLink,
    now: Time,
    lane: Lane,
    bytes: &[u8],
) -> Result<Range<LogSeq>, BenchError> {
    let appended = channel(link).append(now, lane, bytes);
    appended.map_err(|error| BenchError::Wrong(error.to_string()))
}

/// Takes whole entries off the latency lane, which are those from `number` on; returns the number of
/// the next.
pub(super) fn read_entries(link: &mut LogLink, mut number: u64) -> Result<u64, BenchError> {
    let received = channel(link).received(Lane::Latency);
    let (entries, _part) = received.as_chunks::<PAYLOAD_BYTES>();
    let consumed = entries.len() * PAYLOAD_BYTES;
    for entry in entries {
        check(entry, number)?;
        number += 1;
    }
    channel(link).consume(Lane::Latency, consumed);
    Ok(number)
}

/// One turn of a driver up to the events, begun at `now`: sends, waits until something happens or it is
/// `until`, receives.
pub(super) fn drive(link: &mut LogLink, now: Time, until: Option<Time>) -> Result<(), BenchError> {
    link.transmit_at(now)?;
    link.wait(until)?;
    link.receive()?;
    Ok(())
}

/// The next event of a link; what ends a channel is an error.
pub(super) fn next_event(link: &mut LogLink) -> Result<Option<EndpointEvent>, BenchError> {
    let event = link.poll_event();
    match event {
        Some(EndpointEvent::Channel(Event::PeerSilent { .. })) => {
            Err(BenchError::no_answer("the other end of the channel"))
        }
        Some(
            EndpointEvent::Refused { .. }
            | EndpointEvent::Channel(
                Event::PeerTermNewer { .. }
                | Event::PeerSameRole
                | Event::PeerBye
                | Event::Left { .. },
            ),
        ) => Err(BenchError::Wrong(format!("the channel told of {event:?}"))),
        Some(
            EndpointEvent::Met { .. }
            | EndpointEvent::Channel(
                Event::LeaseHeld
                | Event::LeaseLost
                | Event::Acked { .. }
                | Event::PeerExecuted { .. }
                | Event::Room { .. },
            ),
        )
        | None => Ok(event),
    }
}

/// Drives a link until its peer was met.
pub(super) fn connect(link: &mut LogLink) -> Result<(), BenchError> {
    let until = patience();
    loop {
        while let Some(event) = next_event(link)? {
            if let EndpointEvent::Met { .. } = event {
                return Ok(());
            }
        }
        let now = now();
        if now > until {
            return Err(BenchError::no_answer("the other end of the channel"));
        }
        drive(link, now, Some(until))?;
    }
}

/// When to give up, from now on.
pub(super) fn patience() -> Time {
    now() + TIMING.silence
}

/// The primary's end.
pub(super) struct ChannelClient(LogLink);

impl ChannelClient {
    /// Opens it, and meets the backup.
    pub(super) fn open(protection: Protection, wait: WaitPolicy) -> Result<Self, BenchError> {
        let mut link = open(Host::Client, protection, wait)?;
        connect(&mut link)?;
        Ok(ChannelClient(link))
    }

    /// Drives the link from `begun` until everything before `position` is acknowledged.
    fn wait_for_ack(&mut self, begun: Time, position: LogSeq) -> Result<(), BenchError> {
        let link = &mut self.0;
        let mut begun = Some(begun);
        loop {
            let now = begun.take().unwrap_or_else(now);
            drive(link, now, None)?;
            while let Some(event) = next_event(link)? {
                if let EndpointEvent::Channel(Event::Acked { up_to }) = event
                    && up_to >= position
                {
                    return Ok(());
                }
            }
        }
    }
}

impl Client for ChannelClient {
    fn exchange(&mut self, now: Time, number: u64) -> Result<(), BenchError> {
        let appended = append(&mut self.0, now, Lane::Latency, &request(number))?;
        self.wait_for_ack(now, appended.end)
    }

    fn rest(&mut self, until: Time) -> Result<(), BenchError> {
        loop {
            let now = now();
            if now >= until {
                return Ok(());
            }
            drive(&mut self.0, now, Some(until))?;
            while next_event(&mut self.0)?.is_some() {}
        }
    }
}

/// The backup's end.
pub(super) struct ChannelServer(LogLink);

impl ChannelServer {
    /// Opens it. The primary is met at the first use.
    pub(super) fn open(protection: Protection, wait: WaitPolicy) -> Result<Self, BenchError> {
        Ok(ChannelServer(open(Host::Server, protection, wait)?))
    }
}

impl Server for ChannelServer {
    fn serve(&mut self, count: u64) -> Result<(), BenchError> {
        let link = &mut self.0;
        connect(link)?;
        let mut number = 0;
        while number < count {
            drive(link, now(), None)?;
            while next_event(link)?.is_some() {}
            number = read_entries(link, number)?;
        }
        // The last acknowledgement.
        link.transmit()?;
        Ok(())
    }
}
