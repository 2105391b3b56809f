//! The rules by which a witness grants terms, for any storage with an exclusive create.
//!
//! A term is claimed once and never again: a claim is never changed or removed by a host of the pair. The newest
//! claim says who may send output for the VM, or that nobody may ([`NOBODY`]).
//!
//! | question | won | lost |
//! |---|---|---|
//! | boot | no term was claimed, or the newest was released: the next one is claimed | the newest term has an owner, or is not the one that the host has seen |
//! | claim of `t + 1` | `t` has the owner that the pair knows, and `t + 1` was not claimed | somebody else has `t + 1` or a newer term |
//! | confirmation of `t` | `t` is the newest, and has the owner that the pair knows | there is a newer term |
//! | release of `t` | `t + 1` is claimed for nobody | somebody has `t + 1` or a newer term |
//!
//! In every other case there is no answer: the storage fails, is not the one that granted `t`, or has lost claims.
//! A host whose own claim was removed makes it again as soon as it notices ([`Question::Confirm`]); until then
//! nobody can claim the next term.

use crate::mutant::{Mutants, WitnessMutant};
use logchan::disk_copy::Generation;
use logchan::ids::{Claimant, Term};

/// The owner of a term in which nobody runs the VM. No process has this name.
pub const NOBODY: Claimant = Claimant(0);

/// Storage of claims, as one process uses it.
pub trait ClaimStore {
    /// Why the storage has no answer.
    type Error;

    /// Returns the newest term for which there is a claim, valid or not.
    ///
    /// # Errors
    ///
    /// The storage has no answer.
    fn newest(&mut self) -> Result<Option<Term>, Self::Error>;

    /// Returns the owner of `term`; `None` if there is no claim.
    ///
    /// # Errors
    ///
    /// The storage has no answer, or the claim is not valid.
    fn owner(&mut self, term: Term) -> Result<Option<Claimant>, Self::Error>;

    /// Makes the claim of `term` for `owner`, unless there is one. Of any number of concurrent calls, one takes
    /// effect. The result is not relied on: [`owner`](Self::owner) shows which one did.
    ///
    /// # Errors
    ///
    /// The storage has no answer. The claim may or may not have been made.
    fn create(&mut self, term: Term, owner: Claimant) -> Result<(), Self::Error>;
}

/// Why a host claims the next term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimCause {
    /// This host is the primary, and its backup fell silent, or did not take the VM over that was handed to it.
    BackupLost,
    /// This host is the backup, and the primary fell silent. It may still run: what it shares with this host must
    /// be fenced.
    PrimarySilent,
    /// This host is the backup, and the primary has handed the VM over.
    HandedOver,
}

/// What a host asks the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// May this host boot the VM?
    Boot {
        /// Also if the newest term has an owner: an operator says that no host runs the VM.
        again: bool,
        /// Only if this is still the newest term (0: no term was claimed): this host has judged by it whether its disks
        /// are the newest ones. `None`: the VM has no disks.
        after: Option<Term>,
    },
    /// May this host go on in `term`?
    Claim {
        /// The term after the pair's.
        term: Term,
        /// The owner of the term before, as the pair knows it.
        previous: Claimant,
        /// Why this host claims it. The answer does not depend on it.
        cause: ClaimCause,
    },
    /// Is `term` still the newest?
    Confirm {
        /// The pair's term.
        term: Term,
        /// Its owner, as the pair knows it.
        owner: Claimant,
    },
    /// The VM has ended in `term`, which this host owns.
    Release {
        /// The last term of the VM.
        term: Term,
    },
}

impl Question {
    /// Returns whether the question is only a look at the pair's own term. No host waits for its answer.
    pub const fn is_confirmation(self) -> bool {
        match self {
            Self::Confirm { .. } => true,
            Self::Boot { .. } | Self::Claim { .. } | Self::Release { .. } => false,
        }
    }
}

/// The witness's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Won {
        /// The term that was claimed or confirmed.
        term: Term,
    },
    /// No.
    Lost {
        /// A newer term, or this term of another owner.
        newest: Term,
    },
    /// No answer. A claim may or may not have been made.
    Unreachable,
}

/// The newest claim of a VM that has an owner: it says which process ran the VM last, and so whose disk is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastClaim {
    /// The claim.
    pub generation: Generation,
    /// What followed.
    pub ending: Ending,
}

/// What a host has seen at the witness before it boots the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The newest term that was claimed, also for nobody; 0: none was.
    pub newest: Term,
    /// The newest claim that has an owner; `None` if the VM never ran.
    pub last: Option<LastClaim>,
}

/// What followed the newest claim that has an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the term has its owner still.
    None,
    /// The VM was ended in order, or an operator has said that no host runs it: newer claims have no owner.
    Released,
}

/// Why a witness has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer<E> {
    /// The storage has none.
    Storage(E),
    /// A term has another owner than the pair knows, or none.
    OtherOwner {
        /// The term.
        term: Term,
        /// Its owner, as the pair knows it.
        expected: Claimant,
        /// Its owner in the storage.
        found: Option<Claimant>,
    },
    /// A claim was there, and is not any more.
    Gone {
        /// Its term.
        term: Term,
    },
}

impl<E> From<E> for NoAnswer<E> {
    fn from(error: E) -> Self {
        NoAnswer::Storage(error)
    }
}

/// The rules, with the bugs that are planted in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    mutants: Mutants,
}

/// Answers `question` of the process `claimant`. Never returns [`Answer::Unreachable`].
///
/// # Errors
///
/// There is no answer. The process may ask again.
pub fn answer<S: ClaimStore>(
    store: &mut S,
    claimant: Claimant,
    question: Question,
) -> Result<Answer, NoAnswer<S::Error>> {
    Rules::default().answer(store, claimant, question)
}

/// Claims the term after the newest one for nobody, whoever has that: an operator says that no host runs the
/// VM. Returns the term.
///
/// # Errors
///
/// There is no answer, or somebody else has claimed that term at the same time.
pub fn forget<S: ClaimStore>(store: &mut S) -> Result<Term, NoAnswer<S::Error>> {
    let newest = store.newest()?;
    if let Some(newest) = newest
        && existing(store, newest)? == NOBODY
    {
        return Ok(newest);
    }
    let term = next(newest);
    match create(store, term, NOBODY)? {
        NOBODY => Ok(term),
        found => Err(NoAnswer::OtherOwner { term, expected: NOBODY, found: Some(found) }),
    }
}

/// Returns the newest claims.
///
/// # Errors
///
/// There is no answer, or a claim before one without an owner is gone.
pub fn look<S: ClaimStore>(store: &mut S) -> Result<Seen, NoAnswer<S::Error>> {
    let newest = store.newest()?.unwrap_or(Term(0));
    let (mut term, mut ending) = (newest, Ending::None);
    // Term 1 has no owner if the VM was forgotten before it ran.
    while term > Term(0) {
        let owner = existing(store, term)?;
        if owner != NOBODY {
            let last = Some(LastClaim { generation: Generation { term, owner }, ending });
            return Ok(Seen { newest, last });
        }
        ending = Ending::Released;
        term = Term(term.0 - 1);
    }
    Ok(Seen { newest, last: None })
}

impl Rules {
    /// Returns the rules with planted bugs.
    #[cfg(any(test, feature = "mutants"))]
    pub fn with_bugs(mutants: Mutants) -> Self {
        Self { mutants }
    }

    /// As [`answer`].
    ///
    /// # Errors
    ///
    /// As those of [`answer`].
    pub fn answer<S: ClaimStore>(
        self,
        store: &mut S,
        claimant: Claimant,
        question: Question,
    ) -> Result<Answer, NoAnswer<S::Error>> {
        match question {
            Question::Boot { again, after } => self.boot(store, claimant, (again, after)),
            Question::Claim { term, previous, cause: _ } => claim(store, claimant, term, previous),
            Question::Confirm { term, owner } => self.confirm(store, claimant, term, owner),
            Question::Release { term } => release(store, claimant, term),
        }
    }

    fn boot<S: ClaimStore>(
        self,
        store: &mut S,
        claimant: Claimant,
        (again, after): (bool, Option<Term>),
    ) -> Result<Answer, NoAnswer<S::Error>> {
        let newest = store.newest()?;
        if let (None, Some(after @ Term(1..))) = (newest, after) {
            return Err(NoAnswer::Gone { term: after });
        }
        if let Some(newest) = newest {
            let owner = existing(store, newest)?;
            if owner == claimant {
                // Of an earlier attempt, whose answer was lost.
                return Ok(Answer::Won { term: newest });
            }
            let may_boot =
                owner == NOBODY || again || self.mutants.has_witness(WitnessMutant::BootOwned);
            if !may_boot || after.is_some_and(|after| after != newest) {
                return Ok(Answer::Lost { newest });
            }
        }
        let term = next(newest);
        Ok(decided(term, create(store, term, claimant)? == claimant))
    }

    fn confirm<S: ClaimStore>(
        self,
        store: &mut S,
        claimant: Claimant,
        term: Term,
        owner: Claimant,
    ) -> Result<Answer, NoAnswer<S::Error>> {
        if !self.mutants.has_witness(WitnessMutant::ConfirmReplaced)
            && let Some(newest) = newer(store, term)?
        {
            return Ok(Answer::Lost { newest });
        }
        let remakes = owner == claimant || self.mutants.has_witness(WitnessMutant::RemakeForeign);
        match store.owner(term)? {
            Some(found) if found == owner => Ok(Answer::Won { term }),
            Some(_) if owner == claimant => Ok(Answer::Lost { newest: term }),
            // Somebody has removed the claim, for example a program that cleans up old files.
            None if remakes => Ok(decided(term, create(store, term, claimant)? == claimant)),
            found => Err(NoAnswer::OtherOwner { term, expected: owner, found }),
        }
    }
}

fn claim<S: ClaimStore>(
    store: &mut S,
    claimant: Claimant,
    term: Term,
    previous: Claimant,
) -> Result<Answer, NoAnswer<S::Error>> {
    if let Some(newest) = newer(store, term)? {
        return Ok(Answer::Lost { newest });
    }
    if let Some(owner) = store.owner(term)? {
        return Ok(decided(term, owner == claimant));
    }
    require_owner(store, Term(term.0 - 1), previous)?;
    Ok(decided(term, create(store, term, claimant)? == claimant))
}

fn release<S: ClaimStore>(
    store: &mut S,
    claimant: Claimant,
    term: Term,
) -> Result<Answer, NoAnswer<S::Error>> {
    let next = next(Some(term));
    if let Some(newest) = newer(store, next)? {
        return Ok(Answer::Lost { newest });
    }
    if let Some(owner) = store.owner(next)? {
        return Ok(decided(next, owner == NOBODY));
    }
    require_owner(store, term, claimant)?;
    Ok(decided(next, create(store, next, NOBODY)? == NOBODY))
}

fn next(newest: Option<Term>) -> Term {
    Term(newest.map_or(0, |term| term.0).saturating_add(1))
}

fn decided(term: Term, won: bool) -> Answer {
    match won {
        true => Answer::Won { term },
        false => Answer::Lost { newest: term },
    }
}

/// Returns the newest term if it is newer than `term`. Its claim must be valid: anybody can make a file with
/// the name of a high term.
fn newer<S: ClaimStore>(store: &mut S, term: Term) -> Result<Option<Term>, NoAnswer<S::Error>> {
    let Some(newest) = store.newest()?.filter(|&newest| newest > term) else { return Ok(None) };
    existing(store, newest)?;
    Ok(Some(newest))
}

/// Returns the owner of `term`, for which there is a claim.
fn existing<S: ClaimStore>(store: &mut S, term: Term) -> Result<Claimant, NoAnswer<S::Error>> {
    store.owner(term)?.ok_or(NoAnswer::Gone { term })
}

fn require_owner<S: ClaimStore>(
    store: &mut S,
    term: Term,
    expected: Claimant,
) -> Result<(), NoAnswer<S::Error>> {
    match store.owner(term)? {
        found if found == Some(expected) => Ok(()),
        found => Err(NoAnswer::OtherOwner { term, expected, found }),
    }
}

/// Makes a claim unless there is one, and returns its owner.
fn create<S: ClaimStore>(
    store: &mut S,
    term: Term,
    owner: Claimant,
) -> Result<Claimant, NoAnswer<S::Error>> {
    store.create(term, owner)?;
    existing(store, term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use core::convert::Infallible;

    #[derive(Default)]
    struct Memory(BTreeMap<Term, Claimant>);

    impl ClaimStore for Memory {
        type Error = Infallible;

        fn newest(&mut self) -> Result<Option<Term>, Infallible> {
            Ok(self.0.keys().next_back().copied())
        }

        fn owner(&mut self, term: Term) -> Result<Option<Claimant>, Infallible> {
            Ok(self.0.get(&term).copied())
        }

        fn create(&mut self, term: Term, owner: Claimant) -> Result<(), Infallible> {
            self.0.entry(term).or_insert(owner);
            Ok(())
        }
    }

    const A: Claimant = Claimant(0xa);
    const B: Claimant = Claimant(0xb);
    const C: Claimant = Claimant(0xc);

    fn won(term: u64) -> Result<Answer, NoAnswer<Infallible>> {
        Ok(Answer::Won { term: Term(term) })
    }

    fn lost(term: u64) -> Result<Answer, NoAnswer<Infallible>> {
        Ok(Answer::Lost { newest: Term(term) })
    }

    fn claim_of(term: u64, previous: Claimant) -> Question {
        Question::Claim { term: Term(term), previous, cause: ClaimCause::PrimarySilent }
    }

    fn confirm_of(term: u64, owner: Claimant) -> Question {
        Question::Confirm { term: Term(term), owner }
    }

    #[test]
    fn each_term_is_granted_once() {
        let mut store = Memory::default();
        let boot = Question::Boot { again: false, after: None };
        assert_eq!(answer(&mut store, A, boot), won(1));
        assert_eq!(answer(&mut store, A, boot), won(1), "the answer was lost");
        assert_eq!(answer(&mut store, B, boot), lost(1));
        assert_eq!(answer(&mut store, B, claim_of(2, A)), won(2));
        assert_eq!(answer(&mut store, A, claim_of(2, A)), lost(2));
        assert_eq!(answer(&mut store, A, confirm_of(1, A)), lost(2));
        assert_eq!(answer(&mut store, C, boot), lost(2));
    }

    #[test]
    fn released_vm_is_booted_in_a_new_term() {
        let mut store = Memory::default();
        let boot = Question::Boot { again: false, after: None };
        assert_eq!(answer(&mut store, A, boot), won(1));
        let release = Question::Release { term: Term(1) };
        assert_eq!(answer(&mut store, A, release), won(2));
        assert_eq!(answer(&mut store, A, release), won(2));
        assert_eq!(answer(&mut store, B, claim_of(2, A)), lost(2), "the VM was stopped");
        assert_eq!(answer(&mut store, B, boot), won(3));
        // A takeover is faster than the release.
        assert_eq!(answer(&mut store, C, claim_of(4, B)), won(4));
        assert_eq!(answer(&mut store, B, Question::Release { term: Term(3) }), lost(4));
    }

    #[test]
    fn look_shows_the_newest_claim_and_the_newest_with_an_owner() {
        let mut store = Memory::default();
        let see = |store: &mut Memory| {
            look(store)
                .map(|seen| (seen.newest.0, seen.last.map(|last| (last.generation, last.ending))))
        };
        let of = |term, owner| Generation { term: Term(term), owner };
        assert_eq!(see(&mut store), Ok((0, None)));
        assert_eq!(forget(&mut store), Ok(Term(1)));
        assert_eq!(see(&mut store), Ok((1, None)), "it never ran");
        assert_eq!(answer(&mut store, A, Question::Boot { again: false, after: None }), won(2));
        assert_eq!(see(&mut store), Ok((2, Some((of(2, A), Ending::None)))));
        assert_eq!(answer(&mut store, B, claim_of(3, A)), won(3));
        assert_eq!(see(&mut store), Ok((3, Some((of(3, B), Ending::None)))));
        assert_eq!(answer(&mut store, B, Question::Release { term: Term(3) }), won(4));
        assert_eq!(see(&mut store), Ok((4, Some((of(3, B), Ending::Released)))));
        store.0.remove(&Term(3));
        assert_eq!(see(&mut store), Err(NoAnswer::Gone { term: Term(3) }));
    }

    /// Another host has run the VM, and ended it, since this one judged its disks.
    #[test]
    fn host_that_has_seen_older_claims_does_not_boot_and_makes_no_claim() {
        for again in [false, true] {
            let mut store = Memory::default();
            let after = |term| Question::Boot { again, after: Some(Term(term)) };
            assert_eq!(answer(&mut store, A, after(0)), won(1));
            assert_eq!(answer(&mut store, A, after(0)), won(1), "repeated after a lost answer");
            assert_eq!(answer(&mut store, A, Question::Release { term: Term(1) }), won(2));
            let claims = store.0.clone();
            for seen in [0, 1, 3] {
                assert_eq!(answer(&mut store, B, after(seen)), lost(2));
            }
            assert_eq!(store.0, claims);
            assert_eq!(answer(&mut store, B, after(2)), won(3));
            store.0.clear();
            assert_eq!(answer(&mut store, C, after(3)), Err(NoAnswer::Gone { term: Term(3) }));
        }
    }

    #[test]
    fn forgotten_vm_is_booted_and_its_last_owner_learns_of_it() {
        let mut store = Memory::default();
        assert_eq!(answer(&mut store, A, Question::Boot { again: false, after: None }), won(1));
        assert_eq!(forget(&mut store), Ok(Term(2)));
        assert_eq!(forget(&mut store), Ok(Term(2)));
        assert_eq!(answer(&mut store, A, confirm_of(1, A)), lost(2));
        assert_eq!(answer(&mut store, B, claim_of(2, A)), lost(2));
        assert_eq!(answer(&mut store, B, Question::Boot { again: false, after: None }), won(3));
        assert_eq!(answer(&mut store, C, Question::Boot { again: true, after: None }), won(4));
        assert_eq!(answer(&mut store, B, confirm_of(3, B)), lost(4));
    }

    #[test]
    fn removed_claim_is_made_again_by_its_owner_only() {
        let mut store = Memory::default();
        assert_eq!(answer(&mut store, A, Question::Boot { again: false, after: None }), won(1));
        assert_eq!(answer(&mut store, B, claim_of(2, A)), won(2));
        store.0.clear();
        let (term, expected) = (Term(2), B);
        let gone = Err(NoAnswer::OtherOwner { term, expected, found: None });
        assert_eq!(answer(&mut store, A, claim_of(3, B)), gone);
        assert_eq!(answer(&mut store, A, confirm_of(2, B)), gone);
        // Somebody boots the VM in the meantime, and learns of the newer term.
        assert_eq!(answer(&mut store, C, Question::Boot { again: false, after: None }), won(1));
        assert_eq!(answer(&mut store, B, confirm_of(2, B)), won(2));
        assert_eq!(answer(&mut store, C, confirm_of(1, C)), lost(2));
        assert_eq!(answer(&mut store, A, confirm_of(2, B)), won(2));
    }

    #[test]
    fn restored_storage_that_lacks_the_newest_claim_grants_nothing_to_a_backup() {
        let mut store = Memory::default();
        assert_eq!(answer(&mut store, A, Question::Boot { again: false, after: None }), won(1));
        let saved = store.0.clone();
        assert_eq!(answer(&mut store, B, claim_of(2, A)), won(2));
        store.0 = saved;
        let (term, expected) = (Term(2), B);
        let found = Err(NoAnswer::OtherOwner { term, expected, found: None });
        assert_eq!(answer(&mut store, A, claim_of(3, B)), found);
        assert_eq!(answer(&mut store, B, confirm_of(2, B)), won(2));
        assert_eq!(answer(&mut store, A, claim_of(3, B)), won(3));
    }
}
