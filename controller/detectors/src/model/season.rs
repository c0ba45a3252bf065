//! The season of a series, found by its autocorrelation.

/// A season correlates at least so much with itself ...
const LEAST: f64 = 0.4;
/// ... and so much more than what is between, which slow changes do not.
const DIP: f64 = 0.2;
/// Of peaks nearly as high as the highest the first counts: two seasons correlate as well as one.
const NEARLY: f64 = 0.9;

/// The season of `values` in steps, at least 2 and at most `longest` or a third of them; none if there is none. Takes time as the product of
/// both.
#[must_use]
pub fn season(values: &[f64], longest: usize) -> Option<usize> {
    let length = values.len();
    let longest = longest.min(length / 3);
    if longest < 2 {
        return None;
    }
    let residuals = detrended(values);
    let variance = residuals.iter().map(|value| value * value).sum::<f64>();
    // What is constant has no season.
    if !variance.is_normal() {
        return None;
    }
    let correlation = |lag: usize| {
        let products = residuals.iter().zip(residuals.iter().skip(lag)).map(|(one, other)| one * other);
        // By the number of products, not of values: else long seasons would correlate less.
        products.sum::<f64>() / variance * (length as f64 / (length - lag) as f64)
    };
    let correlations: Vec<f64> = (0..=longest + 1).map(correlation).collect();
    let least = LEAST.max(4.0 / (length as f64).sqrt());
    let mut lowest = f64::INFINITY;
    let mut peaks = Vec::new();
    for (lag, around) in correlations.windows(3).enumerate() {
        let &[before, here, after] = around else { continue };
        lowest = lowest.min(before);
        let lag = lag + 1;
        if lag >= 2 && here >= before && here >= after && here >= least && here - lowest >= DIP {
            peaks.push((lag, here));
        }
    }
    let highest = peaks.iter().map(|(_, height)| *height).fold(0.0, f64::max);
    let (first, _) = *peaks.iter().find(|(_, height)| *height >= NEARLY * highest)?;
    // On the shoulders of a broad peak noise makes small ones: of those around it the highest.
    let around = peaks.iter().filter(|(lag, _)| *lag <= first + first / 4);
    around.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(lag, _)| *lag)
}

/// Less the line of least squares.
fn detrended(values: &[f64]) -> Vec<f64> {
    let scale = values.iter().fold(0.0_f64, |most, value| most.max(value.abs())).max(f64::MIN_POSITIVE);
    let n = values.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let scaled: Vec<f64> = values.iter().map(|value| value / scale).collect();
    let mean = scaled.iter().sum::<f64>() / n;
    let (mut products, mut squares) = (0.0, 0.0);
    for (step, value) in scaled.iter().enumerate() {
        let at = step as f64 - middle;
        products += at * (value - mean);
        squares += at * at;
    }
    let slope = if squares > 0.0 { products / squares } else { 0.0 };
    let line = |step: usize| mean + slope * (step as f64 - middle);
    let residuals: Vec<f64> = scaled.iter().enumerate().map(|(step, value)| value - line(step)).collect();
    // Rounding is no season.
    if residuals.iter().all(|value| value.abs() < 1e-9) { vec![0.0; values.len()] } else { residuals }
}
