//! Claims as files in a folder that both hosts reach: on a shared file system, or on any other storage on
//! which only one host succeeds in making a hard link.
//!
//! | file | contents |
//! |---|---|
//! | `understudy-witness` | identity of the witness: 64 random bits, in hexadecimal |
//! | `vm-<id>.term-<n>` | owner of term `n` of the VM ([`claim_file`](super::claim_file)) |
//! | `.<claimant>.*` | temporary file of a process |
//!
//! A file appears completely or not at all. Its content is written to a temporary file of the process and
//! synced. The temporary file is then hard-linked to the final name, which fails if the name exists
//! (link(2)). This is atomic over NFS as well, where an exclusive create need not be.
//!
//! Each of the two steps waits for the storage. So a process writes the temporary file of the claim that it may have
//! to make next beforehand, while nobody waits ([`FileWitness::prepare`]). That file is a copy of a claim under
//! another name, and says nothing. It stays if the process is killed, and is removed by whoever prepares a claim of
//! a later term.
//!
//! The folder can be a different one than the two hosts agreed on: the empty mount point of storage that is
//! not mounted, or storage that lost files. In such a folder, both hosts could win the same term. So a claim
//! is answered only if the folder has the identity that it had at the start, and only if the owner of the
//! term before is the one that the pair knows. In every other case there is no answer.
//!
//! Whoever can write to the folder can put any file there. So every file is read as hostile input
//! ([`folder`]), and a claim counts only if its tag shows that a host of the pair made it. A file
//! that is not a valid claim is neither a won nor a lost claim: there is no answer, and the reason names it.

use super::claim_file::{ClaimFault, ClaimFile, hex};
use super::folder::{self, Access, FileFault};
use logchan::claim::{Claim, ClaimKey};
use logchan::ids::{Claimant, Term, VmId, WitnessId};
use replication::witness::{self, Answer, ClaimStore, NoAnswer, Question, Seen};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The file that holds the identity of a witness.
pub(crate) const IDENTITY_FILE: &str = "understudy-witness";

/// What the name of a claim that is prepared begins with.
const PREPARED: &str = "next-";

/// What a process uses a witness for.
#[derive(Debug)]
pub struct WitnessConfig {
    /// The VM.
    pub vm: VmId,
    /// Authenticates the claims of the pair. `None` with `--insecure`.
    pub key: Option<ClaimKey>,
    /// Identifies this run of this process: no other process and no other run may ever have it.
    pub claimant: Claimant,
    /// Host name, for people who read the folder.
    pub host: String,
}

/// A witness in a folder.
#[derive(Debug)]
pub struct FileWitness {
    folder: PathBuf,
    config: WitnessConfig,
    id: WitnessId,
    access: Access,
    /// The term whose claim by this process is prepared. Two threads use it, and neither holds the lock while it uses
    /// the storage: the one that prepares must not delay the one that claims.
    prepared: Mutex<Option<Term>>,
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
    /// Every user can change the folder.
    #[error("witness {0}: {access}: 'chmod o-w {0}'", folder.display())]
    Access {
        /// The folder.
        folder: PathBuf,
        /// Who can change it.
        access: Access,
    },
    /// The folder can't be listed.
    #[error("witness {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A file in the folder can't be read or made.
    #[error("witness {}: {name} {fault}", folder.display())]
    File {
        /// The folder.
        folder: PathBuf,
        /// The file.
        name: String,
        /// What is wrong.
        fault: FileFault,
    },
    /// A claim file does not contain a claim of this pair.
    #[error("witness {}: {name} {fault}", folder.display())]
    Claim {
        /// The folder.
        folder: PathBuf,
        /// The file.
        name: String,
        /// What is wrong.
        fault: ClaimFault,
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
    /// Opens the witness in `folder`, and tries whether files and hard links can be made there. `random` becomes the
    /// identity of a folder that has none.
    ///
    /// # Errors
    ///
    /// The folder does not exist, can't be written, makes no hard links, can be changed by every user, or its
    /// identity can't be read.
    pub fn open(
        folder: PathBuf,
        config: WitnessConfig,
        random: WitnessId,
    ) -> Result<FileWitness, WitnessError> {
        let error = |source| WitnessError::Folder { folder: folder.clone(), source };
        let metadata = fs::metadata(&folder).map_err(error)?;
        if !metadata.is_dir() {
            return Err(error(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let access = Access::of(&metadata);
        if let Access::Open { .. } = access {
            return Err(WitnessError::Access { folder, access });
        }
        let mut witness = FileWitness {
            folder: folder.clone(),
            config,
            id: random,
            access,
            prepared: Mutex::default(),
        };
        folder::probe(&folder, witness.config.claimant).map_err(|fault| match fault {
            FileFault::Io(source) => error(source),
            FileFault::NotRegular(_)
            | FileFault::TooLong(_)
            | FileFault::NoHardLinks(_)
            | FileFault::NotExclusive => witness.file_error("a claim", fault),
        })?;
        if identity(&folder)?.is_none() {
            // Another process may have written it first. The file that is there afterwards is read below.
            witness.publish(IDENTITY_FILE, &format!("{random}\n"))?;
        }
        witness.id = identity(&folder)?.ok_or(WitnessError::NoIdentity { folder })?;
        Ok(witness)
    }

    /// Returns the identity of this witness.
    pub fn id(&self) -> WitnessId {
        self.id
    }

    /// Returns the name under which this process makes its claims.
    pub fn claimant(&self) -> Claimant {
        self.config.claimant
    }

    /// Sets the key of this process's claims, in place of the one that it was opened with.
    pub fn set_key(&mut self, key: Option<ClaimKey>) {
        self.config.key = key;
    }

    /// Returns a warning if others than root and this user can change the folder.
    pub fn warning(&self) -> Option<String> {
        let folder = self.folder.display();
        match self.access {
            Access::Private => None,
            Access::Shared { .. } | Access::Open { .. } => {
                Some(format!("witness {folder}: {}", self.access))
            }
        }
    }

    /// Answers `question` of this process. After an error, a claim may or may not have been made.
    ///
    /// # Errors
    ///
    /// There is no answer: the folder can't be reached, is a different one than at the start, has a file that
    /// is not a claim of this pair in the place of one, or does not have the claims that it must have.
    pub fn answer(&self, question: Question) -> Result<Answer, WitnessError> {
        self.check_identity()?;
        witness::answer(&mut &*self, self.config.claimant, question)
            .map_err(|reason| self.cause_of(self.no_answer(reason)))
    }

    /// Returns the newest claims of the VM.
    ///
    /// # Errors
    ///
    /// As those of [`answer`](Self::answer).
    pub fn look(&self) -> Result<Seen, WitnessError> {
        self.check_identity()?;
        witness::look(&mut &*self).map_err(|reason| self.cause_of(self.no_answer(reason)))
    }

    /// Tries whether a claim could be made now, and leaves no file. Storage that can be read need not take claims: it is
    /// read-only, or full.
    ///
    /// # Errors
    ///
    /// A claim would have no answer.
    pub fn try_claims(&self) -> Result<(), WitnessError> {
        let tried = folder::probe(&self.folder, self.config.claimant);
        tried.map(drop).map_err(|fault| self.cause_of(self.file_error("a claim", fault)))
    }

    /// Says that no host runs the VM: claims the next term for nobody, and returns it.
    ///
    /// # Errors
    ///
    /// As those of [`answer`](Self::answer), or another process has claimed that term at the same time.
    pub fn forget(&self) -> Result<Term, WitnessError> {
        self.check_identity()?;
        witness::forget(&mut &*self).map_err(|reason| self.no_answer(reason))
    }

    /// Prepares the claim of `term` by this process, which is then made in less time, and removes the temporary files of
    /// earlier terms. Does nothing if that claim is prepared.
    ///
    /// # Errors
    ///
    /// The claim is not prepared, for one of the reasons for which a claim has no answer.
    pub fn prepare(&self, term: Term) -> Result<(), WitnessError> {
        if *self.prepared() == Some(term) {
            return Ok(());
        }
        self.check_identity()?;
        let name = file_name(self.config.vm, term);
        let draft = self.prepared_name(&name);
        folder::prepare(&self.folder, &draft, &self.claim_content(term, self.config.claimant))
            .map_err(|fault| self.cause_of(self.file_error(&name, fault)))?;
        *self.prepared() = Some(term);
        self.remove_drafts_before(term)
    }

    /// Gives the prepared claim of `term` its name, if there is one. Returns whether the claim exists then, made by
    /// whomever.
    fn link_prepared(&self, term: Term, content: &str) -> bool {
        if self.prepared().take_if(|prepared| *prepared == term).is_none() {
            return false;
        }
        let name = file_name(self.config.vm, term);
        let draft = self.prepared_name(&name);
        // It was there for a while: somebody may have changed it.
        let found = folder::read(&self.folder, &draft);
        matches!(found, Ok(Some(found)) if found == content.as_bytes())
            && folder::link_draft(&self.folder, &draft, &name).is_ok()
    }

    fn prepared(&self) -> MutexGuard<'_, Option<Term>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the name of the temporary file with the prepared claim `name`. A claim that was not prepared has
    /// another one: both may be written at the same time.
    fn prepared_name(&self, name: &str) -> String {
        folder::draft_name(self.config.claimant, &format!("{PREPARED}{name}"))
    }

    /// Removes the temporary files for claims of terms before `term`: processes that were killed left them.
    fn remove_drafts_before(&self, term: Term) -> Result<(), WitnessError> {
        for name in names(&self.folder)? {
            let name = name?;
            let of_claim = name.strip_prefix('.').and_then(|name| name.split_once('.'));
            let claim = of_claim.and_then(|(_claimant, name)| {
                parse_name(name.strip_prefix(PREPARED).unwrap_or(name))
            });
            if claim.is_some_and(|(vm, of)| vm == self.config.vm && of < term) {
                folder::remove(&self.folder, &name);
            }
        }
        Ok(())
    }

    /// Returns the content of the claim of `term` for `claimant`.
    fn claim_content(&self, term: Term, claimant: Claimant) -> String {
        let (witness, vm) = (self.id, self.config.vm);
        let claim = Claim { witness, vm, term, claimant };
        ClaimFile::encode(&claim, self.config.key.as_ref(), &self.config.host)
    }

    fn no_answer(&self, reason: NoAnswer<WitnessError>) -> WitnessError {
        let (folder, vm) = (self.folder.clone(), self.config.vm);
        match reason {
            NoAnswer::Storage(error) => error,
            NoAnswer::OtherOwner { term, expected, found } => {
                WitnessError::OtherOwner { folder, vm, term, expected, found }
            }
            NoAnswer::Gone { term } => {
                let fault = FileFault::Io(io::Error::from(io::ErrorKind::NotFound));
                self.file_error(&file_name(vm, term), fault)
            }
        }
    }

    /// Creates the file `name` with `content` unless it exists.
    fn publish(&self, name: &str, content: &str) -> Result<(), WitnessError> {
        let draft = folder::draft_name(self.config.claimant, name);
        folder::publish(&self.folder, name, &draft, content)
            .map_err(|fault| self.file_error(name, fault))
    }

    /// Returns why the folder can't be used if it went away while it was used, and `error` if it did not. One outage
    /// has one reason then, which does not depend on the call that met it first.
    fn cause_of(&self, error: WitnessError) -> WitnessError {
        self.check_identity().err().unwrap_or(error)
    }

    fn check_identity(&self) -> Result<(), WitnessError> {
        let (ours, found) = (self.id, identity(&self.folder)?);
        if found == Some(ours) {
            return Ok(());
        }
        Err(WitnessError::OtherFolder { folder: self.folder.clone(), ours, found })
    }

    fn file_error(&self, name: &str, fault: FileFault) -> WitnessError {
        file_error(&self.folder, name, fault)
    }
}

impl ClaimStore for &FileWitness {
    type Error = WitnessError;

    fn newest(&mut self) -> Result<Option<Term>, WitnessError> {
        let mut newest = None;
        for file in claim_files(&self.folder)? {
            let (vm, term) = file?;
            if vm == self.config.vm {
                newest = newest.max(Some(term));
            }
        }
        Ok(newest)
    }

    fn owner(&mut self, term: Term) -> Result<Option<Claimant>, WitnessError> {
        let (folder, vm, key) = (&self.folder, self.config.vm, self.config.key.as_ref());
        let Some(file) = read_claim(folder, vm, term)? else { return Ok(None) };
        let owner = file.owner((self.id, vm, term), key);
        owner.map(Some).map_err(|fault| claim_error(folder, (vm, term), fault))
    }

    fn create(&mut self, term: Term, claimant: Claimant) -> Result<(), WitnessError> {
        let name = file_name(self.config.vm, term);
        let content = self.claim_content(term, claimant);
        if claimant == self.config.claimant && self.link_prepared(term, &content) {
            return folder::sync(&self.folder).map_err(|fault| self.file_error(&name, fault));
        }
        self.publish(&name, &content)
    }
}

fn file_name(vm: VmId, term: Term) -> String {
    format!("vm-{vm}.term-{term}")
}

/// Returns the VM and the term of each claim file in `folder`, in no order. There may be any number of files.
pub(crate) fn claim_files(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<(VmId, Term), WitnessError>>, WitnessError> {
    Ok(names(folder)?.filter_map(|name| match name {
        Ok(name) => parse_name(&name).map(Ok),
        Err(error) => Some(Err(error)),
    }))
}

/// Returns the names of the files in `folder`, except those that no file of a witness has.
fn names(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<String, WitnessError>>, WitnessError> {
    let error = |source| WitnessError::Io { folder: folder.to_path_buf(), source };
    let entries = fs::read_dir(folder).map_err(error)?;
    Ok(entries.filter_map(move |entry| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(source) => Some(Err(error(source))),
    }))
}

fn parse_name(name: &str) -> Option<(VmId, Term)> {
    let (vm, term) = name.strip_prefix("vm-")?.split_once(".term-")?;
    let (vm, term) = (VmId(vm.parse().ok()?), Term(term.parse().ok()?));
    // Numbers have several forms, for example `+1`. Only this one is read.
    (file_name(vm, term) == name).then_some((vm, term))
}

/// Reads the claim file of `term`; `None` if there is none. The claim is not authenticated.
pub(crate) fn read_claim(
    folder: &Path,
    vm: VmId,
    term: Term,
) -> Result<Option<ClaimFile>, WitnessError> {
    let name = file_name(vm, term);
    let content = folder::read(folder, &name).map_err(|fault| file_error(folder, &name, fault))?;
    let file = content.map(|content| ClaimFile::decode(&content)).transpose();
    file.map_err(|fault| claim_error(folder, (vm, term), fault))
}

/// Reads the identity of the witness in `folder`; `None` if it has none.
pub(crate) fn identity(folder: &Path) -> Result<Option<WitnessId>, WitnessError> {
    let content = folder::read(folder, IDENTITY_FILE)
        .map_err(|fault| file_error(folder, IDENTITY_FILE, fault))?;
    let Some(content) = content else { return Ok(None) };
    let id = str::from_utf8(&content).ok().and_then(|text| hex(text.strip_suffix('\n')?));
    let id = id.ok_or_else(|| WitnessError::NoIdentity { folder: folder.to_path_buf() })?;
    Ok(Some(WitnessId(u64::from_be_bytes(id))))
}

fn file_error(folder: &Path, name: &str, fault: FileFault) -> WitnessError {
    WitnessError::File { folder: folder.to_path_buf(), name: name.to_string(), fault }
}

fn claim_error(folder: &Path, (vm, term): (VmId, Term), fault: ClaimFault) -> WitnessError {
    WitnessError::Claim { folder: folder.to_path_buf(), name: file_name(vm, term), fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WITNESS_FILE_BYTES_MAX;
    use logchan::disk_copy::Generation;
    use logchan::handshake::PresharedKey;
    use nix::sys::stat::Mode;
    use replication::witness::{Ending, LastClaim};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::sync::Barrier;

    impl FileWitness {
        /// Claims `term`, which comes after that of `previous`; without one, boots the VM. Returns whether this
        /// process owns the term.
        pub(crate) fn claim(
            &self,
            term: Term,
            previous: Option<Claimant>,
        ) -> Result<bool, WitnessError> {
            let boot = Question::Boot { again: false, after: None };
            let cause = witness::ClaimCause::PrimarySilent;
            let question =
                previous.map_or(boot, |previous| Question::Claim { term, previous, cause });
            Ok(self.answer(question)? == Answer::Won { term })
        }

        fn newest(&self) -> Result<Option<Term>, WitnessError> {
            ClaimStore::newest(&mut &*self)
        }

        fn owner(&self, term: Term) -> Result<Option<Claimant>, WitnessError> {
            ClaimStore::owner(&mut &*self, term)
        }
    }

    const A: Option<Claimant> = Some(Claimant(0xa));
    const B: Option<Claimant> = Some(Claimant(0xb));

    /// The configuration of a process of a pair with a key of bytes `key`; 0: without a key.
    fn config(claimant: u64, key: u8) -> WitnessConfig {
        let key = PresharedKey::from_bytes(&[key; 32]).ok().map(|key| ClaimKey::derive(&key));
        let (claimant, host) = (Claimant(claimant), String::from("host"));
        WitnessConfig { vm: VmId(7), key, claimant, host }
    }

    fn open(folder: &Path, vm: u64, claimant: u64) -> FileWitness {
        let config = WitnessConfig { vm: VmId(vm), ..config(claimant, 1) };
        FileWitness::open(folder.to_path_buf(), config, WitnessId(claimant)).unwrap()
    }

    fn open_error(folder: &Path) -> WitnessError {
        let error = FileWitness::open(folder.into(), config(1, 1), WitnessId(1)).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains(folder.to_str().unwrap()), "{text}");
        error
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

    /// Returns the inode of the file `name`, if there is one.
    fn inode(folder: &Path, name: &str) -> Option<u64> {
        fs::symlink_metadata(folder.join(name)).ok().map(|metadata| metadata.ino())
    }

    /// The temporary file with the prepared claim of `term` by host B.
    fn prepared_by_b(term: u64) -> String {
        format!(".000000000000000b.next-vm-7.term-{term}")
    }

    #[test]
    fn claim_that_is_prepared_is_the_file_that_was_written_before() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        b.prepare(Term(2)).unwrap();
        let prepared = inode(folder.path(), &prepared_by_b(2));
        b.prepare(Term(2)).unwrap();
        assert_eq!(inode(folder.path(), &prepared_by_b(2)), prepared, "it is prepared once");
        assert_eq!(a.newest().unwrap(), Some(Term(1)), "a prepared claim says nothing");
        assert!(b.claim(Term(2), A).unwrap() && !a.claim(Term(2), A).unwrap());
        assert_eq!(inode(folder.path(), "vm-7.term-2"), prepared);
        assert!(prepared.is_some());
    }

    #[test]
    fn claim_of_another_term_or_for_nobody_is_not_the_prepared_one() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        b.prepare(Term(3)).unwrap();
        assert!(b.claim(Term(2), A).unwrap());
        assert_eq!(
            b.answer(Question::Release { term: Term(2) }).unwrap(),
            Answer::Won { term: Term(3) }
        );
        assert_eq!(a.owner(Term(3)).unwrap(), Some(witness::NOBODY));
        assert!(inode(folder.path(), &prepared_by_b(3)).is_some());
    }

    #[test]
    fn prepared_claim_of_a_term_that_is_owned_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        for host in [&a, &b] {
            host.prepare(Term(2)).unwrap();
        }
        // Both look before either of them has made its claim.
        ClaimStore::create(&mut &a, Term(2), Claimant(0xa)).unwrap();
        ClaimStore::create(&mut &b, Term(2), Claimant(0xb)).unwrap();
        assert_eq!(b.owner(Term(2)).unwrap(), A);
        assert!(a.claim(Term(2), A).unwrap() && !b.claim(Term(2), A).unwrap());
    }

    /// Somebody has removed or changed the file since it was prepared, or storage has lost it.
    #[test]
    fn claim_whose_prepared_file_was_changed_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let [a, _] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        let changes: [fn(&Path); 4] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, "").unwrap(),
            |path| fs::copy(path.with_file_name("vm-7.term-1"), path).map(drop).unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
                symlink(path.with_file_name("vm-7.term-1"), path).unwrap();
            },
        ];
        for (change, term) in changes.into_iter().zip(2..) {
            let b = open(folder.path(), 7, 0xb);
            b.prepare(Term(term)).unwrap();
            change(&folder.path().join(prepared_by_b(term)));
            let previous = a.owner(Term(term - 1)).unwrap();
            assert!(b.claim(Term(term), previous).unwrap(), "term {term}");
            assert_eq!(a.owner(Term(term)).unwrap(), B);
            let claim = inode(folder.path(), &format!("vm-7.term-{term}"));
            assert_ne!(claim, inode(folder.path(), &prepared_by_b(term)));
        }
    }

    #[test]
    fn claim_prepared_in_another_folder_has_no_answer_and_is_made_when_that_is_back() {
        let mount_point = tempfile::tempdir().unwrap();
        let [a, b] = pair(mount_point.path());
        assert!(a.claim(Term(1), None).unwrap());
        b.prepare(Term(2)).unwrap();
        let away = mount_point.path().with_extension("away");
        fs::rename(mount_point.path(), &away).unwrap();
        fs::create_dir(mount_point.path()).unwrap();
        for error in [b.claim(Term(2), A).unwrap_err(), b.prepare(Term(3)).unwrap_err()] {
            assert!(matches!(error, WitnessError::OtherFolder { found: None, .. }), "{error}");
        }
        assert_eq!(fs::read_dir(mount_point.path()).unwrap().count(), 0);
        fs::remove_dir(mount_point.path()).unwrap();
        fs::rename(&away, mount_point.path()).unwrap();
        let prepared = inode(mount_point.path(), &prepared_by_b(2));
        assert!(b.claim(Term(2), A).unwrap(), "it is mounted again");
        assert_eq!(inode(mount_point.path(), "vm-7.term-2"), prepared);
    }

    /// Processes that were killed left temporary files.
    #[test]
    fn temporary_files_of_earlier_terms_are_removed_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let [_, b] = pair(folder.path());
        let (old, others) = (
            [".000000000000000c.vm-7.term-1", ".000000000000000c.next-vm-7.term-2"],
            [
                ".000000000000000c.next-vm-7.term-3",
                ".000000000000000c.next-vm-8.term-2",
                ".000000000000000c.probe",
                ".next-vm-7.term-2",
                "000000000000000c.next-vm-7.term-2",
                "vm-7.term-1",
            ],
        );
        for name in old.iter().chain(&others) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        b.prepare(Term(3)).unwrap();
        for (names, stay) in [(&old[..], false), (&others[..], true)] {
            for name in names {
                assert_eq!(inode(folder.path(), name).is_some(), stay, "{name}");
            }
        }
        assert!(inode(folder.path(), &prepared_by_b(3)).is_some());
    }

    /// The thread that prepares and the one that claims use one witness.
    #[test]
    fn claim_that_is_made_while_it_is_prepared_is_won() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        for term in 2..=50 {
            let previous = a.owner(Term(term - 1)).unwrap();
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    b.prepare(Term(term)).unwrap();
                });
                start.wait();
                assert!(b.claim(Term(term), previous).unwrap(), "term {term}");
            });
        }
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
                    if claimant.is_multiple_of(2) {
                        witness.prepare(Term(term)).unwrap();
                    }
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
    /// The folder goes away between the look at its identity and the use of its files; a trial looks at files only.
    #[test]
    fn folder_that_goes_away_in_use_has_the_same_reason_as_one_that_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, away) = (parent.path().join("witness"), parent.path().join("away"));
        fs::create_dir(&folder).unwrap();
        let a = FileWitness::open(folder.clone(), config(0xa, 0), WitnessId(1)).unwrap();
        a.try_claims().unwrap();
        fs::rename(&folder, away).unwrap();
        let gone = a.look().unwrap_err().to_string();
        let in_use = a.try_claims().unwrap_err().to_string();
        assert!(gone.contains("mount the shared storage again"), "{gone}");
        assert_eq!(in_use, gone);
    }

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

    /// A program that removes old files has removed the newest claim.
    #[test]
    fn removed_claim_is_made_again_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        fs::remove_file(folder.path().join("vm-7.term-1")).unwrap();
        let confirm = Question::Confirm { term: Term(1), owner: Claimant(0xa) };
        b.answer(confirm).unwrap_err();
        assert_eq!(a.answer(confirm).unwrap(), Answer::Won { term: Term(1) });
        assert_eq!(b.answer(confirm).unwrap(), Answer::Won { term: Term(1) });
        let seen = |newest, ending| {
            let generation = Generation { term: Term(1), owner: Claimant(0xa) };
            Seen { newest: Term(newest), last: Some(LastClaim { generation, ending }) }
        };
        assert_eq!(b.look().unwrap(), seen(1, Ending::None));
        assert_eq!(b.forget().unwrap(), Term(2));
        assert_eq!(b.look().unwrap(), seen(2, Ending::Released));
        assert_eq!(a.answer(confirm).unwrap(), Answer::Lost { newest: Term(2) });
        assert!(b.claim(Term(3), None).unwrap(), "a forgotten VM is booted");
    }

    #[test]
    fn claim_in_missing_folder_is_error() {
        let folder = tempfile::tempdir().unwrap();
        let [a, _] = pair(folder.path());
        let path = folder.path().to_path_buf();
        drop(folder);
        assert!(a.claim(Term(1), None).is_err());
        let error = open_error(&path).to_string();
        assert!(error.contains("both hosts reach"), "{error}");
    }

    #[test]
    fn open_with_invalid_identity_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(IDENTITY_FILE), "\u{1f600} not hexadecimal").unwrap();
        let error = open_error(folder.path());
        assert!(matches!(error, WitnessError::NoIdentity { .. }), "{error}");
    }

    /// What the reason says, and what puts a file that is not one of a witness at a path.
    type Intruder = (&'static str, fn(&Path));

    const INTRUDERS: [Intruder; 7] = [
        ("is a FIFO", |path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap()),
        ("is a symbolic link", |path| symlink("/dev/zero", path).unwrap()),
        ("is a symbolic link", |path| symlink("/nonexistent", path).unwrap()),
        ("is a folder", |path| fs::create_dir(path).unwrap()),
        ("is a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("has 257 bytes", |path| {
            fs::write(path, vec![b'0'; WITNESS_FILE_BYTES_MAX as usize + 1]).unwrap();
        }),
        // A sparse file: nothing of that size is read.
        ("has 1099511627776 bytes", |path| {
            fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        }),
    ];

    fn remove(path: &Path) {
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// Requires that claims of term 2 have no answer, for a reason with `text` that names `file`.
    fn no_answer(witnesses: [&FileWitness; 2], file: &str, text: &str) {
        for witness in witnesses {
            let error = witness.claim(Term(2), A).expect_err(text).to_string();
            assert!(error.contains(&format!("{file} {text}")), "{error}");
            let folder = witness.folder.to_str().unwrap();
            assert!(!error.contains('\n') && error.contains(folder), "{error}");
        }
    }

    #[test]
    fn claim_with_another_kind_of_file_in_the_folder_has_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        // The claim itself, a newer one, the identity.
        for file in ["vm-7.term-2", "vm-7.term-9", IDENTITY_FILE] {
            let path = folder.path().join(file);
            let original = fs::read(&path).ok();
            for (text, put) in INTRUDERS {
                let _ = fs::remove_file(&path);
                put(&path);
                no_answer([&a, &b], file, text);
                if file == IDENTITY_FILE {
                    let error = open_error(folder.path()).to_string();
                    assert!(error.contains(text), "{error}");
                }
                remove(&path);
            }
            if let Some(original) = original {
                fs::write(&path, original).unwrap();
            }
        }
        assert!(b.claim(Term(2), A).unwrap());
    }

    /// Needs root: others can't make a device.
    #[test]
    #[cfg(feature = "host-tests")]
    fn claim_with_a_device_in_its_place_has_no_answer() {
        use nix::sys::stat::{SFlag, makedev, mknod};
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        let path = folder.path().join("vm-7.term-2");
        // /dev/zero.
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap();
        no_answer([&a, &b], "vm-7.term-2", "is a device");
    }

    #[test]
    fn claim_file_that_no_host_of_the_pair_made_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        let whole = fs::read_to_string(folder.path().join("vm-7.term-1")).unwrap();
        let other_pair =
            FileWitness::open(folder.path().into(), config(0xb, 2), WitnessId(0)).unwrap();
        let insecure =
            FileWitness::open(folder.path().into(), config(0xb, 0), WitnessId(0)).unwrap();
        let file = |witness: &FileWitness, term| {
            let (id, vm, claimant) = (witness.id, VmId(7), Claimant(0xb));
            let claim = Claim { witness: id, vm, term: Term(term), claimant };
            ClaimFile::encode(&claim, witness.config.key.as_ref(), "host")
        };
        let contents = [
            (String::new(), "is not a claim"),
            (whole[..whole.len() - 1].to_string(), "is not a claim"),
            (String::from("mallory\n"), "is not a claim"),
            (String::from("000000000000000b host\n"), "was written by another version"),
            (whole, "does not authenticate"),
            (file(&b, 3), "does not authenticate"),
            (file(&other_pair, 2), "does not authenticate"),
            (file(&insecure, 2), "has no tag"),
        ];
        for name in ["vm-7.term-2", "vm-7.term-3"] {
            let path = folder.path().join(name);
            for (content, text) in &contents {
                fs::write(&path, content).unwrap();
                if !(name.ends_with('3') && *content == file(&b, 3)) {
                    no_answer([&a, &b], name, text);
                }
            }
            fs::write(&path, file(&b, 2)).unwrap();
            if name.ends_with('3') {
                no_answer([&a, &b], name, "does not authenticate");
            } else {
                assert!(b.claim(Term(2), A).unwrap() && !a.claim(Term(2), A).unwrap());
                no_answer([&insecure, &insecure], name, "was made with a key");
            }
            fs::remove_file(&path).unwrap();
        }
        // Also the claim of the term before must be one of the pair.
        fs::write(folder.path().join("vm-7.term-1"), file(&insecure, 1)).unwrap();
        no_answer([&a, &b], "vm-7.term-1", "has no tag");
    }

    #[test]
    fn claims_without_a_key_work_between_hosts_without_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = [0xa, 0xb].map(|claimant| {
            FileWitness::open(folder.path().into(), config(claimant, 0), WitnessId(1)).unwrap()
        });
        assert!(a.claim(Term(1), None).unwrap());
        assert!(b.claim(Term(2), A).unwrap() && !a.claim(Term(2), A).unwrap());
    }

    #[test]
    fn folder_that_every_user_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let set =
            |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        let warning = || {
            let config = config(1, 1);
            FileWitness::open(folder.path().into(), config, WitnessId(1)).unwrap().warning()
        };
        for mode in [0o777, 0o702] {
            set(mode);
            let error = open_error(folder.path()).to_string();
            assert!(
                error.contains("chmod o-w") && error.contains(&format!("{mode:04o}")),
                "{error}"
            );
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written there");
        for mode in [0o1777, 0o770, 0o2770] {
            set(mode);
            let warning = warning().unwrap();
            assert!(
                warning.contains(&format!("{mode:04o}")) && !warning.contains('\n'),
                "{warning}"
            );
        }
        for mode in [0o755, 0o700] {
            set(mode);
            assert_eq!(warning(), None);
        }
    }

    /// Needs root: a file system without hard links is mounted.
    #[test]
    #[cfg(feature = "host-tests")]
    fn storage_without_hard_links_is_named_at_start_and_at_a_claim() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = pair(folder.path());
        assert!(a.claim(Term(1), None).unwrap());
        mount(Some("mqueue"), folder.path(), Some("mqueue"), MsFlags::empty(), None::<&str>)
            .unwrap();
        let at_start = FileWitness::open(folder.path().into(), config(1, 1), WitnessId(1));
        let at_claim = folder::probe(folder.path(), Claimant(1));
        umount2(folder.path(), MntFlags::MNT_DETACH).unwrap();
        let text = "this storage makes no hard links";
        let error = at_start.unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(folder.path().to_str().unwrap()), "{error}");
        let error = a.file_error("vm-7.term-2", at_claim.unwrap_err()).to_string();
        assert!(error.contains(&format!("vm-7.term-2 can't be made: {text}")), "{error}");
        assert!(b.claim(Term(2), A).unwrap());
    }

    /// What somebody who foresaw the name of a temporary file put there is not written to.
    #[test]
    fn claim_does_not_follow_a_link_at_its_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let [a, _] = pair(folder.path());
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, folder.path().join(".000000000000000a.vm-7.term-1")).unwrap();
        assert!(a.claim(Term(1), None).unwrap());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
