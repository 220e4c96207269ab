//! What BERT and DistilBERT call the same tensors in a classifier's checkpoint.

use super::Family;

/// Names of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    family: Family,
}

/// Module paths of one block.
#[derive(Clone, Debug)]
pub(crate) struct BlockNames {
    pub(crate) query: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) output: String,
    pub(crate) attention_norm: String,
    pub(crate) up: String,
    pub(crate) down: String,
    pub(crate) output_norm: String,
}

impl Names {
    pub(crate) fn new(family: Family) -> Self {
        Self { family }
    }

    /// What stands before every tensor of the encoder in a classifier.
    pub(crate) fn prefix(&self) -> &'static str {
        match self.family {
            Family::Bert => "bert.",
            Family::DistilBert => "distilbert.",
        }
    }

    /// What stands before a block's index.
    pub(crate) fn blocks(&self) -> &'static str {
        match self.family {
            Family::Bert => "bert.encoder.layer.",
            Family::DistilBert => "distilbert.transformer.layer.",
        }
    }

    /// What stands before the tensors of the embeddings.
    pub(crate) fn embeddings(&self) -> &'static str {
        match self.family {
            Family::Bert => "bert.embeddings.",
            Family::DistilBert => "distilbert.embeddings.",
        }
    }

    pub(crate) fn word_embeddings(&self) -> String {
        format!("{}word_embeddings.weight", self.embeddings())
    }

    pub(crate) fn position_embeddings(&self) -> String {
        format!("{}position_embeddings.weight", self.embeddings())
    }

    pub(crate) fn type_embeddings(&self) -> String {
        format!("{}token_type_embeddings.weight", self.embeddings())
    }

    pub(crate) fn embedding_norm(&self) -> String {
        format!("{}LayerNorm", self.embeddings())
    }

    /// The linear between the first token's state and the classifier.
    pub(crate) fn head_dense(&self) -> &'static str {
        match self.family {
            Family::Bert => "bert.pooler.dense",
            Family::DistilBert => "pre_classifier",
        }
    }

    /// The linear that gives a logit per class.
    pub(crate) fn classifier(&self) -> &'static str {
        "classifier"
    }

    pub(crate) fn block(&self, index: usize) -> BlockNames {
        let at = |name: &str| format!("{}{index}.{name}", self.blocks());
        match self.family {
            Family::Bert => BlockNames {
                query: at("attention.self.query"),
                key: at("attention.self.key"),
                value: at("attention.self.value"),
                output: at("attention.output.dense"),
                attention_norm: at("attention.output.LayerNorm"),
                up: at("intermediate.dense"),
                down: at("output.dense"),
                output_norm: at("output.LayerNorm"),
            },
            Family::DistilBert => BlockNames {
                query: at("attention.q_lin"),
                key: at("attention.k_lin"),
                value: at("attention.v_lin"),
                output: at("attention.out_lin"),
                attention_norm: at("sa_layer_norm"),
                up: at("ffn.lin1"),
                down: at("ffn.lin2"),
                output_norm: at("output_layer_norm"),
            },
        }
    }
}
