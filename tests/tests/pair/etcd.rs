//! etcd as the witness, with a server on each host and one on a third machine.

use nix::sys::signal::Signal;
use testbed::etcd::{Etcd, EtcdClients};
use testbed::pair::{Host, LOG_LINK, PairEvent, Part};
use testbed::{GUEST_ADDRESS, TestbedError, clients};
use tests::pair::{Clients, Process, Rig};
use tests::patience::wait_until;
use tests::program::{json, run};
use tests::wait_for;

/// Addresses of host A, host B and the third machine, apart from those of the VM's network.
const ADDRESSES: [&str; 3] = ["10.78.0.10", "10.78.0.11", "10.78.0.12"];

/// Starts a server on each host and on the client's machine, and waits until they answer.
fn start_etcd(rig: &Rig) -> Etcd {
    let network = &rig.scene.network;
    let [a, b] = Host::ALL.map(|host| network.host(host));
    let places = [(a, "br0"), (b, "br0"), (network.client(), "eth0")];
    for ((namespace, interface), address) in places.iter().zip(ADDRESSES) {
        namespace.ip(&format!("addr add {address}/24 dev {interface}")).unwrap();
    }
    let places: Vec<_> = places
        .iter()
        .zip(ADDRESSES)
        .map(|((namespace, _), address)| (*namespace, address))
        .collect();
    let etcd = Etcd::start(&places, EtcdClients::Open).unwrap();
    wait_until("etcd", || is_ready(rig, &etcd));
    etcd
}

fn is_ready(rig: &Rig, etcd: &Etcd) -> bool {
    let range = ("/v3/kv/range", r#"{"key":"eA=="}"#);
    let ask = || etcd.post(2, range, "");
    rig.scene.network.client().enter(ask).is_ok()
}

/// Runs `understudy` with `args` on host A. Returns the exit code and standard output.
fn on_host_a(rig: &Rig, args: &[&str]) -> (Option<i32>, String) {
    let start = || Ok::<_, TestbedError>(run(args));
    let output = rig.scene.network.host(Host::A).enter(start).unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn host_with_the_primary_and_a_server_dies_backup_takes_over() {
    let rig = Rig::default();
    let mut etcd = start_etcd(&rig);
    let witness = etcd.witness("understudy");
    let options = ["--witness", witness.as_str()];
    let mut primary = rig.start(Part::Primary, Host::A, &options);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &options);
    wait_for!(primary, PairEvent::Protected);
    let ((), _clients) = Clients::during(&rig, |clients| {
        etcd.kill_member(0);
        primary.signal(Signal::SIGKILL);
        primary.end();
        wait_for!(backup, PairEvent::WentLive);
        clients.wait_until_served();
    });
    assert_eq!(backup.state().term, 2);
    wait_until("the witness", || backup.status()["witness"] == "reachable");
    let key = rig.path("key");
    let options = [&options[..], &["--key", key.to_str().unwrap()]].concat();
    let (code, text) = on_host_a(&rig, &[&["witness", "check", "--json"][..], &options].concat());
    let report = json(&text);
    assert_eq!((code, &report["claims"][0]["term"]), (Some(0), &2.into()), "{report}");
    assert_eq!(report["claims"][0]["authentic"], true, "{report}");
    assert!(text.contains("3 members, of which 1 may be down"), "{report}");
    assert!(text.contains(&format!("http://{}:2379: ", ADDRESSES[0])), "{report}");
    let (code, text) = on_host_a(&rig, &[&["forget", "--yes"][..], &options].concat());
    assert_eq!(code, Some(0), "{text}");
    wait_for!(backup, PairEvent::Halted { .. });
    assert_eq!(backup.end().code, Some(14));
}

/// Adds (`add`) or removes (`del`) the cuts between host A, host B and the third machine. Each host still reaches its
/// own server.
fn cut(rig: &Rig, verb: &str) {
    for host in Host::ALL {
        for other in [host.other().index(), 2] {
            rig.ip(host, &format!("route {verb} blackhole {}/32", ADDRESSES[other]));
        }
    }
}

/// Returns how many terms each process has won.
fn terms_won(processes: [&mut Process; 2]) -> [usize; 2] {
    processes.map(|process| process.count(|event| matches!(event, PairEvent::TermWon)))
}

/// The hosts are cut off from each other and from the third machine: each has one of three servers.
#[test]
fn hosts_cut_off_from_the_majority_do_not_go_on_before_they_reach_it() {
    let rig = Rig::default();
    let etcd = start_etcd(&rig);
    let witness = etcd.witness("understudy");
    let options = ["--witness", witness.as_str()];
    let mut primary = rig.start(Part::Primary, Host::A, &options);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &options);
    wait_for!(primary, PairEvent::Protected);
    cut(&rig, "add");
    for process in [&mut primary, &mut backup] {
        wait_for!(process, PairEvent::WitnessLost);
    }
    rig.ip(Host::A, &format!("link set {LOG_LINK} down"));
    for process in [&mut primary, &mut backup] {
        wait_for!(process, PairEvent::WitnessUnreachable);
        wait_until("the reason", || {
            let status = process.status();
            let reason = status["witness"].as_str().unwrap_or_default();
            reason.starts_with("unreachable: ")
                && ADDRESSES.iter().all(|each| reason.contains(each))
        });
    }
    // Takes longer than several claims.
    let (code, text) = on_host_a(&rig, &["witness", "check", "--witness", &witness]);
    assert!(code == Some(3) && text.contains("FAIL  majority"), "{text}");
    assert_eq!(terms_won([&mut primary, &mut backup]), [1, 0]);
    cut(&rig, "del");
    wait_until("one host to go on", || terms_won([&mut primary, &mut backup]) != [1, 0]);
    let client = rig.scene.network.client();
    client.enter(|| clients::count(GUEST_ADDRESS, 10)).unwrap();
    let won = terms_won([&mut primary, &mut backup]);
    assert!([[2, 0], [1, 1]].contains(&won), "one host wins term 2: {won:?}");
}
