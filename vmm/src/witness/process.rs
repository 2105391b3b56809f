//! [`WitnessProcess`]: a process that asks the witness for a VM's process, which can reach neither files nor servers
//! once it runs ([`sandbox`]).
//!
//! It is a copy of the VM's process from before that has started a thread, except for the keys: their pages are empty in
//! a copy ([`SecretPage`](crate::kvm::secret_page::SecretPage)), so it reads the key files again. It has two threads, as
//! the VM's process has for it: a confirmation that hangs delays no claim. It ends when the VM's process does, or when a
//! call that hangs returns after that. What it may do depends on what it needs:
//!
//! | witness | user | capabilities |
//! |---|---|---|
//! | a folder | the one that started the VM | CAP_DAC_OVERRIDE, if that one has it |
//! | etcd | one of its own, or that of `--user` | none |
//! | any, with `--fence` | the one that started the VM | all that one has, for the command |

use super::any::Witness;
use super::asking::Asking;
use super::fence::Fence;
use super::message::{
    QUESTION_BYTES_MAX, REPLY_BYTES_MAX, Reply, decode_question, encode_question,
};
use crate::kvm::credentials::{self, Capability};
use crate::kvm::{pass_fd, process};
use crate::link::key_file::{self, KeyFileError};
use crate::opener;
use crate::sandbox::{self, Helper, SandboxUser};
use crate::stdio;
use logchan::claim::ClaimKey;
use logchan::handshake::Security;
use logchan::ids::{Claimant, WitnessId};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use replication::witness::{Answer, Question};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

/// The process, as the VM's process knows it.
#[derive(Debug)]
pub struct WitnessProcess {
    child: Pid,
    id: WitnessId,
    claimant: Claimant,
    claims: Remote,
    confirmations: Remote,
}

/// The VM's end of a socket to it.
#[derive(Debug)]
pub(super) struct Remote(OwnedFd);

/// What the process is started with.
#[derive(Debug)]
pub struct WitnessSetup {
    /// The witness.
    pub witness: Witness,
    /// Runs before this host takes the VM over.
    pub fence: Option<Fence>,
    /// Whom the process becomes if it needs no files; root becomes a user of its own if nobody is given.
    pub user: Option<SandboxUser>,
    /// Where the key of the claims is from, if they have one.
    pub key_files: Option<KeyFiles>,
    /// Open descriptors of the calling process that are not the witness's.
    pub inherited: Vec<RawFd>,
}

/// The files of the key of a pair, and of the next one.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// The file of `--key`.
    pub key: PathBuf,
    /// The file of `--key-next`.
    pub next: Option<PathBuf>,
}

impl KeyFiles {
    /// Reads the keys, each into a page of its own.
    ///
    /// # Errors
    ///
    /// As [`key_file::security`].
    pub fn read(&self) -> Result<Security, KeyFileError> {
        key_file::security(&self.key, self.next.as_deref())
    }
}

impl WitnessProcess {
    /// Starts the process. The calling process must have one thread.
    ///
    /// # Errors
    ///
    /// A system call fails, or this process has more than one thread.
    pub fn start(setup: WitnessSetup) -> io::Result<WitnessProcess> {
        let pair = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        };
        let ((claims, their_claims), (confirmations, their_confirmations)) = (pair()?, pair()?);
        let (id, claimant) = (setup.witness.id(), setup.witness.claimant());
        let vm_ends = [claims.as_raw_fd(), confirmations.as_raw_fd()];
        let child =
            process::start_child(|| run(setup, vm_ends, [their_claims, their_confirmations]))?;
        let (claims, confirmations) = (Remote(claims), Remote(confirmations));
        Ok(WitnessProcess { child, id, claimant, claims, confirmations })
    }

    /// Returns the identity of the witness.
    pub fn id(&self) -> WitnessId {
        self.id
    }

    /// Returns the name under which the process makes its claims.
    pub fn claimant(&self) -> Claimant {
        self.claimant
    }

    /// Starts a thread that reports the end of the process. Returns the two ends for claims and confirmations.
    pub(super) fn watch(self) -> io::Result<(Remote, Remote)> {
        opener::watch_child(self.child, "witness", "this host can't take the VM over any more")?;
        Ok((self.claims, self.confirmations))
    }
}

impl Remote {
    /// Asks the witness. Calls `fencing` with whether the command of `--fence` runs, when that changes.
    pub(super) fn ask(
        &self,
        question: Question,
        mut fencing: impl FnMut(bool),
    ) -> Result<Answer, String> {
        let gone = || "the process 'witness' is gone".to_owned();
        pass_fd::send(self.0.as_fd(), &encode_question(question), &[]).map_err(|_| gone())?;
        let mut buffer = [0; REPLY_BYTES_MAX];
        let answer = loop {
            let received = pass_fd::receive(self.0.as_fd(), &mut buffer);
            let (length, _no_descriptors) = received.map_err(|_| gone())?;
            match Reply::decode(&buffer[..length]) {
                Some(Reply::Answer(answer)) => break answer,
                Some(Reply::FenceRuns) => fencing(true),
                Some(Reply::FenceEnded) => fencing(false),
                None => break Err(gone()),
            }
        };
        fencing(false);
        answer
    }
}

/// The process's own part.
fn run(setup: WitnessSetup, vm_ends: [RawFd; 2], sockets: [OwnedFd; 2]) -> io::Result<()> {
    let WitnessSetup { mut witness, mut fence, user, key_files, inherited } = setup;
    if let Some(files) = key_files {
        let security = files.read().map_err(|error| {
            stdio::message(format_args!("understudy: the process 'witness': {error}"));
            io::Error::other(error)
        })?;
        witness.set_key(ClaimKey::of(&security));
    }
    let closed: Vec<_> = inherited.into_iter().chain(vm_ends).collect();
    opener::become_child(c"witness", &closed)?;
    let helper = give_up_permissions(&witness, fence.as_ref(), user)?;
    let enter = move || match helper {
        Some(helper) => sandbox::enter_helper(helper).map_err(io::Error::other),
        None => Ok(()),
    };
    let [claims, confirmations] = sockets;
    if let Some(fence) = &mut fence {
        let teller = claims.try_clone()?;
        fence.report_runs(Box::new(move |runs| {
            let reply = if runs { Reply::FenceRuns } else { Reply::FenceEnded };
            // The VM's process is gone; the command goes on to its end.
            let _ = pass_fd::send(teller.as_fd(), &reply.encode(), &[]);
        }));
    }
    let witness = Arc::new(witness);
    let mut confirming = Asking::new(Arc::clone(&witness), None);
    std::thread::Builder::new().name("witness-check".into()).spawn(move || {
        enter()?;
        serve(&confirmations, &mut confirming)
    })?;
    // The last thread is started.
    enter()?;
    serve(&claims, &mut Asking::new(witness, fence))
}

/// Returns what the filter of system calls has to allow; `None`: there is none.
fn give_up_permissions(
    witness: &Witness,
    fence: Option<&Fence>,
    user: Option<SandboxUser>,
) -> io::Result<Option<Helper>> {
    let (kept, helper): (&[Capability], _) = match (fence, witness) {
        // The command may need everything, and would inherit all of this.
        (Some(_), Witness::Folder(_) | Witness::Etcd(_)) => return Ok(None),
        (None, Witness::Folder(_)) => (&[Capability::DacOverride], Helper::FolderWitness),
        (None, Witness::Etcd(_)) => (&[], Helper::EtcdWitness),
    };
    credentials::limit_capabilities(kept);
    if let (Witness::Etcd(_), Some(user)) = (witness, user.or_else(SandboxUser::of_this_process)) {
        credentials::become_user(user.uid, user.gid)?;
    }
    credentials::keep_capabilities(kept)?;
    set_no_new_privs()?;
    Ok(Some(helper))
}

/// Answers the questions that arrive at `socket`, until its other end is closed.
fn serve(socket: &OwnedFd, asking: &mut Asking) -> io::Result<()> {
    loop {
        let mut buffer = [0; QUESTION_BYTES_MAX + 1];
        let (length, _no_descriptors) = pass_fd::receive(socket.as_fd(), &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let Some(question) = decode_question(&buffer[..length]) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let answer = asking.answer(question);
        pass_fd::send(socket.as_fd(), &Reply::Answer(answer.clone()).encode(), &[])?;
        // Nobody waits for this now.
        asking.prepare_next(question, &answer);
    }
}
