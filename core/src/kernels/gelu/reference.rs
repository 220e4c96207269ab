//! What the kernels must compute, as a plain loop in f64.

/// `x Φ(x)` of every element.
pub(super) fn gelu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|&x| x * distribution(x)).collect()
}

/// The standard normal distribution function: half of it plus the integral of the density from 0, as the series
/// `φ(x) (x + x³/3 + x⁵/15 + …)`, whose terms are all of one sign.
fn distribution(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while f64::abs(term) > 1e-18 * f64::abs(sum).max(1e-300) {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    0.5 + density * sum
}
