//! `trainer chat`: one base, any number of adapters, switched between turns.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use qloom_core::generation::{Generator, SamplingConfig};
use qloom_core::host::block_on;
use qloom_core::models::llama::Llama;
use qloom_core::tokenizer::{Message, Tokenizer};

use super::Common;
use super::generate::sampling;
use crate::base::{BaseFiles, check_vocabulary};
use crate::cli::ChatArguments;
use crate::device;
use crate::report::table;
use crate::session::load_adapter;

const HELP: &str = "/adapter NAME  answer with an adapter    /base  answer with the base\n\
                    /compare TEXT  answer with all of them   /reset  forget the conversation    /quit";

struct Chat {
    models: Vec<(String, Llama)>,
    active: usize,
    tokenizer: Tokenizer,
    sampling: SamplingConfig,
    ends: Vec<u32>,
    history: Vec<Message>,
    system: Option<String>,
}

/// Reads lines from stdin until `/quit` or its end.
pub(super) fn run(common: &Common, arguments: ChatArguments) -> Result<()> {
    let sampling = sampling(&arguments.sampling)?;
    let chosen = device::choose(&common.device)?;
    let dtype = device::compute_type("auto", &chosen)?;
    let base = BaseFiles::open(arguments.base.as_deref().unwrap_or_default())?;
    let config = base.llama_config()?;
    let tokenizer = base.tokenizer()?;
    check_vocabulary(&tokenizer, &config, &base.name)?;
    let model = base.load(&chosen, "auto", true, dtype)?;
    let mut models = vec![("base".to_owned(), model.clone())];
    for folder in &arguments.adapter {
        models.push((
            free_name(adapter_name(folder), &models),
            model.with(&load_adapter(folder, &base, &model)?),
        ));
    }
    let ends = match arguments.sampling.ignore_eos {
        true => Vec::new(),
        false => base.end_ids(&config, &tokenizer),
    };
    let active = models.len() - 1;
    let mut chat = Chat {
        models,
        active,
        tokenizer,
        sampling,
        ends,
        history: Vec::new(),
        system: arguments.system,
    };
    eprintln!("{HELP}\nanswering: {}", chat.names());
    chat.reset();
    let mut line = String::new();
    loop {
        eprint!("{}> ", chat.models[chat.active].0);
        line.clear();
        if std::io::stdin()
            .lock()
            .read_line(&mut line)
            .context("reading stdin")?
            == 0
        {
            return Ok(());
        }
        match chat.turn(line.trim()) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => eprintln!("error: {error:#}"),
        }
    }
}

/// `runs/a/adapter` is called `a`, any other folder by its own name.
pub(super) fn adapter_name(folder: &std::path::Path) -> String {
    let own = folder.file_name().filter(|name| *name != "adapter");
    let name = own.or_else(|| folder.parent().and_then(|parent| parent.file_name()));
    name.map_or_else(
        || "adapter".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// `name`, numbered where a model is called so already.
fn free_name<M>(name: String, models: &[(String, M)]) -> String {
    let taken = |name: &str| models.iter().any(|(known, _)| known == name);
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or(name)
}

impl Chat {
    fn names(&self) -> String {
        let mark = |(i, (name, _)): (usize, &(String, Llama))| {
            if i == self.active {
                format!("[{name}]")
            } else {
                name.clone()
            }
        };
        self.models
            .iter()
            .enumerate()
            .map(mark)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn reset(&mut self) {
        self.history = self
            .system
            .iter()
            .map(|text| Message::new("system", text))
            .collect();
    }

    /// Handles one line; false ends the chat.
    fn turn(&mut self, line: &str) -> Result<bool> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "" => {}
            "/quit" | "/exit" => return Ok(false),
            "/reset" => self.reset(),
            "/base" => self.active = 0,
            "/adapter" => match self.models.iter().position(|(name, _)| name == rest) {
                Some(index) => self.active = index,
                None => bail!("no adapter {rest:?}; there is {}", self.names()),
            },
            "/compare" => {
                for index in 0..self.models.len() {
                    println!("--- {}", self.models[index].0);
                    self.answer(index, rest)?;
                }
            }
            _ if command.starts_with('/') => eprintln!("{HELP}"),
            _ => {
                let answer = self.answer(self.active, line)?;
                self.history.push(Message::new("user", line));
                self.history.push(Message::new("assistant", answer));
            }
        }
        Ok(true)
    }

    /// Streams one answer to stdout.
    fn answer(&self, index: usize, text: &str) -> Result<String> {
        let mut messages = self.history.clone();
        messages.push(Message::new("user", text));
        let prompt = match self.tokenizer.chat_template()? {
            Some(template) => template.render(&messages, true)?,
            None => text.to_owned(),
        };
        let ids = self.tokenizer.encode_document(&prompt)?.ids;
        let generator = Generator::new(
            &self.models[index].1,
            &self.tokenizer,
            self.sampling.clone(),
            self.ends.clone(),
        );
        let stdout = std::io::stdout();
        let answers = block_on(generator.generate(&[ids], 0, |_, piece| {
            let mut out = stdout.lock();
            let piece = table::for_terminal(piece);
            let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        }))?;
        println!();
        Ok(answers
            .into_iter()
            .next()
            .map(|a| a.text)
            .unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn adapters_of_one_name_are_numbered() {
        let mut models = vec![("base".to_owned(), ())];
        for _ in 0..3 {
            models.push((free_name("a".to_owned(), &models), ()));
        }
        let names: Vec<&str> = models.iter().map(|(name, ())| name.as_str()).collect();
        assert_eq!(names, ["base", "a", "a-2", "a-3"]);
    }
}
