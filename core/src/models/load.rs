//! From checkpoint tensors to a device, one tensor at a time: what loading any architecture shares.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use thiserror::Error;

use super::bert::BertError;
use super::embedding::{EmbeddingPlace, EmbeddingTable, HostTable};
use super::linear::{Linear, Weight};
use super::llama::ConfigError;
use super::parts::Part;
use crate::kernels::nf4_matmul::Nf4Weight;
use crate::quantization::{
    Nf4Tensor, QuantizationError, Stored, is_quantized, nf4_shape, read_bnb, stored_format,
};
use crate::weights::{Dtype, TensorSpec, WeightError, WeightSource};

/// How the linear layers of the blocks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseQuantization {
    /// In the compute type.
    None,
    /// As NF4 codes in blocks of 64.
    Nf4 {
        /// Quantize the scales too (8 bits in blocks of 256).
        double_quant: bool,
    },
}

/// How to load a base.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// What becomes of the blocks' linear layers. A checkpoint that is NF4 already keeps its codes
    /// under `Nf4` and is dequantized under `None`.
    pub quantization: BaseQuantization,
    /// Type of dense weights and activations.
    pub dtype: DType,
    /// Tokens the rotary table covers; the model's `max_position_embeddings` when `None`.
    pub max_positions: Option<usize>,
    /// Where the word embeddings are kept.
    pub embedding: EmbeddingPlace,
}

/// Values that are f32 on the host at once on their way to the device: 16 MiB, where a table of 32,000 words of 2,048
/// features would be 250.
const CHUNK: usize = 1 << 22;

/// Why a base could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A tensor is missing, damaged or of another shape.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// Packed weights that cannot be read.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// A configuration that cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An encoder that cannot be run.
    #[error(transparent)]
    Bert(#[from] BertError),
    /// A model put together before all of it was there.
    #[error("the model's {part} was not loaded; add every part before finishing it")]
    MissingPart {
        /// What is missing.
        part: Part,
    },
    /// A part that the model does not have.
    #[error("the model has no {part}: config.json gives it {blocks} blocks, counted from 0")]
    NoSuchPart {
        /// What was added.
        part: Part,
        /// Blocks there are.
        blocks: usize,
    },
}

/// Checks type and shape of the tensor `name` without reading its values.
///
/// # Errors
/// It is missing, of another shape, no float, or quantized in another way than NF4.
pub(crate) fn check_tensor<E: From<WeightError> + From<QuantizationError>>(
    source: &(impl WeightSource + ?Sized),
    name: &str,
    expected: &[usize],
) -> Result<(), E> {
    let Some(TensorSpec { dtype, shape, .. }) = source.spec(name) else {
        return Err(WeightError::Missing {
            name: name.to_owned(),
            files: source.file_of(name),
        }
        .into());
    };
    let found = match stored_format(source, name)? {
        Stored::Nf4 => nf4_shape(source, name)?,
        Stored::Dense if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) => {
            let (name, expected) = (name.to_owned(), "F32, F16, BF16 or F64");
            return Err(WeightError::Dtype {
                name,
                expected,
                found: dtype,
            }
            .into());
        }
        Stored::Dense => shape,
    };
    if found != expected {
        let (name, file) = (name.to_owned(), source.file_of(name));
        return Err(WeightError::Shape {
            name,
            file,
            expected: expected.to_vec(),
            found,
        }
        .into());
    }
    Ok(())
}

/// Puts single tensors of `source` on `device`.
pub(crate) struct Loader<'a> {
    pub(crate) source: &'a dyn WeightSource,
    pub(crate) options: LoadOptions,
    pub(crate) device: &'a Device,
}

impl Loader<'_> {
    /// A projection of a block: packed where the options say so. With its bias, where there is one.
    pub(crate) fn linear(&self, path: &str) -> Result<Linear, LoadError> {
        let name = format!("{path}.weight");
        let packed = is_quantized(self.source, &name)
            .then(|| read_bnb(self.source, &name))
            .transpose()?;
        let weight = match (self.options.quantization, packed) {
            (BaseQuantization::Nf4 { .. }, Some(packed)) => {
                Weight::Nf4(Nf4Weight::from_host(&packed, self.device))
            }
            (BaseQuantization::None, Some(packed)) => {
                let shape = [packed.shape[0], packed.shape[1]];
                Weight::Dense(self.upload(packed.dequantize()?, shape))
            }
            (BaseQuantization::Nf4 { double_quant }, None) => {
                let tensor = self.source.get(&name)?;
                let packed =
                    Nf4Tensor::quantize(&tensor.to_f32()?, &tensor.shape, 64, double_quant)
                        .map_err(|e| e.of(&name))?;
                Weight::Nf4(Nf4Weight::from_host(&packed, self.device))
            }
            (BaseQuantization::None, None) => Weight::Dense(self.matrix(&name)?),
        };
        Ok(Linear::new(weight, self.bias(path)?))
    }

    /// A projection outside the blocks, which is never packed here; one that was stored packed is unpacked.
    pub(crate) fn dense(&self, path: &str) -> Result<Linear, LoadError> {
        let name = format!("{path}.weight");
        let weight = if is_quantized(self.source, &name) {
            let packed = read_bnb(self.source, &name)?;
            let shape = [packed.shape[0], packed.shape[1]];
            self.upload(packed.dequantize()?, shape)
        } else {
            self.matrix(&name)?
        };
        Ok(Linear::new(Weight::Dense(weight), self.bias(path)?))
    }

    fn bias(&self, path: &str) -> Result<Option<Tensor<1>>, LoadError> {
        let bias = format!("{path}.bias");
        let found = self.source.contains(&bias);
        found.then(|| self.vector(&bias)).transpose()
    }

    /// A matrix as it is. One of many rows goes over in runs of them, so that no f32 copy of it exists on the host.
    pub(crate) fn matrix(&self, name: &str) -> Result<Tensor<2>, LoadError> {
        let tensor = self.source.get(name)?;
        let [rows, columns] = [tensor.shape[0], tensor.shape[1]];
        let run = (CHUNK / columns.max(1)).max(1);
        if rows <= run {
            return Ok(self.upload(tensor.to_f32()?, [rows, columns]));
        }
        let mut whole = Tensor::<2>::zeros([rows, columns], (self.device, self.options.dtype));
        for first in (0..rows).step_by(run) {
            let last = (first + run).min(rows);
            let values = tensor.rows(first..last)?.to_f32()?;
            let part = self.upload(values, [last - first, columns]);
            whole.inplace(|whole| whole.slice_assign([first..last, 0..columns], part));
        }
        Ok(whole)
    }

    /// A table of word embeddings, where the options want it.
    pub(crate) fn embedding(&self, name: &str) -> Result<EmbeddingTable, LoadError> {
        Ok(match self.options.embedding {
            EmbeddingPlace::Device => EmbeddingTable::Device(self.matrix(name)?),
            EmbeddingPlace::Host => {
                let table = self.source.get(name)?;
                let table = HostTable::new(&table, self.device, self.options.dtype);
                EmbeddingTable::Host(Arc::new(table.map_err(|e| e.named(name))?))
            }
        })
    }

    /// A vector as it is.
    pub(crate) fn vector(&self, name: &str) -> Result<Tensor<1>, LoadError> {
        let values = self.source.get(name)?.to_f32()?;
        let count = values.len();
        Ok(self.upload(values, [count]))
    }

    fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(
            TensorData::new(values, shape),
            (self.device, self.options.dtype),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::host::{block_on, to_vec};
    use crate::weights::{HostTensor, SafetensorsSource, serialize};

    #[test]
    fn a_table_uploaded_in_runs_of_rows_is_the_table() {
        // Three runs, the last of them short.
        let shape = [2 * CHUNK / 512 + 5, 512];
        let count = shape[0] * shape[1];
        let bytes: Vec<u8> = (0..count)
            .flat_map(|i| half::f16::from_f32((i % 2039) as f32).to_le_bytes())
            .collect();
        let tensor = HostTensor::new(Dtype::F16, shape.to_vec(), bytes).unwrap();
        let expected = tensor.to_f32().unwrap();
        let file = serialize(&[("t".to_owned(), tensor)], &Default::default()).unwrap();
        let source = SafetensorsSource::single("m", file).unwrap();
        for dtype in [DType::F32, DType::F16] {
            let options = LoadOptions {
                quantization: BaseQuantization::None,
                dtype,
                max_positions: None,
                embedding: EmbeddingPlace::Device,
            };
            let loader = Loader {
                source: &source,
                options,
                device: &Device::flex(),
            };
            let table = loader.matrix("t").unwrap();
            assert_eq!((table.dims(), table.dtype()), (shape, dtype));
            assert!(block_on(to_vec(table)).unwrap() == expected, "{dtype:?}");
        }
    }
}
