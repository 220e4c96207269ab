//! A minijinja environment with the conventions of Hugging Face chat templates.
//!
//! transformers renders with `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`, `strftime_now`, a
//! `tojson` that prints like Python's `json.dumps`, and a `{% generation %}` block. Values are converted by hand:
//! minijinja's serde support is not needed for that.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use regex::Regex;

/// Context variables that hold the marks which the `{% generation %}` rewrite writes around its body.
pub(super) const OPEN: &str = "qloom_generation_open";
/// See [`OPEN`].
pub(super) const CLOSE: &str = "qloom_generation_close";

/// An environment holding `source` as the template `chat`.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    env.set_syntax(syntax);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    // A clock would make training text change from day to day. Templates that ask `strftime_now is defined` have a
    // fallback of their own; the others get one fixed day.
    if !source.contains("strftime_now is defined") {
        env.add_function("strftime_now", |format: String| fixed_date(&format));
    }
    env.add_filter("tojson", tojson);
    env.add_filter("qloom_generation", |state: &State, body: String| {
        let mark = |name| {
            state
                .lookup(name)
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        format!("{}{body}{}", mark(OPEN), mark(CLOSE))
    });
    env.add_template_owned("chat", source.to_owned())?;
    Ok(env)
}

/// Rewrites `{% generation %}` to a filter block, which has the same whitespace rules and opens no new scope.
/// Returns the source and whether there was such a block.
pub(super) fn rewrite_generation(source: &str) -> (String, bool) {
    let (Ok(open), Ok(close)) = (
        Regex::new(r"\{%([-+]?)\s*generation\s*([-+]?)%\}"),
        Regex::new(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}"),
    ) else {
        return (source.to_owned(), false);
    };
    let found = open.is_match(source);
    let text = open.replace_all(source, "{%${1} filter qloom_generation ${2}%}");
    let text = close.replace_all(&text, "{%${1} endfilter ${2}%}");
    (text.into_owned(), found)
}

/// JSON to a template value, objects in their own order.
pub(crate) fn to_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(*b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => Value::from(i),
            (_, Some(u), _) => Value::from(u),
            (.., Some(f)) => Value::from(f),
            _ => Value::from(()),
        },
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Array(list) => list.iter().map(to_value).collect(),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.iter().map(|(k, v)| (k.as_str(), to_value(v))))
        }
    }
}

fn to_json(value: &Value) -> Result<serde_json::Value, Error> {
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => serde_json::Value::Null,
        ValueKind::Bool => serde_json::Value::Bool(value.is_true()),
        ValueKind::Number => match value.as_i64().filter(|_| value.is_integer()) {
            Some(i) => i.into(),
            None => f64::try_from(value.clone())?.into(),
        },
        ValueKind::Seq | ValueKind::Iterable => serde_json::Value::Array(
            value
                .try_iter()?
                .map(|v| to_json(&v))
                .collect::<Result<_, _>>()?,
        ),
        ValueKind::Map => {
            let mut map = serde_json::Map::new();
            for key in value.try_iter()? {
                map.insert(key.to_string(), to_json(&value.get_item(&key)?)?);
            }
            serde_json::Value::Object(map)
        }
        _ => serde_json::Value::String(value.to_string()),
    })
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: a space after `:` and, on one line, after `,`.
fn tojson(value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = kwargs.get(ignored)?;
    }
    kwargs.assert_all_used()?;
    let mut out = String::new();
    dump(&to_json(&value)?, indent, 0, &mut out);
    Ok(out)
}

fn dump(value: &serde_json::Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        if let Some(width) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(width * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value {
        serde_json::Value::Array(list) if !list.is_empty() => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(out, depth + 1);
                dump(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        serde_json::Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(out, depth + 1);
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push_str(": ");
                dump(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// `strftime` of Friday 26 July 2024, noon: the date that Llama 3's template falls back to.
fn fixed_date(format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("26"),
            Some('m') => out.push_str("07"),
            Some('y') => out.push_str("24"),
            Some('Y') => out.push_str("2024"),
            Some('b') => out.push_str("Jul"),
            Some('B') => out.push_str("July"),
            Some('a') => out.push_str("Fri"),
            Some('A') => out.push_str("Friday"),
            Some('H' | 'I') => out.push_str("12"),
            Some('M' | 'S') => out.push_str("00"),
            Some('p') => out.push_str("PM"),
            Some('j') => out.push_str("208"),
            Some('%') | None => out.push('%'),
            Some(other) => out.extend(['%', other]),
        }
    }
    out
}
