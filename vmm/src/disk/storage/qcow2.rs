//! [`Qcow2Storage`]: a qcow2 image with its backing files, through the crate imago.
//!
//! Files that an image names are opened here and not by imago, so that each is a regular file or a block device, is
//! locked, and has a format that somebody has named.

use super::qcow2_check::{self, Unfit};
use super::{Spare, Storage};
use crate::disk::error::ImageError;
use crate::disk::faults::truncated;
use crate::disk::image::{self, Image, Use};
use crate::limits::BACKING_FILES_MAX;
use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{FormatAccess, Mapping, StorageOpenOptions};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

type Access = FormatAccess<ImagoFile>;

/// A qcow2 image. Its blocks and metadata pass the page cache.
pub(in crate::disk) struct Qcow2Storage {
    access: Access,
    /// The image and its backing files.
    layers: Vec<Layer>,
    access_mode: Use,
    is_broken: bool,
}

/// A file, to notice that it has become shorter: imago reads zeros then.
struct Layer {
    file: File,
    /// The largest size that was seen. An image grows when it is written.
    bytes: u64,
}

impl Qcow2Storage {
    /// Reads the header of `image`, whose path is `path`, and opens its backing files.
    ///
    /// # Errors
    ///
    /// The image is not a valid one, or one of its files can't be used.
    pub(in crate::disk) fn open(
        image: Image,
        path: &Path,
        usage: Use,
    ) -> Result<Qcow2Storage, ImageError> {
        let mut layers = Vec::new();
        let opened = catch_unwind(AssertUnwindSafe(|| open_qcow2(image, path, usage, &mut layers)));
        let access = opened.unwrap_or_else(|_| Err(damaged().into()))?;
        image::check_disk_size(access.size())?;
        Ok(Qcow2Storage { access, layers, access_mode: usage, is_broken: false })
    }

    /// Calls imago. If it panics, which a damaged image may cause, the image is not used any more.
    fn call<T>(&mut self, call: impl FnOnce(&mut Access) -> io::Result<T>) -> io::Result<T> {
        self.check_sizes()?;
        if self.is_broken {
            return Err(damaged());
        }
        let access = &mut self.access;
        catch_unwind(AssertUnwindSafe(|| call(access))).unwrap_or_else(|_| {
            self.is_broken = true;
            Err(damaged())
        })
    }

    fn check_sizes(&mut self) -> io::Result<()> {
        for layer in &mut self.layers {
            let bytes = image::size(&layer.file)?;
            if bytes < layer.bytes {
                return Err(truncated());
            }
            layer.bytes = bytes;
        }
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::other("the image is damaged: see 'qemu-img check'")
}

fn open_qcow2(
    image: Image,
    path: &Path,
    usage: Use,
    layers: &mut Vec<Layer>,
) -> Result<Access, ImageError> {
    if is_encrypted(&image)? {
        return Err(ImageError::Qcow2 { what: "it is encrypted".into() });
    }
    if usage == Use::Write {
        qcow2_check::check(&image.file, image.bytes).map_err(unfit)?;
    }
    let file = layer(image, path, usage, layers)?;
    let invalid = |error| ImageError::Qcow2 { what: format!("{error}") };
    let mut qcow2 =
        Qcow2::open_image(file, usage == Use::Write).map_err(|e: io::Error| invalid(e))?;
    if qcow2.requires_external_data_file() {
        return Err(ImageError::Qcow2 { what: "its data are in another file".into() });
    }
    qcow2.set_data_file(None);
    let backing = qcow2.implicit_backing_file().cloned();
    let format = qcow2.implicit_backing_format().cloned();
    let backing = backing.map(|name| {
        let below = path.parent().unwrap_or(Path::new("")).join(&name);
        let opened = open_backing(&below, format.as_deref(), layers);
        opened.map_err(|error| ImageError::Backing { name, error: Box::new(error) })
    });
    qcow2.set_backing(backing.transpose()?);
    Ok(FormatAccess::new(qcow2))
}

fn unfit(error: Unfit) -> ImageError {
    match error {
        Unfit::Damaged(what) => ImageError::Damaged { what },
        Unfit::TooLarge => ImageError::Qcow2 { what: error.to_string() },
        Unfit::Io(error) => error.into(),
    }
}

/// Returns whether the header names an encryption (`crypt_method` of docs/interop/qcow2.txt of QEMU), which imago does
/// not look at.
fn is_encrypted(image: &Image) -> io::Result<bool> {
    const CRYPT_METHOD: Range<usize> = 32..36;
    let mut header = [0; CRYPT_METHOD.end];
    match image.file.read_exact_at(&mut header, 0) {
        Ok(()) => Ok(header[CRYPT_METHOD] != [0; 4]),
        // imago says what is wrong with it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_backing(
    path: &Path,
    format: Option<&str>,
    layers: &mut Vec<Layer>,
) -> Result<Access, ImageError> {
    if layers.len() > BACKING_FILES_MAX {
        let what = format!("it has more than {BACKING_FILES_MAX} backing files");
        return Err(ImageError::Qcow2 { what });
    }
    match format {
        Some("qcow2") => open_qcow2(image::open(path, Use::Read)?, path, Use::Read, layers),
        Some("raw") => {
            let file = layer(image::open(path, Use::Read)?, path, Use::Read, layers)?;
            Ok(FormatAccess::new(Raw::open_image(file, false)?))
        }
        Some(other) => Err(ImageError::Qcow2 { what: format!("format {other} is not supported") }),
        // Its contents must not decide: a guest may have written them.
        None => Err(ImageError::Qcow2 {
            what: "the image does not name its format: 'qemu-img rebase -u -F raw -b FILE IMAGE' \
                   or the like does"
                .into(),
        }),
    }
}

/// Adds a layer and returns its file for imago.
fn layer(
    image: Image,
    path: &Path,
    usage: Use,
    layers: &mut Vec<Layer>,
) -> Result<ImagoFile, ImageError> {
    layers.push(Layer { file: image.file.try_clone()?, bytes: image.bytes });
    let options = StorageOpenOptions::new().filename(path).write(usage == Use::Write);
    Ok(ImagoFile::from_open_file(image.file, options)?)
}

impl Storage for Qcow2Storage {
    fn size(&self) -> u64 {
        self.access.size()
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.call(|access| access.read(bytes, offset))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(|access| access.write(bytes, offset))
    }

    fn zero(&mut self, range: Range<u64>, spare: Spare) -> io::Result<()> {
        let length = range.end - range.start;
        self.call(|access| match spare {
            Spare::Keep => access.write_zeroes(range.start, length),
            Spare::GiveBack => access.discard_to_zero(range.start, length),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.access_mode == Use::Read {
            return Ok(());
        }
        self.call(|access| {
            access.flush()?;
            access.sync()
        })
    }

    fn next_data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size();
        let mut start = from;
        while start < size {
            let (has_data, length) = self.call(|access| {
                let (mapping, length) = access.get_mapping(start, size - start)?;
                Ok((!matches!(mapping, Mapping::Zero { .. } | Mapping::Eof { .. }), length))
            })?;
            match (has_data, length) {
                (_, 0) => return Ok(Some(start..size)),
                (true, length) => return Ok(Some(start..start + length)),
                (false, length) => start += length,
            }
        }
        Ok(None)
    }
}
