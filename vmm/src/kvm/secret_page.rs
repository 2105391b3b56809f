//! [`SecretPage`]: a page of memory for a key.

use logchan::handshake::{KEY_MEMORY_BYTES, KeyMemory};
use std::io;
use std::ptr::NonNull;
use zeroize::Zeroize;

/// Bytes of a page of the host.
const PAGE_BYTES: usize = 4096;

/// A page of memory that is not swapped out, that is in no core dump and in no child process, and that has a page without
/// access on either side, so that no overrun of other memory reads it. It is wiped and unmapped when it is dropped.
#[derive(Debug)]
pub struct SecretPage {
    /// The page without access in front of the page.
    start: NonNull<u8>,
    key: NonNull<[u8; KEY_MEMORY_BYTES]>,
}

// SAFETY: the page belongs to this object alone, and is accessed by its references' rules.
unsafe impl Send for SecretPage {}
// SAFETY: as above.
unsafe impl Sync for SecretPage {}

impl SecretPage {
    /// Maps a page of zeros.
    ///
    /// # Errors
    ///
    /// There is no memory, or the limit of locked memory (`ulimit -l`) is reached.
    pub fn new() -> io::Result<SecretPage> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), 3 * PAGE_BYTES, libc::PROT_NONE, flags, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).expect("the kernel maps nothing at address 0");
        // SAFETY: the second of the three pages lies in the mapping.
        let key: NonNull<[u8; KEY_MEMORY_BYTES]> = unsafe { start.add(PAGE_BYTES) }.cast();
        let address = key.as_ptr().cast::<libc::c_void>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the page is the second one of the mapping above, which nothing refers to yet.
        if unsafe { libc::mprotect(address, PAGE_BYTES, access) } != 0 {
            let error = io::Error::last_os_error();
            // SAFETY: the mapping is the one above.
            unsafe { libc::munmap(start.as_ptr().cast(), 3 * PAGE_BYTES) };
            return Err(error);
        }
        // From here on, dropping it wipes and unmaps the page.
        let page = SecretPage { start, key };
        // SAFETY: as for mprotect(2).
        check(unsafe { libc::mlock(address, PAGE_BYTES) })?;
        for advice in [libc::MADV_DONTDUMP, libc::MADV_WIPEONFORK] {
            // SAFETY: as for mprotect(2).
            check(unsafe { libc::madvise(address, PAGE_BYTES, advice) })?;
        }
        Ok(page)
    }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl KeyMemory for SecretPage {
    fn bytes(&self) -> &[u8; KEY_MEMORY_BYTES] {
        // SAFETY: `new` made the page readable before it returned this object, which owns it.
        unsafe { self.key.as_ref() }
    }

    fn bytes_mut(&mut self) -> &mut [u8; KEY_MEMORY_BYTES] {
        // SAFETY: as in `bytes`; the page is writable, too, and borrowed exclusively.
        unsafe { self.key.as_mut() }
    }
}

impl Drop for SecretPage {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        // SAFETY: the three pages are the mapping of `new`, and no reference to them is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), 3 * PAGE_BYTES) };
    }
}

const _: () = assert!(KEY_MEMORY_BYTES <= PAGE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the line with `name` of smaps(5) for the mapping at `address`.
    fn smaps_field(address: usize, name: &str) -> Option<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let head = format!("{address:x}-");
        let lines = smaps.lines().skip_while(|line| !line.starts_with(&head));
        lines.map(str::to_string).find(|line| line.starts_with(name))
    }

    #[test]
    fn page_is_locked_left_out_of_dumps_and_gone_after_drop() {
        let mut page = SecretPage::new().unwrap();
        page.bytes_mut().fill(7);
        assert_eq!(page.bytes(), &[7; KEY_MEMORY_BYTES]);
        let address = page.key.as_ptr().addr();
        let flags = smaps_field(address, "VmFlags").unwrap();
        for flag in ["lo", "dd", "wf"] {
            assert!(flags.split(' ').any(|found| found == flag), "{flag}: {flags}");
        }
        drop(page);
        assert_eq!(smaps_field(address, "VmFlags"), None);
    }
}
