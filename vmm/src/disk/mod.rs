//! Disks of a VM: their images, and the threads that read and write them.
//!
//! ```text
//!              vCPU thread                       thread of a disk
//!   submit ----------- Request (channel) -------> order -> io_uring or Storage
//!   next_completion <- Completed (channel) ------ reporter; kick
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `options.rs` | what `--disk` says |
//! | `image.rs`, `lock.rs` | opens and locks an image |
//! | `order.rs` | which requests may run at the same time |
//! | `ring_thread.rs`, `ring.rs` | raw images, through an io_uring |
//! | `copying.rs` | the copy to a new backup, as the engine uses it |
//! | `copy_source.rs`, `copy_target.rs`, `copy.rs` | its two sides, as pure code, and what they share |
//! | `changes.rs`, `extents.rs` | which blocks and which larger parts of a disk have changed |
//! | `superblock.rs`, `keeper.rs`, `keeping.rs` | what is known about an image, in a file beside it |
//! | `boot.rs` | whether a VM may boot from an image |
//! | `bugs.rs` | bugs for tests |
//! | `storage_thread.rs`, `storage/` | everything else: overlays, other formats, hosts without io_uring |
//! | `frozen.rs` | what a guest has written to an overlay, as a part of a snapshot |
//! | `saved.rs` | writes that into the image of a VM of a pair |
//! | `faults.rs` | what follows from an error of the host |
//! | `mirror.rs` | what only a host of a pair needs |
//! | `shared.rs` | the lock of an image that both hosts of a pair share |
//! | `digest.rs` | the digest of a disk's contents |
//!
//! `docs/disks.md` says what a guest and an operator may rely on.

mod boot;
#[cfg(test)]
mod boot_tests;
mod buffers;
mod bugs;
mod changes;
mod copy;
mod copy_source;
mod copy_target;
#[cfg(test)]
mod copy_tests;
mod copying;
mod digest;
mod error;
mod extents;
mod faults;
mod frozen;
#[cfg(test)]
mod frozen_tests;
mod image;
mod keeper;
mod keeping;
#[cfg(test)]
mod keeping_tests;
mod lock;
#[cfg(test)]
mod medium_tests;
mod mirror;
mod options;
mod order;
#[cfg(test)]
mod qcow2_tests;
mod reporter;
mod request;
mod ring;
mod ring_thread;
#[cfg(test)]
mod sandbox_tests;
mod saved;
mod shared;
mod storage;
mod storage_thread;
mod superblock;
#[cfg(test)]
mod tests;

pub use boot::{Refusal, Word};
pub use bugs::{DiskBug, DiskBugs};
pub use copy::{CopyFault, CopyProgress, CopyState};
pub use error::{DiskError, ImageError};
pub use frozen::{Changes, Frozen, FrozenError, Section};
pub use keeping::KeepState;
pub use lock::Holder;
pub use options::{DiskAccess, DiskOptions, ImageFormat};
pub use reporter::Kick;
pub use shared::DiskMode;

use crate::kvm::kick::spawn_unkicked;
use crate::limits::{DISK_KEEPS_MAX, DISK_REQUESTS_MAX, DISK_SLOTS_MAX};
use buffers::{Buffer, Pool};
use changes::BlockSet;
use copy::CopyAnswer;
use copying::{CopiesInFlight, Copying};
use crossbeam::channel::{self, Receiver, Sender};
use extents::Extents;
use faults::Faults;
use image::{Cache, Image, SECTOR_BYTES, Use};
use keeper::Keeper;
use keeping::KeptDisk;
use logchan::disk_copy::Generation;
use logchan::ids::VmId;
use logchan::limits::{DISK_SERIAL_BYTES, DISKS_MAX};
use replication::boundary::{DiskCompletion, DiskOperation, DiskRequest, DiskStatus};
use replication::replica::{FailedRequests, SharedUse};
use reporter::Reporter;
use request::{Completed, Origin, Request, ToDisk, modifies};
use ring::{Ring, Waker};
use ring_thread::{End, RingThread};
use serde::{Deserialize, Serialize};
use shared::{Gate, SharedHandle};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use storage::Storage;
use storage::file::FileStorage;
use storage::layered::Layered;
use storage::overlay::Overlay;
use storage::qcow2::Qcow2Storage;
use storage_thread::StorageThread;

/// Where the guest's writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Into the image, which nobody else may use meanwhile.
    InPlace,
    /// As `InPlace`, on one of two hosts that run this VM. A file beside each image, its superblock, says what it has.
    Mirrored(VmId),
    /// Into the image that both hosts of a pair have. This host uses it, or the other one does.
    Shared(SharedUse),
    /// Into a private file that is gone at the end. The image is only read, and others may read it, too.
    Overlay,
}

/// What the machine must know about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// The guest may not write.
    pub read_only: bool,
    /// The serial number, padded with zeros.
    pub serial: [u8; DISK_SERIAL_BYTES],
}

/// What happened to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DiskReport {
    /// Requests that have failed.
    pub failed: u64,
}

/// All disks of a VM. The vCPU thread has them; each has a thread of its own, which ends when they are dropped.
///
/// No method but [`wait_for`](Disks::wait_for), [`digest`](Disks::digest) and the drop waits for I/O.
#[derive(Debug)]
pub struct Disks {
    info: Vec<DiskInfo>,
    disks: Vec<Disk>,
    completed: Receiver<Completed>,
    /// Completed requests that were received but not taken.
    waiting: VecDeque<Completed>,
    failed: FailedRequests,
    /// The one that was taken last.
    taken: Option<Completed>,
    /// Requests of a machine that is gone, in flight.
    forgotten: usize,
    kick: Kick,
    copied: Receiver<CopyAnswer>,
    copies: CopiesInFlight,
    copying: Copying,
    /// The generation in which the other host last had the same contents.
    base: Option<Generation>,
    bugs: DiskBugs,
}

/// One disk, as the vCPU thread sees it.
#[derive(Debug)]
struct Disk {
    bytes: u64,
    access: DiskAccess,
    /// Blocks that have changed since the other host had the same contents.
    changed: BlockSet,
    /// Those that have changed since the closing checkpoint of a copy that the backup has not confirmed.
    changed_since_close: Option<BlockSet>,
    /// For the digest: reads what the guest finds at its start.
    base: Base,
    requests: Option<Sender<ToDisk>>,
    /// The lock, if both hosts have the image.
    shared: Option<SharedHandle>,
    /// Its superblock, if it has one.
    kept: Option<KeptDisk>,
    /// What the user says about the image.
    word: Word,
    wake: Option<Wake>,
    pool: Pool,
    /// Numbers of the requests that were submitted and not taken.
    in_flight: Vec<u64>,
    failed: Arc<AtomicU64>,
    /// Data that the guest takes for written are lost.
    is_lost: bool,
    thread: Option<Thread>,
}

/// The ends of the channels that the threads of the disks have.
type Senders = (Sender<Completed>, Sender<CopyAnswer>);

/// The thread of a disk. It returns the contents of the disk, unless they are those of a ring.
type Thread = JoinHandle<Option<Box<dyn Storage>>>;

/// How the thread of a ring is woken.
#[derive(Debug)]
struct Wake {
    waker: Waker,
    is_waiting: Arc<AtomicBool>,
}

/// A second view of an image, to read it whole.
#[derive(Debug)]
struct Base {
    file: File,
    path: PathBuf,
    format: ImageFormat,
    /// What was written to the disk before its VM was saved.
    frozen: Option<Frozen>,
}

impl Disks {
    /// Opens and locks the images, and starts the threads of the disks. Call it before the sandbox closes. The threads
    /// kick whoever [attends](Kick::attend) to `kick`.
    ///
    /// # Errors
    ///
    /// An image can't be used.
    pub fn open(options: &[DiskOptions], writes: Writes, kick: Kick) -> Result<Disks, DiskError> {
        let mut disks = Disks { kick, ..Disks::none() };
        let senders = disks.connect();
        for options in options {
            disks.add((options, None), writes, &senders)?;
        }
        disks.base = disks.common_base();
        Ok(disks)
    }

    /// As [`Disks::open`], for a VM that was saved: with an overlay, each disk is as the guest has left it, with the image
    /// that `options` name below; otherwise it is so after [`Disks::write_saved`].
    ///
    /// # Errors
    ///
    /// An image can't be used.
    pub fn open_saved(
        options: &[DiskOptions],
        saved: Vec<(DiskInfo, Frozen)>,
        (writes, kick): (Writes, Kick),
    ) -> Result<Disks, DiskError> {
        let mut disks = Disks { kick, ..Disks::none() };
        let senders = disks.connect();
        for (options, (info, frozen)) in options.iter().zip(saved) {
            let options = DiskOptions {
                access: match info.read_only {
                    true => DiskAccess::ReadOnly,
                    false => DiskAccess::ReadWrite,
                },
                serial: info.serial,
                ..options.clone()
            };
            disks.add((&options, Some(frozen)), writes, &senders)?;
        }
        disks.base = disks.common_base();
        Ok(disks)
    }

    /// Makes the channels from the threads, and returns their ends of them.
    fn connect(&mut self) -> Senders {
        let (sender, completed) = channel::bounded(DISKS_MAX * DISK_REQUESTS_MAX);
        let (copied_sender, copied) = channel::bounded(DISKS_MAX * DISK_SLOTS_MAX);
        (self.completed, self.copied) = (completed, copied);
        (sender, copied_sender)
    }

    /// Opens one more disk, with what a guest has written to it before.
    fn add(
        &mut self,
        (options, frozen): (&DiskOptions, Option<Frozen>),
        writes: Writes,
        senders: &Senders,
    ) -> Result<(), DiskError> {
        let named = |source| DiskError { path: options.path.clone(), source };
        let index = self.disks.len();
        if index >= DISKS_MAX {
            return Err(named(ImageError::TooMany));
        }
        let reporter = Reporter::new(index as u8, senders.clone(), self.kick.clone());
        let disk = Disk::open((options, frozen), (writes, index as u8), reporter).map_err(named)?;
        self.info.push(DiskInfo {
            sectors: disk.bytes / SECTOR_BYTES,
            read_only: options.access == DiskAccess::ReadOnly,
            serial: options.serial,
        });
        self.disks.push(disk);
        Ok(())
    }

    /// Returns the disks of a VM that has none.
    pub fn none() -> Disks {
        let (_nobody, completed) = channel::bounded(0);
        let (_nobody, copied) = channel::bounded(0);
        Disks {
            info: Vec::new(),
            disks: Vec::new(),
            completed,
            waiting: VecDeque::new(),
            failed: FailedRequests::default(),
            taken: None,
            forgotten: 0,
            kick: Kick::default(),
            copied,
            copies: CopiesInFlight::default(),
            copying: Copying::default(),
            base: None,
            bugs: DiskBugs::default(),
        }
    }

    /// Returns what the machine must know about each disk.
    pub fn info(&self) -> &[DiskInfo] {
        &self.info
    }

    /// Returns how the calling thread makes itself the one that is kicked.
    pub fn kick(&self) -> &Kick {
        &self.kick
    }

    /// Returns a digest of the contents of the image of disk `disk`. Images with the same contents have the same digest,
    /// whatever their holes and formats. Call it before the sandbox closes and the VM runs.
    ///
    /// # Errors
    ///
    /// The image can't be read.
    pub fn digest(&mut self, disk: u8) -> io::Result<u64> {
        self.disks[usize::from(disk)].base.digest()
    }

    /// Returns a digest of what the guest finds on disk `disk` at its start: that of the image, or of the image with the
    /// changes of a VM that was saved.
    ///
    /// # Errors
    ///
    /// As of [`Disks::digest`].
    pub fn contents_digest(&mut self, disk: u8) -> io::Result<u64> {
        self.disks[usize::from(disk)].base.contents_digest()
    }

    /// Waits for the requests in flight and ends the I/O. Returns, for each disk, what the guest has written to it. No
    /// completion of a request that was not taken is there any more: the table in flight of the device has the request.
    ///
    /// # Panics
    ///
    /// If a disk is written in place.
    pub fn freeze(&mut self) -> Vec<Changes> {
        let frozen = self.disks.iter_mut().map(|disk| {
            let changes = disk.end().and_then(|contents| contents.into_changes());
            changes.expect("the disks of a VM that is saved have overlays")
        });
        frozen.collect()
    }

    /// Returns how many requests of disk `disk` have failed.
    pub fn failed(&self, disk: u8) -> u64 {
        self.disks[usize::from(disk)].failed.load(Ordering::Relaxed)
    }

    /// Returns what happened to each disk, for the result of a run.
    pub fn status(&self) -> Vec<DiskReport> {
        let failed = |disk: &Disk| disk.failed.load(Ordering::Relaxed);
        self.disks.iter().map(|disk| DiskReport { failed: failed(disk) }).collect()
    }

    /// Submits a request. Copies the data of a write.
    ///
    /// # Panics
    ///
    /// If the request is not on the disk, or more than [`DISK_REQUESTS_MAX`] are in flight: the device checks both.
    pub fn submit(&mut self, request: &DiskRequest<'_>) {
        assert_eq!(self.forgotten, 0, "a request while an earlier machine's are in flight");
        let disk = &mut self.disks[usize::from(request.disk)];
        if disk.is_lost {
            self.refuse(request);
            return;
        }
        if modifies(request.operation) {
            let range = request::range(request, disk.bytes);
            disk.changed.add_bytes(&range);
            if let Some(changed) = &mut disk.changed_since_close {
                changed.add_bytes(&range);
            }
            if let Copying::Source(source) = &mut self.copying {
                source.changed(request.disk, &range);
            }
        }
        disk.submit(request);
    }

    /// Returns whether a request is complete.
    pub fn has_completion(&mut self) -> bool {
        self.receive();
        self.first_that_may_enter().is_some()
    }

    /// Sets whether a request that has failed counts as complete. Returns whether there is one.
    pub fn set_failed(&mut self, failed: FailedRequests) -> bool {
        self.failed = failed;
        self.receive();
        self.waiting.iter().any(|one| one.status == DiskStatus::Failed)
    }

    fn first_that_may_enter(&self) -> Option<usize> {
        self.waiting.iter().position(|one| match (self.failed, one.status) {
            (FailedRequests::Enter, _) | (FailedRequests::Wait, DiskStatus::Done) => true,
            (FailedRequests::Wait, DiskStatus::Failed) => false,
        })
    }

    /// Returns a request that is complete, in any order.
    pub fn next_completion(&mut self) -> Option<DiskCompletion<'_>> {
        self.receive();
        let completed = self.waiting.remove(self.first_that_may_enter()?)?;
        Some(self.take(completed))
    }

    /// Waits until request `number` of disk `disk` is complete. Returns `None` if no such request is in flight.
    pub fn wait_for(&mut self, disk: u8, number: u64) -> Option<DiskCompletion<'_>> {
        if !self.disks.get(usize::from(disk))?.in_flight.contains(&number) {
            return None;
        }
        let is_it = |completed: &Completed| (completed.disk, completed.number) == (disk, number);
        self.receive();
        let completed = match self.waiting.iter().position(is_it) {
            Some(index) => self.waiting.remove(index)?,
            None => loop {
                let completed = self.completed.recv().expect("the threads of the disks run");
                if is_it(&completed) {
                    break completed;
                }
                self.waiting.push_back(completed);
            },
        };
        Some(self.take(completed))
    }

    /// Returns the generation in which all images last had the contents of the other host's.
    fn common_base(&self) -> Option<Generation> {
        let mut bases = self.disks.iter().filter_map(|disk| Some(disk.kept.as_ref()?.base()));
        let first = bases.next()??;
        bases.all(|base| base == Some(first)).then_some(first)
    }

    fn receive(&mut self) {
        while let Ok(completed) = self.completed.try_recv() {
            self.arrived(completed);
        }
    }

    /// Makes `completed` the one that was taken last, and gives the buffer of the one before it back.
    fn take(&mut self, completed: Completed) -> DiskCompletion<'_> {
        if let Some(before) = self.taken.take() {
            self.disks[usize::from(before.disk)].pool.give_back(before.buffer);
        }
        let in_flight = &mut self.disks[usize::from(completed.disk)].in_flight;
        in_flight.retain(|&number| number != completed.number);
        let completed = self.taken.insert(completed);
        DiskCompletion {
            disk: completed.disk,
            number: completed.number,
            status: completed.status,
            data: completed.data(),
        }
    }
}

impl Disk {
    /// Opens disk `index`, with what a guest has written to it before.
    fn open(
        (options, frozen): (&DiskOptions, Option<Frozen>),
        (writes, index): (Writes, u8),
        reporter: Reporter,
    ) -> Result<Disk, ImageError> {
        let is_mirrored = matches!(writes, Writes::Mirrored(_));
        let is_shared = matches!(writes, Writes::Shared(_));
        if !is_mirrored && (options.state.is_some() || options.word != Word::None)
            || is_shared != (options.mode == DiskMode::Shared)
        {
            return Err(ImageError::OfAPair);
        }
        let usage = match (writes, options.access) {
            (Writes::InPlace | Writes::Mirrored(_) | Writes::Shared(_), DiskAccess::ReadWrite) => {
                Use::Write
            }
            (Writes::InPlace | Writes::Mirrored(_) | Writes::Shared(_), DiskAccess::ReadOnly)
            | (Writes::Overlay, _) => Use::Read,
        };
        let mut image = match (writes, usage) {
            // It is the other host's.
            (Writes::Shared(SharedUse::Other), Use::Write) => {
                image::open_unlocked(&options.path, usage)?
            }
            (
                Writes::InPlace | Writes::Mirrored(_) | Writes::Shared(_) | Writes::Overlay,
                Use::Read | Use::Write,
            ) => image::open(&options.path, usage)?,
        };
        if options.format.is_none()
            && options.format() == ImageFormat::Raw
            && image.looks_like_qcow2()?
        {
            return Err(ImageError::LooksLikeQcow2);
        }
        let file = image.file.try_clone()?;
        let (path, format) = (options.path.clone(), options.format());
        let base = Base { file, path, format, frozen: frozen.clone() };
        let name = options.id.clone().unwrap_or_else(|| options.path.display().to_string());
        let failed = Arc::default();
        let mut faults = Faults::new(name, Arc::clone(&failed));
        let mut shared = None;
        if let (Writes::Shared(used), Use::Write) = (writes, usage) {
            let (gate, handle) = Gate::new(&mut image, used)?;
            faults.add_gate(gate);
            shared = Some(handle);
        }
        let (sender, requests) = channel::bounded(DISK_SLOTS_MAX + DISK_KEEPS_MAX);
        let mut channel = Channel { requests, faults, reporter, keeper: None };
        let mut kept = None;
        let mut keep = |bytes| -> Result<Option<Keeper>, ImageError> {
            let (Writes::Mirrored(vm), Use::Write) = (writes, usage) else { return Ok(None) };
            let (keeper, found) = Keeper::open(&base.file, options, (vm, index, bytes))?;
            kept = Some(KeptDisk::new((vm, index), bytes, (&keeper, found)));
            Ok(Some(keeper))
        };
        let (bytes, thread, wake) = match (writes, options.format()) {
            (Writes::InPlace | Writes::Mirrored(_) | Writes::Shared(_), ImageFormat::Raw) => {
                image.check_size()?;
                let bytes = image.bytes;
                channel.keeper = keep(bytes)?;
                let (thread, wake) = start_raw(image, usage, channel)?;
                (bytes, thread, wake)
            }
            (Writes::InPlace | Writes::Mirrored(_) | Writes::Shared(_), ImageFormat::Qcow2) => {
                let storage = storage(image, &options.path, ImageFormat::Qcow2, usage)?;
                channel.keeper = keep(storage.size())?;
                (storage.size(), start(storage, channel)?, None)
            }
            (Writes::Overlay, format) => {
                let base = layered(storage(image, &options.path, format, usage)?, &frozen);
                let bytes = base.size();
                let file = FileStorage::empty(overlay_file(&options.path, bytes)?, bytes);
                (bytes, start(Box::new(Overlay::new(base, frozen, file)), channel)?, None)
            }
        };
        let extents = kept.as_ref().map(|kept| kept.superblock.extents.blocks(bytes));
        Ok(Disk {
            bytes,
            access: options.access,
            changed: extents.unwrap_or_else(|| BlockSet::new(bytes)),
            changed_since_close: None,
            base,
            requests: Some(sender),
            shared,
            kept,
            word: options.word,
            wake,
            pool: Pool::default(),
            in_flight: Vec::new(),
            failed,
            is_lost: false,
            thread: Some(thread),
        })
    }

    fn submit(&mut self, request: &DiskRequest<'_>) {
        let range = request::range(request, self.bytes);
        let mut buffer = Buffer::default();
        match request.operation {
            DiskOperation::Read => buffer = self.pool.take(request.bytes as usize),
            DiskOperation::Write => {
                buffer = self.pool.take(request.bytes as usize);
                buffer.bytes_mut().copy_from_slice(request.data);
            }
            DiskOperation::Flush | DiskOperation::Discard | DiskOperation::WriteZeroes => {}
        }
        let (number, operation) = (request.number, request.operation);
        assert!(self.in_flight.len() < DISK_REQUESTS_MAX, "the device bounds what is in flight");
        self.in_flight.push(number);
        let origin = Origin::Guest { number };
        self.send(ToDisk::Request(Request { origin, operation, range, buffer }));
    }

    /// Passes something to the thread.
    fn send(&self, message: ToDisk) {
        let requests = self.requests.as_ref().expect("it is there until the drop");
        let sent = requests.try_send(message);
        assert!(sent.is_ok(), "the channel has room for all, and the thread runs");
        if let Some(wake) = &self.wake {
            wake.if_waiting();
        }
    }
}

impl Disk {
    /// Returns the extents that have changed since the other host had the same contents.
    fn extents(&self) -> Extents {
        Extents::of(&self.changed, self.bytes)
    }
}

impl Wake {
    /// Wakes the thread if it waits. The request was sent before, so a thread that does not wait yet finds it.
    fn if_waiting(&self) {
        if self.is_waiting.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }
}

impl Disk {
    /// Ends the thread when all requests in flight are complete. Returns what it returns, the first time.
    fn end(&mut self) -> Option<Box<dyn Storage>> {
        self.requests = None;
        self.shared = None;
        if let Some(wake) = &self.wake {
            wake.waker.wake();
        }
        // One that has panicked has said so.
        self.thread.take()?.join().ok()?
    }
}

impl Drop for Disk {
    /// Waits until all requests in flight are complete: they use memory of the thread.
    fn drop(&mut self) {
        self.end();
    }
}

impl Base {
    fn digest(&self) -> io::Result<u64> {
        digest::of(&mut *self.image()?)
    }

    fn contents_digest(&self) -> io::Result<u64> {
        digest::of(&mut *layered(self.image()?, &self.frozen))
    }

    fn image(&self) -> io::Result<Box<dyn Storage>> {
        let file = self.file.try_clone()?;
        let bytes = image::size(&file)?;
        let image = Image { file, bytes, cache: Cache::Buffered };
        storage(image, &self.path, self.format, Use::Read).map_err(io::Error::other)
    }
}

/// Returns the contents `image` with the changes `frozen`, if there are any.
fn layered(image: Box<dyn Storage>, frozen: &Option<Frozen>) -> Box<dyn Storage> {
    match frozen {
        None => image,
        Some(frozen) => Box::new(Layered::new(image, frozen.clone())),
    }
}

/// Returns the contents of `image`, whose path is `path`.
fn storage(
    image: Image,
    path: &Path,
    format: ImageFormat,
    usage: Use,
) -> Result<Box<dyn Storage>, ImageError> {
    match format {
        ImageFormat::Raw => {
            image.check_size()?;
            Ok(Box::new(FileStorage::new(image)))
        }
        ImageFormat::Qcow2 => Ok(Box::new(Qcow2Storage::open(image, path, usage)?)),
    }
}

/// The thread's end of what a disk is.
struct Channel {
    requests: Receiver<ToDisk>,
    faults: Faults,
    reporter: Reporter,
    keeper: Option<Keeper>,
}

/// Starts the thread of a raw image.
fn start_raw(
    mut image: Image,
    usage: Use,
    channel: Channel,
) -> Result<(Thread, Option<Wake>), ImageError> {
    image.use_direct()?;
    let (ring, waker) = match Ring::new(&image.file) {
        Ok(ring) => ring,
        Err(error) => {
            tracing::debug!("a disk works without io_uring, one request at a time: {error}");
            return Ok((start(Box::new(FileStorage::new(image)), channel)?, None));
        }
    };
    let Channel { requests, faults, reporter, keeper } = channel;
    let is_waiting = Arc::new(AtomicBool::new(false));
    let wake = Wake { waker, is_waiting: Arc::clone(&is_waiting) };
    let end = match usage {
        Use::Write => End::Flush,
        Use::Read => End::Nothing,
    };
    let bytes = image.bytes;
    let thread = RingThread { ring, requests, is_waiting, bytes, faults, reporter, keeper, end };
    let run = move || {
        thread.run();
        None
    };
    let thread = spawn_unkicked("disk", run).map_err(ImageError::Thread)?;
    Ok((thread, Some(wake)))
}

/// Starts the thread of a disk with the contents `storage`.
fn start(storage: Box<dyn Storage>, channel: Channel) -> Result<Thread, ImageError> {
    let Channel { requests, faults, reporter, keeper } = channel;
    let thread = StorageThread { storage, requests, faults, reporter, keeper };
    spawn_unkicked("disk", move || Some(thread.run())).map_err(ImageError::Thread)
}

/// Makes a sparse file without a name: in the folder of `TMPDIR`, if it is set, or else in that of the image, or, if
/// that can't be written, in the one for temporary files.
fn overlay_file(image: &Path, bytes: u64) -> Result<File, ImageError> {
    let beside = image.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = beside.unwrap_or(Path::new("."));
    let temporary = std::env::temp_dir();
    let made = match std::env::var_os("TMPDIR") {
        Some(_) => tempfile::tempfile_in(&temporary),
        None => tempfile::tempfile_in(beside).or_else(|_| tempfile::tempfile_in(&temporary)),
    };
    let sized = made.and_then(|file| file.set_len(bytes).map(|()| file));
    sized.map_err(|error| ImageError::Overlay { folder: temporary, error })
}
