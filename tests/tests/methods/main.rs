//! The adapter methods through the binary.
//!
//! | file | what |
//! |---|---|
//! | `peft.rs` | DoRA, HiRA, LoRA+ and PiSSA against PEFT's numbers |
//! | `learning.rs` | every method learns, reads back, merges, and is named by plan and inspect |
//! | `initialization.rs` | the bases that PiSSA and LoftQ leave |
//! | `resume.rs` | killed runs |
//! | `refusals.rs` | values that mean nothing |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
mod initialization;
mod learning;
mod peft;
mod refusals;
mod resume;
