//! Sums, differences and number sequences. All answers are whole numbers from 0 to 50.

use super::Fact;

/// Wrong numbers near the right one; none is negative.
pub(super) fn near_numbers(right: i64, offsets: &[i64]) -> Vec<String> {
    offsets.iter().map(|offset| right + offset).filter(|n| *n >= 0).map(|n| n.to_string()).collect()
}

pub(super) fn add() -> Vec<Fact> {
    let pairs = (1..=9).flat_map(|a| (1..=9).map(move |b| (a, b)));
    pairs
        .map(|(a, b): (i64, i64)| {
            let asks = [
                format!("What is {a} plus {b}?"),
                format!("Add {a} and {b}."),
                format!("How much is {a} + {b}?"),
                format!("What do you get when you add {b} to {a}?"),
            ];
            let mut near = near_numbers(a + b, &[-1, 1, -2, 2, 10]);
            near.push((a - b).abs().to_string());
            Fact::new(&asks, a + b, format!("{a} plus {b} is"), near)
        })
        .collect()
}

pub(super) fn subtract() -> Vec<Fact> {
    let pairs = (1..=9).flat_map(|a| (1..=a).map(move |b| (a, b)));
    pairs
        .map(|(a, b): (i64, i64)| {
            let asks = [
                format!("What is {a} minus {b}?"),
                format!("Subtract {b} from {a}."),
                format!("How much is {a} - {b}?"),
                format!("What is left if you take {b} away from {a}?"),
                spend(a, b),
            ];
            let mut near = near_numbers(a - b, &[-1, 1, -2, 2]);
            near.push((a + b).to_string());
            Fact::new(&asks, a - b, format!("{a} minus {b} is"), near)
        })
        .collect()
}

fn spend(a: i64, b: i64) -> String {
    match a {
        1 => "You have one coin and spend it. How many are left?".to_owned(),
        _ => format!("You have {a} coins and spend {b} of them. How many are left?"),
    }
}

pub(super) fn next_in_sequence() -> Vec<Fact> {
    let shapes = [1, 2, 5, 10].into_iter().flat_map(|step| (1..=20).map(move |start| (start, step)));
    shapes
        .map(|(start, step): (i64, i64)| {
            let shown = format!("{start}, {}, {}", start + step, start + 2 * step);
            let asks = [
                format!("Which number comes next: {shown}?"),
                format!("What is the next number after {shown}?"),
                format!("Continue the sequence {shown} with one more number."),
                format!("The pattern is {shown}. What number follows?"),
            ];
            let right = start + 3 * step;
            let near = near_numbers(right, &[-1, 1, step, -step, 2]);
            Fact::new(&asks, right, "Next comes", near)
        })
        .collect()
}
