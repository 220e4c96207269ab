//! How a fresh pair starts, one file each. Source of the names and formulas: PEFT's `init_lora_weights`.
//!
//! | name | `A` | `B` | the base | file |
//! |---|---|---|---|---|
//! | `default` | uniform | 0 | unchanged | `random.rs` |
//! | `gaussian` | normal | 0 | unchanged | `random.rs` |
//! | `pissa` | principal part of `W` | principal part of `W` | keeps the rest | `principal.rs` |
//! | `loftq` | part of the quantization error | part of the quantization error | quantized anew where `loftq_iter > 1` | `loftq.rs` |
//!
//! A base is never changed in place. Where an initialization takes something from it, [`Taken`] says how: either the
//! pair taken is subtracted while training and folded into the saved adapter, which then fits the original base (what
//! PEFT's conversion does), or the rest is quantized anew and written as a base of its own beside the adapter.

mod base;
mod loftq;
mod principal;
mod random;
mod residual;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use base::BaseWeights;
pub use loftq::loftq;
pub use principal::{fold, principal};
pub(crate) use random::{gaussian, uniform};
pub use residual::ResidualSource;

use crate::adapters::LoraModule;

/// What an initialization took from the base's weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Taken {
    /// Nothing: the base stays as it is.
    #[default]
    Nothing,
    /// These pairs, which are subtracted while training and folded into the saved adapter.
    Subtracted(Vec<LoraModule>),
    /// These pairs, before the weights were quantized: a base of its own.
    Requantized(Vec<LoraModule>),
}

/// How a fresh adapter starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Init {
    /// `A` uniform in `±1/sqrt(in)` (PyTorch's `kaiming_uniform_(a=sqrt(5))`), `B` zero: training starts at the base.
    #[default]
    Default,
    /// `A` normal with deviation `1 / rank`, `B` zero.
    Gaussian,
    /// The principal singular vectors of `W` become the pair, the rest of `W` the base. Meng et al., arXiv 2404.02948.
    /// `pissa_niter_N` is accepted as PEFT's name for an approximate decomposition; here the exact one is fast too, and
    /// is what both names give.
    Pissa,
    /// The pair makes up for what quantization lost. Li et al., arXiv 2310.08659.
    Loftq,
}

impl Init {
    /// Whether it decomposes a weight of the base.
    pub fn reads_weights(self) -> bool {
        !matches!(self, Self::Default | Self::Gaussian)
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Gaussian => f.write_str("gaussian"),
            Self::Pissa => f.write_str("pissa"),
            Self::Loftq => f.write_str("loftq"),
        }
    }
}

impl FromStr for Init {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fast = text.strip_prefix("pissa_niter_").map(str::parse);
        match (text, fast) {
            ("default", _) => Ok(Self::Default),
            ("gaussian", _) => Ok(Self::Gaussian),
            ("pissa", _) => Ok(Self::Pissa),
            ("loftq", _) => Ok(Self::Loftq),
            (_, Some(Ok(1usize..))) => Ok(Self::Pissa),
            _ => Err(format!(
                "init = {text:?}: expected default, gaussian, pissa, pissa_niter_N (N iterations, at least 1) or loftq"
            )),
        }
    }
}

impl TryFrom<String> for Init {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Init> for String {
    fn from(init: Init) -> Self {
        init.to_string()
    }
}
