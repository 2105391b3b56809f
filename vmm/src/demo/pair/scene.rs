//! What a pair needs before its first process starts: a LAN, a key, a witness, a folder for sockets.

use super::member::Setup;
use super::network::{Host, Network};
use crate::demo::DemoError;
use crate::demo::guest::Guest;
use crate::demo::pace::{Measured, Pace};
use crate::link::key_file;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// The environment of a pair; removed on drop.
pub struct Scene {
    /// The LAN.
    pub network: Network,
    key: PathBuf,
    witness: PathBuf,
    folder: TempDir,
}

impl Scene {
    /// Creates the environment.
    ///
    /// # Errors
    ///
    /// If the folder, the key or the LAN can't be created.
    pub fn new() -> Result<Scene, DemoError> {
        let folder = tempfile::Builder::new().prefix("understudy-demo-").tempdir();
        let folder = folder.map_err(DemoError::client("making a temporary folder"))?;
        let (key, witness) = (folder.path().join("key"), folder.path().join("witness"));
        std::fs::create_dir(&witness).map_err(DemoError::client("making the witness's folder"))?;
        key_file::create(&key)
            .map_err(|error| DemoError::Wrong(format!("making a key: {error}")))?;
        Ok(Scene { network: Network::new()?, key, witness, folder })
    }

    /// Measures how fast `guest` is, with an unprotected VM of `program` on host A. `silence_ms` is the
    /// user's choice. `interrupted` ends the measurement early.
    ///
    /// # Errors
    ///
    /// If a VM or a client fails, or the host is too slow.
    pub fn pace(
        &self,
        program: &Path,
        (guest, silence_ms): (&Guest, Option<u64>),
        interrupted: &AtomicBool,
    ) -> Result<Pace, DemoError> {
        let namespaces = [self.network.host(Host::A), self.network.client()];
        let measured = Measured::on(program, guest, namespaces, interrupted)?;
        Pace::new(guest, measured, silence_ms)
    }

    /// Returns the settings of processes of `program`, with a sealed log link.
    pub fn setup<'a>(&'a self, program: &'a Path, guest: &'a Guest, silence_ms: u64) -> Setup<'a> {
        Setup {
            program,
            guest,
            network: &self.network,
            key: Some(&self.key),
            witness: &self.witness,
            sockets: self.folder.path(),
            silence_ms,
        }
    }
}
