//! Time, from three sources with three purposes.
//!
//! * The tick: PIT channel 0 interrupts at 100 Hz. Free to read, so the network stack lives on it.
//! * RDTSC: traps to the stub, which reads the clock port: nanoseconds of guest time, but a visit to CPL0.
//! * The RTC: the date, a dozen exits; only for a page that shows it.

use core::arch::asm;
use core::fmt;

use smoltcp::time::Instant;

use crate::gate::ticks;
use crate::port::{inb, outb};

/// Length of a tick.
pub(crate) const TICK_MS: u64 = 10;

/// PIT input clock over 100 Hz, rounded: 1193182 / 100.
const PIT_DIVISOR: u16 = 11932;
const PIT_CHANNEL_0: u16 = 0x40;
const PIT_COMMAND: u16 = 0x43;
/// Channel 0, low byte then high byte, mode 2 (rate generator), binary.
const PIT_RATE_GENERATOR: u8 = 0x34;

/// Starts the tick. The interrupt line is unmasked by the caller.
pub(crate) fn start_tick() {
    let [low, high] = PIT_DIVISOR.to_le_bytes();
    outb(PIT_COMMAND, PIT_RATE_GENERATOR);
    outb(PIT_CHANNEL_0, low);
    outb(PIT_CHANNEL_0, high);
}

/// Milliseconds since the tick was started.
pub(crate) fn uptime_ms() -> u64 {
    ticks() * TICK_MS
}

/// The tick as the network stack's time.
pub(crate) fn now() -> Instant {
    Instant::from_millis(uptime_ms().cast_signed())
}

/// A trapped RDTSC.
pub(crate) fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDTSC writes EDX:EAX; so does the stub that answers the trap, and it touches no memory of
    // CPL3.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

const RTC_INDEX: u16 = 0x70;
const RTC_DATA: u16 = 0x71;
const RTC_STATUS_A: u8 = 0x0a;
const RTC_STATUS_B: u8 = 0x0b;
/// Status A: an update is near or under way, the time registers are not stable.
const UPDATE_IN_PROGRESS: u8 = 0x80;
/// Status B: 24-hour mode, and binary (not BCD) registers.
const HOURS_24: u8 = 0x02;
const BINARY: u8 = 0x04;
/// Hour register in 12-hour mode: afternoon.
const PM: u8 = 0x80;
/// Conventional place of the century, in BCD like the rest.
const RTC_CENTURY: u8 = 0x32;
/// An update takes 2 ms at most; a device that never ends one does not stop us.
const UPDATE_POLLS_MAX: u32 = 1000;
/// DeviceBoundary that straddle an update are thrown away; two in a row do not happen on a working clock.
const READINGS_MAX: u32 = 4;

/// The date of the CMOS RTC, taken as UTC.
#[derive(Clone, Copy)]
pub(crate) struct WallClock {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl WallClock {
    /// Reads the RTC, again if an update fell into the reading.
    pub(crate) fn read() -> Self {
        let mut reading = Self::read_once();
        for _ in 0..READINGS_MAX {
            if cmos(0) == reading.0 {
                break;
            }
            reading = Self::read_once();
        }
        reading.1
    }

    /// The raw seconds register and the date it belongs to.
    fn read_once() -> (u8, Self) {
        let _ = (0..UPDATE_POLLS_MAX).any(|_| cmos(RTC_STATUS_A) & UPDATE_IN_PROGRESS == 0);
        let [second, minute, hour, day, month, year, century] =
            [0, 2, 4, 7, 8, 9, RTC_CENTURY].map(cmos);
        let mode = cmos(RTC_STATUS_B);
        let number =
            |raw: u8| if mode & BINARY != 0 { raw } else { (raw >> 4) * 10 + (raw & 0x0f) };
        let hour = if mode & HOURS_24 != 0 {
            number(hour)
        } else {
            number(hour & !PM) % 12 + if hour & PM != 0 { 12 } else { 0 }
        };
        // A clock without a century register is in this century.
        let century = match number(century) {
            c @ 19..=21 => u16::from(c),
            _ => 20,
        };
        let date = Self {
            year: century * 100 + u16::from(number(year)),
            month: number(month),
            day: number(day),
            hour,
            minute: number(minute),
            second: number(second),
        };
        (second, date)
    }
}

/// ISO 8601, as in `2026-02-03T04:05:06Z`.
impl fmt::Display for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

fn cmos(register: u8) -> u8 {
    outb(RTC_INDEX, register);
    inb(RTC_DATA)
}
