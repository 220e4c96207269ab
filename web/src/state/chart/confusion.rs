//! A confusion matrix: true classes down, predicted ones across, shaded by the share of their row.

use super::shade;

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Examples in it.
    pub count: u64,
    /// How deep it is shaded, by its share of the row.
    pub shade: usize,
    /// Whether it lies on the diagonal.
    pub right: bool,
}

/// A matrix to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionChart {
    /// Names of the columns: the classes, and one for answers that name none where there are such.
    pub columns: Vec<String>,
    /// Name and cells of each row.
    pub rows: Vec<(String, Vec<Cell>)>,
    /// The same in words.
    pub summary: String,
}

impl ConfusionChart {
    /// The matrix of `rows`, whose cells may have one column more than there are labels; `None` where there are no labels
    /// or the shape is another.
    #[must_use]
    pub fn new(labels: &[String], rows: &[Vec<u64>]) -> Option<Self> {
        let fits = |row: &Vec<u64>| row.len() == labels.len() || row.len() == labels.len() + 1;
        if labels.is_empty() || rows.len() != labels.len() || !rows.iter().all(fits) {
            return None;
        }
        let unnamed = rows
            .iter()
            .any(|row| row.get(labels.len()).is_some_and(|n| *n > 0));
        let width = labels.len() + usize::from(unnamed);
        let mut columns = labels.to_vec();
        if unnamed {
            columns.push("none of them".to_owned());
        }
        let cells = |(at, row): (usize, &Vec<u64>)| {
            let sum: u64 = row.iter().sum();
            let cell = |(column, count): (usize, &u64)| Cell {
                count: *count,
                shade: shade(*count as f64 / sum.max(1) as f64),
                right: column == at,
            };
            row.iter().take(width).enumerate().map(cell).collect()
        };
        let named = rows
            .iter()
            .enumerate()
            .map(|r| (labels[r.0].clone(), cells(r)));
        Some(Self {
            columns,
            rows: named.collect(),
            summary: summary(labels, rows),
        })
    }
}

fn summary(labels: &[String], rows: &[Vec<u64>]) -> String {
    let said: Vec<String> = labels
        .iter()
        .zip(rows)
        .enumerate()
        .map(|(at, (label, row))| {
            format!("{label} {} of {} right", row[at], row.iter().sum::<u64>())
        })
        .collect();
    format!("{}.", said.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shaded_by_row() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let chart = ConfusionChart::new(&labels, &[vec![3, 1, 0], vec![0, 0, 2]]).unwrap();
        assert_eq!(chart.columns, ["a", "b", "none of them"]);
        assert_eq!(
            chart.rows[0].1[0],
            Cell {
                count: 3,
                shade: 7,
                right: true
            }
        );
        assert_eq!(chart.rows[1].1[2].shade, 9);
        assert_eq!(chart.summary, "a 3 of 4 right, b 0 of 2 right.");
        let plain = ConfusionChart::new(&labels, &[vec![1, 0, 0], vec![0, 1, 0]]).unwrap();
        assert_eq!(plain.columns.len(), 2);
    }

    #[test]
    fn other_shapes_are_refused() {
        let labels = ["a".to_owned()];
        assert_eq!(ConfusionChart::new(&labels, &[vec![1, 2, 3]]), None);
        assert_eq!(ConfusionChart::new(&[], &[]), None);
    }
}
