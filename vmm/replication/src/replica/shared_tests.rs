//! Shared disks: which host begins a request, and when.

use super::disks::{DONE, Disk};
use super::*;
use crate::Mutants;
use crate::boundary::{DiskOperation, DiskSet};
use crate::log_writer::LogWriter;
use crate::replica::SharedUse;

/// A pair whose hosts share a disk.
struct Shared {
    pair: Pair,
    disks: [Disk; 2],
}

impl Shared {
    fn protected() -> Shared {
        let mut pair = Pair::new();
        for host in &mut pair.hosts {
            host.config.disks = 1;
            host.config.shared_disks = DiskSet::NONE.with(0);
            host.writer =
                LogWriter::new(1, Mutants::default()).with_shared(host.config.shared_disks);
        }
        let mut shared =
            Shared { pair: pair.started().synced(), disks: [(); 2].map(|()| Disk::new()) };
        shared.pair.apply();
        shared.begin();
        assert_eq!(
            shared.disks.each_ref().map(|disk| disk.used),
            [SharedUse::Own, SharedUse::Other]
        );
        shared
    }

    fn begin(&mut self) {
        for (host, disk) in self.pair.hosts.iter_mut().zip(&mut self.disks) {
            host.begin_shared(self.pair.now, disk);
        }
    }

    /// The guest asks on both hosts for one sector.
    fn ask(&mut self, number: u64, operation: DiskOperation, sector: u64) {
        let data: &[u8] = if operation == DiskOperation::Write { &[1; 512] } else { &[] };
        let bytes = if operation == DiskOperation::Flush { 0 } else { 512 };
        let request = DiskRequest { disk: 0, number, operation, sector, bytes, data };
        for (host, disk) in self.pair.hosts.iter_mut().zip(&mut self.disks) {
            assert_eq!(host.disk_request(disk, &request), Step::Ready(()));
        }
        self.begin();
    }

    /// The guest of the primary reaches a position, which is logged; and, if `arrives`, acknowledged.
    fn reach_exit(&mut self, digest: u64, arrives: bool) {
        let (now, vcpu) = (self.pair.now, vcpu(digest));
        let step = self.pair.hosts[0].reached(now, Position::Exit, &vcpu, &"an exit");
        assert_eq!(step, Step::Ready(()));
        if arrives {
            self.pair.exchange();
            self.begin();
        }
    }

    /// The guest of the primary alone asks for a sector of its own.
    fn ask_primary(&mut self, number: u64, operation: DiskOperation) {
        let data: &[u8] = if operation == DiskOperation::Write { &[1; 512] } else { &[] };
        let sector = 8 + number;
        let request = DiskRequest { disk: 0, number, operation, sector, bytes: 512, data };
        let step = self.pair.hosts[0].disk_request(&mut self.disks[0], &request);
        assert_eq!(step, Step::Ready(()));
        self.begin();
    }

    fn input(&mut self, host: usize) -> Option<(u64, DiskStatus, Vec<u8>)> {
        let (now, disk) = (self.pair.now, &mut self.disks[host]);
        match self.pair.hosts[host].next_input(now, disk, &DeviceCapacity::default()) {
            Ok(Step::Ready(Some(Input::Disk(done)))) => {
                Some((done.number, done.status, done.data.to_vec()))
            }
            Ok(Step::Ready(None) | Step::Pending) => None,
            other => panic!("{other:?}"),
        }
    }

    fn begun(&self) -> [&[u64]; 2] {
        self.disks.each_ref().map(|disk| &disk.begun[..])
    }

    /// The primary dies, and the backup executes its log to the end.
    fn lose_primary(&mut self) {
        self.pair.lose(0);
        assert_eq!(self.pair.hosts[1].role(), RoleName::Finishing);
    }
}

#[test]
fn change_begins_when_its_log_is_acknowledged_and_only_on_the_primary() {
    let mut shared = Shared::protected();
    shared.reach_exit(1, false);
    shared.ask(1, DiskOperation::Write, 5);
    shared.ask(2, DiskOperation::Read, 6);
    shared.ask(3, DiskOperation::Read, 5);
    shared.ask(4, DiskOperation::Flush, 0);
    assert_eq!(shared.begun(), [&[2][..], &[]], "a read of other sectors needs no log");
    assert!(shared.pair.hosts[0].has_waiting_change());
    shared.pair.exchange();
    shared.begin();
    assert_eq!(shared.begun(), [&[2, 1, 3, 4][..], &[]]);
    assert!(!shared.pair.hosts[0].has_waiting_change());
}

#[test]
fn completion_enters_the_backup_with_the_data_of_the_log() {
    let mut shared = Shared::protected();
    shared.ask(1, DiskOperation::Read, 5);
    shared.disks[0].completes(1, DONE, &[7; 512]);
    assert_eq!(shared.input(1), None);
    let expected = Some((1, DONE, vec![7; 512]));
    assert_eq!(shared.input(0), expected);
    shared.pair.exchange();
    assert_eq!(shared.input(1), expected);
    assert_eq!(shared.begun(), [&[1][..], &[]]);
}

#[test]
fn change_waits_for_the_acknowledged_completion_of_an_earlier_request_for_its_sectors() {
    let mut shared = Shared::protected();
    shared.ask(1, DiskOperation::Read, 5);
    shared.ask(2, DiskOperation::Write, 5);
    shared.ask(3, DiskOperation::Write, 6);
    shared.pair.exchange();
    shared.begin();
    assert_eq!(shared.begun()[0], [1, 3]);
    shared.disks[0].completes(1, DONE, &[7; 512]);
    assert!(shared.input(0).is_some());
    shared.begin();
    assert_eq!(shared.begun()[0], [1, 3], "the backup does not have the completion");
    shared.pair.exchange();
    shared.begin();
    assert_eq!(shared.begun()[0], [1, 3, 2]);
}

#[test]
fn requests_in_flight_are_begun_again_in_order_when_the_claim_is_won_and_not_before() {
    let mut shared = Shared::protected();
    for (number, operation) in
        [(1, DiskOperation::Write), (2, DiskOperation::Write), (3, DiskOperation::Flush)]
    {
        shared.ask(number, operation, number);
    }
    shared.disks[0].completes(1, DONE, &[]);
    assert!(shared.input(0).is_some());
    shared.pair.exchange();
    shared.lose_primary();
    assert_eq!(shared.input(1), Some((1, DONE, Vec::new())));
    assert_eq!(shared.pair.hosts[1].next_region(shared.pair.now), Step::Pending);
    assert_eq!(shared.pair.hosts[1].role(), RoleName::Claiming);
    shared.begin();
    // The fence has failed.
    shared.pair.answer(1, Answer::Unreachable);
    shared.begin();
    assert_eq!((shared.begun()[1], shared.disks[1].used), (&[][..], SharedUse::Other));
    shared.pair.pass(60);
    shared.pair.answer(1, Answer::Won { term: Term(2) });
    shared.begin();
    assert_eq!((shared.begun()[1], shared.disks[1].used), (&[2, 3][..], SharedUse::Own));
}

#[test]
fn primary_that_lost_its_backup_begins_changes_when_it_has_won_the_claim() {
    let mut shared = Shared::protected();
    shared.pair.lose(1);
    assert_eq!(shared.pair.hosts[0].role(), RoleName::Losing);
    shared.ask_primary(1, DiskOperation::Write);
    shared.ask_primary(2, DiskOperation::Read);
    assert_eq!(shared.begun()[0], [2]);
    shared.pair.answer(0, Answer::Won { term: Term(2) });
    shared.begin();
    assert_eq!(shared.begun()[0], [2, 1]);
}

#[test]
fn handover_waits_for_the_requests_in_flight_and_begins_no_other() {
    let mut shared = Shared::protected();
    shared.ask(1, DiskOperation::Write, 1);
    assert_eq!(shared.begun()[0], [1]);
    assert!(shared.pair.hosts[0].hand_over(shared.pair.now, AfterHandover::Leave));
    shared.ask(2, DiskOperation::Write, 2);
    shared.pair.pass(20);
    shared.begin();
    shared.pair.expect([RoleName::Protected, RoleName::Following]);
    assert_eq!(shared.begun()[0], [1]);
    shared.disks[0].completes(1, DONE, &[]);
    shared.begin();
    assert_eq!(shared.pair.hosts[0].role(), RoleName::HandingOver);
    shared.begin();
    assert_eq!(shared.disks[0].used, SharedUse::Other);
    shared.pair.pass(2);
    assert_eq!(shared.pair.hosts[1].next_region(shared.pair.now), Step::Pending);
    shared.pair.answer(1, Answer::Won { term: Term(2) });
    shared.begin();
    assert_eq!(shared.begun()[1], [1, 2]);
}
