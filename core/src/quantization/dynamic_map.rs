//! The 256-entry dynamic map to which double quantization rounds: a sign, an exponent of varying length, a fraction.
//!
//! Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (arXiv 2110.02861), section 2.1; the constants are
//! those that bitsandbytes stores as `nested_quant_map`. They are embedded, not computed: a plain linspace is an ulp off.
//! The map is sorted; index 127 is 0.0, index 255 is 1.0, and there is no -1.0.

/// The positive entries below 1.0, ascending.
#[rustfmt::skip]
const POSITIVE: [f32; 127] = [
    5.5000004e-07, 3.2500002e-06, 7.75e-06, 2.1249998e-05, 4.375e-05, 6.625e-05, 8.875e-05, 0.00015625001,
    0.00026875004, 0.00038125002, 0.00049375003, 0.0006062501, 0.00071875006, 0.00083125, 0.0009437501, 0.0012812499,
    0.00184375, 0.00240625, 0.00296875, 0.0035312497, 0.00409375, 0.0046562497, 0.0052187503, 0.00578125,
    0.00634375, 0.00690625, 0.00746875, 0.00803125, 0.00859375, 0.009156249, 0.00971875, 0.01140625,
    0.01421875, 0.01703125, 0.019843752, 0.02265625, 0.02546875, 0.028281251, 0.03109375, 0.03390625,
    0.036718752, 0.03953125, 0.042343747, 0.04515625, 0.04796875, 0.05078125, 0.05359375, 0.05640625,
    0.059218753, 0.06203125, 0.06484375, 0.067656256, 0.070468746, 0.07328125, 0.07609375, 0.07890625,
    0.08171876, 0.08453125, 0.08734375, 0.09015625, 0.092968754, 0.09578126, 0.09859375, 0.107031256,
    0.12109375, 0.13515624, 0.14921875, 0.16328125, 0.17734376, 0.19140625, 0.20546874, 0.21953125,
    0.23359375, 0.24765624, 0.26171875, 0.27578127, 0.28984374, 0.30390626, 0.31796873, 0.33203125,
    0.34609374, 0.36015624, 0.37421876, 0.38828123, 0.40234375, 0.41640624, 0.43046874, 0.44453126,
    0.45859373, 0.47265625, 0.4867187, 0.50078124, 0.5148437, 0.5289062, 0.54296875, 0.5570313,
    0.5710938, 0.58515626, 0.5992187, 0.61328125, 0.6273438, 0.6414063, 0.65546876, 0.6695312,
    0.68359375, 0.6976563, 0.7117188, 0.72578126, 0.7398437, 0.75390625, 0.7679688, 0.78203124,
    0.79609376, 0.8101562, 0.82421875, 0.8382813, 0.85234374, 0.86640626, 0.8804687, 0.89453125,
    0.9085938, 0.92265624, 0.93671876, 0.9507812, 0.96484375, 0.9789063, 0.99296874,
];

/// The map itself: `-POSITIVE` reversed, 0.0, `POSITIVE`, 1.0.
pub const DYNAMIC_MAP: [f32; 256] = {
    let mut map = [0.0; 256];
    let mut i = 0;
    while i < 127 {
        map[126 - i] = -POSITIVE[i];
        map[128 + i] = POSITIVE[i];
        i += 1;
    }
    map[255] = 1.0;
    map
};

/// Index of the entry for `s` in `[-1, 1]`, as bitsandbytes' CPU encoder finds it: `s` is first rounded to one of 65,536
/// equidistant points. Within half a point of a midpoint that is not the nearest entry but the one beside it, at an error
/// of the same size; in return every byte is the one that bitsandbytes writes.
pub(super) fn dynamic_code(s: f32) -> u8 {
    let bin = ((s + 1.0) * 0.5 * 65535.0 + 0.5) as u16;
    nearest(-1.0 + 2.0 * f32::from(bin) / 65535.0)
}

/// Index of the entry nearest to `s`, which lies in `[-1, 1]`; a tie goes to the lower index.
fn nearest(s: f32) -> u8 {
    let (mut low, mut high) = (0usize, 255usize);
    while low < high {
        let mid = (low + high) / 2;
        if 0.5 * (DYNAMIC_MAP[mid] + DYNAMIC_MAP[mid + 1]) < s {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    low as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_sorted_with_zero_at_127_and_rounds_to_the_nearest() {
        assert!(DYNAMIC_MAP.windows(2).all(|w| w[0] < w[1]));
        assert_eq!((DYNAMIC_MAP[127], DYNAMIC_MAP[255]), (0.0, 1.0));
        for k in 0..=20_000 {
            let s = k as f32 / 10_000.0 - 1.0;
            let error = (DYNAMIC_MAP[nearest(s) as usize] - s).abs();
            let binned = (DYNAMIC_MAP[dynamic_code(s) as usize] - s).abs();
            assert!(binned <= error + 2.0 / 65535.0);
            let best = DYNAMIC_MAP
                .iter()
                .map(|m| (m - s).abs())
                .fold(f32::MAX, f32::min);
            assert!(error <= best + f32::EPSILON, "{s}: {error} against {best}");
        }
        for (i, m) in DYNAMIC_MAP.iter().enumerate() {
            assert_eq!(nearest(*m) as usize, i);
        }
    }
}
