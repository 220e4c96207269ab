//! `report.html`: a run on one page that needs nothing else, no network and no script.
//!
//! It is read on phones and shared as a file, so styles and the curve are inside it. Everything that comes from data
//! or a model is escaped; the page's policy forbids scripts and requests besides.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::curve::LossCurve;
use super::numbers;
use super::scores::{Metric, Sample, Score, TaskScores};
use super::svg;
use crate::files::atomic;

const STYLE: &str = include_str!("report.css");

/// What the page shows; parts that are empty are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// Heading and title.
    pub(crate) title: String,
    /// A sentence or two under it: what was trained on what, and what came of it.
    pub(crate) lead: String,
    /// Base against adapted.
    pub(crate) scores: Vec<TaskScores>,
    /// Names and curves; one unnamed, or one per task.
    pub(crate) curves: Vec<(String, LossCurve)>,
    /// Prompts answered by both.
    pub(crate) samples: Vec<Sample>,
    /// Name and value: base, adapter, rank, seed, time, ...
    pub(crate) facts: Vec<(String, String)>,
    /// The resolved configuration, as TOML.
    pub(crate) config: Option<String>,
}

impl Page {
    /// Writes the page to `path`, atomically.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        atomic::write_file(path, self.render().as_bytes())
    }

    /// The page's source.
    pub(crate) fn render(&self) -> String {
        let title = escape(&self.title);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        );
        if !self.lead.is_empty() {
            let _ = writeln!(page, "<p class=\"soft\">{}</p>", escape(&self.lead));
        }
        self.put_scores(&mut page);
        self.put_samples(&mut page);
        self.put_curves(&mut page);
        self.put_facts(&mut page);
        page.push_str("</main>\n</body>\n</html>\n");
        page
    }

    fn put_scores(&self, page: &mut String) {
        if self.scores.is_empty() {
            return;
        }
        page.push_str("<h2 id=\"scores\">Scores on held-out data</h2>\n");
        for task in &self.scores {
            let _ = write!(
                page,
                "<div class=\"scroll\" role=\"region\" aria-label=\"Scores: {0}\" tabindex=\"0\"><table role=\"table\">\n\
                 <caption>{0}: {1} examples held out from training; brackets are confidence intervals</caption>\n\
                 <thead role=\"rowgroup\"><tr role=\"row\">{2}</tr></thead>\n<tbody role=\"rowgroup\">\n",
                escape(&task.task),
                numbers::count(task.examples as u64),
                ["metric", "base", "adapted", "change"]
                    .map(|name| format!("<th role=\"columnheader\" scope=\"col\">{name}</th>"))
                    .concat()
            );
            for metric in &task.metrics {
                let _ = writeln!(
                    page,
                    "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}<small class=\"soft\"> {}</small></th>{}{}{}</tr>",
                    escape(&metric.name.replace('_', " ")),
                    if metric.lower_is_better {
                        "lower is better"
                    } else {
                        "higher is better"
                    },
                    score_cell("base", metric.base),
                    score_cell("adapted", metric.adapted),
                    change_cell(metric)
                );
            }
            page.push_str("</tbody></table></div>\n<p></p>\n");
        }
    }

    fn put_samples(&self, page: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        page.push_str("<h2 id=\"samples\">Before and after</h2>\n");
        for sample in &self.samples {
            let _ = write!(
                page,
                "<article class=\"sample\">\n<h3>{}</h3>\n<p class=\"text\">{}</p>\n<div class=\"pair\">\n",
                escape(&sample.task),
                escape(&sample.prompt)
            );
            for (class, name, answer) in [
                ("base", "Base", &sample.base),
                ("adapted", "Adapted", &sample.adapted),
            ] {
                let verdict = match sample.agrees(answer) {
                    Some(true) => " <span class=\"better\">&#10003; as expected</span>",
                    Some(false) => " <span class=\"worse\">&#10007; not as expected</span>",
                    None => "",
                };
                let text = match answer.trim() {
                    "" => "<span class=\"soft\">(nothing)</span>".to_owned(),
                    text => escape(text),
                };
                let _ = writeln!(
                    page,
                    "<div class=\"{class}\"><h4>{name}{verdict}</h4><p class=\"text\">{text}</p></div>"
                );
            }
            page.push_str("</div>\n");
            if let Some(reference) = &sample.reference {
                let _ = writeln!(
                    page,
                    "<p class=\"text reference\">Expected: {}</p>",
                    escape(reference.trim())
                );
            }
            page.push_str("</article>\n");
        }
    }

    fn put_curves(&self, page: &mut String) {
        let drawn = self.curves.iter().filter(|(_, curve)| !curve.is_empty());
        for (index, (name, curve)) in drawn.enumerate() {
            if index == 0 {
                page.push_str("<h2 id=\"training\">Training</h2>\n");
            }
            let name = if name.is_empty() {
                String::new()
            } else {
                format!("<strong>{}</strong>", escape(name))
            };
            let key = |class: &str, text: &str| {
                format!("<span class=\"key\"><i class=\"{class}\"></i>{text}</span>")
            };
            let mut keys = match curve.smoothed() {
                Some(_) => {
                    key("k-raw", "training, each step") + &key("k-smooth", "training, smoothed")
                }
                None => key("k-smooth", "training"),
            };
            if !curve.eval.is_empty() {
                keys += &key("k-held", "held out");
            }
            let _ = writeln!(
                page,
                "<figure><figcaption>{name}<span>loss, nats per target token</span>{keys}</figcaption>{}</figure>\n<p></p>",
                svg::loss(curve, &format!("curve-{index}"))
            );
        }
    }

    fn put_facts(&self, page: &mut String) {
        if !self.facts.is_empty() {
            page.push_str("<h2 id=\"facts\">This run</h2>\n<dl>\n");
            for (name, value) in &self.facts {
                let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
            }
            page.push_str("</dl>\n");
        }
        if let Some(config) = &self.config {
            let _ = writeln!(
                page,
                "<h2 id=\"config\">Configuration</h2>\n<details><summary>config.toml, resolved</summary>\n\
                 <pre tabindex=\"0\"><code>{}</code></pre></details>",
                escape(config.trim_end())
            );
        }
    }
}

fn score_cell(name: &str, score: Option<Score>) -> String {
    let Some(score) = score else {
        return format!("<td role=\"cell\" data-label=\"{name}\">&ndash;</td>");
    };
    let interval = score.interval.map_or(String::new(), |(low, high)| {
        format!(
            "<small>[{}, {}]</small>",
            numbers::score(low),
            numbers::score(high)
        )
    });
    format!(
        "<td role=\"cell\" data-label=\"{name}\">{}{interval}</td>",
        numbers::score(score.value)
    )
}

fn change_cell(metric: &Metric) -> String {
    let verdict = metric.verdict();
    let class = ["better", "worse"]
        .into_iter()
        .find(|word| verdict.ends_with(word))
        .unwrap_or("");
    let p = metric.p.map_or(String::new(), |p| {
        format!("<small>{}</small>", escape(&numbers::p_value(p)))
    });
    format!(
        "<td role=\"cell\" data-label=\"change\" class=\"{class}\">{}{p}</td>",
        escape(&verdict)
    )
}

/// Text as HTML, in content or in a quoted attribute. Control characters HTML forbids become `U+FFFD`.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
pub(crate) mod tests {
    use super::*;
    use crate::report::curve::tests::example_curve;
    use crate::report::scores::tests::{example_samples, example_scores};

    pub(crate) fn example_page() -> Page {
        Page {
            title: "Demo: a tiny Llama learns two tasks".into(),
            lead: "QLoRA on the embedded base (NF4, double quantization), 300 steps in 1m 42s on this computer's CPU.".into(),
            scores: example_scores(),
            curves: vec![("sentiment".into(), example_curve(300)), ("instructions".into(), example_curve(12))],
            samples: example_samples(),
            facts: vec![
                ("Adapter".into(), "runs/demo/sentiment/adapter".into()),
                ("Base SHA-256".into(), "5f".repeat(32)),
                ("Rank, alpha".into(), "8, 16".into()),
            ],
            config: Some("[lora]\nrank = 8\nalpha = 16\ntarget_modules = \"all-linear\"\n".into()),
        }
    }

    #[test]
    fn nothing_a_model_writes_becomes_markup() {
        let evil = "</title><script>alert('1')</script>\"><img src=x onerror=alert(1)>&lt;";
        let mut page = example_page();
        page.title = evil.into();
        page.lead = evil.into();
        page.config = Some(evil.into());
        page.facts.push((evil.into(), evil.into()));
        page.scores[0].task = evil.into();
        page.scores[0].metrics[0].name = evil.into();
        page.curves[0].0 = evil.into();
        let sample = &mut page.samples[0];
        sample.reference = Some(evil.into());
        for part in [
            &mut sample.task,
            &mut sample.prompt,
            &mut sample.base,
            &mut sample.adapted,
        ] {
            *part = evil.into();
        }
        let html = page.render();
        assert!(
            !html.contains("<script")
                && !html.contains("<img")
                && html.matches("</title>").count() == 3
        );
        assert!(!html.contains('\u{1b}'));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let html = example_page().render();
        for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        for part in [
            "lang=\"en\"",
            "name=\"viewport\"",
            "<caption>",
            "scope=\"row\"",
            "prefers-color-scheme",
        ] {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn tags_are_balanced_and_empty_parts_left_out() {
        for page in [
            example_page(),
            Page {
                title: "x".into(),
                ..Page::default()
            },
        ] {
            let html = page.render();
            for tag in [
                "main", "table", "tr", "div", "article", "figure", "svg", "dl", "details", "h2",
                "p",
            ] {
                let opened = html.matches(&format!("<{tag}>")).count()
                    + html.matches(&format!("<{tag} ")).count();
                assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
            }
        }
        assert!(!Page::default().render().contains("<h2"));
    }
}
