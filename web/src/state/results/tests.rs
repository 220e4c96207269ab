//! Files as the trainer writes them.
#![allow(clippy::unwrap_used)]

use super::*;

const SCORES: &str = "metric,base,base_low,base_high,adapted,adapted_low,adapted_high,difference,difference_low,difference_high,p_value\n\
accuracy,0.489,0.465,0.513,0.863,0.847,0.879,0.373,0.343,0.402,0.0001\n\
perplexity,9.8,9.4,10.2,5.0,4.9,5.1,-4.8,-5.0,-4.6,0.0001\n";

const EXAMPLES: &str = "source,prompt,reference,base,base_probability,base_correct,base_loss,adapted,adapted_probability,adapted_correct,adapted_loss\n\
data/eval.jsonl line 7,\"no movement, no yuks\",negative,positive,0.51,false,0.71,negative,0.91,true,0.09\n\
data/eval.jsonl line 9,fine,positive,positive,0.52,true,0.70,positive,0.92,true,0.08\n";

#[test]
fn scores_become_bars_with_intervals() {
    let opened = open("run/scores.csv", SCORES).unwrap();
    assert_eq!(
        (opened.kind, opened.bars.len(), opened.grids[0].rows.len()),
        ("scores", 2, 2)
    );
    let bars = &opened.bars[1];
    assert_eq!(bars.title, "Perplexity (lower is better)");
    assert_eq!(bars.bars.len(), 2);
    assert_eq!(
        (bars.bars[1].name.as_str(), bars.bars[1].interval),
        ("adapted", Some([4.9, 5.1]))
    );
}

#[test]
fn examples_can_be_sorted_and_filtered() {
    let opened = open("per_example.csv", EXAMPLES).unwrap();
    let examples = opened.examples.unwrap();
    assert_eq!(examples.models, ["base", "adapted"]);
    let row = &examples.rows[0];
    assert_eq!((row.line, row.answers[1].as_deref()), (7, Some("negative")));
    assert_eq!(super::super::table::value(row, 1, "loss"), Some(0.09));
    assert_eq!(super::super::table::value(row, 0, "correct"), Some(0.0));
    let view = View {
        keep: super::super::table::Keep::Gained,
        ..View::default()
    };
    assert_eq!(view.of(&examples.rows), [0]);
}

#[test]
fn likelihoods_without_answers_have_models_too() {
    let text = "source,prompt,reference,base_loss,adapted_loss\nf line 1,p,r,2.0,1.0\n";
    let examples = open("per_example.csv", text).unwrap().examples.unwrap();
    assert_eq!(examples.models, ["base", "adapted"]);
    assert_eq!(examples.rows[0].answers, [None, None]);
    assert_eq!(
        super::super::table::value(&examples.rows[0], 1, "loss"),
        Some(1.0)
    );
}

#[test]
fn metrics_of_a_run_of_tasks_and_of_experiments() {
    let side = |f1: f64| {
        format!(
            r#"{{"macro_f1":{f1},"macro_f1_ci":[0.1,0.9],"examples":3,"confusion_matrix":{{"labels":["a","b"],"rows":[[1,1,0],[0,1,0]]}}}}"#
        )
    };
    let run = format!(
        r#"{{"base":{},"adapted":{},"data":{{"train_examples":1200}},"training":{{"steps":40,"seconds":61.0,"device":"cpu"}}}}"#,
        side(0.2),
        side(0.8)
    );
    let opened = open("metrics.json", &run).unwrap();
    assert_eq!(
        opened.grids[0].rows[0][1..4],
        ["0.200 [0.100, 0.900]", "0.800 [0.100, 0.900]", "+0.600"]
    );
    assert_eq!(opened.confusions.len(), 2);
    assert!(
        opened
            .facts
            .contains(&("Training examples".into(), "1,200".into()))
    );
    let tasks = open("metrics.json", &format!(r#"{{"sentiment":{run}}}"#)).unwrap();
    assert_eq!(tasks.grids[0].rows[0][0], "sentiment: Macro-F1");
    assert_eq!(tasks.confusions[1].name, "sentiment, adapted");
    let runs = format!(
        r#"{{"runs":[{{"name":"rank 8","base":{0},"adapted":{1}}},{{"name":"rank 16","base":{0},"adapted":{1}}}],"seeds":[]}}"#,
        side(0.2),
        side(0.8)
    );
    let opened = open("metrics.json", &runs).unwrap();
    let names: Vec<&str> = opened.grids[0].rows.iter().map(|r| r[0].as_str()).collect();
    assert_eq!(names, ["base", "rank 8", "rank 16"]);
    assert_eq!(opened.bars[0].bars.len(), 3);
}

#[test]
fn experiments_as_csv() {
    let text = "run,model,lora.rank,macro_f1,macro_f1_low,macro_f1_high,seconds\nbase,base,,0.2,0.1,0.3,\nr8,adapted,8,0.8,0.7,0.9,12.5\n";
    let opened = open("experiments.csv", text).unwrap();
    assert_eq!(opened.bars.len(), 1);
    let kinds: Vec<usize> = opened.bars[0].bars.iter().map(|b| b.kind).collect();
    assert_eq!(kinds, [0, 1]);
}

#[test]
fn logs_become_curves() {
    let text = "{\"step\":1,\"loss\":2.0,\"tokens_per_s\":100.0}\n{\"step\":2,\"loss\":1.0,\"tokens_per_s\":300.0}\n\
                {\"step\":2,\"eval_loss\":1.5,\"perplexity\":4.48,\"tokens\":9,\"best\":true,\"macro_f1\":0.5}\n{\"step\":3,\"lo";
    let opened = open("log.jsonl", text).unwrap();
    assert_eq!(opened.curve.len(), 2);
    assert_eq!(opened.curve[0].points, [(1.0, 2.0), (2.0, 1.0)]);
    assert_eq!(
        opened.grids[0].header,
        ["step", "eval loss", "perplexity", "macro f1"]
    );
}

#[test]
fn long_logs_are_smoothed_and_say_so() {
    let line = |step: usize| format!("{{\"step\":{step},\"loss\":{}}}\n", 1.0 + (step % 2) as f64);
    let text: String = (1..=400).map(line).collect();
    let curve = open("log.jsonl", &text).unwrap().curve;
    assert_eq!(curve[0].name, "Training loss, mean of 4 steps");
    assert_eq!(
        (curve[0].points.len(), curve[0].points[0]),
        (100, (4.0, 1.5))
    );
}

#[test]
fn what_cannot_be_shown_is_refused_with_words() {
    let error = |name: &str, text: &str| open(name, text).unwrap_err().to_string();
    assert!(error("x.png", "").contains("metrics.json"));
    assert!(error("metrics.json", "{\n!").contains("line 2"));
    assert!(error("metrics.json", "{\"base\":{}}").contains("no scores"));
    assert!(error("log.jsonl", "{}\n[1]\n").contains("line 2"));
    assert!(error("log.jsonl", "{\"step\":1}\n").contains("no steps"));
    assert!(error("a.csv", "x,y\n1\n").contains("line 2"));
    assert!(error("a.csv", "x,y\n").contains("no rows"));
    let mut results = Results::default();
    results.open("a.csv", "x,y\n1,2\n");
    results.open("a.csv", "broken\n1,2\n");
    assert_eq!((results.files.len(), results.failures.len()), (0, 1));
}

#[test]
fn any_table_is_shown() {
    let opened = open("other.csv", "a,b\n1,0.123456\n").unwrap();
    assert_eq!(opened.grids[0].rows[0], ["1", "0.123"]);
}
