//! `cache.jsonl`: every reply a judge gave, under the hash of its question. Only ever appended to.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::files::jsonl::{JsonlWriter, read_rows};
use crate::files::{explain, run_dir};

/// The file's name in the judging's folder.
const FILE: &str = "cache.jsonl";

/// What a judge wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The text; empty where the judge declined.
    pub(crate) text: String,
    /// Why it ended: `stop`, `length`, `content_filter`, where it was said.
    pub(crate) finish: Option<String>,
}

impl Reply {
    /// Whether the reply broke off at its length limit.
    pub(crate) fn is_cut(&self) -> bool {
        self.finish.as_deref() == Some("length")
    }
}

/// The replies so far, and the file they go to.
#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    replies: HashMap<String, Reply>,
    file: JsonlWriter,
    _lock: File,
}

impl Cache {
    /// Opens the cache in `folder`, which is made when missing. A line torn by a crash is dropped.
    ///
    /// # Errors
    /// Another program writes there; a line in the middle is no reply.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| explain(e, "create the folder", folder))?;
        let lock = run_dir::lock(folder, "--out DIR")?;
        let path = folder.join(FILE);
        // Rows have no step, so all of them are kept; what a crash tore off is cut away.
        let file = JsonlWriter::resume(&path, u64::MAX)?;
        let mut replies = HashMap::new();
        for (index, row) in read_rows(&path)?.iter().enumerate() {
            let (key, reply) = parse(row).with_context(|| {
                format!(
                    "{} line {} is no reply of a judge (expected key and reply): delete that line",
                    path.display(),
                    index + 1
                )
            })?;
            replies.insert(key, reply);
        }
        Ok(Self {
            path,
            replies,
            file,
            _lock: lock,
        })
    }

    /// The reply to a question.
    pub(crate) fn get(&self, key: &str) -> Option<&Reply> {
        self.replies.get(key)
    }

    /// Keeps a reply, in the file first.
    pub(crate) fn put(&mut self, key: &str, model: &str, reply: Reply) -> Result<()> {
        let row =
            json!({ "key": key, "model": model, "reply": reply.text, "finish": reply.finish });
        if let Value::Object(row) = row {
            self.file.append(&row)?;
        }
        self.replies.insert(key.to_owned(), reply);
        Ok(())
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn parse(row: &Map<String, Value>) -> Option<(String, Reply)> {
    let reply = Reply {
        text: row.get("reply")?.as_str()?.to_owned(),
        finish: row.get("finish").and_then(Value::as_str).map(str::to_owned),
    };
    Some((row.get("key")?.as_str()?.to_owned(), reply))
}
