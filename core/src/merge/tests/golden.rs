//! PEFT's `add_weighted_adapter`, every recorded case: factors where they are determined, updates where signs are free.

use super::*;
use crate::weights::{SafetensorsSource, WeightSource};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

type Tensors = SafetensorsSource<Vec<u8>>;

/// Recorded cases: the repository's own, the shared ones, and those in the folders that `QLOOM_GOLDEN` lists.
fn folders() -> Vec<PathBuf> {
    let named = std::env::var("QLOOM_GOLDEN").unwrap_or_default();
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden"));
    let roots = std::iter::once(own)
        .chain(shared().map(|s| s.join("reference/golden")))
        .chain(
            named
                .split(':')
                .filter(|s| !s.is_empty())
                .map(PathBuf::from),
        );
    let mut found: Vec<PathBuf> = roots
        .flat_map(|r| std::fs::read_dir(r).into_iter().flatten())
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("index.json").is_file() && p.join("masks.safetensors").is_file())
        .collect();
    found.sort();
    found
}

fn open(path: &Path) -> Tensors {
    SafetensorsSource::single("golden", std::fs::read(path).unwrap()).unwrap()
}

fn get(tensors: &Tensors, name: &str) -> Vec<f32> {
    tensors.get(name).unwrap().to_f32().unwrap()
}

struct Case<'a> {
    json: &'a Value,
    name: &'a str,
    adapters: Vec<&'a str>,
    options: MergeOptions,
    masks: Masks,
}

impl<'a> Case<'a> {
    fn new(json: &'a Value, masks: &Tensors) -> Self {
        let list = |v: &'a Value| v.as_array().unwrap().iter();
        let name = json["name"].as_str().unwrap();
        let args = &json["args"];
        let adapters: Vec<&str> = list(&json["adapters"])
            .map(|a| a.as_str().unwrap())
            .collect();
        let options = MergeOptions {
            method: json["combination_type"].as_str().unwrap().parse().unwrap(),
            weights: list(&json["weights"])
                .map(|w| w.as_f64().unwrap())
                .collect(),
            density: args["density"].as_f64(),
            sign: args["majority_sign_method"]
                .as_str()
                .map_or(Sign::Total, |s| s.parse().unwrap()),
            rank: args["svd_rank"].as_u64().map(|r| r as usize),
            clamp: args["svd_clamp"].as_f64(),
            peft: true,
            ..MergeOptions::default()
        };
        let mut given = BTreeMap::new();
        for (i, entry) in list(&json["mask_order"]).enumerate() {
            let part = |k: usize| entry[k].as_str().unwrap();
            let adapter = adapters.iter().position(|a| *a == part(1)).unwrap();
            let tensor = [Masked::A, Masked::B, Masked::Delta]
                .into_iter()
                .find(|t| t.name() == part(2))
                .unwrap();
            let mask = masks.get(&format!("{name}|{i}")).unwrap();
            let mask = mask.bytes.iter().map(|b| *b != 0).collect();
            given.insert((part(0).to_owned(), adapter, tensor), mask);
        }
        Self {
            json,
            name,
            adapters,
            options,
            masks: Masks::Given(given),
        }
    }

    fn merge(&self, dir: &Path, options: &MergeOptions) -> Merged {
        let sources: Vec<Source> = self
            .adapters
            .iter()
            .map(|a| read_source(a, &dir.join("adapters").join(a)))
            .collect();
        merge_with_masks(&sources, options, &self.masks, |_, _| {}).unwrap()
    }
}

fn distance(got: &[f32], want: &[f32]) -> f64 {
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    apart(&wide(got), &wide(want))
}

fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    let far = distance(got, want);
    assert!(far <= tolerance, "{what}: {far:e} apart");
}

#[test]
fn every_case_is_merged_as_peft_merges_it() {
    for dir in folders() {
        let index: Value =
            serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
        let masks = open(&dir.join("masks.safetensors"));
        let golden = open(&dir.join("merged.safetensors"));
        let cases = index["cases"].as_array().unwrap();
        let mut ties = 0;
        for json in cases {
            let case = Case::new(json, &masks);
            let merged = case.merge(&dir, &case.options);
            let modules = merged.adapter.modules().unwrap();
            let paths: Vec<&str> = modules.iter().map(|m| m.path.as_str()).collect();
            let mut expected: Vec<&str> = json["modules"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m.as_str().unwrap())
                .collect();
            expected.sort_unstable();
            assert_eq!(paths, expected, "{}: modules", case.name);
            for m in &modules {
                ties += usize::from(check_module(&case, &dir, m, &golden));
            }
            check_config(&case, &dir, &merged);
        }
        assert!(ties <= 2, "{}: {ties} updates differ", dir.display());
        eprintln!(
            "{}: {} cases, {ties} decided by rounding",
            dir.display(),
            cases.len()
        );
    }
}

/// Whether updates were pruned by magnitude, where rounding can decide between two entries.
fn by_magnitude(case: &Case<'_>) -> bool {
    let method = case.options.method;
    method.truncates() && method.prunes() && !method.draws()
}

/// True where a tie was decided the other way.
fn check_module(case: &Case<'_>, dir: &Path, m: &LoraModule, golden: &Tensors) -> bool {
    let what = format!("{}: {}: {}", dir.display(), case.name, m.path);
    let want = |part: &str| get(golden, &format!("{}|{}|{part}", case.name, m.path));
    if let Some(quantile) = case.options.clamp {
        check_clamped(case, dir, m, &want("A"), &want("B"), quantile);
        return false;
    }
    let one = case.adapters.len() == 1;
    if one || !case.options.method.truncates() {
        assert_close(&format!("{what}: A"), &m.a, &want("A"), 1e-6);
        assert_close(&format!("{what}: B"), &m.b, &want("B"), 1e-6);
    }
    let update: Vec<f32> = delta(m).iter().map(|d| *d as f32).collect();
    // PEFT decomposes in f32.
    let tolerance = if case.options.method.truncates() {
        1e-4
    } else {
        5e-6
    };
    if by_magnitude(case) && distance(&update, &want("delta")) > tolerance {
        // Of two entries equal but for rounding the other was pruned: rare, and bounded by the size of one entry.
        assert_close(&what, &update, &want("delta"), 0.05);
        return true;
    }
    assert_close(&what, &update, &want("delta"), tolerance);
    false
}

/// PEFT's clamping depends on the signs its decomposition happens to choose: given those, it is the same.
fn check_clamped(case: &Case<'_>, dir: &Path, m: &LoraModule, a: &[f32], b: &[f32], quantile: f64) {
    let free = MergeOptions {
        clamp: None,
        ..case.options.clone()
    };
    let mut mine = module(&case.merge(dir, &free), &m.path);
    let (rank, input) = (mine.rank, mine.in_features);
    for k in 0..rank {
        let dot: f32 = (0..input)
            .map(|j| mine.a[k * input + j] * a[k * input + j])
            .sum();
        if dot < 0.0 {
            mine.a[k * input..(k + 1) * input]
                .iter_mut()
                .for_each(|v| *v = -*v);
            mine.b
                .iter_mut()
                .skip(k)
                .step_by(rank)
                .for_each(|v| *v = -*v);
        }
    }
    super::super::updates::clamp_factors(&mut mine.b, &mut mine.a, quantile);
    assert_close(
        &format!("{}: {}: clamped A", case.name, m.path),
        &mine.a,
        a,
        1e-4,
    );
    assert_close(
        &format!("{}: {}: clamped B", case.name, m.path),
        &mine.b,
        b,
        1e-4,
    );
}

fn check_config(case: &Case<'_>, dir: &Path, merged: &Merged) {
    let file = dir
        .join("merged")
        .join(case.name)
        .join("adapter_config.json");
    let peft = match &case.json["config"] {
        Value::Null => std::fs::read(file).unwrap(),
        recorded => recorded.to_string().into_bytes(),
    };
    let peft = PeftConfig::from_json(&peft).unwrap();
    let mine = &merged.adapter.config;
    let targets = |c: &PeftConfig| {
        let mut names = c.target_modules.as_ref().unwrap().to_vec();
        names.sort();
        names
    };
    assert_eq!(
        (mine.r, mine.lora_alpha),
        (peft.r, peft.lora_alpha),
        "{}",
        case.name
    );
    assert_eq!(mine.use_rslora, peft.use_rslora, "{}", case.name);
    assert_eq!(targets(mine), targets(&peft), "{}", case.name);
    let recorded = case.json["scaling"].as_f64().unwrap();
    let scaling = merged.adapter.modules().unwrap()[0].scaling;
    assert!((scaling - recorded).abs() < 1e-6, "{}: scaling", case.name);
}

/// Without the compatible mode an rsLoRA merge is the weighted update, not `sqrt(rank)` times it.
#[test]
fn rslora_is_not_scaled_twice() {
    for dir in folders() {
        // An rsLoRA adapter and a plain one: of the shared cases, and of the own.
        let pair = match dir.join("adapters/rs").is_dir() {
            true => ["rs", "a0"],
            false if dir.join("adapters/c").is_dir() => ["b", "a"],
            false => continue,
        };
        let sources: Vec<Source> = pair
            .iter()
            .map(|a| read_source(a, &dir.join("adapters").join(a)))
            .collect();
        let rank = (sources.len() * sources[0].adapter.config.r) as f64;
        let right = MergeOptions {
            method: Method::Cat,
            weights: vec![0.5, 0.5],
            ..MergeOptions::default()
        };
        let as_peft = MergeOptions {
            peft: true,
            ..right.clone()
        };
        for (options, factor) in [(right, 1.0), (as_peft, rank.sqrt())] {
            let merged = run(&sources, &options);
            for m in merged.adapter.modules().unwrap() {
                let want: Vec<f64> = truth(&sources, &options.weights, &m.path)
                    .iter()
                    .map(|t| t * factor)
                    .collect();
                assert!(apart(&delta(&m), &want) < 1e-6, "{} x{factor}", m.path);
            }
        }
    }
}
