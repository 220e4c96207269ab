//! From logits to the next token: greedy, temperature, top-k, top-p, min-p, repetition penalty.
//!
//! The filters and their order are those of Hugging Face `generate` (`transformers`,
//! `generation/logits_process.py`), so a setting means here what it means there:
//!
//! ```text
//! logits -> repetition penalty -> (temperature 0: largest, done)
//!        -> / temperature -> top-k -> top-p -> min-p -> softmax -> draw
//! ```
//!
//! The draw is the inverse of the cumulative distribution in f64, over token ids in ascending
//! order. Every sequence owns a random stream and spends exactly one draw per sampled token, so
//! what a sequence says depends on the seed and on its own number, never on who shares its batch.

mod candidates;
mod config;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;

use self::candidates::{Candidates, exp_of_nonpositive, kth_largest};
pub use self::config::{SamplingConfig, SamplingConfigError};

/// Logits or a history that no token can be chosen from.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SampleError {
    /// No logits at all.
    #[error("there are no logits to choose from; expected one per token of the vocabulary")]
    Empty,
    /// NaN or positive infinity, which is what an overflow in the model leaves behind.
    #[error(
        "the logit of token {token} is {value}, expected a finite number; the model overflowed: \
         use compute = \"f32\" or \"bf16\", and check that the adapter's weights are finite"
    )]
    NotFinite {
        /// The first such token.
        token: usize,
        /// Its logit.
        value: f32,
    },
    /// Every token has the logit minus infinity.
    #[error("all {vocab} logits are -inf, so no token is allowed; loosen the token mask")]
    AllMasked {
        /// Number of logits.
        vocab: usize,
    },
    /// The history holds a token that has no logit.
    #[error(
        "the history holds token {token}, but there are logits for {vocab} tokens only; \
         the tokenizer does not belong to this model"
    )]
    HistoryOutOfRange {
        /// The token in the history.
        token: u32,
        /// Number of logits.
        vocab: usize,
    },
}

/// Chooses the tokens of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplingConfig,
    rng: ChaCha8Rng,
    // Reused from token to token: a vocabulary is tens of thousands of numbers long.
    scores: Vec<f32>,
    seen: Vec<bool>,
    candidates: Candidates,
    scratch: Vec<f32>,
}

impl Sampler {
    /// A sampler for sequence number `stream` of a run. Streams of one seed are independent;
    /// the same seed and stream give the same tokens for the same logits.
    ///
    /// # Errors
    /// A setting out of range, see [`SamplingConfig::validate`].
    pub fn new(config: &SamplingConfig, stream: u64) -> Result<Self, SamplingConfigError> {
        config.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(stream);
        Ok(Self {
            config: config.clone(),
            rng,
            scores: Vec::new(),
            seen: Vec::new(),
            candidates: Candidates::default(),
            scratch: Vec::new(),
        })
    }

    /// The settings in use.
    pub fn config(&self) -> &SamplingConfig {
        &self.config
    }

    /// Chooses the next token.
    ///
    /// `logits` is `[vocab]`, the model's output at the last position; `history` is the prompt
    /// and everything generated so far (used by the repetition penalty alone). Equal logits
    /// resolve to the lowest id when greedy. `-inf` marks a token that must not be chosen.
    ///
    /// # Errors
    /// Logits that are empty, NaN, `+inf` or all `-inf`; a history token outside the vocabulary.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SampleError> {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        check(logits)?;
        if self.config.repetition_penalty != 1.0 {
            self.penalize(history)?;
        }
        let (best, max) = argmax(&self.scores)?;
        if self.config.is_greedy() {
            return Ok(best);
        }
        self.gather(max);
        if self.config.top_p < 1.0 {
            self.candidates
                .keep_nucleus(self.config.top_p, &mut self.scratch);
        }
        if self.config.min_p > 0.0 {
            // The largest weight is 1 by construction.
            let least = self.config.min_p as f32;
            self.candidates.keep(|weight| weight >= least);
        }
        // 53 random bits: the uniform grid of f64 in [0, 1).
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        Ok(self.candidates.draw(uniform).unwrap_or(best))
    }

    /// Divides the positive and multiplies the negative logits of every token seen, once each.
    fn penalize(&mut self, history: &[u32]) -> Result<(), SampleError> {
        let vocab = self.scores.len();
        let penalty = self.config.repetition_penalty as f32;
        self.seen.clear();
        self.seen.resize(vocab, false);
        for &token in history {
            let i = token as usize;
            if i >= vocab {
                return Err(SampleError::HistoryOutOfRange { token, vocab });
            }
            if !std::mem::replace(&mut self.seen[i], true) {
                let score = &mut self.scores[i];
                *score = if *score < 0.0 {
                    *score * penalty
                } else {
                    *score / penalty
                };
            }
        }
        Ok(())
    }

    /// Fills `candidates` with what top-k leaves, weighted `exp((x - max) / T)`.
    fn gather(&mut self, max: f32) {
        let Candidates { ids, weights } = &mut self.candidates;
        ids.clear();
        weights.clear();
        let k = self.config.top_k;
        if k == 0 || k >= self.scores.len() {
            ids.extend(0..self.scores.len() as u32);
            weights.extend_from_slice(&self.scores);
        } else {
            let least = kth_largest(&self.scores, k, &mut self.scratch);
            for (&score, id) in self.scores.iter().zip(0..) {
                if score >= least {
                    ids.push(id);
                    weights.push(score);
                }
            }
        }
        let inverse = (1.0 / self.config.temperature) as f32;
        for weight in weights {
            let distance = *weight - max;
            // Apart, because 1/T may overflow and 0 * inf is no number.
            let power = if distance == 0.0 {
                0.0
            } else {
                distance * inverse
            };
            *weight = exp_of_nonpositive(power);
        }
    }
}

/// Refuses logits that carry the mark of an overflow.
fn check(logits: &[f32]) -> Result<(), SampleError> {
    if logits.is_empty() {
        return Err(SampleError::Empty);
    }
    let broken = |x: f32| x.is_nan() || x == f32::INFINITY;
    // Counted first: unlike a search, that vectorizes.
    if logits.iter().filter(|&&x| broken(x)).count() > 0
        && let Some(token) = logits.iter().position(|&x| broken(x))
    {
        return Err(SampleError::NotFinite {
            token,
            value: logits[token],
        });
    }
    Ok(())
}

/// The first token with the largest score, and that score.
fn argmax(scores: &[f32]) -> Result<(u32, f32), SampleError> {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for some in scores.chunks(16) {
        for (lane, &score) in lanes.iter_mut().zip(some) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    match scores.iter().position(|&score| score == max) {
        Some(id) if max > f32::NEG_INFINITY => Ok((id as u32, max)),
        _ => Err(SampleError::AllMasked {
            vocab: scores.len(),
        }),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp
)]
mod tests {
    use super::candidates::sum;
    use super::*;

    const LOGITS: [f32; 8] = [2.0, -1.0, 0.5, 2.0, 1.5, -3.0, 0.0, 1.0];
    const HISTORY: [u32; 4] = [0, 1, 1, 6];

    fn config(temperature: f64, top_k: usize, top_p: f64, min_p: f64) -> SamplingConfig {
        SamplingConfig {
            temperature,
            top_k,
            top_p,
            min_p,
            ..SamplingConfig::default()
        }
    }

    /// The distribution that is drawn from, densely.
    fn distribution(config: &SamplingConfig, logits: &[f32], history: &[u32]) -> Vec<f64> {
        let mut sampler = Sampler::new(config, 0).unwrap();
        sampler.sample(logits, history).unwrap();
        let Candidates { ids, weights } = &sampler.candidates;
        let mut p = vec![0.0; logits.len()];
        for (&id, &weight) in ids.iter().zip(weights) {
            p[id as usize] = f64::from(weight) / sum(weights);
        }
        p
    }

    #[test]
    fn distributions_equal_transformers() {
        // transformers 5.23.0: RepetitionPenaltyLogitsProcessor(1.3), TemperatureLogitsWarper(0.7),
        // TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper in that order, softmax in f64.
        #[rustfmt::skip]
        let cases: [(usize, f64, f64, [f64; 8]); 5] = [
            (5, 1.0, 0.0, [0.218805841097, 0.0, 0.049633608368, 0.423064811629, 0.207107821768, 0.0, 0.0,
                0.101387917135]),
            (0, 0.8, 0.0, [0.257728373181, 0.0, 0.0, 0.498322188769, 0.243949438048, 0.0, 0.0, 0.0]),
            (0, 1.0, 0.2, [0.230233142737, 0.0, 0.0, 0.445159693518, 0.217924185443, 0.0, 0.0,
                0.106682978300]),
            (4, 0.9, 0.1, [0.230233142737, 0.0, 0.0, 0.445159693518, 0.217924185443, 0.0, 0.0,
                0.106682978300]),
            (0, 1.0, 0.0, [0.212758094440, 0.003688466179, 0.048261746046, 0.411371390705, 0.201383405864,
                0.000325185125, 0.023626134850, 0.098585576787]),
        ];
        for (top_k, top_p, min_p, expected) in cases {
            let config = SamplingConfig {
                repetition_penalty: 1.3,
                ..config(0.7, top_k, top_p, min_p)
            };
            let found = distribution(&config, &LOGITS, &HISTORY);
            for (f, e) in found.iter().zip(expected) {
                assert!(
                    (f - e).abs() < 1e-6,
                    "top_k {top_k} top_p {top_p} min_p {min_p}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals_and_honours_the_penalty() {
        let mut sampler = Sampler::new(&SamplingConfig::default(), 0).unwrap();
        assert_eq!(sampler.sample(&LOGITS, &[]).unwrap(), 0);
        assert_eq!(sampler.sample(&[-5.0, -0.0, 0.0], &[]).unwrap(), 1);
        let config = SamplingConfig {
            repetition_penalty: 1.5,
            ..SamplingConfig::default()
        };
        let mut sampler = Sampler::new(&config, 0).unwrap();
        assert_eq!(sampler.sample(&LOGITS, &[0, 0, 0]).unwrap(), 3);
        assert_eq!(sampler.sample(&[-1.0, -1.2], &[0]).unwrap(), 1);
    }

    #[test]
    fn top_k_keeps_ties_as_transformers_does() {
        let p = distribution(&config(1.0, 1, 1.0, 0.0), &LOGITS, &[]);
        assert_eq!(p, [0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let config = config(0.7, 0, 1.0, 0.0);
        let p = distribution(&config, &LOGITS, &[]);
        let mut sampler = Sampler::new(&config, 5).unwrap();
        let n = 20_000;
        let mut counts = [0usize; 8];
        for _ in 0..n {
            counts[sampler.sample(&LOGITS, &[]).unwrap() as usize] += 1;
        }
        // Pearson's statistic, 7 degrees of freedom: 24.3 is the 99.9th percentile.
        let chi: f64 = counts
            .iter()
            .zip(&p)
            .map(|(&c, &p)| (c as f64 - p * n as f64).powi(2) / (p * n as f64))
            .sum();
        assert!(chi < 24.3, "{chi} {counts:?}");
    }

    #[test]
    fn a_sequence_does_not_depend_on_its_batch() {
        let config = config(1.0, 0, 0.95, 0.0);
        let logits = |t: usize| -> Vec<f32> {
            (0..50)
                .map(|i| ((i * 7 + t * 13) % 31) as f32 / 8.0)
                .collect()
        };
        let mut alone = Sampler::new(&config, 2).unwrap();
        let expected: Vec<u32> = (0..40)
            .map(|t| alone.sample(&logits(t), &[]).unwrap())
            .collect();
        let mut batch: Vec<Sampler> = (0..4).map(|s| Sampler::new(&config, s).unwrap()).collect();
        let mut found = Vec::new();
        let mut other = Vec::new();
        for t in 0..40 {
            let row: Vec<u32> = batch
                .iter_mut()
                .map(|s| s.sample(&logits(t), &[]).unwrap())
                .collect();
            found.push(row[2]);
            other.push(row[3]);
        }
        assert_eq!(found, expected);
        assert_ne!(found, other);
    }

    #[test]
    fn extreme_settings_stay_in_bounds() {
        // 1/T overflows; the two largest share everything.
        let p = distribution(&config(1e-320, 0, 1.0, 0.0), &LOGITS, &[]);
        assert_eq!((p[0], p[3]), (0.5, 0.5));
        let p = distribution(&config(1.0, 1_000, 1e-12, 1.0), &LOGITS, &[]);
        assert_eq!(p[0], 1.0);
        let p = distribution(
            &config(1e300, 0, 1.0, 0.0),
            &[1.0, f32::NEG_INFINITY, -9.0],
            &[],
        );
        assert_eq!(p, [0.5, 0.0, 0.5]);
        let masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        let mut sampler = Sampler::new(&config(5.0, 0, 1.0, 0.0), 0).unwrap();
        for _ in 0..100 {
            assert_eq!(sampler.sample(&masked, &[]).unwrap(), 1);
        }
    }

    #[test]
    fn bad_logits_are_errors() {
        let mut sampler = Sampler::new(&config(1.0, 0, 1.0, 0.0), 0).unwrap();
        assert_eq!(sampler.sample(&[], &[]), Err(SampleError::Empty));
        let error = sampler.sample(&[0.0, f32::NAN, 1.0], &[]).unwrap_err();
        assert!(error.to_string().contains("token 1 is NaN"), "{error}");
        assert!(matches!(
            sampler.sample(&[f32::INFINITY], &[]),
            Err(SampleError::NotFinite { token: 0, .. })
        ));
        assert_eq!(
            sampler.sample(&[f32::NEG_INFINITY; 3], &[]),
            Err(SampleError::AllMasked { vocab: 3 })
        );
        let config = SamplingConfig {
            repetition_penalty: 1.1,
            ..SamplingConfig::default()
        };
        let mut sampler = Sampler::new(&config, 0).unwrap();
        assert_eq!(
            sampler.sample(&LOGITS, &[8]),
            Err(SampleError::HistoryOutOfRange { token: 8, vocab: 8 })
        );
    }
}
