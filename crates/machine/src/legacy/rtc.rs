//! The real-time clock (MC146818) with its 128 bytes of memory: it tells UTC and how much RAM there is.
//!
//! The time is the host's; what a guest writes to it is dropped. There are no alarms and no periodic interrupts. The digits
//! are BCD, which is what Linux on x86 takes them for whatever status register B says (`RTC_ALWAYS_BCD`).

use std::time::{SystemTime, UNIX_EPOCH};

use boot_params::{Region, layout};

use super::bus::PortDevice;

const INDEX: u16 = 0;
const DATA: u16 = 1;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;
const LOW_MEMORY: [u8; 2] = [0x34, 0x35];
const HIGH_MEMORY: [u8; 3] = [0x5b, 0x5c, 0x5d];

/// 32,768 Hz and the usual rate; the update-in-progress bit is never set.
const A_TIME_BASE: u8 = 0x26;
const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
const B_24_HOURS: u8 = 1 << 1;
const D_VALID: u8 = 1 << 7;

const MEMORY_LEN: usize = 128;
const INDEX_MASK: u8 = 0x7f;
/// Memory is counted in units of 64 KiB, that below the gap from 16 MiB on.
const MEMORY_UNIT: u64 = 64 << 10;
const LOW_MEMORY_START: u64 = 16 << 20;

pub(super) struct Rtc {
    clock: Box<dyn Fn() -> SystemTime + Send>,
    index: u8,
    memory: [u8; MEMORY_LEN],
}

impl Rtc {
    pub(super) fn new(clock: Box<dyn Fn() -> SystemTime + Send>, ram: &[Region]) -> Self {
        let mut memory = [0; MEMORY_LEN];
        memory[usize::from(STATUS_A)] = A_TIME_BASE;
        memory[usize::from(STATUS_B)] = B_24_HOURS;
        memory[usize::from(STATUS_D)] = D_VALID;
        let below: u64 = ram
            .iter()
            .filter(|region| region.start < layout::GAP_START)
            .map(|region| region.len)
            .sum();
        let above: u64 = ram
            .iter()
            .filter(|region| region.start >= layout::GAP_END)
            .map(|region| region.len)
            .sum();
        put_units(&mut memory, &LOW_MEMORY, below.saturating_sub(LOW_MEMORY_START));
        put_units(&mut memory, &HIGH_MEMORY, above);
        Self {
            clock,
            index: 0,
            memory,
        }
    }

    fn register(&self) -> u8 {
        let stored = self.memory.get(usize::from(self.index)).copied().unwrap_or(0);
        let time = || Utc::from((self.clock)());
        match self.index {
            SECONDS => bcd(time().second),
            MINUTES => bcd(time().minute),
            HOURS => bcd(time().hour),
            WEEKDAY => bcd(time().weekday),
            DAY => bcd(time().day),
            MONTH => bcd(time().month),
            YEAR => bcd(time().year % 100),
            CENTURY => bcd(time().year / 100),
            _ => stored,
        }
    }

    fn set_register(&mut self, value: u8) {
        let stored = match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY | STATUS_C | STATUS_D => return,
            index if LOW_MEMORY.contains(&index) || HIGH_MEMORY.contains(&index) => return,
            STATUS_A => value & !A_UPDATE_IN_PROGRESS,
            _ => value,
        };
        if let Some(place) = self.memory.get_mut(usize::from(self.index)) {
            *place = stored;
        }
    }
}

/// Writes a number of bytes in units, the lowest byte first; what is too much for the registers fills them.
fn put_units(memory: &mut [u8; MEMORY_LEN], registers: &[u8], bytes: u64) {
    let bits = 8 * registers.len();
    let units = (bytes / MEMORY_UNIT).min((1 << bits) - 1);
    for (register, byte) in registers.iter().zip(units.to_le_bytes()) {
        memory[usize::from(*register)] = byte;
    }
}

impl PortDevice for Rtc {
    fn read(&mut self, offset: u16) -> u8 {
        if offset == DATA { self.register() } else { 0xff }
    }

    fn write(&mut self, offset: u16, value: u8) {
        match offset {
            INDEX => self.index = value & INDEX_MASK,
            _ => self.set_register(value),
        }
    }
}

/// A point in time as a calendar has it.
#[derive(Debug, PartialEq, Eq)]
struct Utc {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// 1 is Sunday.
    weekday: u64,
}

impl From<SystemTime> for Utc {
    /// Times before 1970 are taken for its beginning.
    fn from(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let days = seconds / 86400;
        let (year, month, day) = date(days);
        Self {
            year,
            month,
            day,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            weekday: (days + 4) % 7 + 1,
        }
    }
}

/// Year, month and day of a number of days since 1970. Years are counted from March here, so that the leap day is a year's
/// last and months have a regular pattern of lengths.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era + year_of_era / 100 - year_of_era / 4 - 365 * year_of_era;
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Two digits.
fn bcd(number: u64) -> u8 {
    let [byte, ..] = (number / 10 % 10 * 16 + number % 10).to_le_bytes();
    byte
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rtc(seconds: u64, ram: &[Region]) -> Rtc {
        Rtc::new(Box::new(move || UNIX_EPOCH + Duration::from_secs(seconds)), ram)
    }

    fn get(rtc: &mut Rtc, index: u8) -> u8 {
        rtc.write(0, index);
        rtc.read(1)
    }

    fn set(rtc: &mut Rtc, index: u8, value: u8) {
        rtc.write(0, index);
        rtc.write(1, value);
    }

    #[test]
    fn clock_shows_utc_in_bcd() {
        let mut rtc = rtc(1_785_153_599, &[]);
        let shown = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY].map(|index| get(&mut rtc, index));
        assert_eq!(
            shown,
            [0x59, 0x59, 0x11, 0x02, 0x27, 0x07, 0x26, 0x20],
            "Monday 2026-07-27 11:59:59"
        );
    }

    #[test]
    fn dates_around_leap_days_and_centuries_are_right() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "day {days}");
        }
    }

    #[test]
    fn dates_of_500_years_follow_the_calendar_rules() {
        let mut expected = (1970, 1, 1);
        for days in 0..500 * 365 {
            assert_eq!(date(days), expected);
            let (year, month, day) = expected;
            let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (day == length, month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
    }

    #[test]
    fn status_says_that_the_time_can_be_read() {
        let mut rtc = rtc(0, &[]);
        set(&mut rtc, STATUS_A, 0xff);
        assert_eq!(get(&mut rtc, STATUS_A), 0x7f, "never an update in progress");
        assert_eq!(
            [STATUS_B, STATUS_C, STATUS_D].map(|index| get(&mut rtc, index)),
            [0x02, 0, 0x80]
        );
    }

    #[test]
    fn memory_registers_tell_the_size_of_ram() {
        let ram = boot_params::ram_regions(5 << 30).unwrap();
        let mut rtc = rtc(0, &ram);
        assert_eq!(LOW_MEMORY.map(|index| get(&mut rtc, index)), [0x00, 0xcf]);
        assert_eq!(HIGH_MEMORY.map(|index| get(&mut rtc, index)), [0x00, 0x70, 0x00]);
    }

    #[test]
    fn memory_registers_of_odd_sizes_stay_in_range() {
        let mut small = rtc(0, &[Region::new(0, 1 << 20)]);
        assert_eq!(LOW_MEMORY.map(|index| get(&mut small, index)), [0, 0]);
        let mut large = rtc(0, &[Region::new(1 << 32, 1 << 45)]);
        assert_eq!(HIGH_MEMORY.map(|index| get(&mut large, index)), [0xff; 3]);
    }

    #[test]
    fn guest_writes_reach_memory_but_not_time_or_sizes() {
        let mut rtc = rtc(0, &[Region::new(0, 64 << 20)]);
        for index in 0..=0x7f {
            set(&mut rtc, index, 0x11);
        }
        assert_eq!(
            [SECONDS, YEAR, LOW_MEMORY[0], LOW_MEMORY[1]].map(|index| get(&mut rtc, index)),
            [0, 0x70, 0, 3]
        );
        assert_eq!([0x0e, 0x7f].map(|index| get(&mut rtc, index)), [0x11; 2]);
    }

    #[test]
    fn index_ignores_the_nmi_bit() {
        let mut rtc = rtc(0, &[]);
        assert_eq!(get(&mut rtc, 0x80 | STATUS_D), 0x80);
    }
}
