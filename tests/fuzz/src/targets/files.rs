//! Files that are given on the command line.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use tempfile::NamedTempFile;
use vmm::boot::cpu_features::ModelName;
use vmm::boot::image::GuestImage;
use vmm::boot::linux::{LinuxKernel, PassOptions};
use vmm::boot::sweep::{SweepPolicy, check, sweep};
use vmm::checkpoint::Snapshot;
use vmm::cli::config_file;
use vmm::files::Access;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a snapshot before its head: magic, version, and the length and digest of the head.
const PREFIX_BYTES: usize = 32;
/// Longest input that is decompressed or kept in guest memory.
const RAM_BYTES: u64 = 64 << 20;

/// Returns a file with these bytes, for its owner alone. The folder is in memory where there is one.
fn file(bytes: &[u8]) -> NamedTempFile {
    let folder =
        [Path::new("/dev/shm"), Path::new("/tmp")].into_iter().find(|folder| folder.is_dir());
    let file = folder.map_or_else(NamedTempFile::new, NamedTempFile::new_in);
    let mut file = file.expect("a temporary file can be made");
    file.write_all(bytes).expect("it can be written");
    file
}

/// A snapshot whose head has the right length and digest, whatever it says, and memory without contents.
pub(crate) fn snapshot(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= PREFIX_BYTES {
        let head = &bytes[PREFIX_BYTES..];
        let fields = [head.len() as u64, xxh3_64(head)].map(u64::to_le_bytes);
        bytes[16..PREFIX_BYTES].copy_from_slice(&fields.concat());
    }
    let mut file = file(&bytes);
    // The file ends behind the memory that the head names, if it is a valid head. The smallest guest's memory
    // begins at the first page behind a head of usual length.
    let end = 8192 + (16 << 20);
    file.as_file().set_len(end.max(bytes.len() as u64)).expect("it can be sparse");
    file.seek(SeekFrom::Start(0)).expect("it is a file");
    let Ok(snapshot) = Snapshot::open(file.path(), Access::Owner) else { return };
    let _loaded = snapshot.load_memory();
    let _changes = snapshot.changes();
}

/// An image that is loaded and swept.
pub(crate) fn elf(bytes: &[u8]) {
    if let Ok(image) = GuestImage::for_inspection("fuzzed", bytes.to_vec()) {
        let _report = sweep(&image, ModelName::default());
    }
    let Ok(image) = GuestImage::from_bytes("fuzzed", bytes.to_vec()) else { return };
    let report = sweep(&image, ModelName::default());
    let _verdict = check(&report, SweepPolicy::default());
    if image.memory_bytes_min() <= RAM_BYTES {
        let ram = vmm::mem::allocate(RAM_BYTES).expect("it is small");
        let _entry = image.load(&ram);
    }
}

/// A kernel as a file; and, if the bytes are an ELF file, as the payload of one that is well-formed otherwise.
pub(crate) fn bzimage(bytes: &[u8]) {
    let options = PassOptions { syscall_stays_at_cpl3: true, shortcuts: true, tolerate: true };
    let _kernel = LinuxKernel::from_bytes("fuzzed", bytes, &options);
    if bytes.starts_with(b"\x7fELF") {
        let _kernel = LinuxKernel::from_bytes("fuzzed", &wrapped(bytes), &options);
    }
}

/// Returns a bzImage whose payload is `kernel` (Linux, Documentation/arch/x86/boot.rst).
fn wrapped(kernel: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(kernel).expect("memory takes it");
    let packed = packer.finish().expect("memory takes it");
    let mut file = vec![0; 1024];
    file[0x1F1] = 1;
    file[0x201] = 0x6A;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    for (at, value) in [
        (0x206, 0x20F),
        (0x22C, 0x7FFF_FFFF),
        (0x236, 1 | 2047 << 16),
        (0x24C, packed.len() as u32),
    ] {
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    file.extend(packed);
    file
}

/// A configuration file becomes options, each of them one argument.
pub(crate) fn config(bytes: &[u8]) {
    let file = file(bytes);
    let arguments = ["understudy", "primary", "--config"].map(Into::into).to_vec();
    let arguments = [arguments, vec![file.path().into()]].concat();
    match config_file::expand(arguments) {
        Ok(expanded) => {
            let arguments = &expanded.arguments;
            let options = &arguments[2..arguments.len() - 2];
            assert!(options.iter().all(|option| option.as_encoded_bytes().starts_with(b"--")));
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
}
