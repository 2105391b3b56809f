//! `understudy witness check` of a witness in etcd.

use super::Report;
use crate::boot::host_checks::Status;
use crate::witness::etcd::Proof;
use crate::witness::etcd::cluster::{Cluster, NewestClaim, ServerState};
use logchan::claim::ClaimKey;
use logchan::ids::VmId;
use std::time::Duration;

/// A takeover takes a few reads and writes. Above this time for one read it takes noticeably longer.
const READ_SLOW: Duration = Duration::from_millis(50);

/// Reads whose median is shown.
const READS: usize = 5;

impl Report {
    /// Checks the servers of an etcd witness, and shows the claims of `vm`; `None`: of all VMs.
    pub(super) fn of_etcd(cluster: &Cluster, key: Option<&ClaimKey>, vm: Option<VmId>) -> Report {
        let mut report = Report::default();
        report.transport(cluster);
        report.proof(cluster.proof());
        report.servers(cluster);
        report.majority(cluster);
        // The first failure takes seconds, and is enough.
        let times = (0..READS).map(|_| cluster.identity().map(|(_, took)| took));
        match times.collect::<Result<Vec<_>, _>>() {
            Ok(mut times) => {
                times.sort();
                report.latency(times[READS / 2]);
                let text = "a transaction makes a claim only if there is none";
                report.add("one winner", Status::Ok, text.to_string(), None);
            }
            Err(error) => {
                let mend = "start a majority of the members, and check the network and the user";
                report.add("majority", Status::Fail, error.to_string(), Some(mend));
                return report;
            }
        }
        let claims = match vm {
            Some(vm) => cluster.newest_claim(vm).map(Vec::from_iter),
            None => cluster.newest_claims(),
        };
        match claims {
            Ok(claims) => {
                let identity = cluster.identity().map(|(identity, _)| identity);
                report.identity(identity, !claims.is_empty());
                report.etcd_terms(key, claims);
            }
            Err(error) => report.add("terms", Status::Fail, error.to_string(), None),
        }
        report
    }

    /// Says who can read and change the traffic.
    fn transport(&mut self, cluster: &Cluster) {
        match cluster.address().is_tls() {
            true => self.add("transport", Status::Ok, "TLS".into(), None),
            false => {
                let text =
                    "without TLS: who can change the traffic can stop the VM, or run it twice";
                self.add(
                    "transport",
                    Status::Warn,
                    text.into(),
                    Some("use etcds://, or a private network"),
                );
            }
        }
    }

    /// Says who can take claims away.
    fn proof(&mut self, proof: Proof) {
        let (status, text, mend) = match proof {
            Proof::Password => (
                Status::Ok,
                "a user with a password; other users may have permissions as well",
                None,
            ),
            Proof::Certificate => (
                Status::Ok,
                "a certificate; it is not known whether the servers require one",
                Some("set ETCD_CLIENT_CERT_AUTH"),
            ),
            Proof::Nothing => (
                Status::Warn,
                "no user and no certificate: who can reach the servers can stop the VM, or run it twice by removing \
                 claims",
                Some("use a private network, or --witness-password-file"),
            ),
        };
        self.add("access", status, text.into(), mend);
    }

    /// Says what each server answers.
    fn servers(&mut self, cluster: &Cluster) {
        for (url, state) in cluster.servers() {
            match state {
                Ok(state) => self.server(&url, &state),
                Err(reason) => self.add("server", Status::Warn, reason, None),
            }
        }
    }

    fn server(&mut self, url: &str, state: &ServerState) {
        let (status, trouble, mend) = match (state.has_alarm, state.has_leader) {
            (true, _) => {
                let mend = "see 'etcdctl alarm list': compact etcd, or replace the member";
                (Status::Fail, ", which takes no claim: its storage is full or damaged", Some(mend))
            }
            (false, false) => (Status::Warn, ", without a leader", None),
            (false, true) => (Status::Ok, "", None),
        };
        let text = format!("{url}: etcd {}{trouble}, {}", state.version, ms(state.took));
        self.add("server", status, text, mend);
    }

    /// Says how many members may fail.
    fn majority(&mut self, cluster: &Cluster) {
        let members = match cluster.members() {
            Ok(members) => members,
            Err(error) => return self.add("members", Status::Fail, error.to_string(), None),
        };
        let spare = members.saturating_sub(1) / 2;
        let text = match members {
            1 => "1 member: while it is down, no host takes over".to_string(),
            _ => format!("{members} members, of which {spare} may be down"),
        };
        let (status, mend) = match members {
            2 => (Status::Warn, Some("two members are worse than one: use one or three")),
            _ => (Status::Ok, None),
        };
        self.add("members", status, text, mend);
    }

    fn latency(&mut self, median: Duration) {
        let text = format!("a read takes {} (median of {READS})", ms(median));
        match median > READ_SLOW {
            true => {
                let mend = "use members on the LAN, with quick disks";
                self.add("latency", Status::Warn, text, Some(mend));
            }
            false => self.add("latency", Status::Ok, text, None),
        }
    }

    fn etcd_terms(&mut self, key: Option<&ClaimKey>, claims: Vec<NewestClaim>) {
        if claims.is_empty() {
            self.no_terms();
        }
        for NewestClaim { vm, term, claim } in claims {
            match claim {
                Ok(file) => self.term(key, (vm, term), &file),
                Err(fault) => {
                    let text = format!("VM {vm}: the claim of term {term} {fault}");
                    self.add("terms", Status::Fail, text, None);
                }
            }
        }
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_with_an_alarm_fails_and_one_without_a_leader_warns() {
        for (has_leader, has_alarm, status, text) in [
            (true, false, Status::Ok, "http://a:1: etcd 3.4.23, 2.0 ms"),
            (false, false, Status::Warn, "http://a:1: etcd 3.4.23, without a leader, 2.0 ms"),
            (true, true, Status::Fail, "takes no claim"),
        ] {
            let mut report = Report::default();
            let (version, took) = (String::from("3.4.23"), Duration::from_millis(2));
            report.server("http://a:1", &ServerState { version, has_leader, has_alarm, took });
            assert_eq!(report.checks[0].status, status);
            assert!(report.checks[0].found.contains(text), "{:?}", report.checks);
        }
    }

    #[test]
    fn access_without_a_user_or_a_certificate_warns() {
        for (proof, status) in [
            (Proof::Password, Status::Ok),
            (Proof::Certificate, Status::Ok),
            (Proof::Nothing, Status::Warn),
        ] {
            let mut report = Report::default();
            report.proof(proof);
            assert_eq!(report.checks[0].status, status, "{proof:?}");
        }
    }
}
