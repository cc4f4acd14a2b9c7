//! Numbers as people read them: counts, times, sizes, shares. Owns rounding and units.

/// `60,917`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `4 rows`, `1 row`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A span of time: `under 1 ms`, `8 ms`, `1.2 s`, `3 min 20 s`, `1 h 52 min`.
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    if seconds > 0.0 && seconds < 0.0005 {
        return "under 1 ms".to_owned();
    }
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    // Whole seconds from here on; f64 to u64 saturates.
    let whole = seconds.round() as u64;
    let (hours, minutes) = (whole / 3600, whole % 3600 / 60);
    match (hours, whole % 60) {
        (0, 0) => format!("{minutes} min"),
        (0, rest) => format!("{minutes} min {rest} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// How long ago, in one unit: `just now`, `5 min ago`, `3 days ago`.
pub fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} ago", counted(seconds / 86400, "day")),
    }
}

/// A size in powers of 1000: `812 B`, `4.6 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A rate, coarse enough to be read while it changes: `8.3`, `312`, `12.4 k`, `1.3 M`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        x if !x.is_finite() || x < 0.0 => "-".to_owned(),
        x if x < 9.95 => format!("{x:.1}"),
        x if x < 9_999.5 => format!("{x:.0}"),
        x if x < 999_950.0 => format!("{:.1} k", x / 1e3),
        x => format!("{:.1} M", x / 1e6),
    }
}

/// A share of 1: `41.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A change of a share in percentage points: `+11.8 points`.
pub fn points(change: f64) -> String {
    format!("{:+.1} points", change * 100.0)
}

/// A number of parameters: `9.24 B`, `812 k`.
pub fn parameters(n: u64) -> String {
    match n {
        0..10_000 => count(n),
        10_000..1_000_000 => format!("{} k", n / 1000),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: Copy>(render: impl Fn(T) -> String, cases: &[(T, &str)]) {
        for (value, expected) in cases {
            assert_eq!(render(*value), *expected);
        }
    }

    #[test]
    fn quantities_are_read_by_people() {
        check(count, &[(0, "0"), (999, "999"), (1000, "1,000"), (60_917, "60,917"), (1_234_567, "1,234,567")]);
        check(|n| counted(n, "row"), &[(0, "0 rows"), (1, "1 row"), (2, "2 rows")]);
        let times = [
            (0.0, "0 ms"),
            (0.0003, "under 1 ms"),
            (0.0081, "8 ms"),
            (0.9996, "1.0 s"),
            (1.24, "1.2 s"),
            (60.0, "1 min"),
            (200.0, "3 min 20 s"),
            (6720.0, "1 h 52 min"),
            (f64::NAN, "-"),
        ];
        check(seconds, &times);
        check(ago, &[(3, "just now"), (301, "5 min ago"), (7200, "2 h ago"), (86400, "1 day ago")]);
        check(bytes, &[(812, "812 B"), (4_600_000, "4.6 MB"), (999_999, "1.0 MB")]);
        check(rate, &[(8.26, "8.3"), (311.7, "312"), (12_412.0, "12.4 k"), (1.3e6, "1.3 M")]);
        check(percent, &[(0.4129, "41.3 %")]);
        check(points, &[(0.118, "+11.8 points"), (-0.02, "-2.0 points")]);
        check(parameters, &[(812_345, "812 k"), (9_240_000_000, "9.24 B"), (3_400_000, "3.40 M")]);
    }
}
