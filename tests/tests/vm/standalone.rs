//! A standalone VM with real clients.

use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use testbed::busy::on_busy_cores;
use testbed::{GUEST_ADDRESS, Namespace, TAP, TestbedError, clients};
use tests::patience::factor;
use tests::program::{json, run, understudy};
use tests::recording::start_vm;
use tests::schema;

#[test]
fn demo_runs_every_client_and_leaves_nothing_behind() {
    let output = run(&["demo", "--standalone", "--json"]);
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{progress}");
    let result = json(&String::from_utf8_lossy(&output.stdout));
    schema::fits("demo-standalone", std::slice::from_ref(&result));
    assert_eq!(result["ping"]["received"], 20);
    assert!(result["counter_requests"].as_u64() >= Some(20), "{result}");
    assert_eq!(result["echo_bytes"], 65536);
    let name = progress.split_whitespace().nth(1).expect("the first line names the namespace");
    assert!(name.starts_with("understudy-"), "{progress}");
    assert!(!fs::exists(format!("/run/netns/{name}")).unwrap(), "{name} is still there");
}

#[test]
fn status_page_shows_the_nondeterministic_inputs() {
    let rig = start_vm(&["run"]).unwrap();
    let pages = rig.namespace.enter(|| {
        let first = clients::fetch(GUEST_ADDRESS, "/status")?;
        let burn = clients::fetch(GUEST_ADDRESS, "/burn?ms=30")?;
        Ok::<_, TestbedError>([first, burn, clients::fetch(GUEST_ADDRESS, "/status")?])
    });
    let [first, burn, second] = pages.unwrap().map(|page| json(page.trim()));
    rig.stop().unwrap();
    let number = |page: &Value, key: &str| page[key].as_u64().unwrap_or_else(|| panic!("{page}"));
    assert_ne!(first["random"], second["random"]);
    assert_eq!(first["random"].as_str().map(str::len), Some(16));
    // RDTSC returns nanoseconds of guest time; the burn between the two pages took 30 ms.
    assert!(number(&second, "tsc") >= number(&first, "tsc") + 30_000_000);
    assert!(number(&second, "ticks") >= number(&first, "ticks") + 3);
    assert!(number(&second, "requests") > number(&first, "requests"));
    assert_eq!(number(&burn, "ms"), 30);
    let clock = first["wall_clock"].as_str().unwrap();
    assert!(clock.starts_with("20") && clock.ends_with('Z'), "{clock}");
}

/// The xorshift64 sequence that a burn computes, after `rounds` steps.
fn burned(rounds: u64) -> String {
    let step = |mut x: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^ x << 17
    };
    format!("{:016x}", (0..rounds).fold(0x9e37_79b9_7f4a_7c15, |x, _| step(x)))
}

#[test]
fn burn_result_is_correct_with_any_allowed_working_set() {
    let rig = start_vm(&["run"]).unwrap();
    rig.namespace
        .enter(|| {
            for kib in ["0", "3", "256", "4096"] {
                let page = clients::fetch(GUEST_ADDRESS, &format!("/burn?ms=20&kib={kib}"))?;
                let burn = json(page.trim());
                assert_eq!(burn["kib"].to_string(), kib);
                let rounds = burn["rounds"].as_u64().unwrap();
                assert!(rounds > 0, "{burn}");
                assert_eq!(burn["result"], burned(rounds));
            }
            for query in ["ms=20&kib=4097", "ms=20&kib=", "ms=20&kib=-1", "kib=4", "ms=0"] {
                clients::fetch(GUEST_ADDRESS, &format!("/burn?{query}")).unwrap_err();
            }
            // The guest still serves requests.
            clients::count(GUEST_ADDRESS, 10)
        })
        .unwrap();
    rig.stop().unwrap();
}

/// Returns the resident memory of the process beyond guest RAM, from proc_pid_smaps(5), in KiB.
fn resident_beyond_guest_kib(pid: u32, guest_bytes: u64) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let field = |line: &str, name: &str| -> Option<u64> {
        line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    let (mut resident, mut size, mut guests) = (0, 0, 0);
    for line in smaps.lines() {
        size = field(line, "Size:").unwrap_or(size);
        if let Some(rss) = field(line, "Rss:") {
            if size == guest_bytes >> 10 {
                guests += 1;
            } else {
                resident += rss;
            }
        }
    }
    assert_eq!(guests, 1, "exactly one mapping has the size of guest RAM");
    resident
}

#[test]
fn resident_memory_beyond_guest_ram_is_at_most_24_mib() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog");
    let rig = start_vm(&["record", "--log", log.to_str().unwrap()]).unwrap();
    rig.namespace
        .enter(|| {
            clients::count(GUEST_ADDRESS, 500)?;
            clients::fetch(GUEST_ADDRESS, "/burn?ms=200")
        })
        .unwrap();
    let kib = resident_beyond_guest_kib(rig.vm.pid(), 64 << 20);
    rig.stop().unwrap();
    println!("resident beyond guest RAM: {kib} KiB");
    assert!(kib <= 24 << 10, "{kib} KiB");
}

#[test]
fn guest_without_exits_gets_its_ticks_on_a_busy_host() {
    // The burn ends when the guest has counted its ticks. Each tick takes a kick by the deadline timer:
    // there are no other kicks here, and the guest does not halt.
    let rig = start_vm(&["run"]).unwrap();
    let [begin, stop] = [true, false].map(AtomicBool::new);
    let fetch = || clients::fetch(GUEST_ADDRESS, "/burn?ms=2000");
    let burn = on_busy_cores(1, &begin, &stop, || rig.namespace.enter(fetch)).unwrap();
    assert_eq!(json(burn.unwrap().trim())["ms"], 2000);
    let result = rig.stop().unwrap();
    assert!(result["checkpoints"].as_u64() >= Some(200), "{result}");
}

#[test]
fn guest_that_uses_an_address_of_another_host_is_not_heard() {
    let namespace = Namespace::with_tap("spoof").unwrap();
    let seconds = (2 * factor()).to_string();
    let (output, received) = namespace
        .enter(|| {
            let vm = Command::new(understudy())
                .args(["run", "--tap", TAP, "--ip", "10.77.0.99", "--quiet", "--for", &seconds])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // Nothing answers, so it takes one second for each.
            let (count, address) = (seconds.as_str(), GUEST_ADDRESS.to_string());
            let ping =
                Command::new("ping").args(["-c", count, "-W", "1", &address]).output().unwrap();
            let text = String::from_utf8_lossy(&ping.stdout).into_owned();
            Ok::<_, TestbedError>((vm.wait_with_output().unwrap(), text))
        })
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(received.contains(" 0 received"), "{received}");
    // It has answered: not silence, but the rule kept its answers from the LAN.
    assert!(errors.contains("sends from an address that is not the VM's"), "{errors}");
    assert!(errors.contains("ARP 10.77.0.2 is-at") || errors.contains("ARP announces"), "{errors}");
    assert_eq!(errors.lines().count(), 2, "the first, and how many there were: {errors}");
}

#[test]
fn guest_that_uses_the_address_of_the_vm_is_heard() {
    let rig = start_vm(&["run", "--ip", "10.77.0.99,10.77.0.2"]).unwrap();
    rig.namespace.enter(|| clients::count(GUEST_ADDRESS, 10)).unwrap();
    rig.stop().unwrap();
}
