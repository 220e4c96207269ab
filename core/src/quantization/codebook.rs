//! The sixteen NF4 levels and the midpoints between them.
//!
//! Source: Dettmers et al., "QLoRA" (arXiv 2305.14314), appendix E; the constants are bitsandbytes' to the last bit.

/// The NF4 levels, ascending; code 7 is zero.
pub const NF4_CODEBOOK: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// `NF4_MIDPOINTS[i]` separates code `i` from code `i + 1`; a value exactly on it takes code `i`.
pub const NF4_MIDPOINTS: [f32; 15] = {
    let mut mid = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        mid[i] = (NF4_CODEBOOK[i] + NF4_CODEBOOK[i + 1]) / 2.0;
        i += 1;
    }
    mid
};

/// The code of a value already scaled into `[-1, 1]`: the number of midpoints strictly below it.
pub fn nf4_code(scaled: f32) -> u8 {
    NF4_MIDPOINTS.iter().filter(|m| scaled > **m).count() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_code() {
        for (i, m) in NF4_MIDPOINTS.iter().enumerate() {
            assert_eq!(nf4_code(*m) as usize, i);
            assert_eq!(nf4_code(m.next_up()) as usize, i + 1);
            assert_eq!(nf4_code(m.next_down()) as usize, i);
        }
        for (i, level) in NF4_CODEBOOK.iter().enumerate() {
            assert_eq!(nf4_code(*level) as usize, i);
        }
    }
}
