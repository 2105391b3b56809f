//! One VM on its own, and real clients.

use serde_json::Value;
use std::fs;
use tests::program::{json, run};
use tests::recording::Rig;
use vmm::demo::clients;
use vmm::demo::standalone::GUEST_ADDRESS;

#[test]
fn demo_runs_every_client_and_leaves_nothing_behind() {
    let output = run(&["demo", "--json"]);
    let account = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{account}");
    let result = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(result["ping"]["received"], 20);
    assert_eq!(result["counter_requests"], 200);
    assert_eq!(result["echo_bytes"], 65536);
    let name = account.split_whitespace().nth(1).expect("the first line names the namespace");
    assert!(name.starts_with("understudy-"), "{account}");
    assert!(!fs::exists(format!("/run/netns/{name}")).unwrap(), "{name} is still there");
}

#[test]
fn status_page_shows_what_enters_through_the_door() {
    let rig = Rig::start("run", &[]).unwrap();
    let pages = rig.namespace.enter(|| {
        let first = clients::fetch(GUEST_ADDRESS, "/status")?;
        let burn = clients::fetch(GUEST_ADDRESS, "/burn?ms=30")?;
        Ok([first, burn, clients::fetch(GUEST_ADDRESS, "/status")?])
    });
    let [first, burn, second] = pages.unwrap().map(|page| json(page.trim()));
    rig.stop().unwrap();
    let number = |page: &Value, key: &str| page[key].as_u64().unwrap_or_else(|| panic!("{page}"));
    assert_ne!(first["random"], second["random"]);
    assert_eq!(first["random"].as_str().map(str::len), Some(16));
    // RDTSC is answered in nanoseconds of guest time; the burn between the two took 30 ms.
    assert!(number(&second, "tsc") >= number(&first, "tsc") + 30_000_000);
    assert!(number(&second, "ticks") >= number(&first, "ticks") + 3);
    assert!(number(&second, "requests") > number(&first, "requests"));
    assert_eq!(number(&burn, "ms"), 30);
    let clock = first["wall_clock"].as_str().unwrap();
    assert!(clock.starts_with("20") && clock.ends_with('Z'), "{clock}");
}

/// Memory of the process that is not guest RAM, from proc_pid_smaps(5), in KiB.
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
    assert_eq!(guests, 1, "one mapping is as large as guest RAM");
    resident
}

#[test]
fn resident_memory_beyond_guest_ram_is_at_most_24_mib() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog");
    let rig = Rig::start("record", &["--log", log.to_str().unwrap()]).unwrap();
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
