//! What the servers of an etcd witness say of themselves, for `understudy witness check`. Nothing is written.

use super::address::EtcdAddress;
use super::credentials::{Credentials, Proof};
use super::gateway::{Gateway, NoServer};
use super::message::{Pair, end_of, first, get, last, transaction};
use super::{
    EtcdError, decode_claim, decode_identity, identity_key, other_name, parse_term, run, terms_key,
};
use crate::limits::ETCD_VMS_MAX;
use crate::witness::claim_file::{ClaimFault, ClaimFile};
use logchan::ids::{Term, VmId, WitnessId};
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, Instant};

/// Limit of a question to one server or to all.
const QUESTION_MAX: Duration = Duration::from_secs(2);

/// Alarms with which etcd refuses to write (`AlarmType` in etcd's `rpc.proto`).
const ALARMS: [&str; 2] = ["NOSPACE", "CORRUPT"];

/// Most characters of a version that are shown.
const VERSION_CHARS_MAX: usize = 32;

/// Client of the servers of an etcd witness that only reads.
#[derive(Debug)]
pub struct Cluster {
    gateway: Gateway,
    proof: Proof,
}

/// What one server says.
#[derive(Clone, Debug)]
pub struct ServerState {
    /// Its version.
    pub version: String,
    /// Whether it knows a leader: a server without one has no majority.
    pub has_leader: bool,
    /// Whether the cluster takes no claim, because its storage is full or damaged (etcd's alarms `NOSPACE` and
    /// `CORRUPT`).
    pub has_alarm: bool,
    /// How long the answer took.
    pub took: Duration,
}

/// The newest claim of a VM.
#[derive(Debug)]
pub struct NewestClaim {
    /// The VM.
    pub vm: VmId,
    /// Its newest term.
    pub term: Term,
    /// The claim, which is not authenticated.
    pub(crate) claim: Result<ClaimFile, ClaimFault>,
}

impl Cluster {
    /// Creates the client of the servers at `address`. Opens no connection.
    pub fn new(address: EtcdAddress, credentials: Credentials) -> Cluster {
        let proof = credentials.proof();
        Cluster { gateway: Gateway::new(address, credentials), proof }
    }

    /// Returns by what the servers can tell this host from others.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Returns the address.
    pub fn address(&self) -> &EtcdAddress {
        self.gateway.address()
    }

    /// Asks each server of the address for its state. An error begins with the server's URL.
    pub fn servers(&self) -> Vec<(String, Result<ServerState, String>)> {
        #[derive(Deserialize)]
        struct Status {
            version: String,
            #[serde(default)]
            leader: String,
            #[serde(default)]
            errors: Vec<String>,
        }
        let ask = |(n, endpoint): (usize, &String)| {
            let begin = Instant::now();
            let decode = |answer: &[u8]| serde_json::from_slice::<Status>(answer).ok();
            let asked = ("/v3/maintenance/status", &json!({}));
            let state = self.gateway.ask_one(n, asked, QUESTION_MAX, decode).map(|status| {
                let printable = status.version.chars().filter(char::is_ascii_graphic);
                let is_alarm = |error: &String| ALARMS.iter().any(|alarm| error.contains(alarm));
                ServerState {
                    version: printable.take(VERSION_CHARS_MAX).collect(),
                    has_leader: !["", "0"].contains(&status.leader.as_str()),
                    has_alarm: status.errors.iter().any(is_alarm),
                    took: begin.elapsed(),
                }
            });
            (self.address().url(endpoint), state)
        };
        self.address().endpoints.iter().enumerate().map(ask).collect()
    }

    /// Returns the number of the cluster's members that vote.
    ///
    /// # Errors
    ///
    /// No server answers.
    pub fn members(&self) -> Result<usize, NoServer> {
        #[derive(Deserialize)]
        struct Member {
            #[serde(default, rename = "isLearner")]
            is_learner: bool,
        }
        #[derive(Deserialize)]
        struct List {
            members: Vec<Member>,
        }
        let decode = |answer: &[u8]| serde_json::from_slice::<List>(answer).ok();
        let list = self.gateway.ask("/v3/cluster/member/list", &json!({}), deadline(), decode)?;
        Ok(list.members.iter().filter(|member| !member.is_learner).count())
    }

    /// Reads the identity, for which a majority of the members must be up. Returns how long it took as well.
    ///
    /// # Errors
    ///
    /// No server answers, or the value is not an identity.
    pub fn identity(&self) -> Result<(Option<WitnessId>, Duration), EtcdError> {
        let key = identity_key(self.address());
        let begin = Instant::now();
        let outcome = run(&self.gateway, &transaction(&[], &[get(&key)], &[]), deadline())?;
        let took = begin.elapsed();
        let Some(pair) = outcome.ranges.into_iter().flatten().next() else {
            return Ok((None, took));
        };
        let no_identity = || EtcdError::NoIdentity { address: self.address().clone(), key };
        decode_identity(&pair.value).map(|id| (Some(id), took)).ok_or_else(no_identity)
    }

    /// Returns the newest claim of each VM, valid or not, of at most [`ETCD_VMS_MAX`] VMs.
    ///
    /// # Errors
    ///
    /// No server answers, or a key is not the name of a claim.
    pub fn newest_claims(&self) -> Result<Vec<NewestClaim>, EtcdError> {
        let all = format!("{}/vm-", self.address().prefix);
        let (mut from, end) = (all.clone(), end_of(&all));
        let mut claims = Vec::new();
        while claims.len() < ETCD_VMS_MAX {
            let Some(Pair { key, .. }) = self.read(&first(&from, &end))? else { break };
            let vm = parse_vm(&key[all.len().min(key.len())..]);
            let vm = vm.ok_or_else(|| other_name(self.address(), &key))?;
            claims.extend(self.newest_claim(vm)?);
            // The character after the slash: the first key that is not one of this VM.
            from = format!("{all}{vm}0");
        }
        Ok(claims)
    }

    /// Returns the newest claim of `vm`, valid or not.
    ///
    /// # Errors
    ///
    /// No server answers, or the last key is not the name of a claim.
    pub fn newest_claim(&self, vm: VmId) -> Result<Option<NewestClaim>, EtcdError> {
        let all = terms_key(self.address(), vm);
        let Some(Pair { key, value }) = self.read(&last(&all, &end_of(&all)))? else {
            return Ok(None);
        };
        let term = parse_term(self.address(), vm, &key);
        let term = term.ok_or_else(|| other_name(self.address(), &key))?;
        Ok(Some(NewestClaim { vm, term, claim: decode_claim(&value) }))
    }

    /// Returns the first key that a request reads.
    fn read(&self, request: &serde_json::Value) -> Result<Option<Pair>, NoServer> {
        let request = transaction(&[], std::slice::from_ref(request), &[]);
        let outcome = run(&self.gateway, &request, deadline())?;
        Ok(outcome.ranges.into_iter().flatten().next())
    }
}

fn deadline() -> Instant {
    Instant::now() + QUESTION_MAX
}

/// Returns the VM of a key that begins with `<id>/`.
fn parse_vm(key: &[u8]) -> Option<VmId> {
    let (digits, _) = str::from_utf8(key).ok()?.split_once('/')?;
    let vm = VmId(digits.parse().ok()?);
    (vm.to_string() == digits).then_some(vm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_of_a_key_has_one_form() {
        assert_eq!(parse_vm(b"7/term-1"), Some(VmId(7)));
        for key in ["", "7", "/", "+7/", "07/", "x/", "99999999999999999999999/"] {
            assert_eq!(parse_vm(key.as_bytes()), None, "{key}");
        }
    }
}
