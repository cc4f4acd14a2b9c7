//! Vector arithmetic on slices for the CPU kernels.
//!
//! Owns the few loops everything else is made of, written so that the compiler turns them into vector instructions.
//! Knows nothing of tensors, layers or threads. Every function here is inlined into a closure given to [`vectorized`],
//! which picks the widest instruction set of the running machine.

/// Runs `work` compiled for the widest vector instructions this machine has.
///
/// Write the closure `#[inline(always)] || ..`: code that is called instead of inlined keeps the baseline instructions, and
/// a fused multiply-add then becomes a function call some twenty times slower.
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// `e^x` in f32, relative error below 2e-7, saturating outside ±87.
///
/// Splits `x = n ln 2 + r` and evaluates a degree-6 polynomial in `r` (Cody and Waite reduction).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves the rounded integer in the low mantissa bits
    let x = x.clamp(-87.0, 87.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4_f32
        .mul_add(r, 1.398_2e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_6e-1)
        .mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    y * f32::from_bits(exponent)
}

/// `tanh x` in f32, absolute error below 1e-7 and relative error below 1e-6 near zero.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let near = (-5.704_988_7e-3_f32)
        .mul_add(z, 2.063_909e-2)
        .mul_add(z, -5.373_971_6e-2)
        .mul_add(z, 1.333_144_2e-1)
        .mul_add(z, -3.333_328e-1);
    let near = (near * z).mul_add(x, x);
    let e = exp(2.0 * x.abs());
    let far = (1.0 - 2.0 / (e + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// `y += a · x`.
#[inline(always)]
pub fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = a.mul_add(*x, *y);
    }
}

/// `y += Σ a[i] · x[i]` over four vectors, one pass over `y`.
#[inline(always)]
pub fn axpy4(y: &mut [f32], a: [f32; 4], x: [&[f32]; 4]) {
    let n = y.len();
    let [x0, x1, x2, x3] = x.map(|x| &x[..n]);
    for i in 0..n {
        let lower = a[1].mul_add(x1[i], a[0].mul_add(x0[i], y[i]));
        y[i] = a[3].mul_add(x3[i], a[2].mul_add(x2[i], lower));
    }
}

/// `y += Σ_r a[r] · x_r`, where `x_r` is row `r` of a matrix, taken from column `from` on.
#[inline(always)]
pub fn accumulate_rows(y: &mut [f32], a: &[f32], rows: &[f32], stride: usize, from: usize) {
    let n = y.len();
    let row = |r: usize| &rows[r * stride + from..r * stride + from + n];
    let n_blocked = a.len() / 4 * 4;
    for r in (0..n_blocked).step_by(4) {
        axpy4(y, [a[r], a[r + 1], a[r + 2], a[r + 3]], [row(r), row(r + 1), row(r + 2), row(r + 3)]);
    }
    for (r, a) in a.iter().enumerate().skip(n_blocked) {
        axpy(y, *a, row(r));
    }
}

/// `Σ x[i] · y[i]`, in eight running sums.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let x_chunks = x.chunks_exact(8);
    let y_chunks = y.chunks_exact(8);
    let tail: f32 = x_chunks.remainder().iter().zip(y_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in x_chunks.zip(y_chunks) {
        for lane in 0..8 {
            lanes[lane] = x[lane].mul_add(y[lane], lanes[lane]);
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Largest element, or −∞ of an empty slice.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let chunks = x.chunks_exact(8);
    let tail = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    for chunk in chunks {
        for lane in 0..8 {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().fold(tail, |a, b| if *b > a { *b } else { a })
}

/// `x[i] ← e^(x[i] − shift)`, giving back the sum of the results.
#[inline(always)]
pub fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
    for x in x.iter_mut() {
        *x = exp(*x - shift);
    }
    let mut lanes = [0.0f32; 8];
    let chunks = x.chunks_exact(8);
    let tail: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..8 {
            lanes[lane] += chunk[lane];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Sum in f64, in eight running sums.
#[inline(always)]
pub fn sum(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = x.chunks_exact(8);
    let tail: f64 = chunks.remainder().iter().map(|x| f64::from(*x)).sum();
    for chunk in chunks {
        for lane in 0..8 {
            lanes[lane] += f64::from(chunk[lane]);
        }
    }
    lanes.iter().sum::<f64>() + tail
}

/// `Σ e^(x[i] − shift)`, each term in f32, their sum in f64.
#[inline(always)]
pub fn sum_of_exp(x: &[f32], shift: f32) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = x.chunks_exact(8);
    let tail: f64 = chunks.remainder().iter().map(|x| f64::from(exp(*x - shift))).sum();
    for chunk in chunks {
        for lane in 0..8 {
            lanes[lane] += f64::from(exp(chunk[lane] - shift));
        }
    }
    lanes.iter().sum::<f64>() + tail
}

/// `x ← a · x`.
#[inline(always)]
pub fn scale(x: &mut [f32], a: f32) {
    for x in x {
        *x *= a;
    }
}

/// `x ← cap · tanh(x / cap)`.
#[inline(always)]
pub fn softcap(x: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    for x in x {
        *x = cap * tanh(*x * inverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error of `ours` against the f64 function, absolute where it is below 1 and relative above.
    fn largest_error(ours: fn(f32) -> f32, exact: fn(f64) -> f64, range: f32) -> f64 {
        (-20_000..=20_000)
            .map(|i| range * i as f32 / 20_000.0)
            .map(|x| {
                let want = exact(f64::from(x));
                (f64::from(ours(x)) - want).abs() / want.abs().max(1.0)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exponential_and_tangent_are_as_exact_as_f32_allows() {
        let exp_error = largest_error(exp, f64::exp, 80.0);
        let tanh_error = largest_error(tanh, f64::tanh, 12.0);
        assert!(exp_error < 3e-7, "exp: {exp_error:e}");
        assert!(tanh_error < 2e-7, "tanh: {tanh_error:e}");
    }

    #[test]
    fn sums_agree_with_the_obvious_loops() {
        let x: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        let rows: Vec<f32> = (0..37 * 7).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut y = vec![0.5; 5];
        vectorized(
            #[inline(always)]
            || accumulate_rows(&mut y, &x, &rows, 7, 1),
        );
        for (i, y) in y.iter().enumerate() {
            let want = 0.5 + (0..37).map(|r| x[r] * rows[r * 7 + 1 + i]).sum::<f32>();
            assert!((y - want).abs() < 1e-5, "{y} {want}");
        }
        let want: f32 = x.iter().map(|x| x * x).sum();
        assert!((dot(&x, &x) - want).abs() < 1e-5);
        assert_eq!(max(&x), x.iter().copied().fold(f32::MIN, f32::max));
    }
}
