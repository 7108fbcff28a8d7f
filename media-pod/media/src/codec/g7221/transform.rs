//! The modulated lapped transform (G.722.1 section 3.2): 640 samples under a sine window, of which 320 were in the transform before, to 320
//! coefficients, and back. Its kernel is a cosine transform of type IV, which here is a Fourier transform of 160 complex numbers.

use std::array::from_fn;
use std::f64::consts::PI;
use std::ops::{Add, Mul, Sub};
use std::sync::LazyLock;

use super::SAMPLES;

/// What of one inverse transform goes into the next.
pub const OVERLAP: usize = SAMPLES / 2;
/// Points of the Fourier transform: columns of as many rows.
const POINTS: usize = COLUMNS * ROWS;
const COLUMNS: usize = 5;
const ROWS: usize = 32;

#[derive(Debug, Clone, Copy, Default)]
struct Complex {
    re: f32,
    im: f32,
}

impl Complex {
    /// On the unit circle, so many turns clockwise.
    fn turned(turns: f64) -> Self {
        let (sine, cosine) = (-2.0 * PI * turns).sin_cos();
        Self {
            re: cosine as f32,
            im: sine as f32,
        }
    }
}

impl Add for Complex {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }
}

impl Sub for Complex {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }
}

impl Mul for Complex {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self {
            re: self.re * other.re - self.im * other.im,
            im: self.re * other.im + self.im * other.re,
        }
    }
}

/// The transform's numbers.
#[derive(Debug)]
pub struct Transform {
    /// The rising half of the window.
    window: [f32; SAMPLES],
    /// What numbers are turned by before and after the Fourier transform.
    twist: [Complex; POINTS],
    /// The roots of unity.
    roots: [Complex; POINTS],
}

/// All calls have the same.
pub static TRANSFORM: LazyLock<Transform> = LazyLock::new(|| {
    let samples = SAMPLES as f64;
    Transform {
        window: from_fn(|at| (PI * (at as f64 + 0.5) / (2.0 * samples)).sin() as f32),
        twist: from_fn(|at| Complex::turned((8 * at + 1) as f64 / (16.0 * samples))),
        roots: from_fn(|at| Complex::turned(at as f64 / POINTS as f64)),
    }
});

impl Transform {
    /// Coefficients of what was said before and now.
    pub fn forward(&self, before: &[f32; SAMPLES], now: &[f32; SAMPLES]) -> [f32; SAMPLES] {
        let window = &self.window;
        let mut values = [0.0; SAMPLES];
        let (first, second) = values.split_at_mut(OVERLAP);
        for (at, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let (low, high, end) = (OVERLAP - 1 - at, OVERLAP + at, SAMPLES - 1 - at);
            *first = window[low] * before[low] + window[high] * before[high];
            *second = window[end] * now[at] - window[at] * now[end];
        }
        self.cosine(&mut values);
        values
    }

    /// Sound of coefficients and of what the last ones left.
    pub fn inverse(
        &self,
        mut coefficients: [f32; SAMPLES],
        left: &mut [f32; OVERLAP],
    ) -> [f32; SAMPLES] {
        self.cosine(&mut coefficients);
        let (window, values) = (&self.window, &coefficients);
        let mut sound = [0.0; SAMPLES];
        let (first, second) = sound.split_at_mut(OVERLAP);
        for (at, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let (low, high, end) = (OVERLAP - 1 - at, OVERLAP + at, SAMPLES - 1 - at);
            *first = window[at] * values[low] + window[end] * left[at];
            *second = window[high] * values[at] - window[low] * left[low];
        }
        left.copy_from_slice(&values[OVERLAP..]);
        sound
    }

    /// The cosine transform of type IV, its own inverse.
    fn cosine(&self, values: &mut [f32; SAMPLES]) {
        let twisted = from_fn(|at| {
            let pair = Complex {
                re: values[2 * at],
                im: values[SAMPLES - 1 - 2 * at],
            };
            pair * self.twist[at]
        });
        let scale = (2.0 / SAMPLES as f32).sqrt();
        for (at, number) in self.fourier(&twisted).into_iter().enumerate() {
            let number = number * self.twist[at];
            values[2 * at] = number.re * scale;
            values[SAMPLES - 1 - 2 * at] = -number.im * scale;
        }
    }

    /// The Fourier transform: of each column, and then across them.
    fn fourier(&self, points: &[Complex; POINTS]) -> [Complex; POINTS] {
        let columns: [_; COLUMNS] = from_fn(|column| self.column(points, column));
        from_fn(|at| {
            let parts = columns.iter().enumerate();
            parts.fold(Complex::default(), |sum, (column, values)| {
                sum + values[at % ROWS] * self.roots[column * at % POINTS]
            })
        })
    }

    /// The Fourier transform of every fifth number.
    fn column(&self, points: &[Complex; POINTS], column: usize) -> [Complex; ROWS] {
        let mut values: [_; ROWS] = from_fn(|row| {
            let mirrored = row.reverse_bits() >> (usize::BITS - ROWS.ilog2());
            points[COLUMNS * mirrored + column]
        });
        let mut half = 1;
        while half < ROWS {
            for block in values.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for (at, (low, high)) in low.iter_mut().zip(high).enumerate() {
                    let turned = *high * self.roots[at * POINTS / (2 * half)];
                    (*low, *high) = (*low + turned, *low - turned);
                }
            }
            half *= 2;
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> impl FnMut() -> f32 {
        let mut random = 1_u32;
        move || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) as f32 - 32_768.0
        }
    }

    #[test]
    fn the_kernel_is_a_cosine_transform_of_type_iv() {
        let mut noise = noise();
        let values: [f32; SAMPLES] = from_fn(|_| noise());
        let mut fast = values;
        TRANSFORM.cosine(&mut fast);
        for (at, found) in fast.into_iter().enumerate() {
            let parts = values.iter().enumerate().map(|(n, value)| {
                let angle = PI / 320.0 * (n as f64 + 0.5) * (at as f64 + 0.5);
                f64::from(*value) * angle.cos()
            });
            let expected = parts.sum::<f64>() / 160.0_f64.sqrt();
            assert!(
                (f64::from(found) - expected).abs() < 0.2,
                "{at}: {found} {expected}"
            );
        }
    }

    #[test]
    fn what_is_transformed_comes_back_a_frame_later() {
        let mut noise = noise();
        let mut before = [0.0; SAMPLES];
        let mut left = [0.0; OVERLAP];
        for frame in 0..4 {
            let now: [f32; SAMPLES] = from_fn(|_| noise());
            let coefficients = TRANSFORM.forward(&before, &now);
            let heard = TRANSFORM.inverse(coefficients, &mut left);
            for (heard, said) in heard.iter().zip(before) {
                assert!((heard - said).abs() < 0.1, "{frame}: {heard} {said}");
            }
            before = now;
        }
    }
}
