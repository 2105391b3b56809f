//! The logging channel as captured by tcpdump(8): it has its EtherType and contains no plaintext.

use logchan::ids::Role;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tests::program::json;
use tests::wire::{Side, Wire, number, run_command};

/// Contents of the entries of `understudy link`.
const PLAINTEXT: &[u8] = b"understudy link measures the logging channel";

/// The magic number in the header of a channel frame.
const FRAME_MAGIC: &[u8] = b"UCHN";

struct Captured {
    file: Vec<u8>,
    /// tcpdump's line for each frame.
    lines: Vec<String>,
    /// Number of frames that the primary's port sent and received.
    frames: u64,
}

/// Captures a measurement with the options `protection` at both ends.
fn capture(protection: &[&str]) -> Captured {
    let wire = Wire::up();
    let path = wire.path("channel.pcap").to_str().unwrap().to_string();
    // Run as root, so that tcpdump may write into the folder; unbuffered, so that the last frames are
    // not missing.
    let args = ["-i", "va", "-Z", "root", "--immediate-mode", "-U", "-w", &path];
    let args = [&args[..], &["ether proto 0x88b5"]].concat();
    let mut tcpdump = wire.enter(Side::A, || {
        Command::new("tcpdump").args(args).stderr(Stdio::piped()).spawn().expect("tcpdump is there")
    });
    let mut summary = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
    let started =
        summary.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening on")));
    assert!(started.is_some(), "tcpdump did not start");

    let both = [protection, &["--silence-ms", "60000", "--json", "--quiet"]].concat();
    let backup = wire.start_with(Side::B, Role::Backup, &both);
    let options = [&both[..], &["--count", "200", "--size", "512"]].concat();
    let primary = wire.start_with(Side::A, Role::Primary, &options).finish();
    let backup = backup.finish();
    assert_eq!((primary.code, backup.code), (Some(0), Some(0)), "{primary:?} {backup:?}");
    let result = json(&primary.stdout);
    let frames = number(&result, "port", "tx_frames") + number(&result, "port", "rx_frames");

    kill(Pid::from_raw(tcpdump.id().cast_signed()), Signal::SIGTERM).unwrap();
    let summary: Vec<_> = summary.map(|line| line.unwrap()).collect();
    assert!(tcpdump.wait().unwrap().success(), "{summary:?}");
    assert!(summary.iter().any(|line| line == "0 packets dropped by kernel"), "{summary:?}");
    let text = run_command("tcpdump", &["-r", &path, "-e", "-n"]);
    // tcpdump prints undecoded bytes in hexadecimal on indented lines.
    let lines = text.lines().filter(|line| !line.starts_with('\t')).map(String::from).collect();
    Captured { file: fs::read(path).unwrap(), lines, frames }
}

fn holds(file: &[u8], text: &[u8]) -> bool {
    file.windows(text.len()).any(|window| window == text)
}

/// Checks that every frame was captured, is between the two hosts and has the channel's EtherType.
fn check_frames(captured: &Captured) {
    let Captured { lines, frames, .. } = captured;
    // The backup's last answers arrive after the primary has exited.
    let count = lines.len() as u64;
    assert!(count >= *frames && count <= frames + 10, "{count} captured, {frames} counted");
    let (a, b) = (Side::A.mac(), Side::B.mac());
    let directions = [format!("{a} > {b}, "), format!("{b} > {a}, ")];
    for line in lines {
        assert!(line.contains("ethertype Unknown (0x88b5)"), "{line}");
        assert!(directions.iter().any(|direction| line.contains(direction)), "{line}");
    }
}

#[test]
fn capture_of_a_sealed_channel_shows_frames_and_no_plaintext() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    vmm::link::key_file::create(&key).unwrap();
    let captured = capture(&["--key", key.to_str().unwrap()]);
    check_frames(&captured);
    for text in [PLAINTEXT, FRAME_MAGIC, &PLAINTEXT[..16]] {
        assert!(!holds(&captured.file, text), "{:?} is in the capture", text.escape_ascii());
    }
}

/// The control for the test above: without the seal, the searched plaintext is found.
#[test]
fn capture_of_an_insecure_channel_shows_the_plaintext() {
    let captured = capture(&["--insecure"]);
    check_frames(&captured);
    for text in [PLAINTEXT, FRAME_MAGIC] {
        assert!(holds(&captured.file, text), "no {:?} in the capture", text.escape_ascii());
    }
}
