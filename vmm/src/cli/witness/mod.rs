//! `understudy forget` and `understudy witness check`.

mod etcd;
mod options;

pub use options::WitnessArgs;

use super::doctor::table;
use super::exit_code::{CliError, Code};
use super::output;
use crate::boot::host_checks::{Check, Status};
use crate::kvm::clock::realtime_ns;
use crate::link::key_file;
use crate::witness::claim_file::ClaimFile;
use crate::witness::etcd::cluster::Cluster;
use crate::witness::file::{IDENTITY_FILE, WitnessError, claim_files, identity, read_claim};
use crate::witness::file_system::{FileSystem, Reach};
use crate::witness::folder::{Access, FileFault, probe};
use clap::{Args, Subcommand};
use logchan::claim::ClaimKey;
use logchan::ids::{Claimant, Term, VmId, WitnessId};
use options::{Place, random};
use replication::witness::NOBODY;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Subcommands of `witness`.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Check whether a folder or etcd can be the witness of a pair, and show the claims in it
    #[command(after_help = "\
Example: understudy witness check --witness /mnt/shared/understudy --key /etc/understudy.key

Makes no claim, and removes the files that it makes; in etcd it only reads. Run it on both hosts: they must
find the same identity.
It can't see whether the storage keeps its files after a power failure. Exits with code 3 if a check fails.")]
    Check(CheckArgs),
}

/// Options of `witness check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    witness: WitnessArgs,
    /// File with the pre-shared key of the pair; without it, claims are shown but not authenticated
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Show the claims of this VM only; needed with --key if pairs with other keys use the folder
    #[arg(long, value_name = "N")]
    vm_id: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Options of `forget`.
#[derive(Args, Debug)]
#[command(after_help = "\
The witness keeps the owner of the VM's newest term, so that nobody boots the VM while a host runs it. It is told when
the VM is stopped. It is not told when both hosts lose power, for example: then check that no host runs the VM, and use
this command, or start with 'understudy primary --boot-again'.")]
pub struct ForgetArgs {
    #[command(flatten)]
    witness: WitnessArgs,
    /// File with the pre-shared key of the pair
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "insecure",
        conflicts_with = "insecure"
    )]
    key: Option<PathBuf>,
    /// The pair runs with --insecure, without a key
    #[arg(long)]
    insecure: bool,
    /// Number of the VM
    #[arg(long, value_name = "N", default_value_t = 0)]
    vm_id: u64,
    /// No host runs the VM. A host that does stops it within seconds
    #[arg(long)]
    yes: bool,
}

/// Runs `understudy forget`.
///
/// # Errors
///
/// If it is not confirmed, the witness or the key can't be used, or standard output can't be written.
pub fn forget(args: &ForgetArgs) -> Result<(), CliError> {
    if !args.yes {
        let text =
            "a host that still runs this VM would stop it: check that no host does, and add --yes";
        return Err(CliError::Usage(text.into()));
    }
    let key = args.key.as_deref().map(key_file::read).transpose()?;
    let witness = args.witness.open(VmId(args.vm_id), key.map(|key| ClaimKey::derive(&key)))?;
    let term = witness.forget().map_err(|error| CliError::Usage(error.to_string()))?;
    output::write(&format!("VM {} can be booted: nobody runs it in term {term}\n", args.vm_id))
}

/// Runs a subcommand of `understudy witness`.
///
/// # Errors
///
/// If a check fails, the key can't be read, or standard output can't be written.
pub fn main(command: &WitnessCommand) -> Result<(), CliError> {
    let WitnessCommand::Check(args) = command;
    let key = args.key.as_deref().map(key_file::read).transpose()?;
    let key = key.map(|key| ClaimKey::derive(&key));
    let vm = args.vm_id.map(VmId);
    let report = match args.witness.place()? {
        Place::Folder(folder) => {
            Report::of(&Question { folder: &folder, key, vm, name: Claimant(random()?) })
        }
        Place::Etcd(address, credentials) => {
            Report::of_etcd(&Cluster::new(address, credentials), key.as_ref(), vm)
        }
    };
    let printed = output::write(&match args.json {
        true => output::json_line(report.json()),
        false => table(&report.checks),
    });
    let verdict = if report.is_usable() { Ok(()) } else { Err(CliError::Silent(Code::Host)) };
    output::after_print(printed, verdict)
}

/// What to check.
struct Question<'a> {
    folder: &'a Path,
    /// Authenticates claims.
    key: Option<ClaimKey>,
    /// The VM whose claims are shown; `None`: all.
    vm: Option<VmId>,
    /// For temporary files: no other process has it.
    name: Claimant,
}

/// What was found.
#[derive(Debug, Default)]
struct Report {
    checks: Vec<Check>,
    file_system: Option<FileSystem>,
    identity: Option<WitnessId>,
    claims: Vec<Value>,
}

impl Report {
    fn of(question: &Question) -> Report {
        let mut report = Report::default();
        let folder = question.folder;
        let is_folder = |metadata: Metadata| match metadata.is_dir() {
            true => Ok(metadata),
            false => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        };
        let metadata = match fs::metadata(folder).and_then(is_folder) {
            Ok(metadata) => metadata,
            Err(error) => {
                let mend = "mount the shared storage, or make the folder there";
                report.add("folder", Status::Fail, found(folder, &error), Some(mend));
                return report;
            }
        };
        report.add("folder", Status::Ok, folder.display().to_string(), None);
        match FileSystem::of(folder) {
            Ok(file_system) => report.reach(file_system),
            Err(error) => report.add("reach", Status::Fail, found(folder, &error), None),
        }
        report.one_winner(probe(folder, question.name));
        report.access(Access::of(&metadata));
        match newest_claims(question) {
            Ok(newest) => {
                report.identity(identity(folder), !newest.is_empty());
                report.terms(question, newest);
            }
            Err(error) => report.add("terms", Status::Fail, error.to_string(), None),
        }
        report
    }

    fn add(&mut self, name: &'static str, status: Status, found: String, mend: Option<&str>) {
        self.checks.push(Check { name, status, found, mend: mend.map(str::to_string) });
    }

    /// Whether no check failed.
    fn is_usable(&self) -> bool {
        self.checks.iter().all(|check| check.status != Status::Fail)
    }

    /// Says which hosts reach the folder.
    fn reach(&mut self, file_system: FileSystem) {
        let other = Some("use storage that both hosts mount, for example NFS");
        let (status, text, mend) = match file_system.reach {
            Reach::Shared => (Status::Ok, "every host that mounts it reaches it", None),
            Reach::Local => {
                (Status::Warn, "only this host reaches it, unless this host exports it", other)
            }
            Reach::Volatile => {
                let text = "only this host reaches it, and its claims are gone after a restart";
                (Status::Warn, text, other)
            }
            Reach::Unknown => (
                Status::Warn,
                "its type does not say whether another host reaches it",
                Some("run this command on both hosts, and compare the identity"),
            ),
        };
        self.add("reach", status, format!("{}: {text}", file_system.name), mend);
        self.file_system = Some(file_system);
    }

    /// Says whether only one host can win a term.
    fn one_winner(&mut self, probed: Result<Metadata, FileFault>) {
        let name = "one winner";
        match probed {
            Ok(made) => {
                let text = "a hard link can be made, and does not replace a file";
                self.add(name, Status::Ok, text.to_string(), None);
                self.clock(&made);
            }
            Err(fault) => self.add(name, Status::Fail, format!("a claim {fault}"), None),
        }
    }

    /// Says who can take claims away.
    fn access(&mut self, access: Access) {
        let (status, mend) = match access {
            Access::Private => (Status::Ok, None),
            Access::Shared { .. } => (Status::Warn, Some("let only trusted users write to it")),
            Access::Open { .. } => (Status::Fail, Some("chmod o-w")),
        };
        self.add("access", status, access.to_string(), mend);
    }

    /// Compares the clock of a server with this host's, by the time of a file that was just `made`.
    fn clock(&mut self, made: &Metadata) {
        if self.file_system.as_ref().is_none_or(|found| found.reach != Reach::Shared) {
            return;
        }
        let server_ms = made.mtime() * 1000 + made.mtime_nsec() / 1_000_000;
        let ahead_ms = server_ms - (realtime_ns() / 1_000_000) as i64;
        let text =
            format!("the server's is {ahead_ms} ms ahead of this host's; nothing depends on it");
        self.add("clock", Status::Ok, text, None);
    }

    /// Says which witness it is.
    fn identity(&mut self, found: Result<Option<WitnessId>, impl Display>, has_claims: bool) {
        let (status, text) = match (found, has_claims) {
            (Ok(Some(id)), _) => {
                self.identity = Some(id);
                (Status::Ok, id.to_string())
            }
            (Ok(None), false) => {
                let text = "none: the first host of a pair that uses the witness gives it one";
                (Status::Ok, text.to_string())
            }
            (Ok(None), true) => {
                (Status::Fail, format!("there are claims, but {IDENTITY_FILE} is gone: restore it"))
            }
            (Err(error), _) => (Status::Fail, error.to_string()),
        };
        self.add("identity", status, text, None);
    }

    fn no_terms(&mut self) {
        self.add("terms", Status::Ok, String::from("no VM has a claim here"), None);
    }

    /// Says to whom the `newest` term of each VM belongs.
    fn terms(&mut self, question: &Question, newest: BTreeMap<VmId, Term>) {
        if newest.is_empty() {
            self.no_terms();
        }
        for (vm, term) in newest {
            match read_claim(question.folder, vm, term) {
                Ok(Some(file)) => self.term(question.key.as_ref(), (vm, term), &file),
                // It was removed meanwhile.
                Ok(None) => {}
                Err(error) => self.add("terms", Status::Fail, error.to_string(), None),
            }
        }
    }

    fn term(&mut self, key: Option<&ClaimKey>, (vm, term): (VmId, Term), file: &ClaimFile) {
        // The tag covers the identity.
        let keyed = key.zip(self.identity);
        let owner = keyed.map(|(key, witness)| file.owner((witness, vm, term), Some(key)));
        let (claimant, host) = (file.claimant, &file.host);
        let claim = match claimant {
            NOBODY => format!("VM {vm}: nobody runs it since term {term}, says host {host}"),
            _ => format!("VM {vm}: term {term} belongs to {claimant} on host {host}"),
        };
        let (status, text) = match (&owner, key) {
            (Some(Ok(_claimant)), _) => (Status::Ok, claim),
            (Some(Err(fault)), _) => {
                (Status::Fail, format!("VM {vm}: the claim of term {term} {fault}"))
            }
            (None, Some(_)) => (Status::Ok, format!("{claim} (not authenticated: no identity)")),
            (None, None) => (Status::Ok, format!("{claim} (not authenticated: give --key)")),
        };
        self.add("terms", status, text, None);
        self.claims.push(json!({
            "vm": vm.0,
            "term": term.0,
            "claimant": claimant.to_string(),
            "host": host,
            "authentic": owner.map(|result| result.is_ok()),
        }));
    }

    fn json(&self) -> Map<String, Value> {
        let file_system = self.file_system.as_ref().map(|found| &found.name);
        let fields = [
            ("usable", self.is_usable().into()),
            ("checks", json!(self.checks)),
            ("file_system", json!(file_system)),
            ("identity", json!(self.identity.map(|id| id.to_string()))),
            ("claims", json!(self.claims)),
        ];
        fields.map(|(name, value)| (name.into(), value)).into_iter().collect()
    }
}

/// Returns the newest term of each VM that has a claim file, valid or not.
fn newest_claims(question: &Question) -> Result<BTreeMap<VmId, Term>, WitnessError> {
    let mut newest = BTreeMap::<VmId, Term>::new();
    for file in claim_files(question.folder)? {
        let (vm, term) = file?;
        if question.vm.is_none_or(|shown| shown == vm) {
            newest.entry(vm).and_modify(|newest| *newest = term.max(*newest)).or_insert(term);
        }
    }
    Ok(newest)
}

fn found(folder: &Path, error: &io::Error) -> String {
    format!("{}: {error}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::{FileWitness, WitnessConfig};
    use logchan::handshake::PresharedKey;
    use std::os::unix::fs::PermissionsExt;

    fn key(byte: u8) -> Option<ClaimKey> {
        Some(ClaimKey::derive(&PresharedKey::from_bytes(&[byte; 32]).unwrap()))
    }

    /// Lets a host of a pair with `key` win term 1 of `vm`.
    fn claim(folder: &Path, key: Option<ClaimKey>, vm: u64) {
        let (claimant, host) = (Claimant(0xa), String::from("host"));
        let config = WitnessConfig { vm: VmId(vm), key, claimant, host };
        let witness = FileWitness::open(folder.to_path_buf(), config, WitnessId(5)).unwrap();
        assert!(witness.claim(Term(1), None).unwrap());
    }

    fn report(folder: &Path, key: Option<ClaimKey>, vm: Option<u64>) -> Report {
        Report::of(&Question { folder, key, vm: vm.map(VmId), name: Claimant(1) })
    }

    /// Requires one check called `name` with `status` and `text`.
    fn says(report: &Report, name: &str, status: Status, text: &str) {
        let matches = |check: &&Check| {
            check.name == name && check.status == status && check.found.contains(text)
        };
        let count = report.checks.iter().filter(matches).count();
        assert_eq!(count, 1, "{name}, {status:?}, {text}: {:?}", report.checks);
        assert_eq!(report.is_usable(), report.json()["usable"]);
        assert!(status != Status::Fail || !report.is_usable());
    }

    #[test]
    fn folder_missing_or_file_fails() {
        let folder = tempfile::tempdir().unwrap();
        let missing = report(&folder.path().join("gone"), None, None);
        says(&missing, "folder", Status::Fail, "No such file");
        assert_eq!(missing.checks.len(), 1);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        says(&report(&file, None, None), "folder", Status::Fail, "not a directory");
    }

    #[test]
    fn empty_folder_is_usable_and_stays_empty() {
        let folder = tempfile::tempdir().unwrap();
        let empty = report(folder.path(), None, None);
        says(&empty, "one winner", Status::Ok, "does not replace");
        says(&empty, "access", Status::Ok, "only root and this user");
        says(&empty, "identity", Status::Ok, "none");
        says(&empty, "terms", Status::Ok, "no VM");
        assert!(empty.is_usable() && fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn reach_of_each_kind_of_file_system() {
        let cases = [
            (Reach::Shared, Status::Ok, "x: every host"),
            (Reach::Local, Status::Warn, "x: only this host"),
            (Reach::Volatile, Status::Warn, "gone after a restart"),
            (Reach::Unknown, Status::Warn, "does not say"),
        ];
        for (reach, status, text) in cases {
            let mut report = Report::default();
            report.reach(FileSystem { name: String::from("x"), reach });
            says(&report, "reach", status, text);
            assert_eq!(report.json()["file_system"], "x");
            // A server's clock is compared.
            let metadata = fs::metadata("/").unwrap();
            report.one_winner(Ok(metadata));
            let clocks = report.checks.iter().filter(|check| check.name == "clock").count();
            assert_eq!(clocks, usize::from(reach == Reach::Shared), "{reach:?}");
        }
    }

    #[test]
    fn one_winner_fails_with_each_reason() {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let cases = [
            (FileFault::Io(refused()), "a claim can't be read or made"),
            (FileFault::NoHardLinks(refused()), "makes no hard links"),
            (FileFault::NotExclusive, "replaces a file"),
        ];
        for (fault, text) in cases {
            let mut report = Report::default();
            report.one_winner(Err(fault));
            says(&report, "one winner", Status::Fail, text);
        }
    }

    #[test]
    fn access_of_each_mode() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            (0o700, Status::Ok, "only root"),
            (0o770, Status::Warn, "mode 0770"),
            (0o1777, Status::Warn, "mode 1777"),
            (0o777, Status::Fail, "mode 0777"),
        ];
        for (mode, status, text) in cases {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            says(&report(folder.path(), None, None), "access", status, text);
        }
    }

    #[test]
    fn identity_found_gone_and_invalid() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), key(1), 7);
        let with_identity = report(folder.path(), key(1), None);
        says(&with_identity, "identity", Status::Ok, "0000000000000005");
        assert_eq!(with_identity.json()["identity"], "0000000000000005");
        fs::remove_file(folder.path().join(IDENTITY_FILE)).unwrap();
        let gone = report(folder.path(), key(1), None);
        says(&gone, "identity", Status::Fail, "is gone: restore it");
        says(&gone, "terms", Status::Ok, "not authenticated: no identity");
        fs::write(folder.path().join(IDENTITY_FILE), "x").unwrap();
        let invalid = report(folder.path(), key(1), None);
        says(&invalid, "identity", Status::Fail, "does not contain an identity");
    }

    #[test]
    fn terms_of_authentic_foreign_and_invalid_claims() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), key(1), 7);
        claim(folder.path(), key(2), 8);
        let all = report(folder.path(), None, None);
        for vm in [7, 8] {
            let text = format!("VM {vm}: term 1 belongs to 000000000000000a on host host (not");
            says(&all, "terms", Status::Ok, &text);
        }
        assert!(all.json()["claims"][1]["authentic"].is_null() && all.is_usable());
        let both = report(folder.path(), key(1), None);
        says(&both, "terms", Status::Ok, "VM 7: term 1 belongs to");
        says(&both, "terms", Status::Fail, "VM 8: the claim of term 1 does not authenticate");
        let ours = report(folder.path(), key(1), Some(7));
        let claims = &ours.json()["claims"];
        assert!(ours.is_usable() && claims.as_array().unwrap().len() == 1, "{claims}");
        assert_eq!(claims[0]["authentic"], true);
        fs::write(folder.path().join("vm-7.term-3"), "mallory\n").unwrap();
        says(
            &report(folder.path(), None, None),
            "terms",
            Status::Fail,
            "vm-7.term-3 is not a claim",
        );
    }
}
