//! Finds the last number written in a text and brings it to one spelling. Decimal text, never floating point.

/// The last number of a text in one spelling: no separators, no leading or trailing zeros, `-` only if negative.
///
/// A minus sign counts only where it cannot be a dash (at the start or after a space, bracket, `=` or currency sign).
/// Commas count as thousands separators only before exactly three digits. A point counts only before a digit. A
/// fraction such as `3/4` is read as two numbers.
pub fn last_number(text: &str) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    let mut last = None;
    while at < chars.len() {
        if chars[at].is_ascii_digit() || starts_with_point(&chars, at) {
            let (end, digits) = read_unsigned(&chars, at);
            last = Some((is_negative(&chars, at), digits));
            at = end;
        } else {
            at += 1;
        }
    }
    last.map(|(negative, digits)| spell(negative, &digits))
}

fn starts_with_point(chars: &[char], at: usize) -> bool {
    chars[at] == '.' && is_digit(chars, at + 1)
}

fn is_digit(chars: &[char], at: usize) -> bool {
    chars.get(at).is_some_and(char::is_ascii_digit)
}

/// Reads digits, thousands groups and one fraction from `at`; gives the place after them and the plain digits.
fn read_unsigned(chars: &[char], at: usize) -> (usize, String) {
    let mut digits = String::new();
    let mut end = at;
    while is_digit(chars, end) {
        digits.push(chars[end]);
        end += 1;
    }
    if (1..=3).contains(&digits.len()) {
        while is_thousands_group(chars, end) {
            digits.extend(&chars[end + 1..end + 4]);
            end += 4;
        }
    }
    if chars.get(end) == Some(&'.') && is_digit(chars, end + 1) {
        digits.push('.');
        end += 1;
        while is_digit(chars, end) {
            digits.push(chars[end]);
            end += 1;
        }
    }
    (end, digits)
}

fn is_thousands_group(chars: &[char], comma: usize) -> bool {
    chars.get(comma) == Some(&',')
        && (1..=3).all(|offset| is_digit(chars, comma + offset))
        && !is_digit(chars, comma + 4)
}

fn is_negative(chars: &[char], at: usize) -> bool {
    let before = |place: usize| place.checked_sub(1).map(|p| (p, chars[p]));
    let mut left = before(at);
    if let Some((place, '$' | '€' | '£')) = left {
        left = before(place);
    }
    match left {
        Some((place, '-' | '\u{2212}')) => match before(place) {
            None => true,
            Some((_, c)) => c.is_whitespace() || matches!(c, '(' | '[' | '=' | ':' | '$' | '€' | '£' | '"'),
        },
        _ => false,
    }
}

fn spell(negative: bool, digits: &str) -> String {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let mut spelled = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
    if !fraction.is_empty() {
        spelled.push('.');
        spelled.push_str(fraction);
    }
    if negative && spelled != "0" { format!("-{spelled}") } else { spelled }
}

#[cfg(test)]
mod tests {
    use super::last_number;
    use expect_test::{Expect, expect};

    fn check(texts: &[&str], want: Expect) {
        let lines: Vec<String> =
            texts.iter().map(|text| format!("{text} -> {}", last_number(text).unwrap_or_default())).collect();
        want.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn spellings() {
        check(
            &["7", "7.", "7.50", "0.5", ".5", "007", "-0", "-3", "5-3", "= -3", "$-3", "-$3.00", "(−2)"],
            expect![[r#"
                7 -> 7
                7. -> 7
                7.50 -> 7.5
                0.5 -> 0.5
                .5 -> 0.5
                007 -> 7
                -0 -> 0
                -3 -> -3
                5-3 -> 3
                = -3 -> -3
                $-3 -> -3
                -$3.00 -> -3
                (−2) -> -2"#]],
        );
        check(
            &["1,234,567.80", "1, 2", "1,23", "12,3456", "1234,567", "3/4", "v1.2.3", "none"],
            expect![[r#"
                1,234,567.80 -> 1234567.8
                1, 2 -> 2
                1,23 -> 23
                12,3456 -> 3456
                1234,567 -> 567
                3/4 -> 4
                v1.2.3 -> 0.3
                none -> "#]],
        );
    }
}
