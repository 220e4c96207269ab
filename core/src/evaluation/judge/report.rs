//! From replies to a score that can be doubted in numbers.

use serde::{Deserialize, Serialize};

use super::{Choice, Order, Preference};
use crate::evaluation::{BootstrapConfig, BootstrapError, Interval, bootstrap_mean, mcnemar_exact};

/// What a judge chose for one pair, in both orders; `None` where the reply held no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairVerdict {
    /// Asked with the base's answer first.
    pub base_first: Option<Choice>,
    /// Asked with the adapted model's answer first.
    pub adapted_first: Option<Choice>,
}

/// Counts of decisive things and what chance would make of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// For the first.
    pub first: u64,
    /// For the second.
    pub second: u64,
    /// Two-sided exact sign test: how often a fair coin strays as far.
    pub p_value: f64,
}

/// The result of a judging, seen from the adapted model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeReport {
    /// Pairs judged, each in both orders. None is left out.
    pub pairs: u64,
    /// The adapted answer preferred in both orders.
    pub wins: u64,
    /// Everything that is neither win nor loss.
    pub ties: u64,
    /// The base's answer preferred in both orders.
    pub losses: u64,
    /// `(wins + ties / 2) / pairs`, with its bootstrap interval over pairs.
    pub win_rate: Interval,
    /// Sign test of wins against losses, ties left out.
    pub p_value: f64,
    /// Ties because the two orders disagreed.
    pub disagreements: u64,
    /// Pairs with a verdict in both orders; the others count as ties.
    pub complete: u64,
    /// Replies without a verdict, of `2 * pairs`.
    pub unparsed: u64,
    /// Share of complete pairs whose two verdicts agree, with its interval; none without complete pairs.
    pub position_consistency: Option<Interval>,
    /// Complete pairs whose two verdicts name the same position and so contradict each other: first position, second position.
    /// A judge without bias has about as many of either.
    pub position_bias: Tally,
    /// Among all replies that prefer an answer, the share that prefers the one shown first; 0.5 without bias.
    pub first_position_share: Option<f64>,
}

impl PairVerdict {
    /// The preference both orders agree on; none where they disagree or one has no verdict.
    #[must_use]
    pub fn agreed(self) -> Option<Preference> {
        let (one, two) = (self.base_first?, self.adapted_first?);
        let preference = Order::BaseFirst.resolve(one);
        (preference == Order::AdaptedFirst.resolve(two)).then_some(preference)
    }

    /// What the pair counts as: disagreement and missing verdicts are ties.
    #[must_use]
    pub fn outcome(self) -> Preference {
        self.agreed().unwrap_or(Preference::Tie)
    }

    fn is_complete(self) -> bool {
        self.base_first.is_some() && self.adapted_first.is_some()
    }

    fn choices(self) -> impl Iterator<Item = Option<Choice>> {
        [self.base_first, self.adapted_first].into_iter()
    }
}

/// Sums up the verdicts of all pairs.
///
/// # Errors
/// No pairs, or bootstrap settings out of range.
pub fn judge_report(
    verdicts: &[PairVerdict],
    config: &BootstrapConfig,
) -> Result<JudgeReport, BootstrapError> {
    let outcomes: Vec<Preference> = verdicts.iter().map(|v| v.outcome()).collect();
    let count = |wanted| outcomes.iter().filter(|&&o| o == wanted).count() as u64;
    let points: Vec<f64> = outcomes.iter().map(|&o| point(o)).collect();
    let complete: Vec<PairVerdict> = verdicts
        .iter()
        .copied()
        .filter(|v| v.is_complete())
        .collect();
    let agreement: Vec<f64> = complete
        .iter()
        .map(|v| f64::from(u8::from(v.agreed().is_some())))
        .collect();
    let both = |choice: Choice| {
        let same = |v: &&PairVerdict| v.choices().all(|c| c == Some(choice));
        complete.iter().filter(same).count() as u64
    };
    let chosen = |choice: Choice| {
        let all = verdicts.iter().flat_map(|v| v.choices());
        all.filter(|c| *c == Some(choice)).count() as u64
    };
    let (first, second) = (chosen(Choice::A), chosen(Choice::B));
    let (wins, losses) = (count(Preference::Adapted), count(Preference::Base));
    Ok(JudgeReport {
        pairs: verdicts.len() as u64,
        wins,
        ties: count(Preference::Tie),
        losses,
        win_rate: bootstrap_mean(&points, config)?,
        p_value: sign_test(losses, wins),
        disagreements: complete.iter().filter(|v| v.agreed().is_none()).count() as u64,
        complete: complete.len() as u64,
        unparsed: verdicts
            .iter()
            .flat_map(|v| v.choices())
            .filter(Option::is_none)
            .count() as u64,
        position_consistency: match agreement.is_empty() {
            true => None,
            false => Some(bootstrap_mean(&agreement, config)?),
        },
        position_bias: Tally {
            first: both(Choice::A),
            second: both(Choice::B),
            p_value: sign_test(both(Choice::A), both(Choice::B)),
        },
        first_position_share: (first + second > 0).then(|| first as f64 / (first + second) as f64),
    })
}

/// A win counts 1, a tie one half.
fn point(outcome: Preference) -> f64 {
    match outcome {
        Preference::Adapted => 1.0,
        Preference::Tie => 0.5,
        Preference::Base => 0.0,
    }
}

/// Exact sign test, which is McNemar's exact test of discordant pairs.
fn sign_test(first: u64, second: u64) -> f64 {
    let side = |n: u64, value| std::iter::repeat_n(value, usize::try_from(n).unwrap_or(usize::MAX));
    let only_first: Vec<bool> = side(first, true).chain(side(second, false)).collect();
    let only_second: Vec<bool> = only_first.iter().map(|b| !b).collect();
    // The lists have the same length, the one thing that is refused.
    mcnemar_exact(&only_first, &only_second).map_or(1.0, |test| test.p_value)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    missing_docs
)]
mod tests {
    use super::*;
    use Choice::{A, B, Tie};

    fn verdict(base_first: Option<Choice>, adapted_first: Option<Choice>) -> PairVerdict {
        PairVerdict {
            base_first,
            adapted_first,
        }
    }

    fn report(verdicts: &[PairVerdict]) -> JudgeReport {
        judge_report(verdicts, &BootstrapConfig::default()).unwrap()
    }

    #[test]
    fn only_agreement_across_both_orders_decides() {
        use Preference::{Adapted, Base};
        let tie = Preference::Tie;
        for (base_first, adapted_first, outcome, agreed) in [
            (Some(B), Some(A), Adapted, true),
            (Some(A), Some(B), Base, true),
            (Some(Tie), Some(Tie), tie, true),
            (Some(A), Some(A), tie, false),
            (Some(B), Some(B), tie, false),
            (Some(B), Some(Tie), tie, false),
            (Some(Tie), Some(B), tie, false),
            (None, Some(A), tie, false),
            (Some(B), None, tie, false),
            (None, None, tie, false),
        ] {
            let v = verdict(base_first, adapted_first);
            assert_eq!(
                (v.outcome(), v.agreed().is_some()),
                (outcome, agreed),
                "{v:?}"
            );
        }
    }

    #[test]
    fn every_pair_is_counted_once() {
        let all = [
            verdict(Some(B), Some(A)),
            verdict(Some(B), Some(A)),
            verdict(Some(A), Some(B)),
            verdict(Some(Tie), Some(Tie)),
            verdict(Some(A), Some(A)),
            verdict(Some(A), Some(A)),
            verdict(Some(B), Some(B)),
            verdict(None, Some(A)),
        ];
        let r = report(&all);
        assert_eq!((r.pairs, r.wins, r.ties, r.losses), (8, 2, 5, 1));
        assert_eq!(r.win_rate.estimate, (2.0 + 2.5) / 8.0);
        assert!(r.win_rate.low < 0.5 && r.win_rate.high > 0.5);
        assert_eq!((r.complete, r.disagreements, r.unparsed), (7, 3, 1));
        assert_eq!(r.position_consistency.unwrap().estimate, 4.0 / 7.0);
        assert_eq!((r.position_bias.first, r.position_bias.second), (2, 1));
        // A: 2 + 1 + 4 + 1 of the replies, B: 2 + 1 + 2.
        assert_eq!(r.first_position_share, Some(8.0 / 13.0));
        assert_eq!(r.p_value, 1.0);
    }

    #[test]
    fn a_judge_that_only_looks_at_the_place_finds_nothing() {
        let r = report(&[verdict(Some(A), Some(A)); 12]);
        assert_eq!((r.wins, r.ties, r.losses), (0, 12, 0));
        assert_eq!(r.win_rate.bounds(), [0.5, 0.5]);
        assert_eq!(r.position_consistency.unwrap().estimate, 0.0);
        assert_eq!(r.first_position_share, Some(1.0));
        assert!((r.position_bias.p_value - 2.0 / 4096.0).abs() < 1e-12);
    }

    #[test]
    fn a_clear_winner_is_significant() {
        // 14 to 2: scipy.stats.binomtest(2, 16).pvalue
        let mut all = vec![verdict(Some(B), Some(A)); 14];
        all.extend([verdict(Some(A), Some(B)); 2]);
        let r = report(&all);
        assert!(
            (r.p_value - 0.004_180_908_203_125).abs() < 1e-12,
            "{}",
            r.p_value
        );
        assert!(r.win_rate.low > 0.5);
    }

    #[test]
    fn nothing_parsed_is_all_ties_and_no_consistency() {
        let r = report(&[verdict(None, None); 3]);
        assert_eq!((r.ties, r.unparsed, r.complete), (3, 6, 0));
        assert_eq!(
            (r.position_consistency, r.first_position_share),
            (None, None)
        );
        assert!(judge_report(&[], &BootstrapConfig::default()).is_err());
    }
}
