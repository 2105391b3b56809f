//! Tests of the rules of generations: every case by itself, and histories of two hosts that crash.

use super::boot::{Found, Refusal, Wanted, Word, may_boot};
use super::bugs::{DiskBug, DiskBugs};
use super::extents::Extents;
use super::superblock::{BadSuperblock, ImageState, Superblock};
use logchan::disk_copy::Generation;
use logchan::ids::{Claimant, Term, VmId};
use replication::witness::{Ending, LastClaim};

const VM: VmId = VmId(5);
const BYTES: u64 = 1 << 20;

fn generation(term: u64, owner: u64) -> Generation {
    Generation { term: Term(term), owner: Claimant(owner) }
}

fn wanted(word: Word, bugs: DiskBugs) -> Wanted {
    Wanted { of: (VM, 0), bytes: BYTES, word, bugs }
}

/// All superblocks with generations of two terms and two owners.
fn superblocks() -> Vec<Superblock> {
    let mut all = Vec::new();
    let generations: Vec<_> = std::iter::once(None)
        .chain((1..3).flat_map(|term| (1..3).map(move |owner| Some(generation(term, owner)))))
        .collect();
    for state in [ImageState::Whole, ImageState::Copying] {
        for &base in &generations {
            for &verified in &generations {
                for holder in [None, Some(Claimant(1)), Some(Claimant(2))] {
                    let extents = Extents::NONE;
                    all.push(Superblock {
                        vm: VM,
                        index: 0,
                        bytes: BYTES,
                        state,
                        base,
                        verified,
                        holder,
                        extents,
                    });
                }
            }
        }
    }
    all
}

#[test]
fn every_superblock_and_claim_has_the_answer_of_the_table() {
    let mut allowed = 0;
    for superblock in superblocks() {
        for ending in [Ending::None, Ending::Released] {
            for last in [None, Some(generation(1, 1)), Some(generation(2, 1))] {
                let last = last.map(|generation| LastClaim { generation, ending });
                let answer =
                    may_boot(Ok(Some(&superblock)), wanted(Word::None, DiskBugs::default()), last);
                let expected = match (superblock.state, last) {
                    (ImageState::Copying, _) => Err(Refusal::HalfCopied),
                    (ImageState::Whole, None) => match (superblock.base, superblock.verified) {
                        (None, None) => Ok(()),
                        (_, _) => Err(Refusal::NoClaims),
                    },
                    (ImageState::Whole, Some(last)) => {
                        let newest = last.generation;
                        let by_holder = superblock.holder == Some(Claimant(1));
                        let by_look = superblock.verified == Some(newest);
                        let by_copy =
                            superblock.base == Some(newest) && last.ending == Ending::None;
                        match by_holder || by_look || by_copy {
                            true => Ok(()),
                            false => Err(Refusal::Outdated { newest }),
                        }
                    }
                };
                assert_eq!(answer, expected, "{superblock:?}, {last:?}");
                allowed += u32::from(answer.is_ok());
                let accepted = wanted(Word::Accept, DiskBugs::default());
                assert_eq!(may_boot(Ok(Some(&superblock)), accepted, last), Ok(()));
            }
        }
    }
    assert!(allowed > 100, "{allowed}");
}

#[test]
fn image_of_another_vm_disk_or_size_is_refused_whatever_is_said() {
    let other = VmId(6);
    let last = Some(LastClaim { generation: generation(1, 1), ending: Ending::None });
    for word in [Word::None, Word::Accept] {
        let ask = |found: Found<'_>| may_boot(found, wanted(word, DiskBugs::default()), last);
        let mut superblock = Superblock::new((other, 0), BYTES);
        superblock.holder = Some(Claimant(1));
        assert_eq!(ask(Ok(Some(&superblock))), Err(Refusal::OtherVm { other }));
        superblock.vm = VM;
        superblock.index = 1;
        assert_eq!(ask(Ok(Some(&superblock))), Err(Refusal::OtherDisk { other: 1, index: 0 }));
        superblock.index = 0;
        superblock.bytes = 512;
        assert_eq!(ask(Ok(Some(&superblock))), Err(Refusal::Size { bytes: 512 }));
        assert_eq!(ask(Err(BadSuperblock::Damaged)), Err(Refusal::Damaged));
        assert_eq!(ask(Err(BadSuperblock::Version { version: 2 })), Err(Refusal::Version));
    }
    let none = |word, last| may_boot(Ok(None), wanted(word, DiskBugs::default()), last);
    assert_eq!(none(Word::None, None), Ok(()), "a new VM");
    assert_eq!(none(Word::None, last), Err(Refusal::Unknown));
    assert_eq!(none(Word::Accept, last), Ok(()));
}

#[test]
fn refusal_is_one_line_that_says_what_to_do() {
    for refusal in [
        Refusal::Unknown,
        Refusal::Damaged,
        Refusal::Version,
        Refusal::OtherVm { other: VM },
        Refusal::Size { bytes: 512 },
        Refusal::HalfCopied,
        Refusal::Outdated { newest: generation(2, 1) },
        Refusal::NoClaims,
    ] {
        let text = refusal.to_string();
        assert!(text.contains(':') || text.contains(". Start"), "{text}");
        assert!(!text.contains('\n') && !text.contains("  "), "{text}");
    }
}

/// What a host of the model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Down,
    /// Runs the VM in this generation.
    Primary(Generation),
    /// Has no whole image, or no primary.
    Backup(Claimant),
    /// Executes the log of the primary in its generation.
    Following(Claimant, Generation),
}

/// A host: its image, and what it does.
#[derive(Clone, Debug)]
struct Host {
    part: Part,
    superblock: Option<Superblock>,
    /// Number of the last write that the image has.
    version: u64,
}

/// Two hosts and a witness. The peer of host `i` is host `1 - i`.
struct Model {
    hosts: [Host; 2],
    /// Owner of each term, from 1 on; `None`: released.
    claims: Vec<Option<Claimant>>,
    /// Number of the last write, and of the last one whose consequences the world has seen.
    written: u64,
    seen: u64,
    claimants: u64,
    bugs: DiskBugs,
    boots: u64,
}

impl Model {
    fn new(bugs: DiskBugs) -> Model {
        let host = Host { part: Part::Down, superblock: None, version: 0 };
        let hosts = [host.clone(), host];
        Model { hosts, claims: Vec::new(), written: 0, seen: 0, claimants: 0, bugs, boots: 0 }
    }

    fn new_claimant(&mut self) -> Claimant {
        self.claimants += 1;
        Claimant(self.claimants)
    }

    fn claim(&mut self, owner: Option<Claimant>) -> Generation {
        self.claims.push(owner);
        generation(self.claims.len() as u64, owner.map_or(0, |owner| owner.0))
    }

    fn last(&self) -> Option<LastClaim> {
        let at = self.claims.iter().rposition(Option::is_some)?;
        let owner = self.claims[at]?;
        let ending = if at + 1 == self.claims.len() { Ending::None } else { Ending::Released };
        let generation = Generation { term: Term(at as u64 + 1), owner };
        Some(LastClaim { generation, ending })
    }

    fn primary(&self) -> Option<usize> {
        (0..2).find(|&host| matches!(self.hosts[host].part, Part::Primary(_)))
    }

    /// An operator boots the VM at `host`. Returns whether the image was good.
    fn boot(&mut self, host: usize, random: &mut fastrand::Rng) -> bool {
        let found = self.hosts[host].superblock.clone();
        let last = self.last();
        if may_boot(Ok(found.as_ref()), wanted(Word::None, self.bugs), last).is_err() {
            return true;
        }
        let claimant = self.new_claimant();
        let mut superblock = found.unwrap_or_else(|| Superblock::new((VM, 0), BYTES));
        superblock.holder = Some(claimant);
        superblock.verified = last.map(|last| last.generation);
        self.hosts[host].superblock = Some(superblock);
        if random.u8(..8) == 0 {
            // It crashes before its claim.
            return true;
        }
        // The operator says so if the term has an owner, whose host has crashed.
        if self.primary().is_some() || matches!(self.hosts[1 - host].part, Part::Following(_, _)) {
            return true;
        }
        self.boots += 1;
        let generation = self.claim(Some(claimant));
        let is_good = self.hosts[host].version >= self.seen;
        self.written = self.written.max(self.seen) + 1;
        self.hosts[host].part = Part::Primary(generation);
        self.write(host);
        is_good
    }

    /// The guest at the primary `host` writes, and has output.
    fn write(&mut self, host: usize) {
        let Part::Primary(generation) = self.hosts[host].part else { return };
        self.written += 1;
        self.hosts[host].version = self.written;
        let peer = &mut self.hosts[1 - host];
        match peer.part {
            // Its write may be late: the output waits for it, and is not seen.
            Part::Following(_, followed) if followed == generation => {
                if self.written.is_multiple_of(3) {
                    peer.version = self.written;
                    self.seen = self.written;
                }
            }
            Part::Following(_, _) | Part::Down | Part::Primary(_) | Part::Backup(_) => {
                self.seen = self.written;
            }
        }
    }

    /// The primary goes on without its backup.
    fn go_on(&mut self, host: usize) {
        if let Part::Primary(old) = self.hosts[host].part {
            let generation = self.claim(Some(old.owner));
            self.hosts[host].part = Part::Primary(generation);
        }
    }

    fn crash(&mut self, host: usize) {
        let was = std::mem::replace(&mut self.hosts[host].part, Part::Down);
        let peer = 1 - host;
        match (was, self.hosts[peer].part) {
            (Part::Primary(generation), Part::Following(claimant, followed))
                if generation == followed =>
            {
                // It takes over.
                let generation = self.claim(Some(claimant));
                self.hosts[peer].part = Part::Primary(generation);
            }
            (Part::Following(_, followed), Part::Primary(generation)) if generation == followed => {
                self.go_on(peer);
            }
            (_, _) => {}
        }
    }

    fn sync(&mut self, random: &mut fastrand::Rng) {
        let Some(primary) = self.primary() else { return };
        let (Part::Primary(generation), Part::Backup(claimant)) =
            (self.hosts[primary].part, self.hosts[1 - primary].part)
        else {
            return;
        };
        let version = self.hosts[primary].version;
        let backup = &mut self.hosts[1 - primary];
        let superblock = backup.superblock.get_or_insert_with(|| Superblock::new((VM, 0), BYTES));
        superblock.state = ImageState::Copying;
        if random.u8(..3) == 0 {
            // The copy does not end.
            backup.version = 0;
            return;
        }
        superblock.state = ImageState::Whole;
        superblock.base = Some(generation);
        superblock.verified = None;
        superblock.holder = Some(claimant);
        backup.version = version;
        backup.part = Part::Following(claimant, generation);
        if let Some(superblock) = &mut self.hosts[primary].superblock
            && random.bool()
        {
            // The confirmation may not arrive before the primary crashes.
            superblock.base = Some(generation);
        }
    }

    fn step(&mut self, random: &mut fastrand::Rng) -> bool {
        let host = random.usize(..2);
        match (random.u8(..12), self.hosts[host].part) {
            (0..2, Part::Down) => return self.boot(host, random),
            (2..4, Part::Down) if self.primary().is_some() => {
                self.hosts[host].part = Part::Backup(self.new_claimant());
            }
            (4, _) => self.crash(host),
            (5, _) => {
                // The power of both sites fails.
                for host in &mut self.hosts {
                    host.part = Part::Down;
                }
            }
            (6, Part::Following(claimant, _)) => {
                // It diverges, and says Bye.
                self.hosts[host].part = Part::Backup(claimant);
                if !self.bugs.has(DiskBug::ByeKeepsGeneration) {
                    self.go_on(1 - host);
                }
            }
            (7, Part::Primary(_)) => {
                // The VM ends. The backup executes no more.
                self.seen = self.hosts[host].version;
                let _ = self.claim(None);
                for host in &mut self.hosts {
                    host.part = Part::Down;
                }
            }
            (8..10, Part::Backup(_)) => self.sync(random),
            (_, Part::Primary(_)) => self.write(host),
            (_, Part::Down | Part::Backup(_) | Part::Following(_, _)) => {}
        }
        true
    }
}

/// Runs a history. Returns whether no stale image was booted, and how often one was booted.
fn history(seed: u64, bugs: DiskBugs) -> (bool, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model = Model::new(bugs);
    let is_good = (0..400).all(|_| model.step(&mut random));
    (is_good, model.boots)
}

#[test]
fn no_history_boots_a_stale_disk() {
    let mut boots = 0;
    for seed in 0..1000 {
        let (is_good, booted) = history(seed, DiskBugs::default());
        assert!(is_good, "seed {seed}");
        boots += booted;
    }
    assert!(boots > 1000, "{boots}: VMs must come up again");
}

#[test]
fn planted_bug_of_the_rules_is_found() {
    for bug in [DiskBug::StaleDiskBoots, DiskBug::ByeKeepsGeneration] {
        let found = (0..500).any(|seed| !history(seed, DiskBugs::planted(bug)).0);
        assert!(found, "{bug:?}");
    }
}
