//! Many runs as few numbers: mean and standard deviation over seeds; best, worst and spread over prompts.
//!
//! An interval of one run says how far its score would move with other test examples. It says nothing of other seeds
//! or other wordings of the prompt, which is what these tables are for.

use serde::Serialize;

use super::record::{Record, lower_is_better, score};

/// Keys that only draw other random numbers.
const SEEDS: [&str; 2] = ["train.seed", "data.seed"];
/// Keys that word the same question otherwise.
const PROMPTS: [&str; 4] = [
    "data.template",
    "data.system",
    "data.chat_template",
    "data.prompt_style",
];

/// One metric over the seeds of otherwise equal runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct OverSeeds {
    /// What the runs share.
    pub(crate) group: String,
    /// The metric.
    pub(crate) metric: String,
    /// How many runs.
    pub(crate) runs: usize,
    /// Their mean.
    pub(crate) mean: f64,
    /// Their sample standard deviation.
    pub(crate) deviation: f64,
    /// Smallest and largest.
    pub(crate) range: [f64; 2],
}

/// One metric over the prompts of otherwise equal runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct OverPrompts {
    /// What the runs share.
    pub(crate) group: String,
    /// `base` or `adapted`.
    pub(crate) model: String,
    /// The metric.
    pub(crate) metric: String,
    /// How many prompts.
    pub(crate) prompts: usize,
    /// The best prompt and its score (the mean over its seeds).
    pub(crate) best: (String, f64),
    /// The worst.
    pub(crate) worst: (String, f64),
    /// How far they are apart.
    pub(crate) spread: f64,
}

/// Over seeds; empty where no seed was varied.
pub(crate) fn over_seeds(records: &[Record], metrics: &[String]) -> Vec<OverSeeds> {
    let mut rows = Vec::new();
    for (group, members) in grouped(records, &SEEDS) {
        for metric in metrics {
            let values: Vec<f64> = members
                .iter()
                .filter_map(|r| Some(score(&r.adapted, metric)?.value))
                .collect();
            if values.len() < 2 {
                continue;
            }
            let (mean, deviation) = mean_and_deviation(&values);
            rows.push(OverSeeds {
                group: group.clone(),
                metric: metric.clone(),
                runs: values.len(),
                mean,
                deviation,
                range: [
                    values.iter().copied().fold(f64::INFINITY, f64::min),
                    values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                ],
            });
        }
    }
    rows
}

/// Over prompts; empty where no wording was varied.
pub(crate) fn over_prompts(records: &[Record], metrics: &[String]) -> Vec<OverPrompts> {
    let aside: Vec<&str> = PROMPTS.iter().chain(&SEEDS).copied().collect();
    let mut rows = Vec::new();
    for (group, members) in grouped(records, &aside) {
        for metric in metrics {
            for model in ["base", "adapted"] {
                rows.extend(prompts_of(&group, &members, metric, model));
            }
        }
    }
    rows
}

fn prompts_of(group: &str, members: &[&Record], metric: &str, model: &str) -> Option<OverPrompts> {
    let mut prompts: Vec<(String, Vec<f64>)> = Vec::new();
    for record in members {
        let scores = if model == "base" {
            &record.base
        } else {
            &record.adapted
        };
        let Some(found) = score(scores, metric) else {
            continue;
        };
        let wording: Vec<&str> = PROMPTS.iter().filter_map(|key| record.label(key)).collect();
        let wording = wording.join(" / ");
        match prompts.iter_mut().find(|(name, _)| *name == wording) {
            Some((_, values)) => values.push(found.value),
            None => prompts.push((wording, vec![found.value])),
        }
    }
    if prompts.len() < 2 {
        return None;
    }
    let count = prompts.len();
    let mut means: Vec<(String, f64)> = prompts
        .into_iter()
        .map(|(name, values)| (name, mean_and_deviation(&values).0))
        .collect();
    means.sort_by(|(_, a), (_, b)| match lower_is_better(metric) {
        true => a.total_cmp(b),
        false => b.total_cmp(a),
    });
    let (best, worst) = (means.first()?.clone(), means.last()?.clone());
    Some(OverPrompts {
        group: group.to_owned(),
        model: model.to_owned(),
        metric: metric.to_owned(),
        prompts: count,
        spread: (best.1 - worst.1).abs(),
        best,
        worst,
    })
}

/// Records that agree in every label but those of `aside`, under a name for what they share.
fn grouped<'a>(records: &'a [Record], aside: &[&str]) -> Vec<(String, Vec<&'a Record>)> {
    let mut groups: Vec<(String, Vec<&Record>)> = Vec::new();
    for record in records {
        let shared: Vec<String> = record
            .labels
            .iter()
            .filter(|(key, _)| !aside.contains(&key.as_str()))
            .map(|(key, label)| format!("{} {label}", super::record::short(key)))
            .collect();
        let name = match shared.is_empty() {
            true => "all".to_owned(),
            false => shared.join(", "),
        };
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) => members.push(record),
            None => groups.push((name, vec![record])),
        }
    }
    for index in 0..groups.len() {
        if let Some(name) = common_name(&groups[index].1, aside) {
            // Two groups are never called the same.
            if groups.iter().all(|(known, _)| *known != name) {
                groups[index].0 = name;
            }
        }
    }
    groups
}

/// What the members' names have in common once the labels of `aside` are taken off: `QLoRA` of `QLoRA-seed1` and
/// `QLoRA-seed2`. None where they have names of their keys alone.
fn common_name(members: &[&Record], aside: &[&str]) -> Option<String> {
    let part = |key: &str, label: &str| match label.parse::<f64>() {
        Ok(_) => format!("{}{label}", super::record::short(key)),
        Err(_) => label.to_owned(),
    };
    let mut names = members.iter().map(|record| {
        let (mut name, mut keys) = (record.name.clone(), Vec::new());
        for (key, label) in &record.labels {
            let part = part(key, label);
            match aside.contains(&key.as_str()) {
                true => name = name.replacen(&format!("-{part}"), "", 1),
                false => keys.push(part),
            }
        }
        (name != keys.join("-")).then_some(name)
    });
    let first = names.next()??;
    names
        .all(|name| name.as_ref() == Some(&first))
        .then_some(first)
}

/// Mean and sample standard deviation; the deviation of a single value is 0.
pub(crate) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let deviation = match values.len() {
        0 | 1 => 0.0,
        _ => (squares / (n - 1.0)).sqrt(),
    };
    (mean, deviation)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn seeds_are_averaged_within_what_else_is_equal() {
        let run = |rank, seed, f1| record(&[("lora.rank", rank), ("train.seed", seed)], f1, 0.2);
        let records = [run("8", "1", 0.5), run("8", "2", 0.7), run("16", "1", 0.9)];
        let rows = over_seeds(&records, &["macro_f1".to_owned()]);
        assert_eq!(rows.len(), 1, "one run has no deviation: {rows:?}");
        assert_eq!((rows[0].group.as_str(), rows[0].runs), ("rank 8", 2));
        assert!((rows[0].mean - 0.6).abs() < 1e-12);
        assert!((rows[0].deviation - 0.02f64.sqrt()).abs() < 1e-12);
        assert_eq!(rows[0].range, [0.5, 0.7]);
    }

    #[test]
    fn a_group_of_seeds_is_called_as_its_runs_are() {
        let run = |name: &str, quantization, seed| Record {
            name: format!("{name}-seed{seed}"),
            ..record(
                &[("model.quantization", quantization), ("train.seed", seed)],
                0.5,
                0.2,
            )
        };
        let records = [
            run("LoRA", "none", "1"),
            run("LoRA", "none", "2"),
            run("QLoRA", "nf4", "1"),
            run("QLoRA", "nf4", "2"),
        ];
        let rows = over_seeds(&records, &["macro_f1".to_owned()]);
        let groups: Vec<&str> = rows.iter().map(|row| row.group.as_str()).collect();
        assert_eq!(groups, ["LoRA", "QLoRA"]);
    }

    #[test]
    fn prompts_are_ranked_for_base_and_adapted_each_in_its_direction() {
        let run = |system, seed, f1, base| {
            record(&[("data.system", system), ("train.seed", seed)], f1, base)
        };
        let records = [
            run("none", "1", 0.5, 0.1),
            run("none", "2", 0.7, 0.1),
            run("terse", "1", 0.9, 0.3),
        ];
        let metrics = ["macro_f1".to_owned(), "perplexity".to_owned()];
        let rows = over_prompts(&records, &metrics);
        assert_eq!(rows.len(), 4);
        for row in &rows {
            assert_eq!(
                (row.best.0.as_str(), row.worst.0.as_str()),
                ("terse", "none")
            );
        }
        assert!((rows[0].spread - 0.2).abs() < 1e-12, "base macro-F1");
        assert!(
            (rows[1].spread - 0.3).abs() < 1e-12,
            "adapted macro-F1: 0.9 against a mean of 0.6"
        );
        assert!(
            over_prompts(&records[..2], &metrics).is_empty(),
            "one wording"
        );
    }
}
