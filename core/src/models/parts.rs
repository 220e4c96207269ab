//! A model in parts that can be loaded one after another, so that nobody holds a whole checkpoint: the embedding, each
//! block, and what follows the last.

use std::collections::BTreeSet;
use std::fmt;

use crate::weights::WeightSource;

/// One part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What stands before the first block.
    Embedding,
    /// The block of this index.
    Block(usize),
    /// What stands after the last block: final norm and head of a language model; the classification head of an encoder.
    Head,
}

impl Part {
    /// The parts of a model of `blocks` blocks, first to last.
    pub(crate) fn all(blocks: usize) -> Vec<Self> {
        let inner = (0..blocks).map(Self::Block);
        [Self::Embedding]
            .into_iter()
            .chain(inner)
            .chain([Self::Head])
            .collect()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("embedding"),
            Self::Block(index) => write!(f, "block {index}"),
            Self::Head => f.write_str("head"),
        }
    }
}

/// The tensors of `source` that are among `wanted` or accompany one of them (the scales of a packed `X.weight` are
/// `X.weight.absmax` and so on), sorted.
pub(crate) fn stored(
    wanted: impl IntoIterator<Item = String>,
    source: &dyn WeightSource,
) -> Vec<String> {
    let wanted: BTreeSet<String> = wanted.into_iter().collect();
    let belongs = |name: &String| {
        let heads = name.match_indices('.').map(|(at, _)| &name[..at]);
        wanted.contains(name) || heads.into_iter().any(|head| wanted.contains(head))
    };
    source.names().into_iter().filter(belongs).collect()
}
