//! Windows over a text longer than the model's context, so that every token is scored once with much context before it.
//!
//! A window of `window` tokens moves by `stride`; each scores only the tokens the one before did not reach, and uses the
//! others as context. With `stride = window` tokens at a window's start have no context and the loss is too high; with a
//! small stride nearly all have it, at `window / stride` times the work. Half the window is usual (Hugging Face's
//! guide to perplexity of fixed-length models).
//!
//! ```text
//! window 6, stride 3, 12 tokens        . context   # scored   _ first token: nothing predicts it
//! 0  _ # # # # #
//! 1        . . . # # #
//! 2              . . . # # #
//! ```
//!
//! Hugging Face's sample code takes one token off every window's count for the shift of labels, also where none is lost;
//! here each token after the first counts once.

use thiserror::Error;

/// Settings under which no window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StrideError {
    /// Nothing to predict from.
    #[error("a window of {window} tokens, expected at least 2; the model's context is usual")]
    Window {
        /// Its length.
        window: usize,
    },
    /// A stride that stands still or leaves tokens out.
    #[error(
        "a stride of {stride} tokens for a window of {window}, expected 1 to {window}; half the window is usual"
    )]
    Stride {
        /// The stride.
        stride: usize,
        /// The window.
        window: usize,
    },
}

/// A stretch of the text, and where in it scoring begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first token.
    pub begin: usize,
    /// One past its last token.
    pub end: usize,
    /// The first token scored, counted in the text; never a window's own first.
    pub scored_from: usize,
}

/// The windows over a text of `length` tokens; none where there is nothing to predict.
///
/// # Errors
/// A window below 2, or a stride outside 1 to `window`.
pub fn windows(length: usize, window: usize, stride: usize) -> Result<Vec<Window>, StrideError> {
    if window < 2 {
        return Err(StrideError::Window { window });
    }
    if stride == 0 || stride > window {
        return Err(StrideError::Stride { stride, window });
    }
    let mut all = Vec::new();
    let (mut begin, mut reached) = (0, 0);
    while reached < length {
        let end = (begin + window).min(length);
        // A window's first token has nothing before it to be predicted from.
        let scored_from = reached.max(begin + 1);
        if scored_from < end {
            all.push(Window {
                begin,
                end,
                scored_from,
            });
        }
        reached = end;
        begin += stride;
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn plan(length: usize, window: usize, stride: usize) -> Vec<(usize, usize, usize)> {
        let all = windows(length, window, stride).unwrap();
        all.iter()
            .map(|w| (w.begin, w.end, w.scored_from))
            .collect()
    }

    #[test]
    fn the_figure() {
        assert_eq!(plan(12, 6, 3), [(0, 6, 1), (3, 9, 6), (6, 12, 9)]);
        assert_eq!(
            plan(13, 6, 3),
            [(0, 6, 1), (3, 9, 6), (6, 12, 9), (9, 13, 12)]
        );
        // No overlap: the first token of each window is lost.
        assert_eq!(plan(12, 6, 6), [(0, 6, 1), (6, 12, 7)]);
        assert_eq!(plan(13, 6, 6), [(0, 6, 1), (6, 12, 7)]);
        assert_eq!(plan(5, 6, 3), [(0, 5, 1)]);
        assert_eq!(plan(1, 6, 3), []);
        assert_eq!(plan(0, 6, 3), []);
    }

    #[test]
    fn with_overlap_every_token_but_the_first_is_scored_once() {
        for length in 0..40 {
            for window in 2..12 {
                for stride in 1..window {
                    let mut scored = vec![0; length];
                    for w in windows(length, window, stride).unwrap() {
                        assert!(w.end - w.begin <= window && w.scored_from > w.begin);
                        scored[w.scored_from..w.end]
                            .iter_mut()
                            .for_each(|s| *s += 1);
                    }
                    let once = scored.iter().skip(1).all(|&s| s == 1);
                    assert!(
                        once && scored.first().is_none_or(|&s| s == 0),
                        "{length} {window} {stride}"
                    );
                }
            }
        }
    }

    #[test]
    fn settings_that_do_not_move_are_refused() {
        assert_eq!(windows(9, 1, 1), Err(StrideError::Window { window: 1 }));
        assert_eq!(
            windows(9, 4, 0),
            Err(StrideError::Stride {
                stride: 0,
                window: 4
            })
        );
        assert!(windows(9, 4, 5).unwrap_err().to_string().contains("1 to 4"));
    }
}
