//! The training curve as an inline SVG: it takes the page's colours, light or dark, and scales to a phone.

use std::fmt::Write;

use super::curve::{LossCurve, tick_label, ticks};
use super::numbers;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 52.0;

/// Draws `curve`; the classes `axis`, `grid`, `raw`, `smooth` and `held` are coloured by the page.
///
/// `id` makes the title's id unique where a page has several. The title states first and last values, for readers
/// who do not see the picture.
pub(crate) fn loss(curve: &LossCurve, id: &str) -> String {
    let (first, last) = curve.steps();
    let (low, high) = curve.range();
    let x =
        |step: f64| LEFT + (step - first as f64) / (last - first) as f64 * (WIDTH - LEFT - RIGHT);
    let y =
        |loss: f64| TOP + (high - loss.clamp(low, high)) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let floor = HEIGHT - BOTTOM;

    let mut svg = format!(
        "<svg class=\"curve\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}\">\
         <title id=\"{id}\">{}</title>",
        describe(curve)
    );
    let values = ticks(low, high, 5);
    for value in &values {
        let (at, label) = (y(*value), tick_label(*value, &values));
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 5.0
        );
    }
    for step in ticks(first as f64, last as f64, 6)
        .into_iter()
        .filter(|step| step.fract() == 0.0)
    {
        let (at, label) = (x(step), numbers::count(step as u64));
        let anchor = if at > WIDTH - RIGHT - 20.0 {
            "end"
        } else {
            "middle"
        };
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {TOP}V{floor}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>",
            floor + 20.0
        );
    }
    let _ = write!(
        svg,
        "<path class=\"axis\" d=\"M{LEFT} {TOP}V{floor}H{:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">optimizer step</text>",
        WIDTH - RIGHT,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0
    );
    let line = |points: &[(u64, f64)]| {
        let mut path = String::new();
        for (index, (step, loss)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", x(*step as f64), y(*loss));
        }
        path
    };
    let smooth = curve.smoothed();
    if let Some(smooth) = &smooth {
        let _ = write!(svg, "<path class=\"raw\" d=\"{}\"/>", line(&curve.train));
        let _ = write!(svg, "<path class=\"smooth\" d=\"{}\"/>", line(smooth));
    } else {
        let _ = write!(svg, "<path class=\"smooth\" d=\"{}\"/>", line(&curve.train));
    }
    if !curve.eval.is_empty() {
        let _ = write!(svg, "<path class=\"held\" d=\"{}\"/>", line(&curve.eval));
        for (step, loss) in &curve.eval {
            let _ = write!(
                svg,
                "<circle class=\"held\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"/>",
                x(*step as f64),
                y(*loss)
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

fn describe(curve: &LossCurve) -> String {
    let span = |name: &str, points: &[(u64, f64)]| match (points.first(), points.last()) {
        (Some(first), Some(last)) => format!(
            " {name} from {} at step {} to {} at step {}.",
            numbers::score(first.1),
            first.0,
            numbers::score(last.1),
            last.0
        ),
        _ => String::new(),
    };
    let smooth = curve.smoothed();
    let train = smooth.as_deref().unwrap_or(&curve.train);
    format!(
        "Loss by optimizer step.{}{}",
        span("Training", train),
        span("Held out", &curve.eval)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::report::curve::tests::example_curve;

    #[test]
    fn every_point_lies_inside_the_picture() {
        for steps in [1, 2, 30, 300] {
            let svg = loss(&example_curve(steps), "t");
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && !svg.contains("NaN"));
            for path in svg.split(" d=\"").skip(1) {
                let path = path.split('"').next().unwrap();
                for pair in path
                    .split(['M', 'L'])
                    .filter(|p| p.split(' ').count() == 2 && !p.contains(['H', 'V']))
                {
                    let (x, y) = pair.split_once(' ').unwrap();
                    let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                    assert!(
                        (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y),
                        "{pair}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_title_says_what_the_picture_shows() {
        let svg = loss(&example_curve(300), "t");
        assert!(
            svg.contains("Training from 3.2") && svg.contains("Held out from 3.430 at step 0"),
            "{}",
            &svg[..300]
        );
        assert!(loss(&LossCurve::default(), "t").contains("Loss by optimizer step.<"));
    }
}
