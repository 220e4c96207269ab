//! A canvas to draw on, and its bytes as PNG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::plot::register_fonts;
use crate::files::explain;

/// A canvas.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;
/// What drawing comes to.
pub(super) type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// A PNG of `size` pixels that `draw` fills; `what` names it in errors.
///
/// # Errors
/// The picture cannot be drawn.
pub(super) fn picture(
    size: (u32, u32),
    what: &str,
    draw: impl FnOnce(&Area<'_>) -> Outcome,
) -> Result<Vec<u8>> {
    register_fonts();
    // The drawing crate encodes only into a named file.
    let file = tempfile::Builder::new()
        .suffix(".png")
        .tempfile()
        .map_err(|e| explain(e, "create a file in", &std::env::temp_dir()))?;
    {
        let root = BitMapBackend::new(file.path(), size).into_drawing_area();
        draw(&root).map_err(|e| anyhow!("cannot draw {what}: {e}"))?;
        root.present()
            .map_err(|e| anyhow!("cannot encode {what}: {e}"))?;
    }
    crate::files::read(file.path())
}
