//! [`DiskOptions`]: what `--disk` says about one disk.

use super::boot::Word;
use super::shared::DiskMode;
use logchan::limits::DISK_SERIAL_BYTES;
use std::path::PathBuf;
use std::str::FromStr;

/// Most characters of a disk's name.
const ID_CHARS_MAX: usize = 32;

/// How an image stores the contents of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// Byte for byte.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

/// Whether the guest may write to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAccess {
    /// It may read only.
    ReadOnly,
    /// It may read and write.
    ReadWrite,
}

/// One disk, as `--disk FILE[,format=raw|qcow2][,readonly][,serial=TEXT][,id=NAME][,mode=mirrored|shared][,state=FILE]
/// [,accept]` describes it. A comma in a file's name is doubled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The image: a regular file or a block device.
    pub path: PathBuf,
    /// Its format, if the user named one.
    pub format: Option<ImageFormat>,
    /// Whether the guest may write.
    pub access: DiskAccess,
    /// The serial number that the guest reads, padded with zeros.
    pub serial: [u8; DISK_SERIAL_BYTES],
    /// The name of the disk in messages, if the user gave one.
    pub id: Option<String>,
    /// Whether both hosts of a pair have this image.
    pub mode: DiskMode,
    /// The file of the disk's superblock, if the user named one. It is beside the image otherwise.
    pub state: Option<PathBuf>,
    /// What the user says about the image.
    pub word: Word,
}

impl DiskOptions {
    /// Returns the options of a disk that the guest may write, with the image `path`.
    pub fn new(path: impl Into<PathBuf>) -> DiskOptions {
        DiskOptions {
            path: path.into(),
            format: None,
            access: DiskAccess::ReadWrite,
            serial: [0; DISK_SERIAL_BYTES],
            id: None,
            mode: DiskMode::Mirrored,
            state: None,
            word: Word::None,
        }
    }

    /// Returns the format: the one that the user named, or else qcow2 if the name of the file ends in `.qcow2`. The
    /// contents do not decide, because a guest writes them: one with a raw disk could make it look like an image that
    /// refers to any other file.
    pub fn format(&self) -> ImageFormat {
        let by_name = match self.path.extension().is_some_and(|suffix| suffix == "qcow2") {
            true => ImageFormat::Qcow2,
            false => ImageFormat::Raw,
        };
        self.format.unwrap_or(by_name)
    }
}

impl FromStr for DiskOptions {
    type Err = String;

    /// Parses the value of `--disk`.
    fn from_str(text: &str) -> Result<DiskOptions, String> {
        let mut parts = split_at_commas(text).into_iter();
        let path = parts.next().unwrap_or_default();
        if path.is_empty() {
            return Err("the name of a file comes first".into());
        }
        let mut options = DiskOptions::new(path);
        let mut seen = Vec::new();
        for part in parts {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value)),
                None => (part.clone(), None),
            };
            options.set(&key, value)?;
            if seen.contains(&key) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key);
        }
        options.check_mode()?;
        Ok(options)
    }
}

impl DiskOptions {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        match (key, value) {
            ("format", Some("raw")) => self.format = Some(ImageFormat::Raw),
            ("format", Some("qcow2")) => self.format = Some(ImageFormat::Qcow2),
            ("format", Some(other)) => {
                return Err(format!("format={other}: there are raw and qcow2"));
            }
            ("readonly", None) => self.access = DiskAccess::ReadOnly,
            ("readonly", Some(_)) => return Err("readonly has no value".into()),
            ("serial", Some(text)) => self.serial = serial(text)?,
            ("id", Some(text)) => self.id = Some(id(text)?),
            ("mode", Some("mirrored")) => self.mode = DiskMode::Mirrored,
            ("mode", Some("shared")) => self.mode = DiskMode::Shared,
            ("mode", Some(other)) => {
                return Err(format!("mode={other}: there are mirrored and shared"));
            }
            ("state", Some("")) => return Err("state= needs the name of a file".into()),
            ("state", Some(path)) => self.state = Some(path.into()),
            ("accept", None) => self.word = Word::Accept,
            ("accept", Some(_)) => return Err("accept has no value".into()),
            ("format" | "serial" | "id" | "mode" | "state", None) => {
                return Err(format!("{key} needs a value"));
            }
            (key, _) => {
                return Err(format!(
                    "{key}: there are format=, readonly, serial=, id=, mode=, state= and accept (a comma in a \
                     name is doubled)"
                ));
            }
        }
        Ok(())
    }

    /// Checks what a disk can't be that both hosts share.
    fn check_mode(&self) -> Result<(), String> {
        match self.mode {
            DiskMode::Mirrored => Ok(()),
            DiskMode::Shared if self.format() == ImageFormat::Qcow2 => {
                Err("mode=shared: the image must be raw, because the tables of qcow2 are in the memory of one host".into())
            }
            DiskMode::Shared if self.state.is_some() || self.word != Word::None => {
                Err("mode=shared: state= and accept are for mirrored disks: there is one image".into())
            }
            DiskMode::Shared => Ok(()),
        }
    }
}

/// Splits at single commas; two commas are one in a part.
fn split_at_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

fn serial(text: &str) -> Result<[u8; DISK_SERIAL_BYTES], String> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > DISK_SERIAL_BYTES || !printable {
        return Err(format!(
            "serial={text}: give 1 to {DISK_SERIAL_BYTES} printable ASCII characters without spaces"
        ));
    }
    let mut serial = [0; DISK_SERIAL_BYTES];
    serial[..text.len()].copy_from_slice(text.as_bytes());
    Ok(serial)
}

fn id(text: &str) -> Result<String, String> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if text.is_empty() || text.len() > ID_CHARS_MAX || !text.chars().all(allowed) {
        return Err(format!(
            "id={text}: give 1 to {ID_CHARS_MAX} letters, digits, dashes, underscores or dots"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_option_is_parsed() {
        let options: DiskOptions =
            "a,,b.img,format=qcow2,readonly,serial=S-1,id=root,state=/s,,t,accept".parse().unwrap();
        assert_eq!(options.path, Path::new("a,b.img"));
        assert_eq!(options.format(), ImageFormat::Qcow2);
        assert_eq!(options.access, DiskAccess::ReadOnly);
        assert_eq!(&options.serial, b"S-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(options.id.as_deref(), Some("root"));
        assert_eq!(options.state.as_deref(), Some(Path::new("/s,t")));
        assert_eq!(options.word, Word::Accept);
        assert_eq!("/dev/vdb".parse(), Ok(DiskOptions::new("/dev/vdb")));
        assert_eq!("/dev/vdb,mode=mirrored".parse(), Ok(DiskOptions::new("/dev/vdb")));
        let shared: DiskOptions = "/dev/vdb,mode=shared".parse().unwrap();
        assert_eq!(shared.mode, DiskMode::Shared);
    }

    #[test]
    fn format_is_the_named_one_or_that_of_the_suffix() {
        for (text, format) in [
            ("disk", ImageFormat::Raw),
            ("disk.qcow2", ImageFormat::Qcow2),
            ("disk.qcow2,format=raw", ImageFormat::Raw),
            ("disk.img,format=qcow2", ImageFormat::Qcow2),
        ] {
            assert_eq!(text.parse::<DiskOptions>().unwrap().format(), format, "{text}");
        }
    }

    #[test]
    fn invalid_option_is_named() {
        for (text, what) in [
            ("", "file"),
            (",readonly", "file"),
            ("a,", "format="),
            ("a,mode=both", "mirrored and shared"),
            ("a,mode", "value"),
            ("a.qcow2,mode=shared", "raw"),
            ("a,mode=shared,state=b", "mirrored disks"),
            ("a,mode=shared,accept", "mirrored disks"),
            ("a,format=vmdk", "vmdk"),
            ("a,format", "format"),
            ("a,readonly=on", "readonly"),
            ("a,readonly,readonly", "twice"),
            ("a,serial=", "serial"),
            ("a,serial=012345678901234567890", "20"),
            ("a,serial=a b", "spaces"),
            ("a,id=../x", "id"),
            ("a,state=", "file"),
            ("a,state", "value"),
            ("a,accept=yes", "accept"),
        ] {
            let error = text.parse::<DiskOptions>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
