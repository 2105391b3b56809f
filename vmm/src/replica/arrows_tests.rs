//! Every arrow of the diagram at the head of [`super`], with two engines, one page of memory and a link
//! that does what it is told.

use std::convert::Infallible;

use super::*;
use crate::replay::boundary::{DeviceCapacity, Input, Position};
use logchan::handshake::Security;
use logchan::ids::{Claimant, Term, VmId};
use logchan::limits::PAGE_BYTES;
use logchan::time::{Duration, Time};
use netpath::MacAddr;

const CARD: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 1);
const MS: Duration = Duration::from_millis(1);

/// A world in which guest time is what the test says.
struct Clock(u64);

impl World for Clock {
    type Error = Infallible;

    fn clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(self.0)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn entropy(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn next_input(&mut self, _: &DeviceCapacity) -> Result<Option<Input<'_>>, Infallible> {
        Ok(None)
    }

    fn go_live(&mut self, clock_ns: u64) {
        self.0 = clock_ns;
    }
}

/// A machine without any state but its page, which was not written.
struct Still;

impl CheckpointImage for Still {
    fn vcpu(&self) -> &[u8] {
        b"vcpu"
    }

    fn devices(&self) -> &[u8] {
        b"devices"
    }

    fn pages(&self) -> &[u64] {
        &[]
    }

    fn read_page(&self, _: u64, _: &mut [u8; PAGE_BYTES]) {
        unreachable!("no page was written");
    }
}

/// The same after its page was written.
struct Written([u8; PAGE_BYTES]);

impl CheckpointImage for Written {
    fn vcpu(&self) -> &[u8] {
        Still.vcpu()
    }

    fn devices(&self) -> &[u8] {
        Still.devices()
    }

    fn pages(&self) -> &[u64] {
        &[0]
    }

    fn read_page(&self, _: u64, page: &mut [u8; PAGE_BYTES]) {
        *page = self.0;
    }
}

/// A primary, which is number 0, and a backup.
struct Pair {
    hosts: [Replica; 2],
    now: Time,
    /// What host 0 and host 1 send is lost.
    cut: [bool; 2],
}

impl Pair {
    fn new() -> Pair {
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
            let config = ReplicaConfig { claimant, ..ReplicaConfig::new(VmId(1), CARD, 1) };
            Replica::new(config, start, Security::Insecure, Box::new(entropy), now).unwrap()
        });
        Pair { hosts, now, cut: [false; 2] }
    }

    fn alone() -> Pair {
        let mut pair = Pair::new();
        pair.answer(0, Answer::Won);
        pair
    }

    fn protected() -> Pair {
        let mut pair = Pair::alone();
        pair.pass(50);
        pair.copy();
        pair.close();
        pair.pass(5);
        pair.expect([RoleName::Protected, RoleName::Following]);
        pair
    }

    fn expect(&self, roles: [RoleName; 2]) {
        assert_eq!(self.hosts.each_ref().map(Replica::role), roles);
    }

    /// What is sent at this moment arrives at this moment.
    fn exchange(&mut self) {
        let mut frame = [0; 2048];
        for _ in 0..4 {
            for from in [0, 1] {
                while let Some(length) = self.hosts[from].poll_transmit(self.now, &mut frame) {
                    if !self.cut[from] {
                        self.hosts[1 - from].handle_frame(self.now, &mut frame[..length]);
                    }
                }
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now + MS;
            self.hosts.iter_mut().for_each(|host| host.handle_timeout(self.now));
            self.exchange();
        }
    }

    /// The witness is asked, and says this.
    fn answer(&mut self, host: usize, answer: Answer) {
        let Some(Command::Claim { term, .. }) = self.hosts[host].poll_command() else {
            panic!("host {host} as {} asks nothing", self.hosts[host].role());
        };
        self.hosts[host].handle_witness(self.now, term, answer);
    }

    /// Memory is copied, to the last page.
    fn copy(&mut self) {
        self.expect([RoleName::Copying, RoleName::Syncing]);
        assert_eq!(self.hosts[0].poll_copy(), Some(CopyRequest::Begin));
        self.hosts[0].copy_begun();
        assert_eq!(self.hosts[0].poll_copy(), Some(CopyRequest::Page(0)));
        self.hosts[0].copied(self.now, &[7; PAGE_BYTES]);
        assert_eq!(self.hosts[0].poll_copy(), None);
        assert_eq!(self.hosts[0].next_region(self.now), Step::Ready(NextRegion::Capture));
    }

    /// The closing checkpoint is sent.
    fn close(&mut self) {
        let step = self.hosts[0].checkpoint(self.now, &mut Clock(5), &Still).unwrap();
        assert_eq!(step, Step::Ready(()));
    }

    /// The backup's machine is where the primary's was.
    fn apply(&mut self) {
        let step = self.hosts[1].next_region(self.now);
        assert_eq!(step, Step::Ready(NextRegion::Apply));
        let image = self.hosts[1].take_checkpoint();
        assert_eq!((image.full, image.pages.len()), (true, 1));
    }

    /// The page was written, and the primary is stopped in mid-region.
    fn write(&mut self, page: [u8; PAGE_BYTES]) {
        let step = self.hosts[0].checkpoint(self.now, &mut Clock(5), &Written(page)).unwrap();
        assert_eq!(step, Step::Ready(()));
        self.exchange();
    }

    /// Both machines reach an exit, one of them another one than the other.
    fn diverge(&mut self) {
        self.apply();
        assert_eq!(self.hosts[0].reached(self.now, Position::Exit, 1), Step::Ready(()));
        self.exchange();
        assert_eq!(self.hosts[1].next_region(self.now), Step::Ready(NextRegion::RunToExit));
    }

    fn reach_another(&mut self) {
        assert_eq!(self.hosts[1].reached(self.now, Position::Exit, 2), Step::Invalidated);
    }

    /// The log link is dead until both have noticed.
    fn part(&mut self) {
        self.cut = [true; 2];
        self.pass(110);
    }

    /// The primary is silent, and the backup has come to the end of its log.
    fn claim(&mut self) {
        self.part();
        self.expect([RoleName::Losing, RoleName::Finishing]);
        self.apply();
        assert_eq!(self.hosts[1].next_region(self.now), Step::Pending);
        self.expect([RoleName::Losing, RoleName::Claiming]);
    }

    fn halted(&self, host: usize) -> Halt {
        self.hosts[host].halted().expect("over")
    }
}

#[test]
fn starting_ends_as_the_witness_says() {
    let mut pair = Pair::new();
    pair.answer(0, Answer::Unreachable);
    pair.expect([RoleName::Starting, RoleName::Seeking]);
    pair.pass(60);
    pair.answer(0, Answer::Won);
    assert_ne!(pair.hosts[0].role(), RoleName::Starting);
    let mut pair = Pair::new();
    pair.answer(0, Answer::Lost);
    assert_eq!(pair.halted(0), Halt::AlreadyStarted { term: Term(1) });
}

#[test]
fn copying_is_broken_off_by_silence_and_by_a_goodbye() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.copy();
    pair.part();
    pair.expect([RoleName::Alone, RoleName::Seeking]);
    pair.cut = [false; 2];
    pair.pass(1100);
    pair.copy();
    pair.hosts[1].stop(pair.now);
    pair.pass(1);
    assert_eq!(pair.hosts[0].role(), RoleName::Alone);
    assert_eq!(pair.halted(1), Halt::Stopped);
}

#[test]
fn protected_vm_is_its_primary_s_again_when_the_backup_says_goodbye() {
    let mut pair = Pair::protected();
    pair.hosts[1].stop(pair.now);
    pair.pass(1);
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(1)));
}

#[test]
fn losing_ends_as_the_witness_says() {
    let mut pair = Pair::protected();
    pair.part();
    pair.answer(0, Answer::Won);
    assert_eq!((pair.hosts[0].role(), pair.hosts[0].term()), (RoleName::Alone, Term(2)));
    let mut pair = Pair::protected();
    pair.part();
    pair.answer(0, Answer::Lost);
    assert_eq!(pair.halted(0), Halt::Replaced { term: Term(2) });
}

#[test]
fn claiming_ends_as_the_witness_says() {
    let mut pair = Pair::protected();
    pair.claim();
    pair.answer(1, Answer::Won);
    assert_eq!((pair.hosts[1].role(), pair.hosts[1].term()), (RoleName::Alone, Term(2)));
    let mut world = Clock(0);
    let step = pair.hosts[1].clock_ns(pair.now, &mut world);
    assert_eq!(step, Ok(Step::Ready(5)), "guest time goes on from the log's");
    let mut pair = Pair::protected();
    pair.claim();
    pair.answer(1, Answer::Lost);
    assert_eq!((pair.hosts[1].role(), pair.hosts[1].term()), (RoleName::Seeking, Term(2)));
    assert_eq!(pair.hosts[1].next_region(pair.now), Step::Invalidated);
}

/// A witness that does not have that owner is another one than the pair's, or has lost files.
#[test]
fn claim_names_the_owner_of_the_term_before() {
    let primary = Claimant(0xc0 + Start::Primary as u64);
    let command = Pair::new().hosts[0].poll_command();
    assert_eq!(command, Some(Command::Claim { term: Term(1), previous: None }));
    let next = Some(Command::Claim { term: Term(2), previous: Some(primary) });
    let mut pair = Pair::protected();
    pair.part();
    assert_eq!(pair.hosts[0].poll_command(), next, "of a primary that lost its backup");
    let mut pair = Pair::protected();
    pair.claim();
    assert_eq!(pair.hosts[1].poll_command(), next, "of a backup whose primary is silent");
}

#[test]
fn backup_that_diverged_says_goodbye_and_is_given_the_memory_again() {
    let mut pair = Pair::protected();
    pair.diverge();
    pair.reach_another();
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
fn changes_of_what_the_backup_was_not_told_are_a_divergence() {
    let mut page = [7; PAGE_BYTES];
    for is_wrong in [false, true] {
        let mut pair = Pair::protected();
        pair.apply();
        pair.write(page);
        assert_eq!(pair.hosts[1].next_region(pair.now), Step::Ready(NextRegion::Apply));
        assert_eq!(pair.hosts[1].take_checkpoint().pages[0].bytes.as_deref(), Some(&page));
        // The base of what comes next has one other bit, and not where that changes something.
        let mut base = page;
        base[4000] ^= u8::from(is_wrong);
        let _not_sent = pair.hosts[1].cache.encode(0, &base);
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
fn backup_that_diverged_from_a_dead_primary_is_over() {
    let mut pair = Pair::protected();
    pair.diverge();
    pair.part();
    pair.reach_another();
    assert_eq!(pair.halted(1), Halt::Diverged);
}

#[test]
fn backup_in_any_state_ends_with_its_primary_s_goodbye() {
    let mut pair = Pair::alone();
    pair.pass(50);
    pair.copy();
    let mut others = [pair, Pair::protected(), Pair::protected()];
    others[2].diverge();
    // Its own goodbye is lost, so that it is there to hear the other one.
    others[2].cut = [false, true];
    others[2].reach_another();
    let roles = [RoleName::Syncing, RoleName::Following, RoleName::Leaving];
    for (mut pair, role) in others.into_iter().zip(roles) {
        assert_eq!(pair.hosts[1].role(), role);
        pair.hosts[0].stop(pair.now);
        pair.pass(2);
        assert_eq!(pair.hosts[1].role(), RoleName::Halted);
        pair.pass(300);
        assert_eq!((pair.halted(0), pair.halted(1)), (Halt::Stopped, Halt::PrimaryStopped));
    }
}

#[test]
fn stop_is_the_end_whatever_a_host_is() {
    let starting = Pair::new();
    let mut copying = Pair::alone();
    copying.pass(50);
    copying.copy();
    let mut losing = Pair::protected();
    losing.part();
    let mut claiming = Pair::protected();
    claiming.claim();
    for mut pair in [starting, copying, losing, claiming, Pair::protected()] {
        for host in [0, 1] {
            pair.hosts[host].stop(pair.now);
        }
        pair.pass(300);
        assert_eq!((pair.halted(0), pair.halted(1)), (Halt::Stopped, Halt::Stopped));
        assert_eq!(pair.hosts[0].next_region(pair.now), Step::Ready(NextRegion::End));
    }
}

#[test]
fn standalone_speaks_at_once_and_has_no_arrows() {
    let config = ReplicaConfig::new(VmId(1), CARD, 1);
    let entropy = Box::new(|_: &mut [u8]| {});
    let now = Time::from_nanos(1);
    let mut replica =
        Replica::new(config, Start::Standalone, Security::Insecure, entropy, now).unwrap();
    assert_eq!(replica.next_region(now), Step::Ready(NextRegion::Run));
    assert_eq!(replica.output(now, &[0; 60]), Step::Ready(()));
    assert!(replica.poll_tap(now).is_some_and(|tap| tap.bytes == [0; 60]));
    assert_eq!((replica.poll_command(), replica.poll_timeout()), (None, None));
}

/// A primary that has just read the clock, and the backup has that.
fn with_a_stretch_begun() -> Pair {
    let mut pair = Pair::protected();
    pair.apply();
    let step = pair.hosts[0].clock_ns(pair.now, &mut Clock(9));
    assert_eq!(step, Ok(Step::Ready(9)));
    pair.exchange();
    pair
}

#[test]
fn output_early_in_a_stretch_needs_its_beginning_and_a_late_one_its_own_entry() {
    let mut pair = with_a_stretch_begun();
    let early_release_window = pair.hosts[0].config.early_release_window;
    let begun = pair.now;
    pair.now = begun + early_release_window;
    assert_eq!(pair.hosts[0].output(pair.now, &[1; 60]), Step::Ready(()));
    assert!(pair.hosts[0].poll_tap(pair.now).is_some(), "its own entry was not even sent");
    pair.hosts[0].pop_tap();
    assert_eq!(pair.hosts[0].stats().released_early, 1);
    pair.now = pair.now + Duration::from_nanos(1);
    assert_eq!(pair.hosts[0].output(pair.now, &[2; 60]), Step::Ready(()));
    assert_eq!(pair.hosts[0].poll_tap(pair.now), None);
    pair.exchange();
    assert!(pair.hosts[0].poll_tap(pair.now).is_some());
    pair.hosts[0].pop_tap();
    // And one that follows a reading which the backup does not have waits for that.
    let step = pair.hosts[0].clock_ns(pair.now, &mut Clock(10));
    assert_eq!(step, Ok(Step::Ready(10)));
    assert_eq!(pair.hosts[0].output(pair.now, &[3; 60]), Step::Ready(()));
    assert_eq!(pair.hosts[0].poll_tap(pair.now), None);
    pair.exchange();
    assert!(pair.hosts[0].poll_tap(pair.now).is_some());
}

/// A world in which there is always something typed.
struct Typing;

impl World for Typing {
    type Error = Infallible;

    fn clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(20)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn entropy(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn next_input(&mut self, _: &DeviceCapacity) -> Result<Option<Input<'_>>, Infallible> {
        Ok(Some(Input::Console(b"x")))
    }

    fn go_live(&mut self, _: u64) {}
}

/// A backup that has gone live where its log ends: at a position.
fn gone_live() -> Replica {
    let mut pair = Pair::protected();
    pair.claim();
    pair.answer(1, Answer::Won);
    let [_, host] = pair.hosts;
    host
}

/// Whether an input enters at `now`.
fn takes_input(host: &mut Replica, now: Time) -> bool {
    assert_eq!(host.input_ready(now), Step::Ready(()));
    let Ok(Step::Ready(input)) = host.next_input(now, &mut Typing, &DeviceCapacity::default())
    else {
        panic!("it was ready");
    };
    input.is_some()
}

#[test]
fn backup_asks_for_a_window_only_where_the_log_has_one() {
    let mut pair = Pair::protected();
    pair.apply();
    let positions = [
        (Position::Exit, NextRegion::RunToExit),
        (Position::UserWindow, NextRegion::Run),
        (Position::Exit, NextRegion::RunToExit),
    ];
    for (position, region) in positions {
        assert_eq!(pair.hosts[0].reached(pair.now, position, 7), Step::Ready(()));
        pair.exchange();
        assert_eq!(pair.hosts[1].next_region(pair.now), Step::Ready(region), "{position:?}");
        assert_eq!(pair.hosts[1].reached(pair.now, position, 7), Step::Ready(()));
    }
}

#[test]
fn whoever_goes_live_takes_nothing_in_before_the_guest_reads_or_halts() {
    let now = Time::from_nanos(1 << 40);
    let mut host = gone_live();
    assert_eq!(host.next_region(now), Step::Ready(NextRegion::Run));
    assert_eq!(host.mid_region_stop(now), Step::Ready(StopAdvice::Resume));
    assert_eq!(host.reached(now, Position::Exit, 1), Step::Ready(()));
    assert!(!takes_input(&mut host, now));
    assert_eq!(host.output(now, &[1; 60]), Step::Ready(()));
    assert!(!takes_input(&mut host, now));
    assert_eq!(host.halted_guest(now), Step::Ready(Halted::Look));
    assert!(takes_input(&mut host, now));

    let mut host = gone_live();
    assert_eq!(host.clock_ns(now, &mut Typing), Ok(Step::Ready(20)));
    assert!(takes_input(&mut host, now));
}

#[test]
fn whoever_goes_live_with_a_guest_that_only_computes_ends_that_when_it_has_run_long_enough() {
    let mut host = gone_live();
    let mut now = Time::from_nanos(1 << 40);
    assert_eq!(host.next_region(now), Step::Ready(NextRegion::Run));
    let mut runs = 0;
    loop {
        // Standing still is not running: a run counts for a millisecond at most.
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
