//! Runs `understudy demo` and checks what must hold with every guest.

use crate::alone;
use crate::program::{json, understudy};
use crate::schema;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Returns the command `understudy demo` with temporary files in `folder`. It resets the signals to
/// their defaults, because tests that run in the background may inherit ignored ones.
pub fn demo(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,HUP").arg(understudy());
    command.arg("demo").args(args).env("TMPDIR", folder);
    command
}

/// The JSON result of a demonstration.
pub struct Figures(Value);

impl Figures {
    /// Runs a demonstration with `args` while no other test runs, and checks that it leaves nothing
    /// behind.
    ///
    /// # Panics
    ///
    /// If it fails or leaves something behind.
    #[expect(clippy::print_stdout, reason = "the test harness takes it")]
    pub fn of(args: &[&str]) -> Figures {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let demo = demo(folder.path(), &[args, &["--json"]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("understudy starts");
        let pid = demo.id();
        let output = demo.wait_with_output().expect("it ends");
        let [progress, stdout] =
            [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes));
        println!("{progress}{stdout}");
        assert!(output.status.success(), "{}", output.status);
        nothing_is_left(pid, folder.path());
        let figures = json(&stdout);
        let schema = match args {
            _ if args.contains(&"--chaos") => "demo-chaos",
            _ if args.contains(&"--vms") => "demo-many",
            _ => "demo",
        };
        schema::fits(schema, std::slice::from_ref(&figures));
        Figures(figures)
    }

    /// Returns the number at a JSON pointer.
    ///
    /// # Panics
    ///
    /// If there is no number.
    pub fn number(&self, pointer: &str) -> f64 {
        let value = self.0.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {pointer} in {}", self.0))
    }

    /// Returns whether nothing or null is at `pointer`.
    pub fn has_none(&self, pointer: &str) -> bool {
        self.0.pointer(pointer).is_none_or(Value::is_null)
    }

    /// Checks that each of `kills` kills led to a completed failover, and that clients saw nothing
    /// worse than a pause. `probe` is the section of the client that probes for outages.
    ///
    /// # Panics
    ///
    /// If a check fails.
    pub fn check_failovers(&self, kills: f64, probe: &str) {
        assert_eq!(self.number("/kills"), kills);
        assert_eq!(self.number("/completed_failovers"), kills);
        self.check_clients(probe);
        for gap in ["/outage_ms", "/tcp_gap_ms"] {
            let [p50, p99, max] =
                ["p50", "p99", "max"].map(|of| self.number(&format!("{gap}/{of}")));
            assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{gap}");
        }
        for figure in ["/detect_ms/p99", "/golive_ms/p99", "/sync_pause_ms/max"] {
            assert!(self.number(figure) > 0.0, "{figure}");
        }
    }

    /// Checks that clients saw nothing worse than a pause; `probe` is as in
    /// [`check_failovers`](Self::check_failovers).
    ///
    /// # Panics
    ///
    /// If a check fails.
    pub fn check_clients(&self, probe: &str) {
        let never = [
            "/tcp/lost",
            "/tcp/repeated",
            "/tcp/resets",
            &format!("/{probe}/wrong"),
            "/failed_clients",
            "/divergences",
            "/double_live",
        ];
        for pointer in never {
            assert_eq!(self.number(pointer), 0.0, "{pointer}");
        }
        // Every client was active.
        let probes = format!("/{probe}/sent");
        let some = ["/tcp/requests", &probes, "/ping/sent", "/echo/transfers", "/http/pages"];
        for pointer in some {
            assert!(self.number(pointer) > 0.0, "{pointer}");
        }
        assert!(self.number("/lan/frames") > self.number("/tcp/requests"));
        // The measured pace that timeouts are derived from.
        for figure in ["start_ms", "answer_ms", "answers", "slowness", "patience_s"] {
            assert!(self.number(&format!("/pace/{figure}")) > 0.0, "{figure}");
        }
        assert_eq!(self.number("/pace/silence_ms"), self.number("/silence_ms"));
        assert!(self.number("/seed") >= 0.0);
    }
}

/// Checks that demonstration `pid`, whose temporary files were in `folder`, left no namespace, file or
/// process behind.
///
/// # Panics
///
/// If something is left.
pub fn nothing_is_left(pid: u32, folder: &Path) {
    let names = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let prefix = format!("understudy-{pid}-");
    let mut namespaces = names(Path::new("/run/netns"));
    namespaces.retain(|name| name.starts_with(&prefix));
    assert_eq!(namespaces, [""; 0]);
    assert_eq!(names(folder), [""; 0]);
    // The command line of each process of the pair contains the folder; ping's contains the VM's
    // address.
    let folder = folder.to_string_lossy();
    for process in names(Path::new("/proc")).iter().filter(|name| name.parse::<u32>().is_ok()) {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(&*folder), "process {process} is left: {line}");
    }
}
