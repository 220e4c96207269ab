//! What is trained: named slices of one flat f32 vector.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::host::to_vec;
use crate::lora::{LoraLayer, Overlay};

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
    },
    /// The up projection of the module at `path`.
    LoraB {
        /// Module path.
        path: String,
    },
    /// A whole weight of the model, by its checkpoint name.
    Weight,
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

    /// Whether weight decay applies: to matrices, not to norms and biases.
    fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}

/// All trained tensors, in the order of the flat vector. A `LoraA` is followed by its `LoraB`.
#[derive(Clone, Debug)]
pub struct Parameters {
    specs: Vec<Parameter>,
    offsets: Vec<usize>,
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
            values,
        }
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
        if self.specs.iter().all(Parameter::decays) {
            return None;
        }
        let mask: Vec<f32> = self
            .specs
            .iter()
            .flat_map(|s| std::iter::repeat_n(f32::from(u8::from(s.decays())), s.len()))
            .collect();
        let total = mask.len();
        Some(Tensor::from_data(
            TensorData::new(mask, [total]),
            &self.values.device(),
        ))
    }

    /// The values of every tensor on the host, by name.
    pub fn to_host(&self) -> Vec<(Parameter, Vec<f32>)> {
        self.split_host(&self.values)
    }

    /// Splits a flat vector of the same layout (gradients, moments) into the tensors it holds.
    pub fn split_host(&self, flat: &Tensor<1>) -> Vec<(Parameter, Vec<f32>)> {
        let all = to_vec(flat.clone());
        let spans = self.offsets.windows(2);
        self.specs
            .iter()
            .cloned()
            .zip(spans.map(|w| all[w[0]..w[1]].to_vec()))
            .collect()
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
        let mut pending: Option<(&str, LoraLayer)> = None;
        for leaf in leaves {
            let spec = &self.specs[leaf.index];
            match (&spec.role, spec.shape.as_slice()) {
                (
                    Role::LoraA {
                        path,
                        scaling,
                        dropout,
                    },
                    &[rows, columns],
                ) => {
                    let a = leaf.tensor.clone().reshape([rows, columns]);
                    let dropout = if training { *dropout } else { 0.0 };
                    // `b` is a placeholder until the next leaf, this module's LoraB, arrives.
                    pending = Some((
                        path,
                        LoraLayer {
                            b: a.clone(),
                            a,
                            scaling: *scaling,
                            dropout,
                        },
                    ));
                }
                (Role::LoraB { path }, &[rows, columns]) => {
                    if let Some((opened, mut layer)) = pending.take() {
                        debug_assert_eq!(opened, path);
                        layer.b = leaf.tensor.clone().reshape([rows, columns]);
                        overlay.add_lora(path, layer);
                    }
                }
                (Role::Weight, &[rows, columns]) => {
                    overlay.set_matrix(&spec.name, leaf.tensor.clone().reshape([rows, columns]));
                }
                _ => overlay.set_vector(&spec.name, leaf.tensor.clone()),
            }
        }
        overlay
    }
}
