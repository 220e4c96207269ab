//! Bases, data files and configs that tests write for themselves.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cases::{json, own};

/// The smallest base of this project's goldens: 2 layers, hidden 40, vocabulary 101.
pub fn small_base() -> PathBuf {
    own().join("llama_ragged/base")
}

/// Copies the files of `from` into a new folder `to`.
pub fn copy_base(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        let mut open = std::fs::metadata(to.join(path.file_name().unwrap()))
            .unwrap()
            .permissions();
        #[expect(
            clippy::permissions_set_readonly_false,
            reason = "a temporary copy of a read-only file"
        )]
        open.set_readonly(false);
        std::fs::set_permissions(to.join(path.file_name().unwrap()), open).unwrap();
    }
}

/// Rewrites one JSON file through `change`.
pub fn edit_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = json(path);
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Gives the base in `dir` a tokenizer whose piece `t7` is id 7, with no special tokens added: prompts and answers
/// then *are* token ids, and a command that speaks text can be held against ids.
pub fn add_word_tokenizer(dir: &Path, pieces: usize) {
    let vocab: serde_json::Map<String, Value> =
        (0..pieces).map(|i| (format!("t{i}"), json!(i))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(
        dir.join("tokenizer_config.json"),
        json!({"add_bos_token": false, "add_eos_token": false, "tokenizer_class": "PreTrainedTokenizerFast"})
            .to_string(),
    )
    .unwrap();
}

/// Ids as the word tokenizer's text.
pub fn words(ids: &[i64]) -> String {
    ids.iter()
        .map(|i| format!("t{i}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A base with the word tokenizer and no end-of-sequence token, so that generation runs to its limit.
pub fn talking_base(from: &Path, to: &Path) {
    copy_base(from, to);
    let vocabulary = json(&to.join("config.json"))["vocab_size"]
        .as_u64()
        .unwrap();
    add_word_tokenizer(to, usize::try_from(vocabulary).unwrap());
    edit_json(&to.join("config.json"), |c| {
        let object = c.as_object_mut().unwrap();
        object.remove("eos_token_id");
        object.remove("bos_token_id");
    });
    let _ = std::fs::remove_file(to.join("generation_config.json"));
}

/// Writes `{"input_ids", "labels"}` rows.
pub fn write_tokens(path: &Path, rows: &[(Vec<i64>, Vec<i64>)]) {
    let lines: String = rows
        .iter()
        .map(|(ids, labels)| format!("{}\n", json!({"input_ids": ids, "labels": labels})))
        .collect();
    std::fs::write(path, lines).unwrap();
}

/// Rows of 4 to 17 tokens below `vocabulary`, the first two of each untrained: the same for the same `count`.
pub fn token_rows(count: usize, vocabulary: i64) -> Vec<(Vec<i64>, Vec<i64>)> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut draw = |below: i64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        3 + i64::try_from(state >> 33).unwrap() % (below - 3)
    };
    (0..count)
        .map(|_| {
            let length = draw(17) + 1;
            let ids: Vec<i64> = (0..length).map(|_| draw(vocabulary)).collect();
            let labels = ids
                .iter()
                .enumerate()
                .map(|(t, id)| if t < 2 { -100 } else { *id })
                .collect();
            (ids, labels)
        })
        .collect()
}

/// A run's config file, built key by key; values are TOML.
#[derive(Clone, Debug, Default)]
pub struct Config(Vec<(String, String, String)>);

impl Config {
    /// f32, no quantization, `tokens` data in file order, on a base: what parity needs.
    pub fn exact(base: &Path, train: &Path, out: &Path) -> Self {
        Self::default()
            .path("model", "base", base)
            .set("model", "quantization", "\"none\"")
            .set("model", "compute", "\"f32\"")
            .path("data", "train", train)
            .set("data", "format", "\"tokens\"")
            .set("data", "shuffle", "false")
            .set("data", "max_length", "64")
            .path("output", "dir", out)
            .set("output", "formats", "[]")
    }

    /// Sets `key` of `[table]`, replacing an earlier value.
    pub fn set(mut self, table: &str, key: &str, value: &str) -> Self {
        self.0
            .retain(|(t, k, _)| (t.as_str(), k.as_str()) != (table, key));
        self.0.push((table.into(), key.into(), value.into()));
        self
    }

    /// Sets a path or other text.
    pub fn path(self, table: &str, key: &str, value: &Path) -> Self {
        let quoted = json!(value.to_string_lossy()).to_string();
        self.set(table, key, &quoted)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) {
        let mut tables: Vec<&str> = self.0.iter().map(|(t, _, _)| t.as_str()).collect();
        tables.sort_unstable();
        tables.dedup();
        let mut text = String::new();
        for table in tables {
            text += &format!("[{table}]\n");
            for (_, key, value) in self.0.iter().filter(|(t, _, _)| t == table) {
                text += &format!("{key} = {value}\n");
            }
        }
        std::fs::write(path, text).unwrap();
    }
}

/// The optimizer-step rows of a run's `log.jsonl` (evaluation rows left out).
pub fn steps(run: &Path) -> Vec<Value> {
    let path = run.join("log.jsonl");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .filter(|row| row.get("loss").is_some())
        .collect()
}

/// A number of a log row.
pub fn number(row: &Value, key: &str) -> f64 {
    row[key]
        .as_f64()
        .unwrap_or_else(|| panic!("no number `{key}` in {row}"))
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
