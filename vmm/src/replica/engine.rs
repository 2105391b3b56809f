//! [`Replica`]: what comes in, and where it goes.

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

/// The term in which a VM is booted.
const FIRST_TERM: Term = Term(1);

/// Bytes of the largest input.
pub(super) const INPUT_BYTES_MAX: usize =
    if FRAME_BYTES_MAX > CONSOLE_BYTES_MAX { FRAME_BYTES_MAX } else { CONSOLE_BYTES_MAX };

/// One host's part in a pair. See the [module](super).
///
/// A driver's turn, again and again:
///
/// 1. inputs: [`handle_frame`](Self::handle_frame) for every frame that there is,
///    [`handle_witness`](Self::handle_witness), and only then
///    [`handle_timeout`](Self::handle_timeout);
/// 2. the machine, which asks at every step of its run and is told
///    [what to do](super::step::Step); [`poll_copy`](Self::poll_copy) while it stands still;
/// 3. what came of both: [`poll_event`](Self::poll_event), [`poll_command`](Self::poll_command),
///    until `None`;
/// 4. outputs: [`poll_transmit`](Self::poll_transmit) to the log link;
///    [`poll_tap`](Self::poll_tap) and [`pop_tap`](Self::pop_tap) to the LAN, and then
///    [`tap_flushed`](Self::tap_flushed). If something left for the LAN, the machine may have waited
///    for room: again from 2 on;
/// 5. [`poll_timeout`](Self::poll_timeout): sleep until then, or until something comes.
///
/// `now` must not go back. One thread owns a replica; nothing is allocated for a frame or an entry,
/// but for the pages of a checkpoint that a backup takes in, and for the copy of a page that is told of for
/// the first time.
pub struct Replica {
    pub(super) config: ReplicaConfig,
    pub(super) role: Role,
    /// The term that this host speaks in; of a backup, the newest that it knows of.
    pub(super) term: Term,
    /// Of a backup: who owns [`term`](Self::term), as the primary of this session said.
    pub(super) term_owner: Claimant,
    /// `None`: standalone, or over.
    pub(super) endpoint: Option<Endpoint>,
    /// When to be ready for another peer.
    pub(super) renew_at: Option<Time>,
    /// Outputs that may not leave yet; of a backup, those that may not have left.
    pub(super) hold: HoldQueue,
    /// Position of the newest output, over all sessions.
    pub(super) watermark: u64,
    /// Where the log of this session begins in those positions.
    pub(super) log_base: u64,
    /// What the VM does by itself just now.
    pub(super) segment: Segment,
    /// What a machine that went live owes to a stretch before.
    pub(super) replay_out: Option<ReplayOut>,
    /// The newest output that was given away, until that is known to have worked.
    pub(super) unflushed_output: Option<u64>,
    pub(super) addresses: GuestAddresses,
    pub(super) announcer: Announcer,
    pub(super) announcement: [u8; ANNOUNCEMENT_BYTES_MAX],
    pub(super) announcement_bytes: usize,
    /// Nothing could be announced when [`poll_tap`](Self::poll_tap) was asked last.
    pub(super) announce_pending: bool,
    /// Guest time as last logged.
    pub(super) clock_ns: u64,
    /// The world must be told that the machine is live.
    pub(super) must_resume_clock: bool,
    /// The machine must be told that it is void.
    pub(super) invalidated: bool,
    pub(super) sending: Option<CheckpointSend>,
    pub(super) receive: CheckpointReceive,
    /// What checkpoints of this session are told against, in either direction.
    pub(super) cache: DeltaCache,
    /// Entries sent, or executed from the log.
    pub(super) log_stats: EntryStatsTable,
    /// One entry, encoded.
    pub(super) scratch: Vec<u8>,
    /// The input that the machine is looking at.
    pub(super) input: Box<[u8; INPUT_BYTES_MAX]>,
    pub(super) events: Events,
    pub(super) stats: ReplicaStats,
}

impl Replica {
    /// One host's part from `now` on.
    ///
    /// # Errors
    ///
    /// Values of `config` that do not go together.
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

    /// Takes in a frame from the log link, its Ethernet header removed; it is opened in place.
    /// `None`: nobody listens here any more.
    pub fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> Option<EndpointVerdict> {
        let verdict = self.endpoint.as_mut()?.handle_frame(now, frame);
        self.process(now);
        Some(verdict)
    }

    /// Does what is due by `now`.
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

    /// Stops in good order: the other host is told, and does not take over.
    pub fn stop(&mut self, now: Time) {
        if let Role::Halted(_) = self.role {
            return self.ignore(Ignored::StoppedAlready);
        }
        self.halt(Halt::Stopped);
        match self.endpoint.as_mut().and_then(Endpoint::channel_mut) {
            Some(channel) if channel.is_open() => channel.bye(now),
            Some(_) | None => self.endpoint = None,
        }
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<ReplicaEvent> {
        self.events.take()
    }

    /// Whom to ask, if anybody.
    pub fn poll_command(&mut self) -> Option<Command> {
        let claim = self.claim_mut()?;
        let Claim { term, previous, .. } = *claim;
        claim.take_due().then_some(Command::Claim { term, previous })
    }

    /// Writes the next frame for the log link to the front of `out` and returns its length.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than the frames that were configured.
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.endpoint.as_mut()?.poll_transmit(now, out)
    }

    /// The same without pages.
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

    /// When [`handle_timeout`](Self::handle_timeout) must be called, and [`poll_tap`](Self::poll_tap)
    /// asked, if nothing else happens before.
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

    /// What this host is now.
    pub fn role(&self) -> RoleName {
        self.role.name()
    }

    /// Why it is over, and that nothing is left to be said to the other host.
    pub fn halted(&self) -> Option<Halt> {
        match self.role {
            Role::Halted(halt) if self.endpoint.is_none() => Some(halt),
            Role::Halted(_) | Role::Standalone | Role::Primary(_) | Role::Backup(_) => None,
        }
    }

    /// The term that this host speaks in; of a backup, the newest that it knows of.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The channel to the other host, to ask it.
    pub fn channel(&self) -> Option<&Channel> {
        self.endpoint.as_ref()?.channel()
    }

    /// The endpoint of the log link, to ask it.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// Output that waits, to ask it.
    pub fn hold(&self) -> &HoldQueue {
        &self.hold
    }

    /// The counters.
    pub fn stats(&self) -> &ReplicaStats {
        &self.stats
    }

    /// Entries sent, of a primary; executed, of a backup. Pages included.
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

    /// Nothing leaves this host any more, and its machine stops.
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

    /// Draws the consequences of what came in.
    pub(super) fn process(&mut self, now: Time) {
        // Memory that arrived with a primary's last frames counts before its silence does.
        self.take_in(now);
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
                // Both stop at once; the Bye of ours is on its way.
                Role::Halted(_) | Role::Standalone => {}
            },
            Event::Left { confirmed: _ } => match self.role {
                Role::Backup(Backup::Leaving) => self.seek(now),
                Role::Halted(_) => self.endpoint = None,
                Role::Backup(_) | Role::Primary(_) | Role::Standalone => {}
            },
            Event::PeerExecuted { up_to } => self.peer_executed(up_to),
            Event::PeerTermNewer { term: _ } => self.ignore(Ignored::NewerTerm),
            // Roles are compared when the two meet; a session's frames have one role each way.
            Event::PeerSameRole
            // Asked for where they are needed.
            | Event::LeaseHeld
            | Event::LeaseLost
            | Event::Acked { .. }
            | Event::Room { .. } => {}
        }
    }

    /// A peer that was met is given, or gives, the memory.
    fn attach(&mut self) {
        let is_open = self.channel().is_some_and(Channel::is_open);
        match self.role {
            Role::Primary(Primary::Alone) if is_open => self.begin_sync(),
            Role::Backup(Backup::Seeking) if is_open => self.begin_syncing(),
            Role::Primary(_) | Role::Backup(_) | Role::Standalone | Role::Halted(_) => {}
        }
    }

    /// Forgets the peer, and is ready for another one.
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
