//! Durations and sizes as people write them: `"250ms"`, `"7d"`, `"64MiB"`.

use std::time::Duration;

/// The longest duration: a thousand years, far from where arithmetic on times would overflow.
const DAYS_MAX: f64 = 365_000.0;

/// Reads a duration: a number and one of `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("expected a duration such as \"250ms\", \"30s\", \"5m\", \"2h\" or \"7d\", found {text:?}");
    let (number, unit) = split(text).ok_or_else(expected)?;
    let unit_ms: f64 = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3600e3,
        "d" => 86_400e3,
        _ => return Err(expected()),
    };
    let ms = number * unit_ms;
    if ms > DAYS_MAX * 86_400e3 {
        return Err(format!("expected at most \"{DAYS_MAX}d\", found {text:?}"));
    }
    Ok(Duration::from_millis(ms.round() as u64))
}

/// Reads a size in bytes: a number and one of `B`, `KiB`, `MiB`, `GiB` (or `KB`, `MB`, `GB`, in thousands).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a size such as \"512KiB\", \"64MiB\" or \"1GiB\", found {text:?}");
    let (number, unit) = split(text).ok_or_else(expected)?;
    let unit_bytes: f64 = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return Err(expected()),
    };
    let bytes = number * unit_bytes;
    if bytes > 1e15 { Err(expected()) } else { Ok(bytes.round() as u64) }
}

/// A duration as a person would write it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// A size as a person would write it.
pub(crate) fn show_size(bytes: u64) -> String {
    for (unit_bytes, unit) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit_bytes && bytes.is_multiple_of(unit_bytes) {
            return format!("{}{unit}", bytes / unit_bytes);
        }
    }
    format!("{bytes}B")
}

fn split(text: &str) -> Option<(f64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_written() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1 KB"), Ok(1000));
        for bad in ["", "5", "ms", "-1s", "5 parsecs", "99999999999999999d", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad:?} passed as a duration");
            assert!(size(bad).is_err(), "{bad:?} passed as a size");
        }
    }

    #[test]
    fn a_duration_is_shown_in_its_largest_whole_unit() {
        let shown = [90_000, 60_000, 1_500, 86_400_000].map(|ms| show_duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["90s", "1m", "1500ms", "1d"]);
    }

    #[test]
    fn a_size_is_shown_as_it_can_be_read_again() {
        for (bytes, shown) in
            [(0, "0B"), (1000, "1000B"), (1536, "1536B"), (2048, "2KiB"), (64 << 20, "64MiB"), (3 << 30, "3GiB")]
        {
            assert_eq!(show_size(bytes), shown);
            assert_eq!(size(shown), Ok(bytes));
        }
    }
}
