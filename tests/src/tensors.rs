//! Safetensors files as plain vectors, and the distance between two tensors.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// One tensor of a file: its shape, its bytes as stored, and its type.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Element type on disk.
    pub dtype: Dtype,
    /// Little-endian bytes as stored.
    pub bytes: Vec<u8>,
}

impl Stored {
    /// A tensor of `f32` values.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        Self {
            shape: shape.to_vec(),
            dtype: Dtype::F32,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// The values as `f32`, from F32, BF16, I64 or U8.
    pub fn f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => words(&self.bytes).map(f32::from_le_bytes).collect(),
            Dtype::BF16 => words(&self.bytes)
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))
                .collect(),
            Dtype::I64 => self.i64().into_iter().map(|v| v as f32).collect(),
            Dtype::U8 => self.bytes.iter().map(|&b| f32::from(b)).collect(),
            other => panic!("tests read no {other:?} tensors"),
        }
    }

    /// The values of an I64 tensor.
    pub fn i64(&self) -> Vec<i64> {
        assert_eq!(self.dtype, Dtype::I64, "expected token ids");
        words(&self.bytes).map(i64::from_le_bytes).collect()
    }

    /// An I64 matrix `[rows, columns]` as rows.
    pub fn rows(&self) -> Vec<Vec<i64>> {
        self.i64()
            .chunks(self.shape[1])
            .map(<[i64]>::to_vec)
            .collect()
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes
        .chunks_exact(N)
        .map(|c| c.try_into().expect("chunks_exact yields N bytes"))
}

/// All tensors of one file, by name.
pub type Tensors = BTreeMap<String, Stored>;

/// Reads a whole safetensors file.
pub fn load(path: &Path) -> Tensors {
    let bytes =
        std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let file =
        SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let stored = Stored {
                shape: view.shape().to_vec(),
                dtype: view.dtype(),
                bytes: view.data().to_vec(),
            };
            (name, stored)
        })
        .collect()
}

/// Writes tensors as one safetensors file.
pub fn save(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, t)| {
        let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).expect("shape fits bytes");
        (name, view)
    });
    let bytes = safetensors::serialize(views, None).expect("serializable");
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// `max|a - b| / max|b|`: the largest error, relative to the largest value of the reference `b`.
/// NaN anywhere gives infinity, so that it can never pass as small.
pub fn max_rel(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "tensors of different sizes");
    let mut error = 0f64;
    let mut scale = 0f64;
    for (&x, &y) in a.iter().zip(b) {
        let d = (f64::from(x) - f64::from(y)).abs();
        if d.is_nan() {
            return f64::INFINITY;
        }
        error = error.max(d);
        scale = scale.max(f64::from(y).abs());
    }
    if error == 0.0 { 0.0 } else { error / scale }
}

/// Asserts [`max_rel`] of two equally shaped tensors to be at most `limit`.
pub fn assert_close(what: &str, got: &Stored, want: &Stored, limit: f64) {
    assert_eq!(got.shape, want.shape, "{what}: shape");
    let error = max_rel(&got.f32(), &want.f32());
    assert!(
        error <= limit,
        "{what}: relative error {error:.3e}, allowed {limit:.0e}"
    );
}

/// The rows of `logits` (`[batch, width, vocab]`) where `mask` (`[batch, width]`) is 1, as one list:
/// what a model computes at padding is nobody's business.
pub fn at_tokens(logits: &Stored, mask: &Stored) -> Vec<f32> {
    assert_eq!(
        logits.shape[..2],
        mask.shape[..],
        "logits and mask disagree"
    );
    let vocab = logits.shape[2];
    let values = logits.f32();
    mask.i64()
        .iter()
        .enumerate()
        .filter(|(_, m)| **m == 1)
        .flat_map(|(i, _)| values[i * vocab..(i + 1) * vocab].iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_relative_to_the_largest_reference_value() {
        assert_eq!(max_rel(&[1.0, 9.0], &[1.0, 10.0]), 0.1);
        assert_eq!(max_rel(&[0.0], &[0.0]), 0.0);
        assert_eq!(max_rel(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(max_rel(&[1.0], &[0.0]), f64::INFINITY);
    }

    #[test]
    fn files_round_trip_and_bf16_widens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let mut tensors = Tensors::new();
        tensors.insert("a".into(), Stored::from_f32(&[2, 1], &[1.5, -2.0]));
        tensors.insert(
            "b".into(),
            Stored {
                shape: vec![1],
                dtype: Dtype::BF16,
                bytes: vec![0x80, 0x3f],
            },
        );
        save(&path, &tensors);
        let back = load(&path);
        assert_eq!(back["a"].f32(), [1.5, -2.0]);
        assert_eq!(back["b"].f32(), [1.0]);
    }
}
