//! The training loop's progress: step, loss, learning rate, speed, time left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{LINE_EVERY, Mode, Throttle};
use crate::report::numbers;

/// Time left is estimated from this many last steps: a slow first step (kernels compile) is soon forgotten.
const WINDOW: usize = 50;

/// What one optimizer step shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepView {
    /// The step just taken, counted from 1.
    pub(crate) step: u64,
    /// The loss it descended on.
    pub(crate) loss: f64,
    /// The learning rate it used.
    pub(crate) lr: f64,
    /// Tokens through the model per second.
    pub(crate) tokens_per_s: f64,
}

/// The bar of a training run, or a line now and then.
#[derive(Debug)]
pub(crate) struct TrainingBar {
    mode: Mode,
    total: u64,
    bar: ProgressBar,
    lines: Throttle,
    recent: VecDeque<(u64, Instant)>,
}

impl TrainingBar {
    /// Starts at `first_step` (0, or the step a resumed run continues from) of `total`.
    pub(crate) fn start(mode: Mode, first_step: u64, total: u64) -> Self {
        let target = match mode {
            Mode::Bar => ProgressDrawTarget::stderr_with_hz(10),
            Mode::Lines | Mode::Quiet => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar:.cyan/dim} {msg}") {
            bar.set_style(style);
        }
        bar.set_message("first step");
        bar.set_position(first_step);
        let now = Instant::now();
        Self {
            mode,
            total,
            bar,
            lines: Throttle::new(LINE_EVERY, now),
            recent: VecDeque::from([(first_step, now)]),
        }
    }

    /// Shows a step that was just taken.
    pub(crate) fn step(&mut self, view: StepView) {
        let now = Instant::now();
        self.recent.push_back((view.step, now));
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        let text = describe(view, self.total, self.time_left(view.step));
        self.bar.set_position(view.step);
        let done = view.step >= self.total;
        if self.mode == Mode::Lines && (self.lines.ready(now) || done) {
            eprintln!("{text}");
        }
        self.bar.set_message(text);
    }

    /// Prints a message (an evaluation, a checkpoint, a warning) without tearing the bar.
    pub(crate) fn note(&self, text: &str) {
        if self.mode != Mode::Quiet {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn time_left(&self, step: u64) -> Option<Duration> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        let steps = last.0.checked_sub(first.0).filter(|n| *n > 0)?;
        let per_step = last.1.duration_since(first.1).as_secs_f64() / steps as f64;
        Duration::try_from_secs_f64(per_step * self.total.saturating_sub(step) as f64).ok()
    }
}

impl Drop for TrainingBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `step 12/300  loss 2.345  lr 2.0e-4  1,234 tok/s  1m 20s left`.
fn describe(view: StepView, total: u64, left: Option<Duration>) -> String {
    let left = match left {
        Some(left) if view.step < total => format!("  {} left", numbers::duration(left)),
        _ => String::new(),
    };
    format!(
        "step {}/{total}  loss {}  lr {}  {}{left}",
        view.step,
        numbers::score(view.loss),
        numbers::learning_rate(view.lr),
        numbers::tokens_per_second(view.tokens_per_s),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    const VIEW: StepView = StepView {
        step: 12,
        loss: 2.3451,
        lr: 2e-4,
        tokens_per_s: 1234.0,
    };

    #[test]
    fn a_line_holds_all_that_matters() {
        let text = describe(VIEW, 300, Some(Duration::from_secs(80)));
        assert_eq!(
            text,
            "step 12/300  loss 2.345  lr 2.0e-4  1,234 tok/s  1m 20s left"
        );
        let text = describe(VIEW, 12, Some(Duration::ZERO));
        assert!(!text.contains("left"), "{text}");
    }

    #[test]
    fn time_left_comes_from_recent_steps_only() {
        let mut bar = TrainingBar::start(Mode::Quiet, 100, 200);
        assert_eq!(bar.time_left(100), None);
        let start = Instant::now();
        bar.recent = (0..10)
            .map(|i| (100 + i, start + Duration::from_secs(2 * i)))
            .collect();
        assert_eq!(bar.time_left(109), Some(Duration::from_secs(182)));
        for step in 110..300 {
            bar.step(StepView { step, ..VIEW });
        }
        assert_eq!(bar.recent.len(), WINDOW);
    }
}
