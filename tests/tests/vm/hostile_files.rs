//! Files that somebody else prepared: inputs that never end, links and files planted at the path of an output,
//! snapshots that others can change. And nobody else can read what a VM writes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::program::{fails, run};

/// A folder in which everybody may create files, like `/tmp`.
struct PublicFolder {
    folder: tempfile::TempDir,
}

impl PublicFolder {
    fn new() -> PublicFolder {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        PublicFolder { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs a command as the user nobody.
    fn as_nobody(&self, command: &[&str]) {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(command);
        let output = nobody.current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}

/// Runs a command that must succeed.
fn succeeds(args: &[&str]) {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The commands that read a file, and their exit code if they can't.
const READERS: [(&[&str], i32); 8] = [
    (&["run", "--guest"], 5),
    (&["run", "--kernel"], 5),
    (&["run", "--restore"], 6),
    (&["replay"], 6),
    (&["log", "stat"], 6),
    (&["inspect"], 5),
    (&["primary", "--config"], 1),
    (
        &["link", "--interface", "lo", "--peer", "52:54:00:00:00:0b", "--role", "primary", "--key"],
        12,
    ),
];

#[test]
fn input_that_has_no_end_is_refused_at_once() {
    let folder = PublicFolder::new();
    let fifo = folder.name("fifo");
    // Nobody writes to it: opening it to read would wait for ever.
    nix::unistd::mkfifo(&folder.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (command, code) in READERS {
        for input in [fifo.as_str(), "/dev/zero"] {
            let what = if code == 12 { "is not a key" } else { "is not a regular file" };
            fails(&[command, &[input]].concat(), code, what);
        }
    }
}

#[test]
fn file_of_configuration_has_a_bound() {
    let folder = PublicFolder::new();
    fs::File::create(folder.path("long.toml")).unwrap().set_len(1 << 40).unwrap();
    fails(&["primary", "--config", &folder.name("long.toml")], 1, "is too long");
}

#[test]
fn what_a_vm_writes_is_for_its_owner_alone() {
    let folder = PublicFolder::new();
    let [snapshot, log, capture, stages] =
        ["s.snap", "run.ulog", "run.pcap", "stages"].map(|name| folder.name(name));
    let short = ["--for", "0.2", "--quiet"];
    succeeds(&[&["save", &snapshot], &short[..]].concat());
    let files = ["--log", &log, "--pcap", &capture, "--trace-stages", &stages];
    succeeds(&[&["record"], &files[..], &short[..]].concat());
    for name in ["s.snap", "run.ulog", "run.pcap", "stages"] {
        assert_eq!(mode(&folder.path(name)), 0o600, "{name}");
    }
    let shared = folder.name("shared.ulog");
    succeeds(&[&["record", "--log", &shared, "--shared-files"], &short[..]].concat());
    fs::write(folder.path("by umask"), "").unwrap();
    assert_eq!(mode(&folder.path("shared.ulog")), mode(&folder.path("by umask")));
}

#[test]
fn file_that_others_can_change_starts_no_machine_unless_it_is_trusted() {
    let folder = PublicFolder::new();
    let [snapshot, log] = ["s.snap", "run.ulog"].map(|name| folder.name(name));
    let short = ["--for", "0.2", "--quiet"];
    succeeds(&[&["save", &snapshot], &short[..]].concat());
    succeeds(&[&["record", "--log", &log], &short[..]].concat());
    let restore = ["run", "--restore", &snapshot, "--for", "0.2", "--quiet"];
    let replay = ["replay", &log];
    let refused = |what| {
        fails(&restore, 6, what);
        fails(&replay, 6, what);
    };
    for name in ["s.snap", "run.ulog"] {
        fs::set_permissions(folder.path(name), Permissions::from_mode(0o622)).unwrap();
    }
    refused("has mode 0622, so others can use it: 'chmod 600' it, or trust it with --shared-files");
    for name in ["s.snap", "run.ulog"] {
        fs::set_permissions(folder.path(name), Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(folder.path(name), Some(65534), None).unwrap();
    }
    refused("belongs to user 65534: 'chown 0' it, or trust it with --shared-files");
    succeeds(&[&restore[..], &["--shared-files"]].concat());
    succeeds(&[&replay[..], &["--shared-files"]].concat());
}

#[test]
fn planted_files_and_links_get_no_byte() {
    let folder = PublicFolder::new();
    fs::write(folder.path("victim"), "precious").unwrap();
    let victim = folder.name("victim");
    for name in ["s.snap.part", "link.pcap", "link.ulog"] {
        folder.as_nobody(&["ln", "-s", &victim, name]);
    }
    folder.as_nobody(&["touch", "theirs.ulog", "theirs.pcap"]);
    let short = ["--for", "0.2", "--quiet"];
    let [log, capture] = ["link.ulog", "link.pcap"].map(|name| folder.name(name));
    let link = "is a symbolic link: name the file itself";
    fails(&[&["run", "--pcap", &capture], &short[..]].concat(), 1, link);
    fails(&[&["record", "--force", "--log", &log], &short[..]].concat(), 6, link);
    fails(&[&["record", "--log", &log], &short[..]].concat(), 6, "exists already");

    let [log, capture] = ["theirs.ulog", "theirs.pcap"].map(|name| folder.name(name));
    let theirs = "belongs to user 65534: remove it, or name another file";
    fails(&[&["run", "--pcap", &capture], &short[..]].concat(), 1, theirs);
    fails(&[&["record", "--force", "--log", &log], &short[..]].concat(), 6, theirs);

    // The temporary file of a snapshot has a name that nobody can know.
    succeeds(&[&["save", &folder.name("s.snap")], &short[..]].concat());
    assert_eq!(fs::metadata(folder.path("s.snap")).unwrap().uid(), 0);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    let own = symlink(&victim, folder.path("own.pcap"));
    fails(&[&["run", "--pcap", &folder.name("own.pcap")], &short[..]].concat(), 1, link);
    assert!(own.is_ok() && fs::read(&victim).unwrap() == b"precious");
}
