//! Tensors as they lie in files: named, typed bytes in host memory, and where they come from.
//!
//! The format is safetensors (<https://huggingface.co/docs/safetensors>), one file or several with an index. Nothing here
//! knows a device or a path: callers hand over bytes (a mapped file natively, a downloaded buffer in a browser).

mod catalog;
mod fingerprint;
mod header;
mod index;
mod plan;
mod source;

pub use catalog::{Catalog, FileRange, PartialSource};
pub use fingerprint::{FingerprintBuilder, base_fingerprint, sha256_hex};
pub use header::FileHeader;
pub use index::shards;
pub use plan::{SafetensorsPlan, SafetensorsWriter, TensorSpec, serialize};
pub use safetensors::Dtype;
pub use source::SafetensorsSource;

use std::borrow::Cow;
use std::ops::Range;
use thiserror::Error;

/// What can be wrong with weight files.
#[derive(Debug, Error)]
pub enum WeightError {
    /// A file shorter or longer than its own header says.
    #[error(
        "{file}: expected {expected} bytes, found {found}: the file is truncated or damaged; download or copy it again"
    )]
    Length {
        /// The file's name.
        file: String,
        /// Bytes the header asks for.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A header that is not safetensors.
    #[error("{file}: not a readable safetensors file: {reason}")]
    Header {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The same tensor in two files.
    #[error("tensor {name} is in both {first} and {second}; keep one of the two files")]
    Duplicate {
        /// The tensor.
        name: String,
        /// File that held it first.
        first: String,
        /// File that holds it again.
        second: String,
    },
    /// A tensor that no file holds.
    #[error("tensor {name} is missing from {files}")]
    Missing {
        /// The tensor.
        name: String,
        /// The files looked through.
        files: String,
    },
    /// Bytes of a file whose header was never read.
    #[error("{file} is none of the files whose headers were read: {files}")]
    UnknownFile {
        /// The file.
        file: String,
        /// Those that were read.
        files: String,
    },
    /// A tensor whose bytes were not fetched.
    #[error(
        "the bytes of tensor {name} in {file} are not in memory; fetch its range and hand it over first"
    )]
    NotHeld {
        /// The tensor.
        name: String,
        /// The file that holds it.
        file: String,
    },
    /// A shard named by the index that was not handed over.
    #[error(
        "shard {file} named by the index is missing; expected {expected} shards, found {found}"
    )]
    MissingShard {
        /// The shard's file name.
        file: String,
        /// Shards the index names.
        expected: usize,
        /// Shards there are.
        found: usize,
    },
    /// A tensor of an unsuitable type.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Dtype {
        /// The tensor, or empty where it has no name yet.
        name: String,
        /// Types that would do.
        expected: &'static str,
        /// The type found.
        found: Dtype,
    },
    /// A tensor of another shape than the model asks for.
    #[error(
        "tensor {name} in {file}: expected shape {expected:?}, found {found:?}: these weights do not belong to this config.json"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// The file that holds it.
        file: String,
        /// The shape expected.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A tensor that a source computes and could not.
    #[error("tensor {name}: {reason}")]
    Source {
        /// The tensor.
        name: String,
        /// What went wrong.
        reason: String,
    },
    /// Bytes that do not fill the shape.
    #[error("tensor {name}: {dtype} of shape {shape:?} takes {expected} bytes, found {found}")]
    TensorLength {
        /// The tensor, or empty where it has no name yet.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes the shape takes.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A writer called out of the order its plan promised.
    #[error("the plan expects tensor {expected} next, got {found}")]
    Order {
        /// The tensor that comes next.
        expected: String,
        /// The tensor that was handed over.
        found: String,
    },
    /// An index or configuration file that is not the JSON it should be.
    #[error("{file}: {reason}")]
    Json {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The sink refused the bytes.
    #[error("writing tensor {name} failed: {source}; nothing usable was written")]
    Write {
        /// The tensor being written, or `header`.
        name: String,
        /// The sink's own error.
        source: std::io::Error,
    },
}

impl WeightError {
    /// The same error naming its tensor, where it could not know the name.
    pub fn named(mut self, tensor: &str) -> Self {
        if let Self::Dtype { name, .. } | Self::TensorLength { name, .. } = &mut self
            && name.is_empty()
        {
            *name = tensor.to_owned();
        }
        self
    }
}

/// A tensor in host memory, as stored: row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Row-major shape; linears are `[out, in]` as PyTorch stores them.
    pub shape: Vec<usize>,
    /// The bytes, borrowed from a file where possible.
    pub bytes: Cow<'a, [u8]>,
}

/// A tensor that owns its bytes.
pub type OwnedTensor = HostTensor<'static>;

impl<'a> HostTensor<'a> {
    /// A tensor over `bytes`, whose length must be what `dtype` and `shape` take.
    pub fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<Self, WeightError> {
        let bytes = bytes.into();
        match byte_len(dtype, &shape) {
            Some(expected) if expected == bytes.len() as u64 => Ok(Self {
                dtype,
                shape,
                bytes,
            }),
            expected => Err(WeightError::TensorLength {
                name: String::new(),
                dtype,
                shape,
                expected: expected.unwrap_or(u64::MAX),
                found: bytes.len() as u64,
            }),
        }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements as f32, from F32, F16, BF16 or F64.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightError> {
        Ok(decoder(self.dtype)?(&self.bytes))
    }

    /// The part of it that holds `rows` of the first dimension.
    ///
    /// # Errors
    /// Rows it does not have.
    pub fn rows(&self, rows: Range<usize>) -> Result<HostTensor<'_>, WeightError> {
        let row = self.bytes.len() / self.shape.first().copied().unwrap_or(1).max(1);
        let bytes = self.bytes.get(rows.start * row..rows.end * row);
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = rows.len();
        }
        HostTensor::new(self.dtype, shape, bytes.unwrap_or_default())
    }

    /// The same tensor with its own copy of the bytes.
    pub fn into_owned(self) -> OwnedTensor {
        HostTensor {
            dtype: self.dtype,
            shape: self.shape,
            bytes: Cow::Owned(self.bytes.into_owned()),
        }
    }
}

impl OwnedTensor {
    /// An F32 tensor of `values`; their number must fill `shape`.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, WeightError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(Dtype::F32, shape, bytes)
    }

    /// A U8 tensor.
    pub fn from_u8(shape: Vec<usize>, values: Vec<u8>) -> Result<Self, WeightError> {
        Self::new(Dtype::U8, shape, values)
    }
}

/// From the bytes of a float type to f32.
pub(crate) type Decode = fn(&[u8]) -> Vec<f32>;

/// How the bytes of a float type become f32.
pub(crate) fn decoder(dtype: Dtype) -> Result<Decode, WeightError> {
    Ok(match dtype {
        Dtype::F32 => |b: &[u8]| decode(b, f32::from_le_bytes),
        Dtype::F16 => |b: &[u8]| decode(b, |x| half::f16::from_le_bytes(x).to_f32()),
        Dtype::BF16 => |b: &[u8]| decode(b, |x| half::bf16::from_le_bytes(x).to_f32()),
        Dtype::F64 => |b: &[u8]| decode(b, |x| f64::from_le_bytes(x) as f32),
        found => {
            return Err(WeightError::Dtype {
                name: String::new(),
                expected: "F32, F16, BF16 or F64",
                found,
            });
        }
    })
}

fn decode<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|c| f(*c)).collect()
}

/// Bytes that a tensor takes, or `None` on overflow or a ragged sub-byte type.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let bits = shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |n, d| n.checked_mul(*d as u64))?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Somewhere named tensors can be read from, one at a time.
pub trait WeightSource {
    /// Every tensor's name, sorted.
    fn names(&self) -> Vec<String>;

    /// Name, type and shape without the bytes.
    fn spec(&self, name: &str) -> Option<TensorSpec>;

    /// One tensor; borrowed from the file where the source allows it.
    fn get(&self, name: &str) -> Result<HostTensor<'_>, WeightError>;

    /// Whether there is such a tensor.
    fn contains(&self, name: &str) -> bool {
        self.spec(name).is_some()
    }

    /// The file that holds a tensor, for error messages; all files where it is absent.
    fn file_of(&self, name: &str) -> String;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn converts_every_float_type() {
        let want = [1.5f32, -2.0, 0.0, 65504.0];
        let f16: Vec<u8> = want
            .iter()
            .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
            .collect();
        let bf16: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
            .collect();
        let f64: Vec<u8> = want
            .iter()
            .flat_map(|v| (*v as f64).to_le_bytes())
            .collect();
        let t = |d, n: usize, b: Vec<u8>| HostTensor::new(d, vec![n], b).unwrap().to_f32().unwrap();
        assert_eq!(t(Dtype::F16, 4, f16), want);
        assert_eq!(t(Dtype::F64, 4, f64), want);
        assert_eq!(t(Dtype::BF16, 2, bf16), want[..2]);
        assert_eq!(
            OwnedTensor::from_f32(vec![2, 2], &want)
                .unwrap()
                .to_f32()
                .unwrap(),
            want
        );
    }

    #[test]
    fn refuses_wrong_lengths_types_and_overflow() {
        assert!(matches!(
            HostTensor::new(Dtype::F32, vec![3], vec![0u8; 11]),
            Err(WeightError::TensorLength {
                expected: 12,
                found: 11,
                ..
            })
        ));
        assert!(HostTensor::new(Dtype::F32, vec![usize::MAX, 8], vec![]).is_err());
        assert!(
            OwnedTensor::from_u8(vec![1], vec![1])
                .unwrap()
                .to_f32()
                .is_err()
        );
    }
}
