//! Reading a link. It comes from anybody: every value is checked, and nothing is loaded by reading it.

use std::str::FromStr;

use qloom_core::adapters::gallery::check_slug;
use qloom_core::generation::SamplingConfig;
use qloom_core::merge::{Method, Sign};

use crate::protocol::{AdapterSource, BaseSource, MergeMember, MergeSettings};
use crate::state::Wanted;
use crate::state::percent;

use super::{ShareError, Shared, VERSION};

/// Characters of the longest link.
const MOST: usize = 60_000;

/// Adapters of a link at most.
const MOST_ADAPTERS: usize = 16;

/// Reads a fragment, with or without `#`. `None` where it is only a section's name.
///
/// # Errors
/// A link of another version, a damaged value, a key that is not known.
pub fn decode(fragment: &str) -> Result<Option<Shared>, ShareError> {
    let fragment = fragment.strip_prefix('#').unwrap_or(fragment);
    let Some((_, query)) = fragment.split_once('?') else {
        return Ok(None);
    };
    if query.len() > MOST {
        return Err(ShareError::Long {
            found: query.len(),
            most: MOST,
        });
    }
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let parts: Option<Vec<String>> = value.split(',').map(percent::decode).collect();
        let parts = parts.ok_or_else(|| bad(key, value, "percent-encoded text"))?;
        pairs.push((key, parts));
    }
    let version = pairs.iter().find(|(key, _)| *key == "v");
    let version = version.map_or("none", |(_, parts)| parts[0].as_str());
    if version != VERSION {
        return Err(ShareError::Version {
            found: version.to_owned(),
        });
    }
    let mut reader = Reader::default();
    for (key, parts) in pairs {
        reader.take(key, &parts)?;
    }
    reader.finish().map(Some)
}

#[derive(Default)]
struct Reader {
    shared: Shared,
    members: Vec<MergeMember>,
    settings: MergeSettings,
    sampling: SamplingConfig,
    sampled: bool,
}

impl Reader {
    fn take(&mut self, key: &str, parts: &[String]) -> Result<(), ShareError> {
        let value = parts[0].as_str();
        let shared = &mut self.shared;
        match key {
            "v" => {}
            "base" => shared.base = Some(base(parts)?),
            "adapter" => {
                shared.adapters.push(adapter(parts)?);
                if shared.adapters.len() > MOST_ADAPTERS {
                    return Err(bad(key, value, "at most 16 adapters"));
                }
            }
            "a" => shared.a = Some(value.to_owned()),
            "b" => shared.b = Some(value.to_owned()),
            "stacked" => shared.stacked = flag(key, value)?,
            "plain" => shared.plain = flag(key, value)?,
            "prompt" => shared.prompt = value.to_owned(),
            "pair" => shared.pair = value.to_owned(),
            "system" => shared.system = value.to_owned(),
            "merge" | "method" | "density" | "sign" | "rank" | "clamp" | "merge_seed" | "exact" => {
                self.take_merge(key, parts)?;
            }
            _ => self.take_sampling(key, value)?,
        }
        Ok(())
    }

    fn take_merge(&mut self, key: &str, parts: &[String]) -> Result<(), ShareError> {
        let value = parts[0].as_str();
        let settings = &mut self.settings;
        match key {
            "merge" => {
                let weight = parts.get(1).map_or("", String::as_str);
                self.members.push(MergeMember {
                    name: value.to_owned(),
                    weight: finite(key, weight)?,
                });
                if self.members.len() > MOST_ADAPTERS {
                    return Err(bad(key, value, "at most 16 adapters"));
                }
            }
            "method" => {
                settings.method =
                    Method::from_str(value).map_err(|_| bad(key, value, "a merging method"))?;
            }
            "density" => settings.density = Some(finite(key, value)?),
            "sign" => {
                settings.sign =
                    Sign::from_str(value).map_err(|_| bad(key, value, "total or frequency"))?
            }
            "rank" => settings.rank = Some(number(key, value, "a rank")?),
            "clamp" => settings.clamp = Some(finite(key, value)?),
            "merge_seed" => settings.seed = number(key, value, "a seed")?,
            _ => settings.exact = flag(key, value)?,
        }
        Ok(())
    }

    fn take_sampling(&mut self, key: &str, value: &str) -> Result<(), ShareError> {
        let s = &mut self.sampling;
        match key {
            "max_new_tokens" => s.max_new_tokens = number(key, value, "a number of tokens")?,
            "temperature" => s.temperature = finite(key, value)?,
            "top_k" => s.top_k = number(key, value, "a number of tokens")?,
            "top_p" => s.top_p = finite(key, value)?,
            "min_p" => s.min_p = finite(key, value)?,
            "repetition_penalty" => s.repetition_penalty = finite(key, value)?,
            "seed" => s.seed = number(key, value, "a seed")?,
            "stop" => s.stop.push(value.to_owned()),
            _ => return Err(ShareError::Key(key.to_owned())),
        }
        self.sampled = true;
        Ok(())
    }

    fn finish(mut self) -> Result<Shared, ShareError> {
        if self.sampled {
            let checked = self.sampling.validate();
            checked.map_err(|e| bad(e.field, &e.found, e.expected))?;
            self.shared.sampling = Some(self.sampling);
        }
        if !self.members.is_empty() {
            self.shared.merge = Some((self.members, self.settings));
        }
        Ok(self.shared)
    }
}

fn base(parts: &[String]) -> Result<BaseSource, ShareError> {
    match parts {
        [kind, repository] if kind == "hub" && repository.contains('/') => Ok(BaseSource::Hub {
            repository: repository.clone(),
        }),
        [kind, url, name] if kind == "url" && is_url(url) => Ok(BaseSource::Url {
            url: url.clone(),
            name: name.clone(),
        }),
        _ => Err(bad(
            "base",
            &parts.join(","),
            "hub,OWNER/NAME or url,URL,NAME",
        )),
    }
}

fn adapter(parts: &[String]) -> Result<Wanted, ShareError> {
    match parts {
        [name, kind, slug] if kind == "gallery" && check_slug(slug, "the link").is_ok() => {
            Ok(Wanted::Gallery {
                name: name.clone(),
                slug: slug.clone(),
            })
        }
        [name, kind, url] if kind == "url" && is_url(url) => Ok(Wanted::Source {
            name: name.clone(),
            source: AdapterSource::Url { url: url.clone() },
        }),
        _ => Err(bad(
            "adapter",
            &parts.join(","),
            "NAME,gallery,SLUG or NAME,url,URL",
        )),
    }
}

fn is_url(text: &str) -> bool {
    ["https://", "http://"]
        .iter()
        .any(|scheme| text.starts_with(scheme) && text.len() > scheme.len())
}

fn flag(key: &str, value: &str) -> Result<bool, ShareError> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(bad(key, value, "1 or 0")),
    }
}

fn number<T: FromStr>(key: &str, value: &str, expected: &'static str) -> Result<T, ShareError> {
    value.parse().map_err(|_| bad(key, value, expected))
}

fn finite(key: &str, value: &str) -> Result<f64, ShareError> {
    let parsed = value.parse::<f64>().ok().filter(|v| v.is_finite());
    parsed.ok_or_else(|| bad(key, value, "a finite number"))
}

fn bad(key: &str, found: &str, expected: &'static str) -> ShareError {
    let mut found = found.to_owned();
    if let Some((at, _)) = found.char_indices().nth(60) {
        found.truncate(at);
    }
    ShareError::Value {
        key: key.to_owned(),
        found,
        expected,
    }
}
