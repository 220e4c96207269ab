//! Text generation: sampling, stop strings, batched decoding over a preallocated key-value cache.

mod end_ids;
mod generate;
mod sampler;
mod steps;
mod stop;
#[cfg(test)]
mod tests;

pub use end_ids::end_ids;
pub use generate::{Finish, GenerateError, Generated, Generator};
pub use sampler::{SampleError, Sampler, SamplingConfig, SamplingConfigError};
pub use steps::{Generation, Piece};
pub use stop::StopMatcher;
