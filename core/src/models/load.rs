//! From checkpoint tensors to a device, one tensor at a time: what loading any architecture shares.

use burn::tensor::{DType, Device, Tensor, TensorData};
use thiserror::Error;

use super::bert::BertError;
use super::linear::{Linear, Weight};
use super::llama::ConfigError;
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
}

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

    /// A matrix as it is.
    pub(crate) fn matrix(&self, name: &str) -> Result<Tensor<2>, LoadError> {
        let tensor = self.source.get(name)?;
        let shape = [tensor.shape[0], tensor.shape[1]];
        Ok(self.upload(tensor.to_f32()?, shape))
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
