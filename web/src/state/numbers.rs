//! Numbers for people, one notation per quantity; the same as the trainer's tables, so that a page beside a report agrees.

/// `1234567` -> `1,234,567`.
#[must_use]
pub fn count(value: u64) -> String {
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

/// Binary units: `1536` -> `1.5 KiB`; below 1 KiB `512 B`.
#[must_use]
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
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

/// `85 ms`, `12.3 s`, `2 min 05 s`, `1 h 02 min`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole / 3600 {
        0 => format!("{} min {:02} s", whole / 60, whole % 60),
        hours => format!("{hours} h {:02} min", whole / 60 % 60),
    }
}

/// Tokens per second: `1,234 tok/s`, `12.3 tok/s`, `0.45 tok/s`; `- tok/s` where nothing was measured.
#[must_use]
pub fn tokens_per_second(rate: f64) -> String {
    match rate {
        r if !r.is_finite() || r <= 0.0 => "- tok/s".into(),
        r if r >= 99.95 => format!("{} tok/s", count(r.round() as u64)),
        r if r >= 9.995 => format!("{r:.1} tok/s"),
        r => format!("{r:.2} tok/s"),
    }
}

/// `p < 0.001`, `p = 0.032`, `p = 0.41`.
#[must_use]
pub fn p_value(p: f64) -> String {
    match p {
        p if !(0.0..=1.0).contains(&p) => "p = -".into(),
        p if p < 0.001 => "p < 0.001".into(),
        p if p < 0.0995 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

/// A score: four significant digits, plain where that is short, scientific for the very small and large.
#[must_use]
pub fn score(value: f64) -> String {
    if value.is_nan() {
        return "not a number".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "infinite" } else { "-infinite" }.into();
    }
    match value.abs() {
        0.0 => "0".into(),
        s if s < 1e-3 => format!("{value:.2e}"),
        s if s < 10.0 => format!("{value:.3}"),
        s if s < 100.0 => format!("{value:.2}"),
        s if s < 1e6 => format!("{value:.1}"),
        _ => format!("{value:.2e}"),
    }
}

/// `0.874 [0.851, 0.896]`; without an interval, the score alone.
#[must_use]
pub fn with_interval(value: f64, interval: Option<[f64; 2]>) -> String {
    match interval {
        Some([low, high]) => format!("{} [{}, {}]", score(value), score(low), score(high)),
        None => score(value),
    }
}

/// `+0.123` or `-0.123`: a difference.
#[must_use]
pub fn signed(value: f64) -> String {
    match value {
        v if v > 0.0 => format!("+{}", score(v)),
        v => score(v),
    }
}

/// `12.3 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Whether a smaller value of `metric` is better; metrics by likelihood have the same names under a prefix.
#[must_use]
pub fn lower_is_better(metric: &str) -> bool {
    ["perplexity", "loss", "nll", "ece", "brier"]
        .iter()
        .any(|name| metric == *name || metric.ends_with(&format!("_{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(duration(0.085), "85 ms");
        assert_eq!(duration(125.0), "2 min 05 s");
        assert_eq!(duration(3720.0), "1 h 02 min");
        assert_eq!(duration(f64::INFINITY), "-");
        assert_eq!(tokens_per_second(0.0), "- tok/s");
        assert_eq!(tokens_per_second(1234.4), "1,234 tok/s");
        assert_eq!(p_value(0.0004), "p < 0.001");
        assert_eq!(p_value(0.5), "p = 0.50");
    }

    #[test]
    fn scores() {
        assert_eq!(score(0.5), "0.500");
        assert_eq!(score(f64::NAN), "not a number");
        assert_eq!(signed(0.25), "+0.250");
        assert_eq!(signed(-0.25), "-0.250");
        assert_eq!(with_interval(0.5, Some([0.4, 0.6])), "0.500 [0.400, 0.600]");
        assert!(lower_is_better("perplexity") && lower_is_better("choice_loss"));
        assert!(!lower_is_better("macro_f1"));
    }
}
