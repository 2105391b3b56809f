//! Which hosts reach a file system, by its type.

use nix::sys::statfs::statfs;
use std::io;
use std::path::Path;

/// Which hosts reach the files of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every host that mounts it: the files are on a server or on a shared disk.
    Shared,
    /// This host only.
    Local,
    /// This host only, until it is switched off.
    Volatile,
    /// Its type does not say.
    Unknown,
}

/// A file system of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// The name of its type, or the type's number.
    pub name: String,
    /// Which hosts reach it.
    pub reach: Reach,
}

/// Numbers (linux/include/uapi/linux/magic.h and the file systems' own headers), names, reach.
const TYPES: [(u64, &str, Reach); 23] = [
    (0x6969, "nfs", Reach::Shared),
    (0x517b, "smb", Reach::Shared),
    (0xff53_4d42, "cifs", Reach::Shared),
    (0xfe53_4d42, "smb2", Reach::Shared),
    (0x00c3_6400, "ceph", Reach::Shared),
    (0x5346_414f, "afs", Reach::Shared),
    (0x7375_7245, "coda", Reach::Shared),
    (0x0102_1997, "9p", Reach::Shared),
    (0x0116_1970, "gfs2", Reach::Shared),
    (0x7461_636f, "ocfs2", Reach::Shared),
    (0x0bd0_0bd0, "lustre", Reach::Shared),
    (0x4750_4653, "gpfs", Reach::Shared),
    (0x1983_0326, "beegfs", Reach::Shared),
    (0xef53, "ext4", Reach::Local),
    (0x5846_5342, "xfs", Reach::Local),
    (0x9123_683e, "btrfs", Reach::Local),
    (0x2fc1_2fc1, "zfs", Reach::Local),
    (0xf2f5_2010, "f2fs", Reach::Local),
    (0xca45_1a4e, "bcachefs", Reach::Local),
    (0x794c_7630, "overlay", Reach::Local),
    (0x0102_1994, "tmpfs", Reach::Volatile),
    (0x8584_58f6, "ramfs", Reach::Volatile),
    // A server or a local program: only that program knows.
    (0x6573_5546, "fuse", Reach::Unknown),
];

impl FileSystem {
    /// Returns the file system of `path`.
    ///
    /// # Errors
    ///
    /// statfs(2) fails.
    pub fn of(path: &Path) -> io::Result<FileSystem> {
        Ok(FileSystem::from_number(statfs(path)?.filesystem_type().0 as u64))
    }

    /// Returns the file system whose type has this number. A 32-bit number may be sign-extended.
    fn from_number(number: u64) -> FileSystem {
        let number = number & u64::from(u32::MAX);
        match TYPES.iter().find(|(known, ..)| *known == number) {
            Some(&(_, name, reach)) => FileSystem { name: name.to_string(), reach },
            None => FileSystem { name: format!("{number:#x}"), reach: Reach::Unknown },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_of_known_and_unknown_types() {
        let reach = |number| FileSystem::from_number(number).reach;
        assert_eq!(reach(0x6969), Reach::Shared);
        assert_eq!(reach(0xffff_ffff_ff53_4d42), Reach::Shared, "sign-extended");
        assert_eq!(reach(0xef53), Reach::Local);
        assert_eq!(reach(0x0102_1994), Reach::Volatile);
        let unknown = FileSystem::from_number(0x77);
        assert_eq!((unknown.name.as_str(), unknown.reach), ("0x77", Reach::Unknown));
        // sysfs and proc are of no known type, the root is of some type.
        assert_eq!(FileSystem::of(Path::new("/proc")).unwrap().reach, Reach::Unknown);
        assert!(FileSystem::of(Path::new("/no/such/folder")).is_err());
    }
}
