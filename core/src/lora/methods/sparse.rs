//! Sparse LoRA: a gate on every rank-one component, and a bound on how many gates are open.
//!
//! ```text
//! ΔW = s · B · diag(g) · A        ‖g‖₀ ≤ density · (ranks of all modules together)
//! ```
//!
//! The gate is SoRA's (Ding et al., "Sparse Low-rank Adaptation of Pre-trained Language Models", EMNLP 2023,
//! arXiv 2311.11696): `A`, `B` and `g` are trained together, and components whose gate is zero are cut out
//! afterwards. SoRA shrinks gates by a proximal step of the L1 norm, so its sparsity is known only at the end;
//! here the constraint is on the number of open gates itself, and the proximal step of that constraint keeps
//! the largest. The bound falls from all gates to `density` over the first half of the run along the cubic
//! curve of Zhu and Gupta (arXiv 1710.01878). It is one bound over all modules, so ranks go where they are used.
//!
//! What is saved is plain LoRA of smaller ranks (`rank_pattern`), the gate multiplied into `A`: any PEFT loads it,
//! and both the file and the work per token shrink.

use burn::tensor::{Tensor, TensorData};

use super::{AdapterMethod, LoraLayer, rslora::alpha_for};
use crate::adapters::{LoraModule, PeftConfig};
use crate::host::{ReadError, to_vec};
use crate::models::linear::Linear;

/// Share of a run over which gates are closed; the rest trains what is left.
const CLOSING: f64 = 0.5;

/// A low-rank pair with a gate on each rank.
#[derive(Clone, Debug)]
pub struct SparseLayer {
    /// `A`, `B`, scaling and dropout.
    pub pair: LoraLayer,
    /// `g`, `[rank]`, f32.
    pub gate: Tensor<1>,
}

impl AdapterMethod for SparseLayer {
    fn delta(&self, x: Tensor<2>, _: Option<&Tensor<2>>, _: &Linear) -> Tensor<2> {
        let narrow = self.pair.narrow(self.pair.drop(x));
        let gate: Tensor<2> = self.gate.clone().cast(narrow.dtype()).unsqueeze();
        self.pair.widen(narrow * gate)
    }

    fn delta_weight(&self, _: &Linear) -> Tensor<2> {
        let gate: Tensor<2> = self.gate.clone().unsqueeze_dim(1);
        let open = LoraLayer {
            a: self.pair.a.clone() * gate,
            ..self.pair.clone()
        };
        open.delta_weight()
    }
}

/// How many of `gates` may be open after `step` of `total` optimizer steps; never none.
pub fn budget(gates: usize, density: f64, step: u64, total: u64) -> usize {
    let progress = step as f64 / (CLOSING * total as f64).max(1.0);
    let left = (1.0 - progress.min(1.0)).powi(3);
    let share = density + (1.0 - density) * left;
    ((share * gates as f64).round() as usize).clamp(1.min(gates), gates)
}

/// Sets all but the `open` largest gates to zero. Equal gates close from the end.
///
/// # Errors
/// The device failed.
pub async fn close(gates: Tensor<1>, open: usize) -> Result<Tensor<1>, ReadError> {
    let mut values = to_vec(gates.clone()).await?;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[j].abs().total_cmp(&values[i].abs()).then(i.cmp(&j)));
    for &closed in order.iter().skip(open) {
        values[closed] = 0.0;
    }
    let count = values.len();
    Ok(Tensor::from_data(
        TensorData::new(values, [count]),
        &gates.device(),
    ))
}

/// The pair without its closed components, the gates in `A`; one component of zeros where all are closed.
/// The scaling stays what it was.
pub fn cut(module: &LoraModule, gates: &[f32], rslora: bool) -> LoraModule {
    let mut kept: Vec<usize> = (0..module.rank).filter(|&i| gates[i] != 0.0).collect();
    if kept.is_empty() {
        kept.push(0);
    }
    let row = |&i: &usize| {
        let row = &module.a[i * module.in_features..(i + 1) * module.in_features];
        row.iter().map(move |v| v * gates[i])
    };
    let column = |o: usize| {
        let row = &module.b[o * module.rank..(o + 1) * module.rank];
        kept.iter().map(|&i| row[i]).collect::<Vec<f32>>()
    };
    LoraModule {
        path: module.path.clone(),
        a: kept.iter().flat_map(row).collect(),
        b: (0..module.out_features).flat_map(column).collect(),
        rank: kept.len(),
        alpha: alpha_for(module.scaling, kept.len(), rslora),
        ..*module
    }
}

/// `config` with the rank and alpha of every module written out.
pub fn with_ranks(config: &PeftConfig, modules: &[LoraModule]) -> PeftConfig {
    let pattern = |value: fn(&LoraModule) -> f64| {
        modules.iter().map(|m| (m.path.clone(), value(m))).collect()
    };
    PeftConfig {
        rank_pattern: pattern(|m| m.rank as f64),
        alpha_pattern: pattern(|m| m.alpha),
        ..config.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod unit_tests {
    use super::*;
    use crate::host::block_on;
    use burn::tensor::Device;

    #[test]
    fn the_budget_falls_along_a_cubic_to_the_density() {
        assert_eq!(budget(64, 0.25, 0, 100), 64);
        assert_eq!(budget(64, 0.25, 50, 100), 16);
        assert_eq!(budget(64, 0.25, 100, 100), 16);
        assert_eq!(
            budget(64, 0.25, 25, 100),
            (64.0f64 * (0.25 + 0.75 / 8.0)).round() as usize
        );
        let falling: Vec<usize> = (0..=100).map(|s| budget(64, 0.25, s, 100)).collect();
        assert!(falling.is_sorted_by(|a, b| a >= b));
        assert_eq!(budget(8, 0.01, 100, 100), 1, "one component stays open");
        assert_eq!(budget(0, 0.5, 3, 4), 0);
    }

    #[test]
    fn the_smallest_gates_close_and_the_rest_is_cut_exactly() {
        let device = Device::flex();
        let gates = Tensor::from_data(TensorData::new(vec![0.5f32, -2.0, 0.1, 0.5], [4]), &device);
        let closed =
            |open| block_on(async { to_vec(close(gates.clone(), open).await?).await }).unwrap();
        assert_eq!(closed(2), [0.5, -2.0, 0.0, 0.0]);
        assert_eq!(closed(9), [0.5, -2.0, 0.1, 0.5]);

        let module = LoraModule {
            path: "m".into(),
            a: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            b: vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            rank: 3,
            in_features: 2,
            out_features: 2,
            alpha: 6.0,
            scaling: 2.0,
            dropout: 0.0,
        };
        let cut = cut(&module, &[0.5, 0.0, -1.0], false);
        assert_eq!(cut.a, [0.5, 1.0, -5.0, -6.0]);
        assert_eq!(cut.b, [0.1, 0.3, 0.4, 0.6]);
        assert_eq!((cut.rank, cut.alpha, cut.scaling), (2, 4.0, 2.0));
        let empty = super::cut(&module, &[0.0; 3], true);
        assert_eq!((empty.rank, empty.a.as_slice()), (1, &[0.0, 0.0][..]));
    }
}
