//! How rows are shown: filtered, sorted, a page at a time. For the rows of an evaluation and for opened CSV files alike.

use crate::protocol::EvalRow;

/// Rows shown at first, and added by "more".
pub const PAGE: usize = 50;

/// What the table is sorted by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they lie in the file.
    #[default]
    File,
    /// By a value of a column's model.
    Value {
        /// Index of the column.
        column: usize,
        /// The value.
        metric: String,
    },
}

/// Which rows are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// Those where the models' answers are not the same.
    Differing,
    /// Those that some model got wrong.
    Wrong,
    /// Those that the first model got wrong and another right.
    Gained,
    /// Those that the first model got right and another wrong.
    Lost,
}

/// A way to look at the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Text that a row must contain, in any case.
    pub search: String,
    /// Which rows are left.
    pub keep: Keep,
    /// What they are sorted by.
    pub order: Order,
    /// Largest first.
    pub descending: bool,
    /// Rows shown at most.
    pub shown: usize,
}

impl Default for View {
    fn default() -> Self {
        Self {
            search: String::new(),
            keep: Keep::All,
            order: Order::File,
            descending: false,
            shown: PAGE,
        }
    }
}

/// A value of a row.
#[must_use]
pub fn value(row: &EvalRow, column: usize, metric: &str) -> Option<f64> {
    let values = row.values.get(column)?;
    values
        .iter()
        .find(|(name, _)| name == metric)
        .map(|(_, v)| *v)
}

/// Names of the values that rows have, in the order they appear.
#[must_use]
pub fn value_names(rows: &[EvalRow]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in rows.iter().flat_map(|r| r.values.iter().flatten()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

impl View {
    /// Sorts by `order`, or the other way round where that is what it is sorted by.
    pub fn sort(&mut self, order: Order) {
        self.descending = self.order == order && !self.descending;
        self.order = order;
    }

    /// Indices of the rows to show, in order; all that are left, not only the first page.
    #[must_use]
    pub fn of(&self, rows: &[EvalRow]) -> Vec<usize> {
        let search = self.search.trim().to_lowercase();
        let mut found: Vec<usize> = (0..rows.len())
            .filter(|i| kept(&rows[*i], self.keep) && contains(&rows[*i], &search))
            .collect();
        if let Order::Value { column, metric } = &self.order {
            // Rows without the value come last either way.
            let key = |i: &usize| value(&rows[*i], *column, metric).filter(|v| !v.is_nan());
            found.sort_by(|a, b| match (key(a), key(b)) {
                (Some(x), Some(y)) if self.descending => y.total_cmp(&x),
                (Some(x), Some(y)) => x.total_cmp(&y),
                (x, y) => y.is_some().cmp(&x.is_some()),
            });
        } else if self.descending {
            found.reverse();
        }
        found
    }
}

fn contains(row: &EvalRow, search: &str) -> bool {
    let texts = [&row.prompt, &row.reference]
        .into_iter()
        .chain(row.answers.iter().flatten());
    search.is_empty() || texts.into_iter().any(|t| t.to_lowercase().contains(search))
}

/// Whether a model's answer is right: its `correct`, or what it scored by exact match.
fn right(row: &EvalRow, column: usize) -> Option<bool> {
    let found = value(row, column, "correct").or_else(|| value(row, column, "exact_match"))?;
    Some(found > 0.5)
}

fn kept(row: &EvalRow, keep: Keep) -> bool {
    let others = 1..row.values.len();
    let first = right(row, 0);
    match keep {
        Keep::All => true,
        Keep::Differing => row.answers.windows(2).any(|w| w[0] != w[1]),
        Keep::Wrong => (0..row.values.len()).any(|c| right(row, c) == Some(false)),
        Keep::Gained => {
            first == Some(false) && others.into_iter().any(|c| right(row, c) == Some(true))
        }
        Keep::Lost => {
            first == Some(true) && others.into_iter().any(|c| right(row, c) == Some(false))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row with two models, right or not, and their losses.
    pub(in crate::state) fn row(
        line: usize,
        prompt: &str,
        right: [bool; 2],
        loss: [f64; 2],
    ) -> EvalRow {
        let model = |c: usize| {
            vec![
                ("loss".to_owned(), loss[c]),
                ("correct".to_owned(), f64::from(u8::from(right[c]))),
            ]
        };
        EvalRow {
            line,
            prompt: prompt.to_owned(),
            reference: "yes".into(),
            answers: right
                .iter()
                .map(|r| Some(if *r { "yes" } else { "no" }.to_owned()))
                .collect(),
            values: vec![model(0), model(1)],
        }
    }

    fn rows() -> Vec<EvalRow> {
        vec![
            row(1, "The first", [true, true], [0.5, 0.4]),
            row(2, "a second", [false, true], [2.0, 0.1]),
            row(3, "a third", [true, false], [f64::NAN, 3.0]),
        ]
    }

    #[test]
    fn filters() {
        let with = |keep, search: &str| {
            View {
                keep,
                search: search.into(),
                ..View::default()
            }
            .of(&rows())
        };
        assert_eq!(with(Keep::All, ""), [0, 1, 2]);
        assert_eq!(with(Keep::All, "THE F"), [0]);
        assert_eq!(with(Keep::Differing, ""), [1, 2]);
        assert_eq!(with(Keep::Wrong, "second"), [1]);
        assert_eq!(with(Keep::Gained, ""), [1]);
        assert_eq!(with(Keep::Lost, ""), [2]);
    }

    #[test]
    fn sorting_turns_round_and_puts_missing_values_last() {
        let order = || Order::Value {
            column: 0,
            metric: "loss".into(),
        };
        let mut view = View::default();
        view.sort(order());
        assert_eq!(view.of(&rows()), [0, 1, 2]);
        view.sort(order());
        assert_eq!(view.of(&rows()), [1, 0, 2]);
        view.sort(Order::File);
        assert_eq!(view.of(&rows()), [0, 1, 2]);
        view.sort(Order::File);
        assert_eq!(view.of(&rows()), [2, 1, 0]);
        assert_eq!(value_names(&rows()), ["loss", "correct"]);
    }
}
