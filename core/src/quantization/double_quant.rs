//! Double quantization: the block scales themselves, rounded to eight bits.
//!
//! `offset = mean(absmax)`; `absmax - offset` is scaled in blocks of 256 by its largest magnitude and rounded to an
//! entry of the dynamic map; back: `absmax = map[q] * nested_absmax[i / 256] + offset`. Source: QLoRA (arXiv 2305.14314), section 3.

use super::dynamic_map::{DYNAMIC_MAP, dynamic_code};

/// Scales that share one second-level scale.
pub const NESTED_BLOCKSIZE: usize = 256;

/// The scales of a tensor's blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum Absmax {
    /// One f32 for every block.
    Plain(Vec<f32>),
    /// One byte for every block, an f32 for every 256 of those, and an offset.
    Double {
        /// Indices into `quant_map`, one for every block.
        codes: Vec<u8>,
        /// Second-level scales `[ceil(blocks / nested_blocksize)]`.
        nested_absmax: Vec<f32>,
        /// Blocks that share a second-level scale: 256.
        nested_blocksize: usize,
        /// The mean taken off before rounding.
        offset: f32,
        /// The 256 values that `codes` index.
        quant_map: Vec<f32>,
    },
}

impl Absmax {
    /// Rounds `absmax` to eight bits.
    pub fn double(absmax: &[f32]) -> Self {
        let offset = mean(absmax);
        let mut codes = Vec::with_capacity(absmax.len());
        let mut nested_absmax = Vec::new();
        for block in absmax.chunks(NESTED_BLOCKSIZE) {
            let max = block.iter().fold(0f32, |m, a| m.max((a - offset).abs()));
            nested_absmax.push(max);
            let code = |a: &f32| match max {
                0.0 => 0,
                _ => dynamic_code(((a - offset) * (1.0 / max)).clamp(-1.0, 1.0)),
            };
            codes.extend(block.iter().map(code));
        }
        let quant_map = DYNAMIC_MAP.to_vec();
        Self::Double {
            codes,
            nested_absmax,
            nested_blocksize: NESTED_BLOCKSIZE,
            offset,
            quant_map,
        }
    }

    /// The scales as f32, one for every block.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::Plain(absmax) => absmax.clone(),
            Self::Double {
                codes,
                nested_absmax,
                nested_blocksize,
                offset,
                quant_map,
            } => {
                let blocks = codes.chunks(*nested_blocksize).zip(nested_absmax);
                blocks
                    .flat_map(|(c, m)| {
                        c.iter()
                            .map(move |q| quant_map[usize::from(*q)] * m + offset)
                    })
                    .collect()
            }
        }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(absmax) => absmax.len(),
            Self::Double { codes, .. } => codes.len(),
        }
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        match self {
            Self::Plain(absmax) => absmax.len() * 4,
            Self::Double {
                codes,
                nested_absmax,
                quant_map,
                ..
            } => codes.len() + 4 * (nested_absmax.len() + quant_map.len() + 1),
        }
    }
}

/// The mean, added up in PyTorch's order (eight lanes, four rows, four levels of partial sums) on one thread.
///
/// Any order gives a valid offset; this one gives the very bytes that bitsandbytes writes for tensors up to two million elements.
fn mean(x: &[f32]) -> f32 {
    const LANES: usize = 8;
    if x.is_empty() {
        return 0.0;
    }
    let (rows, rest) = x.as_chunks::<LANES>();
    let mut sum = rest.iter().fold(0f32, |s, v| s + v);
    for lane in row_sum(rows) {
        sum += lane;
    }
    sum / x.len() as f32
}

type Lanes = [f32; 8];

fn add(a: &mut Lanes, b: &Lanes) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

/// Sums vectors of eight as PyTorch's `row_sum`: four interleaved accumulators, then their sum.
fn row_sum(rows: &[Lanes]) -> Lanes {
    let (quads, rest) = rows.as_chunks::<4>();
    let mut sums = cascade(quads);
    for row in rest {
        add(&mut sums[0], row);
    }
    let [mut first, others @ ..] = sums;
    for other in &others {
        add(&mut first, other);
    }
    first
}

/// PyTorch's `multi_row_sum`: partial sums spill into the next of four levels, which keeps the rounding error low.
fn cascade(quads: &[[Lanes; 4]]) -> [Lanes; 4] {
    const LEVELS: usize = 4;
    let log2 = quads.len().max(1).next_power_of_two().ilog2() as usize;
    let power = (log2 / LEVELS).max(4);
    let step = 1 << power;
    let mut acc = [[[0f32; 8]; 4]; LEVELS];
    let mut i = 0;
    while i + step <= quads.len() {
        for quad in &quads[i..i + step] {
            for (a, row) in acc[0].iter_mut().zip(quad) {
                add(a, row);
            }
        }
        i += step;
        for level in 1..LEVELS {
            let below = std::mem::take(&mut acc[level - 1]);
            for (a, b) in acc[level].iter_mut().zip(&below) {
                add(a, b);
            }
            if i & ((step - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    for quad in &quads[i..] {
        for (a, row) in acc[0].iter_mut().zip(quad) {
            add(a, row);
        }
    }
    let [mut total, upper @ ..] = acc;
    for level in &upper {
        for (a, b) in total.iter_mut().zip(level) {
            add(a, b);
        }
    }
    total
}

#[cfg(test)]
#[allow(clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_right_at_every_length() {
        for n in [
            1usize, 7, 8, 9, 31, 32, 33, 255, 1000, 4096, 65_537, 300_000,
        ] {
            let x: Vec<f32> = (0..n)
                .map(|i| 0.01 + (i * 2_654_435_761 % 1000) as f32 / 1e5)
                .collect();
            let exact = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            assert!(
                (f64::from(mean(&x)) / exact - 1.0).abs() < 3e-7,
                "n {n}: {} against {exact}",
                mean(&x)
            );
        }
    }

    #[test]
    fn rounding_error_is_bounded_and_equal_scales_are_exact() {
        let x: Vec<f32> = (0..700)
            .map(|i| 0.02 + (i * 37 % 101) as f32 / 5000.0)
            .collect();
        let Absmax::Double { nested_absmax, .. } = Absmax::double(&x) else {
            panic!("not double")
        };
        assert_eq!(nested_absmax.len(), 3);
        for (i, (a, b)) in x.iter().zip(Absmax::double(&x).to_f32()).enumerate() {
            assert!((a - b).abs() <= 0.0075 * nested_absmax[i / 256], "{a} {b}");
        }
        assert_eq!(Absmax::double(&[0.25; 5]).to_f32(), [0.25; 5]);
        assert!(Absmax::double(&[]).to_f32().is_empty());
    }
}
