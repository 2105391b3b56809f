//! The thread of a raw image: many requests at a time, through an io_uring.

use super::faults::{Faults, truncated};
use super::image;
use super::keeper::Keeper;
use super::order::Order;
use super::reporter::Reporter;
use super::request::{Origin, Request, ToDisk};
use super::ring::{Ring, ZEROS_BYTES};
use super::storage::file::{PUNCH, ZERO, lacks_fallocate};
use super::storage_thread::{announce, keep};
use crate::disk::buffers::Buffer;
use crate::limits::DISK_SLOTS_MAX;
use crate::sandbox::{self, Task};
use crossbeam::channel::{Receiver, TryRecvError};
use nix::errno::Errno;
use replication::boundary::{DiskOperation, DiskStatus};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the kernel does for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What the request asks for, from this byte on.
    Itself { done: usize },
    /// It writes zeros in place of an fallocate(2) that the file system lacks, from this byte on.
    Zeros { done: u64 },
}

/// A request and what is done for it. Its buffer is in the ring.
#[derive(Debug)]
struct Running {
    request: Request,
    step: Step,
}

/// The thread and what it owns.
pub(super) struct RingThread {
    pub(super) ring: Ring,
    pub(super) requests: Receiver<ToDisk>,
    /// The thread waits, or is about to: who sends a request wakes it.
    pub(super) is_waiting: Arc<AtomicBool>,
    /// Size of the disk, bytes.
    pub(super) bytes: u64,
    pub(super) faults: Faults,
    pub(super) reporter: Reporter,
    pub(super) keeper: Option<Keeper>,
    /// Whether changes are made stable at the end.
    pub(super) end: End,
}

/// What happens when the VM ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// What was written is made stable.
    Flush,
    /// Nothing was written.
    Nothing,
}

impl RingThread {
    /// Executes requests until their sender is gone and all are complete.
    pub(super) fn run(self) {
        let enabled = self.ring.enable();
        sandbox::enter(Task::Disk);
        let mut work = Work {
            thread: self,
            slots: (0..DISK_SLOTS_MAX).map(|_| None).collect(),
            order: Order::default(),
            is_closed: false,
        };
        if let Err(error) = enabled {
            // Nothing is in flight: every request fails at once.
            let host = Origin::Guest { number: 0 };
            work.thread.faults.status(host, DiskOperation::Flush, Err(error));
            work.fail_all();
            return;
        }
        work.run();
    }
}

struct Work {
    thread: RingThread,
    slots: Vec<Option<Running>>,
    order: Order,
    is_closed: bool,
}

impl Work {
    fn run(&mut self) {
        loop {
            self.take_requests();
            self.start_ready();
            if self.is_closed && self.order.len() == 0 {
                break;
            }
            // A request that is sent from here on wakes the thread; one that was sent before is in the channel.
            self.thread.is_waiting.store(true, Ordering::SeqCst);
            if self.thread.requests.is_empty() || self.is_closed {
                let waited = self.thread.ring.submit_and_wait();
                self.thread.is_waiting.store(false, Ordering::SeqCst);
                // The kernel refuses only what this program does wrong.
                waited.expect("io_uring_enter takes the operations of this ring");
            }
            while let Some(((slot, result), buffer)) = self.thread.ring.next_answer() {
                self.answered(slot, result, buffer);
            }
            self.thread.reporter.kick();
        }
        if self.thread.end == End::Flush {
            let flushed = self.thread.ring.image().sync_data();
            self.thread.faults.ended(flushed);
        }
        self.thread.ring.release();
    }

    fn fail_all(&mut self) {
        while let Ok(message) = self.thread.requests.recv() {
            let request = match message {
                ToDisk::Request(request) => request,
                ToDisk::Keep(superblock) => {
                    keep(self.thread.keeper.as_mut(), *superblock);
                    self.thread.reporter.kept();
                    self.thread.reporter.kick();
                    continue;
                }
                ToDisk::Share(_) => continue,
            };
            let status = self.thread.faults.refused(request.origin);
            self.thread.reporter.completed(request, status);
            self.thread.reporter.kick();
        }
    }

    fn take_requests(&mut self) {
        loop {
            match self.thread.requests.try_recv() {
                Ok(ToDisk::Keep(superblock)) => {
                    keep(self.thread.keeper.as_mut(), *superblock);
                    self.thread.reporter.kept();
                }
                Ok(ToDisk::Share(shared)) => self.thread.faults.share(shared),
                Ok(ToDisk::Request(request)) => {
                    let slot = self.slots.iter().position(Option::is_none);
                    let slot = slot.expect("a disk has at most DISK_SLOTS_MAX requests in flight");
                    self.order.push(slot, request.operation, request.range.clone());
                    self.slots[slot] = Some(Running { request, step: Step::Itself { done: 0 } });
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
    }

    fn start_ready(&mut self) {
        while let Some(slot) = self.order.start_next() {
            let running = self.slots[slot].as_mut().expect("the order has the slots in use");
            let buffer = std::mem::take(&mut running.request.buffer);
            let announced = announce(self.thread.keeper.as_mut(), &running.request);
            let (origin, operation) = (running.request.origin, running.request.operation);
            if self.thread.faults.refuse(operation) {
                let status = self.thread.faults.refused(origin);
                self.complete(slot, status, buffer);
            } else if let Err(error) = announced {
                let status = self.thread.faults.status(origin, operation, Err(error));
                self.complete(slot, status, buffer);
            } else {
                self.start(slot, buffer);
            }
        }
    }

    /// Begins the step of the request in `slot`.
    fn start(&mut self, slot: usize, buffer: Buffer) {
        let Running { request, step } = self.slots[slot].as_ref().expect("the slot is in use");
        let (operation, range, step) = (request.operation, request.range.clone(), *step);
        let origin = request.origin;
        if operation != DiskOperation::Read
            && let Err(error) = self.check_size()
        {
            let status = self.thread.faults.status(origin, operation, Err(error));
            return self.complete(slot, status, buffer);
        }
        let ring = &mut self.thread.ring;
        match (operation, step) {
            (DiskOperation::Read, Step::Itself { done }) => {
                ring.read(slot, buffer, (done, range.start + done as u64));
            }
            (DiskOperation::Write, Step::Itself { done }) => {
                ring.write(slot, buffer, (done, range.start + done as u64));
            }
            (DiskOperation::Flush, Step::Itself { .. }) => ring.sync(slot),
            (DiskOperation::Discard, Step::Itself { .. }) => {
                ring.allocate(slot, &range, PUNCH.bits());
            }
            (DiskOperation::WriteZeroes, Step::Itself { .. }) => {
                ring.allocate(slot, &range, ZERO.bits());
            }
            (
                DiskOperation::Read
                | DiskOperation::Write
                | DiskOperation::Flush
                | DiskOperation::Discard
                | DiskOperation::WriteZeroes,
                Step::Zeros { done },
            ) => ring.write_zeros(slot, &(range.start + done..range.end)),
        }
    }

    /// A write behind the end would make a file long again that had become shorter.
    fn check_size(&self) -> io::Result<()> {
        match image::size(self.thread.ring.image())? < self.thread.bytes {
            true => Err(truncated()),
            false => Ok(()),
        }
    }

    /// Continues the request in `slot` after an answer of the kernel.
    fn answered(&mut self, slot: usize, result: io::Result<usize>, buffer: Option<Buffer>) {
        let buffer = buffer.unwrap_or_default();
        let running = self.slots[slot].as_mut().expect("the kernel answers what is in flight");
        let (origin, operation) = (running.request.origin, running.request.operation);
        let length = running.request.range.end - running.request.range.start;
        let next = match (result, running.step) {
            (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(running.step)),
            (Err(error), Step::Itself { .. }) if wants_zeros(operation, &error) => {
                Ok(Some(Step::Zeros { done: 0 }))
            }
            (Err(error), _) => Err(error),
            (Ok(0), Step::Itself { .. }) if operation == DiskOperation::Read => Err(truncated()),
            (Ok(0), Step::Itself { .. }) if operation == DiskOperation::Write => {
                Err(io::ErrorKind::WriteZero.into())
            }
            (Ok(0), Step::Zeros { .. }) => Err(io::ErrorKind::WriteZero.into()),
            (Ok(count), Step::Itself { done }) => {
                let done = done + count;
                let is_part = buffer_is_used(operation) && (done as u64) < length;
                Ok(is_part.then_some(Step::Itself { done }))
            }
            (Ok(count), Step::Zeros { done }) => {
                let done = done + count.min(ZEROS_BYTES) as u64;
                Ok((done < length).then_some(Step::Zeros { done }))
            }
        };
        match next {
            Ok(Some(step)) => {
                running.step = step;
                self.start(slot, buffer);
            }
            Ok(None) => self.complete(slot, DiskStatus::Done, buffer),
            Err(error) => {
                let status = self.thread.faults.status(origin, operation, Err(error));
                self.complete(slot, status, buffer);
            }
        }
    }

    fn complete(&mut self, slot: usize, status: DiskStatus, buffer: Buffer) {
        let running = self.slots[slot].take().expect("the slot is in use");
        self.order.complete(slot);
        let request = Request { buffer, ..running.request };
        self.thread.reporter.completed(request, status);
    }
}

fn buffer_is_used(operation: DiskOperation) -> bool {
    match operation {
        DiskOperation::Read | DiskOperation::Write => true,
        DiskOperation::Flush | DiskOperation::Discard | DiskOperation::WriteZeroes => false,
    }
}

/// Returns whether `error` is that of an fallocate(2) that this file does not have, so that zeros are written instead.
fn wants_zeros(operation: DiskOperation, error: &io::Error) -> bool {
    match operation {
        DiskOperation::Discard | DiskOperation::WriteZeroes => {
            error.raw_os_error().is_some_and(|code| lacks_fallocate(Errno::from_raw(code)))
        }
        DiskOperation::Read | DiskOperation::Write | DiskOperation::Flush => false,
    }
}
