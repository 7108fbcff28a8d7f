//! The numbers of RFC 3951 appendix A.8 but for the line spectral frequencies. Their spelling is that of the RFC.
#![allow(
    clippy::excessive_precision,
    clippy::unreadable_literal,
    reason = "as the RFC has them"
)]

/// How many bits of each parameter go into the first, second and third part of the payload (table 3.2 and `ULP_20msTbl`, `ULP_30msTbl`).
pub type Parts = [u8; 3];

/// The layout of a payload.
#[derive(Debug)]
pub struct Layout {
    /// Line spectral frequencies: three for each analysis.
    pub lsf: &'static [Parts],
    /// Where the start state is.
    pub start: Parts,
    /// Whether it is in the first part of its two sub-blocks.
    pub first: Parts,
    /// Its scale.
    pub scale: Parts,
    /// Each of its samples.
    pub sample: Parts,
    /// What completes its two sub-blocks: codebook and gains.
    pub rest: [Parts; 3],
    /// The gains of that.
    pub rest_gains: [Parts; 3],
    /// The other sub-blocks.
    pub blocks: &'static [[Parts; 3]],
    /// The gains of those.
    pub gains: &'static [[Parts; 3]],
}

/// 20 ms.
pub const LAYOUT_20: Layout = Layout {
    lsf: &[[6, 0, 0], [7, 0, 0], [7, 0, 0]],
    start: [2, 0, 0],
    first: [1, 0, 0],
    scale: [6, 0, 0],
    sample: [0, 1, 2],
    rest: [[6, 0, 1], [0, 0, 7], [0, 0, 7]],
    rest_gains: [[2, 0, 3], [1, 1, 2], [0, 0, 3]],
    blocks: &[
        [[7, 0, 1], [0, 0, 7], [0, 0, 7]],
        [[0, 0, 8], [0, 0, 8], [0, 0, 8]],
    ],
    gains: &[
        [[1, 2, 2], [1, 1, 2], [0, 0, 3]],
        [[1, 1, 3], [0, 2, 2], [0, 0, 3]],
    ],
};

/// 30 ms.
pub const LAYOUT_30: Layout = Layout {
    lsf: &[
        [6, 0, 0],
        [7, 0, 0],
        [7, 0, 0],
        [6, 0, 0],
        [7, 0, 0],
        [7, 0, 0],
    ],
    start: [3, 0, 0],
    first: [1, 0, 0],
    scale: [6, 0, 0],
    sample: [0, 1, 2],
    rest: [[4, 2, 1], [0, 0, 7], [0, 0, 7]],
    rest_gains: [[1, 1, 3], [1, 1, 2], [0, 0, 3]],
    blocks: &[
        [[6, 1, 1], [0, 0, 7], [0, 0, 7]],
        [[0, 7, 1], [0, 0, 8], [0, 0, 8]],
        [[0, 7, 1], [0, 0, 8], [0, 0, 8]],
        [[0, 7, 1], [0, 0, 8], [0, 0, 8]],
    ],
    gains: &[
        [[1, 2, 2], [1, 2, 1], [0, 0, 3]],
        [[0, 2, 3], [0, 2, 2], [0, 0, 3]],
        [[0, 1, 4], [0, 1, 3], [0, 0, 3]],
        [[0, 1, 4], [0, 1, 3], [0, 0, 3]],
    ],
};

/// Zeros and poles of the high-pass filters of 90 Hz before the encoder, and of 65 Hz after the decoder.
pub const HIGH_PASS_IN: [[f32; 3]; 2] = [
    [0.92727436, -1.8544941, 0.92727436],
    [1.0, -1.9059465, 0.9114024],
];
/// After the decoder.
pub const HIGH_PASS_OUT: [[f32; 3]; 2] = [
    [0.93980581, -1.8795834, 0.93980581],
    [1.0, -1.9330735, 0.93589199],
];

/// What the samples of the start state are quantised to.
pub const STATE: [f32; 8] = [
    -3.719849, -2.177490, -1.130005, -0.309692, 0.444214, 1.329712, 2.436279, 3.983887,
];
/// The decimal logarithm of its scale.
pub const SCALE: [f32; 64] = [
    1.000085, 1.071695, 1.140395, 1.206868, 1.277188, 1.351503, 1.429380, 1.500727, 1.569049,
    1.639599, 1.707071, 1.781531, 1.840799, 1.901550, 1.956695, 2.006750, 2.055474, 2.102787,
    2.142819, 2.183592, 2.217962, 2.257177, 2.295739, 2.332967, 2.369248, 2.402792, 2.435080,
    2.468598, 2.503394, 2.539284, 2.572944, 2.605036, 2.636331, 2.668939, 2.698780, 2.729101,
    2.759786, 2.789834, 2.818679, 2.848074, 2.877470, 2.906899, 2.936655, 2.967804, 3.000115,
    3.033367, 3.066355, 3.104231, 3.141499, 3.183012, 3.222952, 3.265433, 3.308441, 3.350823,
    3.395275, 3.442793, 3.490801, 3.542514, 3.604064, 3.666050, 3.740994, 3.830749, 3.938770,
    4.101764,
];

/// The filter that makes the second half of a codebook of the first.
pub const EXPANSION: [f32; 8] = [
    -0.034180, 0.108887, -0.184326, 0.806152, 0.713379, -0.144043, 0.083740, -0.033691,
];

/// Gains of the third stage, as parts of the one before.
pub const GAINS_3: [f32; 8] = [-1.0, -0.659973, -0.330017, 0.0, 0.25, 0.5, 0.75, 1.0];
/// Gains of the second stage.
pub const GAINS_4: [f32; 16] = [
    -1.049988, -0.900024, -0.750000, -0.599976, -0.450012, -0.299988, -0.150024, 0.0, 0.150024,
    0.299988, 0.450012, 0.599976, 0.750000, 0.900024, 1.049988, 1.200012,
];
/// Gains of the first stage.
pub const GAINS_5: [f32; 32] = [
    0.037476, 0.075012, 0.112488, 0.150024, 0.187500, 0.224976, 0.262512, 0.299988, 0.337524,
    0.375000, 0.412476, 0.450012, 0.487488, 0.525024, 0.562500, 0.599976, 0.637512, 0.674988,
    0.712524, 0.750000, 0.787476, 0.825012, 0.862488, 0.900024, 0.937500, 0.974976, 1.012512,
    1.049988, 1.087524, 1.125000, 1.162476, 1.200012,
];

/// How much of the frequencies before counts in each sub-block of 20 ms.
pub const WEIGHTS_20: [f32; 4] = [0.75, 0.5, 0.25, 0.0];
/// The same of 30 ms: of those of the last frame in the first, of the first of the two sets of this one in the others.
pub const WEIGHTS_30: [f32; 6] = [0.5, 1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0];

/// The window of the correlations.
pub const LAG_WINDOW: [f32; 11] = [
    1.000100, 0.998890, 0.995569, 0.990057, 0.982392, 0.972623, 0.960816, 0.947047, 0.931405,
    0.913989, 0.894909,
];
