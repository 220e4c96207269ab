//! Two real adapters for TinyLlama-1.1B-Chat, merged by every method, against a restatement of PEFT's rules that shares no
//! code with the product: sorting instead of selection, plain loops, and for truncation the defining equations of a
//! singular value decomposition.

use super::*;
use std::collections::BTreeMap;

const WEIGHTS: [f64; 2] = [0.9, -0.4];
const DENSITY: f64 = 0.6;

/// The pair, with the modules whose path holds one of `parts`.
fn pair_of_adapters(parts: &[&str]) -> Option<Vec<Source>> {
    let folder = shared()?.join("data/lora_adapters");
    let names = [
        "tinyllama_arona_finetuned_ckpt75",
        "tinyllama_arona_lora_ckpt180",
    ];
    let few = |name: &&str| {
        let whole = read_source(name, &folder.join(name));
        let modules: Vec<LoraModule> = whole.adapter.modules().unwrap();
        let kept: Vec<LoraModule> = modules
            .into_iter()
            .filter(|m| parts.iter().any(|p| m.path.contains(p)))
            .collect();
        from_parts(name, whole.adapter.config.clone(), &kept)
    };
    Some(names.iter().map(few).collect())
}

/// Masks that both sides use: every entry's fate from a multiplicative hash of its index.
fn masks(sources: &[Source], method: Method) -> BTreeMap<(String, usize, Masked), Vec<bool>> {
    let mut all = BTreeMap::new();
    for (at, source) in sources.iter().enumerate() {
        for m in source.adapter.modules().unwrap() {
            let tensors = match method.truncates() {
                true => vec![(Masked::Delta, m.out_features * m.in_features)],
                false => vec![(Masked::A, m.a.len()), (Masked::B, m.b.len())],
            };
            for (tensor, len) in tensors {
                let keep = |i: usize| {
                    let hash = ((i + 7 * at + 1) as u32).wrapping_mul(0x9E37_79B1);
                    f64::from(hash) / 4_294_967_296.0 < DENSITY
                };
                all.insert((m.path.clone(), at, tensor), (0..len).map(keep).collect());
            }
        }
    }
    all
}

/// PEFT's rules for one tensor, restated.
fn restated(
    tensors: &[Vec<f32>],
    weights: &[f64],
    method: Method,
    keep: &[&Vec<bool>],
) -> Vec<f64> {
    let name = method.name();
    let pruned: Vec<Vec<f64>> = tensors
        .iter()
        .enumerate()
        .map(|(at, t)| {
            if name.starts_with("dare") {
                let value = |(i, v): (usize, &f32)| {
                    if keep[at][i] {
                        f64::from(*v) / DENSITY
                    } else {
                        0.0
                    }
                };
                return t.iter().enumerate().map(value).collect();
            }
            if name.starts_with("ties") || name.starts_with("magnitude") {
                let mut order: Vec<usize> = (0..t.len()).collect();
                order.sort_by(|a, b| t[*b].abs().total_cmp(&t[*a].abs()));
                let mut out = vec![0.0; t.len()];
                for i in &order[..(DENSITY * t.len() as f64) as usize] {
                    out[*i] = f64::from(t[*i]);
                }
                return out;
            }
            t.iter().map(|v| f64::from(*v)).collect()
        })
        .collect();
    (0..tensors[0].len())
        .map(|i| {
            let weighted = pruned.iter().zip(weights).map(|(t, w)| t[i] * w);
            if !name.contains("ties") {
                return weighted.sum();
            }
            let total: f64 = pruned.iter().map(|t| t[i]).sum();
            let agrees = |v: f64| if total >= 0.0 { v > 0.0 } else { v < 0.0 };
            let kept: Vec<f64> = weighted
                .zip(&pruned)
                .filter(|(_, t)| agrees(t[i]))
                .map(|(w, _)| w)
                .collect();
            kept.iter().sum::<f64>() / kept.len().max(1) as f64
        })
        .collect()
}

fn restated_module(
    parts: &[LoraModule],
    method: Method,
    masks: &BTreeMap<(String, usize, Masked), Vec<bool>>,
    tensor: Masked,
) -> Vec<f64> {
    let keep: Vec<&Vec<bool>> = (0..parts.len())
        .filter_map(|at| masks.get(&(parts[at].path.clone(), at, tensor)))
        .collect();
    let even = |at: usize| (WEIGHTS[at] * parts[at].scaling).abs().sqrt();
    let (tensors, weights): (Vec<Vec<f32>>, Vec<f64>) = parts
        .iter()
        .enumerate()
        .map(|(at, m)| match tensor {
            Masked::A => (m.a.clone(), even(at) * WEIGHTS[at].signum()),
            Masked::B => (m.b.clone(), even(at)),
            Masked::Delta => (delta(m).iter().map(|d| *d as f32).collect(), WEIGHTS[at]),
        })
        .unzip();
    restated(&tensors, &weights, method, &keep)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// `B = T·Aᵀ` with orthonormal rows in `A`, `Tᵀ·B = Aᵀ·Σ²`, and nothing larger left in `T − B·A`: then `B·A` is the best
/// approximation of `T` at its rank.
fn assert_best(target: &[f64], m: &LoraModule, what: &str) {
    let (out, input, rank) = (m.out_features, m.in_features, m.rank);
    let (a, b) = (wide(&m.a), wide(&m.b));
    let row = |k: usize| &a[k * input..(k + 1) * input];
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let column = |k: usize| -> Vec<f64> { (0..out).map(|i| b[i * rank + k]).collect() };
    let times = |x: &[f64]| -> Vec<f64> { target.chunks(input).map(|t| dot(t, x)).collect() };
    let transposed = |y: &[f64]| -> Vec<f64> {
        let mut sum = vec![0.0; input];
        for (t, y) in target.chunks(input).zip(y) {
            sum.iter_mut().zip(t).for_each(|(s, t)| *s += t * y);
        }
        sum
    };
    let largest = dot(&column(0), &column(0)).sqrt();
    for k in 0..rank {
        for l in 0..rank {
            let unit = f64::from(k == l);
            assert!(
                (dot(row(k), row(l)) - unit).abs() < 1e-5,
                "{what}: rows {k}, {l}"
            );
        }
        let (image, b) = (times(row(k)), column(k));
        let off: f64 = image.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum();
        assert!(off.sqrt() < 1e-5 * largest, "{what}: B is not T·Aᵀ at {k}");
        let square = dot(&b, &b);
        let back = transposed(&b);
        let off: f64 = back
            .iter()
            .zip(row(k))
            .map(|(x, v)| (x - square * v).powi(2))
            .sum();
        assert!(
            off.sqrt() < 1e-4 * largest.powi(2),
            "{what}: no singular triplet at {k}"
        );
    }
    let smallest = dot(&column(rank - 1), &column(rank - 1)).sqrt();
    let left = |x: &[f64]| -> Vec<f64> {
        let mut y = times(x);
        for k in 0..rank {
            let along = dot(row(k), x);
            y.iter_mut()
                .zip(column(k))
                .for_each(|(y, b)| *y -= b * along);
        }
        y
    };
    let mut x: Vec<f64> = (0..input)
        .map(|i| ((i * 37 % 101) as f64 - 50.0) / 50.0)
        .collect();
    let mut found = 0.0;
    for _ in 0..12 {
        let norm = dot(&x, &x).sqrt();
        x.iter_mut().for_each(|v| *v /= norm);
        let y = left(&x);
        found = dot(&y, &y).sqrt();
        x = transposed(&y);
    }
    assert!(
        found <= smallest * 1.0001,
        "{what}: {found} is left, {smallest} was kept"
    );
}

fn check(sources: &[Source], method: Method) {
    let options = MergeOptions {
        density: method.prunes().then_some(DENSITY),
        ..options(method, &WEIGHTS)
    };
    let masks = masks(sources, method);
    let given = Masks::Given(masks.clone());
    let merged = merge_with_masks(sources, &options, &given, |_, _| {}).unwrap();
    let all: Vec<Vec<LoraModule>> = sources
        .iter()
        .map(|s| s.adapter.modules().unwrap())
        .collect();
    for (at, m) in merged.adapter.modules().unwrap().iter().enumerate() {
        let parts: Vec<LoraModule> = all.iter().map(|list| list[at].clone()).collect();
        let what = format!("{method}: {}", m.path);
        if method == Method::Cat {
            let true_update = truth(sources, &WEIGHTS, &m.path);
            assert!(apart(&delta(m), &true_update) < 1e-6, "{what}");
        } else if method.truncates() {
            let target = restated_module(&parts, method, &masks, Masked::Delta);
            assert_best(&target, m, &what);
        } else {
            for (tensor, got) in [(Masked::A, &m.a), (Masked::B, &m.b)] {
                let want = restated_module(&parts, method, &masks, tensor);
                assert!(apart(&wide(got), &want) < 1e-6, "{what}: {}", tensor.name());
            }
        }
    }
}

#[test]
fn the_real_pair_merges_by_every_method() {
    // All 44 modules where factors are merged; one of each shape, the larger for two methods only, where updates are.
    let (q, v) = ("layers.0.self_attn.q_proj", "layers.21.self_attn.v_proj");
    let (Some(whole), Some(both), Some(small)) = (
        pair_of_adapters(&[""]),
        pair_of_adapters(&[q, v]),
        pair_of_adapters(&[v]),
    ) else {
        return;
    };
    for method in Method::ALL {
        let sources = match method {
            Method::Svd | Method::TiesSvd => &both,
            _ if method.truncates() => &small,
            _ => &whole,
        };
        check(sources, method);
    }
}

#[test]
fn the_real_pair_is_exact_at_rank_eight() {
    let Some(sources) = pair_of_adapters(&[""]) else {
        return;
    };
    let exact = MergeOptions {
        exact: true,
        ..options(Method::Svd, &WEIGHTS)
    };
    let merged = run(&sources, &exact);
    assert_eq!(merged.adapter.config.r, 8);
    assert_eq!(merged.fidelity.modules.len(), 44);
    assert!(merged.fidelity.overall.relative_error.unwrap() < 1e-6);
}
