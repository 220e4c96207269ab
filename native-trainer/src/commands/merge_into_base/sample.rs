//! What the merged and the unmerged model are compared on.

use anyhow::{Result, ensure};
use qloom_core::data::{
    DataConfig, Encoder, Example, Format, IGNORE, Record, Row, SourceLine, Task,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::base::{BaseFiles, check_vocabulary};
use crate::cli::MergeIntoBaseArguments;
use crate::commands::eval::parse_format;
use crate::corpus::{self, Kind, Split};
use crate::session::Data;

/// Texts generated where no data are given; half stories, half pages of questions.
pub(super) const GENERATED: usize = 32;
/// Examples and tokens of each where the base has no tokenizer either.
pub(super) const RANDOM: [usize; 2] = [16, 48];
/// Seeds both.
pub(super) const SEED: u64 = 1;

/// Examples, and what to call them.
pub(super) struct Sample {
    pub(super) examples: Vec<Example>,
    pub(super) description: String,
    /// Pads batches.
    pub(super) pad_id: u32,
}

/// The data the user named, or a generated sample.
pub(super) fn load(arguments: &MergeIntoBaseArguments, base: &BaseFiles) -> Result<Sample> {
    let llama = base.llama_config()?;
    let context = llama.max_position_embeddings;
    let mut config = DataConfig {
        max_length: arguments.max_length,
        shuffle: false,
        ..DataConfig::default()
    };
    if let Some(path) = &arguments.data {
        config.train = vec![path.display().to_string()];
        config.format = arguments.format.as_deref().map(parse_format).transpose()?;
        let tokenizer = base.tokenizer_for(&config)?;
        check_vocabulary(&tokenizer, &llama, &base.name)?;
        let mut examples = Data::load(&config, &tokenizer, context)?.train;
        examples.truncate(arguments.examples);
        ensure!(
            examples.iter().any(|e| e.target_tokens() > 0),
            "{}: no token to compare on; check --format and --max-length",
            path.display()
        );
        return Ok(Sample {
            examples,
            description: path.display().to_string(),
            pad_id: tokenizer.pad_id(),
        });
    }
    let Ok(tokenizer) = base.tokenizer() else {
        return Ok(random(llama.vocab_size, context));
    };
    check_vocabulary(&tokenizer, &llama, &base.name)?;
    config.format = Some(Format::Text);
    let rows = generated()?;
    let encoder = Encoder::new(&config, &rows, &tokenizer, Task::Causal, context)?;
    let encoded = encoder.encode(&rows, 0, "the generated sample", &mut |_| {})?;
    let mut examples = encoded.examples;
    examples.truncate(arguments.examples);
    Ok(Sample {
        examples,
        description: "generated text".to_owned(),
        pad_id: tokenizer.pad_id(),
    })
}

fn generated() -> Result<Vec<Row>> {
    let mut texts = corpus::generate(SEED, Kind::Story, Split::HeldOut, GENERATED / 2)?;
    texts.extend(corpus::generate(
        SEED,
        Kind::Question,
        Split::HeldOut,
        GENERATED / 2,
    )?);
    let row = |(line, document): (usize, corpus::Document)| Row {
        record: Record::from_iter([("text".to_owned(), document.text.into())]),
        source: SourceLine {
            file: "generated text".to_owned(),
            line: line + 1,
        },
    };
    Ok(texts.into_iter().enumerate().map(row).collect())
}

/// Rows of `length` random ids.
pub(super) fn random_ids(vocabulary: usize, length: usize) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut row = || {
        (0..length)
            .map(|_| (rng.next_u64() % vocabulary as u64) as u32)
            .collect()
    };
    (0..RANDOM[0]).map(|_| row()).collect()
}

/// Random token ids: they say little about text, but as much about the difference of two sets of weights.
fn random(vocabulary: usize, context: usize) -> Sample {
    let examples = random_ids(vocabulary, RANDOM[1].min(context))
        .into_iter()
        .enumerate()
        .map(|(line, input_ids)| {
            let mut labels: Vec<i32> = input_ids.iter().map(|id| *id as i32).collect();
            labels[..1].fill(IGNORE);
            Example {
                labels,
                input_ids,
                token_type_ids: Vec::new(),
                source: SourceLine {
                    file: "random token ids".to_owned(),
                    line: line + 1,
                },
                class: None,
                truncated: false,
            }
        })
        .collect();
    Sample {
        examples,
        description: "random token ids (the base has no tokenizer)".to_owned(),
        pad_id: 0,
    }
}
