#!/usr/bin/env python3
"""Writes what NumPy, pandas and statsmodels make of some series, for the test that holds the Rust code against it.

usage: python3 make.py > expected.json      needs: pip install numpy==2.4.6 pandas==3.1.1 statsmodels==0.15.0
"""

import json
import warnings

import numpy
import pandas
import statsmodels
from statsmodels.tsa.holtwinters import ExponentialSmoothing

warnings.simplefilter("ignore")
# The legacy generator's stream is the same in all versions.
random = numpy.random.RandomState(15)

STEPS = 200


def series(season, form):
    """A trend, a season and noise, above 0."""
    step = numpy.arange(STEPS)
    base = 100 + 0.3 * step
    wave = numpy.sin(2 * numpy.pi * step / season) if season else 0
    shape = base * (1 + 0.3 * wave) if form == "mul" else base + 20 * wave
    return shape + random.normal(0, 2, STEPS)


def holt_winters(season, form, weights):
    alpha, beta, gamma, phi = weights
    values = series(season, form)
    begin = values[: season or 8]
    level, trend = float(begin.mean()), 0.25
    first = (begin / level if form == "mul" else begin - level).tolist() if season else []
    model = ExponentialSmoothing(
        values,
        trend="add",
        damped_trend=phi < 1,
        seasonal=form if season else None,
        seasonal_periods=season or None,
        initialization_method="known",
        initial_level=level,
        initial_trend=trend,
        initial_seasonal=first if season else None,
    )
    fixed = {"smoothing_level": alpha, "smoothing_trend": beta}
    if season:
        fixed["smoothing_seasonal"] = gamma
    if phi < 1:
        fixed["damping_trend"] = phi
    fit = model.fit(**fixed, optimized=False)
    return {
        "season": season,
        "multiplicative": form == "mul",
        "weights": weights,
        "level": level,
        "trend": trend,
        "first": first,
        "values": values.tolist(),
        "forecasts": fit.fittedvalues.tolist(),
        "levels": fit.level.tolist(),
        "trends": fit.trend.tolist(),
    }


def ewma(weight):
    values = series(0, "add")
    by_pandas = pandas.Series(values).ewm(alpha=weight, adjust=False).mean().to_numpy()
    # And by its definition.
    powers = (1 - weight) ** numpy.arange(STEPS)
    sums = [values[0] * powers[step] + weight * (values[1 : step + 1][::-1] * powers[:step]).sum() for step in range(STEPS)]
    assert numpy.allclose(by_pandas, sums, rtol=1e-12, atol=0)
    return {"lambda": weight, "values": values.tolist(), "means": by_pandas.tolist()}


print(
    json.dumps(
        {
            "versions": {module.__name__: module.__version__ for module in (numpy, pandas, statsmodels)},
            "ewma": [ewma(weight) for weight in (0.05, 0.2, 1.0)],
            "holt_winters": [
                holt_winters(0, "add", [0.3, 0.1, 0.0, 1.0]),
                holt_winters(0, "add", [0.5, 0.2, 0.0, 0.9]),
                holt_winters(12, "add", [0.2, 0.05, 0.1, 1.0]),
                holt_winters(7, "add", [0.4, 0.1, 0.3, 0.95]),
                holt_winters(12, "mul", [0.2, 0.05, 0.1, 1.0]),
                holt_winters(24, "mul", [0.6, 0.02, 0.2, 0.98]),
            ],
        },
        indent=None,
    )
)
