//! Mirrored disks: what each host does about its own request and about the log's word.

use super::*;
use crate::boundary::DiskOperation;
use crate::replica::SharedUse;
use crate::replica::disk::{DISK_HOLD_MAX, DISK_WAIT_MAX};
use core::num::NonZeroU64;
use logchan::disk_copy::{DiskCopy, Generation};

const COPIED: DisksCopied = DisksCopied { size: 4, sent: 3, zero: 2, equal: 1 };

/// A host's disk, whose requests the test completes.
pub(super) struct Disk {
    /// Numbers of the requests that were begun.
    pub(super) begun: Vec<u64>,
    /// Whether it may use a disk that both hosts share.
    pub(super) used: SharedUse,
    done: VecDeque<(u64, DiskStatus, Vec<u8>)>,
    taken: Vec<u8>,
    failed_for_good: bool,
    failed: FailedRequests,
    /// How many messages its copier has.
    messages: u64,
    copy: CopyState,
    /// How its copies have ended: `None` if they were broken off.
    ends: Vec<Option<(CopyEnd, Generation, Claimant)>>,
    is_distrusted: bool,
}

impl Disk {
    pub(super) fn new() -> Disk {
        let (begun, done, taken) = (Vec::new(), VecDeque::new(), Vec::new());
        let (copy, ends) = (CopyState::Whole, Vec::new());
        Disk {
            begun,
            used: SharedUse::Other,
            done,
            taken,
            failed_for_good: false,
            failed: FailedRequests::Enter,
            messages: 0,
            copy,
            ends,
            is_distrusted: false,
        }
    }

    pub(super) fn completes(&mut self, number: u64, status: DiskStatus, data: &[u8]) {
        self.done.push_back((number, status, data.to_vec()));
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.done.iter().position(|done| done.0 == number)
    }
}

impl LocalDisks for Disk {
    fn begin_request(&mut self, request: &DiskRequest<'_>) {
        self.begun.push(request.number);
    }

    fn done(&mut self, _: u8, number: u64) -> Option<DiskStatus> {
        self.find(number).map(|index| self.done[index].1)
    }

    fn take_done(&mut self, disk: u8, number: u64) -> Option<DiskCompletion<'_>> {
        let (number, status, data) = self.done.remove(self.find(number)?)?;
        self.taken = data;
        Some(DiskCompletion { disk, number, status, data: &self.taken })
    }

    fn has_done(&mut self) -> bool {
        !self.done.is_empty()
    }

    fn set_failed(&mut self, failed: FailedRequests) -> bool {
        self.failed = failed;
        self.done.iter().any(|&(_, status, _)| status == DiskStatus::Failed)
    }

    fn set_shared(&mut self, shared: SharedUse) {
        self.used = shared;
    }

    fn fail_disk(&mut self, _: u8) {
        self.failed_for_good = true;
    }

    fn forget_requests(&mut self) {}
}

impl DiskCopier for Disk {
    fn begin_copy(&mut self, _: CopyEnd) {}

    fn end_copy(&mut self) {
        self.ends.push(None);
    }

    fn distrust(&mut self) {
        self.is_distrusted = true;
    }

    fn in_sync(
        &mut self,
        end: CopyEnd,
        generation: Generation,
        host: Claimant,
    ) -> Option<DisksCopied> {
        self.ends.push(Some((end, generation, host)));
        match end {
            CopyEnd::Send => Some(COPIED),
            CopyEnd::Receive => None,
        }
    }

    fn copy_out(&mut self) -> Option<DiskCopy<'_>> {
        self.messages = self.messages.checked_sub(1)?;
        Some(DiskCopy::Data { disk: 0, sector: 0, data: &[7; 32 << 10] })
    }

    fn copy_takes(&mut self) -> bool {
        true
    }

    fn copy_in(&mut self, _: &DiskCopy<'_>) -> Result<(), UnexpectedMessage> {
        Ok(())
    }

    fn copy_state(&mut self) -> CopyState {
        self.copy
    }
}

impl LiveInputs for Disk {
    type Error = Infallible;

    fn clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(5)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    fn next_input(&mut self, _: &DeviceCapacity) -> Result<Option<Input<'_>>, Infallible> {
        let Some(&(number, ..)) = self.done.front() else { return Ok(None) };
        Ok(self.take_done(0, number).map(Input::Disk))
    }

    fn go_live(&mut self, _: u64) {}
}

/// A pair whose VM has a disk on each host.
struct Mirrored {
    pair: Pair,
    disks: [Disk; 2],
}

/// An input, without what it borrows.
type Got = Option<(u64, DiskStatus, Vec<u8>)>;

impl Mirrored {
    fn alone(flush: FlushPolicy) -> Mirrored {
        let mut pair = Pair::new();
        for host in &mut pair.hosts {
            host.config.disks = 1;
            host.config.flush = flush;
        }
        let mut pair = pair.started();
        pair.pass(50);
        Mirrored { pair, disks: [Disk::new(), Disk::new()] }
    }

    fn protected(flush: FlushPolicy) -> Mirrored {
        let mut mirrored = Mirrored::alone(flush);
        mirrored.copy_disks();
        mirrored.pair.copy();
        mirrored.pair.close();
        mirrored.pair.pass(5);
        mirrored.pair.expect([RoleName::Protected, RoleName::Following]);
        mirrored.pair.apply();
        mirrored.copy_disks();
        mirrored
    }

    fn copy_disks(&mut self) {
        for (host, disk) in self.pair.hosts.iter_mut().zip(&mut self.disks) {
            host.copy_disks(self.pair.now, disk);
        }
    }

    fn ask(&mut self, host: usize, number: u64, operation: DiskOperation) {
        let (bytes, data): (u32, &[u8]) = match operation {
            DiskOperation::Write => (512, &[1; 512]),
            DiskOperation::Read => (512, &[]),
            DiskOperation::Flush | DiskOperation::Discard | DiskOperation::WriteZeroes => (0, &[]),
        };
        let request = DiskRequest { disk: 0, number, operation, sector: 1, bytes, data };
        let step = self.pair.hosts[host].disk_request(&mut self.disks[host], &request);
        assert_eq!(step, Step::Ready(()));
    }

    /// The guest asks on both hosts.
    fn ask_both(&mut self, number: u64, operation: DiskOperation) {
        self.ask(0, number, operation);
        self.ask(1, number, operation);
        for disk in &self.disks {
            assert_eq!(disk.begun.last(), Some(&number));
        }
    }

    fn input(&mut self, host: usize) -> Step<Got> {
        let (now, disk) = (self.pair.now, &mut self.disks[host]);
        let ready = self.pair.hosts[host].input_ready(now, disk);
        let Ok(step) = self.pair.hosts[host].next_input(now, disk, &DeviceCapacity::default());
        let step = step.map(|input| match input {
            Some(Input::Disk(done)) => Some((done.number, done.status, done.data.to_vec())),
            None => None,
            other => panic!("{other:?}"),
        });
        assert_eq!(ready == Step::Pending, step == Step::Pending);
        step
    }

    /// The primary's request is done, and its completion enters the primary's guest.
    fn enters(&mut self, number: u64, status: DiskStatus, data: &[u8]) {
        self.disks[0].completes(number, status, data);
        let got = Some((number, status, data.to_vec()));
        assert_eq!(self.input(0), Step::Ready(got));
        self.pair.exchange();
    }

    fn fault(&mut self) -> DiskFault {
        let fault = self.pair.events(1).into_iter().find_map(|event| match event {
            ReplicaEvent::DiskFault(fault) => Some(fault),
            _ => None,
        });
        assert_eq!(fault, self.pair.hosts[1].disk_fault());
        fault.expect("the backup reports why it leaves")
    }
}

pub(super) const DONE: DiskStatus = DiskStatus::Done;
const FAILED: DiskStatus = DiskStatus::Failed;

#[test]
fn completion_enters_the_backup_when_the_log_says_so_and_its_own_request_is_done() {
    let mut mirrored = Mirrored::protected(FlushPolicy::Both);
    mirrored.ask_both(1, DiskOperation::Read);
    mirrored.ask_both(2, DiskOperation::Write);
    // Its own request alone is not enough.
    mirrored.disks[1].completes(1, DONE, &[7; 512]);
    assert_eq!(mirrored.input(1), Step::Pending);
    mirrored.enters(2, DONE, &[]);
    // Nor is the log alone.
    assert_eq!(mirrored.input(1), Step::Pending);
    mirrored.disks[1].completes(2, DONE, &[]);
    assert_eq!(mirrored.input(1), Step::Ready(Some((2, DONE, Vec::new()))));
    mirrored.enters(1, DONE, &[7; 512]);
    assert_eq!(mirrored.input(1), Step::Ready(Some((1, DONE, vec![7; 512]))));
}

#[test]
fn backup_whose_disk_reads_otherwise_or_fails_leaves_and_the_primary_continues_in_a_new_term() {
    let cases = [
        (DiskOperation::Read, DONE, &[8; 512][..], DiskFaultKind::Differs),
        (DiskOperation::Read, FAILED, &[], DiskFaultKind::Failed),
        (DiskOperation::Write, FAILED, &[], DiskFaultKind::Failed),
    ];
    for (operation, status, data, kind) in cases {
        let mut mirrored = Mirrored::protected(FlushPolicy::Both);
        mirrored.ask_both(1, operation);
        mirrored.disks[1].completes(1, status, data);
        let read: &[u8] = if operation == DiskOperation::Read { &[7; 512] } else { &[] };
        mirrored.enters(1, DONE, read);
        assert_eq!(mirrored.input(1), Step::Invalidated);
        assert_eq!(mirrored.fault(), DiskFault { disk: 0, number: 1, kind });
        mirrored.pair.pass(1);
        assert_eq!(mirrored.pair.hosts[0].role(), RoleName::Losing);
        mirrored.pair.answer(0, Answer::Won { term: Term(2) });
        assert_eq!(mirrored.pair.hosts[0].role(), RoleName::Alone);
        // What differs is not known, also if this host dies now.
        assert!(!mirrored.disks[1].is_distrusted);
        mirrored.copy_disks();
        assert!(mirrored.disks[1].is_distrusted);
    }
}

#[test]
fn failure_of_the_primary_s_disk_enters_both_guests_and_the_vm_is_handed_over() {
    let mut mirrored = Mirrored::protected(FlushPolicy::Both);
    mirrored.ask_both(1, DiskOperation::Read);
    mirrored.enters(1, FAILED, &[]);
    assert_eq!(mirrored.input(1), Step::Pending);
    mirrored.disks[1].completes(1, DONE, &[7; 512]);
    assert_eq!(mirrored.input(1), Step::Ready(Some((1, FAILED, Vec::new()))));
    mirrored.pair.pass(1);
    assert_eq!(mirrored.pair.hosts[0].role(), RoleName::HandingOver);
    assert!(mirrored.pair.hosts[0].unfit().has(Unfit::DISK));
}

#[test]
fn backup_whose_disk_takes_too_long_leaves_but_waits_when_its_primary_is_dead() {
    let mut mirrored = Mirrored::protected(FlushPolicy::Both);
    mirrored.ask_both(1, DiskOperation::Write);
    mirrored.enters(1, DONE, &[]);
    assert_eq!(mirrored.input(1), Step::Pending);
    let most_ms = DISK_WAIT_MAX.as_nanos() / 1_000_000;
    mirrored.pair.pass(most_ms - 1);
    mirrored.pair.expect([RoleName::Protected, RoleName::Following]);
    mirrored.pair.pass(1);
    let kind = DiskFaultKind::Slow;
    assert_eq!(mirrored.fault(), DiskFault { disk: 0, number: 1, kind });

    let mut mirrored = Mirrored::protected(FlushPolicy::Both);
    mirrored.ask_both(1, DiskOperation::Write);
    mirrored.enters(1, DONE, &[]);
    assert_eq!(mirrored.input(1), Step::Pending);
    mirrored.pair.partition();
    mirrored.pair.pass(most_ms + 1);
    assert_eq!(mirrored.pair.hosts[1].role(), RoleName::Finishing);
    assert_eq!(mirrored.input(1), Step::Pending);
    mirrored.disks[1].completes(1, DONE, &[]);
    assert_eq!(mirrored.input(1), Step::Ready(Some((1, DONE, Vec::new()))));
}

#[test]
fn last_host_whose_write_failed_delivers_what_the_log_says_and_gives_the_disk_up() {
    let mut mirrored = Mirrored::protected(FlushPolicy::Both);
    mirrored.ask_both(1, DiskOperation::Write);
    mirrored.ask_both(2, DiskOperation::Read);
    mirrored.enters(1, DONE, &[]);
    mirrored.enters(2, DONE, &[7; 512]);
    mirrored.pair.lose(0);
    mirrored.disks[1].completes(1, FAILED, &[]);
    assert_eq!(mirrored.input(1), Step::Ready(Some((1, DONE, Vec::new()))));
    assert!(mirrored.disks[1].failed_for_good);
    // What was read can't be reproduced.
    mirrored.disks[1].completes(2, FAILED, &[]);
    assert_eq!(mirrored.input(1), Step::Invalidated);
    assert_eq!(mirrored.pair.halted(1), Halt::Diverged);
}

#[test]
fn new_primary_takes_completions_of_the_requests_in_flight_and_begins_none_again() {
    let mut mirrored = Mirrored::protected(FlushPolicy::Both);
    mirrored.ask_both(1, DiskOperation::Write);
    mirrored.ask_both(2, DiskOperation::Write);
    mirrored.enters(2, DONE, &[]);
    mirrored.pair.lose(0);
    mirrored.disks[1].completes(1, DONE, &[]);
    mirrored.disks[1].completes(2, DONE, &[]);
    // The log's completions come first, in its order.
    assert_eq!(mirrored.input(1), Step::Ready(Some((2, DONE, Vec::new()))));
    assert_eq!(mirrored.input(1), Step::Pending);
    mirrored.pair.answer(1, Answer::Won { term: Term(2) });
    mirrored.pair.hosts[1].replay_out.end();
    assert_eq!(mirrored.input(1), Step::Ready(Some((1, DONE, Vec::new()))));
    assert_eq!(mirrored.disks[1].begun, [1, 2]);
    assert!(!mirrored.pair.hosts[1].awaits_disk());
}

#[test]
fn output_after_a_flush_waits_until_the_backup_has_executed_it() {
    for (flush, leaves_at_once) in [(FlushPolicy::Both, false), (FlushPolicy::Local, true)] {
        let mut mirrored = Mirrored::protected(flush);
        mirrored.ask_both(1, DiskOperation::Flush);
        mirrored.enters(1, DONE, &[]);
        let Pair { hosts, now, .. } = &mut mirrored.pair;
        assert_eq!(hosts[0].output(*now, &[1; 60]), Step::Ready(()));
        mirrored.pair.pass(1);
        let leaves = mirrored.pair.hosts[0].poll_tap(mirrored.pair.now).is_some();
        assert_eq!(leaves, leaves_at_once, "{flush:?}");
        mirrored.disks[1].completes(1, DONE, &[]);
        assert_eq!(mirrored.input(1), Step::Ready(Some((1, DONE, Vec::new()))));
        // The backup says so at once, and not with its next heartbeat.
        assert!(mirrored.pair.hosts[1].take_report_due());
        mirrored.pair.exchange();
        assert!(mirrored.pair.hosts[0].poll_tap(mirrored.pair.now).is_some());
    }
}

#[test]
fn memory_is_copied_when_the_disks_nearly_are_and_the_sync_closed_when_they_are() {
    let mut mirrored = Mirrored::alone(FlushPolicy::Both);
    for (bytes_left, begins) in [(1 << 30, false), (1 << 20, true)] {
        mirrored.disks[0].copy = CopyState::Running { bytes_left };
        mirrored.copy_disks();
        let request = mirrored.pair.hosts[0].poll_copy();
        assert_eq!(request, begins.then_some(CopyRequest::Begin));
    }
    let Pair { hosts: [primary, _], now, .. } = &mut mirrored.pair;
    primary.copy_begun(*now);
    primary.copied(*now, &[7; PAGE_BYTES]);
    mirrored.pair.exchange();
    let Pair { hosts: [primary, _], now, .. } = &mut mirrored.pair;
    primary.written(*now, Vec::new());
    assert_eq!(primary.next_region(*now), Step::Ready(NextRegion::Run));
    mirrored.disks[0].copy = CopyState::Whole;
    mirrored.copy_disks();
    let Pair { hosts: [primary, _], now, .. } = &mut mirrored.pair;
    assert_eq!(primary.next_region(*now), Step::Ready(NextRegion::Capture));
}

#[test]
fn failure_waits_for_a_fit_backup_which_takes_the_vm_over_and_enters_if_that_is_lost() {
    for is_lost in [false, true] {
        let mut mirrored = Mirrored::protected(FlushPolicy::Both);
        mirrored.ask_both(1, DiskOperation::Write);
        mirrored.disks[0].completes(1, DiskStatus::Failed, &[]);
        let Mirrored { pair, disks } = &mut mirrored;
        if is_lost {
            pair.lose(1);
        }
        pair.hosts[0].keep_failed_requests(pair.now, &mut disks[0]);
        let expected = if is_lost { FailedRequests::Enter } else { FailedRequests::Wait };
        assert_eq!(disks[0].failed, expected);
        assert_eq!(pair.hosts[0].role() == RoleName::HandingOver, !is_lost);
        assert_eq!(pair.hosts[0].unfit().has(Unfit::DISK), !is_lost, "not before it enters");
        pair.hosts[0].keep_failed_requests(pair.now, &mut disks[0]);
        assert_eq!(disks[0].failed, expected, "also while it is handed over");
    }
}

#[test]
fn copy_of_disks_has_its_rate_but_for_the_rest() {
    let mut mirrored = Mirrored::alone(FlushPolicy::Both);
    mirrored.pair.hosts[0].config.disk_copy_per_s = NonZeroU64::new(2_000_000);
    mirrored.disks[0].copy = CopyState::Running { bytes_left: 1 << 30 };
    mirrored.disks[0].messages = 1_000_000;
    mirrored.copy_disks();
    let before = mirrored.disks[0].messages;
    for _ in 0..1000 {
        mirrored.pair.pass(1);
        mirrored.copy_disks();
    }
    let in_a_second = (before - mirrored.disks[0].messages) * (32 << 10);
    assert!((1_900_000..=2_100_000).contains(&in_a_second), "{in_a_second}");
    let next = mirrored.pair.hosts[0].disk_timeout().expect("the next message has its time");
    assert!(next > mirrored.pair.now);
    mirrored.disks[0].copy = CopyState::Running { bytes_left: 1 << 20 };
    mirrored.copy_disks();
    let before = mirrored.disks[0].messages;
    mirrored.pair.pass(1);
    mirrored.copy_disks();
    assert!(before - mirrored.disks[0].messages > 1);
    assert_eq!(mirrored.pair.hosts[0].disk_timeout(), None);
}

#[test]
fn guest_that_writes_as_fast_as_its_disks_are_copied_is_slowed_and_then_told_why_not() {
    let mut mirrored = Mirrored::alone(FlushPolicy::Both);
    let bytes_left = 1 << 30;
    mirrored.disks[0].copy = CopyState::Running { bytes_left };
    let (mut events, mut shares) = (Vec::new(), Vec::new());
    while mirrored.pair.hosts[0].role() == RoleName::Copying {
        mirrored.pair.pass(100);
        mirrored.copy_disks();
        let share = mirrored.pair.hosts[0].guest_share().divisor();
        if shares.last() != Some(&share) {
            shares.push(share);
        }
        events.extend(mirrored.pair.events(0));
    }
    assert_eq!(shares, [1, 2, 4, 8, 16, 32, 64, 1]);
    let count = |event| events.iter().filter(|&&one| one == event).count();
    assert_eq!(count(ReplicaEvent::GuestSlowedForDisks { bytes_left }), 1);
    assert_eq!(count(ReplicaEvent::GuestNotSlowed), 1);
    let cause = SyncLoss::DisksWrittenTooFast { bytes_left };
    assert_eq!(count(ReplicaEvent::SyncGivenUp(cause)), 1);
}

#[test]
fn sync_is_closed_when_no_request_is_in_flight_and_given_up_if_one_takes_too_long() {
    for is_done in [true, false] {
        let mut mirrored = Mirrored::alone(FlushPolicy::Both);
        mirrored.copy_disks();
        mirrored.ask(0, 1, DiskOperation::Write);
        let Pair { hosts: [primary, _], now, .. } = &mut mirrored.pair;
        assert!(!primary.holds_disk_requests());
        primary.copy_begun(*now);
        primary.copied(*now, &[7; PAGE_BYTES]);
        mirrored.pair.exchange();
        let Pair { hosts: [primary, _], now, .. } = &mut mirrored.pair;
        primary.written(*now, Vec::new());
        assert!(primary.holds_disk_requests());
        assert_eq!(primary.next_region(*now), Step::Ready(NextRegion::Run));
        if is_done {
            mirrored.enters(1, DONE, &[]);
            let Pair { hosts: [primary, _], now, .. } = &mut mirrored.pair;
            // What it wrote may not be copied yet.
            assert_eq!(primary.next_region(*now), Step::Ready(NextRegion::Run));
            mirrored.copy_disks();
            let Pair { hosts: [primary, _], now, .. } = &mut mirrored.pair;
            assert_eq!(primary.next_region(*now), Step::Ready(NextRegion::Capture));
        } else {
            mirrored.pair.pass(DISK_HOLD_MAX.as_nanos() / 1_000_000);
            let given_up = ReplicaEvent::SyncGivenUp(SyncLoss::DisksBusy);
            assert!(mirrored.pair.events(0).contains(&given_up));
            assert!(!mirrored.pair.hosts[0].holds_disk_requests());
        }
    }
}

#[test]
fn copies_are_in_sync_when_the_backup_has_confirmed_and_never_if_it_is_lost_before() {
    for is_lost in [false, true] {
        let mut mirrored = Mirrored::alone(FlushPolicy::Both);
        mirrored.copy_disks();
        mirrored.pair.copy();
        mirrored.pair.close();
        mirrored.copy_disks();
        let [a, b] = mirrored.pair.hosts.each_ref().map(|host| host.config.claimant);
        let generation = Generation { term: mirrored.pair.hosts[0].term, owner: a };
        assert_ne!(a, b);
        assert_eq!(mirrored.pair.hosts[0].role(), RoleName::Closing);
        assert_eq!(mirrored.disks[0].ends, [], "it is not known");
        if is_lost {
            mirrored.pair.lose(1);
            mirrored.copy_disks();
            assert_eq!(mirrored.disks[0].ends, [None]);
            continue;
        }
        mirrored.pair.pass(5);
        mirrored.pair.expect([RoleName::Protected, RoleName::Following]);
        mirrored.copy_disks();
        mirrored.copy_disks();
        assert_eq!(mirrored.disks[0].ends, [Some((CopyEnd::Send, generation, a))]);
        assert_eq!(mirrored.disks[1].ends, [Some((CopyEnd::Receive, generation, b))]);
        let events = mirrored.pair.hosts.each_mut().map(|host| {
            let mut events = Vec::new();
            while let Some(event) = host.poll_event() {
                events.push(event);
            }
            events.contains(&ReplicaEvent::DisksCopied(COPIED))
        });
        assert_eq!(events, [true, false], "once, and the primary says it");
    }
}
