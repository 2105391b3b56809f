//! [`Images`]: the image of a VM's disk on each host.

use crate::pair::Host;
use crate::{TestbedError, command};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Unit of a comparison, bytes.
pub const BLOCK_BYTES: usize = 64 << 10;

/// What the image of host A has before the VM boots. That of host B has zeros.
#[derive(Clone, Copy, Debug)]
pub enum FirstContents<'a> {
    /// Zeros: this number of bytes.
    Zeros(u64),
    /// What this file has.
    Of(&'a Path),
}

/// The images of a disk, that of host A first.
#[derive(Clone, Debug)]
pub struct Images {
    paths: [PathBuf; 2],
    bytes: u64,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Blocks of [`BLOCK_BYTES`] that were compared.
    pub blocks: u64,
    /// The numbers of those that differ, ascending.
    pub differing: Vec<u64>,
}

impl Images {
    /// Makes sparse raw images in `folder`.
    ///
    /// # Errors
    ///
    /// If a file can't be made.
    pub fn new(folder: &Path, first: FirstContents<'_>) -> Result<Images, TestbedError> {
        let paths = Host::ALL.map(|host| folder.join(format!("disk-{host}.img")));
        let failed = || TestbedError::client("making the images of the disk");
        let bytes = match first {
            FirstContents::Zeros(bytes) => {
                make_zeros(&paths[0], bytes).map_err(failed())?;
                bytes
            }
            FirstContents::Of(file) => {
                let [from, to] = [file, paths[0].as_path()].map(Path::to_string_lossy);
                command("cp", &["--sparse=always", "--reflink=auto", "--", &from, &to])?;
                fs::metadata(&paths[0]).map_err(failed())?.len()
            }
        };
        make_zeros(&paths[1], bytes).map_err(failed())?;
        Ok(Images { paths, bytes })
    }

    /// Returns the size of the disk in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the path of the image of `host`.
    pub fn of(&self, host: Host) -> &Path {
        &self.paths[host.index()]
    }

    /// Returns the value of `--disk` for `host`.
    pub fn option(&self, host: Host) -> String {
        format!("{},format=raw", self.of(host).to_string_lossy().replace(',', ",,"))
    }

    /// Returns when one of the images was written last.
    ///
    /// # Errors
    ///
    /// If an image is not there.
    pub fn written(&self) -> Result<SystemTime, TestbedError> {
        let of = |path: &PathBuf| fs::metadata(path)?.modified();
        let [a, b] = self.paths.each_ref().map(of);
        let failed = || TestbedError::client("looking at an image");
        Ok(a.map_err(failed())?.max(b.map_err(failed())?))
    }

    /// Compares the images block by block.
    ///
    /// # Errors
    ///
    /// If an image can't be read.
    pub fn compare(&self) -> Result<Comparison, TestbedError> {
        self.read_and_compare().map_err(TestbedError::client("comparing the images of the disk"))
    }

    fn read_and_compare(&self) -> io::Result<Comparison> {
        let [mut a, mut b] = [File::open(&self.paths[0])?, File::open(&self.paths[1])?];
        let mut blocks = [vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]];
        let mut result = Comparison::default();
        loop {
            let [of_a, of_b] = &mut blocks;
            let [of_a, of_b] = [read_block(&mut a, of_a)?, read_block(&mut b, of_b)?];
            if of_a.is_empty() && of_b.is_empty() {
                return Ok(result);
            }
            if of_a != of_b {
                result.differing.push(result.blocks);
            }
            result.blocks += 1;
        }
    }
}

/// Makes a file of `bytes` zeros that takes no room.
fn make_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    File::create_new(path)?.set_len(bytes)
}

/// Reads a block, or as much of it as the file has.
fn read_block<'b>(file: &mut File, block: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let mut length = 0;
    while length < block.len() {
        match file.read(&mut block[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(&block[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// The last block of 64 KiB has one sector.
    const BYTES: u64 = 3 * BLOCK_BYTES as u64 + 512;

    fn images(folder: &Path) -> Images {
        Images::new(folder, FirstContents::Zeros(BYTES)).unwrap()
    }

    #[test]
    fn one_different_byte_is_found_in_its_block() {
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path());
        assert_eq!(images.compare().unwrap(), Comparison { blocks: 4, differing: vec![] });
        for (at, block) in [(BYTES - 1, 3), (BLOCK_BYTES as u64, 1)] {
            let file = File::options().write(true).open(images.of(Host::B)).unwrap();
            file.write_all_at(&[1], at).unwrap();
            let differing = images.compare().unwrap().differing;
            assert!(differing.contains(&block), "{differing:?}");
            file.write_all_at(&[0], at).unwrap();
        }
        assert_eq!(images.compare().unwrap().differing, [0; 0]);
    }

    #[test]
    fn image_of_another_length_differs() {
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path());
        let file = File::options().write(true).open(images.of(Host::A)).unwrap();
        file.set_len(BYTES - 512).unwrap();
        assert_eq!(images.compare().unwrap(), Comparison { blocks: 4, differing: vec![3] });
    }

    #[test]
    fn image_of_host_a_has_the_contents_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source, with a comma");
        fs::write(&source, vec![7; 1024]).unwrap();
        let images = Images::new(folder.path(), FirstContents::Of(&source)).unwrap();
        assert_eq!(fs::read(images.of(Host::A)).unwrap(), [7; 1024]);
        assert_eq!(fs::read(images.of(Host::B)).unwrap(), [0; 1024]);
        assert_eq!(images.bytes(), 1024);
    }
}
