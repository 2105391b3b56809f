//! One iteration of a host's driver, in the order of calls that a
//! [`Channel`](logchan::channel::Channel) requires.

use logchan::channel::AppendError;
use logchan::ids::Lane;
use logchan::limits::IN_FLIGHT_FRAMES_BOTH;
use logchan::seal::{SealHeader, SealKind};

use super::count::Count;
use super::host::Arrival;
use super::load::Action;
use super::model::Content;
use super::world::{Event, Sent, World, other, require_some};
use crate::sim::{Checked, Violation, require};

/// Maximum number of frames that an endpoint has to send at one moment: both lanes' windows, and frames
/// without payload.
pub(super) const FRAMES_AT_ONCE_MAX: usize = IN_FLIGHT_FRAMES_BOTH + 16;

impl World<'_> {
    /// Runs one iteration of the driver of `host`.
    pub(super) fn drive(&mut self, host: usize, actions: &[Action]) -> Checked {
        self.counts.count(Count::DriverIterations);
        self.hosts[host].wake_at = None;
        let frames_before = self.hosts[host].frames;
        // Another thread may ask for the lease before this one has run.
        self.check_lease(host)?;
        while let Some(arrival) = self.hosts[host].ring.pop_front() {
            self.handle_arrival(host, arrival)?;
        }
        let own = &mut self.hosts[host];
        let now = own.clock.shows(self.queue.now());
        own.endpoint.handle_timeout(now);
        self.check_timeout(host)?;
        let has_events = self.take_events(host)?;
        self.brief_supervisor(host)?;
        self.read(host)?;
        for action in actions {
            self.act(host, *action)?;
        }
        self.transmit(host)?;
        self.check_channel_state(host)?;
        self.check_lease(host)?;
        let frames = self.hosts[host].frames - frames_before;
        let had_work = frames > 0 || has_events || !actions.is_empty();
        self.check_wake(host, had_work)?;
        self.check_timeout(host)?;
        self.sleep(host);
        Ok(())
    }

    /// Runs an iteration that only acts and sends. Received frames and due timeouts wait.
    pub(super) fn send_only_iteration(&mut self, host: usize, actions: &[Action]) -> Checked {
        self.counts.count(Count::SendOnlyIterations);
        self.hosts[host].wake_at = None;
        self.check_lease(host)?;
        for action in actions {
            self.act(host, *action)?;
        }
        self.transmit(host)?;
        self.check_lease(host)?;
        self.sleep(host);
        if !self.hosts[host].ring.is_empty() {
            self.wake_at(host, self.queue.now());
        }
        Ok(())
    }

    /// Passes a frame to the endpoint.
    fn handle_arrival(&mut self, host: usize, arrival: Arrival) -> Checked {
        self.hosts[host].frames += 1;
        let mut bytes = std::mem::take(&mut self.scratch);
        let result = self.handle_arrival_bytes(host, arrival, &mut bytes);
        self.scratch = bytes;
        result
    }

    /// The program reads what it draws to read.
    fn read(&mut self, host: usize) -> Checked {
        for lane in Lane::ALL {
            let own = &mut self.hosts[host];
            let Some(channel) = own.endpoint.channel() else { return Ok(()) };
            let readable = channel.received(lane).len();
            if readable > 0 && own.reads_at <= self.queue.now() {
                let bytes = own.load.reads(readable);
                self.consume(host, lane, bytes)?;
            }
        }
        Ok(())
    }

    /// Reads everything that is left in a channel before it is given up.
    pub(super) fn read_rest(&mut self, host: usize) -> Checked {
        for lane in Lane::ALL {
            let Some(channel) = self.hosts[host].endpoint.channel() else { return Ok(()) };
            let bytes = channel.received(lane).len();
            self.consume(host, lane, bytes)?;
        }
        Ok(())
    }

    /// Reads `bytes` bytes and checks that the peer appended them in this order.
    fn consume(&mut self, host: usize, lane: Lane, bytes: usize) -> Checked {
        let own = &mut self.hosts[host];
        let session = &mut self.sessions[require_some(own.session)?];
        let end = &mut session.ends[host];
        let channel = require_some(own.endpoint.channel_mut())?;
        let at = end.consumed[lane.index()];
        let content = Content::new(session.id, other(host), lane);
        let read = &channel.received(lane)[..bytes];
        let differs = content.differs_at(at, read, &mut self.buffer);
        require!(
            differs.is_none(),
            "host {host} reads a wrong byte at {differs:?} of {lane:?}, session {:016x}",
            session.id
        );
        channel.consume(lane, bytes);
        end.consumed[lane.index()] += bytes as u64;
        end.wire.reads += 1;
        self.counts.add(Count::BytesRead, bytes as u64);
        Ok(())
    }

    /// Performs an action of the program.
    fn act(&mut self, host: usize, action: Action) -> Checked {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        let Some(channel) = own.endpoint.channel_mut() else { return Ok(()) };
        let session = &mut self.sessions[require_some(own.session)?];
        let end = &mut session.ends[host];
        match action {
            Action::Append(lane, bytes) => return self.append(host, lane, bytes),
            Action::RequireBulk => {
                channel.require_bulk();
                end.barriers.push_back((end.appended[0], end.appended[1]));
                self.counts.count(Count::Barriers);
            }
            Action::Execute => {
                end.executed += 1 + self.rng.below(1 << 20);
                channel.set_executed(end.executed);
            }
            Action::StopReading(ns) => own.reads_at = own.reads_at.max(now + ns),
            Action::Bye => {
                if channel.is_open() {
                    end.said_bye = true;
                    end.said_bye_at = own.clock.shows(now);
                    self.counts.count(Count::Byes);
                    self.trace.line(now, Some(host), "bye", format_args!(""));
                }
                channel.bye(own.clock.shows(now));
            }
        }
        Ok(())
    }

    /// Appends `bytes` bytes to `lane`. A refused append waits until there is room.
    pub(super) fn append(&mut self, host: usize, lane: Lane, bytes: usize) -> Checked {
        let own = &mut self.hosts[host];
        if own.refused[lane.index()].is_some() {
            return Ok(());
        }
        let channel = require_some(own.endpoint.channel_mut())?;
        let session = &mut self.sessions[require_some(own.session)?];
        let end = &mut session.ends[host];
        let start = end.appended[lane.index()];
        self.buffer.resize(bytes, 0);
        Content::new(session.id, host, lane).write(start, &mut self.buffer);
        let (was_open, room) = (channel.is_open(), channel.room(lane));
        let at = self.queue.now();
        match channel.append(own.clock.shows(at), lane, &self.buffer) {
            Ok(range) => {
                let segment = start..start + bytes as u64;
                require!(was_open && room >= bytes, "an append was accepted without room");
                require!((range.start.0..range.end.0) == segment, "{range:?} is not {segment:?}");
                end.appended[lane.index()] = segment.end;
                let bulk_waits = channel.lane_acked(Lane::Bulk) < channel.appended(Lane::Bulk);
                if lane == Lane::Latency && bulk_waits {
                    self.counts.count(Count::BehindBulk);
                }
                self.counts.count(Count::Appends);
                self.counts.add(Count::BytesAppended, bytes as u64);
                let what = format_args!("{lane:?} {}..{}", segment.start, segment.end);
                self.trace.line(at, Some(host), "append", what);
            }
            Err(AppendError::Full { room: reported }) => {
                let is_right = was_open && reported == room && room < bytes;
                require!(is_right, "full with room {reported} reported, {room} actual");
                own.refused[lane.index()] = Some(bytes);
                self.counts.count(Count::Refused);
                self.trace.line(at, Some(host), "full", format_args!("{lane:?} {bytes}"));
            }
            Err(AppendError::Over) => require!(!was_open, "an open channel refuses as ended"),
        }
        Ok(())
    }

    /// Sends frames until the endpoint has none or the driver's backlog is full.
    fn transmit(&mut self, host: usize) -> Checked {
        let at = self.queue.now();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(self.options.hosts[host].mtu, 0);
        let mut result = Ok(());
        let mut frames = 0;
        while result.is_ok() {
            if let Some(backlog_bytes_max) = self.options.hosts[host].backlog_bytes_max {
                let drained_at = self.links[host].drained_at(at, backlog_bytes_max);
                if drained_at > at {
                    self.wake_at(host, drained_at);
                    break;
                }
            }
            let own = &mut self.hosts[host];
            let now = own.clock.shows(at);
            let Some(length) = own.endpoint.poll_transmit(now, &mut buffer) else { break };
            frames += 1;
            result = self.send(host, &buffer[..length]);
            if result.is_ok() && frames > FRAMES_AT_ONCE_MAX {
                let what = format!("host {host} sends {frames} frames at one moment");
                result = Err(Violation(what));
            }
        }
        self.buffer = buffer;
        result
    }

    /// Checks a frame that `host` sends, and gives it to the link.
    fn send(&mut self, host: usize, frame: &[u8]) -> Checked {
        let at = self.queue.now();
        let own = &mut self.hosts[host];
        own.frames += 1;
        let now = own.clock.shows(at);
        let header = SealHeader::decode(frame);
        let header = header.map_err(|error| Violation(format!("host {host} sends {error}")))?;
        let kind = header.kind;
        let (is_data, is_opening) = match kind {
            SealKind::Data => (true, false),
            SealKind::Confirm => (false, false),
            SealKind::Request | SealKind::Challenge | SealKind::Initiation | SealKind::Response => {
                (false, true)
            }
            SealKind::DeathNotice => {
                return Err(Violation(format!("host {host} sends its own death notice")));
            }
        };
        let handshakes = self.hosts[other(host)].endpoint.link_stats().sessions;
        let is_data_withheld = self.is_data_withheld(host) || self.is_data_withheld(other(host));
        let mut sent =
            Sent { from: Some(host), at: now, handshakes, is_data_withheld, ..Sent::made_up() };
        if is_data {
            let own = &self.hosts[host];
            let session = &mut self.sessions[require_some(own.session)?];
            let end = &mut session.ends[host];
            end.frames_sent += 1;
            sent.session = Some(session.id);
            sent.number = end.frames_sent;
            sent.is_bye = end.said_bye && end.ended.is_none();
            let mtus = self.options.hosts.each_ref().map(|host| host.mtu);
            let mtu = mtus[0].min(mtus[1]);
            require!(frame.len() <= mtu, "a frame of {} bytes for {mtu}", frame.len());
            if !self.options.sealed {
                self.check_sent(host, frame)?;
            }
        }
        self.check_handshake(host, &header, frame)?;
        self.counts.count(Count::Frames);
        self.counts.add(Count::Bytes, frame.len() as u64);
        let id = self.frames.push(frame, sent);
        if !is_data {
            self.attacker.handshakes.push(id);
            self.replay_handshakes(host);
        }
        let (key, number) = (header.key_id, sent.number);
        let what = format_args!("#{:06} {} bytes: {kind:?} {key:08x} {number}", id.0, frame.len());
        self.trace.line(at, Some(host), "send", what);
        if self.is_held(host, id, is_opening) {
            return Ok(());
        }
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.links[host].offer(at, frame.len(), &mut deliveries);
        for delivery in deliveries.drain(..) {
            let (damage, pad) = (delivery.damage, delivery.pad);
            let arrival = Arrival { frame: id, damage, pad };
            self.queue.push(delivery.at, Event::Arrive { to: other(host), arrival });
        }
        self.deliveries = deliveries;
        Ok(())
    }

    /// Schedules the wake-up for the next timeout of the endpoint, and for reading.
    fn sleep(&mut self, host: usize) {
        let at = self.queue.now();
        let own = &mut self.hosts[host];
        let next = own.endpoint.poll_timeout();
        let timer_at = next.map(|next| own.clock.when(next));
        let reads_at = own.reads_at;
        if let Some(timer_at) = timer_at {
            let late_ns = self.rng.below(self.options.hosts[host].wake_ns_max + 1);
            self.wake_at(host, timer_at.max(at) + late_ns);
        }
        if reads_at > at {
            self.wake_at(host, reads_at);
        }
    }
}
