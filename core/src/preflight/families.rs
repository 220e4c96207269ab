//! Families of chat templates, told by the markers they write. Each entry is from the models' own published templates.

/// A family: its name, and markers no ordinary text contains.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) markers: &'static [&'static str],
}

pub(super) const FAMILIES: [Family; 7] = [
    Family {
        name: "ChatML",
        markers: &["<|im_start|>", "<|im_end|>"],
    },
    Family {
        name: "Llama 3",
        markers: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    },
    Family {
        name: "Llama 2 or Mistral",
        markers: &["[INST]", "[/INST]", "<<SYS>>"],
    },
    Family {
        name: "Gemma",
        markers: &["<start_of_turn>", "<end_of_turn>"],
    },
    Family {
        name: "Zephyr",
        markers: &["<|user|>", "<|assistant|>", "<|system|>"],
    },
    Family {
        name: "Falcon or OpenAssistant",
        markers: &["<|prompter|>", "<|endoftext|><|prompter|>"],
    },
    Family {
        name: "Alpaca",
        markers: &["### Instruction:", "### Response:"],
    },
];

/// The family of which `text` shows most markers.
pub(super) fn family_of(text: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .map(|family| (shown(family, text).count(), family))
        .filter(|(count, _)| *count > 0)
        .max_by_key(|(count, _)| *count)
        .map(|(_, family)| family)
}

/// Markers of `family` in `text`.
pub(super) fn shown<'a>(
    family: &'a Family,
    text: &'a str,
) -> impl Iterator<Item = &'static str> + 'a {
    family.markers.iter().copied().filter(|m| text.contains(*m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_apart_by_their_markers() {
        let name = |text: &str| family_of(text).map(|family| family.name);
        assert_eq!(name("<|im_start|>user\nhi<|im_end|>\n"), Some("ChatML"));
        assert_eq!(name("<|user|>\nhi</s>\n<|assistant|>\n"), Some("Zephyr"));
        assert_eq!(
            name("<s>[INST] hi [/INST] yes </s>"),
            Some("Llama 2 or Mistral")
        );
        assert_eq!(
            name("### Instruction:\nhi\n\n### Response:\n"),
            Some("Alpaca")
        );
        assert_eq!(name("The instruction: say <b>hi</b>."), None);
    }
}
