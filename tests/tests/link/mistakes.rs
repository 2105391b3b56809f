//! Mistakes with `understudy key` and `understudy link`: a one-line error message and a documented exit code.

use logchan::channel::Timing;
use logchan::endpoint::Settings;
use logchan::entry::Entry;
use logchan::entry_codec::encode;
use logchan::handshake::{Identity, PROTOCOL_VERSION, SecureLink, Security};
use logchan::host_profile::HostProfile;
use logchan::ids::{Claimant, Lane, Role, Term, VmId, WitnessId};
use logchan::seal;
use logchan::time::Time;
use netpath::{FRAME_MAX, FramePort, MacAddr, PacketConfig, PacketPort, ReceivePath, WaitPolicy};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::patience::factor;
use tests::program::run;
use tests::wire::{Finished, LinkProcess, Side, Wire};
use vmm::link::{LinkOptions, LogLink, header, key_file, now};

/// Runs `understudy` with `args` and requires exit code `code` and one line on standard error that
/// contains `text`.
fn fails(args: &[&str], code: i32, text: &str) {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{args:?}: {errors}");
    assert!(errors.starts_with("understudy: ") && errors.contains(text), "{args:?}: {errors}");
}

const PEER: &str = "02:00:00:00:00:0b";

/// Returns the arguments of `link` as the primary with key file `key` and a short wait.
fn link<'a>(interface: &'a str, peer: &'a str, key: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["link", "--interface", interface, "--peer", peer, "--key", key];
    args.extend(["--role", "primary", "--wait", "0.3", "--quiet"]);
    args.extend(extra);
    args
}

#[test]
fn key_is_created_once_and_prints_what_to_do_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let text = path.to_str().unwrap();
    let output = run(&["key", text]);
    assert!(output.status.success() && output.stderr.is_empty());
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line.lines().count(), 1);
    assert!(line.contains(text) && line.contains("copy it to the other host"), "{line}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = fs::read_to_string(&path).unwrap();
    assert!(!line.contains(key.trim()));
    fails(&["key", text], 12, "a key is not overwritten");
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    fails(&["key", "/no/such/folder/key"], 12, "/no/such/folder/key: No such file");
}

#[test]
fn unusable_key_files_are_refused_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let text = path.to_str().unwrap();
    let fails = |part: &str| fails(&link("no-such0", PEER, text, &[]), 12, part);
    fails("does not exist: make it with 'understudy key");
    key_file::create(&path).unwrap();
    let mode = |bits| fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
    mode(0o644);
    fails("mode 0644, so others can use it: 'chmod 600");
    mode(0o600);
    fs::write(&path, "0123").unwrap();
    fails("64 hex digits, not 4 characters");
    fs::write(&path, "z".repeat(64)).unwrap();
    fails("not a hex digit");
    fs::write(&path, "0".repeat(64)).unwrap();
    fails("all zeros");
}

#[test]
fn wrong_values_are_usage_errors() {
    let key = "/no/such/key";
    let fails = |args: &[&str], text| fails(args, 2, text);
    fails(&link("va", "01:00:5e:00:00:01", key, &[]), "multicast");
    fails(&link("va", "ff:ff:ff:ff:ff:ff", key, &[]), "multicast");
    fails(&link("va", "00:00:00:00:00:00", key, &[]), "not the MAC address of a station");
    fails(&link("va", "02:00:00:00:00", key, &[]), "six pairs of hex digits");
    fails(&link("va", PEER, key, &["--silence-ms", "5"]), "10..=60000");
    fails(&link("va", PEER, key, &["--silence-ms", "soon"]), "invalid digit");
    fails(&link("va", PEER, key, &["--size", "4097"]), "16 to 4096");
    fails(&link("va", PEER, key, &["--core", "4095"]), "no such core");
    let with = |args: [&'static str; 4]| {
        let mut all = vec!["link", "--interface", "va", "--peer", PEER, "--insecure"];
        all.extend(args);
        all
    };
    fails(&with(["--role", "witness", "--wait", "1"]), "[possible values: primary, backup]");
    fails(&with(["--role", "primary", "--wait", "0"]), "positive");
    fails(&with(["--role", "backup", "--count", "7"]), "--count is the primary's");
    // Options that contradict each other: the error message is clap's own.
    for wrong in
        [&link("va", PEER, key, &["--insecure"])[..], &with(["--role", "backup", "-q", "-h"])[..7]]
    {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn unusable_interfaces_name_the_remedy() {
    let wire = Wire::up();
    let key = wire.key();
    wire.ip(Side::A, "link add small mtu 575 type veth peer name x");
    wire.ip(Side::A, "tuntap add dev tun0 mode tun");
    wire.enter(Side::A, || {
        let fails =
            |interface, peer, code, text| fails(&link(interface, peer, &key, &[]), code, text);
        fails("no-such0", PEER, 4, "interface no-such0 does not exist: 'ip link' lists");
        fails("lo", PEER, 4, "lo is not an Ethernet interface");
        fails("tun0", PEER, 4, "tun0 is not an Ethernet interface");
        fails("a/b", PEER, 4, "not an interface name");
        fails("small", PEER, 4, "the MTU of small is 575, at least 576");
        fails("va", Side::A.mac(), 2, "is the address of va itself");
    });
}

#[test]
fn peer_that_never_comes_is_diagnosed() {
    let wire = Wire::up();
    let key = wire.key();
    wire.enter(Side::A, || {
        fails(
            &link("va", PEER, &key, &[]),
            12,
            "no frame came from 02:00:00:00:00:0b: is the other",
        );
        fails(&link("va", PEER, &key, &[]), 12, "no backup found in 0.3 s");
    });
    wire.ip(Side::A, "link set va down");
    wire.enter(Side::A, || {
        fails(&link("va", PEER, &key, &[]), 12, "interface va is down: 'ip link set va up'");
    });
    wire.ip(Side::A, "link add br0 type bridge");
    wire.ip(Side::A, "link set va up master br0");
    // The kernel answers questions for bridges only when no namespace is being removed, which other tests do.
    let options = ["--key", &key, "--wait", &wait(), "--quiet"];
    let port_of_bridge = wire.start_with(Side::A, Role::Primary, &options);
    port_of_bridge.finish().failure(12, "interface va is a port of a bridge");
}

#[test]
fn waiting_link_says_once_what_it_waits_for() {
    let wire = Wire::up();
    let key = wire.key();
    let options = ["--key", &key, "--wait", "2.8"];
    let finished = wire.start_with(Side::A, Role::Primary, &options).finish();
    assert_eq!(finished.code, Some(12), "{finished:?}");
    let waiting = finished.stderr.lines().filter(|line| line.starts_with("waiting for the backup"));
    assert_eq!(waiting.count(), 1, "{finished:?}");
}

#[test]
fn signal_while_waiting_ends_with_the_diagnosis() {
    let wire = Wire::up();
    let process = wire.start(Side::A, Role::Primary, &[]);
    wire.wait_for_frames(1);
    process.signal(nix::sys::signal::Signal::SIGTERM);
    process.finish().failure(12, "no frame came from");
}

/// How long mismatched ends wait for each other, as an option's value: long enough for both to have
/// started.
fn wait() -> String {
    (3 * factor()).to_string()
}

/// Starts two mismatched ends and requires that each says why.
fn require_mismatch(primary: &[&str], backup: &[&str], roles: [Role; 2], text: &str) {
    let wire = Wire::up();
    let wait = ["--wait", &wait()];
    let first = wire.start(Side::B, roles[1], &[backup, &wait].concat());
    let second = wire.start(Side::A, roles[0], &[primary, &wait].concat());
    for process in [first, second] {
        process.finish().failure(12, text);
    }
}

const BOTH: [Role; 2] = [Role::Primary, Role::Backup];

#[test]
fn ends_of_different_vms_hear_of_each_other() {
    require_mismatch(
        &["--vm-id", "1"],
        &["--vm-id", "2"],
        BOTH,
        "is the other host of this VM started, with the same --vm-id?",
    );
}

#[test]
fn ends_with_the_same_role_report_the_mismatch() {
    require_mismatch(&[], &[], [Role::Primary; 2], "the peer is the primary, and so are we");
    require_mismatch(&[], &[], [Role::Backup; 2], "the peer is the backup, and so are we");
}

#[test]
fn ends_with_different_silence_timeouts_report_the_mismatch() {
    require_mismatch(&["--silence-ms", "200"], &["--silence-ms", "100"], BOTH, "(--silence-ms)");
}

/// Runs both ends with `options`, which prevent a handshake.
fn strangers(wire: &Wire, options: [&[&str]; 2]) -> [Finished; 2] {
    let wait = wait();
    let [primary, backup] =
        options.map(|options| [&["--quiet", "--wait", wait.as_str()], options].concat());
    let backup = wire.start_with(Side::B, Role::Backup, &backup);
    let primary = wire.start_with(Side::A, Role::Primary, &primary);
    [primary, backup].map(LinkProcess::finish)
}

#[test]
fn ends_with_different_keys_do_not_connect() {
    let wire = Wire::up();
    let [ours, theirs] = ["key", "other"].map(|name| wire.path(name).to_str().unwrap().to_string());
    key_file::create(Path::new(&theirs)).unwrap();
    for finished in strangers(&wire, [&["--key", &ours], &["--key", &theirs]]) {
        finished.failure(12, "the peer uses another key: compare the key files");
    }
}

#[test]
fn sealed_and_insecure_ends_do_not_connect() {
    let wire = Wire::up();
    let [primary, backup] = strangers(&wire, [&["--key", &wire.key()], &["--insecure"]]);
    let text = "one side runs with --insecure and the other one without";
    primary.failure(12, text);
    assert_eq!(backup.code, Some(12));
    let lines: Vec<_> = backup.stderr.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("WARNING"), "{lines:?}");
    assert!(lines[1].contains(text), "{lines:?}");
}

/// Starts the primary while side B sends the frames that `next` returns. It is given each frame that B receives, and
/// called without one until it returns none. Requires that the primary exits with code 12 and `text`.
fn fails_against(
    wire: &Wire,
    mut next: impl FnMut(Time, Option<&mut [u8]>) -> Option<Vec<u8>> + Send,
    text: &str,
) {
    let ended = AtomicBool::new(false);
    let send = || {
        let mut port = PacketPort::open(&PacketConfig::new(Side::B.interface())).unwrap();
        let ethernet = port.header_to(Side::A.mac().parse::<MacAddr>().unwrap());
        let header = [ethernet.as_slice(), &header::label(VmId(0))].concat();
        while !ended.load(Ordering::Relaxed) {
            while let Some(frame) = next(now(), None) {
                port.send(&[&header[..], &frame].concat()).unwrap();
            }
            port.wait(Some(Duration::from_millis(20))).unwrap();
            let mut buffer = [0; FRAME_MAX];
            while let Some(length) = port.receive(&mut buffer).unwrap() {
                next(now(), Some(&mut buffer[header.len()..length]));
            }
        }
    };
    let finished = std::thread::scope(|scope| {
        scope.spawn(|| wire.enter(Side::B, send));
        let finished = wire.start(Side::A, Role::Primary, &["--wait", &wait()]).finish();
        ended.store(true, Ordering::Relaxed);
        finished
    });
    finished.failure(12, text);
}

/// Another build at the other end, whose frames have another version and cannot be read.
#[test]
fn frames_of_another_version_are_reported() {
    let mut frame = vec![0; 100];
    frame[0] = seal::VERSION + 1;
    let mut count = 0;
    let next = |_now, _received: Option<&mut [u8]>| {
        count += 1;
        (count % 2 == 0).then(|| frame.clone())
    };
    let told =
        format!("does the other host run the same version (frame format {})?", seal::VERSION);
    fails_against(&Wire::up(), next, &told);
}

/// Another build at the other end, whose handshake can still be read.
#[test]
fn handshake_of_another_protocol_version_is_reported() {
    let wire = Wire::up();
    let key = key_file::read(&wire.path("key")).unwrap();
    let identity = Identity {
        protocol_version: PROTOCOL_VERSION + 1,
        role: Role::Backup,
        vm_id: VmId(0),
        cpu_level: 1,
        cpu_digest: 0,
        host_profile: HostProfile::UNKNOWN,
        guest_digest: 0,
        disks_digest: 0,
        term: Term(0),
        witness: WitnessId(0),
        claimant: Claimant(0),
        timing: Timing::DEFAULT.fingerprint(),
        frame_bytes_max: 1500,
    };
    let random = Box::new(|bytes: &mut [u8]| fastrand::fill(bytes));
    let mut peer = SecureLink::new(Security::Sealed(key), identity, random);
    peer.start(now());
    let next = |now, received: Option<&mut [u8]>| {
        if let Some(frame) = received {
            peer.handle_frame(now, frame);
            return None;
        }
        peer.handle_timeout(now);
        let mut frame = [0; FRAME_MAX];
        peer.poll_transmit(&mut frame).map(|length| frame[..length].to_vec())
    };
    let (theirs, ours) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION);
    let told =
        format!("the peer speaks protocol version {theirs}, we speak {ours}: run the same build");
    fails_against(&wire, next, &told);
}

/// Acts as a VM's primary: completes the handshake with a matching peer and sends `bytes`, until
/// `ended` is set.
fn primary_of_a_vm(wire: &Wire, digest: u64, bytes: &[u8], ended: &AtomicBool) {
    let options = LinkOptions {
        interface: Side::B.interface().into(),
        peer: Side::A.mac().parse().unwrap(),
        vm: VmId(0),
        wait: WaitPolicy::BLOCK,
        receive: ReceivePath::Auto,
    };
    let (cpu_digest, guest_digest) = (digest, digest);
    let settings = Settings::new(Role::Primary, VmId(0), Term(1));
    let settings = Settings { cpu_digest, guest_digest, ..settings };
    let key = key_file::read(&wire.path("key")).unwrap();
    let mut link = LogLink::open(&options, settings, Security::Sealed(key)).unwrap();
    let mut sent = false;
    while !ended.load(Ordering::Relaxed) {
        link.receive().unwrap();
        while link.poll_event().is_some() {}
        if let Some(channel) = link.channel_mut()
            && !sent
        {
            channel.append(now(), Lane::Latency, bytes).unwrap();
            sent = true;
        }
        link.transmit().unwrap();
        link.wait(Some(now() + logchan::time::Duration::from_millis(20))).unwrap();
    }
}

/// Runs `understudy link` as the backup of a VM's primary.
fn backup_of_a_vm(digest: u64, bytes: &[u8]) -> Finished {
    let wire = Wire::up();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| wire.enter(Side::B, || primary_of_a_vm(&wire, digest, bytes, &ended)));
        let finished = wire.start(Side::A, Role::Backup, &["--wait", "60"]).finish();
        ended.store(true, Ordering::Relaxed);
        finished
    })
}

#[test]
fn link_as_backup_of_a_vm_is_refused() {
    let finished = backup_of_a_vm(0x1234_5678, b"");
    finished.failure(12, "the peer runs a VM, not 'understudy link'");
}

#[test]
fn foreign_entries_are_reported() {
    let mut entry = Vec::new();
    encode(&Entry::Interrupt { vector: 32 }, &mut entry);
    for bytes in [&entry[..], b"\xffno entry at all"] {
        let finished = backup_of_a_vm(u64::from_be_bytes(*b"ulinkrtt"), bytes);
        let result = finished.failure(13, "entry 0 was not sent by 'understudy link'");
        assert_eq!(result.expect("a result")["end"], "foreign_entry");
    }
}
