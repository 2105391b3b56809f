//! Disks that both hosts of a pair share: the lock of the one image, which only the host has that runs the VM.
//!
//! ```text
//!   boot     lock ------------------------------> requests
//!   backup   no lock, no request
//!            takeover: set_shared(Own) -> lock -> requests
//!   handover set_shared(Other) -> unlock, no request
//! ```
//!
//! A host that takes the VM over may find the image locked: the kernel closes the files of a killed process when its last
//! requests are done, and the server of a network file system learns late that a client is gone. The thread of the disk
//! waits for the lock, and the requests behind it in the channel wait, too. The lock is not what keeps the lost host from
//! the image: the fence has done that before.

use super::Disks;
use super::error::ImageError;
use super::image::{Cache, Image};
use super::request::ToDisk;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use replication::replica::SharedUse;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// After this time, a message says that the lock is held.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Whether the two hosts of a pair have one image of a disk, or one each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskMode {
    /// Each has one of its own.
    #[default]
    Mirrored,
    /// Both have the same one.
    Shared,
}

/// The vCPU thread's end of a lock.
#[derive(Debug)]
pub(super) struct SharedHandle {
    is_wanted: Arc<AtomicBool>,
}

impl Drop for SharedHandle {
    /// Ends the wait for the lock, so that the thread can end.
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Release);
    }
}

/// The lock of an image that both hosts share, as the thread of the disk has it.
#[derive(Debug)]
pub(super) struct Gate {
    file: File,
    is_wanted: Arc<AtomicBool>,
    is_locked: bool,
}

impl Gate {
    /// Takes over the lock of `image`, which this process has if it uses the image.
    ///
    /// # Errors
    ///
    /// Reads and writes of the image pass the page cache of this host: what the guest takes for written would be lost with
    /// the host.
    pub(super) fn new(
        image: &mut Image,
        shared: SharedUse,
    ) -> Result<(Gate, SharedHandle), ImageError> {
        image.use_direct()?;
        match image.cache {
            Cache::Direct => {}
            Cache::Buffered => return Err(ImageError::SharedCache),
        }
        let is_locked = shared == SharedUse::Own;
        let is_wanted = Arc::new(AtomicBool::new(is_locked));
        let handle = SharedHandle { is_wanted: Arc::clone(&is_wanted) };
        Ok((Gate { file: image.file.try_clone()?, is_wanted, is_locked }, handle))
    }

    /// Returns whether this host may use the image.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// Locks the image, which is called `name` in messages, and waits for that as long as it is wanted; or unlocks it.
    pub(super) fn set(&mut self, shared: SharedUse, name: &str) {
        match shared {
            SharedUse::Own if self.is_locked => {}
            SharedUse::Own => self.wait_for_lock(name),
            SharedUse::Other => {
                self.is_locked = false;
                if let Err(errno) = ofd_lock(&self.file, libc::F_UNLCK) {
                    tracing::warn!("{name}: can't be unlocked for the other host: {errno}");
                }
            }
        }
    }

    fn wait_for_lock(&mut self, name: &str) {
        let start = Instant::now();
        let mut is_reported = false;
        while self.is_wanted.load(Ordering::Acquire) {
            let why = match ofd_lock(&self.file, libc::F_WRLCK) {
                // A file system without locks: at the start, a warning has said so.
                Ok(()) | Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                    self.is_locked = true;
                    return;
                }
                Err(Errno::EAGAIN | Errno::EACCES) => "another process has locked it",
                Err(errno) => errno.desc(),
            };
            if !is_reported && start.elapsed() >= LOCK_PATIENCE {
                is_reported = true;
                tracing::error!(
                    "{name}: can't be locked, although the VM was taken over: {why}. The guest's requests wait until that \
                     process ends (lslocks)"
                );
            }
            thread::park_timeout(LOCK_RETRY);
        }
    }
}

/// Locks the whole of `file` at once, or unlocks it.
fn ofd_lock(file: &File, kind: i32) -> Result<(), Errno> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole)).map(drop)
}

impl Disks {
    /// Sets whether this host uses the images that both hosts share. Those that are only read need no lock. Waits for
    /// nothing: requests that are submitted from here on wait for the lock.
    pub fn set_shared(&mut self, shared: SharedUse) {
        for disk in &mut self.disks {
            let Some(handle) = &disk.shared else { continue };
            handle.is_wanted.store(shared == SharedUse::Own, Ordering::Release);
            disk.send(ToDisk::Share(shared));
        }
    }
}

/// The error of a request to an image that this host may not use.
pub(super) fn not_locked() -> io::Error {
    io::Error::other("the other host may use the image")
}

#[cfg(test)]
mod tests {
    use crate::disk::lock::{ImageLock, lock};
    use crate::disk::{DiskError, DiskMode, DiskOptions, Disks, ImageError, Kick, Writes};
    use replication::boundary::{DiskOperation, DiskRequest, DiskStatus};
    use replication::replica::SharedUse::{self, Other, Own};
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_secs(20);

    /// Makes an image where there is direct I/O: tmpfs may have none.
    fn image(folder: &Path) -> PathBuf {
        let path = folder.join("disk.img");
        std::fs::write(&path, vec![0; 1 << 16]).unwrap();
        path
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    fn open(image: &Path, shared: SharedUse) -> Result<Disks, DiskError> {
        let options = DiskOptions { mode: DiskMode::Shared, ..DiskOptions::new(image) };
        Disks::open(&[options], Writes::Shared(shared), Kick::default())
    }

    fn write(disks: &mut Disks, number: u64, byte: u8) {
        let (operation, data) = (DiskOperation::Write, &[byte; 512]);
        disks.submit(&DiskRequest { disk: 0, number, operation, sector: 0, bytes: 512, data });
    }

    fn status(disks: &mut Disks, number: u64) -> DiskStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = disks.done(0, number) {
                disks.take_done(0, number);
                return status;
            }
            assert!(start.elapsed() < LIMIT, "request {number} is not done");
            std::thread::yield_now();
        }
    }

    #[test]
    fn image_belongs_to_one_host_at_a_time_and_the_other_waits_for_its_lock() {
        let folder = folder();
        let path = image(folder.path());
        let mut primary = open(&path, Own).unwrap();
        let mut backup = open(&path, Other).unwrap();
        assert!(matches!(open(&path, Own), Err(DiskError { source: ImageError::Busy(_), .. })));
        write(&mut primary, 1, 1);
        assert_eq!(status(&mut primary, 1), DiskStatus::Done);

        backup.set_shared(Own);
        write(&mut backup, 1, 2);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(backup.done(0, 1), None, "it did not wait for the lock");
        primary.set_shared(Other);
        assert_eq!(status(&mut backup, 1), DiskStatus::Done);
        assert_eq!(std::fs::read(&path).unwrap()[..512], [2; 512]);
        write(&mut primary, 2, 3);
        assert_eq!(status(&mut primary, 2), DiskStatus::Failed, "it has no right");
        assert_eq!(std::fs::read(&path).unwrap()[..512], [2; 512]);
    }

    #[test]
    fn wait_for_a_lock_that_nobody_gives_back_ends_with_the_disks() {
        let folder = folder();
        let path = image(folder.path());
        let file = File::options().read(true).write(true).open(&path).unwrap();
        assert_eq!(lock(&file, ImageLock::Exclusive).unwrap(), None);
        let mut backup = open(&path, Other).unwrap();
        backup.set_shared(Own);
        write(&mut backup, 1, 1);
        drop(backup);
        assert_eq!(std::fs::read(&path).unwrap()[..512], [0; 512]);
    }

    #[test]
    fn mode_is_that_of_the_command() {
        let folder = folder();
        let path = image(folder.path());
        let options = DiskOptions { mode: DiskMode::Shared, ..DiskOptions::new(&path) };
        let opened = Disks::open(&[options], Writes::InPlace, Kick::default());
        assert!(matches!(opened, Err(DiskError { source: ImageError::OfAPair, .. })));
    }
}
