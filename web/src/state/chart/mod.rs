//! Geometry of the page's charts as plain data: where lines, bars and cells lie, what the axes say, and a sentence that says
//! the same for those who do not see it. The components only draw it.

mod bars;
mod confusion;
mod line;
mod ticks;

pub use bars::{Bar, BarChart, BarInput};
pub use confusion::{Cell, ConfusionChart};
pub use line::{LineChart, Series, Trace};
pub use ticks::{Tick, ticks};

/// Classes of shading: 0 is none, the last the deepest.
pub const SHADES: usize = 10;

/// The shade of a share in `[0, 1]`.
#[must_use]
pub fn shade(share: f64) -> usize {
    if share.is_nan() || share <= 0.0 {
        return 0;
    }
    ((share.min(1.0) * (SHADES - 1) as f64).ceil() as usize).min(SHADES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_cover_the_range() {
        assert_eq!(shade(0.0), 0);
        assert_eq!(shade(f64::NAN), 0);
        assert_eq!(shade(0.001), 1);
        assert_eq!(shade(1.0), 9);
        assert_eq!(shade(7.0), 9);
    }
}
