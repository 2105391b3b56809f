//! [`DiskCheck`]: whether both images of a disk have what the clients were answered.

use super::file_system::FileSystem;
use super::{Comparison, Counts, Images, chain, database, redis_log};
use crate::clients::sqlite;
use crate::pair::Host;
use crate::{Guest, TestbedError};
use std::path::Path;

/// The name of the reference guest's chain in [`Counts`].
pub const CHAIN: &str = "chain";

/// Blocks that differ and are named in a message.
const NAMED_MAX: usize = 8;

/// What is on the images of a disk, after the VM has ended.
#[derive(Clone, Debug, Default)]
pub struct DiskCheck {
    /// Size of the disk.
    pub bytes: u64,
    /// The comparison of the images.
    pub comparison: Comparison,
    /// What the clients were answered: it was stable on the disk before.
    pub answered: Counts,
    /// What the image of each host has, that of host A first.
    pub on_disk: [Counts; 2],
    /// What is damaged on an image.
    pub damage: Option<String>,
}

impl DiskCheck {
    /// Checks the images of a VM with this guest. Works in `folder`.
    ///
    /// # Errors
    ///
    /// If an image can't be read. What is wrong with its contents is part of the result.
    pub fn new(
        (images, folder): (&Images, &Path),
        guest: &Guest,
        answered: Counts,
    ) -> Result<DiskCheck, TestbedError> {
        let comparison = images.compare()?;
        let (mut on_disk, mut damage) = ([Counts::new(), Counts::new()], None);
        for host in Host::ALL {
            let image = images.of(host);
            let found = match guest {
                Guest::Reference => chain::read(image)
                    .map(|chain| Counts::from([(String::from(CHAIN), chain.links)])),
                Guest::Linux(_) => linux_counts(image, folder),
            };
            match found {
                Ok(counts) => on_disk[host.index()] = counts,
                Err(TestbedError::Wrong(what)) => {
                    damage.get_or_insert(what);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(DiskCheck { bytes: images.bytes(), comparison, answered, on_disk, damage })
    }

    /// Returns how many answered writes are not on the image of `host`.
    pub fn lost(&self, host: Host) -> u64 {
        let found = &self.on_disk[host.index()];
        let missing = |(name, &answered): (&String, &u64)| {
            answered.saturating_sub(found.get(name).copied().unwrap_or(0))
        };
        self.answered.iter().map(missing).sum()
    }

    /// Describes what is not as it must be in one line. `None` if everything is.
    pub fn fault(&self) -> Option<String> {
        let mut faults = Vec::new();
        let differing = &self.comparison.differing;
        if !differing.is_empty() {
            let named = differing.iter().take(NAMED_MAX).map(u64::to_string).collect::<Vec<_>>();
            let more = if differing.len() > NAMED_MAX { ", ..." } else { "" };
            faults.push(format!(
                "{} of {} blocks of 64 KiB differ between the images (numbers {}{more})",
                differing.len(),
                self.comparison.blocks,
                named.join(", ")
            ));
        }
        for host in Host::ALL {
            match self.lost(host) {
                0 => {}
                lost => faults
                    .push(format!("{lost} answered writes are not on the disk of host {host}")),
            }
        }
        faults.extend(self.damage.clone());
        (!faults.is_empty()).then(|| faults.join("; "))
    }
}

/// Returns what redis and SQLite have on an image of a Linux guest.
fn linux_counts(image: &Path, folder: &Path) -> Result<Counts, TestbedError> {
    let files = FileSystem::check(image, folder)?;
    let mut counts = redis_log::read(&files)?;
    counts.extend(database::rows(&files, folder)?.map(|rows| (sqlite::TABLE.into(), rows)));
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::FirstContents;
    use super::super::chain::tests::write;
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const BYTES: u64 = 1 << 20;
    const LINKS: u64 = 7;

    /// Checks images with a chain of this many links each, of which `answered` were answered, after `change`.
    fn check(links: [u64; 2], answered: u64, change: impl FnOnce(&Images)) -> DiskCheck {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::new(folder.path(), FirstContents::Zeros(BYTES)).unwrap();
        for host in Host::ALL {
            write(images.of(host), links[host.index()]);
        }
        change(&images);
        let answered = Counts::from([(String::from(CHAIN), answered)]);
        DiskCheck::new((&images, folder.path()), &Guest::Reference, answered).unwrap()
    }

    #[test]
    fn equal_images_with_all_answered_writes_are_well() {
        assert_eq!(check([LINKS; 2], LINKS, |_| ()).fault(), None);
        // The client did not wait for the last answer.
        assert_eq!(check([LINKS; 2], LINKS - 1, |_| ()).fault(), None);
    }

    #[test]
    fn one_different_block_is_a_fault() {
        let found = check([LINKS; 2], LINKS, |images| {
            let file = File::options().write(true).open(images.of(Host::B)).unwrap();
            file.write_all_at(&[1], BYTES - 1).unwrap();
        });
        assert_eq!((found.comparison.blocks, &found.comparison.differing[..]), (16, &[15][..]));
        let fault = found.fault().unwrap();
        assert!(fault.starts_with("1 of 16 blocks of 64 KiB differ"), "{fault}");
    }

    #[test]
    fn one_lost_write_is_a_fault_on_each_host_that_lacks_it() {
        let both = check([LINKS - 1; 2], LINKS, |_| ());
        assert_eq!(Host::ALL.map(|host| both.lost(host)), [1, 1]);
        assert_eq!(both.comparison.differing, [0; 0]);
        assert!(both.fault().is_some_and(|fault| fault.contains("1 answered writes are not")));
        let one = check([LINKS, LINKS - 1], LINKS, |_| ());
        assert_eq!(Host::ALL.map(|host| one.lost(host)), [0, 1]);
        assert!(one.fault().is_some_and(|fault| fault.contains("of host B")));
    }

    #[test]
    fn broken_chain_is_a_fault_that_names_the_image() {
        let found = check([LINKS; 2], LINKS, |images| {
            for host in Host::ALL {
                let file = File::options().write(true).open(images.of(host)).unwrap();
                file.write_all_at(&[9], 3 * 512).unwrap();
            }
        });
        assert!(found.fault().is_some_and(|fault| fault.contains("link 3 of the chain in ")));
    }
}
