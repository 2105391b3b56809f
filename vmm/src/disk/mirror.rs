//! The disks of a host of a pair: requests are taken by their numbers, and a machine may go before its requests are
//! complete.

use super::request::Completed;
use super::{Disks, request};
use replication::boundary::{DiskCompletion, DiskRequest, DiskStatus};

impl Disks {
    /// Returns how request `number` of disk `disk` ended; `None` if it is not complete, or was taken.
    pub fn done(&mut self, disk: u8, number: u64) -> Option<DiskStatus> {
        self.receive();
        let mut waiting = self.waiting.iter();
        waiting.find(|one| (one.disk, one.number) == (disk, number)).map(|one| one.status)
    }

    /// Takes request `number` of disk `disk`; `None` if it is not complete, or was taken.
    pub fn take_done(&mut self, disk: u8, number: u64) -> Option<DiskCompletion<'_>> {
        self.receive();
        let is_it = |one: &Completed| (one.disk, one.number) == (disk, number);
        let index = self.waiting.iter().position(is_it)?;
        let completed = self.waiting.remove(index)?;
        Some(self.take(completed))
    }

    /// Forgets the requests in flight, because their machine is gone. They may take effect all the same. Until
    /// [`is_drained`](Self::is_drained), no other request may be submitted.
    pub fn forget(&mut self) {
        self.receive();
        while let Some(completed) = self.waiting.pop_front() {
            let _gone = self.take(completed);
        }
        for disk in &mut self.disks {
            self.forgotten += disk.in_flight.len();
            disk.in_flight.clear();
        }
    }

    /// Returns whether no forgotten request is in flight any more.
    pub fn is_drained(&mut self) -> bool {
        self.receive();
        self.forgotten == 0
    }

    /// Makes every later request to `disk` fail: what was written to it is lost, and the guest was told otherwise.
    pub fn fail(&mut self, disk: u8) {
        self.disks[usize::from(disk)].is_lost = true;
    }

    /// Completes a request to a disk whose data are lost.
    pub(super) fn refuse(&mut self, request: &DiskRequest<'_>) {
        let &DiskRequest { disk, number, operation, .. } = request;
        let own = &mut self.disks[usize::from(disk)];
        let _on_the_disk = request::range(request, own.bytes);
        own.in_flight.push(number);
        own.failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (status, buffer) = (DiskStatus::Failed, super::Buffer::default());
        self.waiting.push_back(Completed { disk, number, operation, status, buffer });
    }

    /// Takes note of a request that is complete.
    pub(super) fn arrived(&mut self, completed: Completed) {
        if self.forgotten == 0 {
            self.waiting.push_back(completed);
            return;
        }
        self.forgotten -= 1;
        self.disks[usize::from(completed.disk)].pool.give_back(completed.buffer);
    }
}

#[cfg(test)]
mod tests {
    use crate::disk::{DiskOptions, Disks, Kick, Writes};
    use replication::boundary::{DiskOperation, DiskRequest, DiskStatus};
    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_secs(20);

    fn disks(image: &std::path::Path) -> Disks {
        std::fs::write(image, vec![0; 1 << 16]).unwrap();
        let options: DiskOptions = image.to_str().unwrap().parse().unwrap();
        Disks::open(&[options], Writes::InPlace, Kick::default()).unwrap()
    }

    fn write(number: u64, data: &[u8]) -> DiskRequest<'_> {
        let operation = DiskOperation::Write;
        DiskRequest { disk: 0, number, operation, sector: number, bytes: data.len() as u32, data }
    }

    fn until(mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < LIMIT, "it does not happen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn requests_are_taken_by_number_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut disks = disks(&folder.path().join("disk.img"));
        for number in 1..=3 {
            disks.submit(&write(number, &[number as u8; 512]));
        }
        for number in [3, 1, 2] {
            until(|| disks.done(0, number).is_some());
            assert_eq!(disks.take_done(0, number).unwrap().number, number);
            assert_eq!(disks.done(0, number), None);
        }
        assert!(!disks.has_completion());
    }

    #[test]
    fn forgotten_requests_are_never_taken_and_later_ones_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut disks = disks(&folder.path().join("disk.img"));
        for number in 1..=20 {
            disks.submit(&write(number, &[1; 512]));
        }
        disks.forget();
        until(|| disks.is_drained());
        assert!(!disks.has_completion());
        disks.submit(&write(7, &[2; 512]));
        until(|| disks.done(0, 7).is_some());
        assert_eq!(disks.take_done(0, 7).unwrap().status, DiskStatus::Done);
    }

    #[test]
    fn every_request_to_a_lost_disk_fails() {
        let folder = tempfile::tempdir().unwrap();
        let mut disks = disks(&folder.path().join("disk.img"));
        disks.fail(0);
        disks.submit(&write(1, &[1; 512]));
        assert_eq!(disks.done(0, 1), Some(DiskStatus::Failed));
        assert_eq!(disks.take_done(0, 1).unwrap().status, DiskStatus::Failed);
        assert_eq!(disks.failed(0), 1);
    }
}
