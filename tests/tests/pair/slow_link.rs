//! A log link that carries less than the guest writes.

use serde_json::Value;
use testbed::pair::{Host, LOG_LINK, PairEvent, Part};
use testbed::{GUEST_ADDRESS, clients, command};
use tests::pair::Rig;
use tests::patience::wait_until;
use tests::wait_for;

/// Limits what the primary sends on the log link.
fn limit_log_link(rig: &Rig, rate: &str) {
    let host = rig.scene.network.host(Host::A).name();
    let limit = ["qdisc", "replace", "dev", LOG_LINK, "root", "tbf", "rate", rate];
    let queue = ["burst", "32kb", "latency", "100ms"];
    let tc = ["netns", "exec", host, "tc"];
    let arguments: Vec<&str> = tc.into_iter().chain(limit).chain(queue).collect();
    command("ip", &arguments).expect("the kernel has tbf");
}

#[test]
fn guest_that_writes_faster_than_the_log_link_is_slowed_until_it_is_protected() {
    let rig = Rig::default();
    limit_log_link(&rig, "2mbps");
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    std::thread::scope(|scope| {
        let client = rig.scene.network.client();
        let burn = scope
            .spawn(|| client.enter(|| clients::fetch(GUEST_ADDRESS, "/burn?ms=5000&kib=4096")));
        let _backup = rig.start(Part::Backup, Host::B, &[]);
        wait_for!(primary, PairEvent::GuestSlowed);
        wait_until("the share in the status", || {
            let status = primary.status();
            let share = status["copy"].get("guest_share").and_then(Value::as_f64);
            share.is_some_and(|share| share < 1.0)
        });
        wait_for!(primary, PairEvent::GuestNotSlowed);
        wait_for!(primary, PairEvent::Protected);
        let page = burn.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
        assert!(page.contains("5000"), "{page}");
        wait_until("no copy in the status", || primary.status()["copy"].is_null());
    });
    assert!(primary.figure("checkpoints.last_sync_pause_ms") > 0.0);
}
