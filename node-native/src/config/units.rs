//! Times and sizes as people write them: `"30s"`, `"250 ms"`, `"64 KiB"`.

use core::fmt;
use serde::{Deserialize, Deserializer, de};
use std::time::Duration;

/// A time with its unit: `ms`, `s`, `min` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// A number of bytes, bare or with its unit: `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// Reads a time as the configuration writes it.
pub(crate) fn parse_time(text: &str) -> Result<Duration, &'static str> {
    time(text).map(|Time(time)| time)
}

fn time(text: &str) -> Result<Time, &'static str> {
    const HELP: &str = "a time is a whole number with a unit: ms, s, min or h, as in \"30s\"";
    let (number, unit) = split(text).ok_or(HELP)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(HELP),
    };
    number
        .checked_mul(millis)
        .map(|millis| Time(Duration::from_millis(millis)))
        .ok_or("this time is too long")
}

fn size(text: &str) -> Result<Size, &'static str> {
    const HELP: &str = "a size is a whole number with a unit: B, KiB, MiB or GiB, as in \"64 KiB\"";
    let (number, unit) = split(text).ok_or(HELP)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(HELP),
    };
    number
        .checked_mul(bytes)
        .map(Size)
        .ok_or("this size is too large")
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit, as in \"30s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                time(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size with its unit as in \"64 KiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                size(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::custom("a size is not negative"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_as_people_write_them() {
        assert_eq!(time("250ms"), Ok(Time(Duration::from_millis(250))));
        assert_eq!(time(" 10 min "), Ok(Time(Duration::from_secs(600))));
        assert_eq!(time("2h"), Ok(Time(Duration::from_secs(7200))));
        assert_eq!(size("64 KiB"), Ok(Size(65536)));
        assert_eq!(size("1GiB"), Ok(Size(1 << 30)));
        for bad in [
            "30",
            "",
            "s",
            "-1s",
            "1.5s",
            "30 seconds",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(time(bad).is_err(), "{bad:?}");
        }
        for bad in ["64", "64 KB", "kib", "-1 B", "18446744073709551615 GiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }
}
