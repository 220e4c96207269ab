//! What is trained: named slices of one flat f32 vector.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::host::{ReadError, to_vec};
use crate::lora::methods::sparse;
use crate::lora::{AdapterLayer, Kind, LoraConfig, LoraLayer, Method, Overlay};

/// What a trained tensor is to the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// The down projection of the module at `path`.
    LoraA {
        /// Module path.
        path: String,
        /// `alpha / rank`, or its rsLoRA form.
        scaling: f64,
        /// Dropout on the module's input while training.
        dropout: f64,
        /// What the pair is part of.
        kind: Kind,
    },
    /// The up projection of the module at `path`.
    LoraB {
        /// Module path.
        path: String,
    },
    /// DoRA's magnitudes of the rows of the module at `path`.
    Magnitude {
        /// Module path.
        path: String,
    },
    /// The gates on the ranks of the module at `path`, of sparse LoRA.
    Gate {
        /// Module path.
        path: String,
    },
    /// A whole weight of the model, by its checkpoint name.
    Weight,
    /// The whole embedding, of which a tied head stays as it is in the base.
    InputTable,
}

/// One trained tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Name in the saved adapter without PEFT's prefix (`….q_proj.lora_A.weight`), or the
    /// checkpoint name of a whole weight.
    pub name: String,
    /// `[out, in]` for matrices, `[n]` for vectors.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether weight decay applies: to matrices and, as in Hugging Face's trainer, to DoRA's magnitudes; never to gates.
    /// Vectors trained beside an adapter, the biases of a classification head, decay too, as in a bare torch loop that
    /// hands all that PEFT trains to AdamW as one group; Hugging Face's `Trainer` exempts biases and norms there as well.
    fn decays(&self, beside_adapter: bool) -> bool {
        match self.role {
            Role::Gate { .. } => false,
            Role::Magnitude { .. } => true,
            _ => self.shape.len() > 1 || beside_adapter,
        }
    }

    /// Whether LoRA+ raises its learning rate: `B`, and whatever is a vector, as PEFT groups them.
    fn is_fast(&self) -> bool {
        matches!(self.role, Role::LoraB { .. }) || self.shape.len() == 1
    }
}

/// All trained tensors, in the order of the flat vector. Gates, where there are any, lie side by side.
#[derive(Clone, Debug)]
pub struct Parameters {
    specs: Vec<Parameter>,
    offsets: Vec<usize>,
    lora_plus_ratio: f64,
    density: f64,
    /// The values, `[total]`, f32, without autodiff.
    pub values: Tensor<1>,
}

/// A tracked slice of the flat vector, whose gradient is collected after `backward`.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Index of the parameter.
    pub index: usize,
    /// The tracked values, flat.
    pub tensor: Tensor<1>,
}

impl Parameters {
    /// Collects tensors with their initial values (row-major f32).
    pub fn new(tensors: Vec<(Parameter, Vec<f32>)>, device: &Device) -> Self {
        let mut specs = Vec::with_capacity(tensors.len());
        let mut offsets = Vec::with_capacity(tensors.len() + 1);
        let mut values = Vec::with_capacity(tensors.iter().map(|(_, v)| v.len()).sum());
        for (spec, initial) in tensors {
            debug_assert_eq!(spec.len(), initial.len(), "{}", spec.name);
            offsets.push(values.len());
            specs.push(spec);
            values.extend(initial);
        }
        offsets.push(values.len());
        let total = values.len();
        let values = Tensor::from_data(TensorData::new(values, [total]), (device, DType::F32));
        Self {
            specs,
            offsets,
            lora_plus_ratio: 1.0,
            density: 1.0,
            values,
        }
    }

    /// With what the method says about the optimizer: LoRA+'s ratio, and the density of open gates.
    pub fn with_method(mut self, config: &LoraConfig) -> Self {
        self.lora_plus_ratio = config.lora_plus_ratio;
        if config.method == Method::Sparse {
            self.density = config.density;
        }
        self
    }

    /// The tensors' names, shapes and roles.
    pub fn specs(&self) -> &[Parameter] {
        &self.specs
    }

    /// Trained values in all.
    pub fn count(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The flat values of parameter `index`.
    pub fn slice(&self, index: usize) -> Tensor<1> {
        let (start, end) = (self.offsets[index], self.offsets[index + 1]);
        self.values.clone().narrow(0, start, end - start)
    }

    /// 1 where weight decay applies, 0 elsewhere; `None` if it applies everywhere.
    pub fn decay_mask(&self) -> Option<Tensor<1>> {
        let pair = |s: &Parameter| matches!(s.role, Role::LoraA { .. });
        let beside_adapter = self.specs.iter().any(pair);
        self.mask(|s| f32::from(u8::from(s.decays(beside_adapter))))
    }

    /// What the learning rate is multiplied with, value by value; `None` if it is the same everywhere.
    pub fn lr_scale(&self) -> Option<Tensor<1>> {
        let ratio = self.lora_plus_ratio as f32;
        self.mask(|s| if s.is_fast() { ratio } else { 1.0 })
    }

    /// A flat vector with `value` of each tensor at its place; `None` where it is 1 everywhere.
    fn mask(&self, value: impl Fn(&Parameter) -> f32) -> Option<Tensor<1>> {
        if self.specs.iter().all(|s| value(s) == 1.0) {
            return None;
        }
        let mask: Vec<f32> = self
            .specs
            .iter()
            .flat_map(|s| std::iter::repeat_n(value(s), s.len()))
            .collect();
        let total = mask.len();
        Some(Tensor::from_data(
            TensorData::new(mask, [total]),
            &self.values.device(),
        ))
    }

    /// Puts the values back where the method's constraint allows them after `step` of `total` optimizer steps: sparse
    /// LoRA keeps its largest gates. Depends on values and counters alone, so a resumed run does the same.
    ///
    /// # Errors
    /// The device failed.
    pub async fn constrain(&mut self, step: u64, total: u64) -> Result<(), ReadError> {
        let Some((start, end)) = self.gates() else {
            return Ok(());
        };
        let open = sparse::budget(end - start, self.density, step, total);
        let gates = self.values.clone().narrow(0, start, end - start);
        let gates = sparse::close(gates, open).await?;
        self.values
            .inplace(|values| values.slice_assign(start..end, gates));
        Ok(())
    }

    /// Share of gates that are closed; `None` where there is no gate.
    ///
    /// # Errors
    /// The device failed.
    pub async fn sparsity(&self) -> Result<Option<f64>, ReadError> {
        let Some((start, end)) = self.gates() else {
            return Ok(None);
        };
        let gates = to_vec(self.values.clone().narrow(0, start, end - start)).await?;
        let closed = gates.iter().filter(|g| **g == 0.0).count();
        Ok(Some(closed as f64 / gates.len().max(1) as f64))
    }

    /// Where the gates lie in the flat vector.
    fn gates(&self) -> Option<(usize, usize)> {
        let is_gate = |s: &Parameter| matches!(s.role, Role::Gate { .. });
        let first = self.specs.iter().position(is_gate)?;
        let last = self.specs.iter().rposition(is_gate)?;
        Some((self.offsets[first], self.offsets[last + 1]))
    }

    /// The values of every tensor on the host, by name.
    ///
    /// # Errors
    /// The device failed.
    pub async fn to_host(&self) -> Result<Vec<(Parameter, Vec<f32>)>, ReadError> {
        self.split_host(&self.values).await
    }

    /// Splits a flat vector of the same layout (gradients, moments) into the tensors it holds.
    ///
    /// # Errors
    /// The device failed.
    pub async fn split_host(
        &self,
        flat: &Tensor<1>,
    ) -> Result<Vec<(Parameter, Vec<f32>)>, ReadError> {
        let all = to_vec(flat.clone()).await?;
        let spans = self.offsets.windows(2);
        Ok(self
            .specs
            .iter()
            .cloned()
            .zip(spans.map(|w| all[w[0]..w[1]].to_vec()))
            .collect())
    }

    /// An overlay of the current values, for evaluation: no tape, no dropout.
    pub fn overlay(&self) -> Overlay {
        let all: Vec<Leaf> = (0..self.specs.len())
            .map(|i| Leaf {
                index: i,
                tensor: self.slice(i),
            })
            .collect();
        self.lay(&all, false)
    }

    /// Tracked leaves of the parameters whose name `wanted` accepts, and the overlay built on them.
    pub fn tracked(&self, wanted: impl Fn(&str) -> bool) -> (Overlay, Vec<Leaf>) {
        let leaves: Vec<Leaf> = (0..self.specs.len())
            .filter(|&i| wanted(&self.specs[i].name))
            .map(|i| Leaf {
                index: i,
                tensor: self.slice(i).autodiff().require_grad(),
            })
            .collect();
        (self.lay(&leaves, true), leaves)
    }

    /// The untracked overlay of the parameters `wanted` accepts, with training's dropout: the first
    /// pass of a recomputed block must draw the masks of the second.
    pub fn training_overlay(&self, wanted: impl Fn(&str) -> bool) -> Overlay {
        let leaves: Vec<Leaf> = (0..self.specs.len())
            .filter(|&i| wanted(&self.specs[i].name))
            .map(|i| Leaf {
                index: i,
                tensor: self.slice(i),
            })
            .collect();
        self.lay(&leaves, true)
    }

    fn lay(&self, leaves: &[Leaf], training: bool) -> Overlay {
        let mut overlay = Overlay::default();
        let mut layers: BTreeMap<&str, Parts> = BTreeMap::new();
        for leaf in leaves {
            let spec = &self.specs[leaf.index];
            let tensor = leaf.tensor.clone();
            match (&spec.role, spec.shape.as_slice()) {
                (
                    Role::LoraA {
                        path,
                        scaling,
                        dropout,
                        kind,
                    },
                    &[rows, columns],
                ) => {
                    let dropout = if training { *dropout } else { 0.0 };
                    let parts = layers.entry(path).or_default();
                    parts.down = Some((tensor.reshape([rows, columns]), *scaling, dropout));
                    parts.kind = *kind;
                }
                (Role::LoraB { path }, &[rows, columns]) => {
                    layers.entry(path).or_default().up = Some(tensor.reshape([rows, columns]));
                }
                (Role::Magnitude { path } | Role::Gate { path }, _) => {
                    layers.entry(path).or_default().vector = Some(tensor);
                }
                (Role::Weight | Role::InputTable, &[rows, columns]) => {
                    if spec.role == Role::InputTable {
                        overlay.keep_head();
                    }
                    overlay.set_matrix(&spec.name, tensor.reshape([rows, columns]));
                }
                _ => overlay.set_vector(&spec.name, tensor),
            }
        }
        for (path, parts) in layers {
            if let Some(layer) = parts.layer() {
                overlay.add_lora(path, layer);
            }
        }
        overlay
    }
}

/// The tensors of one module's adapter, as they are found.
#[derive(Default)]
struct Parts {
    kind: Kind,
    /// `A` with scaling and dropout.
    down: Option<(Tensor<2>, f64, f64)>,
    up: Option<Tensor<2>>,
    vector: Option<Tensor<1>>,
}

impl Parts {
    fn layer(self) -> Option<AdapterLayer> {
        let (a, scaling, dropout) = self.down?;
        let pair = LoraLayer {
            a,
            b: self.up?,
            scaling,
            dropout,
        };
        Some(AdapterLayer::new(self.kind, pair, self.vector))
    }
}
