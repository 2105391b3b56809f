//! Every transition of the state diagram in [`super`], with two engines, one page of memory and a link that
//! the test controls.

use std::collections::VecDeque;
use std::convert::Infallible;

use super::*;
use crate::MacAddr;
use crate::boundary::{
    DeviceCapacity, DiskCompletion, DiskRequest, DiskStatus, Input, Position, VcpuDigest,
};
use crate::checkpoint::CheckpointImage;
use crate::divergence::Registers;
use crate::limits::PASSED_FRAMES_MAX;
use crate::witness::{Answer, ClaimCause, Question};
use logchan::entry::{Entry, REGISTERS};
use logchan::handshake::Security;
use logchan::health::Unfit;
use logchan::ids::{Claimant, Lane, Term, VmId};
use logchan::limits::{FRAME_HEADER_BYTES, PAGE_BYTES};
use logchan::seal::SEAL_OVERHEAD_BYTES;
use logchan::time::{Duration, Time};

#[path = "disk_tests.rs"]
mod disks;
#[path = "shared_tests.rs"]
mod shared_disks;

const NIC: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 1);
const MS: Duration = Duration::from_millis(1);

/// A world whose guest time the test sets.
struct Clock(u64);

impl LiveInputs for Clock {
    type Error = Infallible;

    fn clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(self.0)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    fn next_input(&mut self, _: &DeviceCapacity) -> Result<Option<Input<'_>>, Infallible> {
        Ok(None)
    }

    fn go_live(&mut self, clock_ns: u64) {
        self.0 = clock_ns;
    }
}

/// Makes a world one without disks.
macro_rules! no_disks {
    ($world:ty) => {
        impl LocalDisks for $world {
            fn begin_request(&mut self, _: &DiskRequest<'_>) {}

            fn done(&mut self, _: u8, _: u64) -> Option<DiskStatus> {
                None
            }

            fn take_done(&mut self, _: u8, _: u64) -> Option<DiskCompletion<'_>> {
                None
            }

            fn has_done(&mut self) -> bool {
                false
            }

            fn fail_disk(&mut self, _: u8) {}

            fn forget_requests(&mut self) {}
        }
    };
}

no_disks!(Clock);
no_disks!(Typing);
no_disks!(OneFrame);

/// A vCPU state with this digest, which is also its first register.
fn vcpu(digest: u64) -> VcpuDigest {
    let mut registers = [0; REGISTERS];
    registers[0] = digest;
    VcpuDigest { digest, registers }
}

/// An image of a machine whose page was not written.
struct CleanImage;

impl CheckpointImage for CleanImage {
    fn vcpu(&self) -> &[u8] {
        b"vcpu"
    }

    fn devices(&self) -> &[u8] {
        b"devices"
    }

    fn pages(&self) -> &[u64] {
        &[]
    }

    fn full(&self) -> bool {
        false
    }

    fn memory_pages(&self) -> u64 {
        1
    }

    fn read_page(&self, _: u64, _: &mut [u8; PAGE_BYTES]) {
        unreachable!("no page was written");
    }
}

/// An image of a machine whose page was written.
struct DirtyImage([u8; PAGE_BYTES]);

impl CheckpointImage for DirtyImage {
    fn vcpu(&self) -> &[u8] {
        CleanImage.vcpu()
    }

    fn devices(&self) -> &[u8] {
        CleanImage.devices()
    }

    fn pages(&self) -> &[u64] {
        &[0]
    }

    fn full(&self) -> bool {
        false
    }

    fn memory_pages(&self) -> u64 {
        1
    }

    fn read_page(&self, _: u64, page: &mut [u8; PAGE_BYTES]) {
        *page = self.0;
    }
}

/// A primary, host 0, and a backup, host 1.
struct Pair {
    hosts: [Replica; 2],
    now: Time,
    /// Whether the frames that host 0 and host 1 send are lost.
    cut: [bool; 2],
    /// Longer frames are lost, bytes.
    length_max: usize,
    /// How long a frame takes, milliseconds.
    delay_ms: u64,
    /// Frames on their way: when each arrives, its receiver and its bytes.
    delayed: VecDeque<(Time, usize, Vec<u8>)>,
}

impl Pair {
    fn new() -> Pair {
        Pair::with_policy(CommitPolicy::Early)
    }

    fn with_policy(output_commit: CommitPolicy) -> Pair {
        Pair::with_memory(output_commit, 1)
    }

    fn with_memory(output_commit: CommitPolicy, memory_pages: u64) -> Pair {
        let now = Time::from_nanos(1);
        let hosts = [Start::Primary, Start::Backup].map(|start| {
            let mut word = 1 + start as u64;
            let entropy = move |bytes: &mut [u8]| {
                for byte in bytes {
                    word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = (word >> 56) as u8;
                }
            };
            let claimant = Claimant(0xc0 + start as u64);
            let config = ReplicaConfig::new(VmId(1), NIC, memory_pages);
            let config = ReplicaConfig { claimant, output_commit, ..config };
            Replica::new(config, start, Security::Insecure, Box::new(entropy), now).unwrap()
        });
        let (cut, length_max, delayed) = ([false; 2], usize::MAX, VecDeque::new());
        Pair { hosts, now, cut, length_max, delay_ms: 0, delayed }
    }

    /// A pair whose primary has won the first term.
    fn alone() -> Pair {
        Pair::new().started()
    }

    /// The primary wins the first term.
    fn started(mut self) -> Pair {
        self.answer(0, Answer::Won { term: Term(1) });
        self
    }

    /// A pair whose sync is complete.
    fn protected() -> Pair {
        Pair::alone().synced()
    }

    /// Completes the sync.
    fn synced(mut self) -> Pair {
        self.pass(50);
        self.copy();
        self.close();
        self.pass(5);
        self.expect([RoleName::Protected, RoleName::Following]);
        self
    }

    fn expect(&self, roles: [RoleName; 2]) {
        assert_eq!(self.hosts.each_ref().map(Replica::role), roles);
    }

    /// Delivers all frames that the hosts send now, without delay.
    fn exchange(&mut self) {
        let mut frame = [0; 2048];
        for _ in 0..4 {
            for from in [0, 1] {
                while let Some(length) = self.hosts[from].poll_transmit(self.now, &mut frame) {
                    let frame = &mut frame[..length];
                    if self.cut[from] || length > self.length_max {
                        continue;
                    }
                    if self.delay_ms > 0 {
                        let at = self.now + MS * self.delay_ms;
                        self.delayed.push_back((at, 1 - from, frame.to_vec()));
                        continue;
                    }
                    self.hosts[1 - from].handle_frame(self.now, frame);
                }
            }
        }
    }

    /// Lets `ms` milliseconds pass.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now + MS;
            while self.delayed.front().is_some_and(|&(at, ..)| at <= self.now) {
                let (_at, to, mut frame) = self.delayed.pop_front().expect("there is one");
                self.hosts[to].handle_frame(self.now, &mut frame);
            }
            self.hosts.iter_mut().for_each(|host| host.handle_timeout(self.now));
            self.exchange();
        }
    }

    /// Answers the claim that `host` makes.
    fn answer(&mut self, host: usize, answer: Answer) {
        let Some(Command::Ask(question)) = self.hosts[host].poll_command() else {
            panic!("host {host} as {} makes no claim", self.hosts[host].role());
        };
        self.hosts[host].handle_witness(self.now, question, answer);
    }

    /// The backup, which hears nothing more, executes the log to its end, and loses the claim of `newest`.
    fn answer_claim_of_backup(&mut self, newest: Term) {
        assert_eq!(self.hosts[1].role(), RoleName::Finishing);
        assert_eq!(self.hosts[1].next_region(self.now), Step::Pending);
        self.answer(1, Answer::Lost { newest });
        assert_eq!(self.hosts[1].role(), RoleName::Seeking);
    }

    /// Completes the precopy.
    fn copy(&mut self) {
        self.expect([RoleName::Copying, RoleName::Syncing]);
        assert_eq!(self.hosts[0].poll_copy(), Some(CopyRequest::Begin));
        self.hosts[0].copy_begun(self.now);
        assert_eq!(self.hosts[0].poll_copy(), Some(CopyRequest::Page(0)));
        self.hosts[0].copied(self.now, &[7; PAGE_BYTES]);
        assert_eq!(self.hosts[0].poll_copy(), None, "the backup has not received the page");
        let step = self.hosts[0].next_region(self.now);
        assert_eq!(step, Step::Ready(NextRegion::Run));
        self.exchange();
        self.end_copy();
    }

    /// The backup has received all pages, and the guest has written none meanwhile.
    fn end_copy(&mut self) {
        assert_eq!(self.hosts[0].poll_copy(), Some(CopyRequest::Written));
        self.hosts[0].written(self.now, Vec::new());
        assert_eq!(self.hosts[0].next_region(self.now), Step::Ready(NextRegion::Capture));
    }

    /// Copies a pass over `pages`, which takes `ms`. The guest writes `written` meanwhile.
    fn copy_pass(&mut self, memory: &[[u8; PAGE_BYTES]], pages: &[u64], ms: u64, written: &[u64]) {
        for &number in pages {
            assert_eq!(self.hosts[0].poll_copy(), Some(CopyRequest::Page(number)));
            self.hosts[0].copied(self.now, &memory[number as usize]);
        }
        self.pass(ms);
        assert_eq!(self.hosts[0].poll_copy(), Some(CopyRequest::Written));
        self.hosts[0].written(self.now, written.to_vec());
    }

    /// Sends the closing checkpoint.
    fn close(&mut self) {
        let step = self.hosts[0].checkpoint(self.now, &mut Clock(5), &CleanImage).unwrap();
        assert_eq!(step, Step::Ready(()));
    }

    /// Applies the closing checkpoint on the backup.
    fn apply(&mut self) {
        let step = self.hosts[1].next_region(self.now);
        assert_eq!(step, Step::Ready(NextRegion::Apply));
        let image = self.hosts[1].take_checkpoint();
        assert_eq!((image.full, image.pages.len()), (true, 1));
    }

    /// Sends a checkpoint from the middle of a region in which the page was written.
    fn write(&mut self, page: [u8; PAGE_BYTES]) {
        let step = self.hosts[0].checkpoint(self.now, &mut Clock(5), &DirtyImage(page)).unwrap();
        assert_eq!(step, Step::Ready(()));
        self.exchange();
    }

    /// The primary reaches an exit, and the backup runs towards it.
    fn run_to_exit(&mut self) {
        self.apply();
        assert_eq!(
            self.hosts[0].reached(self.now, Position::Exit, &vcpu(1), &"an exit"),
            Step::Ready(())
        );
        self.exchange();
        assert_eq!(self.hosts[1].next_region(self.now), Step::Ready(NextRegion::RunToExit));
    }

    /// The backup reaches the exit with another digest than the primary, and reports what was expected.
    fn reach_exit_diverged(&mut self) {
        let host = &mut self.hosts[1];
        let log_position = host.channel().unwrap().consumed(Lane::Latency).0;
        let step = host.reached(self.now, Position::Exit, &vcpu(2), &"an exit");
        assert_eq!(step, Step::Invalidated);
        let divergence = host.divergence().expect("a divergence was found");
        assert_eq!((divergence.natural_exits, divergence.log_position), (1, log_position));
        assert!(divergence.expected.contains("0000000000000001"), "{divergence}");
        assert_eq!(
            divergence.found,
            "reached an exit with digest 0000000000000002, which differs in the general registers"
        );
        let (expected, found) = (Some(vcpu(1).registers), vcpu(2).registers);
        assert_eq!(divergence.registers, Some(Registers { expected, found }));
    }

    /// Cuts the log link for longer than the silence timeout.
    fn partition(&mut self) {
        self.cut = [true; 2];
        self.pass(110);
    }

    /// Cuts the log link and lets the backup execute its log to the end.
    fn claim(&mut self) {
        self.partition();
        self.expect([RoleName::Losing, RoleName::Finishing]);
        self.apply();
        assert_eq!(self.hosts[1].next_region(self.now), Step::Pending);
        self.expect([RoleName::Losing, RoleName::Claiming]);
    }

    /// Returns why the part of `host` is over. The witness answers the release of the VM.
    fn halted(&mut self, host: usize) -> Halt {
        if let Some(Command::Ask(question)) = self.hosts[host].poll_command() {
            assert_eq!(self.hosts[host].halted(), None, "the witness is not told yet");
            self.hosts[host].handle_witness(self.now, question, Answer::Won { term: Term(2) });
        }
        self.hosts[host].halted().expect("the host has halted")
    }

    /// The process of `host` is gone, and its supervisor tells the other host. No time passes.
    fn lose(&mut self, host: usize) {
        let notice = self.hosts[host].poll_death_notice().expect("it was in a session");
        self.cut = [true; 2];
        self.hosts[1 - host].handle_frame(self.now, &mut notice.as_bytes().clone());
    }

    /// Returns the events of `host` since the last call.
    fn events(&mut self, host: usize) -> Vec<ReplicaEvent> {
        std::iter::from_fn(|| self.hosts[host].poll_event()).collect()
    }

    /// A pair whose primary has handed the VM over, and whose backup has executed the log to its end.
    fn handing_over(after: AfterHandover) -> Pair {
        let mut pair = Pair::protected();
        pair.apply();
        assert!(pair.hosts[0].hand_over(pair.now, after));
        pair.pass(1);
        assert_eq!(pair.hosts[0].next_region(pair.now), Step::Pending, "its machine waits");
        assert_eq!(pair.hosts[1].next_region(pair.now), Step::Pending);
        pair.expect([RoleName::HandingOver, RoleName::Claiming]);
        pair
    }
}

#[test]
fn starting_claim_answered_becomes_alone_or_halts() {
    let mut pair = Pair::new();
    pair.answer(0, Answer::Unreachable);
    pair.expect([RoleName::Starting, RoleName::Seeking]);
    pair.pass(60);
    pair.answer(0, Answer::Won { term: Term(3) });
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(3)));
    let mut pair = Pair::new();
    pair.answer(0, Answer::Lost { newest: Term(1) });
    assert_eq!(pair.halted(0), Halt::AlreadyStarted { term: Term(1) });
}

#[test]
fn copying_backup_silent_or_bye_returns_to_alone() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.copy();
    pair.partition();
    pair.expect([RoleName::Alone, RoleName::Seeking]);
    pair.cut = [false; 2];
    pair.pass(1100);
    pair.copy();
    assert!(pair.hosts[1].stop(pair.now));
    pair.pass(1);
    assert_eq!(pair.hosts[0].role(), RoleName::Alone);
    assert_eq!(pair.halted(1), Halt::Stopped);
}

#[test]
fn following_primary_gone_finishes_the_log_and_claims_at_once() {
    let mut pair = Pair::protected();
    let began = pair.now;
    pair.lose(0);
    assert_eq!(pair.hosts[1].role(), RoleName::Finishing);
    assert!(pair.events(1).contains(&ReplicaEvent::PrimaryGone { whole: true }));
    pair.apply();
    assert_eq!(pair.hosts[1].next_region(pair.now), Step::Pending);
    pair.answer(1, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[1].role(), pair.hosts[1].term()), (RoleName::Alone, Term(2)));
    assert_eq!(pair.now, began, "no timeout was waited for");
}

#[test]
fn protected_backup_gone_claims_at_once_and_sends_nothing_meanwhile() {
    let mut pair = Pair::protected();
    assert!(pair.hosts[0].channel().is_some_and(|channel| channel.lease_held(pair.now)));
    pair.lose(1);
    assert_eq!(pair.hosts[0].role(), RoleName::Losing);
    assert!(pair.events(0).contains(&ReplicaEvent::BackupGone));
    assert!(!pair.hosts[0].channel().is_some_and(|channel| channel.lease_held(pair.now)));
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(2)));
}

/// Length of the frames that carry no log.
const HEARTBEAT_BYTES: usize = FRAME_HEADER_BYTES + SEAL_OVERHEAD_BYTES;

#[test]
fn protected_log_lost_and_backup_heard_gives_it_up_after_two_silence_timeouts() {
    let mut pair = Pair::protected();
    pair.apply();
    pair.length_max = HEARTBEAT_BYTES;
    pair.pass(300);
    pair.expect([RoleName::Protected, RoleName::Following]);
    let step = pair.hosts[0].reached(pair.now, Position::Exit, &vcpu(1), &"an exit");
    assert_eq!(step, Step::Ready(()));
    pair.exchange();
    let since = pair.now;
    pair.pass(199);
    pair.expect([RoleName::Protected, RoleName::Following]);
    pair.events(0);
    pair.pass(1);
    assert_eq!(pair.hosts[0].role(), RoleName::Losing);
    let cause = StallCause::LongFramesLost;
    assert_eq!(pair.events(0), [ReplicaEvent::BackupStalled { since, cause }]);
    assert!(!pair.hosts[0].channel().is_some_and(|channel| channel.lease_held(pair.now)));
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!(pair.hosts[0].role(), RoleName::Alone);
    pair.cut = [true; 2];
    pair.pass(110);
    assert_eq!(pair.hosts[1].role(), RoleName::Finishing, "nothing more of the session comes");
}

#[test]
fn protected_answers_later_than_the_lease_gives_the_backup_up_and_closes_no_sync() {
    let mut pair = Pair::protected();
    pair.apply();
    // The lease is 80 ms, the silence timeout 100 ms.
    pair.delay_ms = 45;
    pair.pass(150);
    pair.expect([RoleName::Protected, RoleName::Following]);
    pair.events(0);
    pair.pass(200);
    assert_eq!(pair.hosts[0].role(), RoleName::Losing);
    let events = pair.events(0);
    let cause = StallCause::Slow;
    assert!(
        matches!(events[..], [ReplicaEvent::BackupStalled { cause: found, .. }] if found == cause),
        "{events:?}"
    );
    pair.answer(0, Answer::Won { term: Term(2) });
    pair.pass(300);
    pair.answer_claim_of_backup(Term(2));
    pair.pass(1100);
    pair.expect([RoleName::Copying, RoleName::Syncing]);
    pair.hosts[0].copy_begun(pair.now);
    pair.hosts[0].copied(pair.now, &[7; PAGE_BYTES]);
    pair.pass(1000);
    let step = pair.hosts[0].next_region(pair.now);
    assert_eq!(step, Step::Ready(NextRegion::Run), "no output waits for the backup");
    assert_eq!(pair.hosts[0].sync_stall(), Some(cause));
    assert_eq!(pair.hosts[0].poll_copy(), None);
    pair.delay_ms = 1;
    pair.pass(100);
    pair.end_copy();
    pair.close();
    pair.pass(5);
    pair.expect([RoleName::Protected, RoleName::Following]);
}

#[test]
fn handing_over_log_lost_and_backup_heard_takes_the_vm_back() {
    let mut pair = Pair::protected();
    pair.apply();
    pair.length_max = HEARTBEAT_BYTES;
    assert!(pair.hosts[0].hand_over(pair.now, AfterHandover::Follow));
    pair.pass(150);
    pair.expect([RoleName::HandingOver, RoleName::Following]);
    pair.pass(60);
    assert_eq!(pair.hosts[0].role(), RoleName::Losing);
    pair.answer(0, Answer::Won { term: Term(2) });
    assert!(pair.events(0).contains(&ReplicaEvent::HandoverFailed));
    assert_eq!(pair.hosts[0].role(), RoleName::Alone);
}

#[test]
fn copying_pages_lost_and_backup_heard_is_reported_once_and_goes_on_when_the_link_is_repaired() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.expect([RoleName::Copying, RoleName::Syncing]);
    pair.length_max = HEARTBEAT_BYTES;
    pair.hosts[0].copy_begun(pair.now);
    pair.hosts[0].copied(pair.now, &[7; PAGE_BYTES]);
    pair.events(0);
    pair.pass(1000);
    pair.expect([RoleName::Copying, RoleName::Syncing]);
    let events = pair.events(0);
    assert!(matches!(events[..], [ReplicaEvent::SyncStalled { .. }]), "{events:?}");
    assert_eq!(pair.hosts[0].sync_stall(), Some(StallCause::LongFramesLost));
    let step = pair.hosts[0].next_region(pair.now);
    assert_eq!(step, Step::Ready(NextRegion::Run), "no output waits for the backup");
    pair.length_max = usize::MAX;
    pair.pass(50);
    assert_eq!(pair.hosts[0].sync_stall(), None);
    pair.end_copy();
    pair.close();
    pair.pass(5);
    pair.expect([RoleName::Protected, RoleName::Following]);
}

#[test]
fn copying_backup_whose_syncs_fail_in_a_row_waits_before_the_next_one() {
    let mut pair = Pair::alone();
    for _ in 0..4 {
        pair.pass(1500);
        pair.expect([RoleName::Copying, RoleName::Syncing]);
        assert!(pair.events(0).contains(&ReplicaEvent::SyncBegun));
        pair.partition();
        pair.pass(200);
        assert_eq!(pair.hosts[0].role(), RoleName::Alone);
        pair.cut = [false; 2];
    }
    let mut waited = 0;
    while pair.hosts[0].sync_delay().is_none() {
        pair.pass(1);
        waited += 1;
        assert!(waited < 3000, "no delay");
    }
    let delay = pair.hosts[0].sync_delay().unwrap();
    assert_eq!((delay.failures, delay.cause), (4, SyncLoss::Silent));
    assert!(pair.events(0).contains(&ReplicaEvent::SyncDelayed(delay)));
    pair.pass(900);
    assert_eq!(pair.hosts[0].poll_copy(), None);
    let step = pair.hosts[0].next_region(pair.now);
    assert_eq!(step, Step::Ready(NextRegion::Run), "the VM runs, and no output waits");
    pair.pass(200);
    assert!(pair.events(0).contains(&ReplicaEvent::SyncBegun));
    pair.copy();
    pair.close();
    pair.pass(5);
    pair.expect([RoleName::Protected, RoleName::Following]);
}

/// An image of a machine with this memory, of which these pages were written.
struct MemoryImage<'a> {
    memory: &'a [[u8; PAGE_BYTES]],
    written: &'a [u64],
}

impl CheckpointImage for MemoryImage<'_> {
    fn vcpu(&self) -> &[u8] {
        CleanImage.vcpu()
    }

    fn devices(&self) -> &[u8] {
        CleanImage.devices()
    }

    fn pages(&self) -> &[u64] {
        self.written
    }

    fn full(&self) -> bool {
        false
    }

    fn memory_pages(&self) -> u64 {
        self.memory.len() as u64
    }

    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]) {
        *page = self.memory[number as usize];
    }
}

/// Memory of three pages, and a pair whose backup has just attached.
fn three_pages() -> ([[u8; PAGE_BYTES]; 3], Pair) {
    let mut pair = Pair::with_memory(CommitPolicy::Early, 3).started();
    pair.pass(50);
    assert_eq!(pair.hosts[0].copy_progress(), None);
    pair.hosts[0].copy_begun(pair.now);
    pair.events(0);
    ([7, 8, 9].map(|byte| [byte; PAGE_BYTES]), pair)
}

/// Sends the closing checkpoint, and checks that the backup has `memory` then.
fn close_with(pair: &mut Pair, memory: &[[u8; PAGE_BYTES]], written: &[u64]) {
    assert_eq!(pair.hosts[0].poll_copy(), None);
    assert_eq!(pair.hosts[0].next_region(pair.now), Step::Ready(NextRegion::Capture));
    let image = MemoryImage { memory, written };
    let step = pair.hosts[0].checkpoint(pair.now, &mut Clock(5), &image).unwrap();
    assert_eq!(step, Step::Ready(()));
    pair.pass(5);
    pair.expect([RoleName::Protected, RoleName::Following]);
    assert_eq!(pair.hosts[1].next_region(pair.now), Step::Ready(NextRegion::Apply));
    let mut received = vec![[0; PAGE_BYTES]; memory.len()];
    for page in pair.hosts[1].take_checkpoint().pages {
        received[page.number as usize] = page.bytes.map_or([0; PAGE_BYTES], |bytes| *bytes);
    }
    assert!(received == memory, "the backup's memory differs");
}

#[test]
fn copying_written_pages_are_copied_again_and_zeros_replace_earlier_contents() {
    let (mut memory, mut pair) = three_pages();
    // The link has taken 100 ms for 3 pages, so it takes 33 ms for one: more than a quarter of the silence timeout.
    pair.copy_pass(&memory, &[0, 1, 2], 100, &[1]);
    assert_eq!(pair.hosts[0].next_region(pair.now), Step::Ready(NextRegion::Run));
    let progress = pair.hosts[0].copy_progress().unwrap();
    assert_eq!((progress.pass, progress.pages_left), (2, 1));
    assert!(progress.share.is_whole(), "the passes get shorter");
    memory[1] = [0; PAGE_BYTES];
    pair.copy_pass(&memory, &[1], 1, &[]);
    memory[0] = [5; PAGE_BYTES];
    close_with(&mut pair, &memory, &[0]);
    assert_eq!(pair.hosts[0].stats().checkpoint_pages, 1);
    assert_eq!(pair.events(0), [ReplicaEvent::Protected]);
}

#[test]
fn copying_few_written_pages_are_in_the_closing_checkpoint_with_those_written_since() {
    let (mut memory, mut pair) = three_pages();
    pair.copy_pass(&memory, &[0, 1, 2], 30, &[1, 2]);
    memory[1] = [0; PAGE_BYTES];
    memory[2] = [4; PAGE_BYTES];
    memory[0] = [3; PAGE_BYTES];
    close_with(&mut pair, &memory, &[0, 2]);
    assert_eq!(pair.hosts[0].stats().checkpoint_pages, 3);
}

#[test]
fn copying_guest_that_writes_as_fast_as_the_link_is_slowed_until_the_sync_is_closed() {
    let (memory, mut pair) = three_pages();
    pair.copy_pass(&memory, &[0, 1, 2], 60, &[0, 1]);
    let slowed = matches!(pair.events(0)[..], [ReplicaEvent::GuestSlowed { pages: 2, .. }]);
    assert!(slowed);
    let share = |pair: &Pair| pair.hosts[0].guest_share().divisor();
    assert_eq!(share(&pair), 2);
    pair.copy_pass(&memory, &[0, 1], 40, &[0, 2]);
    assert_eq!((share(&pair), pair.events(0)), (4, vec![]), "it is reported once");
    pair.copy_pass(&memory, &[0, 2], 40, &[2]);
    assert_eq!(share(&pair), 1, "the guest is to reach the closing checkpoint");
    close_with(&mut pair, &memory, &[]);
    assert_eq!(pair.events(0), [ReplicaEvent::GuestNotSlowed, ReplicaEvent::Protected]);
    assert_eq!(
        (pair.hosts[0].stats().copies_repeated, pair.hosts[0].stats().guests_slowed),
        (2, 1)
    );
}

#[test]
fn copying_guest_that_writes_too_fast_although_it_is_slowed_is_given_up_with_the_reason() {
    let (memory, mut pair) = three_pages();
    let all = [0, 1, 2];
    for pass in 0.. {
        pair.copy_pass(&memory, &all, 3000, &all);
        if pair.hosts[0].role() == RoleName::Alone {
            break;
        }
        assert!(pass < 10, "it is not given up");
    }
    let events = pair.events(0);
    assert!(events.contains(&ReplicaEvent::GuestNotSlowed), "{events:?}");
    let given_up = |event: &ReplicaEvent| {
        matches!(event, ReplicaEvent::SyncGivenUp(SyncLoss::WritesTooFast { pages: 3, .. }))
    };
    assert!(events.iter().any(given_up), "{events:?}");
    assert_eq!(pair.hosts[0].stats().syncs_broken, 1);
    assert!(pair.hosts[0].guest_share().is_whole());
    let cause = SyncLoss::WritesTooFast { pages: 3, carried_per_s: 4000 };
    assert!(cause.to_string().contains("12 KiB again and again, at 3 KiB/s"), "{cause}");
}

#[test]
fn copying_for_too_long_is_given_up() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.hosts[0].copy_begun(pair.now);
    let sync_max = ResyncPace::default().sync_max;
    pair.hosts[0].heard_by(pair.now + sync_max);
    pair.events(0);
    pair.hosts[0].handle_resync(pair.now + sync_max);
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].stats().syncs_broken), (RoleName::Alone, 1));
}

#[test]
fn peer_gone_before_the_sync_is_complete_returns_to_the_state_before_it() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.expect([RoleName::Copying, RoleName::Syncing]);
    pair.lose(1);
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(1)));
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.lose(0);
    assert_eq!(pair.hosts[1].role(), RoleName::Seeking);
    assert!(pair.events(1).contains(&ReplicaEvent::PrimaryGone { whole: false }));
}

#[test]
fn stopped_host_whose_peer_is_gone_waits_no_longer() {
    let mut pair = Pair::protected();
    assert!(pair.hosts[1].stop(pair.now));
    assert_eq!(pair.hosts[1].halted(), None);
    pair.lose(0);
    assert_eq!(pair.halted(1), Halt::Stopped);
}

#[test]
fn protected_backup_bye_returns_to_alone_in_same_term() {
    let mut pair = Pair::protected();
    assert!(pair.hosts[1].stop(pair.now));
    pair.pass(1);
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(1)));
}

#[test]
fn losing_claim_answered_becomes_alone_or_halts() {
    let mut pair = Pair::protected();
    pair.partition();
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(2)));
    let mut pair = Pair::protected();
    pair.partition();
    pair.answer(0, Answer::Lost { newest: Term(2) });
    assert_eq!(pair.halted(0), Halt::Replaced { term: Term(2) });
}

#[test]
fn claiming_host_that_is_cut_off_lets_the_other_one_claim_first() {
    let mut pair = Pair::protected();
    pair.hosts[1].set_cut_off(true);
    pair.claim();
    assert_eq!(pair.hosts[1].poll_command(), None);
    // The link is back before the claim is made: the other host may have won meanwhile.
    pair.hosts[1].set_cut_off(false);
    pair.pass(99);
    assert_eq!(pair.hosts[1].poll_command(), None, "one silence timeout has not passed");
    assert_eq!(pair.hosts[1].poll_timeout(), Some(pair.now + MS));
    pair.pass(1);
    pair.answer(1, Answer::Won { term: Term(2) });
    assert_eq!(pair.hosts[1].role(), RoleName::Alone);
}

#[test]
fn protected_host_that_is_cut_off_claims_after_half_the_silence_timeout() {
    let mut pair = Pair::protected();
    pair.hosts[0].set_cut_off(true);
    pair.pass(200);
    pair.expect([RoleName::Protected, RoleName::Following]);
    // The last heartbeat may be 10 ms old.
    pair.cut = [true; 2];
    pair.pass(39);
    pair.expect([RoleName::Protected, RoleName::Following]);
    pair.pass(12);
    pair.expect([RoleName::Losing, RoleName::Following]);
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(2)));
}

#[test]
fn claiming_claim_answered_goes_live_or_seeks() {
    let mut pair = Pair::protected();
    pair.claim();
    pair.answer(1, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[1].role(), pair.hosts[1].term()), (RoleName::Alone, Term(2)));
    let mut world = Clock(0);
    let step = pair.hosts[1].clock_ns(pair.now, &mut world);
    assert_eq!(step, Ok(Step::Ready(5)), "guest time continues from the log's");
    let mut pair = Pair::protected();
    pair.claim();
    pair.answer(1, Answer::Lost { newest: Term(2) });
    assert_eq!((pair.hosts[1].role(), pair.hosts[1].term()), (RoleName::Seeking, Term(2)));
    assert_eq!(pair.hosts[1].next_region(pair.now), Step::Invalidated);
}

/// A witness with another owner of the term before is not the pair's witness, or has lost files.
#[test]
fn claim_names_owner_of_term_before_and_cause() {
    let primary = Claimant(0xc0 + Start::Primary as u64);
    let command = Pair::new().hosts[0].poll_command();
    assert_eq!(command, Some(Command::Ask(Question::Boot { again: false, after: None })));
    let (term, previous) = (Term(2), primary);
    let next = |cause| Some(Command::Ask(Question::Claim { term, previous, cause }));
    let mut pair = Pair::protected();
    pair.partition();
    assert_eq!(pair.hosts[0].poll_command(), next(ClaimCause::BackupLost));
    let mut pair = Pair::protected();
    pair.claim();
    assert_eq!(pair.hosts[1].poll_command(), next(ClaimCause::PrimarySilent));
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    assert_eq!(pair.hosts[1].poll_command(), next(ClaimCause::HandedOver));
    pair.partition();
    assert_eq!(pair.hosts[0].poll_command(), next(ClaimCause::BackupLost));
}

#[test]
fn handing_over_backup_goes_live_and_old_primary_follows_or_leaves() {
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    pair.answer(1, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[1].role(), pair.hosts[1].term()), (RoleName::Alone, Term(2)));
    pair.pass(110);
    pair.answer(0, Answer::Lost { newest: Term(2) });
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Seeking, Term(2)));
    assert_eq!(pair.hosts[0].next_region(pair.now), Step::Invalidated);
    pair.pass(1100);
    pair.expect([RoleName::Syncing, RoleName::Copying]);
    let mut pair = Pair::handing_over(AfterHandover::Leave);
    pair.answer(1, Answer::Won { term: Term(2) });
    pair.pass(110);
    pair.answer(0, Answer::Lost { newest: Term(2) });
    assert_eq!(pair.halted(0), Halt::HandedOver { term: Term(2) });
}

/// What a dead primary has released must be reproduced before the VM takes an input, on whichever host.
#[test]
fn handing_over_waits_for_the_end_of_a_replay_out() {
    let mut pair = Pair::protected();
    pair.apply();
    let window = pair.hosts[0].config.early_release_window;
    pair.hosts[0].replay_out.begin(pair.now, window);
    assert!(pair.hosts[0].hand_over(pair.now, AfterHandover::Follow));
    pair.pass(1);
    assert_eq!(pair.hosts[0].role(), RoleName::Protected);
    assert_eq!(pair.hosts[0].clock_ns(pair.now, &mut Clock(20)), Ok(Step::Ready(20)));
    pair.pass(1);
    assert_eq!(pair.hosts[0].role(), RoleName::HandingOver);
}

#[test]
fn host_that_follows_has_no_replay_out() {
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    let window = pair.hosts[0].config.early_release_window;
    pair.hosts[0].replay_out.begin(pair.now, window);
    pair.answer(1, Answer::Won { term: Term(2) });
    pair.pass(110);
    pair.answer(0, Answer::Lost { newest: Term(2) });
    assert_eq!(pair.hosts[0].role(), RoleName::Seeking);
    assert!(!pair.hosts[0].replay_out.is_active());
}

/// A frame of 60 bytes to `to` from another station, with this number.
fn frame_to(to: MacAddr, number: u8) -> [u8; 60] {
    let mut frame = [number; 60];
    frame[..6].copy_from_slice(&to.octets());
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 9]);
    frame
}

/// Lets the VM on `host` take a frame, while none waits in the tap; returns its number.
fn take_frame(pair: &mut Pair, host: usize) -> Option<u8> {
    let capacity = DeviceCapacity { frame: true, ..DeviceCapacity::default() };
    let waited = pair.hosts[host].has_passed_frame();
    let mut world = Clock(5);
    let step = pair.hosts[host].next_input(pair.now, &mut world, &capacity);
    let number = match step {
        Ok(Step::Ready(Some(Input::Frame(frame)))) => Some(frame[59]),
        Ok(Step::Ready(None)) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(waited, number.is_some());
    number
}

/// Frames of the old primary's tap, before and after the new one is live.
#[test]
fn handing_over_frames_of_old_tap_reach_the_vm_that_is_live() {
    let broadcast = MacAddr(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    assert!(pair.hosts[0].passes_frames());
    let mut own = frame_to(broadcast, 90);
    own[6..12].copy_from_slice(&NIC.octets());
    let other = frame_to(MacAddr(0x52, 0x54, 0, 0, 0, 3), 91);
    let short = &frame_to(NIC, 92)[..13];
    for frame in [&frame_to(NIC, 1)[..], &own, &other, short, &frame_to(broadcast, 2)] {
        pair.hosts[0].pass_frame(pair.now, frame);
    }
    pair.pass(1);
    assert!(!pair.hosts[1].has_passed_frame(), "it is not live");
    pair.answer(1, Answer::Won { term: Term(2) });
    pair.hosts[0].pass_frame(pair.now, &frame_to(NIC, 3));
    pair.pass(1);
    let taken: Vec<_> = std::iter::from_fn(|| take_frame(&mut pair, 1)).collect();
    assert_eq!(taken, [1, 2, 3]);
    // The session ends without silence.
    pair.pass(60);
    assert_eq!(pair.hosts[0].role(), RoleName::Losing);
    assert!(!pair.hosts[0].passes_frames());
    pair.answer(0, Answer::Lost { newest: Term(2) });
    assert_eq!(pair.hosts[0].passed.len(), 0, "they are the new primary's");
    let [old, new] = pair.hosts.each_ref().map(Replica::stats);
    assert_eq!((old.frames_passed_on, old.passed_frames_taken), (3, 0));
    assert_eq!((new.passed_frames_taken, new.passed_frames_dropped), (3, 0));
}

#[test]
fn handing_over_frames_reach_the_vm_although_the_old_primary_is_gone() {
    let mut pair = Pair::handing_over(AfterHandover::Leave);
    pair.hosts[0].pass_frame(pair.now, &frame_to(NIC, 1));
    pair.pass(1);
    pair.lose(0);
    pair.answer(1, Answer::Won { term: Term(2) });
    assert_eq!((take_frame(&mut pair, 1), take_frame(&mut pair, 1)), (Some(1), None));
}

#[test]
fn handing_over_backup_fails_and_old_primary_takes_its_frames() {
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    pair.hosts[0].pass_frame(pair.now, &frame_to(NIC, 1));
    pair.pass(1);
    pair.partition();
    assert!(!pair.hosts[0].has_passed_frame(), "the VM may be the other host's");
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!((take_frame(&mut pair, 0), take_frame(&mut pair, 0)), (Some(1), None));
    pair.answer(1, Answer::Lost { newest: Term(2) });
    assert_eq!(pair.hosts[1].passed.len(), 0);
}

/// Frames that the VM has not taken are handed over, too.
#[test]
fn handing_over_again_passes_on_frames_that_were_not_taken() {
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    pair.hosts[0].pass_frame(pair.now, &frame_to(NIC, 1));
    pair.pass(1);
    pair.answer(1, Answer::Won { term: Term(2) });
    pair.pass(60);
    pair.answer(0, Answer::Lost { newest: Term(2) });
    pair.hosts.reverse();
    assert_eq!(pair.hosts[1].next_region(pair.now), Step::Invalidated);
    pair.pass(1100);
    let mut pair = pair.synced();
    pair.apply();
    assert!(pair.hosts[0].hand_over(pair.now, AfterHandover::Follow));
    pair.pass(1);
    assert_eq!(pair.hosts[1].next_region(pair.now), Step::Pending);
    pair.answer(1, Answer::Won { term: Term(3) });
    assert_eq!((take_frame(&mut pair, 1), take_frame(&mut pair, 1)), (Some(1), None));
}

#[test]
fn handing_over_keeps_a_bounded_number_of_frames() {
    let extra = 300;
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    for number in 0..PASSED_FRAMES_MAX + extra {
        assert!(pair.hosts[0].passes_frames());
        pair.hosts[0].pass_frame(pair.now, &frame_to(NIC, number as u8));
        pair.exchange();
    }
    let kept = pair.hosts.each_ref().map(|host| host.passed.len());
    assert_eq!(kept, [PASSED_FRAMES_MAX; 2]);
    assert_eq!(pair.hosts[1].stats().passed_frames_dropped, extra as u64);
    pair.partition();
    assert_eq!(pair.hosts[0].stats().passed_frames_dropped, 0, "they were passed on");
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!(pair.hosts[0].stats().passed_frames_dropped, extra as u64);
    assert_eq!(take_frame(&mut pair, 0), Some((extra % 256) as u8), "the oldest made room");
}

/// What a faulty peer sends behind a hand-over does no harm.
#[test]
fn handing_over_entries_that_are_no_frames_are_dropped() {
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    let now = pair.now;
    let session = &mut pair.hosts[0].session;
    session.append(now, &Entry::HandOver);
    session.append(now, &Entry::Clock { advance_ns: 1 });
    session.append(now, &Entry::Frame(&[0; 13]));
    pair.hosts[0].pass_frame(now, &frame_to(NIC, 1));
    pair.pass(1);
    pair.answer(1, Answer::Won { term: Term(2) });
    assert_eq!((take_frame(&mut pair, 1), take_frame(&mut pair, 1)), (Some(1), None));
    assert_eq!(pair.hosts[1].stats().passed_frames_dropped, 3);
}

#[test]
fn handing_over_backup_fails_and_old_primary_continues() {
    let mut pair = Pair::handing_over(AfterHandover::Leave);
    pair.partition();
    pair.expect([RoleName::Losing, RoleName::Claiming]);
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(2)));
    assert_eq!(pair.hosts[0].next_region(pair.now), Step::Ready(NextRegion::Run));
    assert!(pair.events(0).contains(&ReplicaEvent::HandoverFailed));
}

#[test]
fn handing_over_backup_gone_claims_at_once_and_the_witness_decides() {
    for (answer, role) in [
        (Answer::Won { term: Term(2) }, RoleName::Alone),
        (Answer::Lost { newest: Term(2) }, RoleName::Seeking),
    ] {
        let mut pair = Pair::handing_over(AfterHandover::Follow);
        pair.lose(1);
        assert_eq!(pair.hosts[0].role(), RoleName::Losing);
        pair.answer(0, answer);
        assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (role, Term(2)));
    }
}

#[test]
fn handing_over_primary_gone_backup_goes_live_all_the_same() {
    let mut pair = Pair::handing_over(AfterHandover::Leave);
    pair.lose(0);
    assert_eq!(pair.hosts[1].role(), RoleName::Claiming);
    pair.answer(1, Answer::Won { term: Term(2) });
    assert_eq!((pair.hosts[1].role(), pair.hosts[1].term()), (RoleName::Alone, Term(2)));
}

/// It may have claimed the next term: only the witness knows which host runs the VM.
#[test]
fn handing_over_backup_is_not_stopped() {
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    assert!(!pair.hosts[1].stop(pair.now));
    pair.pass(1);
    pair.expect([RoleName::HandingOver, RoleName::Claiming]);
}

/// The order ends with the backup that could have taken over.
#[test]
fn hand_over_to_backup_that_left_before_fails() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.copy();
    pair.close();
    assert!(
        pair.hosts[0].hand_over(pair.now, AfterHandover::Leave),
        "the sync is not acknowledged"
    );
    pair.cut = [true; 2];
    pair.pass(110);
    pair.expect([RoleName::Losing, RoleName::Seeking]);
    assert!(pair.events(0).contains(&ReplicaEvent::HandoverFailed));
}

/// A second order ends this host's part at once: the VM is the backup's.
#[test]
fn handing_over_stop_sends_no_bye() {
    let mut pair = Pair::handing_over(AfterHandover::Follow);
    assert!(pair.hosts[0].stop(pair.now));
    pair.pass(110);
    assert_eq!(pair.halted(0), Halt::HandedOver { term: Term(2) });
    assert_eq!(pair.hosts[1].role(), RoleName::Claiming);
}

#[test]
fn hand_over_without_whole_backup_is_refused() {
    let mut copying = Pair::alone();
    copying.pass(50);
    copying.copy();
    for (mut pair, host) in
        [(Pair::new(), 0), (Pair::alone(), 0), (copying, 0), (Pair::protected(), 1)]
    {
        let before = pair.hosts[host].role();
        assert!(!pair.hosts[host].hand_over(pair.now, AfterHandover::Follow), "{before}");
        assert_eq!(pair.hosts[host].role(), before);
    }
}

/// The backup must hold the whole VM first.
#[test]
fn hand_over_to_backup_that_could_not_serve_is_refused_unless_this_host_leaves() {
    let mut pair = Pair::protected();
    pair.answer(1, Answer::Unreachable);
    pair.pass(20);
    assert!(pair.hosts[0].peer_unfit().has(Unfit::WITNESS));
    assert!(!pair.hosts[0].hand_over(pair.now, AfterHandover::Follow));
    assert_eq!(pair.hosts[0].stats().handovers_refused, 1);
    assert!(pair.hosts[0].hand_over(pair.now, AfterHandover::Leave));

    let mut pair = Pair::protected();
    pair.hosts[1].set_lan(pair.now, false);
    pair.pass(20);
    assert!(!pair.hosts[0].hand_over(pair.now, AfterHandover::Follow));
    // Nothing is lost if neither host reaches the LAN.
    pair.hosts[0].set_lan(pair.now, false);
    assert!(pair.hosts[0].hand_over(pair.now, AfterHandover::Follow));
}

#[test]
fn hand_over_waits_for_sync() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.copy();
    pair.close();
    assert!(pair.hosts[0].hand_over(pair.now, AfterHandover::Follow));
    assert_eq!(pair.hosts[0].role(), RoleName::Closing);
    pair.pass(5);
    assert_eq!(pair.hosts[0].role(), RoleName::HandingOver);
}

/// A host whose VM can't reach the LAN leaves the next term to a fit host for two silence timeouts.
#[test]
fn unfit_host_claims_later() {
    for unfit in [0, 1] {
        let mut pair = Pair::protected();
        pair.apply();
        pair.hosts[unfit].set_lan(pair.now, false);
        assert!(!pair.hosts[unfit].unfit().is_fit() && pair.hosts[1 - unfit].unfit().is_fit());
        pair.partition();
        assert_eq!(pair.hosts[1].next_region(pair.now), Step::Pending);
        pair.expect([RoleName::Losing, RoleName::Claiming]);
        assert_eq!(pair.hosts[unfit].poll_command(), None, "host {unfit}");
        assert!(pair.hosts[1 - unfit].poll_command().is_some(), "host {unfit}");
        pair.pass(150);
        assert_eq!(pair.hosts[unfit].poll_command(), None, "host {unfit}");
        pair.pass(60);
        assert!(pair.hosts[unfit].poll_command().is_some(), "host {unfit}");
    }
}

#[test]
fn primary_without_lan_hands_over_to_fit_backup_only() {
    let mut pair = Pair::protected();
    pair.hosts[0].set_lan(pair.now, false);
    assert_eq!(pair.hosts[0].role(), RoleName::Protected, "the LAN may flap");
    pair.pass(40);
    assert_eq!(pair.hosts[0].role(), RoleName::HandingOver);
    let mut pair = Pair::protected();
    pair.hosts[1].set_lan(pair.now, false);
    pair.pass(40);
    assert!(pair.hosts[0].peer_unfit().has(Unfit::LAN));
    assert!(pair.events(0).contains(&ReplicaEvent::BackupHealth { unfit: Unfit::LAN }));
    pair.hosts[0].set_lan(pair.now, false);
    pair.pass(200);
    pair.expect([RoleName::Protected, RoleName::Following]);
    pair.hosts[1].set_lan(pair.now, true);
    pair.pass(40);
    assert_eq!(pair.hosts[0].role(), RoleName::HandingOver);
}

#[test]
fn term_is_confirmed_again_and_again() {
    let mut pair = Pair::protected();
    let claimant = |host: u64| Claimant(0xc0 + host);
    let confirm = Question::Confirm { term: Term(1), owner: claimant(Start::Primary as u64) };
    assert_eq!(
        pair.hosts[1].poll_command(),
        Some(Command::Ask(confirm)),
        "a new backup asks at once"
    );
    assert_eq!(pair.hosts[0].poll_command(), None);
    pair.pass(1000);
    assert_eq!(pair.hosts[0].poll_command(), Some(Command::Ask(confirm)));
    assert_eq!(pair.hosts[0].poll_command(), None);
    pair.events(0);
    for (answer, event) in [
        (Answer::Unreachable, Some(ReplicaEvent::WitnessLost)),
        (Answer::Unreachable, None),
        (Answer::Won { term: Term(1) }, Some(ReplicaEvent::WitnessBack)),
        (Answer::Won { term: Term(1) }, None),
    ] {
        pair.hosts[0].handle_witness(pair.now, confirm, answer);
        assert_eq!(pair.events(0), Vec::from_iter(event), "{answer:?}");
        pair.pass(1000);
        assert_eq!(pair.hosts[0].poll_command(), Some(Command::Ask(confirm)));
    }
    pair.hosts[0].handle_witness(pair.now, confirm, Answer::Lost { newest: Term(7) });
    assert_eq!(pair.halted(0), Halt::Replaced { term: Term(7) });
}

#[test]
fn stopped_vm_is_released_at_the_witness() {
    let mut pair = Pair::protected();
    assert!(pair.hosts[0].stop(pair.now));
    pair.pass(300);
    let release = Question::Release { term: Term(1) };
    assert_eq!(pair.hosts[0].poll_command(), Some(Command::Ask(release)));
    pair.hosts[0].handle_witness(pair.now, release, Answer::Unreachable);
    assert!(pair.events(0).contains(&ReplicaEvent::ReleaseFailed));
    assert_eq!(pair.halted(0), Halt::Stopped);
    assert!(pair.hosts[1].stop(pair.now));
    assert_eq!(pair.hosts[1].poll_command(), None, "a backup releases nothing");
}

#[test]
fn following_diverged_sends_bye_and_syncs_again() {
    let mut pair = Pair::protected();
    pair.run_to_exit();
    pair.reach_exit_diverged();
    pair.expect([RoleName::Protected, RoleName::Leaving]);
    pair.pass(1);
    pair.expect([RoleName::Alone, RoleName::Seeking]);
    pair.pass(300);
    pair.copy();
    pair.close();
    pair.pass(5);
    pair.expect([RoleName::Protected, RoleName::Following]);
}

#[test]
fn page_delta_on_wrong_base_is_divergence() {
    let mut page = [7; PAGE_BYTES];
    for is_wrong in [false, true] {
        let mut pair = Pair::protected();
        pair.apply();
        pair.write(page);
        assert_eq!(pair.hosts[1].next_region(pair.now), Step::Ready(NextRegion::Apply));
        assert_eq!(pair.hosts[1].take_checkpoint().pages[0].bytes.as_deref(), Some(&page));
        // The backup's base of the next delta differs in one bit, outside of the bytes that change.
        let mut base = page;
        base[4000] ^= u8::from(is_wrong);
        let _not_sent = pair.hosts[1].verifier.cache_mut().encode(0, &base);
        page[8] += 1;
        pair.write(page);
        let step = pair.hosts[1].next_region(pair.now);
        if is_wrong {
            assert_eq!(step, Step::Invalidated);
            assert_eq!(pair.hosts[1].stats().divergences, 1);
            pair.expect([RoleName::Protected, RoleName::Leaving]);
        } else {
            assert_eq!(step, Step::Ready(NextRegion::Apply));
            assert_eq!(pair.hosts[1].take_checkpoint().pages[0].bytes.as_deref(), Some(&page));
        }
    }
}

#[test]
fn finishing_diverged_halts() {
    let mut pair = Pair::protected();
    pair.run_to_exit();
    pair.partition();
    pair.reach_exit_diverged();
    assert_eq!(pair.halted(1), Halt::Diverged);
}

#[test]
fn backup_primary_bye_halts_in_every_state() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.copy();
    let mut others = [pair, Pair::protected(), Pair::protected()];
    others[2].run_to_exit();
    // Its own Bye is lost, so that its session still exists when the primary's Bye arrives.
    others[2].cut = [false, true];
    others[2].reach_exit_diverged();
    let roles = [RoleName::Syncing, RoleName::Following, RoleName::Leaving];
    for (mut pair, role) in others.into_iter().zip(roles) {
        assert_eq!(pair.hosts[1].role(), role);
        assert!(pair.hosts[0].stop(pair.now));
        pair.pass(2);
        assert_eq!(pair.hosts[1].role(), RoleName::Halted);
        pair.pass(300);
        assert_eq!((pair.halted(0), pair.halted(1)), (Halt::Stopped, Halt::PrimaryStopped));
    }
}

#[test]
fn stop_halts_in_every_state() {
    let starting = Pair::new();
    let mut copying = Pair::alone();
    copying.pass(50);
    copying.copy();
    let mut losing = Pair::protected();
    losing.partition();
    let mut claiming = Pair::protected();
    claiming.claim();
    for mut pair in [starting, copying, losing, claiming, Pair::protected()] {
        for host in [0, 1] {
            assert!(pair.hosts[host].stop(pair.now));
        }
        pair.pass(300);
        assert_eq!((pair.halted(0), pair.halted(1)), (Halt::Stopped, Halt::Stopped));
        assert_eq!(pair.hosts[0].next_region(pair.now), Step::Ready(NextRegion::End));
    }
}

#[test]
fn standalone_releases_output_at_once_and_has_no_timeouts() {
    let config = ReplicaConfig::new(VmId(1), NIC, 1);
    let entropy = Box::new(|_: &mut [u8]| {});
    let now = Time::from_nanos(1);
    let mut replica =
        Replica::new(config, Start::Standalone, Security::Insecure, entropy, now).unwrap();
    assert_eq!(replica.next_region(now), Step::Ready(NextRegion::Run));
    assert_eq!(replica.output(now, &[0; 60]), Step::Ready(()));
    assert!(replica.poll_tap(now).is_some_and(|tap| tap.bytes == [0; 60]));
    assert_eq!((replica.poll_command(), replica.poll_timeout()), (None, None));
}

/// A pair whose primary has just read the clock, and whose backup has acknowledged that.
fn with_new_segment(output_commit: CommitPolicy) -> Pair {
    let mut pair = Pair::with_policy(output_commit).started().synced();
    pair.apply();
    let step = pair.hosts[0].clock_ns(pair.now, &mut Clock(9));
    assert_eq!(step, Ok(Step::Ready(9)));
    pair.exchange();
    pair
}

#[test]
fn output_in_early_release_window_needs_segment_start_and_later_one_its_own_entry() {
    let mut pair = with_new_segment(CommitPolicy::Early);
    let early_release_window = pair.hosts[0].config.early_release_window;
    let begun = pair.now;
    pair.now = begun + Duration::from_nanos(early_release_window.as_nanos() - 1);
    assert_eq!(pair.hosts[0].output(pair.now, &[1; 60]), Step::Ready(()));
    assert!(pair.hosts[0].poll_tap(pair.now).is_some(), "although its own entry was not sent");
    pair.hosts[0].pop_tap();
    assert_eq!(pair.hosts[0].stats().released_early, 1);
    pair.now = pair.now + Duration::from_nanos(1);
    assert_eq!(pair.hosts[0].output(pair.now, &[2; 60]), Step::Ready(()));
    assert_eq!(pair.hosts[0].poll_tap(pair.now), None);
    pair.exchange();
    assert!(pair.hosts[0].poll_tap(pair.now).is_some());
    pair.hosts[0].pop_tap();
    // An output after a clock reading that the backup has not acknowledged waits for it.
    let step = pair.hosts[0].clock_ns(pair.now, &mut Clock(10));
    assert_eq!(step, Ok(Step::Ready(10)));
    assert_eq!(pair.hosts[0].output(pair.now, &[3; 60]), Step::Ready(()));
    assert_eq!(pair.hosts[0].poll_tap(pair.now), None);
    pair.exchange();
    assert!(pair.hosts[0].poll_tap(pair.now).is_some());
}

#[test]
fn output_with_strict_policy_needs_its_own_entry_at_any_time_of_the_segment() {
    let mut pair = with_new_segment(CommitPolicy::Strict);
    let window = pair.hosts[0].config.early_release_window;
    // The first output is made at the very time at which the segment began.
    for (number, later) in (1..).zip([Duration::ZERO, Duration::from_nanos(1), window, window]) {
        pair.now = pair.now + later;
        assert_eq!(pair.hosts[0].output(pair.now, &[number; 60]), Step::Ready(()));
        assert_eq!(pair.hosts[0].poll_tap(pair.now), None, "output {number}");
        pair.exchange();
        assert!(pair.hosts[0].poll_tap(pair.now).is_some(), "output {number}");
        pair.hosts[0].pop_tap();
    }
    assert_eq!(pair.hosts[0].stats().released_early, 0);
}

/// A world that always has console input.
struct Typing;

impl LiveInputs for Typing {
    type Error = Infallible;

    fn clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(20)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    fn next_input(&mut self, _: &DeviceCapacity) -> Result<Option<Input<'_>>, Infallible> {
        Ok(Some(Input::Console(b"x")))
    }

    fn go_live(&mut self, _: u64) {}
}

/// A backup that has gone live at the position at which its log ends.
fn gone_live(output_commit: CommitPolicy) -> Replica {
    let mut pair = Pair::with_policy(output_commit).started().synced();
    pair.claim();
    pair.answer(1, Answer::Won { term: Term(2) });
    let [_, host] = pair.hosts;
    host
}

/// Returns whether the machine gets an input at `now`.
fn takes_input(host: &mut Replica, now: Time) -> bool {
    let mut world = Typing;
    assert_eq!(host.input_ready(now, &mut world), Step::Ready(()));
    let Ok(Step::Ready(input)) = host.next_input(now, &mut world, &DeviceCapacity::default())
    else {
        panic!("input_ready was Ready");
    };
    input.is_some()
}

#[test]
fn backup_asks_for_a_window_only_where_the_log_has_one() {
    let mut pair = Pair::protected();
    pair.apply();
    let positions = [
        (Position::Exit, NextRegion::RunToExit),
        (Position::Window, NextRegion::Run),
        (Position::Exit, NextRegion::RunToExit),
    ];
    for (position, region) in positions {
        assert_eq!(
            pair.hosts[0].reached(pair.now, position, &vcpu(7), &"an exit"),
            Step::Ready(())
        );
        pair.exchange();
        assert_eq!(pair.hosts[1].next_region(pair.now), Step::Ready(region), "{position:?}");
        assert_eq!(
            pair.hosts[1].reached(pair.now, position, &vcpu(7), &"an exit"),
            Step::Ready(())
        );
    }
}

#[test]
fn replay_out_takes_no_input_until_guest_reads_clock_or_halts() {
    let now = Time::from_nanos(1 << 40);
    let mut host = gone_live(CommitPolicy::Early);
    assert_eq!(host.next_region(now), Step::Ready(NextRegion::Run));
    assert_eq!(host.mid_region_stop(now), Step::Ready(StopAdvice::Resume));
    assert_eq!(host.reached(now, Position::Exit, &vcpu(1), &"an exit"), Step::Ready(()));
    assert!(!takes_input(&mut host, now));
    assert_eq!(host.output(now, &[1; 60]), Step::Ready(()));
    assert!(!takes_input(&mut host, now));
    assert_eq!(host.halted_guest(now), Step::Ready(WaitFor::Nothing));
    assert!(takes_input(&mut host, now));

    let mut host = gone_live(CommitPolicy::Early);
    assert_eq!(host.clock_ns(now, &mut Typing), Ok(Step::Ready(20)));
    assert!(takes_input(&mut host, now));
}

#[test]
fn replay_out_of_computing_guest_ends_after_its_run_time() {
    // A strict host does not know whether the dead primary was strict, too.
    for output_commit in [CommitPolicy::Early, CommitPolicy::Strict] {
        replay_out_ends_after_its_run_time(gone_live(output_commit));
    }
}

fn replay_out_ends_after_its_run_time(mut host: Replica) {
    let mut now = Time::from_nanos(1 << 40);
    assert_eq!(host.next_region(now), Step::Ready(NextRegion::Run));
    let mut runs = 0;
    loop {
        // The host may have been stopped during a run: a run counts for a millisecond at most.
        now = now + Duration::from_millis(if runs == 3 { 500 } else { 2 });
        runs += 1;
        match host.mid_region_stop(now) {
            Step::Ready(StopAdvice::Resume) => assert!(!takes_input(&mut host, now)),
            Step::Ready(StopAdvice::AsNeeded) => break,
            other => panic!("{other:?}"),
        }
    }
    let run_for = Duration::from_millis(1) * runs;
    assert_eq!(run_for, host.config.early_release_window * 100);
    assert!(takes_input(&mut host, now));
}

/// Returns how many frames `host` may send to the LAN now, and removes them.
fn announced(pair: &mut Pair, host: usize) -> usize {
    let now = pair.now;
    let mut frames = 0;
    while pair.hosts[host].poll_tap(now).is_some() {
        pair.hosts[host].pop_tap();
        frames += 1;
    }
    frames
}

/// The LAN can't be reached for a moment.
fn interrupt_lan(pair: &mut Pair, host: usize) {
    for is_up in [false, true] {
        pair.hosts[host].set_lan(pair.now, is_up);
    }
}

#[test]
fn lan_that_came_up_lets_only_the_speaker_announce() {
    let mut pair = Pair::protected();
    for host in [0, 1] {
        assert_eq!(announced(&mut pair, host), 0);
        interrupt_lan(&mut pair, host);
    }
    assert_eq!([announced(&mut pair, 0), announced(&mut pair, 1)], [1, 0]);
    // The lease expires: a round that is due waits until this host has the right again.
    pair.cut = [true; 2];
    pair.pass(90);
    assert_eq!(announced(&mut pair, 0), 0);
    pair.pass(20);
    pair.expect([RoleName::Losing, RoleName::Finishing]);
    interrupt_lan(&mut pair, 0);
    assert_eq!(announced(&mut pair, 0), 0, "the other host may own the next term");
    pair.answer(0, Answer::Won { term: Term(2) });
    assert_eq!(announced(&mut pair, 0), 1);
}

/// A world with one frame for the guest.
struct OneFrame([u8; 60]);

impl LiveInputs for OneFrame {
    type Error = Infallible;

    fn clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    fn next_input(&mut self, _: &DeviceCapacity) -> Result<Option<Input<'_>>, Infallible> {
        Ok(Some(Input::Frame(&self.0)))
    }

    fn go_live(&mut self, _: u64) {}
}

#[test]
fn own_address_as_source_of_a_frame_is_answered_by_one_round_per_second() {
    let mut pair = Pair::protected();
    let capacity = DeviceCapacity { frame: true, ..DeviceCapacity::default() };
    let mut frame = [0; 60];
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 2]);
    let receive = |pair: &mut Pair, frame: [u8; 60]| {
        let mut world = OneFrame(frame);
        let step = pair.hosts[0].next_input(pair.now, &mut world, &capacity);
        assert!(matches!(step, Ok(Step::Ready(Some(_)))));
        announced(pair, 0)
    };
    assert_eq!(receive(&mut pair, frame), 0, "another station");
    frame[6..12].copy_from_slice(&NIC.octets());
    assert_eq!(receive(&mut pair, frame), 1);
    let mut rounds = 0;
    for _ in 0..25 {
        pair.pass(100);
        rounds += receive(&mut pair, frame);
    }
    assert_eq!(rounds, 2);
}
