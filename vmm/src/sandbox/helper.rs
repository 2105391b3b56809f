//! The system calls of the processes that work for a VM's process: the opener, and the one that asks the witness.
//!
//! A guest does not reach them: it has to control the VM's process first, and then finds a socket on which one of a few
//! messages can be sent. So another call does not end the process, as it does in the VM's: it fails with EPERM, and so does
//! the request that it was made for, with that reason.

use super::SandboxError;
use super::filter::{Call, EVERY_THREAD, always, one_of, rules_of};
use libc::{
    SYS_bind, SYS_chmod, SYS_connect, SYS_fchmod, SYS_fchmodat, SYS_fcntl, SYS_fdatasync,
    SYS_flock, SYS_fstatfs, SYS_fsync, SYS_ftruncate, SYS_getdents64, SYS_getsockname,
    SYS_getsockopt, SYS_ioctl, SYS_link, SYS_linkat, SYS_listen, SYS_lseek, SYS_mkdir, SYS_mkdirat,
    SYS_pread64, SYS_pwrite64, SYS_recvfrom, SYS_recvmsg, SYS_rename, SYS_renameat, SYS_renameat2,
    SYS_rmdir, SYS_sendmsg, SYS_sendto, SYS_setsockopt, SYS_socket, SYS_statfs, SYS_uname,
    SYS_unlink, SYS_unlinkat, SYS_utimensat,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// The opener.
    Opener,
    /// Asks a witness that is a folder.
    FolderWitness,
    /// Asks a witness in etcd. The host's configuration says how a name is resolved, with what libraries and sockets, so
    /// the calls are not known: what is known to be needed by nobody is refused.
    EtcdWitness,
}

/// Requests, and answers with descriptors.
const MESSAGES: &[Call] = &[always(SYS_recvmsg), always(SYS_sendmsg)];

/// Files, by their names.
const FILES: &[Call] = &[
    always(libc::SYS_open),
    always(libc::SYS_openat),
    always(libc::SYS_stat),
    always(libc::SYS_fstat),
    always(libc::SYS_lstat),
    always(libc::SYS_newfstatat),
    always(libc::SYS_statx),
    always(libc::SYS_access),
    always(libc::SYS_faccessat),
    always(libc::SYS_faccessat2),
    always(libc::SYS_readlink),
    always(libc::SYS_readlinkat),
    always(libc::SYS_getcwd),
    // A snapshot or a claim is written under another name and then gets its own; a report has a folder.
    always(SYS_rename),
    always(SYS_renameat),
    always(SYS_renameat2),
    always(SYS_link),
    always(SYS_linkat),
    always(SYS_unlink),
    always(SYS_unlinkat),
    always(SYS_mkdir),
    always(SYS_mkdirat),
    always(SYS_rmdir),
    always(SYS_chmod),
    always(SYS_fchmod),
    always(SYS_fchmodat),
    always(SYS_utimensat),
    always(SYS_fcntl),
    always(SYS_flock),
    always(SYS_lseek),
    always(SYS_pread64),
    always(SYS_pwrite64),
    always(SYS_ftruncate),
    always(SYS_fsync),
    always(SYS_fdatasync),
    always(SYS_getdents64),
    // What kind of file system a witness is on.
    always(SYS_statfs),
    always(SYS_fstatfs),
    // The name of the host is in a claim. Who the process is decides whose file may be replaced.
    always(SYS_uname),
    always(libc::SYS_geteuid),
    always(libc::SYS_getuid),
];

/// Taps, packet sockets and the control socket.
const PORTS: &[Call] = &[
    // The last one asks the kernel for interfaces; the one before it is only used for ioctls.
    one_of(SYS_socket, 0, &[AF_UNIX, AF_PACKET, AF_INET, AF_NETLINK]),
    always(SYS_bind),
    always(SYS_listen),
    always(SYS_connect),
    always(SYS_setsockopt),
    always(SYS_getsockopt),
    always(SYS_getsockname),
    always(SYS_recvfrom),
    // To the kernel by netlink: libc lists interfaces so.
    one_of(SYS_sendto, 5, &[NETLINK_ADDRESS_BYTES]),
    always(SYS_ioctl),
];

/// Bytes of a `sockaddr_nl`; an address of a packet socket has 20.
const NETLINK_ADDRESS_BYTES: u64 = size_of::<libc::sockaddr_nl>() as u64;

const AF_UNIX: u64 = libc::AF_UNIX as u64;
const AF_INET: u64 = libc::AF_INET as u64;
const AF_NETLINK: u64 = libc::AF_NETLINK as u64;
const AF_PACKET: u64 = libc::AF_PACKET as u64;

/// What no process here needs: other programs, other processes, the kernel's own programs, and rings, which do what a
/// filter does not see.
const NEEDED_BY_NOBODY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kill,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_mknod,
    libc::SYS_mknodat,
];

/// Makes the calling thread, and those that it starts, refuse the calls that `helper` does not need. The thread must have
/// `no_new_privs`.
///
/// # Errors
///
/// The kernel refuses the filter.
pub fn enter_helper(helper: Helper) -> Result<(), SandboxError> {
    Ok(apply_filter(&filter_of(helper)?)?)
}

fn filter_of(helper: Helper) -> Result<BpfProgram, SandboxError> {
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32));
    let (rules, default, listed) = match helper {
        Helper::Opener => (rules_of(&[EVERY_THREAD, MESSAGES, FILES, PORTS])?, refuse, allow),
        Helper::FolderWitness => (rules_of(&[EVERY_THREAD, MESSAGES, FILES])?, refuse, allow),
        Helper::EtcdWitness => {
            let refused = NEEDED_BY_NOBODY.iter().map(|&number| (number, Vec::new())).collect();
            (refused, allow, refuse)
        }
    };
    Ok(SeccompFilter::new(rules, default, listed, TargetArch::x86_64)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::pass_fd;
    use nix::errno::Errno;
    use nix::sys::prctl::set_no_new_privs;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::io;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    const HELPERS: [Helper; 3] = [Helper::Opener, Helper::FolderWitness, Helper::EtcdWitness];

    /// Runs `attempt` on a thread that has entered as `helper`.
    fn on_thread<T: Send>(helper: Helper, attempt: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                set_no_new_privs().unwrap();
                enter_helper(helper).unwrap();
                attempt()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn helper_starts_no_program_and_makes_no_ring() {
        for helper in HELPERS {
            let exec = || nix::unistd::execv(c"/bin/true", &[CString::default()]).unwrap_err();
            assert_eq!(on_thread(helper, exec), Errno::EPERM, "{helper:?}");
            let ring = on_thread(helper, || netpath::ring::probe::probe().is_err());
            assert!(ring, "{helper:?}");
            let parent = || nix::sys::signal::kill(nix::unistd::getppid(), None).unwrap_err();
            assert_eq!(on_thread(helper, parent), Errno::EPERM, "{helper:?}");
        }
        let denied = |helper| on_thread(helper, || UdpSocket::bind("127.0.0.1:0").is_err());
        assert!(denied(Helper::FolderWitness), "it needs no socket");
        assert!(!denied(Helper::EtcdWitness), "it reaches servers");
        for helper in [Helper::Opener, Helper::FolderWitness] {
            let starts = || std::thread::Builder::new().spawn(|| {}).is_ok();
            assert!(!on_thread(helper, starts), "{helper:?}");
        }
    }

    #[test]
    fn helper_works_on_files_and_answers_with_descriptors() {
        for helper in HELPERS {
            let folder = tempfile::tempdir().unwrap();
            let work = || -> io::Result<()> {
                let [old, new] = ["old", "new"].map(|name| folder.path().join("in").join(name));
                fs::create_dir_all(folder.path().join("in"))?;
                let file = File::create(&old)?;
                file.set_len(5)?;
                file.sync_all()?;
                fs::rename(&old, &new)?;
                fs::hard_link(&new, &old)?;
                assert_eq!(fs::read_dir(folder.path().join("in"))?.count(), 2);
                fs::remove_file(&old)?;
                Ok(())
            };
            on_thread(helper, work).unwrap_or_else(|error| panic!("{helper:?}: {error}"));
            let flags = SockFlag::SOCK_CLOEXEC;
            let (ours, theirs) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
            on_thread(helper, || pass_fd::send(ours.as_fd(), b"x", &[theirs.as_fd()])).unwrap();
            let (length, files) =
                on_thread(helper, || pass_fd::receive(theirs.as_fd(), &mut [0; 2])).unwrap();
            assert_eq!((length, files.len()), (1, 1), "{helper:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let listen = || UnixListener::bind(folder.path().join("socket")).is_ok();
        assert!(on_thread(Helper::Opener, listen));
        let interfaces =
            on_thread(Helper::Opener, || nix::ifaddrs::getifaddrs().map(Iterator::count));
        assert!(interfaces.unwrap() > 0, "there is the loopback interface");
    }
}
