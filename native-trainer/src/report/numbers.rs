//! Numbers for people: one notation per quantity, used by the progress bar, the tables, the card and the page.

use std::time::Duration;

/// `1234567` -> `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Binary units: `1536` -> `1.5 KiB`, `3_221_225_472` -> `3.0 GiB`; below 1 KiB `512 B`.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0 of the smaller unit.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// `85 ms`, `12.3 s`, `2m 05s`, `1h 02m`, `3d 04h`: two places, whatever the size.
pub(crate) fn duration(value: Duration) -> String {
    let seconds = value.as_secs_f64();
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {:02}s", whole % 60),
        (0, _) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// Tokens per second: `1,234 tok/s`, `12.3 tok/s`, `0.45 tok/s`; `- tok/s` before there is a measurement.
pub(crate) fn tokens_per_second(rate: f64) -> String {
    if !rate.is_finite() || rate < 0.0 {
        "- tok/s".into()
    } else if rate >= 99.95 {
        format!("{} tok/s", count(rate.round() as u64))
    } else if rate >= 9.995 {
        format!("{rate:.1} tok/s")
    } else {
        format!("{rate:.2} tok/s")
    }
}

/// A probability value as papers print it: `p < 0.001`, `p = 0.032`, `p = 0.41`.
pub(crate) fn p_value(p: f64) -> String {
    if !(0.0..=1.0).contains(&p) {
        "p = -".into()
    } else if p < 0.001 {
        "p < 0.001".into()
    } else if p < 0.0995 {
        format!("p = {p:.3}")
    } else {
        format!("p = {p:.2}")
    }
}

/// A score: four significant digits, plain where that is short, scientific for the very small and large.
pub(crate) fn score(value: f64) -> String {
    if value.is_nan() {
        return "not a number".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "infinite" } else { "-infinite" }.into();
    }
    let size = value.abs();
    match size {
        0.0 => "0".into(),
        s if s < 1e-3 => format!("{value:.2e}"),
        s if s < 10.0 => format!("{value:.3}"),
        s if s < 100.0 => format!("{value:.2}"),
        s if s < 1e6 => format!("{value:.1}"),
        _ => format!("{value:.2e}"),
    }
}

/// A score with its interval: `0.874 [0.851, 0.896]`; without one, the score alone.
pub(crate) fn with_interval(value: f64, interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("{} [{}, {}]", score(value), score(low), score(high)),
        None => score(value),
    }
}

/// The change from `base` to `adapted` in percent of `base`, signed: `-35.2 %`; `-` where base is 0 or not finite.
pub(crate) fn change(base: f64, adapted: f64) -> String {
    let percent = (adapted - base) / base.abs() * 100.0;
    if !percent.is_finite() {
        "-".into()
    } else if percent.abs() < 0.05 {
        "0.0 %".into()
    } else {
        format!("{percent:+.1} %")
    }
}

/// The change from `base` to `adapted` in points, signed: `+0.745` of scores up to 1, `+11.48` of scores up to 100.
pub(crate) fn points(base: f64, adapted: f64) -> String {
    let difference = adapted - base;
    match base.abs().max(adapted.abs()) {
        _ if !difference.is_finite() => "-".into(),
        most if most <= 1.0 => format!("{difference:+.3}"),
        _ => format!("{difference:+.2}"),
    }
}

/// A learning rate: `2.0e-4`; `0` at the ends of a schedule.
pub(crate) fn learning_rate(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn bytes_never_show_1024_of_a_unit() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn durations_at_the_borders() {
        for (seconds, text) in [
            (0.0, "0 ms"),
            (0.085, "85 ms"),
            (0.9999, "1.0 s"),
            (59.99, "1m 00s"),
            (125.4, "2m 05s"),
            (3599.7, "1h 00m"),
            (3725.0, "1h 02m"),
            (273_600.0, "3d 04h"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn scores_keep_their_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.12345, "-0.123"),
            (12.345, "12.35"),
            (123.45, "123.5"),
            (0.00012, "1.20e-4"),
            (f64::NAN, "not a number"),
            (f64::INFINITY, "infinite"),
        ] {
            assert_eq!(score(value), text);
        }
        assert_eq!(
            with_interval(0.874, Some((0.851, 0.896))),
            "0.874 [0.851, 0.896]"
        );
    }

    #[test]
    fn p_values_rates_and_changes() {
        assert_eq!(p_value(0.0), "p < 0.001");
        assert_eq!(p_value(0.0321), "p = 0.032");
        assert_eq!(p_value(0.41), "p = 0.41");
        assert_eq!(p_value(f64::NAN), "p = -");
        assert_eq!(tokens_per_second(1234.4), "1,234 tok/s");
        assert_eq!(tokens_per_second(f64::NAN), "- tok/s");
        assert_eq!(change(10.0, 6.48), "-35.2 %");
        assert_eq!(change(0.0, 1.0), "-");
        assert_eq!(change(3.0, 3.0), "0.0 %");
        assert_eq!(learning_rate(2e-4), "2.0e-4");
    }
}
