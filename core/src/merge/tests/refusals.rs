//! Merges that cannot be meant, and what their messages say.

use super::*;
use crate::adapters::Receipt;

fn error(sources: &[Source], options: &MergeOptions) -> String {
    match merge(sources, options, |_, _| {}) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("was merged"),
    }
}

fn has(message: &str, words: &[&str]) {
    for word in words {
        assert!(
            message.contains(word),
            "{word:?} is missing from: {message}"
        );
    }
}

fn pair_of(a: Source, b: Source) -> Vec<Source> {
    vec![a, b]
}

fn two() -> Vec<Source> {
    pair_of(
        source("one", &["q_proj"], 3, 2.0, 1),
        source("two", &["q_proj"], 3, 2.0, 2),
    )
}

#[test]
fn settings_out_of_range() {
    let two = two();
    let both = [1.0, 1.0];
    let with = |change: &dyn Fn(&mut MergeOptions)| {
        let mut o = options(Method::Ties, &both);
        change(&mut o);
        error(&two, &o)
    };
    for bad in [0.0, -0.1, 1.5, f64::NAN] {
        has(
            &with(&|o| o.density = Some(bad)),
            &["density", "above 0 and at most 1"],
        );
    }
    has(&with(&|o| o.density = None), &["ties needs a density"]);
    has(
        &with(&|o| o.weights = vec![1.0]),
        &["1 weights for 2 adapters"],
    );
    has(
        &with(&|o| o.weights[1] = f64::INFINITY),
        &["weight 2", "inf"],
    );
    has(
        &with(&|o| o.rank = Some(4)),
        &["a rank", "ties", "ties_svd"],
    );
    has(&with(&|o| o.clamp = Some(0.9)), &["clamping", "ties_svd"]);
    let svd = |rank, clamp| MergeOptions {
        rank,
        clamp,
        ..options(Method::Svd, &both)
    };
    has(&error(&two, &svd(Some(0), None)), &["rank is 0"]);
    has(
        &error(&two, &svd(None, Some(0.2))),
        &["0.2", "between 0.5 and 1"],
    );
    has(&error(&[], &options(Method::Svd, &[])), &["no adapter"]);
    has(
        &"tiez".parse::<Method>().unwrap_err().to_string(),
        &["tiez", "did you mean ties?", "magnitude_prune_svd"],
    );
    has(
        &"most".parse::<Sign>().unwrap_err().to_string(),
        &["most", "total, frequency"],
    );
}

#[test]
fn unequal_ranks_only_where_factors_are_added() {
    let sources = pair_of(
        source("one", &["q_proj"], 3, 2.0, 1),
        source("two", &["q_proj"], 2, 2.0, 2),
    );
    for method in Method::ALL {
        let o = options(method, &[1.0, 1.0]);
        if method.truncates() || method == Method::Cat {
            run(&sources, &o);
        } else {
            let alternative = method.on_updates().name();
            has(
                &error(&sources, &o),
                &[
                    method.name(),
                    "l.0.q_proj",
                    "3 in one, 2 in two",
                    alternative,
                ],
            );
        }
    }
    // Modules that no two adapters share may have any rank.
    let apart = pair_of(
        source("one", &["q_proj"], 3, 2.0, 1),
        source("two", &["v_proj"], 2, 2.0, 2),
    );
    let merged = run(&apart, &options(Method::Linear, &[1.0, 1.0]));
    assert_eq!(merged.adapter.config.r, 3);
    assert!(merged.fidelity.overall.relative_error.unwrap() < 1e-6);
}

fn receipt(fingerprint: &str, equivalent: &[&str]) -> Option<Receipt> {
    Some(Receipt {
        base: Some(format!("base of {fingerprint}")),
        base_fingerprint: Some(fingerprint.into()),
        equivalent_bases: equivalent.iter().map(|s| (*s).to_owned()).collect(),
        ..Receipt::default()
    })
}

#[test]
fn adapters_of_other_bases() {
    let o = options(Method::Svd, &[1.0, 1.0]);
    let mut sources = two();
    sources[0].receipt = receipt("f1", &[]);
    sources[1].receipt = receipt("f2", &[]);
    has(
        &error(&sources, &o),
        &["one", "f1", "two", "f2", "different bases"],
    );
    // The dense model and the quantized one made from it are the same base.
    sources[1].receipt = receipt("f2", &["f1"]);
    let merged = run(&sources, &o);
    assert_eq!(merged.receipt.base_fingerprint.as_deref(), Some("f1"));
    assert_eq!(merged.receipt.equivalent_bases, ["f2"]);

    // Without receipts the names decide, unless the user vouches for them.
    let mut sources = two();
    sources[0].adapter.config.base_model_name_or_path = Some("x/base".into());
    sources[1].adapter.config.base_model_name_or_path = Some("y/base".into());
    has(&error(&sources, &o), &["x/base", "y/base", "--same-base"]);
    let vouched = MergeOptions {
        same_base: true,
        ..o.clone()
    };
    let notes = run(&sources, &vouched).notes.join(" ");
    has(&notes, &["one, two", "only names and shapes"]);

    let mut sources = two();
    sources[1] = {
        let mut m = pair("l.0.q_proj", 3, 2.0, 2);
        m.in_features = IN - 1;
        m.a.truncate(3 * (IN - 1));
        from_parts("narrow", two()[1].adapter.config.clone(), &[m])
    };
    has(
        &error(&sources, &o),
        &[
            "different bases",
            "l.0.q_proj",
            "[12, 9] in one",
            "[12, 8] in narrow",
        ],
    );

    let mut sources = two();
    sources[0].adapter.config.task_type = Some("CAUSAL_LM".into());
    sources[1].adapter.config.task_type = Some("SEQ_CLS".into());
    has(&error(&sources, &o), &["CAUSAL_LM", "SEQ_CLS"]);
}

#[test]
fn other_methods_and_broken_values() {
    let o = options(Method::Svd, &[1.0, 1.0]);
    let mut sources = two();
    sources[1].adapter.config.use_dora = true;
    has(&error(&sources, &o), &["two", "DoRA"]);
    let mut sources = two();
    let mut m = pair("l.0.q_proj", 3, 2.0, 2);
    m.b[5] = f32::NAN;
    sources[1] = from_parts("broken", sources[1].adapter.config.clone(), &[m]);
    has(
        &error(&sources, &o),
        &["broken", "l.0.q_proj.lora_B.weight", "not finite"],
    );
    let none = Masks::Given(Default::default());
    let dare = options(Method::DareTies, &[1.0, 1.0]);
    let e = merge_with_masks(&two(), &dare, &none, |_, _| {}).unwrap_err();
    has(
        &e.to_string(),
        &["27 entries", "A of adapter 0", "l.0.q_proj"],
    );
}
