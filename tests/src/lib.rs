//! Helpers of the end-to-end tests: golden cases, tensors, and the `trainer` binary.
//!
//! The tests drive the built binary as a user would, and compare what it writes with what transformers, PEFT and
//! bitsandbytes wrote: `tests/golden/` (drawn by this project), and, where present, `../shared/reference/golden` and
//! every folder named in `QLOOM_GOLDEN` (colon-separated). A helper that cannot do its part panics with the
//! reason: here that is what failing looks like.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

pub mod cases;
pub mod classifiers;
pub mod fixtures;
pub mod tensors;
pub mod trainer;
