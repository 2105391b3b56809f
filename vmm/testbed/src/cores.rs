//! The cores that this process may run on: possibly only one, and not necessarily starting at 0.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, getpid};

/// Returns the numbers of the cores in the affinity mask of the process's first thread, ascending.
pub fn usable() -> Vec<usize> {
    let set = sched_getaffinity(getpid()).unwrap_or_default();
    let cores = (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false));
    let cores: Vec<usize> = cores.collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Returns the `n`th usable core, or the last one if there are fewer.
pub fn nth(n: usize) -> usize {
    let cores = usable();
    cores[n.min(cores.len() - 1)]
}

/// Pins the calling thread to `core`.
///
/// # Errors
///
/// If the core does not exist, or this process may not run on it.
pub fn pin(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_cores_can_be_pinned_to_and_nth_beyond_the_end_is_the_last() {
        let cores = usable();
        assert!(cores.is_sorted());
        let last = *cores.last().unwrap();
        assert_eq!((nth(0), nth(cores.len() + 3)), (cores[0], last));
        std::thread::spawn(move || {
            cores.iter().for_each(|&core| pin(core).unwrap());
            assert_eq!(usable(), cores, "pinning another thread does not change the result");
        })
        .join()
        .unwrap();
        pin(CpuSet::count()).unwrap_err();
    }
}
