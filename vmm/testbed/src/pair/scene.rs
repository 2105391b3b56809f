//! What a pair needs before its first process starts: a LAN, a key, a witness, a folder for sockets.

use super::network::{Host, Network};
use super::vm::PairVm;
use crate::pace::{Measured, Pace};
use crate::{Guest, TestbedError, command};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// The environment of a pair; removed on drop.
#[derive(Debug)]
pub struct Scene {
    /// The LAN.
    pub network: Network,
    program: PathBuf,
    folder: TempDir,
}

impl Scene {
    /// Creates the environment of processes of `program`.
    ///
    /// # Errors
    ///
    /// If the folder, the key or the LAN can't be created.
    pub fn new(program: &Path) -> Result<Arc<Scene>, TestbedError> {
        let folder = tempfile::Builder::new().prefix("understudy-pair-").tempdir();
        let folder = folder.map_err(TestbedError::client("making a temporary folder"))?;
        let scene = Scene { network: Network::new()?, program: program.into(), folder };
        std::fs::create_dir(scene.witness())
            .map_err(TestbedError::client("making the witness's folder"))?;
        command(&program.to_string_lossy(), &["key", &scene.key().to_string_lossy()])?;
        Ok(Arc::new(scene))
    }

    /// Returns the scene's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of a file in the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the key file of the log link.
    pub fn key(&self) -> PathBuf {
        self.path("key")
    }

    /// Returns the folder of the witness.
    pub fn witness(&self) -> PathBuf {
        self.path("witness")
    }

    /// Measures how fast `guest` is, with an unprotected VM on host A. `command` is as in [`Measured::on`],
    /// `silence_ms` is the user's choice. `interrupted` ends the measurement early.
    ///
    /// # Errors
    ///
    /// If a VM or a client fails, or the host is too slow.
    pub fn pace(
        &self,
        (guest, command): (&Guest, &[&str]),
        silence_ms: Option<u64>,
        interrupted: &AtomicBool,
    ) -> Result<Pace, TestbedError> {
        let namespaces = [self.network.host(Host::A), self.network.client()];
        let measured = Measured::on(&self.program, (guest, command), namespaces, interrupted)?;
        Pace::new(guest, measured, silence_ms)
    }

    /// Returns the settings of processes with the reference guest, a sealed log link and no other options.
    pub fn setup(self: &Arc<Scene>, silence_ms: u64) -> Setup {
        Setup {
            program: self.program.clone(),
            guest: Guest::Reference,
            vm: PairVm::default(),
            scene: Arc::clone(self),
            key: Some(self.key()),
            silence_ms,
            options: Default::default(),
            logs: None,
        }
    }
}

/// Settings of the processes of a pair.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Executable that runs as `understudy`.
    pub program: PathBuf,
    /// Guest of the VM.
    pub guest: Guest,
    /// The VM.
    pub vm: PairVm,
    /// The environment.
    pub scene: Arc<Scene>,
    /// Key file of the log link. Without one the log is not encrypted.
    pub key: Option<PathBuf>,
    /// Silence timeout in milliseconds.
    pub silence_ms: u64,
    /// Additional options of processes on host A and on host B.
    pub options: [Vec<String>; 2],
    /// Folder for the logs of the processes, each with all that the process printed.
    pub logs: Option<PathBuf>,
}
