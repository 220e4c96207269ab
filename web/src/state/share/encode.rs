//! Writing a link.

use qloom_core::generation::SamplingConfig;
use qloom_core::merge::Sign;

use crate::protocol::{AdapterSource, BaseSource, MergeMember, MergeSettings};
use crate::state::Wanted;
use crate::state::percent;

use super::{Shared, VERSION};

/// The fragment, without `#`.
#[must_use]
pub fn encode(shared: &Shared) -> String {
    let mut link = Link(format!("compare?v={VERSION}"));
    match &shared.base {
        Some(BaseSource::Hub { repository }) => link.put("base", &["hub", repository]),
        Some(BaseSource::Url { url, name }) => link.put("base", &["url", url, name]),
        Some(BaseSource::Files { .. }) | None => {}
    }
    for wanted in &shared.adapters {
        match wanted {
            Wanted::Gallery { name, slug } => link.put("adapter", &[name, "gallery", slug]),
            Wanted::Source {
                name,
                source: AdapterSource::Url { url },
            } => {
                link.put("adapter", &[name, "url", url]);
            }
            Wanted::Source { .. } => {}
        }
    }
    link.text("a", shared.a.as_deref().unwrap_or_default());
    link.text("b", shared.b.as_deref().unwrap_or_default());
    link.flag("stacked", shared.stacked);
    if let Some((members, settings)) = &shared.merge {
        merge(&mut link, members, settings);
    }
    link.text("prompt", &shared.prompt);
    link.text("pair", &shared.pair);
    link.text("system", &shared.system);
    link.flag("plain", shared.plain);
    if let Some(s) = &shared.sampling {
        sampling(&mut link, s);
    }
    link.0
}

fn merge(link: &mut Link, members: &[MergeMember], settings: &MergeSettings) {
    for member in members {
        link.put("merge", &[&member.name, &member.weight.to_string()]);
    }
    link.text("method", settings.method.name());
    link.option("density", settings.density);
    if settings.sign == Sign::Frequency {
        link.text("sign", "frequency");
    }
    link.option("rank", settings.rank);
    link.option("clamp", settings.clamp);
    link.option("merge_seed", (settings.seed != 0).then_some(settings.seed));
    link.flag("exact", settings.exact);
}

fn sampling(link: &mut Link, s: &SamplingConfig) {
    link.option("max_new_tokens", Some(s.max_new_tokens));
    link.option("temperature", Some(s.temperature));
    link.option("top_k", Some(s.top_k));
    link.option("top_p", Some(s.top_p));
    link.option("min_p", Some(s.min_p));
    link.option("repetition_penalty", Some(s.repetition_penalty));
    link.option("seed", Some(s.seed));
    for stop in &s.stop {
        link.text("stop", stop);
    }
}

struct Link(String);

impl Link {
    fn put(&mut self, key: &str, parts: &[&str]) {
        let parts: Vec<String> = parts.iter().map(|p| percent::encode(p)).collect();
        self.0.push_str(&format!("&{key}={}", parts.join(",")));
    }

    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.put(key, &[text]);
        }
    }

    fn option(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(key, &[&value.to_string()]);
        }
    }

    fn flag(&mut self, key: &str, set: bool) {
        if set {
            self.put(key, &["1"]);
        }
    }
}
