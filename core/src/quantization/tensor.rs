//! [`Nf4Tensor`]: a weight in packed NF4 on the host, bit-exact with bitsandbytes.

use super::blockwise;
use super::{Absmax, QuantizationError};

/// Values that share one scale: 64, as in the paper.
pub const BLOCKSIZE: usize = 64;

/// A packed NF4 weight. A linear's is `[out, in]`, row-major, as PyTorch stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4Tensor {
    /// The original row-major shape.
    pub shape: Vec<usize>,
    /// Values that share one scale.
    pub blocksize: usize,
    /// `ceil(n / 2)` bytes, even flat index in the high nibble.
    pub codes: Vec<u8>,
    /// The scales of the blocks.
    pub absmax: Absmax,
    /// PyTorch's name of the original type: `float32`, `float16` or `bfloat16`.
    pub dtype: String,
}

impl Nf4Tensor {
    /// Quantizes `values` of `shape` in blocks of `blocksize` ([`BLOCKSIZE`] unless there is a reason), original type
    /// `float32`; see [`Nf4Tensor::with_dtype`].
    ///
    /// # Errors
    /// A NaN or infinity, an unknown block size, or a number of values that does not fill the shape.
    pub fn quantize(
        values: &[f32],
        shape: &[usize],
        blocksize: usize,
        double_quant: bool,
    ) -> Result<Self, QuantizationError> {
        let expected = shape.iter().product();
        if values.len() != expected {
            return Err(QuantizationError::Count {
                what: "values",
                expected,
                found: values.len(),
            });
        }
        let (codes, absmax) = blockwise::quantize(values, blocksize)?;
        let absmax = if double_quant {
            Absmax::double(&absmax)
        } else {
            Absmax::Plain(absmax)
        };
        Ok(Self {
            shape: shape.to_vec(),
            blocksize,
            codes,
            absmax,
            dtype: "float32".to_owned(),
        })
    }

    /// The same weight with another original type recorded: `float32`, `float16` or `bfloat16`.
    pub fn with_dtype(mut self, dtype: &str) -> Self {
        self.dtype = dtype.to_owned();
        self
    }

    /// Checks that codes, scales and shape agree; everything read from outside goes through here.
    pub fn validate(&self) -> Result<(), QuantizationError> {
        blockwise::check_blocksize(self.blocksize)?;
        let count = |what, expected, found| match expected == found {
            true => Ok(()),
            false => Err(QuantizationError::Count {
                what,
                expected,
                found,
            }),
        };
        let n = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let n = n.ok_or(QuantizationError::Count {
            what: "elements",
            expected: usize::MAX,
            found: 0,
        })?;
        count("code bytes", n.div_ceil(2), self.codes.len())?;
        count(
            "absmax values",
            n.div_ceil(self.blocksize),
            self.absmax.len(),
        )?;
        if let Absmax::Double {
            codes,
            nested_absmax,
            nested_blocksize,
            quant_map,
            ..
        } = &self.absmax
        {
            count("nested_quant_map values", 256, quant_map.len())?;
            count(
                "nested_absmax values",
                codes.len().div_ceil((*nested_blocksize).max(1)),
                nested_absmax.len(),
            )?;
            if *nested_blocksize == 0 {
                return Err(QuantizationError::Blocksize { found: 0 });
            }
        }
        Ok(())
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The scales as f32, one for every block.
    pub fn absmax_f32(&self) -> Vec<f32> {
        self.absmax.to_f32()
    }

    /// The values, row-major: `codebook[code] * absmax`.
    ///
    /// # Errors
    /// Codes, scales and shape that do not fit together.
    pub fn dequantize(&self) -> Result<Vec<f32>, QuantizationError> {
        self.validate()?;
        let mut out = vec![0.0; self.numel()];
        blockwise::dequantize(&self.codes, &self.absmax_f32(), self.blocksize, &mut out);
        Ok(out)
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        self.codes.len() + self.absmax.byte_len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn quantizing_its_own_output_changes_nothing() {
        let x: Vec<f32> = (0..3 * 50)
            .map(|i| ((i * 7919) % 211) as f32 / 105.0 - 1.0)
            .collect();
        for double in [false, true] {
            let q = Nf4Tensor::quantize(&x, &[3, 50], 64, double).unwrap();
            q.validate().unwrap();
            let again = Nf4Tensor::quantize(&q.dequantize().unwrap(), &[3, 50], 64, false).unwrap();
            assert_eq!(again.codes, q.codes);
        }
    }

    #[test]
    fn validate_counts_everything() {
        let good = Nf4Tensor::quantize(&[0.5; 640], &[10, 64], 64, true).unwrap();
        let break_it = |f: &dyn Fn(&mut Nf4Tensor)| {
            let mut bad = good.clone();
            f(&mut bad);
            assert!(bad.validate().is_err());
        };
        break_it(&|t| t.shape = vec![10, 65]);
        break_it(&|t| t.shape = vec![usize::MAX, 2]);
        break_it(&|t| t.blocksize = 128);
        break_it(&|t| t.blocksize = 0);
        break_it(&|t| t.codes.truncate(9));
        break_it(&|t| t.absmax = Absmax::Plain(vec![1.0; 9]));
        assert!(Nf4Tensor::quantize(&[0.5; 3], &[2, 2], 64, true).is_err());
    }
}
