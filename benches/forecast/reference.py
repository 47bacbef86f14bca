"""Makes the forecasts that the model tests are held against: a few made-up series, forecast once by statsforecast.

    target/forecast-bench/bin/python benches/forecast/reference.py tests/forecast

`make bench-forecast` makes that environment. The series come from a seed and formulas below, so nobody's data is in them.
"""

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[threads] = "1"

import csv
import pathlib
import sys
import warnings

import numpy as np
from statsforecast.models import (
    MSTL,
    AutoARIMA,
    AutoETS,
    AutoTheta,
    RandomWalkWithDrift,
    SeasonalNaive,
    SimpleExponentialSmoothingOptimized,
)

STEPS = 24


def made_up_series():
    """(name, seasons, values): each has another shape, all are short enough for quick tests."""
    draw = np.random.default_rng(3)

    def wave(count, period, phase=0.0):
        turns = 2 * np.pi * (np.arange(count) + phase) / period
        return np.sin(turns) + 0.4 * np.cos(2 * turns)

    count = 168
    line = np.arange(count)
    yield "sum", [12], 80 + 0.15 * line + 12 * wave(count, 12) + draw.normal(0, 1.5, count)
    yield "product", [12], (40 + 0.3 * line) * (1 + 0.35 * wave(count, 12)) * np.exp(draw.normal(0, 0.04, count))
    yield "walk", [], 500 + np.cumsum(draw.normal(0.4, 3.0, 120))
    shifted = 30 + 20 * (np.arange(144) > 90) + 5 * wave(144, 24) + draw.normal(0, 1.0, 144)
    yield "shift", [24], shifted
    yield "around-zero", [7], 3 * wave(126, 7) + draw.normal(0, 1.0, 126)
    both = 200 + 25 * wave(252, 6) + 40 * wave(252, 42, 5) + np.cumsum(draw.normal(0, 1.5, 252))
    yield "two-seasons", [6, 42], both


def models_of(seasons):
    season = seasons[0] if seasons else 1
    yield "level", SimpleExponentialSmoothingOptimized()
    yield "drift", RandomWalkWithDrift()
    yield "damped", AutoETS(model="AAN", damped=True)
    yield "seasonal-naive", SeasonalNaive(season)
    yield "ets", AutoETS(season_length=season)
    yield "theta", AutoTheta(season)
    orders = dict(max_p=3, max_q=2, max_P=1, max_Q=1, max_d=1, max_D=1)
    yield "arima", AutoARIMA(season_length=season, approximation=True, **orders)
    if seasons:
        yield "mstl", MSTL(seasons, trend_forecaster=AutoETS(model="ZZN"))


def main(folder):
    warnings.filterwarnings("ignore")
    with open(folder / "series.csv", "w", newline="") as series_file, open(folder / "paths.csv", "w", newline="") as path_file:
        series_out, path_out = (csv.writer(file, lineterminator="\n") for file in (series_file, path_file))
        series_out.writerow(["series", "seasons", "values"])
        path_out.writerow(["model", "series", "values"])
        for name, seasons, values in made_up_series():
            values = np.round(values, 3)
            series_out.writerow([name, " ".join(map(str, seasons)), " ".join(f"{value:.3f}" for value in values)])
            for model_name, model in models_of(seasons):
                path = model.fit(values).predict(STEPS)["mean"]
                path_out.writerow([model_name, name, " ".join(f"{value:.3f}" for value in path)])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
