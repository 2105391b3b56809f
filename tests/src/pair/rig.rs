//! [`Rig`].

use super::process::Process;
use crate::alone::{Turn, alone, together};
use crate::patience;
use crate::program::understudy;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use testbed::command;
use testbed::pair::{Host, Part, Scene, Setup};
use vmm::link::timing::SILENCE_MS_MAX;

/// Options of the two hosts of a rig.
#[derive(Clone, Copy, Debug)]
pub struct RigOptions {
    /// Silence timeout on a host of usual speed, milliseconds.
    pub silence_ms: u64,
    /// Whether the log is sent unsealed.
    pub is_insecure: bool,
    /// How many rigs may exist beside this one.
    pub turn: fn() -> Turn,
}

impl Default for RigOptions {
    /// For hosts that are killed or frozen: a busy host seldom is silent for this long.
    fn default() -> RigOptions {
        RigOptions { silence_ms: 1000, is_insecure: false, turn: together }
    }
}

impl RigOptions {
    /// For tests that do not test silence: no busy host is silent for this long.
    pub fn patient() -> RigOptions {
        RigOptions { silence_ms: 3000, ..RigOptions::default() }
    }
}

/// Two hosts, a client, a switch and a log link. A process has two rigs at a time, or one that is
/// [alone](Rig::alone); everything in a rig is removed on drop.
pub struct Rig {
    /// The LAN, the key, the witness.
    pub scene: Arc<Scene>,
    options: RigOptions,
    lives: AtomicU64,
    _turn: Turn,
}

impl Default for Rig {
    fn default() -> Rig {
        Rig::new(RigOptions::default())
    }
}

impl Rig {
    /// Creates a rig with [`RigOptions::patient`].
    pub fn patient() -> Rig {
        Rig::new(RigOptions::patient())
    }

    /// Creates a rig for a test that keeps the host busy or compares short times.
    pub fn alone() -> Rig {
        Rig::new(RigOptions { turn: alone, ..RigOptions::default() })
    }

    /// Creates a rig.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn new(options: RigOptions) -> Rig {
        let turn = (options.turn)();
        let scene = Scene::new(&understudy())
            .unwrap_or_else(|error| panic!("no LAN (run this as root): {error}"));
        Rig { scene, options, lives: AtomicU64::new(0), _turn: turn }
    }

    /// Returns the silence timeout on this host, milliseconds.
    pub fn silence_ms(&self) -> u64 {
        (self.options.silence_ms * patience::factor()).min(SILENCE_MS_MAX)
    }

    /// Returns the path of a file in the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    /// Starts a process.
    pub fn start(&self, part: Part, host: Host, options: &[&str]) -> Process {
        self.spawn(self.setup(), part, host, options)
    }

    /// Starts a process of `program`, which executes understudy.
    pub fn start_program(
        &self,
        program: &Path,
        part: Part,
        host: Host,
        options: &[&str],
    ) -> Process {
        self.spawn(Setup { program: program.into(), ..self.setup() }, part, host, options)
    }

    /// Like [`Rig::start`], with another key or none.
    pub fn start_with(
        &self,
        part: Part,
        host: Host,
        key: Option<&PathBuf>,
        options: &[&str],
    ) -> Process {
        self.spawn(Setup { key: key.cloned(), ..self.setup() }, part, host, options)
    }

    /// Starts a process whose standard streams are redirected in shell syntax, for example
    /// `2>/dev/full`.
    pub fn start_redirected(
        &self,
        part: Part,
        host: Host,
        options: &[&str],
        redirections: &str,
    ) -> Process {
        let script = self.path(&format!("redirected-{}.sh", self.lives.load(Ordering::Relaxed)));
        let program = understudy();
        let text = format!("#!/bin/sh\nexec '{}' \"$@\" {redirections}\n", program.display());
        std::fs::write(&script, text).expect("a script can be written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, executable).expect("it can be made executable");
        self.start_program(&script, part, host, options)
    }

    fn setup(&self) -> Setup {
        let mut setup = self.scene.setup(self.silence_ms());
        setup.key = setup.key.filter(|_| !self.options.is_insecure);
        setup
    }

    fn spawn(&self, mut setup: Setup, part: Part, host: Host, options: &[&str]) -> Process {
        setup.options[host.index()] = options.iter().copied().map(String::from).collect();
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        Process::spawn(&setup, part, host, life)
            .unwrap_or_else(|error| panic!("no process: {error}"))
    }

    /// Runs `ip` on a host.
    pub fn ip(&self, host: Host, arguments: &str) -> String {
        self.scene.network.host(host).ip(arguments).expect("ip works")
    }

    /// Returns the switch port on which the switch has learned the VM's MAC address, by the name in
    /// bridge(8).
    pub fn vm_port(&self) -> Option<String> {
        let switch = self.scene.network.switch().name();
        let table = command("bridge", &["-n", switch, "fdb", "show", "br", "br0"]);
        let table = table.expect("bridge works");
        let vm = vmm::devices::DEFAULT_MAC.to_string();
        let line = table.lines().find(|line| line.starts_with(&vm))?;
        line.split(' ').nth(2).map(String::from)
    }
}
