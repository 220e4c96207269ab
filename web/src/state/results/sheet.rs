//! CSV files: scores of a run, runs of an experiment, examples; any other one is shown as it is.

use crate::state::chart::BarInput;
use crate::state::evaluate::metric_title;
use crate::state::numbers;

use super::{Bars, Grid, MOST_ROWS, Opened, ResultsError, examples};

pub(super) fn open(name: &str, text: &str) -> Result<Opened, ResultsError> {
    let grid = grid(name, text)?;
    let starts = |names: &[&str]| {
        grid.header.len() > names.len() && names.iter().zip(&grid.header).all(|(n, h)| n == h)
    };
    if starts(&["source", "prompt", "reference"]) {
        return Ok(examples::open(&grid));
    }
    let (kind, bars) = match grid.header.first().map(String::as_str) {
        Some("metric") => ("scores", scores(&grid)),
        Some("run") if starts(&["run", "model"]) => ("several runs", runs(&grid)),
        _ => ("a table", Vec::new()),
    };
    Ok(Opened {
        kind,
        facts: vec![("Rows".to_owned(), numbers::count(grid.rows.len() as u64))],
        bars,
        grids: vec![shortened(grid)],
        ..Opened::default()
    })
}

fn grid(name: &str, text: &str) -> Result<Grid, ResultsError> {
    let line = |e: &csv::Error| e.position().map_or(0, csv::Position::line);
    let bad = |e: csv::Error| ResultsError::Line {
        name: name.to_owned(),
        line: line(&e),
        problem: e.to_string(),
    };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let owned = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
    let header: Vec<String> = owned(reader.headers().map_err(bad)?);
    let rows: Result<Vec<Vec<String>>, csv::Error> =
        reader.records().map(|r| r.map(|r| owned(&r))).collect();
    let rows = rows.map_err(bad)?;
    if rows.is_empty() {
        return Err(ResultsError::Empty {
            name: name.to_owned(),
            expected: "rows under a header",
        });
    }
    Ok(Grid {
        caption: name.to_owned(),
        header,
        rows,
    })
}

/// Numbers as the page writes them; a table of thousands of rows is cut, and says so.
fn shortened(mut grid: Grid) -> Grid {
    let rows = grid.rows.len();
    if rows > MOST_ROWS {
        grid.rows.truncate(MOST_ROWS);
        grid.caption = format!(
            "{}, the first {MOST_ROWS} of {} rows",
            grid.caption,
            numbers::count(rows as u64)
        );
    }
    for cell in grid.rows.iter_mut().flatten() {
        // Only what has a fraction: counts and seeds stay as they are.
        if let (true, Ok(number)) = (cell.contains('.'), cell.parse::<f64>()) {
            *cell = numbers::score(number);
        }
    }
    grid
}

fn number(grid: &Grid, row: &[String], column: &str) -> Option<f64> {
    let at = grid.header.iter().position(|h| h == column)?;
    row.get(at)?.parse().ok()
}

fn bar(grid: &Grid, row: &[String], column: &str, name: &str, kind: usize) -> Option<BarInput> {
    let end = |which: &str| number(grid, row, &format!("{column}_{which}"));
    Some(BarInput {
        name: name.to_owned(),
        value: number(grid, row, column)?,
        interval: end("low").zip(end("high")).map(|(low, high)| [low, high]),
        kind,
    })
}

/// Columns that have their interval beside them, and so are measured values; not differences, which have none of a model.
fn measured(grid: &Grid) -> Vec<String> {
    let has = |name: String| grid.header.contains(&name);
    let whole =
        |h: &&String| *h != "difference" && has(format!("{h}_low")) && has(format!("{h}_high"));
    grid.header.iter().filter(whole).cloned().collect()
}

fn titled(metric: &str, bars: Vec<BarInput>) -> Option<Bars> {
    let better = if numbers::lower_is_better(metric) {
        "lower"
    } else {
        "higher"
    };
    (!bars.is_empty()).then(|| Bars {
        title: format!("{} ({better} is better)", metric_title(metric)),
        bars,
    })
}

/// `scores.csv`: a metric each row, a model each column.
fn scores(grid: &Grid) -> Vec<Bars> {
    let models = measured(grid);
    let of = |row: &Vec<String>| {
        let bars = models.iter().enumerate();
        titled(
            row.first()?,
            bars.filter_map(|(at, m)| bar(grid, row, m, m, at.min(4)))
                .collect(),
        )
    };
    grid.rows.iter().filter_map(of).collect()
}

/// `experiments.csv`: a run each row, a metric each column.
fn runs(grid: &Grid) -> Vec<Bars> {
    let of = |metric: &String| {
        let bars = grid.rows.iter().filter_map(|row| {
            let kind = usize::from(row.get(1).is_some_and(|model| model != "base"));
            bar(grid, row, metric, row.first()?, kind)
        });
        titled(metric, bars.collect())
    };
    measured(grid).iter().filter_map(of).collect()
}
