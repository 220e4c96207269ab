//! A base model's folder, Hugging Face layout.
//!
//! ```text
//! config.json                      architecture and sizes (required)
//! model.safetensors                the weights, or
//! model.safetensors.index.json     a map from tensor name to shard, and the shards it names
//! tokenizer.json                   (required to read text) with tokenizer_config.json, chat_template.jinja,
//!                                  special_tokens_map.json, generation_config.json where there are any
//! ```
//!
//! Weights are memory-mapped: opening a base costs address space, not memory, and pages read once can be dropped.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use memmap2::Mmap;
use serde_json::{Map, Value};

use super::{explain, listing, read, read_text};

/// Name of the map from tensors to shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Name of unsharded weights.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Weights that are pickles: loading one runs code from it, so they are never read.
pub(crate) const PICKLED: [&str; 4] = [".bin", ".pt", ".pth", ".ckpt"];

/// The files of a base, read; weights mapped.
#[derive(Debug)]
pub(crate) struct BaseFolder {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// `config.json`.
    pub(crate) config: Map<String, Value>,
    /// `tokenizer.json`, as bytes; none for a base used on token ids only.
    pub(crate) tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub(crate) tokenizer_config: Option<Map<String, Value>>,
    /// `chat_template.jinja`, which takes precedence over the template in `tokenizer_config.json`.
    pub(crate) chat_template: Option<String>,
    /// `special_tokens_map.json`.
    pub(crate) special_tokens: Option<Map<String, Value>>,
    /// `generation_config.json`.
    pub(crate) generation_config: Option<Map<String, Value>>,
    /// The shards.
    pub(crate) weights: MappedFiles,
}

impl BaseFolder {
    /// Reads the small files of `path` and maps its weights.
    ///
    /// # Errors
    /// A missing `config.json` or missing weights (the error lists what is there), an index that names an absent
    /// shard, JSON that does not parse, pickled weights only.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            bail!(
                "base {} is no folder: give a folder in the Hugging Face layout, or a hub id such as owner/name",
                path.display()
            );
        }
        let config = json_object(path, "config.json")?.with_context(|| {
            format!(
                "{} has no config.json, so it is no model folder; it holds {}",
                path.display(),
                listing(path, 12)
            )
        })?;
        let template = path.join("chat_template.jinja");
        Ok(Self {
            config,
            tokenizer: optional_bytes(&path.join("tokenizer.json"))?,
            tokenizer_config: json_object(path, "tokenizer_config.json")?,
            chat_template: match template.is_file() {
                true => Some(read_text(&template)?),
                false => None,
            },
            special_tokens: json_object(path, "special_tokens_map.json")?,
            generation_config: json_object(path, "generation_config.json")?,
            weights: MappedFiles::open(&weight_files(path)?)?,
            path: path.to_path_buf(),
        })
    }

    /// `tokenizer.json`, or an error that says what the folder has instead.
    pub(crate) fn require_tokenizer(&self) -> Result<&[u8]> {
        self.tokenizer.as_deref().with_context(|| {
            let other = ["tokenizer.model", "vocab.txt", "vocab.json"]
                .into_iter()
                .find(|name| self.path.join(name).exists());
            let other = match other {
                Some(name) => {
                    format!("its {name} is an older format; save the fast tokenizer beside it")
                }
                None => format!("it holds {}", listing(&self.path, 12)),
            };
            format!("{} has no tokenizer.json ({other})", self.path.display())
        })
    }
}

/// The safetensors files of a model folder, in a fixed order.
///
/// # Errors
/// As for [`BaseFolder::open`].
pub(crate) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if let Some(index) = json_object(folder, INDEX)? {
        let shards =
            shards_of(&index).with_context(|| format!("{INDEX} in {}", folder.display()))?;
        let absent: Vec<&str> = shards
            .iter()
            .filter(|name| !folder.join(name).is_file())
            .map(String::as_str)
            .collect();
        if !absent.is_empty() {
            bail!(
                "{} lacks {} of the {} shards its index names: {}. Copy or download them again",
                folder.display(),
                absent.len(),
                shards.len(),
                absent.join(", ")
            );
        }
        return Ok(shards.iter().map(|name| folder.join(name)).collect());
    }
    let single = folder.join(SINGLE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let held = listing(folder, 12);
    if PICKLED
        .iter()
        .any(|end| held.split(", ").any(|name| name.ends_with(end)))
    {
        bail!(
            "{} has pickled weights only (it holds {held}). Loading a pickle can run code, so safetensors are \
             required: convert it once with transformers, model.save_pretrained(DIR, safe_serialization=True)",
            folder.display()
        );
    }
    bail!(
        "{} has neither {SINGLE} nor {INDEX}; it holds {held}",
        folder.display()
    )
}

/// The shard names of an index, sorted, each once.
///
/// # Errors
/// No `weight_map`, an empty one, or a name that leaves the folder.
pub(crate) fn shards_of(index: &Map<String, Value>) -> Result<Vec<String>> {
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .context("no \"weight_map\" object: not a safetensors index")?;
    let mut names = BTreeSet::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().with_context(|| {
            format!("\"{tensor}\" is mapped to {shard}, a file name was expected")
        })?;
        // An index comes from strangers: it may not point at files outside the model's folder.
        if shard.is_empty() || shard.contains(['/', '\\']) || shard.starts_with("..") {
            bail!("\"{tensor}\" is mapped to {shard:?}, which is no plain file name");
        }
        names.insert(shard.to_owned());
    }
    if names.is_empty() {
        bail!("the \"weight_map\" is empty");
    }
    Ok(names.into_iter().collect())
}

/// Memory-mapped read-only files.
#[derive(Debug, Default)]
pub(crate) struct MappedFiles {
    files: Vec<(PathBuf, Mmap)>,
}

impl MappedFiles {
    /// Maps each of `paths`.
    ///
    /// # Errors
    /// A file that cannot be opened or is too short for a safetensors header.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self> {
        let files = paths.iter().map(|path| Ok((path.clone(), map(path)?)));
        Ok(Self {
            files: files.collect::<Result<_>>()?,
        })
    }

    /// Each file's path and bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files
            .iter()
            .map(|(path, bytes)| (path.as_path(), &bytes[..]))
    }

    /// Bytes of all files together.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

#[allow(unsafe_code)]
fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| explain(e, "open", path))?;
    let length = file.metadata().map_err(|e| explain(e, "open", path))?.len();
    if length < 8 {
        bail!(
            "{} is {length} bytes long, too short for a safetensors header: the copy or download was cut off",
            path.display()
        );
    }
    // SAFETY: the map is read-only and private, and is only ever lent as `&[u8]` bound to its own lifetime. What
    // remains is another process that shortens the file meanwhile, which would end this one with SIGBUS; model
    // files are replaced by renaming (here and by the hub cache), never shortened in place.
    unsafe { Mmap::map(&file) }.map_err(|e| explain(e, "map", path))
}

fn optional_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match path.is_file() {
        true => read(path).map(Some),
        false => Ok(None),
    }
}

/// Reads a JSON object; none when the file is absent.
pub(crate) fn json_object(folder: &Path, name: &str) -> Result<Option<Map<String, Value>>> {
    let path = folder.join(name);
    let Some(bytes) = optional_bytes(&path)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => bail!("{} holds JSON that is no object", path.display()),
        Err(error) => bail!("{} is not valid JSON: {error}", path.display()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, body) in files {
            fs::write(dir.path().join(name), body).unwrap();
        }
        dir
    }

    fn error(dir: &tempfile::TempDir) -> String {
        format!("{:#}", BaseFolder::open(dir.path()).unwrap_err())
    }

    #[test]
    fn a_sharded_base_opens_in_shard_order() {
        let index =
            r#"{"weight_map":{"b":"s-2.safetensors","a":"s-1.safetensors","c":"s-2.safetensors"}}"#;
        let dir = folder(&[
            ("config.json", r#"{"model_type":"llama"}"#),
            (INDEX, index),
            ("s-1.safetensors", "12345678"),
            ("s-2.safetensors", "123456789"),
            ("chat_template.jinja", "{{ messages }}"),
        ]);
        let base = BaseFolder::open(dir.path()).unwrap();
        let lengths: Vec<usize> = base.weights.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, [8, 9]);
        assert_eq!(base.weights.total_bytes(), 17);
        assert_eq!(base.chat_template.as_deref(), Some("{{ messages }}"));
        assert_eq!(base.config["model_type"], "llama");
        assert!(
            base.require_tokenizer()
                .unwrap_err()
                .to_string()
                .contains("tokenizer.json")
        );
    }

    #[test]
    fn what_is_missing_is_said_with_what_is_there() {
        let dir = folder(&[("readme.md", "")]);
        assert!(error(&dir).contains("no config.json") && error(&dir).contains("readme.md"));
        let dir = folder(&[("config.json", "{}"), ("model.gguf", "")]);
        assert!(error(&dir).contains("neither") && error(&dir).contains("model.gguf"));
        let dir = folder(&[("config.json", "{}"), ("pytorch_model.bin", "")]);
        assert!(error(&dir).contains("pickle"), "{}", error(&dir));
        let dir = folder(&[
            ("config.json", "{}"),
            (INDEX, r#"{"weight_map":{"a":"s1","b":"s2"}}"#),
            ("s1", "12345678"),
        ]);
        assert!(error(&dir).contains("1 of the 2 shards") && error(&dir).contains("s2"));
    }

    #[test]
    fn hostile_or_broken_files_are_refused() {
        for (index, expected) in [
            (
                r#"{"weight_map":{"a":"../../etc/passwd"}}"#,
                "no plain file name",
            ),
            (r#"{"weight_map":{"a":7}}"#, "mapped to 7"),
            (r#"{"weight_map":{}}"#, "empty"),
            (r#"{}"#, "weight_map"),
            (r#"[]"#, "no object"),
            (r#"{"#, "not valid JSON"),
        ] {
            let dir = folder(&[("config.json", "{}"), (INDEX, index)]);
            assert!(error(&dir).contains(expected), "{index}: {}", error(&dir));
        }
        let dir = folder(&[("config.json", "{}"), (SINGLE, "")]);
        assert!(error(&dir).contains("0 bytes"), "{}", error(&dir));
    }
}
