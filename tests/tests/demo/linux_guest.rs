//! A Debian kernel with redis, restored from the snapshot of `scripts/linux-guest.sh` and protected:
//! its primary is killed, and clients see nothing worse than a pause. The test fails without the
//! snapshot; `scripts/test.sh` calls that script first.
//!
//! `LINUX_KILLS=10` makes the test longer.

use std::process::Output;
use tests::demo::Figures;
use tests::program::{run, write_private};

const KILLS: &str = "2";

#[test]
fn restored_linux_guest_survives_kills_and_redis_keeps_counting() {
    let kills = std::env::var("LINUX_KILLS").unwrap_or(KILLS.into());
    let figures = Figures::of(&["--guest", "linux", "--kills", &kills]);
    figures.check_failovers(kills.parse().expect("a number"), "icmp");
    // Real redis clients, which scripts/install.sh installs, saw consecutive numbers.
    assert!(figures.number("/redis/cli") > 0.0);
    assert!(figures.number("/redis/benchmarks") > 0.0);
    // The VM moved and moved back, and so did its frames on the LAN, which `double_live` is computed
    // from.
    assert!(figures.number("/sync_pause_ms/p50") > 0.0);
    assert!(figures.has_none("/udp"), "the Linux guest has no UDP echo");
}

#[test]
fn linux_guest_without_usable_snapshot_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.snap");
    let file = path.to_str().unwrap();
    let demo = || run(&["demo", "--guest", "linux", "--snapshot", file]);
    refused(&demo(), 6, "scripts/linux-guest.sh");
    write_private(&path, b"no snapshot");
    refused(&demo(), 6, "not a snapshot");
    refused(&run(&["demo", "--snapshot", file]), 2, "--guest linux");
}

fn refused(output: &Output, code: i32, what: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("understudy: ") && errors.contains(what), "not {what:?}: {errors}");
}
