//! Tests with the etcd of the Debian package. They need root, for a network namespace.

use super::*;
use crate::witness::claim_file::ClaimFile;
use cluster::Cluster;
use logchan::claim::ClaimKey;
use logchan::handshake::PresharedKey;
use replication::witness::{Ending, Seen};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Barrier;
use testbed::etcd::{Etcd, EtcdClients, make_authority};
use testbed::{Namespace, TestbedError};

const A: Claimant = Claimant(0xa);
const B: Claimant = Claimant(0xb);
const ADDRESSES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

/// Runs `test` in a namespace with a cluster of `members`, once it is ready.
fn with_etcd(members: usize, clients: EtcdClients, test: impl FnOnce(&mut Etcd) + Send) {
    let namespace = Namespace::new("etcd").unwrap();
    let places: Vec<_> =
        ADDRESSES[..members].iter().map(|address| (&namespace, *address)).collect();
    let mut etcd = Etcd::start(&places, clients).unwrap();
    let tested = namespace.enter(|| {
        wait_until_ready(&etcd);
        test(&mut etcd);
        Ok::<_, TestbedError>(())
    });
    tested.unwrap();
}

fn wait_until_ready(etcd: &Etcd) {
    let until = Instant::now() + Duration::from_secs(60);
    let range = format!(r#"{{"key":"{}"}}"#, "eA==");
    while let Err(error) = etcd.post(0, ("/v3/kv/range", &range), "") {
        assert!(Instant::now() < until, "{error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The credentials that a cluster with certificates accepts.
fn files(etcd: &Etcd) -> CredentialFiles {
    CredentialFiles {
        authority: Some(etcd.authority()),
        certificate: Some(etcd.certificate()),
        key: Some(etcd.certificate_key()),
        password: None,
    }
}

/// Opens the witness of the cluster for a process of a pair with a key of bytes `key`; 0: without a key.
fn open_with(
    address: &str,
    files: &CredentialFiles,
    (claimant, key): (Claimant, u8),
) -> Result<EtcdWitness, EtcdError> {
    let address = EtcdAddress::parse(address).unwrap().unwrap();
    let credentials = Credentials::read(files, address.is_tls()).unwrap();
    let key = PresharedKey::from_bytes(&[key; 32]).ok().map(|key| ClaimKey::derive(&key));
    let config = WitnessConfig { vm: VmId(7), key, claimant, host: String::from("host") };
    EtcdWitness::open((address, credentials), config, WitnessId(claimant.0))
}

fn open(etcd: &Etcd, claimant: Claimant) -> EtcdWitness {
    open_with(&etcd.witness("test"), &CredentialFiles::default(), (claimant, 1)).unwrap()
}

fn pair(etcd: &Etcd) -> [EtcdWitness; 2] {
    [A, B].map(|claimant| open(etcd, claimant))
}

fn claim_of(term: u64, previous: Claimant) -> Question {
    let cause = witness::ClaimCause::PrimarySilent;
    Question::Claim { term: Term(term), previous, cause }
}

const BOOT: Question = Question::Boot { again: false, after: None };

fn won(term: u64) -> Answer {
    Answer::Won { term: Term(term) }
}

fn lost(term: u64) -> Answer {
    Answer::Lost { newest: Term(term) }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// Writes a key as somebody else would.
fn write(etcd: &Etcd, key: &str, value: &str) {
    let body = format!(r#"{{"key":"{}","value":"{}"}}"#, base64(key), base64(value));
    etcd.post(0, ("/v3/kv/put", &body), "").unwrap();
}

fn remove(etcd: &Etcd, key: &str) {
    let body = format!(r#"{{"key":"{}"}}"#, base64(key));
    etcd.post(0, ("/v3/kv/deleterange", &body), "").unwrap();
}

fn key_of(term: u64) -> String {
    format!("test/vm-7/term-{term:020}")
}

/// Asks again while a server has no answer in time: the host of the tests may be busy.
fn ask(witness: &EtcdWitness, question: Question) -> Result<Answer, EtcdError> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = witness.answer(question);
        let is_late = |error: &EtcdError| error.to_string().contains("no answer in time");
        if !answer.as_ref().is_err_and(is_late) || Instant::now() > until {
            return answer;
        }
    }
}

/// Requires that a claim of term 2 has no answer, for a reason with `text`.
fn no_answer(witness: &EtcdWitness, text: &str) {
    let error = ask(witness, claim_of(2, A)).expect_err(text).to_string();
    assert!(error.contains(text) && !error.contains('\n'), "not {text:?}: {error}");
}

#[test]
fn each_term_is_granted_once() {
    with_etcd(1, EtcdClients::Open, |etcd| {
        let [a, b] = pair(etcd);
        assert_eq!(a.id(), b.id());
        assert_eq!(ask(&a, BOOT).unwrap(), won(1));
        assert_eq!(ask(&a, BOOT).unwrap(), won(1), "the answer was lost");
        assert_eq!(ask(&b, BOOT).unwrap(), lost(1));
        let error = ask(&b, claim_of(2, B)).unwrap_err();
        assert!(matches!(error, EtcdError::OtherOwner { found: Some(A), .. }), "{error}");
        assert_eq!(ask(&b, claim_of(2, A)).unwrap(), won(2));
        assert_eq!(ask(&a, claim_of(2, A)).unwrap(), lost(2));
        let confirm = Question::Confirm { term: Term(1), owner: A };
        assert_eq!(ask(&a, confirm).unwrap(), lost(2));
        assert_eq!(ask(&b, Question::Release { term: Term(2) }).unwrap(), won(3));
        let Seen { newest: Term(3), last: Some(last) } = b.look().unwrap() else { panic!() };
        assert_eq!((last.generation.term, last.generation.owner), (Term(2), B));
        assert_eq!(last.ending, Ending::Released);
        assert_eq!(ask(&a, BOOT).unwrap(), won(4));
        // Terms are numbers: 10 comes after 9.
        for term in 5..=11 {
            assert_eq!(ask(&a, claim_of(term, A)).unwrap(), won(term));
        }
        assert_eq!(b.forget().unwrap(), Term(12));
        assert_eq!(b.forget().unwrap(), Term(12));
        assert_eq!(ask(&b, BOOT).unwrap(), won(13));
        // Another VM, and another prefix.
        let other = open_with(&etcd.witness("other"), &CredentialFiles::default(), (A, 1)).unwrap();
        assert_eq!(ask(&other, BOOT).unwrap(), won(1));
        assert_ne!(other.id(), WitnessId(0));
    });
}

#[test]
fn claim_by_many_at_once_is_won_by_one() {
    with_etcd(1, EtcdClients::Open, |etcd| {
        let etcd = &*etcd;
        let start = Barrier::new(4);
        let ids = std::thread::scope(|scope| {
            let open_one = |claimant| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    open(etcd, Claimant(claimant)).id()
                })
            };
            let threads: Vec<_> = (1..5).map(open_one).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(ids.iter().all(|&id| id == ids[0]), "{ids:?}");
        let witnesses: Vec<_> = (1..5).map(|claimant| open(etcd, Claimant(claimant))).collect();
        let mut owner = None;
        for term in 1..=30 {
            let winners = std::thread::scope(|scope| {
                let threads: Vec<_> = witnesses
                    .iter()
                    .map(|witness| {
                        let start = &start;
                        scope.spawn(move || {
                            start.wait();
                            let question = owner.map_or(BOOT, |previous| claim_of(term, previous));
                            (witness.claimant(), ask(witness, question).unwrap())
                        })
                    })
                    .collect();
                let answers = threads.into_iter().map(|thread| thread.join().unwrap());
                answers.filter(|(_, answer)| *answer == won(term)).collect::<Vec<_>>()
            });
            assert_eq!(winners.len(), 1, "term {term}: {winners:?}");
            owner = Some(winners[0].0);
        }
    });
}

#[test]
fn value_that_no_host_of_the_pair_wrote_is_no_answer() {
    with_etcd(1, EtcdClients::Open, |etcd| {
        let [a, b] = pair(etcd);
        assert_eq!(ask(&a, BOOT).unwrap(), won(1));
        let file = |key: u8, term| {
            let key = PresharedKey::from_bytes(&[key; 32]).ok().map(|key| ClaimKey::derive(&key));
            let claim = Claim { witness: a.id(), vm: VmId(7), term: Term(term), claimant: B };
            ClaimFile::encode(&claim, key.as_ref(), "host")
        };
        let long = "0".repeat(60_000);
        let contents: [(&str, &str); 7] = [
            ("", "is not a claim"),
            ("mallory\n", "is not a claim"),
            (&file(1, 5), "does not authenticate"),
            (&file(2, 2), "does not authenticate"),
            (&file(0, 2), "has no tag"),
            (&"0".repeat(300), "is not a claim"),
            (&long, "its answer is too long"),
        ];
        for term in [2, 3] {
            for (content, text) in contents {
                write(etcd, &key_of(term), content);
                no_answer(&b, text);
            }
            remove(etcd, &key_of(term));
        }
        for name in ["test/vm-7/term-99", "test/vm-7/term-99999999999999999999"] {
            write(etcd, name, "x");
            no_answer(&b, "is not the name of a claim");
            remove(etcd, name);
        }
        let identity = format!("{}\n", a.id());
        for (value, text) in
            [("00000000000000ff\n", "its identity was"), ("junk", "does not contain an identity")]
        {
            write(etcd, "test/understudy-witness", value);
            no_answer(&b, text);
        }
        remove(etcd, "test/understudy-witness");
        no_answer(&b, "is gone now");
        write(etcd, "test/understudy-witness", &identity);
        // A claim that is gone: only its owner makes it again.
        remove(etcd, &key_of(1));
        no_answer(&b, "has no owner");
        let confirm = Question::Confirm { term: Term(1), owner: A };
        ask(&b, confirm).unwrap_err();
        assert_eq!(ask(&a, confirm).unwrap(), won(1));
        assert_eq!(ask(&b, claim_of(2, A)).unwrap(), won(2));
    });
}

/// The claim of the term before is replaced between the read and the write.
#[test]
fn claim_is_not_written_after_the_one_before_has_changed() {
    with_etcd(1, EtcdClients::Open, |etcd| {
        let [a, b] = pair(etcd);
        assert_eq!(ask(&a, BOOT).unwrap(), won(1));
        let mut access = b.access(Duration::from_secs(5));
        assert_eq!(access.owner(Term(1)).unwrap(), Some(A));
        write(etcd, &key_of(1), "changed");
        let error = access.create(Term(2), B).unwrap_err();
        assert!(matches!(error, EtcdError::Changed { .. }), "{error}");
        assert_eq!(b.access(Duration::from_secs(5)).owner(Term(2)).unwrap(), None);
    });
}

#[test]
fn minority_of_servers_down_answers_and_majority_down_does_not() {
    with_etcd(3, EtcdClients::Open, |etcd| {
        let [a, b] = pair(etcd);
        assert_eq!(ask(&a, BOOT).unwrap(), won(1));
        etcd.kill_member(0);
        let begin = Instant::now();
        // If it led, the others elect a leader first.
        while let Err(error) = b.answer(claim_of(2, A)) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{error}");
        }
        etcd.kill_member(1);
        let begin = Instant::now();
        let error = a.answer(claim_of(3, B)).unwrap_err().to_string();
        // An etcd without a majority would answer after 7 s.
        assert!(begin.elapsed() < 5 * QUESTION_MAX, "{:?}", begin.elapsed());
        for address in ADDRESSES {
            assert!(error.contains(&format!("http://{address}:2379: ")), "{error}");
        }
        assert!(!error.contains('\n'), "{error}");
        etcd.start_member(1).unwrap();
        let begin = Instant::now();
        while let Err(error) = a.answer(claim_of(3, B)) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{error}");
        }
    });
}

fn cluster(etcd: &Etcd) -> Cluster {
    let address = EtcdAddress::parse(&etcd.witness("test")).unwrap().unwrap();
    Cluster::new(address, Credentials { tls: None, user: None })
}

/// A cluster whose storage is full still answers reads.
#[test]
fn cluster_with_an_alarm_grants_no_term_and_says_so() {
    with_etcd(1, EtcdClients::Open, |etcd| {
        let [a, b] = pair(etcd);
        assert_eq!(ask(&a, BOOT).unwrap(), won(1));
        let alarm = |action: &str| {
            let body = format!(r#"{{"action":"{action}","memberID":"1","alarm":"NOSPACE"}}"#);
            etcd.post(0, ("/v3/maintenance/alarm", &body), "").unwrap();
        };
        let has_alarm = || cluster(etcd).servers()[0].1.as_ref().unwrap().has_alarm;
        assert!(!has_alarm());
        alarm("ACTIVATE");
        assert!(has_alarm());
        no_answer(&b, "database space exceeded");
        let confirm = Question::Confirm { term: Term(1), owner: A };
        assert_eq!(ask(&a, confirm).unwrap(), won(1));
        let late = open_with(&etcd.witness("test"), &CredentialFiles::default(), (B, 1));
        assert!(late.unwrap_err().to_string().contains("database space exceeded"));
        alarm("DEACTIVATE");
        assert_eq!(ask(&b, claim_of(2, A)).unwrap(), won(2));
    });
}

#[test]
fn cluster_is_described_without_writing() {
    with_etcd(3, EtcdClients::Open, |etcd| {
        let cluster = cluster(etcd);
        assert_eq!(cluster.identity().unwrap().0, None);
        assert!(cluster.newest_claims().unwrap().is_empty());
        let a = open(etcd, A);
        ask(&a, BOOT).unwrap();
        ask(&a, claim_of(2, A)).unwrap();
        for vm in [70, 8] {
            write(etcd, &format!("test/vm-{vm}/term-00000000000000000004"), "x");
        }
        assert_eq!(cluster.identity().unwrap().0, Some(a.id()));
        let claims = cluster.newest_claims().unwrap();
        let claims: Vec<_> =
            claims.iter().map(|claim| (claim.vm.0, claim.term.0, claim.claim.is_ok())).collect();
        assert_eq!(claims, [(7, 2, true), (70, 4, false), (8, 4, false)]);
        assert_eq!(cluster.newest_claim(VmId(9)).unwrap().map(|claim| claim.term), None);
        assert_eq!(cluster.members().unwrap(), 3);
        etcd.kill_member(2);
        let servers = cluster.servers();
        assert_eq!(servers.iter().filter(|(_, state)| state.is_ok()).count(), 2, "{servers:?}");
        assert!(servers[2].1.as_ref().unwrap_err().contains("127.0.0.3"), "{servers:?}");
    });
}

#[test]
fn tls_with_certificates_of_the_authority_only() {
    with_etcd(1, EtcdClients::Certified, |etcd| {
        let address = etcd.witness("test");
        let open = |address: &str, files: &CredentialFiles| open_with(address, files, (A, 1));
        let refused = |address: &str, files: &CredentialFiles, text: &str| {
            let error = open(address, files).expect_err(text).to_string();
            assert!(error.contains(text) && !error.contains('\n'), "not {text:?}: {error}");
        };
        let witness = open(&address, &files(etcd)).unwrap();
        assert_eq!(ask(&witness, BOOT).unwrap(), won(1));
        assert_eq!(witness.warning(), None);
        make_authority(&etcd.path(""), "other").unwrap();
        let other = CredentialFiles { authority: Some(etcd.path("other.pem")), ..files(etcd) };
        refused(&address, &other, "https://127.0.0.1:2379: invalid peer certificate");
        let anonymous = CredentialFiles { authority: Some(etcd.authority()), ..Default::default() };
        refused(&address, &anonymous, "https://127.0.0.1:2379: ");
        let clear = address.replace("etcds://", "etcd://");
        refused(&clear, &CredentialFiles::default(), "http://127.0.0.1:2379: ");
        let other_name = address.replace("127.0.0.1", "127.0.0.2");
        refused(&other_name, &files(etcd), "https://127.0.0.2:2379: ");
        // The key of another certificate, and a key that others can read.
        let mixed = CredentialFiles { key: Some(etcd.path("other.key")), ..files(etcd) };
        let error = Credentials::read(&mixed, true).unwrap_err().to_string();
        assert!(error.contains("does not contain the key of"), "{error}");
        let key = etcd.certificate_key();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Credentials::read(&files(etcd), true).unwrap_err().to_string();
        assert!(error.contains("0644"), "{error}");
    });
}

fn password_file(path: &Path, text: &str) -> CredentialFiles {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    CredentialFiles { password: Some(path.to_path_buf()), ..Default::default() }
}

#[test]
fn user_with_a_password_and_its_permissions() {
    with_etcd(1, EtcdClients::Open, |etcd| {
        let post = |path: &str, body: &str| etcd.post(0, (path, body), "").unwrap();
        let range = [base64("test/"), base64("test0")];
        for role in ["root", "writer", "reader"] {
            post("/v3/auth/role/add", &format!(r#"{{"name":"{role}"}}"#));
            post("/v3/auth/user/add", &format!(r#"{{"name":"{role}","password":"p:{role}"}}"#));
            post("/v3/auth/user/grant", &format!(r#"{{"user":"{role}","role":"{role}"}}"#));
        }
        for (role, permission) in [("writer", "READWRITE"), ("reader", "READ")] {
            let permission = format!(
                r#"{{"name":"{role}","perm":{{"permType":"{permission}","key":"{}","range_end":"{}"}}}}"#,
                range[0], range[1]
            );
            post("/v3/auth/role/grant", &permission);
        }
        post("/v3/auth/enable", "{}");
        let open = |user: &str, claimant| {
            let files = password_file(&etcd.path("password"), user);
            open_with(&etcd.witness("test"), &files, (claimant, 1))
        };
        let refused = |user: &str, text: &str| {
            let error = open(user, A).expect_err(text).to_string();
            let named = error.contains("http://127.0.0.1:2379: ") && !error.contains('\n');
            let (_, password) = user.split_once(':').unwrap();
            assert!(named && error.contains(text) && !error.contains(password), "{error}");
        };
        refused("writer:wrong", "authentication failed");
        let anonymous = open_with(&etcd.witness("test"), &CredentialFiles::default(), (A, 1));
        assert!(anonymous.unwrap_err().to_string().contains("user name is empty"));
        let [a, b] = [A, B].map(|claimant| open("writer:p:writer", claimant).unwrap());
        refused("reader:p:reader", "permission denied");
        assert_eq!(ask(&a, BOOT).unwrap(), won(1));
        // A server that was started again does not know its tokens.
        etcd.kill_member(0);
        etcd.start_member(0).unwrap();
        let begin = Instant::now();
        while let Err(error) = b.answer(claim_of(2, A)) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{error}");
        }
    });
}
