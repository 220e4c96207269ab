//! Charts as SVG and tables, drawn from the plain geometry of [`crate::state::chart`].

mod bars;
mod confusion;
mod line;

pub(super) use bars::BarsChart;
pub(super) use confusion::ConfusionTable;
pub(super) use line::LinesChart;
