//! What a pair needs before its first process: a LAN, a key, a witness, a place for sockets.

use super::member::Setup;
use super::network::{Host, Network};
use crate::demo::DemoError;
use crate::demo::guest::Guest;
use crate::demo::pace::{Measured, Pace};
use crate::link::key_file;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// All of it; removed on drop.
pub struct Scene {
    /// The LAN.
    pub network: Network,
    key: PathBuf,
    witness: PathBuf,
    folder: TempDir,
}

impl Scene {
    /// Makes it.
    pub fn new() -> Result<Scene, DemoError> {
        let folder = tempfile::Builder::new().prefix("understudy-demo-").tempdir();
        let folder = folder.map_err(DemoError::client("making a temporary folder"))?;
        let (key, witness) = (folder.path().join("key"), folder.path().join("witness"));
        std::fs::create_dir(&witness).map_err(DemoError::client("making the witness's folder"))?;
        key_file::create(&key)
            .map_err(|error| DemoError::Wrong(format!("making a key: {error}")))?;
        Ok(Scene { network: Network::new()?, key, witness, folder })
    }

    /// How fast `guest` is here, with a VM made of `program` on host A that nobody protects. `silence_ms` is what
    /// the user asked for. `interrupted` ends it early.
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

    /// What processes made of `program` are told, for a sealed log link.
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
