//! Claims as files in a folder that both hosts reach: on a shared file system, or on any other storage on
//! which only one host succeeds in making a hard link.
//!
//! | file | contents |
//! |---|---|
//! | `understudy-witness` | identity of the witness: 64 random bits, in hexadecimal |
//! | `vm-<id>.term-<n>` | owner of term `n` of the VM: the claimant, and its host's name |
//!
//! A file appears completely or not at all. Its content is written to a temporary file of the process and
//! synced. The temporary file is then hard-linked to the final name, which fails if the name exists
//! (link(2)). This is atomic over NFS as well, where an exclusive create need not be.
//!
//! The folder can be a different one than the two hosts agreed on: the empty mount point of storage that is
//! not mounted, or storage that lost files. In such a folder, both hosts could win the same term. So a claim
//! is answered only if the folder has the identity that it had at the start, and only if the owner of the
//! term before is the one that the pair knows. In every other case there is no answer.

use crate::limits::WITNESS_FILE_BYTES_MAX;
use logchan::ids::{Claimant, Term, VmId, WitnessId};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file that holds the identity of a witness.
const IDENTITY_FILE: &str = "understudy-witness";

/// A witness in a folder.
#[derive(Clone, Debug)]
pub struct FileWitness {
    folder: PathBuf,
    id: WitnessId,
    vm: VmId,
    /// Identifies this run of this process; no other run and no other process has it.
    claimant: Claimant,
    /// Host name, for people who read the folder.
    host: String,
}

/// Why a witness can't be used, or has no answer.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The folder can't be used at the start.
    #[error("witness {}: {source}: give a folder on storage that both hosts reach", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A file in the folder can't be read or written.
    #[error("witness {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The identity file does not contain an identity.
    #[error("witness {}: {IDENTITY_FILE} does not contain an identity: restore it, or give a new folder to both hosts", folder.display())]
    NoIdentity {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has another identity than at the start.
    #[error(
        "witness {}: its identity was {ours} at the start and is {} now: mount the shared storage again",
        folder.display(), found.map_or_else(|| "gone".to_string(), |found| found.to_string())
    )]
    OtherFolder {
        /// The folder.
        folder: PathBuf,
        /// The identity at the start.
        ours: WitnessId,
        /// The identity now, if there is one.
        found: Option<WitnessId>,
    },
    /// The claim of the term before is missing, or has another owner.
    #[error(
        "witness {}: term {term} of VM {vm} has {}, but the pair knows {expected} as its owner: restore the claim files",
        folder.display(), found.map_or_else(|| "no owner".to_string(), |found| format!("the owner {found}"))
    )]
    OtherOwner {
        /// The folder.
        folder: PathBuf,
        /// The VM.
        vm: VmId,
        /// The term before the one that was claimed.
        term: Term,
        /// Its owner, as the pair knows it.
        expected: Claimant,
        /// Its owner in the folder.
        found: Option<Claimant>,
    },
}

impl FileWitness {
    /// Opens the witness in `folder` for `vm`. Gives the folder an identity if it has none.
    ///
    /// `claimant` must identify this run of this process: no other process and no other run may ever have it.
    /// `host` is the host's name, for people. `random` becomes the identity of a folder that has none.
    ///
    /// # Errors
    ///
    /// The folder does not exist, can't be written, or its identity can't be read.
    pub fn open(
        folder: &Path,
        vm: VmId,
        (claimant, host): (Claimant, String),
        random: WitnessId,
    ) -> Result<FileWitness, WitnessError> {
        let error = |source| WitnessError::Folder { folder: folder.to_path_buf(), source };
        if !fs::metadata(folder).map_err(error)?.is_dir() {
            return Err(error(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let folder = folder.to_path_buf();
        let mut witness = FileWitness { folder, id: random, vm, claimant, host };
        let path = witness.folder.join(IDENTITY_FILE);
        if read(&path).map_err(error)?.is_none() {
            // Another process may have written it first. The file that is there afterwards is read below.
            witness.publish(&path, &format!("{random}\n")).map_err(error)?;
        }
        witness.id = witness.identity()?.ok_or_else(|| witness.no_identity())?;
        Ok(witness)
    }

    /// Returns the identity of this witness.
    pub fn id(&self) -> WitnessId {
        self.id
    }

    /// Returns the name under which this process makes its claims.
    pub fn claimant(&self) -> Claimant {
        self.claimant
    }

    /// Claims `term` for this process, and returns whether this process owns it, by this claim or by an
    /// earlier one. `previous` must own the term before; `None` for the term in which the VM is booted.
    /// After an error the claim may or may not have been made; claim again.
    ///
    /// # Errors
    ///
    /// There is no answer: the folder can't be reached, is a different one than at the start, or does not
    /// have the required claim of the term before.
    pub fn claim(&self, term: Term, previous: Option<Claimant>) -> Result<bool, WitnessError> {
        self.check_identity()?;
        let error = |source| WitnessError::Io { folder: self.folder.clone(), source };
        // The claim file of this term may have been removed. A newer claim shows that the term is over.
        if self.newest().map_err(error)? > Some(term) {
            return Ok(false);
        }
        let path = self.path(term);
        if let Some(owner) = self.owner(term).map_err(error)? {
            return Ok(owner == self.claimant);
        }
        if let Some(expected) = previous {
            let term = Term(term.0 - 1);
            let found = self.owner(term).map_err(error)?;
            if found != Some(expected) {
                let (folder, vm) = (self.folder.clone(), self.vm);
                return Err(WitnessError::OtherOwner { folder, vm, term, expected, found });
            }
        }
        self.publish(&path, &format!("{} {}\n", self.claimant, self.host)).map_err(error)?;
        let owner = self.owner(term).map_err(error)?;
        let owner = owner.ok_or_else(|| error(io::Error::from(io::ErrorKind::NotFound)))?;
        Ok(owner == self.claimant)
    }

    /// Returns the newest term that was claimed, if any.
    ///
    /// # Errors
    ///
    /// The folder can't be read.
    pub fn newest(&self) -> io::Result<Option<Term>> {
        let prefix = format!("vm-{}.term-", self.vm);
        let mut newest = None;
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let term = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse().ok());
            newest = newest.max(term.map(Term));
        }
        Ok(newest)
    }

    fn path(&self, term: Term) -> PathBuf {
        self.folder.join(format!("vm-{}.term-{term}", self.vm))
    }

    /// Creates the file `path` with `content` unless it exists.
    fn publish(&self, path: &Path, content: &str) -> io::Result<()> {
        let name = path.file_name().expect("the path of a file has a name").to_string_lossy();
        let own = self.folder.join(format!(".{}.{name}", self.claimant));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&own)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        // The result of the call is not reliable: a server's reply may get lost, and the call be repeated. So
        // the file that is there afterwards decides.
        let linked = fs::hard_link(&own, path);
        if read(path)?.is_none() {
            linked?;
        }
        File::open(&self.folder)?.sync_all()?;
        // The temporary file does no harm if it stays.
        let _ = fs::remove_file(&own);
        Ok(())
    }

    fn identity(&self) -> Result<Option<WitnessId>, WitnessError> {
        let content = read(&self.folder.join(IDENTITY_FILE))
            .map_err(|source| WitnessError::Io { folder: self.folder.clone(), source })?;
        let Some(content) = content else { return Ok(None) };
        let id = u64::from_str_radix(content.trim_end(), 16).map_err(|_| self.no_identity())?;
        Ok(Some(WitnessId(id)))
    }

    fn no_identity(&self) -> WitnessError {
        WitnessError::NoIdentity { folder: self.folder.clone() }
    }

    fn check_identity(&self) -> Result<(), WitnessError> {
        let (ours, found) = (self.id, self.identity()?);
        if found == Some(ours) {
            return Ok(());
        }
        Err(WitnessError::OtherFolder { folder: self.folder.clone(), ours, found })
    }

    /// Returns the owner of `term`. A claim file that names no claimant belongs to claimant 0, which no
    /// process is.
    fn owner(&self, term: Term) -> io::Result<Option<Claimant>> {
        let Some(content) = read(&self.path(term))? else { return Ok(None) };
        let name = content.split_whitespace().next().unwrap_or_default();
        Ok(Some(Claimant(u64::from_str_radix(name, 16).unwrap_or(0))))
    }
}

/// Reads the small file at `path`; `None` if it does not exist.
fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(WITNESS_FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(Some(String::from_utf8_lossy(&content).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    const A: Option<Claimant> = Some(Claimant(0xa));
    const B: Option<Claimant> = Some(Claimant(0xb));

    fn open(folder: &Path, vm: u64, claimant: u64) -> FileWitness {
        let name = (Claimant(claimant), String::from("host"));
        FileWitness::open(folder, VmId(vm), name, WitnessId(claimant)).unwrap()
    }

    /// The witness of hosts A and B for one VM.
    fn pair(folder: &Path) -> [FileWitness; 2] {
        [0xa, 0xb].map(|claimant| open(folder, 7, claimant))
    }

    #[test]
    fn claim_of_owned_term_is_lost_and_of_own_term_stays_won() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert_eq!(a.newest().unwrap(), None);
        assert!(a.claim(Term(1), None).unwrap());
        assert!(!b.claim(Term(1), None).unwrap());
        assert!(a.claim(Term(1), None).unwrap(), "repeated after a lost answer");
        assert!(b.claim(Term(2), A).unwrap());
        assert!(!a.claim(Term(2), A).unwrap());
        assert!(open(folder.path(), 8, 0xb).claim(Term(1), None).unwrap(), "another VM's term");
        assert_eq!(a.newest().unwrap(), Some(Term(2)));
        // The temporary file of a process that died before it linked the file is no claim.
        fs::write(folder.path().join(".000000000000000d.vm-7.term-3"), "d").unwrap();
        assert!(a.claim(Term(3), B).unwrap());
    }

    #[test]
    fn claim_by_many_at_once_is_won_by_one() {
        let folder = tempfile::tempdir().unwrap();
        for term in 1..=50 {
            let start = Barrier::new(4);
            let owner = open(folder.path(), 7, 1).owner(Term(term - 1)).unwrap();
            let winners = std::thread::scope(|scope| {
                let claim = |claimant: u64| {
                    let witness = open(folder.path(), 7, claimant);
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        witness.claim(Term(term), owner).unwrap()
                    })
                };
                let claims: Vec<_> = (1..5).map(claim).collect();
                claims.into_iter().map(|c| c.join().unwrap()).filter(|&w| w).count()
            });
            assert_eq!(winners, 1, "term {term}");
        }
    }

    #[test]
    fn open_by_many_at_once_gives_one_identity() {
        let folder = tempfile::tempdir().unwrap();
        let start = Barrier::new(4);
        let ids = std::thread::scope(|scope| {
            let open_one = |claimant: u64| {
                let (folder, start) = (folder.path(), &start);
                scope.spawn(move || {
                    start.wait();
                    open(folder, 7, claimant).id()
                })
            };
            let threads: Vec<_> = (1..5).map(open_one).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(ids.iter().all(|&id| id == ids[0]), "{ids:?}");
        assert_eq!(open(folder.path(), 8, 5).id(), ids[0]);
        let elsewhere = tempfile::tempdir().unwrap();
        assert_ne!(open(elsewhere.path(), 7, 5).id(), ids[0]);
    }

    /// The shared storage is unmounted. In its place is the empty mount point, or other storage.
    #[test]
    fn claim_in_other_folder_has_no_answer() {
        let mount_point = tempfile::tempdir().unwrap();
        let [a, b] = pair(mount_point.path());
        assert!(a.claim(Term(1), None).unwrap());
        fs::rename(mount_point.path(), mount_point.path().with_extension("away")).unwrap();
        fs::create_dir(mount_point.path()).unwrap();
        let error = b.claim(Term(2), A).unwrap_err();
        assert!(matches!(error, WitnessError::OtherFolder { found: None, .. }), "{error}");
        let other = open(mount_point.path(), 7, 0xc).id();
        let error = b.claim(Term(2), A).unwrap_err();
        assert!(matches!(error, WitnessError::OtherFolder { found: Some(id), .. } if id == other));
        assert!(error.to_string().contains("mount") && !error.to_string().contains('\n'));
        assert!(
            fs::read_dir(mount_point.path()).unwrap().count() == 1,
            "nothing was claimed there"
        );
        fs::remove_dir_all(mount_point.path()).unwrap();
        fs::rename(mount_point.path().with_extension("away"), mount_point.path()).unwrap();
        assert!(b.claim(Term(2), A).unwrap(), "it is mounted again");
    }

    #[test]
    fn claim_with_wrong_owner_of_term_before_has_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        let error = b.claim(Term(2), B).unwrap_err();
        assert!(matches!(error, WitnessError::OtherOwner { found: A, .. }), "{error}");
        fs::remove_file(folder.path().join("vm-7.term-1")).unwrap();
        for witness in [&a, &b] {
            let error = witness.claim(Term(2), A).unwrap_err();
            assert!(matches!(error, WitnessError::OtherOwner { found: None, .. }), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        assert_eq!(a.newest().unwrap(), None, "nothing was claimed");
    }

    /// Old claim files were removed, and a host boots the VM as if for the first time.
    #[test]
    fn claim_of_removed_old_term_is_lost_while_newer_one_exists() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        assert!(b.claim(Term(2), A).unwrap());
        fs::remove_file(folder.path().join("vm-7.term-1")).unwrap();
        assert!(!open(folder.path(), 7, 0xc).claim(Term(1), None).unwrap());
        assert!(b.claim(Term(2), A).unwrap(), "repeated after a lost answer");
        assert!(!a.claim(Term(2), A).unwrap());
    }

    #[test]
    fn claim_in_missing_folder_is_error() {
        let folder = tempfile::tempdir().unwrap();
        let [a, _] = pair(folder.path());
        let path = folder.path().to_path_buf();
        drop(folder);
        assert!(a.claim(Term(1), None).is_err());
        let name = (Claimant(1), String::new());
        let error = FileWitness::open(&path, VmId(7), name, WitnessId(1)).unwrap_err().to_string();
        assert!(error.contains("both hosts reach") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn open_with_invalid_identity_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(IDENTITY_FILE), "\u{1f600} not hexadecimal").unwrap();
        let name = (Claimant(1), String::new());
        let error = FileWitness::open(folder.path(), VmId(7), name, WitnessId(1)).unwrap_err();
        assert!(matches!(error, WitnessError::NoIdentity { .. }), "{error}");
    }
}
