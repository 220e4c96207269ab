//! Which modules `target_modules` means, with PEFT's matching and errors that list what there is.

use super::{AdapterError, OneOrMany, PeftConfig};
use crate::lora::{LoraConfig, TargetModules};
use regex::Regex;

/// Output heads that `all-linear` leaves alone.
const HEADS: [&str; 3] = ["lm_head", "score", "classifier"];

/// What to adapt and what to leave out.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// Names (a module's path, or its end after a dot), a regular expression for whole paths, or `all-linear`.
    pub target_modules: TargetModules,
    /// The same, for modules left out.
    pub exclude_modules: Option<TargetModules>,
    /// Modules trained in full; they never get an adapter as well.
    pub modules_to_save: Vec<String>,
    /// Layer indices adapted, all where `None` or empty. Holds for names and `all-linear`, not for a regular expression.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Names of the lists indexed (`layers`); any where empty.
    pub layers_pattern: Vec<String>,
}

impl From<&LoraConfig> for TargetSpec {
    fn from(c: &LoraConfig) -> Self {
        Self {
            target_modules: c.target_modules.clone(),
            exclude_modules: c.exclude_modules.clone(),
            modules_to_save: c.modules_to_save.clone(),
            layers_to_transform: c.layers_to_transform.clone(),
            layers_pattern: Vec::new(),
        }
    }
}

impl From<&PeftConfig> for TargetSpec {
    fn from(c: &PeftConfig) -> Self {
        let targets = |t: &OneOrMany<String>| match t {
            OneOrMany::Many(list) => TargetModules::List(list.clone()),
            OneOrMany::One(pattern) => TargetModules::Pattern(pattern.clone()),
        };
        Self {
            target_modules: c
                .target_modules
                .as_ref()
                .map_or(TargetModules::List(Vec::new()), targets),
            exclude_modules: c.exclude_modules.as_ref().map(targets),
            modules_to_save: c.modules_to_save.clone().unwrap_or_default(),
            layers_to_transform: c.layers_to_transform.as_ref().map(OneOrMany::to_vec),
            layers_pattern: c
                .layers_pattern
                .as_ref()
                .map(OneOrMany::to_vec)
                .unwrap_or_default(),
        }
    }
}

/// The paths among `linears` that `spec` adapts, in their order.
///
/// # Errors
/// A name or pattern that matches no linear, everything excluded again, or an unusable regular expression.
pub fn resolve_targets(
    spec: &TargetSpec,
    linears: &[(String, [usize; 2])],
) -> Result<Vec<String>, AdapterError> {
    let paths: Vec<&str> = linears.iter().map(|l| l.0.as_str()).collect();
    let target = Matcher::new(&spec.target_modules)?;
    if let TargetModules::List(names) = &spec.target_modules {
        for name in names {
            if !paths.iter().any(|p| is_or_ends_with(p, name)) {
                return Err(no_target(format!("entry {name:?}"), name, &paths));
            }
        }
    }
    let matched: Vec<&str> = paths
        .iter()
        .copied()
        .filter(|p| target.matches(p))
        .collect();
    let shown = show(&spec.target_modules);
    if matched.is_empty() {
        let text = match &spec.target_modules {
            TargetModules::Pattern(p) => p.as_str(),
            TargetModules::List(_) => "",
        };
        return Err(no_target(shown, text, &paths));
    }

    let exclude = spec
        .exclude_modules
        .as_ref()
        .map(Matcher::new)
        .transpose()?;
    let mut kept = Vec::new();
    for path in matched {
        let excluded = exclude.as_ref().is_some_and(|e| e.matches(path));
        let saved = spec.modules_to_save.iter().any(|m| has_part(path, m));
        if !excluded && !saved && spec.layer_wanted(path)? {
            kept.push(path.to_owned());
        }
    }
    if kept.is_empty() {
        let by = "exclude_modules, modules_to_save or layers_to_transform";
        return Err(AdapterError::AllExcluded { targets: shown, by });
    }
    Ok(kept)
}

/// The distinct last parts of the modules that can be adapted: `q_proj, k_proj, ...`.
pub fn valid_targets(linears: &[(String, [usize; 2])]) -> Vec<String> {
    last_parts(linears.iter().map(|l| l.0.as_str()))
}

/// Distinct last parts, sorted.
pub(super) fn last_parts<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let set: std::collections::BTreeSet<&str> =
        paths.filter_map(|p| p.rsplit('.').next()).collect();
    set.into_iter().map(str::to_owned).collect()
}

impl TargetSpec {
    /// Whether the layer index in `path` is among those wanted. As in PEFT, a name that is the whole path is wanted in
    /// any layer, and a regular expression says itself what it wants; `all-linear` is saved as a list of names, so it is
    /// treated as one.
    fn layer_wanted(&self, path: &str) -> Result<bool, AdapterError> {
        let Some(layers) = self.layers_to_transform.as_ref().filter(|l| !l.is_empty()) else {
            return Ok(true);
        };
        let exempt = match &self.target_modules {
            TargetModules::List(names) => names.iter().any(|n| n == path),
            targets => !targets.is_all_linear(),
        };
        if exempt {
            return Ok(true);
        }
        let any = [r"[^.]*".to_owned()];
        let lists = if self.layers_pattern.is_empty() {
            &any[..]
        } else {
            &self.layers_pattern
        };
        for list in lists {
            let lead = if self.layers_pattern.is_empty() {
                r".*?\."
            } else {
                r"(?:.*?\.)?"
            };
            let index = compile(&format!(r"^{lead}(?:{list})\.(\d+)\."))?;
            if let Some(found) = index.captures(path) {
                return Ok(found[1].parse().is_ok_and(|i: usize| layers.contains(&i)));
            }
        }
        Ok(false)
    }
}

enum Matcher {
    AllLinear,
    Names(Vec<String>),
    Pattern(Regex),
}

impl Matcher {
    fn new(targets: &TargetModules) -> Result<Self, AdapterError> {
        Ok(match targets {
            TargetModules::List(names) => Self::Names(names.clone()),
            targets if targets.is_all_linear() => Self::AllLinear,
            TargetModules::Pattern(p) => Self::Pattern(compile(&format!("^(?:{p})$"))?),
        })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::AllLinear => !HEADS.iter().any(|h| is_or_ends_with(path, h)),
            Self::Names(names) => names.iter().any(|n| is_or_ends_with(path, n)),
            Self::Pattern(regex) => regex.is_match(path),
        }
    }
}

/// A regular expression, or an error that shows it.
pub(super) fn compile(pattern: &str) -> Result<Regex, AdapterError> {
    Regex::new(pattern).map_err(|e| AdapterError::Pattern {
        pattern: pattern.to_owned(),
        reason: e.to_string(),
    })
}

fn is_or_ends_with(path: &str, name: &str) -> bool {
    path == name
        || path
            .strip_suffix(name)
            .is_some_and(|head| head.ends_with('.'))
}

/// Whether `part` is one or several whole dotted parts of `path`.
fn has_part(path: &str, part: &str) -> bool {
    format!(".{path}.").contains(&format!(".{part}."))
}

fn show(targets: &TargetModules) -> String {
    match targets {
        TargetModules::List(names) => format!("{names:?}"),
        TargetModules::Pattern(p) => format!("{p:?}"),
    }
}

fn no_target(targets: String, wanted: &str, paths: &[&str]) -> AdapterError {
    let valid = last_parts(paths.iter().copied());
    let last = wanted.rsplit('.').next().unwrap_or(wanted);
    let near = valid
        .iter()
        .map(|v| (strsim::jaro_winkler(last, v), v))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match near {
        Some((score, name)) if score > 0.75 => format!("; did you mean {name}?"),
        _ => String::new(),
    };
    AdapterError::NoTarget {
        targets,
        valid: valid.join(", "),
        hint,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn linears() -> Vec<(String, [usize; 2])> {
        let names = ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"];
        let block = |i: usize| names.map(|n| (format!("model.layers.{i}.{n}"), [4, 4]));
        (0..12)
            .flat_map(block)
            .chain([("lm_head".to_string(), [8, 4])])
            .collect()
    }

    fn spec(targets: TargetModules) -> TargetSpec {
        TargetSpec::from(&LoraConfig {
            target_modules: targets,
            ..LoraConfig::default()
        })
    }

    fn list(names: &[&str]) -> TargetSpec {
        spec(TargetModules::List(
            names.iter().map(|n| n.to_string()).collect(),
        ))
    }

    fn pattern(p: &str) -> TargetSpec {
        spec(TargetModules::Pattern(p.into()))
    }

    fn count(spec: &TargetSpec) -> usize {
        resolve_targets(spec, &linears()).unwrap().len()
    }

    #[test]
    fn names_match_whole_ends_and_patterns_whole_paths() {
        assert_eq!(count(&list(&["q_proj"])), 12);
        assert_eq!(count(&list(&["self_attn.q_proj", "lm_head"])), 13);
        assert_eq!(count(&list(&["layers.1.mlp.up_proj"])), 1);
        assert_eq!(count(&pattern("all-linear")), 36);
        assert_eq!(count(&pattern("ALL-LINEAR")), 36);
        assert_eq!(count(&pattern(r".*\.(q|v)_proj")), 24);
        assert_eq!(count(&pattern(r".*layers\.1\..*")), 3);
        assert_eq!(count(&pattern("lm_head|x")), 1);
        assert!(resolve_targets(&pattern("q_proj"), &linears()).is_err());
        assert!(resolve_targets(&list(&["proj"]), &linears()).is_err());
    }

    #[test]
    fn layers_and_exclusions_narrow() {
        let mut s = list(&["q_proj"]);
        s.layers_to_transform = Some(vec![1, 11]);
        assert_eq!(count(&s), 2);
        s.layers_pattern = vec!["layers".into()];
        assert_eq!(count(&s), 2);
        let mut all = pattern("all-linear");
        all.layers_to_transform = Some(vec![1, 11]);
        assert_eq!(count(&all), 6);
        let mut regex = pattern(r".*\.q_proj");
        regex.layers_to_transform = Some(vec![1]);
        assert_eq!(count(&regex), 12);
        s.layers_pattern = vec!["blocks".into()];
        assert!(matches!(
            resolve_targets(&s, &linears()),
            Err(AdapterError::AllExcluded { .. })
        ));
        let mut exact = list(&["model.layers.3.mlp.up_proj", "q_proj"]);
        exact.layers_to_transform = Some(vec![0]);
        assert_eq!(count(&exact), 2);
        let mut s = pattern("all-linear");
        s.exclude_modules = Some(TargetModules::List(vec!["up_proj".into()]));
        assert_eq!(count(&s), 24);
        s.exclude_modules = Some(TargetModules::Pattern(r".*\.layers\.\d\..*".into()));
        assert_eq!(count(&s), 6);
        s.modules_to_save = vec!["self_attn".into()];
        assert_eq!(count(&s), 2);
    }

    #[test]
    fn a_miss_lists_what_there_is_and_the_nearest() {
        let e = resolve_targets(&list(&["q_proj", "vproj"]), &linears())
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("vproj") && e.contains("lm_head, q_proj, up_proj, v_proj"),
            "{e}"
        );
        assert!(e.contains("did you mean v_proj?"), "{e}");
        let e = resolve_targets(&pattern("zzz"), &linears())
            .unwrap_err()
            .to_string();
        assert!(e.contains("zzz") && !e.contains("did you mean"), "{e}");
        assert!(resolve_targets(&list(&[]), &linears()).is_err());
        let e = resolve_targets(&pattern("(?!x)q"), &linears())
            .unwrap_err()
            .to_string();
        assert!(e.contains("look-around"), "{e}");
    }
}
