//! Which examples form which batch of which epoch, and the padded arrays of a batch.
//!
//! The order depends on (seed, epoch) alone: a resumed run rebuilds the plan of its epoch and skips what it has done.

use super::config::DataConfig;
use super::error::DataError;
use super::example::{Batch, Example, IGNORE};
use super::packing::pack_in_order;
use super::rng::{Purpose, generator, shuffle};

/// Length bucketing sorts within groups of this many batches, so that batches stay random across epochs.
const GROUP: usize = 50;

/// How batches are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Rows per batch; the last batch of an epoch may have fewer.
    pub batch_size: usize,
    /// Width of a packed row in tokens; `None`: one example per row.
    pub packing: Option<usize>,
    /// Batches of similar length.
    pub group_by_length: bool,
    /// A new order every epoch.
    pub shuffle: bool,
    /// Seed of the order.
    pub seed: u64,
}

impl BatchOptions {
    /// From a `[data]` section.
    #[must_use]
    pub fn from_config(config: &DataConfig, batch_size: usize, max_length: usize) -> Self {
        Self {
            batch_size,
            packing: config.packing.then_some(max_length),
            group_by_length: config.group_by_length,
            shuffle: config.shuffle,
            seed: config.seed,
        }
    }

    /// For evaluation: in order, one example per row.
    #[must_use]
    pub fn sequential(batch_size: usize) -> Self {
        Self {
            batch_size,
            packing: None,
            group_by_length: false,
            shuffle: false,
            seed: 0,
        }
    }
}

/// The batches of every epoch.
#[derive(Debug, Clone)]
pub struct BatchPlan {
    lengths: Vec<usize>,
    options: BatchOptions,
    rows: usize,
}

impl BatchPlan {
    /// A plan for `examples`.
    ///
    /// # Errors
    /// [`DataError::Empty`] without examples, [`DataError::Config`] for a batch size of 0,
    /// [`DataError::PackTooLong`] when an example exceeds the packed width.
    pub fn new(examples: &[Example], options: BatchOptions) -> Result<Self, DataError> {
        Self::from_lengths(examples.iter().map(Example::len).collect(), options)
    }

    /// As [`new`](Self::new), from the examples' lengths in tokens.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_lengths(lengths: Vec<usize>, options: BatchOptions) -> Result<Self, DataError> {
        if lengths.is_empty() {
            return Err(DataError::Empty {
                what: "the data set".to_owned(),
            });
        }
        if options.batch_size == 0 {
            return Err(DataError::Config {
                key: "batch_size".to_owned(),
                reason: "0 rows per batch; choose 1 or more".to_owned(),
            });
        }
        let rows = match options.packing {
            Some(width) => super::packing::pack(&lengths, width)?.len(),
            None => lengths.len(),
        };
        Ok(Self {
            lengths,
            options,
            rows,
        })
    }

    /// Batches per epoch, the same for every epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> usize {
        self.rows.div_ceil(self.options.batch_size)
    }

    /// Rows per epoch: examples, or packed rows.
    #[must_use]
    pub fn rows_per_epoch(&self) -> usize {
        self.rows
    }

    /// The batches of `epoch` (from 0). A batch is a list of rows, a row a list of example indices; every example
    /// occurs exactly once.
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<Vec<usize>>> {
        let mut rng = generator(self.options.seed, Purpose::Epoch(epoch));
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        if self.options.shuffle {
            shuffle(&mut order, &mut rng);
        }
        let mut rows: Vec<Vec<usize>> = match self.options.packing {
            // Cannot fail: `from_lengths` has packed these lengths already.
            Some(width) => pack_in_order(&self.lengths, width, &order).unwrap_or_default(),
            None => order.into_iter().map(|i| vec![i]).collect(),
        };
        if self.options.packing.is_some() && self.options.shuffle {
            shuffle(&mut rows, &mut rng);
        }
        if self.options.group_by_length {
            let length = |row: &Vec<usize>| row.iter().map(|&i| self.lengths[i]).sum::<usize>();
            for group in rows.chunks_mut(GROUP * self.options.batch_size) {
                group.sort_by_key(|row| std::cmp::Reverse(length(row)));
            }
        }
        let mut batches: Vec<Vec<Vec<usize>>> = rows
            .chunks(self.options.batch_size)
            .map(<[Vec<usize>]>::to_vec)
            .collect();
        if self.options.group_by_length && self.options.shuffle {
            shuffle(&mut batches, &mut rng);
        }
        batches
    }
}

/// How a batch is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollateOptions {
    /// Id written into padding; any valid id will do.
    pub pad_id: u32,
    /// Width is rounded up to a multiple of this.
    pub multiple_of: usize,
    /// At least this width: a fixed shape for devices that compile per shape.
    pub min_width: usize,
}

impl CollateOptions {
    /// Padding to the longest row with `pad_id`.
    #[must_use]
    pub fn new(pad_id: u32) -> Self {
        Self {
            pad_id,
            multiple_of: 1,
            min_width: 0,
        }
    }
}

/// The arrays of a batch. `rows` is an element of [`BatchPlan::epoch`]; an index beyond `examples` is left out.
#[must_use]
pub fn collate(examples: &[Example], rows: &[Vec<usize>], options: CollateOptions) -> Batch {
    let longest = rows
        .iter()
        .map(|row| {
            row.iter()
                .filter_map(|&i| examples.get(i))
                .map(Example::len)
                .sum()
        })
        .max()
        .unwrap_or(0);
    let width = longest
        .max(options.min_width)
        .next_multiple_of(options.multiple_of.max(1));
    let size = rows.len() * width;
    let typed = rows
        .iter()
        .flatten()
        .filter_map(|&i| examples.get(i))
        .any(|e| !e.token_type_ids.is_empty());
    let mut batch = Batch {
        rows: rows.len(),
        width,
        input_ids: vec![options.pad_id; size],
        labels: vec![IGNORE; size],
        token_type_ids: if typed { vec![0; size] } else { Vec::new() },
        position_ids: vec![0; size],
        segment_ids: vec![0; size],
        target_tokens: 0,
        examples: Vec::new(),
        classes: Vec::new(),
    };
    for (r, row) in rows.iter().enumerate() {
        let mut at = r * width;
        let documents = row.iter().filter_map(|&i| Some((i, examples.get(i)?)));
        for (segment, (index, example)) in documents.enumerate() {
            let end = at + example.len();
            batch.input_ids[at..end].copy_from_slice(&example.input_ids);
            batch.labels[at..end].copy_from_slice(&example.labels);
            if !example.token_type_ids.is_empty() {
                batch.token_type_ids[at..end].copy_from_slice(&example.token_type_ids);
            }
            batch.segment_ids[at..end].fill(segment as u32 + 1);
            for (position, slot) in batch.position_ids[at..end].iter_mut().enumerate() {
                *slot = position as u32;
            }
            if let Some(first) = batch.labels[at..end].first_mut() {
                *first = IGNORE; // nothing of this document precedes it
            }
            batch.target_tokens += example.target_tokens();
            batch.examples.push(index);
            batch.classes.extend(example.class);
            at = end;
        }
    }
    batch
}
