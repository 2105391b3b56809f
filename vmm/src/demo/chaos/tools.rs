//! What is prepared for the faults before the first process starts.

use super::super::pair::Progress;
use super::super::pair::running::Environment;
use super::witness;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testbed::pair::{Host, LogSwitch, Scene};
use testbed::{HOST_CIDR, TestbedError};

/// Number of files that are written to the witness's folder to measure it.
const CLAIMS_MEASURED: usize = 5;

/// What is prepared.
pub(super) struct Tools {
    /// A switch in the log link.
    pub(super) switch: LogSwitch,
    /// A script that runs the program on a host whose disk is full.
    pub(super) on_full_disk: PathBuf,
    /// The time that the storage of the witness needs for a claim, at most.
    pub(super) claim: Duration,
}

impl Tools {
    /// Prepares `environment`, in which no process of `program` runs yet. The processes write logs to the folder
    /// `logs`.
    ///
    /// # Errors
    ///
    /// If a command fails, or a file can't be made.
    pub(super) fn new(
        program: &Path,
        environment: &mut Environment,
        logs: &Path,
    ) -> Result<Tools, TestbedError> {
        let Environment { scene, setup, .. } = environment;
        let switch = LogSwitch::insert(&scene.network)?;
        let quoted = program.to_string_lossy().replace('\'', r"'\''");
        // As under nohup(1).
        let nohup = format!("trap '' HUP\nexec '{quoted}' \"$@\"");
        let full = format!("trap '' HUP\nexec '{quoted}' \"$@\" --pcap /dev/full 2>/dev/full");
        setup.program = script(scene, "understudy-nohup", &nohup)?;
        setup.logs = Some(logs.to_path_buf());
        for host in Host::ALL {
            let mount = witness::mount(scene, host)?;
            let client = HOST_CIDR.split('/').next().unwrap_or(HOST_CIDR);
            let options = ["--witness", &mount, "--probe", client];
            setup.options[host.index()].extend(options.map(String::from));
        }
        let claim = claim_time(&scene.witness());
        Ok(Tools {
            switch,
            on_full_disk: script(scene, "understudy-full-disk", &full)?,
            claim: claim.map_err(TestbedError::client("writing to the witness's folder"))?,
        })
    }
}

/// Creates an executable shell script in the folder of `scene`.
fn script(scene: &Scene, name: &str, text: &str) -> Result<PathBuf, TestbedError> {
    let path = scene.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(TestbedError::client(format!("writing {}", path.display())))?;
    Ok(path)
}

/// Returns the longest time that one of some claims would take in `folder`: a file is written, linked and synced.
fn claim_time(folder: &Path) -> io::Result<Duration> {
    let [draft, claim] = [".measured", ".measured-link"].map(|name| folder.join(name));
    let mut longest = Duration::ZERO;
    for _ in 0..CLAIMS_MEASURED {
        let begun = Instant::now();
        let mut file = File::create_new(&draft)?;
        file.write_all(b"claim")?;
        file.sync_all()?;
        fs::hard_link(&draft, &claim)?;
        File::open(folder)?.sync_all()?;
        longest = longest.max(begun.elapsed());
        fs::remove_file(&draft)?;
        fs::remove_file(&claim)?;
    }
    Ok(longest)
}

/// The folder for the logs of a run: one file for each process, and one with the progress. Removed on drop.
pub(super) struct Logs(TempDir);

impl Logs {
    /// Creates the folder for the run with this seed.
    ///
    /// # Errors
    ///
    /// If it can't be created.
    pub(super) fn new(seed: u64) -> Result<Logs, TestbedError> {
        let prefix = format!("understudy-chaos-{seed}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
        folder.map(Logs).map_err(TestbedError::client("making a folder for logs"))
    }

    /// Returns the path of the folder.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns a receiver of reports that writes them to a log and passes them on to `progress`.
    ///
    /// # Errors
    ///
    /// If the log can't be created.
    pub(super) fn recorder<'p>(
        &self,
        progress: &'p mut dyn Progress,
    ) -> Result<Recorder<'p>, TestbedError> {
        let log = File::create(self.path().join("progress.log"));
        Ok(Recorder { progress, log: log.map_err(TestbedError::client("creating a log"))? })
    }

    /// Keeps the folder, and returns its path.
    pub(super) fn keep(self) -> PathBuf {
        self.0.keep()
    }
}

/// Writes reports to a log and passes them on.
pub(super) struct Recorder<'p> {
    progress: &'p mut dyn Progress,
    log: File,
}

impl Progress for Recorder<'_> {
    fn message(&mut self, line: &str) {
        // The log is an aid after a failure; nothing depends on it.
        let now_ns = crate::link::now().as_nanos();
        let _ = self.log.write_all(format!("{now_ns} {line}\n").as_bytes());
        self.progress.message(line);
    }

    fn steps_done(&mut self, done: u32) {
        self.progress.steps_done(done);
    }

    fn sockets_in(&mut self, folder: &Path) {
        self.progress.sockets_in(folder);
    }
}
