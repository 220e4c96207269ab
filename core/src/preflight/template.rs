//! A chat model answers in the template it was tuned with; in another it continues text, and labels come by chance.

use super::evidence::TEXTS;
use super::families::{FAMILIES, Family, family_of, shown};
use super::{Cause, Evidence, Finding, Severity};
use crate::data::{Example, Format, PromptStyle};
use crate::tokenizer::{ChatTemplate, Message};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<Finding> {
    if !evidence.generates || evidence.format() == Format::Tokens {
        return Vec::new();
    }
    let used = evidence.template();
    let mut findings = Vec::new();
    findings.extend(unused(evidence, used.is_some()));
    if let Some(used) = &used {
        findings.extend(replaced(evidence, used));
        findings.extend(adapter(evidence, used));
    }
    findings.extend(written_into_the_data(evidence, used.as_ref()));
    findings
}

/// The base has a template, and the rows are rendered without it.
fn unused(evidence: &Evidence<'_>, used: bool) -> Option<Finding> {
    let plain = matches!(
        evidence.data.prompt_style,
        PromptStyle::Plain | PromptStyle::Alpaca
    );
    let own = evidence.tokenizer.chat_template().ok().flatten()?;
    if used || !plain || evidence.format() == Format::Text {
        return None;
    }
    let family = rendered(&own).and_then(|text| family_of(&text));
    let name = family.map_or(String::new(), |f| format!(" (of the {} family)", f.name));
    Some(Finding::new(
        Cause::WrongTemplate,
        Severity::Warning,
        "data.prompt_style",
        format!(
            "the base was tuned with a chat template{name} and prompt_style = {:?} leaves it out: the base does not know \
             that it is being asked",
            style(evidence.data.prompt_style)
        ),
        "Remove prompt_style, so that prompts are written in the base's own template",
    ))
}

/// `data.chat_template` is not what the base was tuned with, or writes markers that are no tokens of this base.
fn replaced(evidence: &Evidence<'_>, used: &ChatTemplate) -> Option<Finding> {
    evidence.data.chat_template.as_ref()?;
    let own = evidence.tokenizer.chat_template().ok().flatten();
    let text = rendered(used)?;
    let own_text = own.as_ref().and_then(rendered);
    if own_text.as_ref() == Some(&text) {
        return None;
    }
    let family = family_of(&text);
    let unknown: Vec<String> = family
        .into_iter()
        .flat_map(|f| shown(f, &text))
        .filter(|marker| evidence.tokenizer.token_to_id(marker).is_none())
        .map(str::to_owned)
        .collect();
    let split = unknown.first().and_then(|marker| {
        let pieces = evidence.tokenizer.encode(marker, false).ok()?.len();
        Some(format!(
            "; {marker:?} is no token of this base and falls into {pieces} pieces"
        ))
    });
    let split = split.unwrap_or_default();
    let named = |family: Option<&Family>| family.map_or("another", |f| f.name);
    let (severity, what) = match (&own_text, unknown.is_empty()) {
        (Some(own), _) => {
            let own_family = family_of(own);
            let other = family.map(|f| f.name) != own_family.map(|f| f.name);
            let severity = if other {
                Severity::Error
            } else {
                Severity::Warning
            };
            let what = match other {
                true => format!(
                    "data.chat_template ({} form) replaces the template the base was tuned with ({} form){split}",
                    named(family),
                    named(own_family)
                ),
                false => format!(
                    "data.chat_template is of the same form as the base's own ({}) but writes a conversation otherwise{split}",
                    named(own_family)
                ),
            };
            (severity, what)
        }
        (None, false) => (
            Severity::Warning,
            format!("data.chat_template is of the {} form{split}", named(family)),
        ),
        (None, true) => return None,
    };
    let fix = match own_text {
        Some(_) => "Remove data.chat_template: the base's own template is used then",
        None => {
            "Take a base that was tuned with this template, or prompt_style = \"alpaca\" or \"plain\""
        }
    };
    Some(Finding::new(
        Cause::WrongTemplate,
        severity,
        "data.chat_template",
        what,
        fix,
    ))
}

/// The adapter the run goes on from learned in another template.
fn adapter(evidence: &Evidence<'_>, used: &ChatTemplate) -> Option<Finding> {
    let recorded = evidence.adapter_template?;
    (recorded != used.source()).then(|| {
        Finding::new(
            Cause::WrongTemplate,
            Severity::Warning,
            "lora.adapter",
            "the adapter this run starts from was trained with another chat template than the one in use now",
            "Put the adapter's template (chat_template in its qloom.json) into data.chat_template, or start afresh",
        )
    })
}

/// Markers that the rows themselves carry: of another family, or the template's own a second time.
fn written_into_the_data(evidence: &Evidence<'_>, used: Option<&ChatTemplate>) -> Option<Finding> {
    let frame = used.and_then(rendered).unwrap_or_default();
    let own = evidence
        .tokenizer
        .chat_template()
        .ok()
        .flatten()
        .and_then(|t| rendered(&t));
    let alpaca_text = used.is_none() && matches!(evidence.format(), Format::Alpaca | Format::Dolly);
    let texts: Vec<(String, &Example)> = evidence
        .train
        .iter()
        .take(TEXTS)
        .filter_map(|e| Some((evidence.tokenizer.decode(&e.input_ids, false).ok()?, e)))
        .collect();
    for family in &FAMILIES {
        let expected = shown(family, &frame).count() > 0 || alpaca_text && family.name == "Alpaca";
        // A hand-written prompt in the base's own form is right where no template is applied.
        let hand_written = used.is_none()
            && own
                .as_ref()
                .is_some_and(|own| shown(family, own).count() > 0);
        let fault = |text: &str| match expected {
            false => !hand_written && shown(family, text).count() > 0,
            true => used.is_some() && single(evidence.format()) && twice(family, text, &frame),
        };
        let hit: Vec<&Example> = texts
            .iter()
            .filter(|(t, _)| fault(t))
            .map(|(_, e)| *e)
            .collect();
        if hit.len() * 20 < texts.len().max(1) || hit.is_empty() {
            continue;
        }
        let at = hit.first().map_or(String::new(), |e| e.source.to_string());
        let (what, fix) = match expected {
            false => (
                format!(
                    "{} of {} training texts carry markers of the {} form, which is not this base's template",
                    hit.len(),
                    texts.len(),
                    family.name
                ),
                "Take the markers out of the data: the base's template is written around the fields",
            ),
            true => (
                format!(
                    "{} of {} training texts carry the template's own markers a second time",
                    hit.len(),
                    texts.len()
                ),
                "Take the markers out of the data, or use format = \"text\" or \"prompt_completion\" with prompt_style = \"plain\"",
            ),
        };
        return Some(Finding::new(
            Cause::WrongTemplate,
            Severity::Error,
            at,
            what,
            fix,
        ));
    }
    None
}

/// Formats of one question and one answer.
fn single(format: Format) -> bool {
    !matches!(
        format,
        Format::Messages | Format::Sharegpt | Format::Text | Format::Tokens
    )
}

/// Whether a marker comes more often than the template writes it.
fn twice(family: &Family, text: &str, frame: &str) -> bool {
    family
        .markers
        .iter()
        .any(|marker| text.matches(marker).count() > frame.matches(marker).count().max(1))
}

/// A short conversation in the template.
fn rendered(template: &ChatTemplate) -> Option<String> {
    let system = Message::new("system", "s5Sz");
    let turns = [
        Message::new("user", "q7Qz"),
        Message::new("assistant", "a7Az"),
    ];
    let with_system: Vec<Message> = std::iter::once(system).chain(turns.clone()).collect();
    template
        .render(&with_system, false)
        .or_else(|_| template.render(&turns, false))
        .ok()
}

fn style(style: PromptStyle) -> &'static str {
    match style {
        PromptStyle::Auto => "auto",
        PromptStyle::Chat => "chat",
        PromptStyle::Alpaca => "alpaca",
        PromptStyle::Plain => "plain",
    }
}
