//! The recursions against statsmodels and pandas on the same series.

use std::process::Command;

use profiler_detectors::{Form, Smoothing, Weights, exponential_mean};
use serde_json::Value;

const EXPECTED: &str = include_str!("../reference/expected.json");
/// Relative.
const NEAR: f64 = 1e-9;

fn expected() -> Value {
    serde_json::from_str(EXPECTED).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

fn cases<'a>(all: &'a Value, name: &str) -> &'a [Value] {
    all[name].as_array().map(Vec::as_slice).filter(|cases| cases.len() >= 3).expect("several cases")
}

#[track_caller]
fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= NEAR * expected.abs().max(1.0), "{what}: {found}, and not {expected}");
}

#[test]
fn the_moving_average_is_that_of_pandas() {
    for case in cases(&expected(), "ewma") {
        let (values, means) = (numbers(&case["values"]), numbers(&case["means"]));
        let lambda = case["lambda"].as_f64().expect("a number");
        let mut mean = values[0];
        for (step, (value, expected)) in values.iter().zip(&means).enumerate() {
            if step > 0 {
                mean = exponential_mean(mean, *value, lambda);
            }
            near(mean, *expected, &format!("lambda {lambda}, step {step}"));
        }
        assert_eq!((values.len(), means.len()), (200, 200));
    }
}

#[test]
fn holt_winters_is_that_of_statsmodels() {
    for case in cases(&expected(), "holt_winters") {
        let form = if case["multiplicative"] == true { Form::Multiplicative } else { Form::Additive };
        let [alpha, beta, gamma, phi] = numbers(&case["weights"]).try_into().expect("four weights");
        let weights = Weights { alpha, beta, gamma, phi };
        let number = |name: &str| case[name].as_f64().expect("a number");
        let mut smoothing = Smoothing::new(number("level"), number("trend"), numbers(&case["first"]));
        assert_eq!(smoothing.season_length() as u64, case["season"].as_u64().expect("a number"));
        let (values, forecasts) = (numbers(&case["values"]), numbers(&case["forecasts"]));
        let (levels, trends) = (numbers(&case["levels"]), numbers(&case["trends"]));
        assert_eq!(values.len(), 200);
        for (step, value) in values.iter().enumerate() {
            let what = |name: &str| format!("{name}, season {}, {form:?}, step {step}", case["season"]);
            near(smoothing.forecast(phi, form), forecasts[step], &what("forecast"));
            smoothing.update(*value, weights, form);
            let (level, trend, _) = smoothing.state();
            near(level, levels[step], &what("level"));
            near(trend, trends[step], &what("trend"));
        }
    }
}

/// Where the libraries are, what the script writes is what is kept.
#[test]
fn the_kept_figures_are_those_of_the_script() {
    let test = "the_kept_figures_are_those_of_the_script";
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = ["-c", "import numpy, pandas, statsmodels"];
    let is_there = Command::new(&python).args(import).output().is_ok_and(|output| output.status.success());
    profiler_need::have_by_chance(test, is_there, "Python with numpy, pandas and statsmodels (PYTHON=...)");
    if !is_there {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/make.py");
    let output = Command::new(&python).arg(script).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (found, kept): (Value, Value) = (serde_json::from_slice(&output.stdout).expect("JSON"), expected());
    for name in ["ewma", "holt_winters"] {
        for (found, kept) in cases(&found, name).iter().zip(cases(&kept, name)) {
            for list in ["values", "means", "forecasts", "levels"].iter().filter(|list| !kept[**list].is_null()) {
                for (found, kept) in numbers(&found[*list]).iter().zip(numbers(&kept[*list])) {
                    near(*found, kept, list);
                }
            }
        }
    }
}
