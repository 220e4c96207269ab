//! What is laid over a frozen base: adapter pairs, and whole weights that were trained.

use std::collections::HashMap;

use burn::tensor::Tensor;

use super::AdapterLayer;

/// Adapter layers and replacement weights by module path or tensor name.
///
/// A model takes an overlay and returns a copy of itself that shares every base tensor, so several
/// adapters can live on one base and be switched without reloading it.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    layers: HashMap<String, Vec<AdapterLayer>>,
    matrices: HashMap<String, Tensor<2>>,
    vectors: HashMap<String, Tensor<1>>,
    keeps_head: bool,
}

impl Overlay {
    /// Adds a layer of any method to the module at `path` (`model.layers.0.self_attn.q_proj`). Layers stack.
    pub fn add_lora(&mut self, path: &str, layer: impl Into<AdapterLayer>) {
        let stack = self.layers.entry(path.to_owned()).or_default();
        stack.push(layer.into());
    }

    /// Replaces the matrix `name` (`lm_head.weight`).
    pub fn set_matrix(&mut self, name: &str, value: Tensor<2>) {
        self.matrices.insert(name.to_owned(), value);
    }

    /// Replaces the vector `name` (`model.norm.weight`).
    pub fn set_vector(&mut self, name: &str, value: Tensor<1>) {
        self.vectors.insert(name.to_owned(), value);
    }

    /// Leaves a head that is tied to the embedding as it is in the base, though the embedding is replaced.
    pub fn keep_head(&mut self) {
        self.keeps_head = true;
    }

    /// Whether [`Overlay::keep_head`] was asked for.
    pub fn keeps_head(&self) -> bool {
        self.keeps_head
    }

    /// The layers on the module at `path`.
    pub fn layers(&self, path: &str) -> &[AdapterLayer] {
        self.layers.get(path).map_or(&[], Vec::as_slice)
    }

    /// The replacement for the matrix `name`.
    pub fn matrix(&self, name: &str) -> Option<Tensor<2>> {
        self.matrices.get(name).cloned()
    }

    /// The replacement for the vector `name`.
    pub fn vector(&self, name: &str) -> Option<Tensor<1>> {
        self.vectors.get(name).cloned()
    }
}
