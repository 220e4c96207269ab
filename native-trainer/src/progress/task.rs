//! Progress of one piece of work with a known size: a download, an evaluation, a quantization.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{LINE_EVERY, Mode, SHOW_AFTER, Throttle};
use crate::report::numbers;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Examples, tensors, files.
    Items,
    /// Bytes of a download or a file.
    Bytes,
}

/// A bar, or now and then a line; see the module [above](super).
#[derive(Debug)]
pub(crate) struct Task {
    label: String,
    unit: Unit,
    mode: Mode,
    total: u64,
    done: u64,
    start: Instant,
    bar: ProgressBar,
    drawn: bool,
    lines: Throttle,
}

impl Task {
    /// Starts work named `label` of `total` units.
    pub(crate) fn start(mode: Mode, label: &str, total: u64, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let template = match unit {
            Unit::Items => "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len} {eta} left",
            Unit::Bytes => {
                "{msg} {wide_bar:.cyan/dim} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left"
            }
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(label.to_owned());
        let now = Instant::now();
        Self {
            label: label.to_owned(),
            unit,
            mode,
            total,
            done: 0,
            start: now,
            bar,
            drawn: false,
            lines: Throttle::new(LINE_EVERY, now),
        }
    }

    /// `units` more are done.
    pub(crate) fn advance(&mut self, units: u64) {
        self.at(self.done + units);
    }

    /// `done` units are done in all.
    pub(crate) fn at(&mut self, done: u64) {
        self.done = done;
        self.bar.set_position(done);
        match self.mode {
            Mode::Bar if !self.drawn && self.start.elapsed() >= SHOW_AFTER => {
                self.bar
                    .set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
                self.drawn = true;
            }
            Mode::Lines if self.lines.ready(Instant::now()) => eprintln!("{}", self.line()),
            _ => {}
        }
    }

    /// Removes the bar; what was done is said by the caller's result.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn line(&self) -> String {
        let show = match self.unit {
            Unit::Items => numbers::count,
            Unit::Bytes => numbers::bytes,
        };
        let percent = match self.total {
            0 => String::new(),
            total => format!(" ({} %)", self.done.saturating_mul(100) / total),
        };
        format!(
            "{}: {} of {}{percent}",
            self.label,
            show(self.done),
            show(self.total)
        )
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // An error on the way must not leave half a bar in front of its message.
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_the_work_and_how_far_it_is() {
        let mut task = Task::start(Mode::Quiet, "quantizing", 201, Unit::Items);
        task.advance(50);
        task.advance(50);
        assert_eq!(task.line(), "quantizing: 100 of 201 (49 %)");
        let mut task = Task::start(Mode::Quiet, "model.safetensors", 3 << 20, Unit::Bytes);
        task.at(1536 * 1024);
        assert_eq!(task.line(), "model.safetensors: 1.5 MiB of 3.0 MiB (50 %)");
        let task = Task::start(Mode::Quiet, "reading", 0, Unit::Items);
        assert_eq!(task.line(), "reading: 0 of 0");
    }

    #[test]
    fn nothing_is_drawn_in_the_first_second() {
        let mut task = Task::start(Mode::Bar, "x", 10, Unit::Items);
        task.advance(1);
        assert!(!task.drawn);
        task.finish();
    }
}
