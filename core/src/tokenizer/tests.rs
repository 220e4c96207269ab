//! Tests of the tokenizer wrapper, the stream decoder and chat templates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::chat::SpanMethod;
use super::*;

const TEXTS: [&str; 7] = [
    "",
    "Hello world",
    "  two  spaces\n\n\ttab ",
    "naïve café — “quotes” … 日本語のテキスト",
    "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 end",
    "<s> literal specials </s> inside",
    "1234567890 ∑∫√ \u{200b}zero width",
];

fn ends() -> Vec<String> {
    vec!["</s>".into(), "<|im_end|>".into()]
}

fn turns(parts: &[(&str, &str)]) -> Vec<Message> {
    parts.iter().map(|(r, c)| Message::new(*r, *c)).collect()
}

#[test]
fn both_merges_formats_encode_alike_and_decode_back() {
    let (Some(a), Some(b)) = (
        fixtures::real("tokenizers/tinyllama_chat"),
        fixtures::real("tokenizers/tinyllama_chat_pair_merges"),
    ) else {
        return;
    };
    let long = "The quick brown fox. ".repeat(400);
    for text in TEXTS.into_iter().chain([long.as_str()]) {
        let ids = a.encode(text, true).unwrap();
        assert_eq!(ids, b.encode(text, true).unwrap(), "{text:?}");
        assert_eq!(ids[0], 1);
        if !text.contains("<s>") {
            assert_eq!(a.decode(&ids, true).unwrap(), text);
        }
    }
    assert!(
        a.encode(&long, false).unwrap().len() > 512,
        "stored truncation must be off"
    );
    assert_eq!(
        (a.vocab_size(), a.bos_id(), a.eos_id(), a.pad_id()),
        (32000, Some(1), Some(2), 2)
    );
    assert!(a.adds_bos());
    assert_eq!(a.encode("Hello world", true).unwrap(), [1, 15043, 3186]);
}

#[test]
fn stream_equals_decode_on_real_tokenizers() {
    for folder in [
        "tokenizers/tinyllama_chat",
        "stories260K",
        "tokenizers/distilbert_base_uncased",
    ] {
        let Some(tokenizer) = fixtures::real(folder) else {
            return;
        };
        for text in TEXTS {
            for skip in [true, false] {
                let ids = tokenizer.encode(text, true).unwrap();
                assert_streams(&tokenizer, &ids, skip);
            }
        }
    }
}

fn assert_streams(tokenizer: &Tokenizer, ids: &[u32], skip: bool) {
    let mut stream = tokenizer.stream_decoder(skip);
    let mut out = String::new();
    for &id in ids {
        let piece = stream.push(id);
        assert!(
            piece
                .as_deref()
                .is_none_or(|p| !p.is_empty() && !p.contains('\u{FFFD}'))
        );
        out.extend(piece);
    }
    out.extend(stream.finish());
    assert_eq!(out, tokenizer.decode(ids, skip).unwrap());
}

#[test]
fn stream_holds_back_incomplete_characters_and_survives_garbage() {
    let tokenizer = fixtures::bytes(None);
    for text in TEXTS {
        assert_streams(&tokenizer, &tokenizer.encode(text, false).unwrap(), true);
    }
    let byte = |b: u8| tokenizer.token_to_id(&format!("<0x{b:02X}>")).unwrap();
    let mut stream = tokenizer.stream_decoder(true);
    for b in [0xF0, 0x9F, 0x98] {
        assert_eq!(stream.push(byte(b)), None);
    }
    assert_eq!(stream.push(byte(0x80)).as_deref(), Some("😀"));
    let mut stream = tokenizer.stream_decoder(true);
    let shown: Vec<Option<String>> = [
        byte(0xC3),
        byte(0xA9),
        byte(0xFF),
        tokenizer.token_to_id("o").unwrap(),
    ]
    .map(|id| stream.push(id))
    .into();
    assert_eq!(
        shown,
        [None, Some("é".to_owned()), None, Some("o".to_owned())]
    );
    let mut shown = String::new();
    for b in [0xFF, 0xFE, 0xFF, 0xFF, 0xFF] {
        shown.extend(stream.push(byte(b)));
    }
    shown.extend(stream.push(tokenizer.token_to_id("o").unwrap()));
    shown.extend(stream.push(tokenizer.token_to_id("k").unwrap()));
    shown.extend(stream.finish());
    assert_eq!(shown, "ok");
}

#[test]
fn documents_get_exactly_one_bos() {
    let tokenizer = fixtures::bytes(None);
    let plain = tokenizer.encode_document("hi").unwrap();
    let written = tokenizer.encode_document("<s>hi").unwrap();
    assert_eq!(plain.ids, written.ids);
    assert_eq!(plain.offsets, [0..0, 0..1, 1..2]);
    assert_eq!(written.offsets, [0..3, 3..4, 4..5]);
    assert_eq!(tokenizer.encode_document("").unwrap().ids, [1]);
}

#[test]
fn add_bos_token_false_is_honoured() {
    let Some(json) = fixtures::shared("data/stories260K/tokenizer.json") else {
        return;
    };
    let config = br#"{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false}"#;
    let tokenizer = Tokenizer::from_bytes(&json, Some(config), None).unwrap();
    assert_ne!(tokenizer.encode_document("once").unwrap().ids[0], 1);
}

#[test]
fn hostile_files_are_refused_with_reasons() {
    assert!(matches!(
        Tokenizer::from_bytes(b"{", None, None),
        Err(TokenizerError::Json { .. })
    ));
    let Some(json) = fixtures::shared("data/stories260K/tokenizer.json") else {
        return;
    };
    let try_config = |config: &str| Tokenizer::from_bytes(&json, Some(config.as_bytes()), None);
    assert!(matches!(
        try_config("[]"),
        Err(TokenizerError::Config { .. })
    ));
    assert!(matches!(
        try_config(r#"{"eos_token": 3}"#),
        Err(TokenizerError::Config { .. })
    ));
    assert!(matches!(
        try_config(r#"{"eos_token": "<|nope|>"}"#),
        Err(TokenizerError::UnknownSpecial {
            role: "eos_token",
            ..
        })
    ));
    assert!(try_config(r#"{"pad_token": "<|nope|>"}"#).is_ok());
    let listed = try_config(
        r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#,
    );
    assert_eq!(listed.unwrap().chat_template_source(), Some("d"));
    assert!(
        try_config(
            r#"{"chat_template": [{"name": "a", "template": "r"}, {"name": "b", "template": "d"}]}"#
        )
        .is_err()
    );
    let file =
        Tokenizer::from_bytes(&json, Some(br#"{"chat_template": "a"}"#), Some(b"b")).unwrap();
    assert_eq!(file.chat_template_source(), Some("b"));
    let broken = try_config(r#"{"chat_template": "{% for %}"}"#).unwrap();
    assert!(matches!(
        broken.chat_template(),
        Err(TemplateError::Syntax { .. })
    ));
}

#[test]
fn tinyllama_template_exact() {
    let template =
        ChatTemplate::new(fixtures::TINYLLAMA, Some("<s>".into()), Some("</s>".into())).unwrap();
    let chat = turns(&[
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "Bye"),
        ("assistant", "Ciao 👋"),
    ]);
    assert_eq!(
        template.render(&chat[..2], true).unwrap(),
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n"
    );
    let rendered = template.render_trained(&chat, &ends()).unwrap();
    assert_eq!(
        rendered.text,
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n<|assistant|>\nCiao 👋</s>\n"
    );
    let trained: Vec<&str> = rendered
        .spans
        .iter()
        .map(|s| &rendered.text[s.clone()])
        .collect();
    assert_eq!(trained, ["Hello!</s>", "Ciao 👋</s>"]);
    assert_eq!(rendered.method, SpanMethod::Prefix);
    assert_eq!(template.end_of_turn(&ends()).as_deref(), Some("</s>"));
}

#[test]
fn generation_blocks_are_the_spans() {
    let source = "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}\nA:{% generation %}{{ m.content }}{{ eos_token }}\n{%- endgeneration %}\n\n{% else %}\nU:{{ m.content }}\n{% endif %}{% endfor %}";
    let template = ChatTemplate::new(source, Some("<s>".into()), Some("</s>".into())).unwrap();
    let chat = turns(&[
        ("user", "x\u{FDD0}y"),
        ("assistant", "one"),
        ("user", "z"),
        ("assistant", "two"),
    ]);
    let rendered = template.render_trained(&chat, &ends()).unwrap();
    assert_eq!(
        rendered.text,
        "<s>U:x\u{FDD0}y\nA:one</s>\nU:z\nA:two</s>\n"
    );
    let trained: Vec<&str> = rendered
        .spans
        .iter()
        .map(|s| &rendered.text[s.clone()])
        .collect();
    assert_eq!(trained, ["one</s>", "two</s>"]);
    assert_eq!(rendered.method, SpanMethod::Generation);
    assert_eq!(template.render(&chat, false).unwrap(), rendered.text);
}

#[test]
fn templates_that_rewrite_earlier_turns_are_located() {
    // Writes a mark before the last message only, so no prefix lines up; and trims contents.
    let source = "{% for m in messages %}{% if loop.last %}[LAST]{% endif %}<{{ m.role }}>{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    let chat = turns(&[
        ("user", "assistant"),
        ("assistant", " user "),
        ("user", "again"),
        ("assistant", "é"),
    ]);
    let rendered = template.render_trained(&chat, &ends()).unwrap();
    assert_eq!(rendered.method, SpanMethod::Located);
    let trained: Vec<&str> = rendered
        .spans
        .iter()
        .map(|s| &rendered.text[s.clone()])
        .collect();
    assert_eq!(trained, ["user<|im_end|>", "é<|im_end|>"]);
    assert_eq!(
        rendered.spans[0].start,
        "<user>assistant<|im_end|>\n<assistant>".len()
    );
}

#[test]
fn content_that_a_template_changes_is_an_error_naming_the_turn() {
    let source =
        "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content | upper }};{% endfor %}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    let error = template
        .render_trained(&turns(&[("user", "q"), ("assistant", "abc")]), &ends())
        .unwrap_err();
    assert!(
        matches!(&error, TemplateError::NotLocatable { turn: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("abc") && error.to_string().contains("{% generation %}"));
}

#[test]
fn jinja_conventions_of_the_field() {
    let render = |source: &str| {
        ChatTemplate::new(source, None, None)
            .unwrap()
            .render(&turns(&[("user", " a b ")]), true)
    };
    assert_eq!(
        render("{{ messages[0]['content'].strip().split(' ')[-1] }}").unwrap(),
        "b"
    );
    assert_eq!(
        render("{{ {'a': [1, 2.5], 'é': none} | tojson }}").unwrap(),
        r#"{"a": [1, 2.5], "é": null}"#
    );
    assert_eq!(render("{{ [1] | tojson(indent=2) }}").unwrap(), "[\n  1\n]");
    assert_eq!(
        render("{% if tools is none %}{{ strftime_now('%d %b %Y') }}{% endif %}").unwrap(),
        "26 Jul 2024"
    );
    assert_eq!(
        render("{% if strftime_now is defined %}x{% else %}y{% endif %}").unwrap(),
        "y"
    );
    assert_eq!(render("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = 1 %}{% endfor %}\n  {% if true %}\n{{ ns.n }}\n  {% endif %}").unwrap(), "1\n");
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert!(
        error.to_string().contains("roles must alternate") && error.to_string().contains("user"),
        "{error}"
    );
}
