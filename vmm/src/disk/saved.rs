//! Images that get what a guest had written to its disks before its VM was saved: a VM of a pair has everything in its
//! images.

use super::frozen::{Contents, Frozen};
use super::storage::overlay::BLOCK_BYTES;
use super::{DiskError, Disks, ImageError, SECTOR_BYTES};
use replication::boundary::{DiskOperation, DiskRequest, DiskStatus};
use std::io;
use std::ops::Range;

/// Most bytes that are zeroed by one request.
const ZEROS_BYTES_MAX: u64 = 1 << 30;

impl Disks {
    /// Writes what the guest had written to each disk into its image, and makes it durable. Call it before the VM runs,
    /// and after what is known about the images is [durable](Disks::keep_state). Waits for the disks.
    ///
    /// # Errors
    ///
    /// What is saved can't be read, or an image can't be written.
    pub fn write_saved(&mut self) -> Result<(), DiskError> {
        for index in 0..self.disks.len() {
            let Some(frozen) = self.disks[index].base.frozen.take() else { continue };
            self.write_changes(index as u8, &frozen).map_err(|error| DiskError {
                path: self.disks[index].base.path.clone(),
                source: ImageError::Io(error),
            })?;
        }
        Ok(())
    }

    fn write_changes(&mut self, disk: u8, frozen: &Frozen) -> io::Result<()> {
        let mut block = [0; BLOCK_BYTES as usize];
        for run in frozen.changed().collect::<Vec<_>>() {
            match frozen.run(run.clone()) {
                (Contents::Unchanged, _) => {}
                (Contents::Zeros, _) => self.zero(disk, run)?,
                (Contents::Stored { index }, _) => {
                    for (number, index) in run.zip(index..) {
                        frozen.read_block(index, &mut block)?;
                        self.write_block(disk, number, &block)?;
                    }
                }
            }
        }
        let (number, operation) = (1, DiskOperation::Flush);
        self.finish(&DiskRequest { disk, number, operation, sector: 0, bytes: 0, data: &[] })
    }

    /// Writes block `number`, the last one of a disk as far as it is there.
    fn write_block(&mut self, disk: u8, number: u64, block: &[u8]) -> io::Result<()> {
        let start = number * BLOCK_BYTES;
        let length = BLOCK_BYTES.min(self.disks[usize::from(disk)].bytes - start);
        self.finish(&DiskRequest {
            disk,
            number: 1,
            operation: DiskOperation::Write,
            sector: start / SECTOR_BYTES,
            bytes: length as u32,
            data: &block[..length as usize],
        })
    }

    fn zero(&mut self, disk: u8, blocks: Range<u64>) -> io::Result<()> {
        let end = (blocks.end * BLOCK_BYTES).min(self.disks[usize::from(disk)].bytes);
        let mut start = blocks.start * BLOCK_BYTES;
        while start < end {
            let length = ZEROS_BYTES_MAX.min(end - start);
            self.finish(&DiskRequest {
                disk,
                number: 1,
                operation: DiskOperation::WriteZeroes,
                sector: start / SECTOR_BYTES,
                bytes: length as u32,
                data: &[],
            })?;
            start += length;
        }
        Ok(())
    }

    /// Makes a request and waits for its end.
    fn finish(&mut self, request: &DiskRequest<'_>) -> io::Result<()> {
        self.submit(request);
        let ended = self.wait_for(request.disk, request.number);
        match ended.expect("it was just submitted").status {
            DiskStatus::Done => Ok(()),
            // The disk has said why.
            DiskStatus::Failed => {
                Err(io::Error::other("what its VM had written to it can't be written into it"))
            }
        }
    }
}
