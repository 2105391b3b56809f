//! Options that say which witness a command uses.

use crate::cli::exit_code::CliError;
use crate::kvm::entropy;
use crate::stdio;
use crate::witness::etcd::{CredentialFiles, Credentials, EtcdAddress, EtcdWitness};
use crate::witness::{FileWitness, Witness, WitnessConfig};
use clap::Args;
use logchan::claim::ClaimKey;
use logchan::ids::{Claimant, VmId, WitnessId};
use std::path::PathBuf;

/// Which witness, and what a host shows to it.
#[derive(Args, Clone, Debug)]
pub struct WitnessArgs {
    /// Decides which host continues when they lose contact: a folder on storage that both hosts reach, or keys of etcd
    /// (etcd://HOST:PORT[,HOST:PORT...]/PREFIX, with TLS etcds://)
    #[arg(long, value_name = "DIR|URL")]
    witness: PathBuf,
    /// Certificates of the authorities that signed those of the etcd servers, PEM
    #[arg(long, value_name = "FILE")]
    witness_ca: Option<PathBuf>,
    /// This host's certificate for the etcd servers, PEM
    #[arg(long, value_name = "FILE", requires = "witness_key")]
    witness_cert: Option<PathBuf>,
    /// Key of this host's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "witness_cert")]
    witness_key: Option<PathBuf>,
    /// File with one line USER:PASSWORD, a user of etcd
    #[arg(long, value_name = "FILE")]
    witness_password_file: Option<PathBuf>,
}

/// Where a witness is.
#[derive(Debug)]
pub(super) enum Place {
    /// A folder.
    Folder(PathBuf),
    /// Keys of etcd.
    Etcd(EtcdAddress, Credentials),
}

impl WitnessArgs {
    /// Reads the credentials, if the witness is in etcd.
    pub(super) fn place(&self) -> Result<Place, CliError> {
        let usage = |error: &dyn std::error::Error| CliError::Usage(error.to_string());
        let files = CredentialFiles {
            authority: self.witness_ca.clone(),
            certificate: self.witness_cert.clone(),
            key: self.witness_key.clone(),
            password: self.witness_password_file.clone(),
        };
        let address = self.witness.to_str().map(EtcdAddress::parse);
        match address.transpose().map_err(|error| usage(&error))?.flatten() {
            Some(address) => {
                let credentials = Credentials::read(&files, address.is_tls());
                Ok(Place::Etcd(address, credentials.map_err(|error| usage(&error))?))
            }
            None if files.is_empty() => Ok(Place::Folder(self.witness.clone())),
            None => Err(CliError::Usage(
                "--witness-ca, --witness-cert, --witness-key and --witness-password-file need a witness in etcd".into(),
            )),
        }
    }

    /// Opens the witness for `vm` of the pair with `key`, with a claimant name that no other run of any process has.
    ///
    /// # Errors
    ///
    /// The options or files are invalid, or the witness can't be used.
    pub fn open(&self, vm: VmId, key: Option<ClaimKey>) -> Result<Witness, CliError> {
        let config = WitnessConfig {
            vm,
            key,
            claimant: Claimant(random()?),
            host: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let identity = WitnessId(random()?);
        let usage = |error: String| CliError::Usage(error);
        let witness = match self.place()? {
            Place::Folder(folder) => FileWitness::open(folder, config, identity)
                .map(Witness::Folder)
                .map_err(|error| usage(error.to_string()))?,
            Place::Etcd(address, credentials) => {
                EtcdWitness::open((address, credentials), config, identity)
                    .map(Witness::Etcd)
                    .map_err(|error| usage(error.to_string()))?
            }
        };
        Ok(witness)
    }

    /// Opens the witness like [`open`](Self::open), and prints its warning.
    ///
    /// # Errors
    ///
    /// As those of [`open`](Self::open).
    pub fn open_with_warning(&self, vm: VmId, key: Option<ClaimKey>) -> Result<Witness, CliError> {
        let witness = self.open(vm, key)?;
        if let Some(warning) = witness.warning() {
            stdio::warning(format_args!("understudy: WARNING: {warning}"));
        }
        Ok(witness)
    }
}

/// Returns a random number other than 0, which means "none".
pub(super) fn random() -> Result<u64, CliError> {
    let mut bytes = [0; 8];
    entropy::fill(&mut bytes).map_err(|source| CliError::Os { doing: "getrandom", source })?;
    Ok(u64::from_le_bytes(bytes).max(1))
}
