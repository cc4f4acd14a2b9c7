//! The AdamW step on slices, on weights and moments in f32 and in forms of bf16 that do not lose small updates.
//!
//! Owns the arithmetic and its spreading over threads. Knows nothing of tensors, parameters or schedules.

use half::bf16;
use rayon::prelude::*;

use super::math::vectorized;

/// One AdamW step (Loshchilov and Hutter 2019) with its constants already combined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSpec {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    /// Number of this step, from 1: sets the bias correction.
    pub step: u64,
    /// Factor on the gradient before anything else: global-norm clipping.
    pub grad_scale: f64,
    /// What is in bf16 is rounded by chance, which comes from this and the place of the number alone.
    pub seed: u64,
}

/// Elements handled together.
const BLOCK: usize = 32_768;

/// What every element of a step has in common.
#[derive(Clone, Copy)]
pub struct Constants {
    pub step_size: f32,
    pub root_correction: f32,
    pub keep: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    pub grad_scale: f32,
    pub chance: Chance,
}

/// Where the roundings of a step come from.
#[derive(Clone, Copy)]
pub struct Chance {
    pub low: u32,
    pub high: u32,
}

/// Whose rounding it is: that of a weight and those of its moments have nothing to do with each other.
pub const WEIGHT: u32 = 0;
pub const FIRST: u32 = 0x9e37_79b9;
pub const SECOND: u32 = 0x85eb_ca6b;

impl Chance {
    /// Evenly from 0 to 2^16 - 1.
    #[inline(always)]
    fn noise(self, place: u32, of: u32) -> u32 {
        mixed(mixed(place ^ self.low).wrapping_add(self.high ^ of)) >> 16
    }
}

/// A number as it lies in memory.
pub trait Stored: Copy + Send + Sync {
    fn read(self) -> f32;
    /// Rounded by chance where it holds less than an f32: away from zero as often as it lies above what is held, so that it
    /// is right on average.
    fn written(value: f32, chance: Chance, place: u32, of: u32) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn read(self) -> f32 {
        self
    }

    #[inline(always)]
    fn written(value: f32, _: Chance, _: u32, _: u32) -> Self {
        value
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn read(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn written(value: f32, chance: Chance, place: u32, of: u32) -> Self {
        Self::from_bits((value.to_bits().wrapping_add(chance.noise(place, of)) >> 16) as u16)
    }
}

impl From<AdamWSpec> for Constants {
    fn from(spec: AdamWSpec) -> Self {
        let AdamWSpec { learning_rate, beta1, beta2, epsilon, weight_decay, step, grad_scale, seed } = spec;
        let step = i32::try_from(step).unwrap_or(i32::MAX);
        Self {
            step_size: (learning_rate / (1.0 - beta1.powi(step))) as f32,
            root_correction: (1.0 / (1.0 - beta2.powi(step)).sqrt()) as f32,
            keep: (1.0 - learning_rate * weight_decay) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: epsilon as f32,
            grad_scale: grad_scale as f32,
            chance: Chance { low: seed as u32, high: (seed >> 32) as u32 },
        }
    }
}

impl Constants {
    /// Updates the moments of the element at `place` and gives its new weight.
    #[inline(always)]
    fn updated<M: Stored>(&self, weight: f32, first: &mut M, second: &mut M, grad: f32, place: u32) -> f32 {
        let g = grad * self.grad_scale;
        let m = self.beta1.mul_add(first.read(), (1.0 - self.beta1) * g);
        let v = self.beta2.mul_add(second.read(), (1.0 - self.beta2) * g * g);
        *first = M::written(m, self.chance, place, FIRST);
        *second = M::written(v, self.chance, place, SECOND);
        let denominator = v.sqrt().mul_add(self.root_correction, self.epsilon);
        self.keep.mul_add(weight, -self.step_size * m / denominator)
    }
}

/// One pass over a parameter: the four arrays are read and written once.
pub fn step<W: Stored, M: Stored>(weight: &mut [W], first: &mut [M], second: &mut [M], grad: &[f32], spec: AdamWSpec) {
    let constants = Constants::from(spec);
    weight
        .par_chunks_mut(BLOCK)
        .zip(first.par_chunks_mut(BLOCK))
        .zip(second.par_chunks_mut(BLOCK))
        .zip(grad.par_chunks(BLOCK))
        .enumerate()
        .for_each(|(block, (((weight, first), second), grad))| {
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..weight.len() {
                        let place = (block * BLOCK + i) as u32;
                        let updated =
                            constants.updated(weight[i].read(), &mut first[i], &mut second[i], grad[i], place);
                        weight[i] = W::written(updated, constants.chance, place, WEIGHT);
                    }
                },
            );
        });
}

/// An f32 as the nearest bf16, ties away from zero, and the difference of their bits.
#[inline(always)]
pub fn apart(bits: u32) -> (bf16, i16) {
    (bf16::from_bits((bits.wrapping_add(0x8000) >> 16) as u16), bits as i16)
}

/// The bits of the f32 that [`apart`] took apart.
#[inline(always)]
pub fn joined(weight: bf16, rest: i16) -> u32 {
    (u32::from(weight.to_bits()) << 16).wrapping_add(i32::from(rest) as u32)
}

/// As [`step`] on the f32 weights that `weight` and `rest` are the parts of.
pub fn step_split<M: Stored>(
    (weight, rest): (&mut [bf16], &mut [i16]),
    first: &mut [M],
    second: &mut [M],
    grad: &[f32],
    spec: AdamWSpec,
) {
    let constants = Constants::from(spec);
    weight
        .par_chunks_mut(BLOCK)
        .zip(rest.par_chunks_mut(BLOCK))
        .zip(first.par_chunks_mut(BLOCK))
        .zip(second.par_chunks_mut(BLOCK))
        .zip(grad.par_chunks(BLOCK))
        .enumerate()
        .for_each(|(block, ((((weight, rest), first), second), grad))| {
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..weight.len() {
                        let exact = f32::from_bits(joined(weight[i], rest[i]));
                        let place = (block * BLOCK + i) as u32;
                        let updated = constants.updated(exact, &mut first[i], &mut second[i], grad[i], place);
                        (weight[i], rest[i]) = apart(updated.to_bits());
                    }
                },
            );
        });
}

/// See [`mixed`].
pub const MULTIPLIER: u32 = 0x045d_9f3b;

/// A 32-bit mixing function without fixed structure in its output (Mueller's multiply-xorshift, two rounds).
#[inline(always)]
fn mixed(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(MULTIPLIER);
    x ^= x >> 16;
    x = x.wrapping_mul(MULTIPLIER);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_taken_apart_and_joined_to_the_bit() {
        let numbers = [0.0, -0.0, 1.0, -1.0, 0.1, -3.7e-5, f32::MAX, f32::MIN_POSITIVE, 1.0e-42, -1.003_906_3];
        for x in numbers.into_iter().chain((0..70_000).map(|i| f32::from_bits(0x3f7f_0000 + i))) {
            let (weight, rest) = apart(x.to_bits());
            assert_eq!(joined(weight, rest), x.to_bits(), "{x:e}");
            // Subnormal numbers have fewer digits.
            if (1e-30..1e38).contains(&x.abs()) {
                assert!((weight.to_f32() - x).abs() <= x.abs() / 256.0, "{x:e}: {weight}");
            }
        }
    }

    const SPEC: AdamWSpec = AdamWSpec {
        learning_rate: 8e-7,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 1.0,
        seed: 0,
    };

    /// A weight in two parts goes exactly where one in f32 goes.
    #[test]
    fn a_split_weight_is_the_exact_one() {
        let start: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 0.05).collect();
        let grad = |step: u64| -> Vec<f32> { (0..1000).map(|i| ((i * 7 + step) as f32).cos()).collect() };
        let (mut exact, (mut weight, mut rest)): (Vec<f32>, (Vec<bf16>, Vec<i16>)) =
            (start.clone(), start.iter().map(|x| apart(x.to_bits())).unzip());
        let (mut moments, mut split_moments) = (vec![vec![0.0f32; 1000]; 2], vec![vec![0.0f32; 1000]; 2]);
        for number in 1..=50 {
            let spec = AdamWSpec { step: number, ..SPEC };
            let [first, second] = &mut moments[..] else { unreachable!() };
            step(&mut exact, first, second, &grad(number), spec);
            let [first, second] = &mut split_moments[..] else { unreachable!() };
            step_split((&mut weight, &mut rest), first, second, &grad(number), spec);
        }
        let joined: Vec<u32> = weight.iter().zip(&rest).map(|(weight, rest)| joined(*weight, *rest)).collect();
        assert_eq!(joined, exact.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        assert_eq!(moments, split_moments);
        assert_ne!(exact, start);
    }

    /// Steps of 8e-7 on weights of 0.5, whose neighbours in bf16 are 2e-3 away: on average they arrive.
    #[test]
    fn stochastic_rounding_is_right_on_average() {
        let n = 100_000;
        let (mut weight, grad) = (vec![bf16::from_f32(0.5); n], vec![1.0; n]);
        let (mut first, mut second) = (vec![0.0f32; n], vec![0.0f32; n]);
        let n_steps = 100;
        for number in 1..=n_steps {
            let seed = number * 0x9e37_79b9_7f4a_7c15;
            let spec = AdamWSpec { step: number, weight_decay: 0.0, seed, ..SPEC };
            step(&mut weight, &mut first, &mut second, &grad, spec);
        }
        let moved = weight.iter().map(|weight| 0.5 - f64::from(weight.to_f32())).sum::<f64>() / n as f64;
        // With a constant gradient each step is the learning rate: 8e-5 in all, below 0.5 in steps of 2^-9. The count of
        // elements that took one has a standard deviation of sqrt(100000 · 0.041 · 0.959) = 63, or 1.5 % of 4096.
        assert!((moved / (8e-7 * n_steps as f64) - 1.0).abs() < 0.06, "moved by {moved:e}");
        // Rounded to nearest, none of them moves.
        let nearest = bf16::from_f32(0.5 - 8e-7);
        assert_eq!(nearest, bf16::from_f32(0.5));
    }
    /// A second moment of 1 whose gradients cease: it loses a thousandth in a step, a quarter of the way to its neighbour in
    /// bf16. By chance it decays as in f32; rounded to nearest it stays for ever.
    #[test]
    fn moments_in_bf16_decay_on_average() {
        let n = 100_000;
        let (mut weight, grad) = (vec![0.5f32; n], vec![0.0; n]);
        let (mut first, mut second) = (vec![bf16::ONE; n], vec![bf16::ONE; n]);
        for number in 1..=100 {
            let seed = number * 0x9e37_79b9_7f4a_7c15;
            step(&mut weight, &mut first, &mut second, &grad, AdamWSpec { step: number, seed, ..SPEC });
        }
        let mean = |moments: &[bf16]| moments.iter().map(|moment| f64::from(moment.to_f32())).sum::<f64>() / n as f64;
        // Of the elements the relative deviation is below sqrt(100) · 2^-8, and of their mean 316 times less.
        assert!((mean(&second) / 0.999f64.powi(100) - 1.0).abs() < 5e-4, "{}", mean(&second));
        assert!((mean(&first) / 0.9f64.powi(100) - 1.0).abs() < 5e-4, "{}", mean(&first));
        // Rounded to nearest, none of the second moments changes.
        assert_eq!(bf16::from_f32(0.999), bf16::ONE);
    }
}
