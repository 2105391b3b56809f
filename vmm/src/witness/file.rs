//! Claims as files in a folder that both hosts reach (a shared file system, or anything else where a
//! hard link is made by one host only).
//!
//! `FOLDER/vm-<id>.term-<n>` exists when term `n` of the VM was claimed, and holds the claimant's name.
//! It appears whole or not at all: the name is written to a file of the claimant's own and synced, and
//! that file is then linked to the claim's name, which fails if there is one already (link(2); also
//! over NFS, where an exclusive create need not be).

use logchan::ids::{Term, VmId};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a claimant's name that are compared.
const NAME_BYTES_MAX: u64 = 256;

/// A witness that is a folder.
#[derive(Clone, Debug)]
pub struct FileWitness {
    folder: PathBuf,
    vm: VmId,
    /// Tells this life of this process from every other one.
    claimant: String,
}

/// A witness that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The folder itself.
    #[error("witness {}: {source}: give a folder on storage that both hosts reach", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl FileWitness {
    /// The witness in `folder` for `vm`; `claimant` must be a name that no other process, and no other
    /// life of this one, ever has.
    pub fn new(folder: &Path, vm: VmId, claimant: String) -> Result<FileWitness, WitnessError> {
        let error = |source| WitnessError::Folder { folder: folder.to_path_buf(), source };
        let metadata = fs::metadata(folder).map_err(error)?;
        if !metadata.is_dir() {
            return Err(error(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        Ok(FileWitness { folder: folder.to_path_buf(), vm, claimant })
    }

    fn path(&self, term: Term) -> PathBuf {
        self.folder.join(format!("vm-{}.term-{term}", self.vm))
    }

    /// Claims `term`: whether it is ours, now or since an earlier claim of ours. After an error the
    /// claim may have been made or not; claim again.
    pub fn claim(&self, term: Term) -> io::Result<bool> {
        let claim = self.path(term);
        if let Some(owner) = owner(&claim)? {
            return Ok(owner == self.claimant);
        }
        let own = self.folder.join(format!(".{}.vm-{}.term-{term}", self.claimant, self.vm));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&own)?;
        file.write_all(self.claimant.as_bytes())?;
        file.sync_all()?;
        let linked = fs::hard_link(&own, &claim);
        // Whatever it said (a server's answer may get lost and the call be repeated), what is there
        // now decides.
        let owner = owner(&claim)?;
        let won = owner.as_deref() == Some(self.claimant.as_str());
        match (&owner, linked) {
            (None, Err(error)) => return Err(error),
            (None, Ok(())) => return Err(io::Error::from(io::ErrorKind::NotFound)),
            (Some(_), _) => {}
        }
        File::open(&self.folder)?.sync_all()?;
        // Only tidiness.
        let _ = fs::remove_file(&own);
        Ok(won)
    }

    /// The newest term that was claimed, if any.
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
}

/// Who claimed what is at `path`.
fn owner(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut name = Vec::new();
    file.take(NAME_BYTES_MAX).read_to_end(&mut name)?;
    Ok(Some(String::from_utf8_lossy(&name).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn witness(folder: &Path, claimant: &str) -> FileWitness {
        FileWitness::new(folder, VmId(7), claimant.to_string()).unwrap()
    }

    #[test]
    fn claim_is_won_once_and_stays_won() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (witness(folder.path(), "a"), witness(folder.path(), "b"));
        assert_eq!(a.newest().unwrap(), None);
        assert!(a.claim(Term(1)).unwrap());
        assert!(!b.claim(Term(1)).unwrap());
        assert!(a.claim(Term(1)).unwrap(), "asked again after an answer that was lost");
        assert!(b.claim(Term(2)).unwrap());
        assert!(!a.claim(Term(2)).unwrap());
        let other = FileWitness::new(folder.path(), VmId(8), "b".to_string()).unwrap();
        assert!(other.claim(Term(1)).unwrap(), "another VM's term");
        assert_eq!(a.newest().unwrap(), Some(Term(2)));
        // A life that ended between its two steps leaves nothing that counts.
        fs::write(folder.path().join(".dead.vm-7.term-3"), "dead").unwrap();
        assert!(a.claim(Term(3)).unwrap());
    }

    #[test]
    fn of_many_that_claim_at_once_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        for term in 1..=50 {
            let start = Barrier::new(4);
            let winners = std::thread::scope(|scope| {
                let claim = |name: usize| {
                    let witness = witness(folder.path(), &format!("host-{name}"));
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        witness.claim(Term(term)).unwrap()
                    })
                };
                let claims: Vec<_> = (0..4).map(claim).collect();
                claims.into_iter().map(|c| c.join().unwrap()).filter(|&w| w).count()
            });
            assert_eq!(winners, 1, "term {term}");
        }
    }

    #[test]
    fn folder_that_is_gone_is_an_error_and_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let a = witness(folder.path(), "a");
        let path = folder.path().to_path_buf();
        drop(folder);
        assert!(a.claim(Term(1)).is_err());
        let error = FileWitness::new(&path, VmId(7), String::new()).unwrap_err().to_string();
        assert!(error.contains("both hosts reach") && !error.contains('\n'), "{error}");
    }
}
