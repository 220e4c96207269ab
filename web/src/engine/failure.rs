//! From the core's errors to what the page is told: a kind that decides what is offered, and the core's own words.

use qloom_core::adapters::AdapterError;
use qloom_core::adapters::gallery::GalleryError;
use qloom_core::data::DataError;
use qloom_core::evaluation::{
    ClassificationError, LabelError, MeasureError, PerplexityError, PredictionError,
    TextMetricError,
};
use qloom_core::generation::{GenerateError, SamplingConfigError};
use qloom_core::host::ReadError;
use qloom_core::merge::MergeError;
use qloom_core::models::ArchitectureError;
use qloom_core::models::bert::BertError;
use qloom_core::models::load::LoadError;
use qloom_core::quantization::QuantizationError;
use qloom_core::tokenizer::{TemplateError, TokenizerError};
use qloom_core::train::TrainError;
use qloom_core::weights::WeightError;

use crate::archive::ArchiveError;
use crate::protocol::{Failure, FailureKind};

/// Why a request ended before its answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// It failed.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A request that cannot be meant.
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Request, message)
    }

    /// A file that cannot be read.
    pub fn format(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Format, message)
    }

    /// The same failure, said to be of `what`.
    #[must_use]
    pub fn of(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

/// An error whose kind does not depend on what it says.
macro_rules! always {
    ($($error:ty => $kind:ident),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(FailureKind::$kind, error.to_string())
            }
        })*
    };
}

always! {
    ArchitectureError => Format,
    ArchiveError => Format,
    ClassificationError => Request,
    LabelError => Request,
    LoadError => Format,
    PredictionError => Request,
    QuantizationError => Format,
    ReadError => Device,
    SamplingConfigError => Request,
    TemplateError => Request,
    TextMetricError => Request,
    TokenizerError => Format,
    WeightError => Format,
}

impl From<AdapterError> for Failure {
    fn from(error: AdapterError) -> Self {
        let kind = match &error {
            AdapterError::Shape { .. }
            | AdapterError::UnknownModule { .. }
            | AdapterError::Fingerprint { .. } => FailureKind::Mismatch,
            AdapterError::NoTarget { .. }
            | AdapterError::AllExcluded { .. }
            | AdapterError::Initialization { .. }
            | AdapterError::NotPlain { .. } => FailureKind::Request,
            AdapterError::Read(_) => FailureKind::Device,
            _ => FailureKind::Format,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<MergeError> for Failure {
    fn from(error: MergeError) -> Self {
        let kind = match &error {
            MergeError::OtherBase { .. } => FailureKind::Mismatch,
            MergeError::Source { .. } | MergeError::NotFinite { .. } => FailureKind::Format,
            _ => FailureKind::Request,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<GalleryError> for Failure {
    fn from(error: GalleryError) -> Self {
        let kind = match &error {
            GalleryError::Content { .. } => FailureKind::Integrity,
            _ => FailureKind::Format,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        match &error {
            GenerateError::Read(error) => error.clone().into(),
            GenerateError::Sample(_) => Self::new(FailureKind::Internal, error.to_string()),
            _ => Self::request(error.to_string()),
        }
    }
}

impl From<BertError> for Failure {
    fn from(error: BertError) -> Self {
        let kind = match &error {
            BertError::Read(_) => FailureKind::Device,
            BertError::NoHead { .. } | BertError::Input { .. } => FailureKind::Request,
            _ => FailureKind::Format,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let kind = match &error {
            DataError::Config { .. } | DataError::NoChatTemplate { .. } => FailureKind::Request,
            _ => FailureKind::Format,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<PerplexityError> for Failure {
    fn from(error: PerplexityError) -> Self {
        match error {
            PerplexityError::Read(error) => error.into(),
            other => Self::request(other.to_string()),
        }
    }
}

impl From<MeasureError> for Failure {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::Losses(error) => error.into(),
            other => Self::request(other.to_string()),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Read(error) => error.into(),
            other => Self::request(other.to_string()),
        }
    }
}
