//! Several runs as one piece of work, for `sweep` and `recipe`: what to run, running it, and the tables of it.
//!
//! - [`spec`]: the `[sweep]` table: a grid and a list over a base configuration;
//! - [`planned`]: one run: its key (a hash of all that decides it), its folder, whether it is finished;
//! - [`child`]: this binary again as a child process, so that peak memory and failures are each run's own;
//! - [`record`]: what finished runs left, [`aggregate`]: over seeds and over prompts;
//! - [`experiments`]: `experiments.md`, `experiments.csv`, `metrics.json` and the plot.

pub(crate) mod aggregate;
pub(crate) mod child;
pub(crate) mod experiments;
pub(crate) mod planned;
pub(crate) mod record;
pub(crate) mod spec;
