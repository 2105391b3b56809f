//! [`Replica`]: the state of the engine, and where each input is handled.

use super::announcements::Announcements;
use super::checkpoint_send::CheckpointSend;
use super::claim::Claim;
use super::commit::OutputCommit;
use super::config::{ReplicaConfig, ReplicaConfigError, Start};
use super::disk::DiskState;
use super::event::{Command, Events, Loss, ReplicaEvent};
use super::guard::Ignored;
use super::health::Health;
use super::passed::Passed;
use super::resync::Resync;
use super::role::{AfterHandover, Backup, Halt, Losing, Primary, Role, RoleName};
use super::segment::{ReplayOut, is_nondeterministic};
use super::session::Session;
use super::stats::ReplicaStats;
use super::watch::WitnessWatch;
use crate::announce::GuestAddresses;
use crate::checkpoint::Image;
use crate::divergence::Divergence;
use crate::hold::HoldQueue;
use crate::log_writer::{LogSink, LogWriter, lane_of};
use crate::mutant::Mutant;
use crate::verifier::Verifier;
use crate::witness::Question;
use alloc::boxed::Box;
use core::convert::Infallible;
use logchan::channel::{Channel, Event};
use logchan::endpoint::{Endpoint, EndpointEvent, EndpointVerdict};
use logchan::entry::Entry;
use logchan::entry_stats::EntryStatsTable;
use logchan::handshake::{Entropy, Mismatch, Security};
use logchan::ids::{Claimant, Lane, Role as End, Term};
use logchan::seal::DeathNotice;
use logchan::time::Time;

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
    /// The other host.
    pub(super) session: Session,
    /// Outputs that wait.
    pub(super) commit: OutputCommit,
    pub(super) announcements: Announcements,
    /// Replay-out in progress, after this host has gone live.
    pub(super) replay_out: ReplayOut,
    /// On a primary: what the log's entries are relative to.
    pub(super) writer: LogWriter,
    /// On a backup: compares its machine with the log.
    pub(super) verifier: Verifier,
    /// On a primary: the checkpoint that is being sent.
    pub(super) sending: Option<CheckpointSend>,
    /// On a backup: a complete checkpoint that the machine has not fetched.
    pub(super) received: Option<Image>,
    /// The VM shall be handed over, as soon as no checkpoint is being sent.
    pub(super) handover: Option<AfterHandover>,
    /// Frames of the LAN that the VM has not received because of a handover.
    pub(super) passed: Passed,
    pub(super) health: Health,
    pub(super) disks: DiskState,
    /// Syncs of the backup that failed in a row.
    pub(super) resync: Resync,
    /// The question about the term that is repeated.
    pub(super) watch: WitnessWatch,
    /// The VM has ended by an order or by its guest, and the witness is told so.
    pub(super) release: Option<Claim>,
    /// The world's guest clock must be set to this value before the world is asked again: the machine has
    /// gone live. Nanoseconds.
    pub(super) resume_clock_at: Option<u64>,
    /// The machine's state is invalid; its next question is answered with `Step::Invalidated`.
    pub(super) invalidated: bool,
    /// The last divergence that this host has found.
    pub(super) divergence: Option<Box<Divergence>>,
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
        let after = config.boot_after;
        let boot =
            |again| Role::Primary(Primary::Starting(Claim::of(Question::Boot { again, after })));
        let (role, term) = match start {
            Start::Standalone => (Role::Standalone, Term(0)),
            Start::Primary => (boot(false), Term(0)),
            Start::BootAgain => (boot(true), Term(0)),
            Start::Backup => (Role::Backup(Backup::Seeking), Term(0)),
        };
        let end = match start {
            Start::Standalone => None,
            Start::Primary | Start::BootAgain => Some(End::Primary),
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
            session: Session::new(endpoint),
            commit: OutputCommit::new(config.hold, config.own_early_release_window()),
            announcements: Announcements::new(
                GuestAddresses::new(config.mac),
                config.sources.clone(),
            ),
            replay_out: ReplayOut::default(),
            writer: LogWriter::new(config.delta_cache_pages_max, config.mutants)
                .with_shared(config.shared_disks),
            verifier: Verifier::new(config.delta_cache_pages_max, config.mutants),
            sending: None,
            received: None,
            handover: None,
            passed: Passed::new(),
            health: Health::default(),
            disks: DiskState::default(),
            resync: Resync::default(),
            watch: WitnessWatch::default(),
            release: None,
            resume_clock_at: None,
            invalidated: false,
            divergence: None,
            events: Events::new(),
            stats: ReplicaStats::default(),
            config,
        })
    }

    /// Handles a frame from the log link, without its Ethernet header. The frame is decrypted in place.
    /// Returns `None` if this host has no endpoint (any more).
    pub fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> Option<EndpointVerdict> {
        if self.is_starting() {
            // Before it has a term, it meets nobody: the handshake names the term.
            return None;
        }
        let verdict = self.session.handle_frame(now, frame)?;
        self.process(now);
        Some(verdict)
    }

    /// Handles everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if !self.is_starting() {
            self.session.handle_timeout(now);
        }
        if self.cut_off_at().is_some_and(|at| at <= now)
            && let Some(channel) = self.session.channel_mut()
        {
            channel.declare_silent(now);
        }
        self.handle_stall(now);
        self.handle_disks(now);
        self.handle_resync(now);
        self.watch.handle_timeout(now);
        if let Some(claim) = self.claim_mut() {
            claim.handle_timeout(now);
        }
        if self.session.is_renewal_due(now) && !self.end_passing(now) {
            self.renew(now);
        }
        self.process(now);
    }

    /// Stops this host's part in an orderly way: sends Bye, so that the other host does not take over. Returns
    /// false, and stops nothing, on a backup to which the VM is being handed over: it may be the VM's host
    /// already.
    #[must_use]
    pub fn stop(&mut self, now: Time) -> bool {
        match &self.role {
            Role::Halted(_) => {
                self.ignore(Ignored::AlreadyStopped);
                return true;
            }
            // The VM is the backup's, which must not take this end for the VM's.
            Role::Primary(Primary::HandingOver(_)) => {
                self.halt_without_bye(Halt::HandedOver { term: Term(self.term.0 + 1) });
                return true;
            }
            Role::Backup(Backup::Claiming(_)) if self.session.is_handed_over() => return false,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) => {}
        }
        if let Role::Primary(Primary::Alone | Primary::Copying(_) | Primary::Protected(_)) =
            self.role
        {
            self.release = Some(Claim::of(Question::Release { term: self.term }));
        }
        self.halt(Halt::Stopped);
        self.session.bye_or_close(now);
        true
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<ReplicaEvent> {
        self.events.take()
    }

    /// Returns the next request to the witness, if one is due.
    pub fn poll_command(&mut self) -> Option<Command> {
        let take_due = |claim: &mut Claim| claim.take_due().then_some(claim.question);
        // One question at a time, and a claim is never delayed.
        let question = if let Some(claim) = self.claim_mut() {
            take_due(claim)
        } else if let Some(release) = &mut self.release {
            take_due(release)
        } else {
            self.watch.take_due()
        };
        question.map(Command::Ask)
    }

    /// Writes the next frame for the log link to the front of `out` and returns its length.
    ///
    /// # Panics
    ///
    /// Panics if `out` is shorter than the configured frame size.
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.session.poll_transmit(now, out)
    }

    /// Does the same as [`poll_transmit`](Self::poll_transmit), but sends no pages.
    ///
    /// # Panics
    ///
    /// As [`poll_transmit`](Self::poll_transmit).
    pub fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.session.poll_transmit_log(now, out)
    }

    /// Returns the notice that this process is gone, for its supervisor to hold: once for each session, and
    /// whenever the keys of the session were replaced. An earlier notice may be forgotten then.
    pub fn poll_death_notice(&mut self) -> Option<DeathNotice> {
        self.session.poll_death_notice()
    }

    /// See [`Channel::heard_by`].
    pub fn heard_by(&mut self, now: Time) {
        self.session.heard_by(now);
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) and [`poll_tap`](Self::poll_tap) must be
    /// called next, if no other input arrives before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let claim = match &self.role {
            Role::Primary(Primary::Starting(claim) | Primary::Losing(Losing { claim, .. }))
            | Role::Backup(Backup::Claiming(claim)) => claim.poll_timeout(),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        };
        let session = self.session.poll_timeout().filter(|_| !self.is_starting());
        let announcements = self.announcements.poll_timeout();
        let (watch, health) = (self.watch.poll_timeout(), self.health_timeout());
        let (handover, cut_off) = (self.handover_timeout(), self.cut_off_at());
        let (stall, resync) = (self.stall_timeout(), self.resync_timeout());
        let disks = self.disk_timeout();
        let due =
            [session, claim, watch, health, handover, cut_off, stall, resync, announcements, disks];
        due.into_iter().flatten().min()
    }

    /// Returns the current role.
    pub fn role(&self) -> RoleName {
        self.role.name()
    }

    /// Returns why this host's part is over, once nothing is left to send to the other host.
    pub fn halted(&self) -> Option<Halt> {
        match self.role {
            Role::Halted(halt) if self.session.is_closed() && self.release.is_none() => Some(halt),
            Role::Halted(_) | Role::Standalone | Role::Primary(_) | Role::Backup(_) => None,
        }
    }

    /// Returns the term that a primary runs the VM in; on a backup, the newest term that it knows of.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Returns the channel to the other host, for queries.
    pub fn channel(&self) -> Option<&Channel> {
        self.session.channel()
    }

    /// Returns the endpoint of the log link, for queries.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.session.endpoint()
    }

    /// Returns the hold queue, for queries.
    pub fn hold(&self) -> &HoldQueue {
        self.commit.queue()
    }

    /// Returns the counters.
    pub fn stats(&self) -> &ReplicaStats {
        &self.stats
    }

    /// Returns statistics of the entries that a primary sent or a backup executed, pages included.
    pub fn log_stats(&self) -> &EntryStatsTable {
        self.session.stats()
    }

    /// Returns the last divergence that this host has found, as a backup.
    pub fn divergence(&self) -> Option<&Divergence> {
        self.divergence.as_deref()
    }

    pub(super) fn planted(&self, mutant: Mutant) -> bool {
        self.config.mutants.has(mutant)
    }

    pub(super) fn ignore(&mut self, why: Ignored) {
        self.stats.ignored[why.index()] += 1;
    }

    pub(super) fn emit(&mut self, event: ReplicaEvent) {
        self.stats.events_dropped += u64::from(self.events.push(event));
    }

    /// Returns the session's log, to append to it.
    pub(super) fn log(&mut self, now: Time) -> (&mut LogWriter, Appending<'_>) {
        let Self { session, commit, writer, config, .. } = self;
        let assumes_time = config.mutants.has(Mutant::AssumeTimeDeterministic);
        (writer, Appending { session, commit, now, assumes_time })
    }

    /// Ends this host's part: it sends no more output, and its machine stops.
    pub(super) fn halt(&mut self, halt: Halt) {
        self.role = Role::Halted(halt);
        self.commit.clear();
        self.announcements.stop();
        self.sending = None;
        self.received = None;
        self.handover = None;
        self.passed.clear();
        self.session.cancel_renewal();
        self.emit(ReplicaEvent::Halted(halt));
    }

    /// Handles the events of the endpoint, and the role changes that follow from them.
    pub(super) fn process(&mut self, now: Time) {
        // Memory that arrived in the primary's last frames is taken before its death is handled: it may
        // complete the sync.
        self.receive_sync(now);
        self.receive_passed();
        while let Some(event) = self.session.poll_event() {
            match event {
                EndpointEvent::Met { peer, term } => {
                    self.resync.met(peer.identity.claimant);
                    self.emit(ReplicaEvent::PeerMet { peer, term });
                }
                EndpointEvent::Refused { mismatch, proven } => {
                    self.refused(mismatch);
                    self.emit(ReplicaEvent::PeerRefused { mismatch, proven });
                }
                EndpointEvent::Channel(event) => self.process_channel(now, event),
            }
        }
        self.attach(now);
        self.emit_protected(now);
        self.try_hand_over(now);
        self.pass_on(now);
        self.update_watch(now);
        self.update_health(now);
    }

    fn process_channel(&mut self, now: Time, event: Event) {
        match event {
            Event::PeerSilent { heard_at } => self.peer_lost(now, Loss::Silent { heard_at }),
            Event::PeerGone if self.planted(Mutant::IgnoreNotice) => {}
            Event::PeerGone => self.peer_lost(now, Loss::Gone),
            Event::PeerBye => match self.role {
                Role::Primary(_) => self.backup_left(now),
                Role::Backup(_) => self.primary_stopped(now),
                // Both hosts stop at the same time; our own Bye has been sent.
                Role::Halted(_) | Role::Standalone => {}
            },
            Event::Left { confirmed: _ } => match self.role {
                Role::Backup(Backup::Leaving) => self.seek(now),
                Role::Halted(_) => self.session.close(),
                // It has gone live, and ends the session in which the VM was handed over to it.
                Role::Primary(Primary::Alone) => self.renew(now),
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

    /// A peer whose configuration does not match: another primary, or one that knows of a newer term, may run the
    /// VM, too.
    fn refused(&mut self, mismatch: Mismatch) {
        match mismatch {
            Mismatch::Role { .. } | Mismatch::Replaced { .. } | Mismatch::OldPrimary { .. } => {
                self.rival_met();
            }
            Mismatch::ProtocolVersion { .. }
            | Mismatch::Vm { .. }
            | Mismatch::CpuModel { .. }
            | Mismatch::HostProfile(_)
            | Mismatch::Witness { .. }
            | Mismatch::Timing
            | Mismatch::GuestImage { .. }
            | Mismatch::Disks => {}
        }
    }

    fn is_starting(&self) -> bool {
        matches!(self.role, Role::Primary(Primary::Starting(_)))
    }

    /// Handles the death of the other host.
    fn peer_lost(&mut self, now: Time, loss: Loss) {
        match self.role {
            Role::Primary(_) => self.backup_lost(now, loss),
            Role::Backup(_) => self.primary_lost(now, loss),
            Role::Halted(_) => self.session.close(),
            Role::Standalone => {}
        }
    }

    /// Begins the sync with a peer that was met.
    fn attach(&mut self, now: Time) {
        let is_open = self.session.is_open();
        match self.role {
            // A session in which the VM was handed over to this host is kept for frames only.
            Role::Primary(Primary::Alone) if is_open && !self.session.is_handed_over() => {
                self.start_precopy(now);
            }
            Role::Backup(Backup::Seeking) if is_open => self.start_syncing(),
            Role::Primary(_) | Role::Backup(_) | Role::Standalone | Role::Halted(_) => {}
        }
    }

    /// Drops the session with the peer and waits for a new handshake.
    pub(super) fn renew(&mut self, now: Time) {
        let end = match self.role {
            Role::Primary(_) => End::Primary,
            Role::Backup(_) => End::Backup,
            Role::Standalone | Role::Halted(_) => {
                self.session.close();
                return;
            }
        };
        let settings = self.config.settings(end, self.term);
        self.session.renew(now, settings);
    }

    fn claim_mut(&mut self) -> Option<&mut Claim> {
        match &mut self.role {
            Role::Primary(Primary::Starting(claim) | Primary::Losing(Losing { claim, .. }))
            | Role::Backup(Backup::Claiming(claim)) => Some(claim),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        }
    }
}

/// The log of a session, to append to it at `now`.
pub(super) struct Appending<'a> {
    session: &'a mut Session,
    commit: &'a mut OutputCommit,
    now: Time,
    /// The planted bug [`Mutant::AssumeTimeDeterministic`].
    assumes_time: bool,
}

impl LogSink for Appending<'_> {
    type Error = Infallible;

    fn has_room(&self, lane: Lane, bytes: usize) -> bool {
        self.session.room(lane) >= bytes
    }

    fn append(&mut self, entry: &Entry<'_>) -> Result<(), Infallible> {
        self.session.append(self.now, entry);
        let assumes = self.assumes_time && matches!(entry, Entry::Clock { .. });
        if lane_of(entry) == Lane::Latency && is_nondeterministic(entry) && !assumes {
            let position = self.session.absolute(self.session.appended().0);
            self.commit.begin_segment(self.now, position);
        }
        Ok(())
    }
}

impl core::fmt::Debug for Replica {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut debug = f.debug_struct("Replica");
        debug.field("role", &self.role).field("term", &self.term);
        debug.field("session", &self.session).field("commit", &self.commit);
        debug.finish_non_exhaustive()
    }
}
