//! Merges against PEFT's own, properties that must hold for any adapters, and merges that are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod adapters;
mod golden;
mod into_base;
mod properties;
mod real;
mod refusals;

use super::*;
use crate::adapters::{Adapter, LoraModule, OneOrMany, PeftConfig};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::path::PathBuf;

/// The folder of shared reference material, or a message that it is absent.
fn shared() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let root = PathBuf::from(std::env::var("QLOOM_SHARED").unwrap_or_else(|_| default.into()));
    if !root.is_dir() {
        eprintln!(
            "skipped: no shared reference material at {}",
            root.display()
        );
        return None;
    }
    Some(root)
}

fn read_source(name: &str, folder: &std::path::Path) -> Source {
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
    Source::from_bytes(
        name,
        &read("adapter_config.json"),
        &read("adapter_model.safetensors"),
        None,
    )
    .unwrap()
}

const OUT: usize = 12;
const IN: usize = 9;

/// A pair with random entries.
fn pair(path: &str, rank: usize, scaling: f64, seed: u64) -> LoraModule {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |n: usize| -> Vec<f32> {
        (0..n)
            .map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5) as f32)
            .collect()
    };
    LoraModule {
        path: path.into(),
        a: draw(rank * IN),
        b: draw(OUT * rank),
        rank,
        in_features: IN,
        out_features: OUT,
        alpha: scaling * rank as f64,
        scaling,
        dropout: 0.0,
    }
}

/// An adapter on `l.0.<name>` for each of `names`, all of one rank.
fn source(name: &str, names: &[&str], rank: usize, scaling: f64, seed: u64) -> Source {
    let modules: Vec<LoraModule> = names
        .iter()
        .enumerate()
        .map(|(i, n)| pair(&format!("l.0.{n}"), rank, scaling, seed * 100 + i as u64))
        .collect();
    let config = PeftConfig {
        r: rank,
        lora_alpha: scaling * rank as f64,
        target_modules: Some(OneOrMany::Many(
            names.iter().map(|n| (*n).to_owned()).collect(),
        )),
        ..PeftConfig::default()
    };
    from_parts(name, config, &modules)
}

fn from_parts(name: &str, config: PeftConfig, modules: &[LoraModule]) -> Source {
    Source {
        name: name.into(),
        adapter: Adapter::new(config, modules, vec![]).unwrap(),
        receipt: None,
        sha256: format!("sha of {name}"),
    }
}

fn options(method: Method, weights: &[f64]) -> MergeOptions {
    MergeOptions {
        method,
        weights: weights.to_vec(),
        density: method.prunes().then_some(0.5),
        ..MergeOptions::default()
    }
}

fn run(sources: &[Source], options: &MergeOptions) -> Merged {
    merge(sources, options, |_, _| {}).unwrap()
}

/// `scaling · B·A` in `f64`, row-major.
fn delta(m: &LoraModule) -> Vec<f64> {
    let mut out = vec![0.0; m.out_features * m.in_features];
    for i in 0..m.out_features {
        for k in 0..m.rank {
            let b = m.scaling * f64::from(m.b[i * m.rank + k]);
            for j in 0..m.in_features {
                out[i * m.in_features + j] += b * f64::from(m.a[k * m.in_features + j]);
            }
        }
    }
    out
}

/// The true weighted update of one module.
fn truth(sources: &[Source], weights: &[f64], path: &str) -> Vec<f64> {
    let mut sum: Vec<f64> = Vec::new();
    for (source, weight) in sources.iter().zip(weights) {
        for m in source.adapter.modules().unwrap() {
            if m.path == path {
                let d = delta(&m);
                sum.resize(d.len(), 0.0);
                sum.iter_mut().zip(d).for_each(|(s, d)| *s += weight * d);
            }
        }
    }
    sum
}

fn module(merged: &Merged, path: &str) -> LoraModule {
    let modules = merged.adapter.modules().unwrap();
    modules.into_iter().find(|m| m.path == path).unwrap()
}

/// `‖a − b‖ / ‖b‖`.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square: f64 = a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum();
    let norm: f64 = b.iter().map(|y| y.powi(2)).sum();
    (square / norm.max(1e-300)).sqrt()
}
