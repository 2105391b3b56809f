//! The demonstration of a protected VM with a disk: an image on each host, and a client that appends to a chain of hashes.
//!
//! The run with a Linux guest needs the snapshot of `scripts/linux-guest.sh --disk 256`, whose boot takes minutes where KVM
//! emulates kernel code: `cargo test ... --test demo -- --ignored disk::`.

use tests::demo::Figures;
use tests::program::{run, write_private};

const USAGE: i32 = 2;
/// Exit code of a snapshot that can't be used.
const SNAPSHOT: i32 = 6;
/// Exit code of a disk that can't be used.
const DISK: i32 = 18;

/// Checks that both images are equal and have everything that was answered, of which there is something named `name`.
fn check_disk(figures: &Figures, name: &str) {
    for pointer in ["/disk/blocks_differing", "/disk/lost/a", "/disk/lost/b", "/disk/backups_left"]
    {
        assert_eq!(figures.number(pointer), 0.0, "{pointer}");
    }
    assert!(figures.has_none("/disk/damage"));
    assert!(figures.number("/disk/blocks") > 0.0);
    let answered = figures.number(&format!("/disk/answered/{name}"));
    assert!(answered > 0.0);
    for host in ["a", "b"] {
        assert!(figures.number(&format!("/disk/on_disk/{host}/{name}")) >= answered, "{host}");
    }
}

#[test]
fn chain_on_the_disk_outlasts_kills_and_a_handover_on_both_hosts() {
    let figures = Figures::of(&["--disk", "--kills", "2", "--handovers", "1"]);
    figures.check_failovers(2.0, "udp");
    assert_eq!(figures.number("/handovers/completed"), 1.0);
    check_disk(&figures, "chain");
}

#[test]
#[ignore = "needs the snapshot of scripts/linux-guest.sh --disk 256"]
fn redis_of_a_linux_guest_loses_nothing_on_either_disk() {
    let kills = std::env::var("LINUX_KILLS").unwrap_or("2".into());
    let figures = Figures::of(&["--guest", "linux", "--disk", "--kills", &kills]);
    figures.check_failovers(kills.parse().expect("a number"), "icmp");
    check_disk(&figures, "understudy");
}

#[test]
fn disk_that_cannot_be_had_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.snap");
    let file = path.to_str().unwrap();
    let refused = |args: &[&str], code, what: &str| {
        let output = run(&[&["demo", "--disk"], args].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(what), "not {what:?}: {errors}");
    };
    refused(&["--standalone"], USAGE, "--standalone");
    refused(&["--guest", "linux", "--snapshot", file], SNAPSHOT, "linux-guest.sh --disk 256");
    write_private(&path, b"no snapshot");
    refused(&["--guest", "linux", "--snapshot", file], DISK, "data.img: does not exist");
}
