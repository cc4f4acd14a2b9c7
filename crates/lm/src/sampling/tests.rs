//! The published filters' outputs, and the draw.

use std::fs;

use serde_json::Value;

use super::{Candidate, RowRng, Sampling, SamplingError, Scratch, draw, greedy, log_probability};

fn logits(value: &Value) -> Vec<f32> {
    let number = |v: &Value| v.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32);
    value.as_array().unwrap().iter().map(number).collect()
}

#[test]
fn published_cases() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/sampling/sampling.json");
    let fixture: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 156);
    let mut scratch = Scratch::default();
    let mut worst = [0.0f64; 2];
    for case in cases {
        let name = case["logits"].as_str().unwrap();
        let set = &case["settings"];
        let top_k = set["top_k"].as_u64().map(|k| k as usize);
        let temperature = set["temperature"].as_f64().unwrap_or(1.0);
        let sampling = Sampling::new(temperature, top_k, set["top_p"].as_f64(), set["min_p"].as_f64()).unwrap();
        let kept = sampling.filter(&logits(&fixture["logits"][name]), &mut scratch).unwrap();

        let wanted_ids: Vec<u32> = serde_json::from_value(case["kept"].clone()).unwrap();
        let mut wanted: Vec<f64> = serde_json::from_value(case["probabilities"].clone()).unwrap();
        let mut found: Vec<f64> = kept.iter().map(|candidate| candidate.probability).collect();
        assert_eq!(kept.len() as u64, case["kept_count"].as_u64().unwrap(), "{name} {set}");
        if case["split_tie"] == Value::Bool(true) {
            // Which of the equal entries stay is not defined there.
            wanted.sort_by(f64::total_cmp);
            found.sort_by(f64::total_cmp);
        } else {
            let ids: Vec<u32> = kept.iter().map(|candidate| candidate.id).collect();
            assert_eq!(ids, wanted_ids, "{name} {set}");
        }
        let tolerance = if name == "shifted_large" { 1e-3 } else { 1e-5 };
        for (found, wanted) in found.iter().zip(&wanted).filter(|(_, wanted)| **wanted > 0.0) {
            let worst = &mut worst[usize::from(name == "shifted_large")];
            *worst = worst.max((found - wanted).abs() / wanted);
        }
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!((found - wanted).abs() <= tolerance * wanted, "{name} {set}: {found} is not {wanted}");
        }
    }
    println!("| fixture sampling | kept ids and their number, 156 cases | 0 | exact |");
    println!("| fixture sampling | probabilities, relative | {:.1e} | 1.0e-5 |", worst[0]);
    println!("| fixture sampling | probabilities of `shifted_large`, relative | {:.1e} | 1.0e-3 |", worst[1]);
}

/// The rule of top_p by sorting everything: what the selection by bins must agree with.
fn top_p_by_sorting(logits: &[f32], top_p: f64) -> Vec<u32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: &u32| f64::from((logits[*id as usize] - largest).exp());
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    let mut left = top_p * ids.iter().map(weight).sum::<f64>();
    ids.retain(|id| {
        let stays = left > 0.0;
        left -= weight(id);
        stays
    });
    ids.sort();
    ids
}

#[test]
fn large_vocabularies_agree_with_sorting() {
    let mut scratch = Scratch::default();
    let rng = RowRng::new(7);
    for (n, spread) in [(1_000u64, 0.001), (1_000, 4.0), (20_000, 40.0), (256_000, 12.0), (256_000, 200.0)] {
        let logits: Vec<f32> = (0..n).map(|i| ((rng.uniform(i) - 0.5) * spread) as f32).collect();
        for top_p in [1e-9, 0.1, 0.5, 0.95, 0.9999] {
            let sampling = Sampling::new(1.0, None, Some(top_p), None).unwrap();
            let kept = sampling.filter(&logits, &mut scratch).unwrap();
            let ids: Vec<u32> = kept.iter().map(|candidate| candidate.id).collect();
            let wanted = top_p_by_sorting(&logits, top_p);
            // The two sums differ in their last digits, which may move the cut past one of many tiny tokens.
            let differing = wanted.len().abs_diff(ids.len());
            assert!(differing <= 1, "{n} {spread} {top_p}: {} kept, {} wanted", ids.len(), wanted.len());
            let (short, long) = if ids.len() < wanted.len() { (&ids, &wanted) } else { (&wanted, &ids) };
            let mut rest = long.iter();
            assert!(short.iter().all(|id| rest.any(|other| other == id)), "{n} {spread} {top_p}");
        }
    }
}

#[test]
fn draws_follow_the_cumulative_probability() {
    let kept = [(3, 0.25), (5, 0.0), (9, 0.75)].map(|(id, probability)| Candidate { id, probability });
    let id = |uniform| draw(&kept, uniform).unwrap().id;
    assert_eq!([id(0.0), id(0.2499), id(0.25), id(0.999_999)], [3, 3, 9, 9]);
    assert_eq!(draw(&[], 0.5), None);
    let rng = RowRng::new(1);
    let n = 40_000;
    let n_first = (0..n).filter(|i| id(rng.uniform(*i)) == 3).count() as f64;
    // Standard deviation of the share: sqrt(0.25 · 0.75 / 40000) = 0.0022.
    assert!((n_first / n as f64 - 0.25).abs() < 0.0087);
}

#[test]
fn row_streams_are_fixed() {
    let rng = RowRng::new(42);
    let numbers = [rng.uniform(0), rng.uniform(1), RowRng::new(43).uniform(0)];
    expect_test::expect!["[0.5961188718302076, 0.1603653875985772, 0.9662845486161331]"]
        .assert_eq(&format!("{numbers:?}"));
    assert!((0..10_000).all(|i| (0.0..1.0).contains(&rng.uniform(i))));
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    assert_eq!(greedy(&[1.0, 3.0, 3.0, f32::NEG_INFINITY]), Ok(1));
    assert_eq!(greedy(&[f32::NEG_INFINITY]), Err(SamplingError::NothingLeft { n_logits: 1 }));
}

#[test]
fn log_probability_by_hand() {
    // Two equal logits of three, the third ln 2 above: probabilities 1/4, 1/4, 1/2.
    let logits = [5.0, 5.0, 5.0 + std::f32::consts::LN_2];
    assert!((log_probability(&logits, 0) - 0.25f64.ln()).abs() < 1e-6);
    assert!((log_probability(&logits, 2) - 0.5f64.ln()).abs() < 1e-6);
}

#[test]
fn settings_and_logits_out_of_range() {
    let settings = |t, k, p, m| Sampling::new(t, k, p, m).unwrap_err().to_string();
    assert_eq!(settings(0.0, None, None, None), "temperature is 0; a number above 0 is needed");
    assert_eq!(settings(f64::NAN, None, None, None), "temperature is NaN; a number above 0 is needed");
    assert_eq!(settings(1.0, Some(0), None, None), "top_k is 0; at least 1 token must stay");
    assert_eq!(settings(1.0, None, Some(0.0), None), "top_p is 0; a number above 0 and at most 1 is needed");
    assert_eq!(settings(1.0, None, None, Some(1.5)), "min_p is 1.5; a number from 0 to 1 is needed");
    let sampling = Sampling::new(1.0, None, None, None).unwrap();
    let mut scratch = Scratch::default();
    let mut message = |logits: &[f32]| sampling.filter(logits, &mut scratch).unwrap_err().to_string();
    assert_eq!(message(&[0.0, f32::NAN]), "logit 1 is NaN; every logit must be finite or minus infinity");
    assert_eq!(message(&[f32::NEG_INFINITY; 2]), "all 2 logits are minus infinity; one finite logit is needed");
}

#[test]
fn a_tiny_temperature_takes_the_largest_logit() {
    let mut scratch = Scratch::default();
    let logits = [[-3.0, -2.0, -300.0], [3.0, 4.0, -300.0], [3.0, f32::MAX, f32::NEG_INFINITY], [-1.0, 0.0, -1e-30]];
    for temperature in [1e-30, 1e-38, 1e-44] {
        let cold = Sampling::new(temperature, None, Some(0.95), None).unwrap();
        for logits in logits {
            let kept = cold.filter(&logits, &mut scratch).unwrap();
            let drawn: Vec<u32> = kept.iter().filter(|kept| kept.probability > 0.0).map(|kept| kept.id).collect();
            assert_eq!(drawn, if temperature < 1e-30 || logits[2] < -1.0 { vec![1] } else { vec![1, 2] });
        }
    }
}
