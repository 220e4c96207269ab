//! The table of word embeddings: on the device, or on the host where device memory is short.
//!
//! A forward pass needs a few rows of it. On the host the table keeps the type it was stored in, and the rows of the
//! tokens at hand are uploaded: 4 KB a token for 2,048 features in f16, instead of a table that may be a fifth of a
//! quantized model. The numbers are the same either way.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::llama::index_tensor;
use crate::weights::{Decode, HostTensor, WeightError, decoder};

/// Where the table lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbeddingPlace {
    /// With the rest of the model.
    #[default]
    Device,
    /// In host memory. A table that is the language model's head too stays on the device, which needs all of it there.
    Host,
}

/// A table, `[vocab, hidden]`.
// A model holds one of these; a box would save nothing worth an indirection.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum EmbeddingTable {
    /// On the device.
    Device(Tensor<2>),
    /// On the host; shared by every copy of the model.
    Host(Arc<HostTable>),
}

/// A table on the host, and where its rows are needed.
pub struct HostTable {
    bytes: Vec<u8>,
    shape: [usize; 2],
    decode: Decode,
    device: Device,
    dtype: DType,
}

impl HostTable {
    /// A copy of `table`, whose rows will be asked for on `device` as `dtype`.
    ///
    /// # Errors
    /// A type that is no float, or another rank than two.
    pub fn new(table: &HostTensor<'_>, device: &Device, dtype: DType) -> Result<Self, WeightError> {
        let decode = decoder(table.dtype)?;
        let &[rows, columns] = table.shape.as_slice() else {
            return Err(WeightError::Shape {
                name: "word embeddings".to_owned(),
                file: "the checkpoint".to_owned(),
                expected: vec![table.numel(), 1],
                found: table.shape.clone(),
            });
        };
        Ok(Self {
            bytes: table.bytes.to_vec(),
            shape: [rows, columns],
            decode,
            device: device.clone(),
            dtype,
        })
    }

    fn rows(&self, ids: &[u32]) -> Tensor<2> {
        let row = self.bytes.len() / self.shape[0].max(1);
        let gathered: Vec<u8> = ids
            .iter()
            .flat_map(|&id| &self.bytes[id as usize * row..(id as usize + 1) * row])
            .copied()
            .collect();
        let data = TensorData::new((self.decode)(&gathered), [ids.len(), self.shape[1]]);
        Tensor::from_data(data, (&self.device, self.dtype))
    }
}

impl std::fmt::Debug for HostTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostTable({:?}, {} bytes)", self.shape, self.bytes.len())
    }
}

impl EmbeddingTable {
    /// The rows of `ids`, `[ids.len(), hidden]`, in the table's type.
    ///
    /// # Panics
    /// As a lookup on a device may, where an id has no row: callers check ids against the vocabulary.
    pub fn rows(&self, ids: &[u32]) -> Tensor<2> {
        match self {
            Self::Device(table) => {
                let ids = index_tensor(ids, &table.device().inner());
                table.clone().select(0, ids)
            }
            Self::Host(table) => table.rows(ids),
        }
    }

    /// Where its rows arrive, without autodiff.
    pub fn device(&self) -> Device {
        match self {
            Self::Device(table) => table.device().inner(),
            Self::Host(table) => table.device.clone().inner(),
        }
    }

    /// The type its rows arrive in.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Device(table) => table.dtype(),
            Self::Host(table) => table.dtype,
        }
    }

    /// `[vocab, hidden]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Device(table) => table.dims(),
            Self::Host(table) => table.shape,
        }
    }
}
