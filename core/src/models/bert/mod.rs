//! BERT and DistilBERT: encoders, and the head that classifies sequences.
//!
//! Sources: Devlin et al., "BERT", arXiv 1810.04805; Sanh et al., "DistilBERT", arXiv 1910.01108, which drops segments and
//! pooler and halves the layers. Blocks are post-norm, positions are learned, attention sees the whole document.
//!
//! | file | what |
//! |---|---|
//! | `config` | sizes and switches from `config.json` |
//! | `names` | what each family calls its tensors |
//! | `layout` | a batch without its padding, and what each token may see |
//! | `embeddings`, `attention`, `block` | the parts |
//! | `encoder` | the stack, and hidden states of any layer for embedding |
//! | `head`, `classifier` | from the first token's state to classes |
//! | `load`, `source` | from a checkpoint, with or without the family's prefix |

mod attention;
mod block;
mod classifier;
mod config;
mod embeddings;
mod encoder;
mod error;
mod head;
mod layout;
mod load;
mod names;
mod source;
#[cfg(test)]
mod tests;

pub use attention::Attention;
pub use block::Block;
pub use classifier::BertClassifier;
pub use config::{Activation, BertConfig, Family};
pub use embeddings::Embeddings;
pub use encoder::Bert;
pub use error::BertError;
pub use head::Head;
pub use layout::Layout;
pub use load::{BertBuilder, load_classifier, load_encoder};
pub use source::Prefixed;
