//! `trainer generate`.

use anyhow::{Context, Result};
use qloom_core::data::{DataConfig, Encoder, Task};
use qloom_core::generation::{Generated, Generator, SamplingConfig};
use qloom_core::host::block_on;
use qloom_core::models::Architecture;
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::{Message, Tokenizer};
use serde_json::{Value, json};

use super::eval::parse_format;
use super::{Common, UsageError, classify};
use crate::base::{BaseFiles, check_vocabulary};
use crate::cli::{GenerateArguments, SamplingArguments};
use crate::device;
use crate::files::atomic;
use crate::progress::{Mode, task};
use crate::report::scores::Sample;
use crate::report::table;
use crate::session::{load_adapter, read_one};

/// A prompt as text and as ids, with what the data says should follow.
struct Prompt {
    text: String,
    /// Without the markup of a chat template.
    question: String,
    ids: Vec<u32>,
    reference: Option<String>,
}

/// Answers every prompt with the base, and with the adapter where there is one.
pub(super) fn run(common: &Common, arguments: GenerateArguments) -> Result<()> {
    let sampling = sampling(&arguments.sampling)?;
    let base = BaseFiles::open(arguments.model.base.as_deref().unwrap_or_default())?;
    if let Architecture::Bert(bert) = base.architecture()? {
        return classify::predict(common, &arguments, &base, &bert);
    }
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type(&arguments.model.compute, &chosen)?;
    let config = base.llama_config()?;
    let tokenizer = base.tokenizer()?;
    check_vocabulary(&tokenizer, &config, &base.name)?;
    let prompts = prompts(&arguments, &tokenizer, config.max_position_embeddings)?;
    let model = base.load(&chosen, &arguments.model.quantization, true, dtype)?;
    let adapted = match &arguments.model.adapter {
        Some(folder) => Some(model.with(&load_adapter(folder, &base, &model)?)),
        None => None,
    };
    let ends = match arguments.sampling.ignore_eos {
        true => Vec::new(),
        false => base.end_ids(&config, &tokenizer),
    };
    let answers = |model: &Llama, label: &str| -> Result<Vec<Generated>> {
        let generator = Generator::new(model, &tokenizer, sampling.clone(), ends.clone());
        let mut bar = task::Task::start(
            Mode::detect(false),
            label,
            prompts.len() as u64,
            task::Unit::Items,
        );
        let mut all = Vec::with_capacity(prompts.len());
        for chunk in prompts.chunks(arguments.batch_size.max(1)) {
            let ids: Vec<Vec<u32>> = chunk.iter().map(|p| p.ids.clone()).collect();
            let first = all.len() as u64;
            all.extend(block_on(generator.generate(&ids, first, |_, _| {}))?);
            bar.advance(chunk.len() as u64);
        }
        bar.finish();
        Ok(all)
    };
    let base_answers = match arguments.no_base {
        true => None,
        false => Some(answers(&model, "base")?),
    };
    let adapted_answers = adapted
        .as_ref()
        .map(|model| answers(model, "adapted"))
        .transpose()?;
    let rows: Vec<Value> = prompts
        .iter()
        .enumerate()
        .map(|(i, prompt)| {
            let of = |all: &Option<Vec<Generated>>| all.as_ref().map(|all| all[i].clone());
            let (base, adapted) = (of(&base_answers), of(&adapted_answers));
            json!({
                "prompt": prompt.text,
                "question": prompt.question,
                "reference": prompt.reference,
                "base": base.as_ref().map(|a| &a.text),
                "adapted": adapted.as_ref().map(|a| &a.text),
                "base_ids": base.as_ref().map(|a| &a.ids),
                "adapted_ids": adapted.as_ref().map(|a| &a.ids),
            })
        })
        .collect();
    if let Some(out) = &arguments.out {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        atomic::write_file(out, lines.as_bytes())?;
        eprintln!("{} rows in {}", rows.len(), out.display());
    }
    if common.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else if let (Some(base), Some(adapted)) = (&base_answers, &adapted_answers) {
        let samples: Vec<Sample> = prompts
            .iter()
            .zip(base.iter().zip(adapted))
            .map(|(prompt, (base, adapted))| Sample {
                task: "generate".into(),
                prompt: prompt.text.clone(),
                reference: prompt.reference.clone(),
                base: base.text.clone(),
                adapted: adapted.text.clone(),
                probabilities: None,
            })
            .collect();
        println!("{}", table::samples(&samples, table::Look::stdout()));
    } else if arguments.out.is_none() {
        let answers = base_answers.iter().chain(&adapted_answers).flatten();
        answers.for_each(|answer| println!("{}", table::for_terminal(&answer.text)));
    }
    Ok(())
}

/// Checked sampling settings from flags.
pub(super) fn sampling(flags: &SamplingArguments) -> Result<SamplingConfig> {
    const LONGEST: usize = 1 << 20;
    if flags.max_new_tokens > LONGEST {
        return Err(UsageError::new(format!(
            "--max-new-tokens {}: expected at most {LONGEST}",
            flags.max_new_tokens
        ))
        .into());
    }
    let config = SamplingConfig {
        max_new_tokens: flags.max_new_tokens,
        temperature: flags.temperature,
        top_k: flags.top_k,
        top_p: flags.top_p,
        min_p: flags.min_p,
        repetition_penalty: flags.repetition_penalty,
        seed: flags.seed,
        stop: flags.stop.clone(),
    };
    config
        .validate()
        .map_err(|error| UsageError::new(error.to_string()))?;
    Ok(config)
}

fn prompts(
    arguments: &GenerateArguments,
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Vec<Prompt>> {
    if let Some(path) = &arguments.data {
        let config = DataConfig {
            format: arguments.format.as_deref().map(parse_format).transpose()?,
            system: arguments.system.clone(),
            ..DataConfig::default()
        };
        let rows = read_one(path, &config)?.rows;
        let encoder = Encoder::new(&config, &rows, tokenizer, Task::Causal, context)?;
        return rows
            .iter()
            .map(|row| {
                let prompt = encoder.formatter().prompt(row)?;
                Ok(Prompt {
                    text: prompt.text,
                    question: prompt.question,
                    ids: prompt.ids,
                    reference: Some(prompt.reference),
                })
            })
            .collect();
    }
    if arguments.prompt.is_empty() {
        return Err(UsageError::new(
            "trainer generate needs --prompt or --data (see trainer generate --help)",
        )
        .into());
    }
    let template = if arguments.raw {
        None
    } else {
        tokenizer.chat_template()?
    };
    arguments
        .prompt
        .iter()
        .map(|prompt| {
            let mut messages: Vec<Message> = arguments
                .system
                .iter()
                .map(|s| Message::new("system", s))
                .collect();
            messages.push(Message::new("user", prompt));
            let text = match &template {
                Some(template) => template.render(&messages, true).context("chat template")?,
                None => prompt.clone(),
            };
            let ids = tokenizer.encode_document(&text)?.ids;
            Ok(Prompt {
                text: prompt.clone(),
                question: prompt.clone(),
                ids,
                reference: None,
            })
        })
        .collect()
}
