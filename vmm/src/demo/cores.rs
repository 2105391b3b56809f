//! The cores of this machine that we may run on: not always two, and not always those from 0 on.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, getpid};

/// Their numbers, ascending, as the process's first thread has them.
pub fn usable() -> Vec<usize> {
    let set = sched_getaffinity(getpid()).unwrap_or_default();
    let cores = (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false));
    let cores: Vec<usize> = cores.collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// The `n`th of them, or the last if there are not so many.
pub fn nth(n: usize) -> usize {
    let cores = usable();
    cores[n.min(cores.len() - 1)]
}

/// Keeps the calling thread on `core`.
///
/// # Errors
///
/// When there is no such core, or we may not run on it.
pub fn pin(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usable_core_can_be_pinned_to_and_the_last_stands_in_for_those_beyond() {
        let cores = usable();
        assert!(cores.is_sorted());
        let last = *cores.last().unwrap();
        assert_eq!((nth(0), nth(cores.len() + 3)), (cores[0], last));
        std::thread::spawn(move || {
            cores.iter().for_each(|&core| pin(core).unwrap());
            assert_eq!(usable(), cores, "a thread that is pinned does not count");
        })
        .join()
        .unwrap();
        pin(CpuSet::count()).unwrap_err();
    }
}
