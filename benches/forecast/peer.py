"""Forecasts the series that `cargo bench --bench forecast` hands over, with statsforecast on one thread.

    peer.py CASES.json ANSWER.json [--models]

CASES.json: {"seasons": [24, 168], "horizon": 48, "series": [{"name": ..., "values": [...]}]}.
ANSWER.json: {"version": ..., "models": {model: {series: {"cpu_ms": ..., "path": [...], "quantiles": {"0.025": [...]}}}}}.
Models have forestall's names. A forecast that fails is left out. Each model is run once before its time is taken, so that
nothing that is compiled or loaded on first use is counted.
"""

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import json
import sys
import time
import warnings

import numpy as np
import statsforecast
from statsforecast.models import (
    MSTL,
    AutoARIMA,
    AutoETS,
    AutoTheta,
    RandomWalkWithDrift,
    SeasonalNaive,
    SimpleExponentialSmoothingOptimized,
)

LEVELS = {"0.025": "lo-95", "0.05": "lo-90", "0.95": "hi-90", "0.975": "hi-95"}


def makers(seasons, every_model):
    season = seasons[0]
    yield "mstl", lambda: MSTL(seasons, trend_forecaster=AutoETS(model="ZZN")), True
    yield "seasonal-naive", lambda: SeasonalNaive(season), True
    if every_model:
        orders = dict(max_p=3, max_q=2, max_P=1, max_Q=1, max_d=1, max_D=1)
        yield "level", SimpleExponentialSmoothingOptimized, False
        yield "drift", RandomWalkWithDrift, True
        yield "damped", lambda: AutoETS(model="AAN", damped=True), True
        yield "ets", lambda: AutoETS(season_length=season), True
        yield "theta", lambda: AutoTheta(season), True
        yield "arima", lambda: AutoARIMA(season_length=season, approximation=True, **orders), True


def forecast(make, has_intervals, values, horizon):
    before = time.process_time()
    answer = make().forecast(values, horizon, level=[90, 95]) if has_intervals else make().forecast(values, horizon)
    cpu_ms = 1000 * (time.process_time() - before)
    quantiles = {level: answer[key].tolist() for level, key in LEVELS.items() if key in answer}
    return {"cpu_ms": cpu_ms, "path": answer["mean"].tolist(), "quantiles": quantiles}


def main(cases_file, answer_file, every_model):
    warnings.filterwarnings("ignore")
    with open(cases_file) as file:
        cases = json.load(file)
    models = {}
    for name, make, has_intervals in makers(cases["seasons"], every_model):
        of_model = models[name] = {}
        for index, series in enumerate(cases["series"]):
            values = np.array(series["values"], dtype=float)
            try:
                if index == 0:
                    forecast(make, has_intervals, values, cases["horizon"])
                of_model[series["name"]] = forecast(make, has_intervals, values, cases["horizon"])
            except Exception as error:
                print(f"{name} of {series['name']}: {error}", file=sys.stderr)
        print(f"statsforecast {name}: {len(of_model)} series", file=sys.stderr)
    with open(answer_file, "w") as file:
        json.dump({"version": statsforecast.__version__, "models": models}, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--models" in sys.argv[3:])
