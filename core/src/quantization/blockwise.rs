//! Blockwise NF4 over a flattened row-major tensor: a plain reference, and the same computed fast.
//!
//! A block of `blocksize` consecutive values shares one scale, `absmax`. Blocks ignore rows, so where the row length is no
//! multiple of the block size they cross from one row into the next; the last block may be short. As bitsandbytes does it:
//!
//! - a full block scales by multiplying with `1 / max(absmax, 1e-38)` and stores `absmax` itself;
//! - a short last block divides by `max(absmax, 1e-38)` and stores that;
//! - the code is the number of midpoints strictly below the scaled value (ties go to the lower code);
//! - even flat indices sit in the high nibble, and an odd last nibble is filled with the code of 0.0.

use super::QuantizationError;
use super::codebook::{NF4_CODEBOOK, NF4_MIDPOINTS, nf4_code};

/// The smallest scale divided by, so that a block of zeros gives zeros.
const TINY: f32 = 1e-38;

/// The code of 0.0, which fills the last nibble of a tensor with an odd number of elements.
const ZERO_CODE: u8 = 7;

/// Values handled by one task: a multiple of every block size allowed.
#[cfg(not(target_arch = "wasm32"))]
const TASK: usize = 1 << 16;

/// Packed codes `[ceil(n / 2)]` and the scale of every block `[ceil(n / blocksize)]`.
pub type Blocks = (Vec<u8>, Vec<f32>);

/// Block sizes that bitsandbytes knows.
pub(super) fn check_blocksize(blocksize: usize) -> Result<(), QuantizationError> {
    match blocksize {
        32 | 64 | 128 | 256 | 512 | 1024 | 2048 | 4096 => Ok(()),
        found => Err(QuantizationError::Blocksize { found }),
    }
}

/// Quantizes `values`, a value at a time, as the definition reads. Kept as the oracle of [`quantize`].
pub fn quantize_reference(values: &[f32], blocksize: usize) -> Result<Blocks, QuantizationError> {
    check_blocksize(blocksize)?;
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(QuantizationError::NonFinite {
            index,
            found: values[index],
        });
    }
    let mut codes = Vec::with_capacity(values.len() + 1);
    let mut absmax = Vec::new();
    for block in values.chunks(blocksize) {
        let max = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let divisor = max.max(TINY);
        if block.len() == blocksize {
            absmax.push(max);
            codes.extend(
                block
                    .iter()
                    .map(|v| nf4_code((v * (1.0 / divisor)).clamp(-1.0, 1.0))),
            );
        } else {
            absmax.push(divisor);
            codes.extend(
                block
                    .iter()
                    .map(|v| nf4_code((v / divisor).clamp(-1.0, 1.0))),
            );
        }
    }
    if codes.len() % 2 == 1 {
        codes.push(ZERO_CODE);
    }
    Ok((codes.chunks(2).map(|c| c[0] << 4 | c[1]).collect(), absmax))
}

/// Quantizes `values` in blocks of `blocksize` (32 to 4096, a power of two).
///
/// Bit-exact with [`quantize_reference`]; natively spread over the cores. NaN and infinities are refused.
pub fn quantize(values: &[f32], blocksize: usize) -> Result<Blocks, QuantizationError> {
    check_blocksize(blocksize)?;
    let mut codes = vec![0u8; values.len().div_ceil(2)];
    let mut absmax = vec![0f32; values.len().div_ceil(blocksize)];
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        let inputs = values.par_chunks(TASK);
        let outputs = codes
            .par_chunks_mut(TASK / 2)
            .zip(absmax.par_chunks_mut(TASK / blocksize));
        inputs
            .zip(outputs)
            .for_each(|(v, (c, a))| quantize_blocks(v, c, a, blocksize));
    }
    #[cfg(target_arch = "wasm32")]
    quantize_blocks(values, &mut codes, &mut absmax, blocksize);
    match absmax.iter().position(|a| !a.is_finite()) {
        None => Ok((codes, absmax)),
        Some(block) => {
            let within = &values[block * blocksize..];
            let at = within.iter().position(|v| !v.is_finite()).unwrap_or(0);
            Err(QuantizationError::NonFinite {
                index: block * blocksize + at,
                found: within[at],
            })
        }
    }
}

fn quantize_blocks(values: &[f32], codes: &mut [u8], absmax: &mut [f32], blocksize: usize) {
    let outputs = codes.chunks_mut(blocksize / 2).zip(absmax);
    for (block, (codes, absmax)) in values.chunks(blocksize).zip(outputs) {
        let max = largest(block);
        let divisor = if max < TINY { TINY } else { max }; // unlike f32::max, keeps a NaN
        if block.len() == blocksize {
            *absmax = max;
            pack(block, codes, 1.0 / divisor);
        } else {
            *absmax = divisor;
            let scaled: Vec<f32> = block.iter().map(|v| v / divisor).collect();
            pack(&scaled, codes, 1.0);
        }
    }
}

/// The largest magnitude. Compared as integers: vectorizes, and NaN or infinity comes out on top instead of vanishing.
fn largest(block: &[f32]) -> f32 {
    let magnitude = |v: &f32| (v.to_bits() & 0x7fff_ffff) as i32;
    f32::from_bits(block.iter().fold(0, |m, v| m.max(magnitude(v))) as u32)
}

/// Codes of `block * scale`, two to a byte. Sixteen at a time, each midpoint one comparison: compilers make SIMD of that.
fn pack(block: &[f32], codes: &mut [u8], scale: f32) {
    const LANES: usize = 16;
    let (chunks, rest) = block.as_chunks::<LANES>();
    let (bytes, tail) = codes.split_at_mut(chunks.len() * LANES / 2);
    for (chunk, out) in chunks.iter().zip(bytes.as_chunks_mut::<{ LANES / 2 }>().0) {
        let scaled = chunk.map(|v| v * scale);
        let mut count = [0i32; LANES];
        for mid in NF4_MIDPOINTS {
            for (c, s) in count.iter_mut().zip(scaled) {
                *c += i32::from(s > mid);
            }
        }
        for (o, pair) in out.iter_mut().zip(count.as_chunks::<2>().0) {
            *o = (pair[0] << 4 | pair[1]) as u8;
        }
    }
    for (o, pair) in tail.iter_mut().zip(rest.chunks(2)) {
        let low = pair.get(1).map_or(ZERO_CODE, |v| nf4_code(v * scale));
        *o = nf4_code(pair[0] * scale) << 4 | low;
    }
}

/// Value at a time: `NF4_CODEBOOK[code] * absmax[i / blocksize]`. Kept as the oracle of [`dequantize`].
pub fn dequantize_reference(codes: &[u8], absmax: &[f32], n: usize, blocksize: usize) -> Vec<f32> {
    let code = |i: usize| {
        if i.is_multiple_of(2) {
            codes[i / 2] >> 4
        } else {
            codes[i / 2] & 15
        }
    };
    (0..n)
        .map(|i| NF4_CODEBOOK[code(i) as usize] * absmax[i / blocksize])
        .collect()
}

/// Writes the values of packed `codes` into `out`, whose length is the number of elements.
///
/// `codes` holds `ceil(n / 2)` bytes and `absmax` a scale for every block; [`super::Nf4Tensor`] guarantees both.
pub fn dequantize(codes: &[u8], absmax: &[f32], blocksize: usize, out: &mut [f32]) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        let inputs = codes
            .par_chunks(TASK / 2)
            .zip(absmax.par_chunks(TASK / blocksize));
        let outputs = out.par_chunks_mut(TASK);
        outputs
            .zip(inputs)
            .for_each(|(o, (c, a))| dequantize_blocks(c, a, blocksize, o));
    }
    #[cfg(target_arch = "wasm32")]
    dequantize_blocks(codes, absmax, blocksize, out);
}

fn dequantize_blocks(codes: &[u8], absmax: &[f32], blocksize: usize, out: &mut [f32]) {
    let inputs = codes.chunks(blocksize / 2).zip(absmax);
    for (out, (codes, absmax)) in out.chunks_mut(blocksize).zip(inputs) {
        let level = NF4_CODEBOOK.map(|c| c * absmax);
        let (pairs, last) = out.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(codes) {
            *pair = [level[usize::from(byte >> 4)], level[usize::from(byte & 15)]];
        }
        if let (Some(v), Some(byte)) = (last.first_mut(), codes.last()) {
            *v = level[usize::from(byte >> 4)];
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    /// Cheap repeatable noise with outliers, zeros and tiny values.
    fn noise(n: usize) -> Vec<f32> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..n)
            .map(|i| {
                let v = (next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
                match i / 64 % 7 {
                    3 => 0.0,
                    4 => v * 1e-39,
                    5 => v * 1e30,
                    _ => v,
                }
            })
            .collect()
    }

    #[test]
    fn fast_equals_reference_on_awkward_lengths() {
        for blocksize in [32, 64, 128, 4096] {
            for n in [
                0, 1, 2, 15, 16, 31, 63, 64, 65, 127, 150, 480, 4097, 65_535, 65_536, 65_601,
                200_003,
            ] {
                let x = noise(n);
                let fast = quantize(&x, blocksize).unwrap();
                let slow = quantize_reference(&x, blocksize).unwrap();
                assert_eq!(fast, slow, "n {n}, blocksize {blocksize}");
                let mut y = vec![f32::NAN; n];
                dequantize(&fast.0, &fast.1, blocksize, &mut y);
                assert_eq!(
                    y,
                    dequantize_reference(&fast.0, &fast.1, n, blocksize),
                    "n {n}"
                );
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_non_finite_values_are_found() {
        let (codes, absmax) = quantize(&[0.0; 70], 64).unwrap();
        assert!(codes.iter().all(|c| *c == 0x77));
        assert_eq!(absmax, [0.0, TINY]);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [137, 299] {
                let mut x = noise(300);
                x[at] = bad;
                for f in [quantize, quantize_reference] {
                    assert!(
                        matches!(f(&x, 64), Err(QuantizationError::NonFinite { index, .. }) if index == at)
                    );
                }
            }
        }
        assert!(quantize(&[1.0], 48).is_err());
    }
}
