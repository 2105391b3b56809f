//! Shared disks of a pair: both hosts have the same image, and only the host that speaks for the VM executes requests.
//!
//! ```text
//!              primary                                   backup
//!   guest asks | request waits               guest asks | request waits (the same position)
//!              |   <---- acknowledgement ----            |
//!              | write begins                            |
//!              | done                                    |
//!              v                                         v
//!   completion enters at a position --- disk-done -----> completion enters, with the data of the log
//!                                   (status, data)
//! ```
//!
//! A change of a shared disk is an output: the disk outlives the primary, and a backup that takes over must come to the same
//! change. So it is begun only when the backup holds the log up to the request, and while the lease is held. The guest runs
//! on meanwhile. What the guest reads travels in the log: the backup uses no disk.
//!
//! | request | a protected primary begins it when |
//! |---|---|
//! | read | no earlier change of the same sectors waits |
//! | change | its log is acknowledged, and the completions of earlier requests for the same sectors are, too |
//! | flush | no earlier change waits |
//!
//! The second condition of a change makes it right to repeat requests. A backup that takes over has in flight what its log
//! has no completion of, and begins all of it, in the order of the numbers. The dead primary may have executed any of it. If
//! it had executed a change, the backup's log has the completion of everything before it that it overlaps. So no change is
//! repeated after a later one, and no read is repeated after a change that followed it.
//!
//! A late request of the dead primary could still arrive after that: a host goes live only after a fence (the witness's
//! answer waits for it), and a host that hands the VM over has no request in flight. While a primary does not know whether
//! it may go on, it begins no change.

use super::disk::{LocalDisks, SharedUse};
use super::engine::Replica;
use super::role::{Backup, Losing, Primary, Role};
use super::step::Step;
use crate::boundary::{DiskOperation, DiskRequest, DiskStatus, Input};
use crate::log_writer::read_digest;
use crate::mutant::Mutant;
use crate::verifier::{TakenInput, Verifier};
use alloc::vec::Vec;
use logchan::time::Time;

/// Bytes of a sector.
const SECTOR_BYTES: u64 = 512;

/// Whether a request was begun on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Begun,
}

/// A request to a shared disk that the guest has no completion of.
#[derive(Debug)]
struct SharedRequest {
    disk: u8,
    number: u64,
    operation: DiskOperation,
    sector: u64,
    bytes: u32,
    /// What a write that waits writes.
    data: Vec<u8>,
    /// Log position that the backup must have acknowledged before a change begins, counted over all sessions.
    release_at: u64,
    state: State,
}

impl SharedRequest {
    fn is(&self, disk: u8, number: u64) -> bool {
        (self.disk, self.number) == (disk, number)
    }

    fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Returns whether both are about the same sectors, and one of them changes these.
    fn conflicts_with(&self, other: &SharedRequest) -> bool {
        let end = |one: &SharedRequest| one.sector + u64::from(one.bytes).div_ceil(SECTOR_BYTES);
        self.disk == other.disk
            && (self.operation.modifies() || other.operation.modifies())
            && self.sector < end(other)
            && other.sector < end(self)
    }
}

/// Which requests to shared disks this host may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// None.
    None,
    /// Those that change nothing.
    Reads,
    /// Also changes whose log is acknowledged up to here.
    Committed(u64),
    /// All: no other host can take over.
    All,
}

/// Requests to shared disks that the guest has no completion of, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct SharedRequests {
    requests: Vec<SharedRequest>,
    /// What the host was told last.
    used: SharedUse,
    /// A handover waits, and nothing that was begun is in flight any more.
    is_quiet: bool,
}

impl SharedRequests {
    /// Returns whether a read was begun whose completion has not entered the guest.
    pub(super) fn is_reading(&self) -> bool {
        let is_reading =
            |one: &SharedRequest| one.operation == DiskOperation::Read && one.state == State::Begun;
        self.requests.iter().any(is_reading)
    }

    /// A completion was delivered to the guest.
    pub(super) fn delivered(&mut self, disk: u8, number: u64) {
        self.requests.retain(|one| !one.is(disk, number));
    }

    /// The machine that made the requests is gone.
    pub(super) fn forget(&mut self) {
        self.requests.clear();
    }

    /// Returns whether the request at `index` may begin for a host with `right`.
    fn may_begin(&self, index: usize, right: Right) -> bool {
        let own = &self.requests[index];
        let mut earlier = self.requests[..index].iter().filter(|one| one.disk == own.disk);
        match own.operation {
            DiskOperation::Read => !earlier.any(|one| one.is_waiting() && one.conflicts_with(own)),
            DiskOperation::Flush => {
                !earlier.any(|one| one.is_waiting() && one.operation.modifies())
            }
            DiskOperation::Write | DiskOperation::Discard | DiskOperation::WriteZeroes => {
                match right {
                    Right::None | Right::Reads => false,
                    Right::Committed(acked) => {
                        own.release_at <= acked && !earlier.any(|one| one.conflicts_with(own))
                    }
                    Right::All => !earlier.any(|one| one.is_waiting() && one.conflicts_with(own)),
                }
            }
        }
    }
}

impl Replica {
    /// The guest asks a shared disk for I/O. The request waits until [`begin_shared`](Self::begin_shared) begins it.
    pub(super) fn share_request(&mut self, request: &DiskRequest<'_>) {
        let &DiskRequest { disk, number, operation, sector, bytes, data } = request;
        let release_at = self.log_end();
        self.disks.shared.requests.push(SharedRequest {
            disk,
            number,
            operation,
            sector,
            bytes,
            data: data.to_vec(),
            release_at,
            state: State::Waiting,
        });
    }

    /// Returns the log position behind the newest entry; 0 if nothing is logged.
    fn log_end(&self) -> u64 {
        match self.is_logging() {
            true => self.session.absolute(self.session.appended().0),
            false => 0,
        }
    }

    /// Returns whether both hosts share disk `disk`.
    pub fn shares(&self, disk: u8) -> bool {
        self.config.shared_disks.has(disk)
    }

    /// Returns whether a request to a shared disk waits for an acknowledgement.
    pub fn has_waiting_change(&self) -> bool {
        let waits = |one: &SharedRequest| one.is_waiting() && one.operation.modifies();
        self.is_logging() && self.disks.shared.requests.iter().any(waits)
    }

    /// Begins the requests to shared disks that may begin now. Call it after each request, and at every round of the driver's
    /// work. Read the clock immediately before: the lease is checked against `now`.
    pub fn begin_shared<W: LocalDisks>(&mut self, now: Time, world: &mut W) {
        if self.config.shared_disks.is_empty() {
            return;
        }
        let used = self.shared_use();
        if core::mem::replace(&mut self.disks.shared.used, used) != used {
            world.set_shared(used);
        }
        let right = self.shared_right(now);
        let shared = &mut self.disks.shared;
        for index in 0..shared.requests.len() {
            if right == Right::None
                || !shared.requests[index].is_waiting()
                || !shared.may_begin(index, right)
            {
                continue;
            }
            let one = &mut shared.requests[index];
            one.state = State::Begun;
            let data = core::mem::take(&mut one.data);
            let &mut SharedRequest { disk, number, operation, sector, bytes, .. } = one;
            world.begin_request(&DiskRequest {
                disk,
                number,
                operation,
                sector,
                bytes,
                data: &data,
            });
        }
        let was_quiet = shared.is_quiet;
        let mut requests = shared.requests.iter();
        shared.is_quiet = right == Right::None
            && requests.all(|one| one.is_waiting() || world.done(one.disk, one.number).is_some());
        if shared.is_quiet && !was_quiet {
            self.try_hand_over(now);
        }
    }

    /// Returns whether no request to a shared disk that this host has begun is in flight, and none begins.
    pub(super) fn shared_disks_are_quiet(&self) -> bool {
        self.config.shared_disks.is_empty()
            || self.disks.shared.is_quiet
            || self.planted(Mutant::HandOverInFlight)
    }

    /// Returns which host may use the shared disks.
    fn shared_use(&self) -> SharedUse {
        match &self.role {
            Role::Standalone
            | Role::Primary(
                Primary::Alone
                | Primary::Copying(_)
                | Primary::Protected(_)
                | Primary::Losing(Losing { handed_over: None, .. }),
            ) => SharedUse::Own,
            Role::Backup(Backup::Claiming(_)) if self.planted(Mutant::ReissueBeforeClaim) => {
                SharedUse::Own
            }
            Role::Primary(
                Primary::Starting(_)
                | Primary::HandingOver(_)
                | Primary::Losing(Losing { handed_over: Some(_), .. }),
            )
            | Role::Backup(_)
            | Role::Halted(_) => SharedUse::Other,
        }
    }

    /// Returns which requests to shared disks this host may begin at `now`.
    fn shared_right(&self, now: Time) -> Right {
        match &self.role {
            Role::Standalone | Role::Primary(Primary::Alone | Primary::Copying(_)) => Right::All,
            // The requests in flight are done first.
            Role::Primary(Primary::Protected(_)) if self.handover.is_some() => Right::None,
            Role::Primary(Primary::Protected(_))
                if self.planted(Mutant::SharedWriteUncommitted) =>
            {
                Right::All
            }
            Role::Primary(Primary::Protected(_)) => match self.session.channel() {
                Some(channel) if channel.lease_held(now) => {
                    Right::Committed(self.session.absolute(channel.acked().0))
                }
                Some(_) | None => Right::Reads,
            },
            Role::Primary(Primary::Losing(Losing { handed_over: None, .. })) => Right::Reads,
            Role::Backup(Backup::Claiming(_)) if self.planted(Mutant::ReissueBeforeClaim) => {
                Right::All
            }
            Role::Primary(
                Primary::Starting(_)
                | Primary::HandingOver(_)
                | Primary::Losing(Losing { handed_over: Some(_), .. }),
            )
            | Role::Backup(_)
            | Role::Halted(_) => Right::None,
        }
    }

    /// A completion of a request enters the guest of a live machine, and was logged if there is a backup: what overlaps with
    /// it waits until the backup has that.
    pub(super) fn shared_done_recorded(&mut self, disk: u8, number: u64) {
        let release_at = self.log_end();
        let requests = &mut self.disks.shared.requests;
        let Some(index) = requests.iter().position(|one| one.is(disk, number)) else { return };
        let (until, later) = requests.split_at_mut(index + 1);
        for one in later.iter_mut().filter(|one| one.conflicts_with(&until[index])) {
            one.release_at = one.release_at.max(release_at);
        }
    }

    /// Delivers the completion at the front of the log, of the request `number` to the shared disk `disk`.
    pub(super) fn follow_shared<'a>(
        &'a mut self,
        now: Time,
        disk: u8,
        number: u64,
    ) -> Step<Option<Input<'a>>> {
        let taken = match self.follow(now, Verifier::next_input) {
            Step::Ready(Some(taken)) => taken,
            Step::Ready(None) => unreachable!("the log has a completion"),
            Step::Pending => return Step::Pending,
            Step::Invalidated => return Step::Invalidated,
        };
        let requests = &self.disks.shared.requests;
        let expected =
            requests.iter().find(|one| one.is(disk, number)).map(|one| one.operation_bytes());
        let TakenInput::Disk(logged) = taken else { unreachable!("the log has a completion") };
        let is_whole = match (logged.status, expected) {
            (_, None) => false,
            (DiskStatus::Failed, Some(_)) => logged.length == 0,
            (DiskStatus::Done, Some(bytes)) => logged.length == bytes,
        };
        let is_intact = match self.verifier.input(taken) {
            Input::Disk(done) => read_digest(done.data) == logged.digest,
            Input::Clock { .. } | Input::Frame(_) | Input::Console(_) => false,
        };
        if !is_whole || !is_intact {
            return self.diverge_malformed(now, "the data of a read", &"others");
        }
        self.disks.delivered(disk, number);
        Step::Ready(Some(self.verifier.input(taken)))
    }

    /// This host has gone live: the requests in flight are its own from here on.
    pub(super) fn take_over_shared(&mut self) {
        if self.planted(Mutant::ReissueForgotten) {
            self.disks.shared.requests.iter_mut().for_each(|one| one.state = State::Begun);
        }
    }
}

impl SharedRequest {
    /// Returns how many bytes its completion has, if it is done.
    fn operation_bytes(&self) -> usize {
        match self.operation {
            DiskOperation::Read => self.bytes as usize,
            DiskOperation::Write
            | DiskOperation::Flush
            | DiskOperation::Discard
            | DiskOperation::WriteZeroes => 0,
        }
    }
}
