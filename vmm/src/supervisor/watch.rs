//! The supervisor's own program: holds the newest notice, waits until the VM's process is gone, and sends it.
//!
//! The VM's process starts it with these descriptors:
//!
//! | descriptor | is |
//! |---|---|
//! | 0 | its end of the socket pair |
//! | 1 | the pidfd of the VM's process; nothing is ever written to it |
//! | 2 | a pipe to the VM's process, for the message about an error |
//!
//! It has one thread, and needs no time limit: each descriptor wakes it, and so does the pidfd of the vCPU thread,
//! which it opens when it is told which one that is.

use super::message::{MESSAGE_BYTES_MAX, Message};
use crate::kvm::credentials::{self, Capability};
use crate::kvm::{pidfd, priority};
use crate::link::header;
use logchan::ids::VmId;
use logchan::seal::DEATH_NOTICE_BYTES;
use netpath::{FrameSender, MacAddr, PortError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_name, set_no_new_privs};
use nix::sys::signal::SigSet;
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::{close, setsid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// Pauses before each transmission of the notice. A lost frame costs a pause; the peer accepts the first that
/// arrives and ignores the others.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(5)];

/// Why the supervisor can't watch.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It was not started by a VM's process.
    #[error("'understudy supervise' is started by 'understudy primary' and 'backup' themselves")]
    NotStartedByVm,
    /// The interface of the log link can't be used.
    #[error("the supervisor can't send: {0}")]
    Port(#[from] PortError),
    /// A system call failed.
    #[error("{doing}: {source}")]
    Os {
        /// What the supervisor was doing.
        doing: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
}

/// Watches the VM's process that started this one, until it is gone. Then sends the newest notice, if there is
/// one, to `peer` on `interface`, for `vm`.
///
/// # Errors
///
/// This process was not started by a VM's process, the interface can't be used, or a system call fails.
pub fn watch(interface: &str, (peer, vm): (MacAddr, VmId)) -> Result<(), WatchError> {
    // First, because the first message may make it open the pidfd of the vCPU thread.
    close_inherited();
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let mut told = Told::new(stdin.as_fd())?;
    detach()?;
    let mut sender = FrameSender::open(interface, peer)?;
    // On a busy host the notice would wait for threads that are of less use to the VM. Without the right to this,
    // it does.
    let _ = priority::run_before_others();
    // The interface may be made again, and its socket must be opened again.
    let kept = [Capability::NetRaw];
    credentials::limit_capabilities(&kept);
    let os = |doing| move |source| WatchError::Os { doing, source };
    credentials::keep_capabilities(&kept).map_err(os("dropping capabilities"))?;
    set_no_new_privs().map_err(|errno| os("setting no_new_privs")(errno.into()))?;
    while !wait(stdout.as_fd(), &mut told)? {}
    if let Some(notice) = told.notice {
        let notice = [header::label(vm).as_slice(), &notice].concat();
        for pause in PAUSES {
            std::thread::sleep(pause);
            // The next transmission may succeed, and the silence timeout remains.
            if sender.send(&notice).is_err()
                // The interface was made again since the start. To open a sender takes milliseconds.
                && let Ok(new) = FrameSender::open(interface, peer)
            {
                sender = new;
                let _ = sender.send(&notice);
            }
        }
    }
    Ok(())
}

/// Closes every descriptor that is not in the table of this [module](self): the user's shell, or whatever started
/// the VM, may have passed some on, and wait for their end. This process has opened none of its own yet.
fn close_inherited() {
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    // Collected first, because reading the directory needs a descriptor, which is gone then.
    for number in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        let _ = close(number);
    }
}

/// Leaves the session of the user's terminal, and blocks every signal that can be blocked: a stop request
/// (Ctrl-C, or systemd's SIGTERM to the whole service) is meant for the VM's process, and this one ends after it.
fn detach() -> Result<(), WatchError> {
    let os = |doing| move |errno: Errno| WatchError::Os { doing, source: errno.into() };
    SigSet::all().thread_block().map_err(os("blocking signals"))?;
    // As `ps` shows it; otherwise it would be "exe", the name of the file that was executed.
    set_name(c"supervise").map_err(os("setting the name"))?;
    setsid().map(drop).map_err(os("leaving the session"))
}

/// Waits until a message has arrived, or the VM's process or its vCPU thread is gone, and returns whether one of
/// them is. All messages that it sent were received by then.
fn wait(process: BorrowedFd<'_>, told: &mut Told<'_>) -> Result<bool, WatchError> {
    let vcpu = told.vcpu.as_ref().map_or(process, OwnedFd::as_fd);
    let mut ends = [process, vcpu, told.socket].map(|file| PollFd::new(file, PollFlags::POLLIN));
    // A broken socket would end every wait at once.
    let count = if told.is_over { 2 } else { 3 };
    match poll(&mut ends[..count], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => {
            return Err(WatchError::Os { doing: "waiting for the VM", source: errno.into() });
        }
    }
    let is_gone = ends[..2].iter().any(|end| end.any().unwrap_or(true));
    told.receive()?;
    Ok(is_gone)
}

/// What the VM's process has told so far.
struct Told<'s> {
    socket: BorrowedFd<'s>,
    /// The vCPU thread, if the kernel has pidfds of threads.
    vcpu: Option<OwnedFd>,
    /// The newest notice, unless nothing is to be sent.
    notice: Option<[u8; DEATH_NOTICE_BYTES]>,
    /// The socket is broken.
    is_over: bool,
}

impl Told<'_> {
    /// Receives the messages that are there.
    fn new(socket: BorrowedFd<'_>) -> Result<Told<'_>, WatchError> {
        let mut told = Told { socket, vcpu: None, notice: None, is_over: false };
        told.receive()?;
        Ok(told)
    }

    fn receive(&mut self) -> Result<(), WatchError> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        while !self.is_over {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => match Message::decode(&buffer[..length]) {
                    Some(Message::Hold(frame)) => self.notice = Some(frame),
                    Some(Message::StandDown) => self.notice = None,
                    // If the thread has ended already, its number may be that of another thread, whose end is
                    // later; or there is none, and the end of the process follows.
                    Some(Message::Watch(thread)) => self.vcpu = pidfd::of_thread(thread).ok(),
                    // The two processes run the same program.
                    None => {}
                },
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOTSOCK) => return Err(WatchError::NotStartedByVm),
                Err(_) => self.is_over = true,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn encoded(message: Message) -> Vec<u8> {
        message.encode(&mut [0; MESSAGE_BYTES_MAX]).to_vec()
    }

    #[test]
    fn newest_message_counts_also_after_its_sender_is_gone() {
        let (vm, ours) = UnixDatagram::pair().unwrap();
        let mut told = Told::new(ours.as_fd()).unwrap();
        assert_eq!(told.notice, None);
        for byte in [1, 2] {
            vm.send(&encoded(Message::Hold([byte; DEATH_NOTICE_BYTES]))).unwrap();
        }
        vm.send(b"nonsense").unwrap();
        told.receive().unwrap();
        assert_eq!(told.notice, Some([2; DEATH_NOTICE_BYTES]));
        vm.send(&encoded(Message::StandDown)).unwrap();
        vm.send(&encoded(Message::Hold([3; DEATH_NOTICE_BYTES]))).unwrap();
        drop(vm);
        told.receive().unwrap();
        assert_eq!(told.notice, Some([3; DEATH_NOTICE_BYTES]));
    }

    #[test]
    fn standing_down_forgets_the_notice() {
        let (vm, ours) = UnixDatagram::pair().unwrap();
        vm.send(&encoded(Message::Hold([1; DEATH_NOTICE_BYTES]))).unwrap();
        vm.send(&encoded(Message::StandDown)).unwrap();
        assert_eq!(Told::new(ours.as_fd()).unwrap().notice, None);
    }

    #[test]
    fn file_instead_of_a_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(Told::new(file.as_fd()), Err(WatchError::NotStartedByVm)));
    }

    #[test]
    fn process_is_gone_when_its_pidfd_is_readable() {
        let (vm, ours) = UnixDatagram::pair().unwrap();
        // A pipe without a writer is readable, like the pidfd of a dead process.
        let (pidfd, process) = io::pipe().unwrap();
        let mut told = Told::new(ours.as_fd()).unwrap();
        vm.send(&encoded(Message::Hold([1; DEATH_NOTICE_BYTES]))).unwrap();
        assert!(!wait(pidfd.as_fd(), &mut told).unwrap());
        vm.send(&encoded(Message::Hold([2; DEATH_NOTICE_BYTES]))).unwrap();
        drop(process);
        assert!(wait(pidfd.as_fd(), &mut told).unwrap());
        assert_eq!(told.notice, Some([2; DEATH_NOTICE_BYTES]), "told just before the death");
    }

    #[test]
    fn notice_is_due_when_the_thread_is_gone_and_the_process_is_not() {
        let (vm, ours) = UnixDatagram::pair().unwrap();
        let (pidfd, _process) = io::pipe().unwrap();
        let mut told = Told::new(ours.as_fd()).unwrap();
        let watched = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let number = pidfd::this_thread();
                vm.send(&encoded(Message::Watch(number))).unwrap();
                assert!(!wait(pidfd.as_fd(), &mut told).unwrap());
                told.vcpu.is_some()
            });
            thread.join().unwrap()
        });
        // Before Linux 6.9 there is nothing to watch.
        assert!(!watched || wait(pidfd.as_fd(), &mut told).unwrap());
    }
}
