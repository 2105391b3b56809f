//! Claims as files in a folder that both hosts reach (a shared file system, or anything else where a
//! hard link is made by one host only).
//!
//! | file | what it says |
//! |---|---|
//! | `understudy-witness` | which witness this folder is: 64 random bits, in hexadecimal |
//! | `vm-<id>.term-<n>` | term `n` of the VM was claimed: the claimant, and its host's name |
//!
//! A file appears whole or not at all: its content is written to a file of the process's own and synced,
//! and that file is then linked to the name, which fails if there is one already (link(2); also
//! over NFS, where an exclusive create need not be).
//!
//! A folder can be another one than the two hosts agreed upon: the empty mount point of storage that is
//! not mounted, or storage that lost files. In such a folder both hosts could win the same term. So a
//! claim is answered only in the folder that was opened at the start, which its identity tells, and only if
//! the owner of the term before is the one that the pair knows. In every other case there is no answer.

use logchan::ids::{Claimant, Term, VmId, WitnessId};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file that holds the identity of a witness.
const IDENTITY_FILE: &str = "understudy-witness";

/// Bytes of a file that are read.
const FILE_BYTES_MAX: u64 = 256;

/// A witness that is a folder.
#[derive(Clone, Debug)]
pub struct FileWitness {
    folder: PathBuf,
    id: WitnessId,
    vm: VmId,
    /// Distinguishes this life of this process from every other one.
    claimant: Claimant,
    /// For people who read the folder.
    host: String,
}

/// A witness that can't be used, or has no answer.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The folder itself, at the start.
    #[error("witness {}: {source}: give a folder on storage that both hosts reach", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Reading or writing in the folder, later.
    #[error("witness {}: {source}", folder.display())]
    Io {
        /// Which.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The identity file holds something else.
    #[error("witness {}: {IDENTITY_FILE} does not hold an identity: restore it, or give a new folder to both hosts", folder.display())]
    NoIdentity {
        /// Which.
        folder: PathBuf,
    },
    /// The folder is not the one of the start.
    #[error(
        "witness {}: its identity was {ours} at the start and is {} now: mount the shared storage again",
        folder.display(), found.map_or_else(|| "gone".to_string(), |found| found.to_string())
    )]
    OtherFolder {
        /// Which.
        folder: PathBuf,
        /// The identity at the start.
        ours: WitnessId,
        /// The identity now, if there is one.
        found: Option<WitnessId>,
    },
    /// The claim of the term before is gone, or somebody else's.
    #[error(
        "witness {}: term {term} of VM {vm} is not {expected}'s, as the pair knows it, but {}: restore the claim files",
        folder.display(), found.map_or_else(|| "nobody's".to_string(), |found| format!("{found}'s"))
    )]
    OtherOwner {
        /// Which.
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
    /// The witness in `folder` for `vm`. Gives the folder an identity if it has none.
    ///
    /// `claimant` must be a name that no other process, and no other life of this one, ever has; `host`
    /// says to people which host that is. `random` becomes the identity of a folder that has none.
    ///
    /// # Errors
    ///
    /// A folder that is not there, can't be written, or has an identity that can't be read.
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
            // Whether it was there meanwhile or not, what is there now counts.
            witness.publish(&path, &format!("{random}\n")).map_err(error)?;
        }
        witness.id = witness.identity()?.ok_or_else(|| witness.no_identity())?;
        Ok(witness)
    }

    /// Which witness this is.
    pub fn id(&self) -> WitnessId {
        self.id
    }

    /// The name that claims are made under.
    pub fn claimant(&self) -> Claimant {
        self.claimant
    }

    /// Claims `term` for this process: whether it is ours, now or since an earlier claim of ours.
    /// `previous` must own the term before; `None` for the term in which the VM is booted. After an error
    /// the claim may have been made or not; claim again.
    ///
    /// # Errors
    ///
    /// No answer: the folder can't be reached, is another one than at the start, or does not have the
    /// claim of the term before.
    pub fn claim(&self, term: Term, previous: Option<Claimant>) -> Result<bool, WitnessError> {
        self.check_identity()?;
        let error = |source| WitnessError::Io { folder: self.folder.clone(), source };
        // A claim file may have been removed; a newer one shows that this term is over.
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

    /// The newest term that was claimed, if any.
    ///
    /// # Errors
    ///
    /// What the kernel says.
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

    /// Writes `content` to `path` unless there is something already.
    fn publish(&self, path: &Path, content: &str) -> io::Result<()> {
        let name = path.file_name().expect("a file of ours has a name").to_string_lossy();
        let own = self.folder.join(format!(".{}.{name}", self.claimant));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&own)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        // Whatever it says (a server's answer may get lost and the call be repeated), what is there
        // afterwards decides.
        let linked = fs::hard_link(&own, path);
        if read(path)?.is_none() {
            linked?;
        }
        File::open(&self.folder)?.sync_all()?;
        // Only tidiness.
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

    /// Who claimed `term`. A claim that does not name a claimant is somebody else's.
    fn owner(&self, term: Term) -> io::Result<Option<Claimant>> {
        let Some(content) = read(&self.path(term))? else { return Ok(None) };
        let name = content.split_whitespace().next().unwrap_or_default();
        Ok(Some(Claimant(u64::from_str_radix(name, 16).unwrap_or(0))))
    }
}

/// What is in the small file at `path`, if it is there.
fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
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
    fn claim_is_won_once_and_stays_won() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert_eq!(a.newest().unwrap(), None);
        assert!(a.claim(Term(1), None).unwrap());
        assert!(!b.claim(Term(1), None).unwrap());
        assert!(a.claim(Term(1), None).unwrap(), "asked again after an answer that was lost");
        assert!(b.claim(Term(2), A).unwrap());
        assert!(!a.claim(Term(2), A).unwrap());
        assert!(open(folder.path(), 8, 0xb).claim(Term(1), None).unwrap(), "another VM's term");
        assert_eq!(a.newest().unwrap(), Some(Term(2)));
        // A life that ended between its two steps leaves nothing that counts.
        fs::write(folder.path().join(".000000000000000d.vm-7.term-3"), "d").unwrap();
        assert!(a.claim(Term(3), B).unwrap());
    }

    #[test]
    fn of_many_that_claim_at_once_one_wins() {
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
    fn identity_is_given_once_and_kept() {
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

    /// The shared storage is unmounted: the empty mount point, or another host's, is in its place.
    #[test]
    fn folder_that_is_not_the_one_of_the_start_has_no_answer() {
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
    fn claim_without_the_right_owner_of_the_term_before_has_no_answer() {
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

    /// Something removes old files, and somebody boots the VM as if for the first time.
    #[test]
    fn old_term_whose_file_is_gone_is_lost_while_a_newer_one_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        assert!(b.claim(Term(2), A).unwrap());
        fs::remove_file(folder.path().join("vm-7.term-1")).unwrap();
        assert!(!open(folder.path(), 7, 0xc).claim(Term(1), None).unwrap());
        assert!(b.claim(Term(2), A).unwrap(), "an answer that was lost");
        assert!(!a.claim(Term(2), A).unwrap());
    }

    #[test]
    fn folder_that_is_gone_is_an_error_and_no_answer() {
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
    fn identity_that_is_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(IDENTITY_FILE), "\u{1f600} not hexadecimal").unwrap();
        let name = (Claimant(1), String::new());
        let error = FileWitness::open(folder.path(), VmId(7), name, WitnessId(1)).unwrap_err();
        assert!(matches!(error, WitnessError::NoIdentity { .. }), "{error}");
    }
}
