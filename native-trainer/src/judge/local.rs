//! A base loaded here as judge, with or without an adapter, greedy.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use qloom_core::evaluation::judge::JudgeRequest;
use qloom_core::generation::{Finish, Generator, SamplingConfig};
use qloom_core::host::block_on;
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::{ChatTemplate, Message, Tokenizer};
use qloom_core::weights::sha256_hex;

use super::Question;
use super::cache::{Cache, Reply};
use crate::base::{BaseFiles, check_vocabulary};
use crate::cli::ModelArguments;
use crate::device;
use crate::files::read;
use crate::progress::Mode;
use crate::progress::interrupt::Interrupt;
use crate::progress::task::{Task, Unit};
use crate::session::{load_adapter, locate_adapter};

/// A model that judges.
pub(crate) struct LocalJudge {
    name: String,
    model: Llama,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    end_ids: Vec<u32>,
    context: usize,
}

impl LocalJudge {
    /// Loads base and adapter. The judge's name holds the hashes of both, so that another model's verdicts are never
    /// taken for its own.
    pub(crate) fn load(arguments: &ModelArguments, device: &str) -> Result<Self> {
        let chosen = device::choose(device)?;
        let dtype = device::compute_type(&arguments.compute, &chosen)?;
        let base = BaseFiles::open(arguments.base.as_deref().unwrap_or_default())?;
        let config = base.llama_config()?;
        let tokenizer = base.tokenizer()?;
        check_vocabulary(&tokenizer, &config, &base.name)?;
        let mut name = format!("{} {}", base.fingerprint()?, arguments.quantization);
        let mut model = base.load(&chosen, &arguments.quantization, true, dtype)?;
        if let Some(folder) = &arguments.adapter {
            model = model.with(&load_adapter(folder, &base, &model)?);
            name = format!("{name} {}", adapter_hash(folder)?);
        }
        let template = tokenizer.chat_template()?;
        Ok(Self {
            name,
            template,
            end_ids: base.end_ids(&config, &tokenizer),
            context: model.rope.len(),
            model,
            tokenizer,
        })
    }

    /// What its replies are kept under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks every question and keeps every reply. Ends early, without an error, where `stop` asks for it.
    ///
    /// # Errors
    /// A question that leaves no room for a reply, naming the pair and the lengths.
    pub(crate) fn ask_all(
        &self,
        questions: &[Question<'_>],
        batch_size: usize,
        cache: &mut Cache,
        stop: &Interrupt,
        mode: Mode,
    ) -> Result<()> {
        let prompts: Vec<Vec<u32>> = questions
            .iter()
            .map(|q| self.prompt(q))
            .collect::<Result<_>>()?;
        let mut bar = Task::start(mode, "judging", questions.len() as u64, Unit::Items);
        let size = batch_size.max(1);
        for (questions, prompts) in questions.chunks(size).zip(prompts.chunks(size)) {
            if stop.requested() {
                break;
            }
            let Some(first) = questions.first() else {
                break;
            };
            let generator = self.generator(first.request);
            let replies = block_on(generator.generate(prompts, 0, |_, _| {}))
                .with_context(|| format!("pair {} and those after it", first.pair))?;
            for (question, reply) in questions.iter().zip(replies) {
                let cut = reply.finish == Finish::Length;
                let reply = Reply {
                    text: reply.text,
                    finish: Some(if cut { "length" } else { "stop" }.to_owned()),
                };
                cache.put(question.key, &self.name, reply)?;
            }
            bar.advance(questions.len() as u64);
        }
        bar.finish();
        Ok(())
    }

    /// Greedy, as long as the request allows.
    fn generator(&self, request: &JudgeRequest) -> Generator<'_> {
        let config = SamplingConfig {
            temperature: 0.0,
            max_new_tokens: longest(request),
            ..SamplingConfig::default()
        };
        Generator::new(&self.model, &self.tokenizer, config, self.end_ids.clone())
    }

    fn prompt(&self, question: &Question<'_>) -> Result<Vec<u32>> {
        let text = self.render(&question.request.messages)?;
        let ids = self.tokenizer.encode_document(&text)?.ids;
        let room = longest(question.request);
        ensure!(
            ids.len() + room <= self.context,
            "pair {}: the question has {} tokens and the reply may have {room}, but this judge's context is {}: shorten the \
             answers, lower --max-tokens, or use a judge with a longer context",
            question.pair,
            ids.len(),
            self.context
        );
        Ok(ids)
    }

    /// The conversation in the base's template; some templates know no system message, and some bases have no template.
    fn render(&self, messages: &[Message]) -> Result<String> {
        let joined = || {
            let parts: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
            parts.join("\n\n")
        };
        let Some(template) = &self.template else {
            return Ok(joined() + "\n\n");
        };
        if let Ok(text) = template.render(messages, true) {
            return Ok(text);
        }
        Ok(template.render(&[Message::new("user", joined())], true)?)
    }
}

/// Longest reply in tokens.
fn longest(request: &JudgeRequest) -> usize {
    request.parameters.max_tokens.unwrap_or(256)
}

fn adapter_hash(adapter: &Path) -> Result<String> {
    let folder = locate_adapter(adapter)?;
    let mut both = read(&folder.join("adapter_config.json"))?;
    both.extend(read(&folder.join("adapter_model.safetensors"))?);
    Ok(sha256_hex(&both))
}
