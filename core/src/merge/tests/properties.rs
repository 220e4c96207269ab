//! What must hold whatever the adapters are.

use super::*;

const Q: &str = "l.0.q_proj";
const V: &str = "l.0.v_proj";

fn two() -> Vec<Source> {
    vec![
        source("one", &["q_proj", "v_proj"], 3, 2.0, 1),
        source("two", &["q_proj", "v_proj"], 3, 0.5, 2),
    ]
}

#[test]
fn cat_is_the_weighted_update_at_any_ranks_and_signs() {
    let sources = vec![
        source("one", &["q_proj"], 3, 2.0, 1),
        source("two", &["q_proj", "v_proj"], 1, 0.5, 2),
        source("three", &["v_proj"], 5, 1.0, 3),
    ];
    let weights = [0.7, -1.3, 2.0];
    let merged = run(&sources, &options(Method::Cat, &weights));
    for path in [Q, V] {
        let m = module(&merged, path);
        assert!(apart(&delta(&m), &truth(&sources, &weights, path)) < 1e-6);
        assert_eq!(m.rank, 6, "the larger sum of ranks, for both modules");
    }
    assert!(merged.fidelity.overall.relative_error.unwrap() < 1e-6);
    assert!(merged.fidelity.overall.cosine.unwrap() > 1.0 - 1e-9);
}

#[test]
fn exact_has_the_rank_it_needs_and_truncates_best() {
    let sources = two();
    let weights = [1.0, -0.5];
    let exact = MergeOptions {
        exact: true,
        ..options(Method::Svd, &weights)
    };
    let whole = run(&sources, &exact);
    for path in [Q, V] {
        let m = module(&whole, path);
        assert_eq!(m.rank, 6);
        assert!(apart(&delta(&m), &truth(&sources, &weights, path)) < 1e-6);
    }
    // Truncated, no merge of that rank is nearer; svd is the same by another name.
    let mut last = f64::INFINITY;
    for rank in 1..=6 {
        let at = MergeOptions {
            rank: Some(rank),
            ..exact.clone()
        };
        let error = run(&sources, &at).fidelity.overall.relative_error.unwrap();
        assert!(error < last);
        last = error;
        let svd = MergeOptions { exact: false, ..at };
        let same = run(&sources, &svd).fidelity.overall.relative_error.unwrap();
        assert!((same - error).abs() < 1e-9);
        for other in [Method::Linear, Method::Ties, Method::MagnitudePrune] {
            let other = run(&sources, &options(other, &weights));
            assert!(rank < 3 || other.fidelity.overall.relative_error.unwrap() >= error - 1e-9);
        }
    }
}

#[test]
fn equal_updates_need_no_more_rank() {
    let one = source("one", &["q_proj"], 3, 2.0, 1);
    let sources = vec![one.clone(), one];
    let exact = MergeOptions {
        exact: true,
        ..options(Method::Svd, &[0.25, 0.5])
    };
    let merged = run(&sources, &exact);
    let m = module(&merged, Q);
    assert_eq!(m.rank, 3);
    assert!(apart(&delta(&m), &truth(&sources, &[0.25, 0.5], Q)) < 1e-6);
}

#[test]
fn one_adapter_is_reproduced_by_every_method() {
    let sources = vec![source("one", &["q_proj"], 3, 2.0, 1)];
    for method in Method::ALL {
        for weight in [1.0, -0.5] {
            let merged = run(&sources, &options(method, &[weight]));
            let m = module(&merged, Q);
            assert_eq!(m.rank, 3);
            assert!(
                apart(&delta(&m), &truth(&sources, &[weight], Q)) < 1e-6,
                "{method}"
            );
        }
    }
    let fewer = MergeOptions {
        rank: Some(2),
        ..options(Method::Svd, &[1.0])
    };
    assert_eq!(module(&run(&sources, &fewer), Q).rank, 2);
}

#[test]
fn at_density_one_nothing_is_dropped() {
    let sources = two();
    let weights = [1.0, 0.5];
    let full = |m: Method| MergeOptions {
        density: Some(1.0),
        ..options(m, &weights)
    };
    let plain = |m: Method| options(m, &weights);
    for (pruned, same) in [
        (Method::MagnitudePrune, Method::Linear),
        (Method::DareLinear, Method::Linear),
        (Method::MagnitudePruneSvd, Method::Svd),
        (Method::DareLinearSvd, Method::Svd),
    ] {
        let a = run(&sources, &full(pruned));
        let b = run(&sources, &plain(same));
        for path in [Q, V] {
            let (a, b) = (delta(&module(&a, path)), delta(&module(&b, path)));
            assert!(apart(&a, &b) < 1e-6, "{pruned}");
        }
    }
    for (a, b) in [
        (Method::Ties, Method::DareTies),
        (Method::TiesSvd, Method::DareTiesSvd),
    ] {
        let (a, b) = (run(&sources, &full(a)), run(&sources, &full(b)));
        assert!(apart(&delta(&module(&a, Q)), &delta(&module(&b, Q))) < 1e-6);
    }
}

#[test]
fn ties_of_agreeing_adapters_is_their_average() {
    let one = source("one", &["q_proj"], 2, 1.0, 1);
    let sources = vec![one.clone(), one.clone()];
    let ties = MergeOptions {
        density: Some(1.0),
        ..options(Method::TiesSvd, &[1.0, 1.0])
    };
    let want = truth(&[one], &[1.0], Q);
    for sign in [Sign::Total, Sign::Frequency] {
        let merged = run(
            &sources,
            &MergeOptions {
                sign,
                ..ties.clone()
            },
        );
        assert!(apart(&delta(&module(&merged, Q)), &want) < 1e-6);
    }
}

#[test]
fn masks_depend_on_the_seed_and_nothing_else() {
    let sources = two();
    let dare = |seed| MergeOptions {
        seed,
        ..options(Method::DareLinear, &[1.0, 1.0])
    };
    let bytes = |m: &Merged| m.adapter.to_bytes().unwrap().1;
    assert_eq!(
        bytes(&run(&sources, &dare(7))),
        bytes(&run(&sources, &dare(7)))
    );
    assert_ne!(
        bytes(&run(&sources, &dare(7))),
        bytes(&run(&sources, &dare(8)))
    );
    // Dropping the other module changes nothing in this one.
    let fewer: Vec<Source> = (1..=2)
        .map(|s| source("x", &["q_proj"], 3, if s == 1 { 2.0 } else { 0.5 }, s))
        .collect();
    assert_eq!(
        module(&run(&fewer, &dare(7)), Q).a,
        module(&run(&sources, &dare(7)), Q).a
    );
}

/// The stream is part of the format: a seed must give the same adapter on every platform and in every version.
#[test]
fn the_stream_of_masks_is_pinned() {
    let mut values = vec![1.0f32; 64];
    Masks::Seeded(42)
        .drop_and_rescale(
            &mut values,
            0.5,
            "model.layers.0.self_attn.q_proj",
            1,
            Masked::B,
        )
        .unwrap();
    let bits = values
        .iter()
        .fold(0u64, |bits, v| bits << 1 | u64::from(*v != 0.0));
    assert_eq!(format!("{bits:016x}"), PINNED);
    assert!(values.iter().all(|v| *v == 0.0 || *v == 2.0));
}

/// From ChaCha8 and SHA-256 restated in Python, independent of the crates used here.
const PINNED: &str = "56722cd4de879cd6";

#[test]
fn dare_keeps_the_share_it_is_asked_for_and_the_mean() {
    let mut values = vec![1.0f32; 100_000];
    Masks::Seeded(3)
        .drop_and_rescale(&mut values, 0.3, "m", 0, Masked::A)
        .unwrap();
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 100_000.0;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
}

#[test]
fn the_distance_is_that_of_the_dense_matrices() {
    let sources = two();
    let weights = [1.0, 0.7];
    for method in Method::ALL {
        let merged = run(&sources, &options(method, &weights));
        let (mut difference, mut norm, mut dot, mut own) = (0.0, 0.0, 0.0, 0.0);
        for path in [Q, V] {
            let (m, t) = (
                delta(&module(&merged, path)),
                truth(&sources, &weights, path),
            );
            for (m, t) in m.iter().zip(&t) {
                difference += (m - t).powi(2);
                norm += t * t;
                dot += m * t;
                own += m * m;
            }
        }
        let f = merged.fidelity.overall;
        let want = (difference / norm).sqrt();
        assert!((f.relative_error.unwrap() - want).abs() < 1e-6, "{method}");
        let cosine = dot / (norm.sqrt() * own.sqrt());
        assert!((f.cosine.unwrap() - cosine).abs() < 1e-9, "{method}");
        let kinds: Vec<&str> = merged.fidelity.kinds.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["q_proj", "v_proj"]);
    }
}

#[test]
fn weights_that_cancel_give_a_zero_update() {
    let one = source("one", &["q_proj"], 2, 1.0, 1);
    let merged = run(&[one.clone(), one], &options(Method::Cat, &[1.0, -1.0]));
    assert!(delta(&module(&merged, Q)).iter().all(|d| d.abs() < 1e-6));
    let f = merged.fidelity.overall;
    assert!(f.true_norm < 1e-6 && f.merged_norm < 1e-6, "{f:?}");
}
