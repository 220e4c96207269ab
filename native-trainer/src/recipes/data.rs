//! Where a recipe's data come from: generated, a file, or a folder in a published layout; written out as the rows that
//! are used, so that what was trained on can be looked at.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qloom_core::data::{DataConfig, DataError, Encoder, Row, Share, Task, Truncation, sample_rows};
use qloom_core::models::Architecture;
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Table;

use crate::base::BaseFiles;
use crate::commands::columns;
use crate::config::{self, RunConfig};
use crate::corpus::{self, Instruction, Split};
use crate::files::atomic;
use crate::runs::planned::folder_name;
use crate::session::{read_all, read_one};

use super::kitchen::Order;

/// Seeds what is generated and which rows are taken.
const SEED: u64 = 1;

/// The `[recipe.data]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// What `--small` generates where there is no `--data`: `sentiment`, `dolly` or `alpaca` rows.
    pub(crate) generate: Generate,
    /// Training and held-out rows generated, or at `--small` taken out of `--data`.
    pub(crate) rows: [usize; 2],
    /// What a folder given as `--data` holds.
    #[serde(default)]
    pub(crate) layout: Layout,
    /// The column whose values a step trains one by one.
    pub(crate) category: Option<String>,
}

/// Kinds of generated rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Generate {
    /// `text`, `label`.
    Sentiment,
    /// `instruction`, `context`, `response`, `category`.
    Dolly,
    /// `instruction`, `input`, `output`.
    Alpaca,
}

/// Published layouts of folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// No folder: `--data` is a file.
    #[default]
    File,
    /// `train_text.txt` with `train_labels.txt`, and `test_...` the same.
    TweetEval,
    /// `train.tsv`, `test.tsv` of text and label without a header.
    Sst2,
}

impl Layout {
    /// What the numbers stand for that a folder in this layout has for labels.
    fn label_names(self) -> &'static [&'static str] {
        match self {
            Self::File => &[],
            Self::TweetEval => &["negative", "neutral", "positive"],
            Self::Sst2 => &["negative", "positive"],
        }
    }
}

/// What a recipe trains and scores on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    /// Held-out rows, where they are a file of their own.
    pub(crate) eval: Option<PathBuf>,
    /// Category and its training rows.
    pub(crate) categories: Vec<(String, PathBuf)>,
    /// Rows left out because they are too long for the runs or the base.
    pub(crate) too_long: usize,
}

/// Writes the rows below `out` and points `table` to them. Rows that are too long are left out first; where a step
/// generates answers, also those whose prompt leaves the base no room for `answer` tokens.
pub(crate) fn prepare(
    source: &Source,
    table: &mut Table,
    order: &Order,
    answer: Option<usize>,
    out: &Path,
) -> Result<Prepared> {
    let folder = out.join("data");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let settings = config::from_table(table.clone(), "the recipe")?.data;
    let rows = |files: &[String]| Ok::<_, anyhow::Error>(read_all(files, &settings)?.rows);
    let given = match order.data.as_deref() {
        Some(data) if Path::new(data).exists() => {
            let data = Path::new(data);
            if data.is_dir() {
                name_labels(table, source.layout, &order.set)?;
            }
            Some(read(source, data, &settings, &folder)?)
        }
        Some(hub) => Some((rows(&[hub.to_owned()])?, Vec::new())),
        None if order.small => None,
        None => {
            let both = || Ok::<_, anyhow::Error>((rows(&settings.train)?, rows(&settings.eval)?));
            Some(both().context(
                "the recipe's own data; --data takes a file of yours instead, and --small without --data generates some",
            )?)
        }
    };
    let mut too_long = 0;
    let (train, eval) = match given {
        None => generated(source)?,
        Some((mut train, mut eval)) => {
            keep_own_names(table, &train)?;
            let run = config::from_table(table.clone(), "the recipe")?;
            for rows in [&mut train, &mut eval] {
                too_long += keep_usable(rows, &run, answer)?;
            }
            choose(source, train, eval, order.small, &run.data)?
        }
    };
    let mut prepared = Prepared {
        too_long,
        ..Prepared::default()
    };
    let path = folder.join("train.jsonl");
    write(&path, &train)?;
    config::set(table, "data.train", Some(path.display().to_string().into()))?;
    config::set(table, "data.columns", None)?;
    if !eval.is_empty() {
        let path = folder.join("eval.jsonl");
        write(&path, &eval)?;
        config::set(table, "data.eval", Some(path.display().to_string().into()))?;
        config::set(table, "data.split", None)?;
        prepared.eval = Some(path);
    }
    if let Some(column) = &source.category {
        prepared.categories = by_category(&train, column, &folder)?;
    }
    Ok(prepared)
}

type Record = Map<String, Value>;

/// Calls the classes what the layout's numbers mean, unless the user does.
fn name_labels(table: &mut Table, layout: Layout, set: &[String]) -> Result<()> {
    let names = layout.label_names();
    let own = |item: &String| item.trim_start().starts_with("data.label_names");
    if names.is_empty() || set.iter().any(own) {
        return Ok(());
    }
    let names = names.iter().map(|name| (*name).into()).collect();
    config::set(table, "data.label_names", Some(toml::Value::Array(names)))
}

/// A recipe names the columns of its own data set. Rows that lack such a column and have one of the field's own name
/// are taken as they are.
fn keep_own_names(table: &mut Table, rows: &[Row]) -> Result<()> {
    let Some(fields) = table.get("data").and_then(|data| data.get("fields")) else {
        return Ok(());
    };
    let has = |name: &str| rows.iter().any(|row| row.record.contains_key(name));
    let fields = fields.as_table().cloned().unwrap_or_default();
    for (field, column) in fields {
        if column.as_str().is_some_and(|column| !has(column)) && has(&field) {
            config::set(table, &format!("data.fields.{field}"), None)?;
        }
    }
    Ok(())
}

/// Leaves out rows that the runs could not use, before any are chosen, so that a run of 600 rows trains 600: rows over
/// `data.max_length` where those are dropped, and rows whose prompt and an answer of `answer` tokens exceed the base's
/// positions. Returns how many.
fn keep_usable(rows: &mut Vec<Row>, run: &RunConfig, answer: Option<usize>) -> Result<usize> {
    let drops = run.data.truncation == Truncation::Drop;
    if rows.is_empty() || !drops && answer.is_none() {
        return Ok(0);
    }
    let base = BaseFiles::open(&run.model.base)?;
    let Architecture::Llama(llama) = base.architecture()? else {
        return Ok(0);
    };
    let context = llama.max_position_embeddings;
    let tokenizer = base.tokenizer_for(&run.data)?;
    let encoder = Encoder::new(&run.data, rows, &tokenizer, Task::Causal, context)?;
    let mut fits = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        let answerable = match answer {
            Some(answer) => encoder.formatter().prompt(row)?.ids.len() + answer <= context,
            None => true,
        };
        fits.push(answerable && (!drops || trains(&encoder, row)?));
    }
    let before = rows.len();
    let mut fits = fits.into_iter();
    rows.retain(|_| fits.next().unwrap_or(false));
    Ok(before - rows.len())
}

/// Whether a row is short enough to be trained, and holds anything to train.
fn trains(encoder: &Encoder<'_>, row: &Row) -> Result<bool> {
    match encoder.encode(std::slice::from_ref(row), 0, "a row", &mut |_| {}) {
        Err(DataError::NothingTrained { .. }) => Ok(false),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(true),
    }
}

/// Training and held-out rows of `--data`; the second is empty for a single file.
fn read(
    source: &Source,
    data: &Path,
    settings: &DataConfig,
    folder: &Path,
) -> Result<(Vec<Row>, Vec<Row>)> {
    let rows = |path: &Path, settings: &DataConfig| Ok(read_one(path, settings)?.rows);
    if data.is_file() {
        return Ok((rows(data, settings)?, Vec::new()));
    }
    match source.layout {
        Layout::File => anyhow::bail!(
            "--data {}: this recipe takes a file or a hub data set, not a folder",
            data.display()
        ),
        Layout::TweetEval => {
            let pair = |split: &str| -> Result<Vec<Row>> {
                let [text, label] =
                    ["text", "labels"].map(|part| data.join(format!("{split}_{part}.txt")));
                let out = folder.join(format!("{split}_pairs.jsonl"));
                columns::pair(&[("text", &text), ("label", &label)], &out)?;
                rows(&out, settings)
            };
            Ok((pair("train")?, pair("test")?))
        }
        Layout::Sst2 => {
            let named = DataConfig {
                columns: Some(vec!["text".into(), "label".into()]),
                ..settings.clone()
            };
            Ok((
                rows(&data.join("train.tsv"), &named)?,
                rows(&data.join("test.tsv"), &named)?,
            ))
        }
    }
}

/// At `--small` a part of the rows. Rows without a held-out part give one up: of the size `data.split` names, or, at
/// `--small`, the recipe's; in the categories' shares where there are any.
fn choose(
    source: &Source,
    train: Vec<Row>,
    eval: Vec<Row>,
    small: bool,
    settings: &DataConfig,
) -> Result<(Vec<Record>, Vec<Record>)> {
    let [train_rows, eval_rows] = source.rows;
    let by = source.category.as_deref();
    let (train, eval) = match (eval.is_empty(), &settings.split) {
        (true, Some(share)) if !small => {
            let count = share.resolve(train.len(), "split")?;
            let (held, rest) = split(train, count, by)?;
            (rest, held)
        }
        (true, _) => {
            let (held, rest) = split(train, eval_rows, by)?;
            (rest, held)
        }
        (false, _) if small => (train, split(eval, eval_rows, None)?.0),
        (false, _) => (train, eval),
    };
    let train = if small {
        split(train, train_rows, by)?.0
    } else {
        train
    };
    Ok((records(train), records(eval)))
}

/// `count` rows (all but one, where there are no more) and the others.
fn split(rows: Vec<Row>, count: usize, by: Option<&str>) -> Result<(Vec<Row>, Vec<Row>)> {
    ensure!(
        rows.len() > 1,
        "--data holds {} rows; a recipe needs more",
        rows.len()
    );
    let share = Share {
        count: Some(count.min(rows.len() - 1)),
        fraction: None,
        stratify_by: by.map(str::to_owned),
    };
    let taken = sample_rows(&rows, &share, SEED, "rows")?;
    let mut chosen = Vec::with_capacity(taken.len());
    let mut rest = Vec::with_capacity(rows.len() - taken.len());
    let mut next = taken.into_iter().peekable();
    for (index, row) in rows.into_iter().enumerate() {
        match next.next_if_eq(&index) {
            Some(_) => chosen.push(row),
            None => rest.push(row),
        }
    }
    Ok((chosen, rest))
}

fn records(rows: Vec<Row>) -> Vec<Record> {
    rows.into_iter().map(|row| row.record).collect()
}

fn generated(source: &Source) -> Result<(Vec<Record>, Vec<Record>)> {
    let [train, eval] = source.rows;
    let make = |split, count| -> Result<Vec<Record>> {
        let bytes = match source.generate {
            Generate::Sentiment => corpus::jsonl(&corpus::sentiment(SEED, split, count)?)?,
            Generate::Dolly => corpus::jsonl(&corpus::instructions(SEED, split, count)?)?,
            Generate::Alpaca => corpus::jsonl(&alpaca(corpus::instructions(SEED, split, count)?))?,
        };
        let rows = serde_json::Deserializer::from_slice(&bytes).into_iter();
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    };
    Ok((make(Split::Train, train)?, make(Split::HeldOut, eval)?))
}

/// Instructions under Alpaca's field names.
fn alpaca(rows: Vec<Instruction>) -> Vec<Value> {
    rows.into_iter()
        .map(|row| {
            serde_json::json!({
                "instruction": row.instruction, "input": row.context.unwrap_or_default(), "output": row.response,
            })
        })
        .collect()
}

/// One file per value of `column`, by falling number of rows.
fn by_category(rows: &[Record], column: &str, folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found: Vec<(String, Vec<Record>)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let name = row.get(column).and_then(Value::as_str).with_context(|| {
            format!(
                "row {} has no text in its column {column:?}, which names its category",
                index + 1
            )
        })?;
        match found.iter_mut().find(|(known, _)| known == name) {
            Some((_, members)) => members.push(row.clone()),
            None => found.push((name.to_owned(), vec![row.clone()])),
        }
    }
    ensure!(
        found.len() > 1,
        "the column {column:?} holds one category only; a recipe that merges categories needs several"
    );
    found.sort_by(|(a, x), (b, y)| y.len().cmp(&x.len()).then(a.cmp(b)));
    found
        .into_iter()
        .map(|(name, members)| {
            let path = folder.join(format!("category_{}.jsonl", folder_name(&name)));
            write(&path, &members)?;
            Ok((name, path))
        })
        .collect()
}

fn write(path: &Path, rows: &[Record]) -> Result<()> {
    atomic::write_file(path, &corpus::jsonl(rows)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn source(generate: Generate) -> Source {
        Source {
            generate,
            rows: [40, 12],
            layout: Layout::TweetEval,
            category: None,
        }
    }

    fn small(data: Option<String>) -> Order {
        Order {
            small: true,
            data,
            ..Order::default()
        }
    }

    #[test]
    fn a_layout_brings_its_own_columns_and_labels() {
        let dir = tempfile::tempdir().unwrap();
        for split in ["train", "test"] {
            let rows: String = (0..60).map(|i| format!("text {i}\t{}\n", i % 2)).collect();
            std::fs::write(dir.path().join(format!("{split}.tsv")), rows).unwrap();
        }
        let out = tempfile::tempdir().unwrap();
        let recipe: Table = toml::from_str(
            "[data]\nformat = \"classification\"\nfields = { text = \"sentence\" }\nlabel_names = [\"a\", \"b\", \"c\"]",
        )
        .unwrap();
        let source = Source {
            layout: Layout::Sst2,
            ..source(Generate::Sentiment)
        };
        let mut order = small(Some(dir.path().display().to_string()));
        let prepared = |order: &Order| {
            let mut table = recipe.clone();
            prepare(&source, &mut table, order, None, out.path()).unwrap();
            config::from_table(table, "t").unwrap().data
        };
        let data = prepared(&order);
        assert!(data.fields.is_empty(), "{:?}", data.fields);
        let names = |data: &DataConfig| serde_json::to_value(&data.label_names).unwrap();
        assert_eq!(names(&data), serde_json::json!(["negative", "positive"]));
        order.set = vec!["data.label_names=[\"x\", \"y\"]".to_owned()];
        assert_eq!(
            names(&prepared(&order)),
            serde_json::json!(["a", "b", "c"]),
            "what the user set, which lies in the table already"
        );
    }

    #[test]
    fn a_column_that_is_there_keeps_its_name() {
        let row = |name: &str| Row {
            record: std::iter::once((name.to_owned(), Value::from("x"))).collect(),
            source: qloom_core::data::SourceLine {
                file: "f".into(),
                line: 1,
            },
        };
        for (column, kept) in [("sentence", true), ("text", false), ("review", true)] {
            let mut table: Table =
                toml::from_str("[data]\nfields = { text = \"sentence\" }").unwrap();
            keep_own_names(&mut table, &[row(column)]).unwrap();
            let fields = table["data"]["fields"].as_table().unwrap();
            assert_eq!(fields.contains_key("text"), kept, "{column}");
        }
    }

    #[test]
    fn generated_rows_have_the_fields_of_their_format() {
        for (kind, field) in [
            (Generate::Sentiment, "label"),
            (Generate::Dolly, "category"),
            (Generate::Alpaca, "output"),
        ] {
            let (train, eval) = generated(&source(kind)).unwrap();
            assert_eq!((train.len(), eval.len()), (40, 12));
            assert!(
                train.iter().chain(&eval).all(|row| row.contains_key(field)),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_tweet_eval_folder_is_read_and_cut_down() {
        let dir = tempfile::tempdir().unwrap();
        for (split, rows) in [("train", 90), ("test", 30)] {
            let lines = |make: &dyn Fn(usize) -> String| {
                (0..rows).map(|i| make(i) + "\n").collect::<String>()
            };
            std::fs::write(
                dir.path().join(format!("{split}_text.txt")),
                lines(&|i| format!("{split} {i}")),
            )
            .unwrap();
            std::fs::write(
                dir.path().join(format!("{split}_labels.txt")),
                lines(&|i| (i % 3).to_string()),
            )
            .unwrap();
        }
        let out = tempfile::tempdir().unwrap();
        let mut table = Table::new();
        let data = dir.path().display().to_string();
        let prepared = prepare(
            &source(Generate::Sentiment),
            &mut table,
            &small(Some(data)),
            None,
            out.path(),
        )
        .unwrap();
        let count = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!(count(&out.path().join("data/train.jsonl")), 40);
        assert_eq!(count(&prepared.eval.unwrap()), 12);
        let data = table["data"].as_table().unwrap();
        assert!(data["train"].as_str().unwrap().ends_with("train.jsonl"));
    }

    #[test]
    fn categories_become_files_and_share_no_row_with_what_is_held_out() {
        let mut source = source(Generate::Dolly);
        source.category = Some("category".into());
        let out = tempfile::tempdir().unwrap();
        let mut table = Table::new();
        let prepared = prepare(&source, &mut table, &small(None), None, out.path()).unwrap();
        assert_eq!(prepared.categories.len(), 6);
        let rows: usize = prepared
            .categories
            .iter()
            .map(|(_, path)| std::fs::read_to_string(path).unwrap().lines().count())
            .sum();
        assert_eq!(rows, 40);
    }
}
