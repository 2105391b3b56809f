//! [`Replica`]: the state of the engine, and where each input is handled.

use super::checkpoint_receive::CheckpointReceive;
use super::checkpoint_send::CheckpointSend;
use super::claim::Claim;
use super::config::{ReplicaConfig, ReplicaConfigError, Start};
use super::event::{Command, Events, ReplicaEvent};
use super::guard::Ignored;
use super::mutant::Mutant;
use super::role::{Backup, Halt, Primary, Role, RoleName};
use super::segment::{ReplayOut, Segment};
use super::stats::ReplicaStats;
use crate::checkpoint::DeltaCache;
use logchan::channel::{Channel, Event};
use logchan::endpoint::{Endpoint, EndpointEvent, EndpointVerdict};
use logchan::entry_stats::EntryStatsTable;
use logchan::handshake::{Entropy, Security};
use logchan::ids::{Claimant, Role as End, Term};
use logchan::limits::{CONSOLE_BYTES_MAX, ENTRY_BYTES_MAX, FRAME_BYTES_MAX};
use logchan::time::Time;
use netpath::announce::{Announcer, GuestAddresses};
use netpath::hold::HoldQueue;
use netpath::limits::ANNOUNCEMENT_BYTES_MAX;

/// Term in which a VM is booted.
const FIRST_TERM: Term = Term(1);

/// Size of the largest input, bytes.
pub(super) const INPUT_BYTES_MAX: usize =
    if FRAME_BYTES_MAX > CONSOLE_BYTES_MAX { FRAME_BYTES_MAX } else { CONSOLE_BYTES_MAX };

/// One host's half of a pair. See the [module](super).
///
/// The driver repeats these steps:
///
/// 1. Inputs: [`handle_frame`](Self::handle_frame) for every frame that has arrived,
///    [`handle_witness`](Self::handle_witness), and only then
///    [`handle_timeout`](Self::handle_timeout).
/// 2. The machine runs. It asks the engine at every step, and the answer is a
///    [`Step`](super::step::Step). While the machine is paused, [`poll_copy`](Self::poll_copy).
/// 3. Results: [`poll_event`](Self::poll_event) and [`poll_command`](Self::poll_command) until `None`.
/// 4. Outputs: [`poll_transmit`](Self::poll_transmit) to the log link;
///    [`poll_tap`](Self::poll_tap) and [`pop_tap`](Self::pop_tap) to the LAN, followed by
///    [`tap_flushed`](Self::tap_flushed). If a frame left for the LAN, repeat from step 2: the machine
///    may have been waiting for room in the hold queue.
/// 5. Sleep until [`poll_timeout`](Self::poll_timeout), or until an input arrives.
///
/// `now` must not go back. One thread owns a replica. Frames and entries are handled without allocation,
/// with two exceptions: the pages of a checkpoint that a backup receives, and the first copy of a page in
/// the delta cache.
pub struct Replica {
    pub(super) config: ReplicaConfig,
    pub(super) role: Role,
    /// On a primary, the term that it runs the VM in; on a backup, the newest term that it knows of.
    pub(super) term: Term,
    /// On a backup: the owner of [`term`](Self::term), as the primary of this session reported it.
    pub(super) term_owner: Claimant,
    /// `None` on a standalone host, and after this host's part is over.
    pub(super) endpoint: Option<Endpoint>,
    /// When to reset the endpoint for another peer.
    pub(super) renew_at: Option<Time>,
    /// On a primary, outputs that may not leave yet; on a backup, outputs that the primary may not have
    /// released.
    pub(super) hold: HoldQueue,
    /// Log position behind the newest output's entry, counted over all sessions.
    pub(super) watermark: u64,
    /// Position at which the log of this session begins, in the same count.
    pub(super) log_base: u64,
    /// The deterministic segment that the VM is in.
    pub(super) segment: Segment,
    /// Replay-out in progress, after this host has gone live.
    pub(super) replay_out: Option<ReplayOut>,
    /// Watermark of the newest output that was given to the tap port and has not been flushed.
    pub(super) unflushed_output: Option<u64>,
    pub(super) addresses: GuestAddresses,
    pub(super) announcer: Announcer,
    pub(super) announcement: [u8; ANNOUNCEMENT_BYTES_MAX],
    pub(super) announcement_bytes: usize,
    /// This host was not allowed to announce at the last [`poll_tap`](Self::poll_tap).
    pub(super) announce_pending: bool,
    /// Guest time as last logged.
    pub(super) clock_ns: u64,
    /// The world's guest clock must be set before the world is asked again: the machine has gone live.
    pub(super) must_resume_clock: bool,
    /// The machine's state is invalid; its next question is answered with `Step::Invalidated`.
    pub(super) invalidated: bool,
    pub(super) sending: Option<CheckpointSend>,
    pub(super) receive: CheckpointReceive,
    /// Bases of this session's page and state deltas, in either direction.
    pub(super) cache: DeltaCache,
    /// On a primary, entries sent; on a backup, entries executed.
    pub(super) log_stats: EntryStatsTable,
    /// Buffer for one encoded entry.
    pub(super) scratch: Vec<u8>,
    /// The input that the machine borrows.
    pub(super) input: Box<[u8; INPUT_BYTES_MAX]>,
    pub(super) events: Events,
    pub(super) stats: ReplicaStats,
}

impl Replica {
    /// Creates the engine of one host; its time starts at `now`.
    ///
    /// # Errors
    ///
    /// The first bound that a value of `config` violates.
    pub fn new(
        config: ReplicaConfig,
        start: Start,
        security: Security,
        entropy: Box<dyn Entropy + Send>,
        now: Time,
    ) -> Result<Replica, ReplicaConfigError> {
        config.check()?;
        let (role, term) = match start {
            Start::Standalone => (Role::Standalone, Term(0)),
            Start::Primary => {
                (Role::Primary(Primary::Starting(Claim::first(FIRST_TERM))), FIRST_TERM)
            }
            Start::Backup => (Role::Backup(Backup::Seeking), Term(0)),
        };
        let end = match start {
            Start::Standalone => None,
            Start::Primary => Some(End::Primary),
            Start::Backup => Some(End::Backup),
        };
        let endpoint = match end {
            Some(end) => Some(Endpoint::new(config.settings(end, term), security, entropy, now)?),
            None => None,
        };
        Ok(Replica {
            role,
            term,
            term_owner: Claimant::default(),
            endpoint,
            renew_at: None,
            hold: HoldQueue::new(config.hold),
            watermark: 0,
            log_base: 0,
            segment: Segment::default(),
            replay_out: None,
            unflushed_output: None,
            addresses: GuestAddresses::new(config.mac),
            announcer: Announcer::new(),
            announcement: [0; ANNOUNCEMENT_BYTES_MAX],
            announcement_bytes: 0,
            announce_pending: true,
            clock_ns: 0,
            must_resume_clock: false,
            invalidated: false,
            sending: None,
            receive: CheckpointReceive::default(),
            cache: DeltaCache::with_pages_max(config.delta_cache_pages_max),
            log_stats: EntryStatsTable::default(),
            scratch: Vec::with_capacity(ENTRY_BYTES_MAX),
            input: Box::new([0; INPUT_BYTES_MAX]),
            events: Events::new(),
            stats: ReplicaStats::default(),
            config,
        })
    }

    /// Handles a frame from the log link, without its Ethernet header. The frame is decrypted in place.
    /// Returns `None` if this host has no endpoint (any more).
    pub fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> Option<EndpointVerdict> {
        let verdict = self.endpoint.as_mut()?.handle_frame(now, frame);
        self.process(now);
        Some(verdict)
    }

    /// Handles everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.handle_timeout(now);
        }
        if let Some(claim) = self.claim_mut() {
            claim.handle_timeout(now);
        }
        if self.renew_at.is_some_and(|at| at <= now) {
            self.renew(now);
        }
        self.process(now);
    }

    /// Stops this host's part in an orderly way: sends Bye, so that the other host does not take over.
    pub fn stop(&mut self, now: Time) {
        if let Role::Halted(_) = self.role {
            return self.ignore(Ignored::AlreadyStopped);
        }
        self.halt(Halt::Stopped);
        match self.endpoint.as_mut().and_then(Endpoint::channel_mut) {
            Some(channel) if channel.is_open() => channel.bye(now),
            Some(_) | None => self.endpoint = None,
        }
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<ReplicaEvent> {
        self.events.take()
    }

    /// Returns the next request to the witness, if one is due.
    pub fn poll_command(&mut self) -> Option<Command> {
        let claim = self.claim_mut()?;
        let Claim { term, previous, .. } = *claim;
        claim.take_due().then_some(Command::Claim { term, previous })
    }

    /// Writes the next frame for the log link to the front of `out` and returns its length.
    ///
    /// # Panics
    ///
    /// Panics if `out` is shorter than the configured frame size.
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.endpoint.as_mut()?.poll_transmit(now, out)
    }

    /// Does the same as [`poll_transmit`](Self::poll_transmit), but sends no pages.
    ///
    /// # Panics
    ///
    /// As [`poll_transmit`](Self::poll_transmit).
    pub fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.endpoint.as_mut()?.poll_transmit_log(now, out)
    }

    /// See [`Channel::heard_by`].
    pub fn heard_by(&mut self, now: Time) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.heard_by(now);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) and [`poll_tap`](Self::poll_tap) must be
    /// called next, if no other input arrives before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let endpoint = self.endpoint.as_ref().and_then(Endpoint::poll_timeout);
        let claim = match &self.role {
            Role::Primary(Primary::Starting(claim) | Primary::Losing(claim))
            | Role::Backup(Backup::Claiming(claim)) => claim.poll_timeout(),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        };
        let announcer =
            self.announcer.poll_timeout().filter(|_| !self.announce_pending).map(Time::from_nanos);
        [endpoint, claim, announcer, self.renew_at].into_iter().flatten().min()
    }

    /// Returns the current role.
    pub fn role(&self) -> RoleName {
        self.role.name()
    }

    /// Returns why this host's part is over, once nothing is left to send to the other host.
    pub fn halted(&self) -> Option<Halt> {
        match self.role {
            Role::Halted(halt) if self.endpoint.is_none() => Some(halt),
            Role::Halted(_) | Role::Standalone | Role::Primary(_) | Role::Backup(_) => None,
        }
    }

    /// Returns the term that a primary runs the VM in; on a backup, the newest term that it knows of.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Returns the channel to the other host, for queries.
    pub fn channel(&self) -> Option<&Channel> {
        self.endpoint.as_ref()?.channel()
    }

    /// Returns the endpoint of the log link, for queries.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Returns the hold queue, for queries.
    pub fn hold(&self) -> &HoldQueue {
        &self.hold
    }

    /// Returns the counters.
    pub fn stats(&self) -> &ReplicaStats {
        &self.stats
    }

    /// Returns statistics of the entries that a primary sent or a backup executed, pages included.
    pub fn log_stats(&self) -> &EntryStatsTable {
        &self.log_stats
    }

    pub(super) fn channel_mut(&mut self) -> Option<&mut Channel> {
        self.endpoint.as_mut()?.channel_mut()
    }

    pub(super) fn planted(&self, mutant: Mutant) -> bool {
        self.config.mutants.has(mutant)
    }

    pub(super) fn ignore(&mut self, why: Ignored) {
        self.stats.ignored[why.index()] += 1;
    }

    pub(super) fn emit(&mut self, event: ReplicaEvent) {
        self.events.push(event);
    }

    /// Ends this host's part: it sends no more output, and its machine stops.
    pub(super) fn halt(&mut self, halt: Halt) {
        self.role = Role::Halted(halt);
        self.hold.clear();
        self.announcer.stop();
        self.announcement_bytes = 0;
        self.unflushed_output = None;
        self.sending = None;
        self.receive = CheckpointReceive::default();
        self.renew_at = None;
        self.emit(ReplicaEvent::Halted(halt));
    }

    /// Handles the events of the endpoint, and the role changes that follow from them.
    pub(super) fn process(&mut self, now: Time) {
        // Memory that arrived in the primary's last frames is taken before its silence is handled: it may
        // complete the sync.
        self.receive_sync(now);
        while let Some(event) = self.endpoint.as_mut().and_then(Endpoint::poll_event) {
            match event {
                EndpointEvent::Met { peer, term } => {
                    self.emit(ReplicaEvent::PeerMet { peer, term });
                }
                EndpointEvent::Refused { mismatch, proven } => {
                    self.emit(ReplicaEvent::PeerRefused { mismatch, proven });
                }
                EndpointEvent::Channel(event) => self.process_channel(now, event),
            }
        }
        self.attach();
        self.emit_protected();
    }

    fn process_channel(&mut self, now: Time, event: Event) {
        match event {
            Event::PeerSilent { heard_at } => match self.role {
                Role::Primary(_) => self.backup_silent(now, heard_at),
                Role::Backup(_) => self.primary_silent(now, heard_at),
                Role::Halted(_) => self.endpoint = None,
                Role::Standalone => {}
            },
            Event::PeerBye => match self.role {
                Role::Primary(_) => self.backup_left(now),
                Role::Backup(_) => self.primary_stopped(now),
                // Both hosts stop at the same time; our own Bye has been sent.
                Role::Halted(_) | Role::Standalone => {}
            },
            Event::Left { confirmed: _ } => match self.role {
                Role::Backup(Backup::Leaving) => self.seek(now),
                Role::Halted(_) => self.endpoint = None,
                Role::Backup(_) | Role::Primary(_) | Role::Standalone => {}
            },
            Event::PeerExecuted { up_to } => self.peer_executed(up_to),
            Event::PeerTermNewer { term: _ } => self.ignore(Ignored::NewerTerm),
            // The handshake compares the roles, and they do not change within a session.
            Event::PeerSameRole
            // The channel is queried where these matter.
            | Event::LeaseHeld
            | Event::LeaseLost
            | Event::Acked { .. }
            | Event::Room { .. } => {}
        }
    }

    /// Begins the sync with a peer that was met.
    fn attach(&mut self) {
        let is_open = self.channel().is_some_and(Channel::is_open);
        match self.role {
            Role::Primary(Primary::Alone) if is_open => self.start_precopy(),
            Role::Backup(Backup::Seeking) if is_open => self.start_syncing(),
            Role::Primary(_) | Role::Backup(_) | Role::Standalone | Role::Halted(_) => {}
        }
    }

    /// Drops the session with the peer and waits for a new handshake.
    pub(super) fn renew(&mut self, now: Time) {
        self.renew_at = None;
        let end = match self.role {
            Role::Primary(_) => End::Primary,
            Role::Backup(_) => End::Backup,
            Role::Standalone | Role::Halted(_) => {
                self.endpoint = None;
                return;
            }
        };
        let settings = self.config.settings(end, self.term);
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.renew(now, settings).expect("the configuration was checked");
        }
    }

    fn claim_mut(&mut self) -> Option<&mut Claim> {
        match &mut self.role {
            Role::Primary(Primary::Starting(claim) | Primary::Losing(claim))
            | Role::Backup(Backup::Claiming(claim)) => Some(claim),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        }
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Replica");
        debug.field("role", &self.role).field("term", &self.term);
        debug.field("endpoint", &self.endpoint).field("hold", &self.hold);
        debug.finish_non_exhaustive()
    }
}
