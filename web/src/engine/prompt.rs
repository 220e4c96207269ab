//! What is asked, as text and as tokens: the same way the trainer does it.

use qloom_core::tokenizer::Message;

use super::base::Base;
use crate::protocol::{Failure, Prompt, Turn};

impl Base {
    /// The text of `prompt`, after `history` where it is a conversation, ready for the answer.
    ///
    /// # Errors
    /// A conversation without turns, or one that the base's chat template refuses.
    pub(super) fn prompt_text(&self, prompt: &Prompt, history: &[Turn]) -> Result<String, Failure> {
        let turns = match prompt {
            Prompt::Text { text } => return Ok(text.clone()),
            Prompt::Chat { turns } => history.iter().chain(turns),
        };
        let messages: Vec<Message> = turns
            .map(|turn| Message::new(turn.role.as_str(), turn.content.as_str()))
            .collect();
        if messages.is_empty() {
            return Err(Failure::request("the conversation has no turn"));
        }
        Ok(match self.tokenizer.chat_template()? {
            Some(template) => template.render(&messages, true)?,
            // Without a template there is nothing that tells turns apart.
            None => {
                let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
                contents.join("\n")
            }
        })
    }

    /// The tokens of `prompt`, after `history` where it is a conversation.
    ///
    /// # Errors
    /// As [`Self::prompt_text`]; a prompt of no tokens is refused by the generation.
    pub(super) fn prompt_ids(
        &self,
        prompt: &Prompt,
        history: &[Turn],
    ) -> Result<Vec<u32>, Failure> {
        let text = self.prompt_text(prompt, history)?;
        Ok(self.tokenizer.encode_document(&text)?.ids)
    }
}
