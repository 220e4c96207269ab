//! What a run leaves for people to read: curves, tables, cards and pages.
//!
//! - [`numbers`]: one notation per quantity;
//! - [`scores`]: the shape of "base against adapted" that tables, card and page share;
//! - [`curve`]: a run's losses, smoothed and scaled; drawn by [`plot`] (`loss.png`) and [`svg`] (in the page);
//! - [`side_by_side`]: several runs as bars with intervals;
//! - [`board`]: an evaluation as files: table, CSV, JSON, and the pictures of [`score_chart`] and [`confusion`];
//! - [`tensorboard`]: event files;
//! - [`table`]: tables on the terminal, [`markdown`]: tables in documents;
//! - [`card`]: an adapter's README.md, [`html`]: `report.html`, one self-contained page.

pub(crate) mod board;
pub(crate) mod card;
pub(crate) mod confusion;
pub(crate) mod curve;
pub(crate) mod html;
pub(crate) mod markdown;
pub(crate) mod numbers;
pub(crate) mod picture;
pub(crate) mod plot;
pub(crate) mod score_chart;
pub(crate) mod scores;
pub(crate) mod side_by_side;
pub(crate) mod svg;
pub(crate) mod table;
pub(crate) mod tensorboard;
