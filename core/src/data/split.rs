//! Held-out rows and subsets: deterministic, and stratified where a column is named.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::{DataConfig, Share};
use super::error::DataError;
use super::records::Row;
use super::rng::{Purpose, permutation};

/// Indices of the rows that `share` asks for, in ascending order. With `stratify_by`, each value's number of rows is
/// its proportional share, rounded by largest remainder so that the numbers add up.
///
/// # Errors
/// [`DataError::Config`] naming `key` when there are too few rows; [`DataError::MissingField`] for a row without the
/// stratifying column.
pub fn sample_rows(
    rows: &[Row],
    share: &Share,
    seed: u64,
    key: &str,
) -> Result<Vec<usize>, DataError> {
    let wanted = share.resolve(rows.len(), key)?;
    let order = permutation(rows.len(), seed, Purpose::Split);
    let mut taken: Vec<usize> = match &share.stratify_by {
        None => order.into_iter().take(wanted).collect(),
        Some(field) => {
            let mut strata: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for index in order {
                strata
                    .entry(stratum(&rows[index], field)?)
                    .or_default()
                    .push(index);
            }
            let sizes: Vec<usize> = strata.values().map(Vec::len).collect();
            let quotas = largest_remainder(&sizes, wanted);
            strata
                .into_values()
                .zip(quotas)
                .flat_map(|(indices, quota)| indices.into_iter().take(quota))
                .collect()
        }
    };
    taken.sort_unstable();
    Ok(taken)
}

/// `(training rows, held-out rows)` as `split` and `subset` say. The split comes first, so that runs on subsets of
/// different size share their held-out rows. Give `has_eval` when held-out rows come from files of their own: `split`
/// is then not used.
///
/// # Errors
/// As [`sample_rows`], and [`DataError::Config`] when `split` leaves nothing to train on.
pub fn split_rows(
    rows: Vec<Row>,
    config: &DataConfig,
    has_eval: bool,
) -> Result<(Vec<Row>, Vec<Row>), DataError> {
    let (mut train, mut held) = (rows, Vec::new());
    if let Some(share) = config.split.as_ref().filter(|_| !has_eval) {
        let taken = sample_rows(&train, share, config.seed, "split")?;
        if taken.len() == train.len() {
            return Err(DataError::Config {
                key: "split".to_owned(),
                reason: format!(
                    "holds out all {} rows and leaves none to train on; choose fewer",
                    train.len()
                ),
            });
        }
        (held, train) = partition(train, &taken);
    }
    if let Some(share) = &config.subset {
        let taken = sample_rows(&train, share, config.seed, "subset")?;
        train = partition(train, &taken).0;
    }
    Ok((train, held))
}

/// Rows at the (ascending) indices, and the others.
fn partition(rows: Vec<Row>, taken: &[usize]) -> (Vec<Row>, Vec<Row>) {
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    let mut next = taken.iter().copied().peekable();
    for (i, row) in rows.into_iter().enumerate() {
        if next.next_if_eq(&i).is_some() {
            chosen.push(row);
        } else {
            rest.push(row);
        }
    }
    (chosen, rest)
}

fn stratum(row: &Row, field: &str) -> Result<String, DataError> {
    match row.record.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Ok(other.to_string()),
        None => Err(DataError::MissingField {
            at: row.source.clone(),
            format: "stratify_by",
            field: field.to_owned(),
            found: row.record.keys().cloned().collect(),
            hint: "Name one of these columns in stratify_by".into(),
        }),
    }
}

/// `wanted` in proportion to `sizes`, each at most its size.
fn largest_remainder(sizes: &[usize], wanted: usize) -> Vec<usize> {
    let total = sizes.iter().sum::<usize>().max(1) as u128;
    let exact = |size: usize| size as u128 * wanted as u128;
    let mut quotas: Vec<usize> = sizes.iter().map(|&s| (exact(s) / total) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(exact(sizes[i]) % total), i));
    let missing = wanted.saturating_sub(quotas.iter().sum());
    for &i in order.iter().take(missing) {
        quotas[i] += 1;
    }
    quotas
}
