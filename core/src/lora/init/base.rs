//! The weights of a base as initializations see them.

use crate::adapters::AdapterError;
use crate::quantization::{BLOCKSIZE, Nf4Tensor, is_quantized, read_bnb};
use crate::weights::WeightSource;

/// A base's weights by module path, and the form it is trained in.
#[derive(Clone, Copy)]
pub struct BaseWeights<'a> {
    source: &'a dyn WeightSource,
    nf4: bool,
    double_quant: bool,
}

impl<'a> BaseWeights<'a> {
    /// The weights in `source`, of which training uses NF4 codes (`nf4`) or the plain values.
    pub fn new(source: &'a dyn WeightSource, nf4: bool, double_quant: bool) -> Self {
        Self {
            source,
            nf4,
            double_quant,
        }
    }

    /// Whether training holds the weight as NF4 codes.
    pub fn is_nf4(&self) -> bool {
        self.nf4
    }

    /// Whether the quantization of scales is quantized too.
    pub fn double_quant(&self) -> bool {
        self.double_quant
    }

    /// Whether the weight of the module at `path` is stored as NF4, its full precision gone.
    pub fn is_stored_packed(&self, path: &str) -> bool {
        is_quantized(self.source, &weight(path))
    }

    /// The values as stored, row-major f32.
    pub fn stored(&self, path: &str) -> Result<Vec<f32>, AdapterError> {
        let name = weight(path);
        if is_quantized(self.source, &name) {
            let packed = read_bnb(self.source, &name);
            let values = packed.and_then(|packed| packed.dequantize());
            return values.map_err(|e| AdapterError::initialization(path, e.of(&name)));
        }
        let tensor = self.source.get(&name)?;
        Ok(tensor.to_f32().map_err(|e| e.named(&name))?)
    }

    /// The values that training multiplies with: those the codes stand for, where the base is quantized.
    pub fn effective(&self, path: &str) -> Result<Vec<f32>, AdapterError> {
        let values = self.stored(path)?;
        if !self.nf4 || self.is_stored_packed(path) {
            return Ok(values);
        }
        let shape = [values.len()];
        Nf4Tensor::quantize(&values, &shape, BLOCKSIZE, self.double_quant)
            .and_then(|packed| packed.dequantize())
            .map_err(|e| AdapterError::initialization(path, e))
    }
}

impl std::fmt::Debug for BaseWeights<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseWeights")
            .field("nf4", &self.nf4)
            .finish_non_exhaustive()
    }
}

fn weight(path: &str) -> String {
    format!("{path}.weight")
}
