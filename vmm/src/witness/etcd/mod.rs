//! Claims as keys of etcd, a replicated store that answers while a majority of its servers is up.
//!
//! | key | value |
//! |---|---|
//! | `PREFIX/understudy-witness` | identity of the witness: 64 random bits, in hexadecimal |
//! | `PREFIX/vm-<id>/term-<n>` | owner of term `n` of the VM ([`claim_file`](super::claim_file)) |
//!
//! A term in a key has 20 digits, so that the keys have the order of the terms. The values are those of the files of a
//! witness in a folder ([`file`](super::file)), with the same tag: who can write to etcd can't forge a claim.
//!
//! Each access is one transaction, which etcd carries out whole, in one order for all clients. Its first comparison is
//! that of the identity: an etcd without it, for example one that was made anew, is another witness. A claim is
//! written only if its key does not exist, and only if the claim of the term before is still the one that was read.
//! All reads are linearizable, etcd's default: a server that lost its majority has no answer.
//!
//! The servers are asked through their JSON gateway (`gateway`). After a failure, a claim may or may not have been
//! made, and may even be made later. It does no harm: it is exclusive, and its owner is the one that asked for it.

mod address;
pub mod cluster;
mod credentials;
mod gateway;
mod message;

pub use address::{AddressError, EtcdAddress};
pub use credentials::{CredentialError, CredentialFiles, Credentials, Proof};
pub use gateway::NoServer;

use super::claim_file::{ClaimFault, ClaimFile, hex};
use super::file::{IDENTITY_FILE, WitnessConfig};
use crate::limits::WITNESS_FILE_BYTES_MAX;
use gateway::Gateway;
use logchan::claim::{Claim, ClaimKey};
use logchan::ids::{Claimant, Term, VmId, WitnessId};
use message::{Outcome, Pair, get, has_value, is_absent, last, put, transaction};
use replication::witness::{self, Answer, ClaimStore, NoAnswer, Question, Seen};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Limit of a question. The driver takes the witness for unreachable a little later (`ANSWER_MAX`).
const QUESTION_MAX: Duration = Duration::from_millis(900);
/// Limit at the start, when nobody waits. A new connection and a password take longer.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// A witness in etcd.
#[derive(Debug)]
pub struct EtcdWitness {
    gateway: Gateway,
    config: WitnessConfig,
    id: WitnessId,
}

/// Why an etcd witness can't be used, or has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No server has answered.
    #[error("witness etcd: {0}")]
    Servers(#[from] NoServer),
    /// A value is not a claim of this pair.
    #[error("witness {address}: key {key} {fault}")]
    Claim {
        /// The witness.
        address: EtcdAddress,
        /// The key.
        key: String,
        /// What is wrong.
        fault: ClaimFault,
    },
    /// A key among the claims has not the name of one.
    #[error("witness {address}: key {key} is not the name of a claim: remove it")]
    Name {
        /// The witness.
        address: EtcdAddress,
        /// The key, with escapes.
        key: String,
    },
    /// The value of the identity is not one.
    #[error(
        "witness {address}: key {key} does not contain an identity: restore it, or give a new prefix to both hosts"
    )]
    NoIdentity {
        /// The witness.
        address: EtcdAddress,
        /// The key.
        key: String,
    },
    /// The identity is another one than at the start.
    #[error(
        "witness {address}: its identity was {ours} at the start and is {} now: restore the keys of etcd",
        found.map_or_else(|| "gone".to_string(), |found| found.to_string())
    )]
    OtherWitness {
        /// The witness.
        address: EtcdAddress,
        /// The identity at the start.
        ours: WitnessId,
        /// The identity now, if there is one.
        found: Option<WitnessId>,
    },
    /// A claim that was there is gone, or another one.
    #[error("witness {address}: key {key} has been changed or removed: restore the keys of etcd")]
    Changed {
        /// The witness.
        address: EtcdAddress,
        /// The key.
        key: String,
    },
    /// The claim of the term before is missing, or has another owner.
    #[error(
        "witness {address}: term {term} of VM {vm} has {}, but the pair knows {expected} as its owner: restore the \
         keys of etcd",
        found.map_or_else(|| "no owner".to_string(), |found| format!("the owner {found}"))
    )]
    OtherOwner {
        /// The witness.
        address: EtcdAddress,
        /// The VM.
        vm: VmId,
        /// The term before the one that was claimed.
        term: Term,
        /// Its owner, as the pair knows it.
        expected: Claimant,
        /// Its owner in etcd.
        found: Option<Claimant>,
    },
}

impl EtcdWitness {
    /// Opens the witness at `address`, and checks that it may be written. `random` becomes the identity of one that
    /// has none.
    ///
    /// # Errors
    ///
    /// No server answers, this user must not write, or the identity is invalid.
    pub fn open(
        (address, credentials): (EtcdAddress, Credentials),
        config: WitnessConfig,
        random: WitnessId,
    ) -> Result<EtcdWitness, EtcdError> {
        let gateway = Gateway::new(address, credentials);
        let mut witness = EtcdWitness { gateway, config, id: random };
        let deadline = Instant::now() + OPEN_MAX;
        let key = witness.identity_key();
        let made = [put(&key, &format!("{random}\n")), get(&key)];
        let outcome =
            witness.run(&transaction(&[is_absent(&key)], &made, &[get(&key)]), deadline)?;
        let found = witness.identity(&outcome)?;
        witness.id = found.ok_or_else(|| witness.no_identity())?;
        witness.try_write(deadline)?;
        Ok(witness)
    }

    /// Tries whether a claim could be made now. etcd answers reads also when its storage is full, and to a user who may
    /// not write.
    ///
    /// # Errors
    ///
    /// A claim would have no answer.
    pub fn try_claims(&self) -> Result<(), EtcdError> {
        self.try_write(Instant::now() + QUESTION_MAX)
    }

    /// Writes nothing, because the identity exists; but etcd refuses it if it would refuse a claim.
    fn try_write(&self, deadline: Instant) -> Result<(), EtcdError> {
        let key = self.identity_key();
        let claim = put(&self.claim_key(Term(0)), "");
        self.run(&transaction(&[is_absent(&key)], &[claim], &[get(&key)]), deadline)?;
        Ok(())
    }

    /// Returns the identity of this witness.
    pub fn id(&self) -> WitnessId {
        self.id
    }

    /// Returns the name under which this process makes its claims.
    pub fn claimant(&self) -> Claimant {
        self.config.claimant
    }

    /// Sets the key of this process's claims, in place of the one that it was opened with.
    pub fn set_key(&mut self, key: Option<ClaimKey>) {
        self.config.key = key;
    }

    /// Returns a warning if the servers are reached without TLS.
    pub fn warning(&self) -> Option<String> {
        let address = self.gateway.address();
        (!address.is_tls()).then(|| {
            format!(
                "witness {address}: it is reached without TLS: who can change its traffic can stop the VM, or run it \
                 twice"
            )
        })
    }

    /// Answers `question` of this process. After an error, a claim may or may not have been made.
    ///
    /// # Errors
    ///
    /// There is no answer: no server has one in time, it is another witness than at the start, has a value that
    /// is not a claim of this pair in the place of one, or does not have the claims that it must have.
    pub fn answer(&self, question: Question) -> Result<Answer, EtcdError> {
        witness::answer(&mut self.access(QUESTION_MAX), self.config.claimant, question)
            .map_err(|reason| self.no_answer(reason))
    }

    /// Returns the newest claims of the VM.
    ///
    /// # Errors
    ///
    /// As those of [`answer`](Self::answer).
    pub fn look(&self) -> Result<Seen, EtcdError> {
        witness::look(&mut self.access(OPEN_MAX)).map_err(|reason| self.no_answer(reason))
    }

    /// Says that no host runs the VM: claims the next term for nobody, and returns it.
    ///
    /// # Errors
    ///
    /// As those of [`answer`](Self::answer), or another process has claimed that term at the same time.
    pub fn forget(&self) -> Result<Term, EtcdError> {
        witness::forget(&mut self.access(OPEN_MAX)).map_err(|reason| self.no_answer(reason))
    }

    fn access(&self, limit: Duration) -> Access<'_> {
        Access { witness: self, deadline: Instant::now() + limit, values: BTreeMap::new() }
    }

    fn no_answer(&self, reason: NoAnswer<EtcdError>) -> EtcdError {
        match reason {
            NoAnswer::Storage(error) => error,
            NoAnswer::OtherOwner { term, expected, found } => {
                let (address, vm) = (self.gateway.address().clone(), self.config.vm);
                EtcdError::OtherOwner { address, vm, term, expected, found }
            }
            NoAnswer::Gone { term } => self.changed(term),
        }
    }

    fn changed(&self, term: Term) -> EtcdError {
        let address = self.gateway.address().clone();
        EtcdError::Changed { address, key: self.claim_key(term) }
    }

    fn identity_key(&self) -> String {
        identity_key(self.gateway.address())
    }

    fn claim_key(&self, term: Term) -> String {
        format!("{}{term:020}", terms_key(self.gateway.address(), self.config.vm), term = term.0)
    }

    fn run(&self, transaction: &Value, deadline: Instant) -> Result<Outcome, NoServer> {
        run(&self.gateway, transaction, deadline)
    }

    /// Returns the identity that a transaction has read with its last request.
    fn identity(&self, outcome: &Outcome) -> Result<Option<WitnessId>, EtcdError> {
        let Some(pair) = outcome.ranges.last().and_then(|pairs| pairs.first()) else {
            return Ok(None);
        };
        decode_identity(&pair.value).map(Some).ok_or_else(|| self.no_identity())
    }

    fn no_identity(&self) -> EtcdError {
        let (address, key) = (self.gateway.address().clone(), self.identity_key());
        EtcdError::NoIdentity { address, key }
    }
}

/// The storage as one question uses it. It keeps what was read, so that a claim is written only if that is unchanged.
struct Access<'a> {
    witness: &'a EtcdWitness,
    deadline: Instant,
    /// The value of each claim that was read or written; `None`: it does not exist.
    values: BTreeMap<Term, Option<Vec<u8>>>,
}

impl Access<'_> {
    /// Runs `success` if the identity is that of the start and all comparisons of `claims` are true, otherwise
    /// `failure`.
    fn run(
        &self,
        claims: &[Value],
        success: &[Value],
        failure: &[Value],
    ) -> Result<Outcome, EtcdError> {
        let witness = self.witness;
        let key = witness.identity_key();
        let ours = has_value(&key, format!("{}\n", witness.id).as_bytes());
        let compare = [&[ours][..], claims].concat();
        // An answer without them could not tell whether the identity was the other one.
        let failure = [failure, &[get(&key)]].concat();
        let outcome = witness.run(&transaction(&compare, success, &failure), self.deadline)?;
        if !outcome.succeeded {
            let (ours, found) = (witness.id, witness.identity(&outcome)?);
            if found != Some(ours) {
                let address = witness.gateway.address().clone();
                return Err(EtcdError::OtherWitness { address, ours, found });
            }
            if claims.is_empty() {
                // The same number in other digits.
                return Err(witness.no_identity());
            }
        }
        Ok(outcome)
    }

    /// Keeps what the first range of a transaction has read of `term`.
    fn keep(&mut self, term: Term, outcome: Outcome) {
        let pair = outcome.ranges.into_iter().next().and_then(|pairs| pairs.into_iter().next());
        self.values.insert(term, pair.map(|pair| pair.value));
    }
}

impl ClaimStore for Access<'_> {
    type Error = EtcdError;

    fn newest(&mut self) -> Result<Option<Term>, EtcdError> {
        let (address, vm) = (self.witness.gateway.address(), self.witness.config.vm);
        let first = terms_key(address, vm);
        let outcome = self.run(&[], &[last(&first, &message::end_of(&first))], &[])?;
        let Some(Pair { key, value }) = outcome.ranges.into_iter().flatten().next() else {
            return Ok(None);
        };
        let term = parse_term(address, vm, &key).ok_or_else(|| other_name(address, &key))?;
        self.values.insert(term, Some(value));
        Ok(Some(term))
    }

    fn owner(&mut self, term: Term) -> Result<Option<Claimant>, EtcdError> {
        if !self.values.contains_key(&term) {
            let outcome = self.run(&[], &[get(&self.witness.claim_key(term))], &[])?;
            self.keep(term, outcome);
        }
        let Some(Some(value)) = self.values.get(&term) else { return Ok(None) };
        let witness = self.witness;
        let (vm, key) = (witness.config.vm, witness.config.key.as_ref());
        let file = decode_claim(value);
        let owner = file.and_then(|file| file.owner((witness.id, vm, term), key));
        owner.map(Some).map_err(|fault| {
            let (address, key) = (witness.gateway.address().clone(), witness.claim_key(term));
            EtcdError::Claim { address, key, fault }
        })
    }

    fn create(&mut self, term: Term, claimant: Claimant) -> Result<(), EtcdError> {
        let witness = self.witness;
        let config = &witness.config;
        let claim = Claim { witness: witness.id, vm: config.vm, term, claimant };
        let content = ClaimFile::encode(&claim, config.key.as_ref(), &config.host);
        let key = witness.claim_key(term);
        let before = Term(term.0.saturating_sub(1));
        let mut compare = vec![is_absent(&key)];
        if let Some(Some(value)) = self.values.get(&before) {
            compare.push(has_value(&witness.claim_key(before), value));
        }
        let outcome = self.run(&compare, &[put(&key, &content), get(&key)], &[get(&key)])?;
        let has_claim = outcome.ranges.first().is_some_and(|pairs| !pairs.is_empty());
        self.keep(term, outcome);
        match has_claim {
            true => Ok(()),
            false => Err(witness.changed(before)),
        }
    }
}

fn run(gateway: &Gateway, transaction: &Value, deadline: Instant) -> Result<Outcome, NoServer> {
    gateway.ask("/v3/kv/txn", transaction, deadline, message::decode_transaction)
}

fn identity_key(address: &EtcdAddress) -> String {
    format!("{}/{IDENTITY_FILE}", address.prefix)
}

/// Returns what the keys of all claims of `vm` begin with.
fn terms_key(address: &EtcdAddress, vm: VmId) -> String {
    format!("{}/vm-{vm}/term-", address.prefix)
}

fn parse_term(address: &EtcdAddress, vm: VmId, key: &[u8]) -> Option<Term> {
    let digits = key.strip_prefix(terms_key(address, vm).as_bytes())?;
    let is_number = digits.len() == 20 && digits.iter().all(u8::is_ascii_digit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_number)?;
    digits.parse().ok().map(Term)
}

fn other_name(address: &EtcdAddress, key: &[u8]) -> EtcdError {
    let key = key.escape_ascii().to_string().chars().take(200).collect();
    EtcdError::Name { address: address.clone(), key }
}

fn decode_claim(value: &[u8]) -> Result<ClaimFile, ClaimFault> {
    match value.len() as u64 {
        0..=WITNESS_FILE_BYTES_MAX => ClaimFile::decode(value),
        _ => Err(ClaimFault::Damaged),
    }
}

fn decode_identity(value: &[u8]) -> Option<WitnessId> {
    let text = str::from_utf8(value).ok()?;
    hex(text.strip_suffix('\n')?).map(|id| WitnessId(u64::from_be_bytes(id)))
}

#[cfg(all(test, feature = "host-tests"))]
mod tests;
