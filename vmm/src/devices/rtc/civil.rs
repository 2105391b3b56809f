//! Conversion of seconds since 1970 to a calendar date (proleptic Gregorian, UTC).

const SECONDS_PER_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_SHIFT: u64 = 719_468;
/// Days in 400 years, 100 years, 4 years.
const DAYS_400: u64 = 146_097;
const DAYS_100: u64 = 36_524;
const DAYS_4: u64 = 1_461;

/// A moment on a wall calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u64,
    /// 1..=12.
    pub(super) month: u8,
    /// 1..=31.
    pub(super) day: u8,
    /// 1 is Sunday, 7 is Saturday (MC146818A, table 3).
    pub(super) weekday: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl Civil {
    /// Returns the date and time `seconds` after 1970-01-01T00:00Z.
    ///
    /// Years are counted from March, so that the leap day is the last day of its year and every month
    /// before it starts at a fixed day: month m (0 is March) starts at day (153 m + 2) / 5.
    pub(super) fn from_unix(seconds: u64) -> Self {
        let (days, second_of_day) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let shifted = days + EPOCH_SHIFT;
        let (era, day_of_era) = (shifted / DAYS_400, shifted % DAYS_400);
        let year_of_era = (day_of_era - day_of_era / (DAYS_4 - 1) + day_of_era / DAYS_100
            - day_of_era / (DAYS_400 - 1))
            / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month: month as u8,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u8,
            // 1970-01-01 was a Thursday.
            weekday: ((days + 4) % 7 + 1) as u8,
            hour: (second_of_day / 3600) as u8,
            minute: (second_of_day / 60 % 60) as u8,
            second: (second_of_day % 60) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64) -> (u64, u8, u8, u8) {
        let c = Civil::from_unix(seconds);
        (c.year, c.month, c.day, c.weekday)
    }

    #[test]
    fn from_unix_known_moments() {
        assert_eq!(date(0), (1970, 1, 1, 5));
        // Leap day of a year divisible by 400.
        assert_eq!(date(951_782_400), (2000, 2, 29, 3));
        assert_eq!(date(951_868_800), (2000, 3, 1, 4));
        // Last second of a signed 32-bit clock, and the next.
        let c = Civil::from_unix((1 << 31) - 1);
        assert_eq!((c.year, c.month, c.day), (2038, 1, 19));
        assert_eq!((c.hour, c.minute, c.second), (3, 14, 7));
        assert_eq!(Civil::from_unix(1 << 31).second, 8);
        // 2100 is divisible by 100 and not by 400: no leap day.
        assert_eq!(date(4_107_456_000), (2100, 2, 28, 1));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 2));
        // The last moment of a 64-bit nanosecond clock.
        assert_eq!(date(u64::MAX / 1_000_000_000), (2554, 7, 21, 1));
    }

    #[test]
    fn every_day_of_600_years_follows_the_previous_day() {
        let leap =
            |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
        let length = |y, m| match m {
            2 if leap(y) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let (mut year, mut month, mut day, mut weekday) = (1970, 1, 1, 5);
        for days in 0..600 * 365 {
            assert_eq!(date(days * 86_400), (year, month, day, weekday));
            weekday = weekday % 7 + 1;
            day += 1;
            if day > length(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
