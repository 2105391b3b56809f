//! The user and the capabilities of the calling thread (credentials(7), capabilities(7)). In Linux they belong to the
//! thread. libc's functions change those of all threads, with signals; these here change only the caller's.

use nix::unistd::{Gid, Uid};
use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// The kernel has no capability with this number or a higher one.
const CAPABILITIES_MAX: u32 = 64;

/// A capability, by its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// Passes the permissions of files.
    DacOverride = 1,
    /// Opens and configures taps of other users.
    NetAdmin = 12,
    /// Opens packet sockets.
    NetRaw = 13,
}

#[repr(C)]
struct Header {
    version: u32,
    thread: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the calling thread the user `uid`, the group `gid` and no other group. From another user than root, the
/// kernel takes its capabilities.
///
/// # Errors
///
/// The thread may not do that, or its user namespace has no such user.
pub fn become_user(uid: Uid, gid: Gid) -> io::Result<()> {
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    // SAFETY: a length of 0, so the pointer is not used.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Takes all capabilities but `kept` from the bounding set of the calling thread. Without the right to that, does
/// nothing: then the thread has little to lose.
pub fn limit_capabilities(kept: &[Capability]) {
    for number in (0..CAPABILITIES_MAX).filter(|number| !kept.iter().any(|&k| k as u32 == *number))
    {
        // SAFETY: takes no pointers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } < 0 {
            return;
        }
    }
}

/// Takes all capabilities but `kept` from the calling thread, and keeps those of them that it has.
///
/// # Errors
///
/// A system call fails.
pub fn keep_capabilities(kept: &[Capability]) -> io::Result<()> {
    let header = Header { version: VERSION, thread: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both structures are live, and of the layout and number that this version has.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    let mask = kept.iter().fold(0_u32, |mask, &capability| mask | 1 << (capability as u32));
    sets[0].permitted &= mask;
    sets[0].effective = sets[0].permitted;
    sets[1] = Sets { effective: 0, permitted: 0, inheritable: 0 };
    sets[0].inheritable = 0;
    // SAFETY: as above; the kernel reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })?;
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL;
    // SAFETY: takes no pointers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) }.into())
}
