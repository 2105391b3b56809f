//! The logging channel as the product uses it, from `append` to the acknowledgement.

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

/// The product's timing with a longer silence timeout and lease: a machine that stalls for a moment
/// must not end a measurement. Frames and keepalives are the same.
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

/// Opens one end of a channel. Must be called on its host.
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
    let (interface, peer) = (INTERFACE.into(), host.other().mac());
    let options = LinkOptions { interface, peer, vm: VmId(1), wait, receive };
    Ok(LogLink::open(&options, settings, security)?)
}

/// Returns the channel of a link whose handshake is complete.
pub(super) fn channel(link: &mut LogLink) -> &mut Channel {
    link.channel_mut().expect("the handshake is complete")
}

/// Appends `bytes` to `lane`; returns an error if there is no room.
pub(super) fn append(
    link: &mut LogLink,
    now: Time,
    lane: Lane,
    bytes: &[u8],
) -> Result<Range<LogSeq>, BenchError> {
    let appended = channel(link).append(now, lane, bytes);
    appended.map_err(|error| BenchError::Wrong(error.to_string()))
}

/// Consumes whole entries from the latency lane, which must be those from `number` on. Returns the
/// number of the next entry.
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

/// One iteration of a driver without the events, starting at `now`: sends, waits for a wake-up or until
/// `until`, receives.
pub(super) fn drive(link: &mut LogLink, now: Time, until: Option<Time>) -> Result<(), BenchError> {
    link.transmit_at(now)?;
    link.wait(until)?;
    link.receive()?;
    Ok(())
}

/// Returns the next event of a link. An event that ends the channel is an error.
pub(super) fn next_event(link: &mut LogLink) -> Result<Option<EndpointEvent>, BenchError> {
    let event = link.poll_event();
    match event {
        Some(EndpointEvent::Channel(Event::PeerSilent { .. } | Event::PeerGone)) => {
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
        ) => Err(BenchError::Wrong(format!("the channel reported {event:?}"))),
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

/// Drives a link until the handshake is complete.
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

/// Returns when to give up waiting, counted from now.
pub(super) fn patience() -> Time {
    now() + TIMING.silence
}

/// The primary's end.
pub(super) struct ChannelClient(LogLink);

impl ChannelClient {
    /// Opens the primary's end and completes the handshake.
    pub(super) fn open(protection: Protection, wait: WaitPolicy) -> Result<Self, BenchError> {
        let mut link = open(Host::Client, protection, wait)?;
        connect(&mut link)?;
        Ok(ChannelClient(link))
    }

    /// Drives the link, starting at `begun`, until everything before `position` is acknowledged.
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
    /// Opens the backup's end. `serve` completes the handshake.
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
        // Send the last acknowledgement.
        link.transmit()?;
        Ok(())
    }
}
