//! [`Witness`]: a witness of either kind, whose rules are the same.

use super::etcd::{EtcdError, EtcdWitness};
use super::file::{FileWitness, WitnessError};
use logchan::claim::ClaimKey;
use logchan::ids::{Claimant, Term, WitnessId};
use replication::witness::{Answer, Question, Seen};

/// A witness that was opened.
#[derive(Debug)]
pub enum Witness {
    /// In a folder.
    Folder(FileWitness),
    /// In etcd.
    Etcd(EtcdWitness),
}

/// Why a witness has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnyWitnessError {
    /// One in a folder.
    #[error(transparent)]
    Folder(#[from] WitnessError),
    /// One in etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

impl Witness {
    /// Returns the identity of this witness.
    pub fn id(&self) -> WitnessId {
        match self {
            Witness::Folder(witness) => witness.id(),
            Witness::Etcd(witness) => witness.id(),
        }
    }

    /// Returns the name under which this process makes its claims.
    pub fn claimant(&self) -> Claimant {
        match self {
            Witness::Folder(witness) => witness.claimant(),
            Witness::Etcd(witness) => witness.claimant(),
        }
    }

    /// Sets the key of this process's claims, in place of the one that it was opened with.
    pub fn set_key(&mut self, key: Option<ClaimKey>) {
        match self {
            Witness::Folder(witness) => witness.set_key(key),
            Witness::Etcd(witness) => witness.set_key(key),
        }
    }

    /// Returns a warning if others than the hosts of the pair can make it lie.
    pub fn warning(&self) -> Option<String> {
        match self {
            Witness::Folder(witness) => witness.warning(),
            Witness::Etcd(witness) => witness.warning(),
        }
    }

    /// Answers `question` of this process. After an error, a claim may or may not have been made.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub fn answer(&self, question: Question) -> Result<Answer, AnyWitnessError> {
        Ok(match self {
            Witness::Folder(witness) => witness.answer(question)?,
            Witness::Etcd(witness) => witness.answer(question)?,
        })
    }

    /// Returns the newest claims of the VM. It says whose disks are the newest.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub fn look(&self) -> Result<Seen, AnyWitnessError> {
        Ok(match self {
            Witness::Folder(witness) => witness.look()?,
            Witness::Etcd(witness) => witness.look()?,
        })
    }

    /// Prepares the claim of `term` by this process, if that makes it faster. Nothing else depends on it, so an error is
    /// not reported: the claim would meet it too, and report it.
    pub fn prepare(&self, term: Term) {
        match self {
            Witness::Folder(witness) => drop(witness.prepare(term)),
            // A claim is one request.
            Witness::Etcd(_) => {}
        }
    }

    /// Tries whether a claim could be made now. A witness that can be read need not take claims: its storage is
    /// read-only or full, or this host may not write any more.
    ///
    /// # Errors
    ///
    /// A claim would have no answer.
    pub fn try_claims(&self) -> Result<(), AnyWitnessError> {
        match self {
            Witness::Folder(witness) => witness.try_claims()?,
            Witness::Etcd(witness) => witness.try_claims()?,
        }
        Ok(())
    }

    /// Says that no host runs the VM: claims the next term for nobody, and returns it.
    ///
    /// # Errors
    ///
    /// There is no answer, or another process has claimed that term at the same time.
    pub fn forget(&self) -> Result<Term, AnyWitnessError> {
        Ok(match self {
            Witness::Folder(witness) => witness.forget()?,
            Witness::Etcd(witness) => witness.forget()?,
        })
    }
}
