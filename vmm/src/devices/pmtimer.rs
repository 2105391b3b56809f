//! The ACPI power management timer: a free-running 24-bit counter in the 32-bit port 0x608 (ACPI 6.5,
//! section 4.8.3.3). It has no state: it is the guest's time at another rate.

use super::ticks::ticks_at;

/// Clock rate, three times the PIT's, 1/s (ACPI 6.5, section 4.8.2.1).
const HZ: u64 = 3_579_545;
const MASK: u32 = 0xFF_FFFF;

/// Returns the register's value at `now_ns`.
pub(crate) fn read(now_ns: u64) -> u32 {
    ticks_at(now_ns, HZ) as u32 & MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_after_one_second_is_its_rate() {
        assert_eq!(read(1_000_000_000), 3_579_545);
    }

    #[test]
    fn counter_wraps_after_24_bits() {
        // 2^24 ticks take 4.6869988 s.
        let wrap_ns = super::super::ticks::ns_of_tick(1 << 24, HZ);
        assert_eq!(read(wrap_ns - 1), MASK);
        assert_eq!(read(wrap_ns), 0);
    }
}
