//! A bzImage whose kernel is a few instructions long: booted, patched, saved, restored, recorded and
//! replayed. (A distribution's kernel takes minutes where KVM emulates it: scripts/linux-guest.sh.)

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};
use tests::patience::{factor, patience};
use tests::program::{fails, json, run, write_private};

/// Address at which the kernel is linked, loaded and entered.
const ADDRESS: u64 = 0x10_0000;
const HEADERS_BYTES: usize = 64 + 56;

/// Appends code that prints `text` on the serial port.
fn print(code: &mut Vec<u8>, text: &str) {
    code.extend([0xBA, 0xF8, 0x03, 0, 0]); // mov edx, 0x3F8
    for byte in text.bytes() {
        code.extend([0xB0, byte, 0xEE]); // mov al, byte; out dx, al
    }
}

/// Returns the kernel's code: it checks the results of RDTSC and CPUID, prints, and halts. When it
/// continues after the halt, it repeats this a thousand times and then halts for good.
fn code() -> Vec<u8> {
    let mut code = Vec::new();
    let check = [
        &[0x0F, 0x31][..],                         // rdtsc
        &[0x48, 0xC1, 0xE2, 32, 0x48, 0x09, 0xD0], // shl rdx, 32; or rax, rdx
        &[0x4C, 0x39, 0xC0],                       // cmp rax, r8: not before the last one
        &[0x73, 2, 0x0F, 0x0B],                    // jae on; ud2
        &[0x49, 0x89, 0xC0],                       // mov r8, rax
        &[0xB8, 1, 0, 0, 0, 0x31, 0xC9],           // mov eax, 1; xor ecx, ecx
        &[0x0F, 0xA2],                             // cpuid
        &[0xF6, 0xC2, 0x10, 0x74, 2, 0x0F, 0x0B],  // test dl, 1 << 4 (TSC): hidden; jz on; ud2
        &[0x9B],                                   // fwait
    ]
    .concat();
    code.extend([0x45, 0x31, 0xC0]); // xor r8d, r8d
    code.extend(&check);
    print(&mut code, "checked\n");
    code.extend([0xFB, 0xF4]); // sti; hlt
    code.extend([0x41, 0xB9, 0xE8, 3, 0, 0]); // mov r9d, 1000
    let again = code.len();
    code.extend(&check);
    code.extend([0x41, 0xFF, 0xC9]); // dec r9d
    let back = again as i64 - (code.len() as i64 + 2);
    code.extend([0x75, i8::try_from(back).unwrap().cast_unsigned()]); // jnz again
    print(&mut code, "again\n");
    code.extend([0xF4, 0xEB, 0xFD]); // hlt; jmp hlt
    code
}

fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; HEADERS_BYTES];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &[2, 0, 62, 0, 1]);
    put(24, &ADDRESS.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 1, 0, 64]);
    put(64, &[1, 0, 0, 0, 5]);
    let length = code.len() as u64;
    let words = [HEADERS_BYTES as u64, ADDRESS, ADDRESS, length, length, 1];
    put(72, &words.map(u64::to_le_bytes).concat());
    file.extend(code);
    file
}

fn bzimage(kernel: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(kernel, flate2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    let mut file = vec![0; 1024];
    file[0x1F1] = 1;
    file[0x201] = 0x6A;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    let mut put = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0x206, 0x20F);
    put(0x22C, 0x7FFF_FFFF);
    put(0x236, 1 | 2047 << 16); // xloadflags; the low half of cmdline_size
    put(0x24C, packed.len() as u32);
    file.extend(packed);
    file
}

struct Rig {
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernel"), bzimage(&elf(&code()))).unwrap();
        Rig { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Boots the kernel and saves it at its first halt.
    fn save(&self) -> Output {
        let (kernel, snapshot) = (self.path("kernel"), self.path("snapshot"));
        let limit_s = patience().as_secs().to_string();
        // The kernel has no exception entries, so no hook can be placed in it.
        let options = ["--forbidden", "warn", "--when", "checked", "--for", &limit_s, "--json"];
        run(&[&["save", &snapshot, "--kernel", &kernel][..], &options].concat())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn kernel_is_booted_saved_restored_recorded_and_replayed() {
    let rig = Rig::new();
    let saved = rig.save();
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    assert!(text(&saved.stderr).contains("checked"), "{}", text(&saved.stderr));

    let (snapshot, log) = (rig.path("snapshot"), rig.path("log"));
    let seconds = (2 * factor()).to_string();
    let options = ["--log", &log, "--for", &seconds, "--json"];
    let recorded = run(&[&["record", "--restore", &snapshot][..], &options].concat());
    let errors = text(&recorded.stderr);
    assert!(recorded.status.success(), "{errors}");
    assert!(errors.contains("again"), "{errors}");
    let recorded = json(&text(&recorded.stdout));
    // A thousand of each, plus the printing.
    assert!(recorded["natural_exits"].as_u64() > Some(2000), "{recorded}");

    // The host of a recording is identified by more than its processor, because a kernel is prepared for its host.
    let header = json(&text(&run(&["log", "stat", &log, "--json"]).stdout));
    let doctor = json(&text(&run(&["doctor", "--json"]).stdout));
    assert!(header["cpu_model_digest"].is_string());
    assert!(header["host_profile"]["emulates_kernel_code"].is_string());
    assert_eq!(header["host_profile"], doctor["host_profile"]);

    let replayed = run(&["replay", &log, "--json"]);
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    let replayed = json(&text(&replayed.stdout));
    for key in ["natural_exits", "memory_digest", "state_digest"] {
        assert_eq!(recorded[key], replayed[key], "{key}");
    }
}

#[test]
fn kernel_without_a_place_for_hooks_is_refused() {
    let rig = Rig::new();
    fails(&["run", "--kernel", &rig.path("kernel")], 5, "--forbidden warn");
}

#[test]
fn unusable_kernel_or_initrd_is_refused_in_one_line() {
    let rig = Rig::new();
    let kernel = rig.path("kernel");
    let write = |name: &str, bytes: &[u8]| {
        let path = rig.path(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let cut = write("cut", &fs::read(&kernel).unwrap()[..1100]);
    let foreign = write("foreign", b"not a kernel");
    let initrd = write("initrd", &vec![0x55; 80 << 20]);
    fails(&["run", "--kernel", "/no/such/kernel"], 5, "does not exist");
    fails(&["run", "--kernel", &cut], 5, "truncated");
    fails(&["run", "--kernel", &foreign], 5, "not a Linux kernel");
    fails(&["run", "--guest", &kernel], 5, "--kernel");
    fails(&["run", "--kernel", "/dev/zero"], 5, "is not a regular file");
    fails(&["run", "--kernel", &kernel, "--initrd", "/dev/zero"], 5, "is not a regular file");
    let tolerant = ["--forbidden", "warn", "--kernel", &kernel];
    let refused = run(&[&["run", "--initrd", &initrd][..], &tolerant].concat());
    let errors = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(5), "{errors}");
    assert!(errors.contains("is too long"), "{errors}");
    let long = "x".repeat(2048);
    let refused = run(&[&["run", "--cmdline", &long][..], &tolerant].concat());
    assert!(text(&refused.stderr).contains("the command line has"), "{}", text(&refused.stderr));
}

#[test]
fn unusable_snapshot_is_refused_in_one_line() {
    let rig = Rig::new();
    assert!(rig.save().status.success());
    let good = fs::read(rig.path("snapshot")).unwrap();
    let write = |bytes: &[u8]| -> PathBuf {
        let path = Path::new(&rig.path("bad")).to_path_buf();
        write_private(&path, bytes);
        path
    };
    let refused = |bytes: &[u8], what: &str| {
        let path = write(bytes);
        fails(&["run", "--restore", path.to_str().unwrap()], 6, what);
    };
    fails(&["run", "--restore", "/no/such/snapshot"], 6, "does not exist");
    refused(b"", "not a snapshot");
    refused(&good[..good.len() / 2], "cut short");
    let mut version = good.clone();
    version[8] = 99;
    refused(&version, "version 99");
    let mut head = good.clone();
    head[60] ^= 0xFF;
    refused(&head, "checksum");
    // Reported before the guest runs.
    let (start, runs) = (Instant::now(), patience());
    let runs_s = runs.as_secs().to_string();
    fails(&["save", "/no/such/folder/s", "--for", &runs_s, "-q"], 6, "No such file");
    assert!(start.elapsed() < runs - Duration::from_secs(1));
}

#[test]
fn options_stored_in_the_snapshot_are_refused() {
    let mac = "52:54:00:00:00:09";
    for option in [["--memory", "64"], ["--mac", mac], ["--cmdline", "x"], ["--forbidden", "warn"]]
    {
        let refused = run(&[&["run", "--restore", "s"][..], &option].concat());
        let errors = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{option:?}: {errors}");
        assert!(errors.contains("cannot be used with"), "{option:?}: {errors}");
    }
}
