//! Where golden cases lie, and what a Llama case holds.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tensors::{self, Stored, Tensors};

/// The cases this project drew itself.
pub fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The folder of shared reference material: `QLOOM_SHARED`, or `shared` beside the checkout. Says so where it is absent.
pub fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("QLOOM_SHARED").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")).to_path_buf(),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!(
        "skipped: no shared reference material at {} (set QLOOM_SHARED)",
        folder.display()
    );
    None
}

/// Folders beside the own one that may hold cases: the shared goldens and those of `QLOOM_GOLDEN`.
fn elsewhere() -> Vec<PathBuf> {
    let named = std::env::var("QLOOM_GOLDEN").unwrap_or_default();
    shared()
        .map(|s| s.join("reference/golden"))
        .into_iter()
        .chain(
            named
                .split(':')
                .filter(|s| !s.is_empty())
                .map(PathBuf::from),
        )
        .collect()
}

fn listed(prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = elsewhere()
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten())
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort();
    found
}

/// Files of NF4 cases (`nf4_*.safetensors`).
pub fn nf4_files() -> Vec<PathBuf> {
    let mut files = listed("nf4_");
    files.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    files
}

/// One training run of a case.
#[derive(Clone, Debug)]
pub struct Trajectory {
    /// `f32`, `f32_tokmean` or `nf4`.
    pub name: String,
    /// `base` or `base_nf4`.
    pub base: PathBuf,
    /// What the config's `[train]` table says.
    pub train: Vec<(String, String)>,
    /// Per optimizer step: loss, learning rate, gradient norm before clipping.
    pub steps: Vec<[f64; 3]>,
    /// The adapter afterwards.
    pub adapter: PathBuf,
}

/// A Llama with an adapter, in one folder.
#[derive(Clone, Debug)]
pub struct LlamaCase {
    /// The folder.
    pub dir: PathBuf,
    /// `golden.safetensors`.
    pub golden: Tensors,
}

impl LlamaCase {
    /// Opens the case in `dir`.
    pub fn open(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            golden: tensors::load(&dir.join("golden.safetensors")),
        }
    }

    /// A short name for messages.
    pub fn name(&self) -> String {
        self.dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// A tensor of the golden file.
    pub fn get(&self, name: &str) -> &Stored {
        self.golden
            .get(name)
            .unwrap_or_else(|| panic!("{}: no `{name}`", self.dir.display()))
    }

    /// The probe's ids as `trainer probe` reads them: -1 where there is no token.
    pub fn probe_ids(&self) -> Vec<Vec<i64>> {
        let mask = self.get("attention_mask").rows();
        let rows = self.get("input_ids").rows().into_iter().zip(mask);
        let real = |(id, m): (i64, i64)| if m == 1 { id } else { -1 };
        rows.map(|(row, mask)| row.into_iter().zip(mask).map(real).collect())
            .collect()
    }

    /// The expected LoRA gradients under `prefix` ("" or "nf4_"), by the name PEFT saves the tensor under.
    pub fn gradients(&self, prefix: &str) -> Vec<(String, &Stored)> {
        let head = format!("{prefix}grad|");
        self.golden
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix(&head)?.replace(".default", ""), t)))
            .collect()
    }

    /// Whether the quantized half of the case can be trusted. The shared generator asks bitsandbytes' AVX-512
    /// dequantizer, which mis-indexes absmax where a width is no multiple of 64; the own cases do not.
    pub fn nf4_is_sound(&self) -> bool {
        if self.dir.starts_with(own()) {
            return true;
        }
        let config = json(&self.dir.join("base/config.json"));
        let width = config["intermediate_size"].as_u64().unwrap_or(0);
        if !width.is_multiple_of(64) {
            eprintln!(
                "{}: NF4 left out, the reference itself is wrong at intermediate_size {width}",
                self.name()
            );
        }
        width.is_multiple_of(64)
    }

    /// The training micro-batches, each as rows of (ids, labels) without padding, in the order they are used.
    pub fn training_rows(&self) -> Vec<(Vec<i64>, Vec<i64>)> {
        (0..)
            .map_while(|i| {
                let part = |key: &str| Some(self.golden.get(&format!("train|{i}|{key}"))?.rows());
                Some(unpadded(
                    &part("input_ids")?,
                    &part("labels")?,
                    &part("attention_mask")?,
                ))
            })
            .flatten()
            .collect()
    }

    /// The training runs recorded in `train.json`, whichever generator wrote it.
    pub fn trajectories(&self) -> Vec<Trajectory> {
        let record = json(&self.dir.join("train.json"));
        let own = record.get("runs");
        let hyper = own.map_or_else(|| &record["f32"]["hyper"], |_| &record["hyper"]);
        ["f32", "f32_tokmean", "nf4"]
            .iter()
            .filter_map(|name| {
                let log = match own {
                    Some(runs) => runs.get(name)?.as_array()?,
                    None => record.get(name)?["log"].as_array()?,
                };
                let normalization = match own {
                    Some(_) => hyper["loss_normalization"].as_str()?,
                    None if *name == "f32_tokmean" => "tokens",
                    None => "micro_batch",
                };
                Some(Trajectory {
                    name: (*name).to_string(),
                    base: self
                        .dir
                        .join(if *name == "nf4" { "base_nf4" } else { "base" }),
                    train: settings(hyper, normalization),
                    steps: log.iter().map(step).collect(),
                    adapter: self.dir.join(format!("adapter_final_{name}")),
                })
            })
            .collect()
    }
}

fn step(row: &Value) -> [f64; 3] {
    let norm = row
        .get("grad_norm")
        .unwrap_or(&row["grad_norm_before_clip"]);
    [&row["loss"], &row["lr"], norm].map(|v| v.as_f64().expect("a number"))
}

/// The `[train]` table for a recorded run; the two generators name some settings differently.
fn settings(hyper: &Value, normalization: &str) -> Vec<(String, String)> {
    let either = |a: &str, b: &str| hyper.get(a).or(hyper.get(b)).cloned();
    let values = [
        ("max_steps", either("max_steps", "steps")),
        ("batch_size", Some(2.into())),
        ("grad_accumulation", either("grad_accumulation", "accum")),
        ("loss_normalization", Some(normalization.into())),
        ("lr", either("lr", "lr")),
        (
            "schedule",
            Some(
                hyper["schedule"]
                    .as_str()
                    .map_or("cosine", first_word)
                    .into(),
            ),
        ),
        ("warmup_steps", either("warmup_steps", "warmup_steps")),
        ("weight_decay", either("weight_decay", "weight_decay")),
        ("betas", either("betas", "betas")),
        ("eps", either("eps", "eps")),
        ("max_grad_norm", either("max_grad_norm", "clip")),
    ];
    values
        .into_iter()
        .map(|(key, value)| {
            let value = value.unwrap_or_else(|| panic!("train.json has no {key}"));
            (key.to_string(), toml_value(&value))
        })
        .collect()
}

/// The shared generator describes its schedule in a sentence that begins with its name.
fn first_word(sentence: &str) -> &str {
    sentence
        .split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or(sentence)
}

/// JSON's scalars and arrays are TOML's, but for whole numbers in floating-point fields, which TOML readers accept too.
fn toml_value(value: &Value) -> String {
    match value.as_f64() {
        Some(small) if small != 0.0 && small.abs() < 1e-6 => format!("{small:e}"),
        _ => value.to_string(),
    }
}

/// Rows without their right padding.
pub fn unpadded(
    ids: &[Vec<i64>],
    labels: &[Vec<i64>],
    mask: &[Vec<i64>],
) -> Vec<(Vec<i64>, Vec<i64>)> {
    ids.iter()
        .zip(labels)
        .zip(mask)
        .map(|((ids, labels), mask)| {
            let n = mask.iter().filter(|m| **m == 1).count();
            (ids[..n].to_vec(), labels[..n].to_vec())
        })
        .collect()
}

/// Every Llama case: this project's, the shared ones, and those of `QLOOM_GOLDEN`.
pub fn llamas() -> Vec<LlamaCase> {
    std::iter::once(own().join("llama_ragged"))
        .chain(listed("llama_"))
        .map(|dir| LlamaCase::open(&dir))
        .collect()
}

/// A JSON file.
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every classifier case: this project's, the shared ones, and those of `QLOOM_GOLDEN`.
pub fn classifiers() -> Vec<LlamaCase> {
    ["distilbert_tiny", "bert_tiny"]
        .iter()
        .map(|name| own().join(name))
        .chain(listed("distilbert_"))
        .chain(listed("bert_"))
        .map(|dir| LlamaCase::open(&dir))
        .collect()
}
