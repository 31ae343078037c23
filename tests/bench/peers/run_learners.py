"""Other learners on the same rows: gradient boosting, random forest, support vectors, ridge; one label at a time.

Runs in its own environment; requests and answers as in `serve`. A request names a file of arrays (``train_x``,
``train_y``, ``validation_x``, ``validation_y``, ``test_x``; NaN for missing) and a learner; predictions of the test
rows are written beside it. Each learner gets a small grid around what its documentation advises for tables of this
size, the best of which is chosen on the validation rows by mean absolute error; boosting also stops early on them.
Those that have no boosting rounds to stop are then fitted to training and validation rows together.
"""

import time
from importlib.metadata import version
from itertools import product

import numpy as np
from serve import answering

SVR_ROWS = 20_000
FOREST_ROWS, LARGE = 20_000, 50_000


def lightgbm(data, seed, threads):
    """LightGBM, L1, rate 0.03, up to 5000 rounds."""
    import lightgbm as lgb

    train = lgb.Dataset(data["train_x"], data["train_y"], free_raw_data=False)
    validation = lgb.Dataset(data["validation_x"], data["validation_y"], reference=train, free_raw_data=False)
    for leaves, least in product((31, 127), (20, 100)):
        settings = {
            "objective": "regression_l1",
            "metric": "l1",
            "learning_rate": 0.03,
            "num_leaves": leaves,
            "min_data_in_leaf": least,
            "feature_fraction": 0.8,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "num_threads": threads,
            "seed": seed,
            "verbosity": -1,
        }
        stop = lgb.early_stopping(100, verbose=False)
        model = lgb.train(settings, train, 5000, valid_sets=[validation], callbacks=[stop])
        yield f"leaves {leaves}, least {least}", model.predict


def xgboost(data, seed, threads):
    """XGBoost, absolute error, rate 0.05, up to 5000 rounds."""
    import xgboost as xgb

    for depth, weight in product((6, 9), (5, 50)):
        model = xgb.XGBRegressor(
            objective="reg:absoluteerror",
            n_estimators=5000,
            learning_rate=0.05,
            max_depth=depth,
            min_child_weight=weight,
            subsample=0.8,
            colsample_bytree=0.8,
            tree_method="hist",
            n_jobs=threads,
            random_state=seed,
            early_stopping_rounds=100,
        )
        model.fit(
            data["train_x"],
            data["train_y"],
            eval_set=[(data["validation_x"], data["validation_y"])],
            verbose=False,
        )
        yield f"depth {depth}, weight {weight}", model.predict


def forest(data, seed, threads):
    """Random forest of 300 trees; squared error, because the absolute one takes days.

    A hundred trees where there are more than `LARGE` rows, and settings chosen on `FOREST_ROWS` of them: it would take
    half a day of a core.
    """
    from sklearn.ensemble import RandomForestRegressor

    trees = 300 if data["rows"] <= LARGE else 100
    for least, share in product((1, 5), (0.33, 0.66)):
        yield (
            f"least {least}, share {share}",
            RandomForestRegressor(
                trees, min_samples_leaf=least, max_features=share, n_jobs=threads, random_state=seed
            ),
        )


def svr(data, seed, threads):
    """Support vectors with a radial kernel on at most `SVR_ROWS` rows."""
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVR

    scale = np.nanstd(data["train_y"])
    for cost, gamma in product((1.0, 10.0), (0.5, 1.5)):
        width = gamma / data["train_x"].shape[1]
        yield (
            f"C {cost:g} sd, gamma {gamma:g}/k",
            make_pipeline(*scaled(), SVR(C=cost * scale, epsilon=0.1 * scale, gamma=width, cache_size=1000)),
        )


def ridge(data, seed, threads):
    """Ridge regression on all products of two inputs; iterated where normal equations would need 20 GiB."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    solver = "auto" if data["rows"] <= LARGE else "lsqr"
    for strength in (0.1, 10.0, 1000.0):
        steps = (*scaled(), PolynomialFeatures(2, include_bias=False), StandardScaler(copy=False))
        yield f"alpha {strength:g}", make_pipeline(*steps, Ridge(strength, solver=solver, copy_X=False))


def scaled():
    """Fill gaps with the median, add masks, scale by quantiles."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import RobustScaler

    return SimpleImputer(strategy="median", add_indicator=True), Bounded(RobustScaler())


class Bounded:
    """Scale, and clip to ten quartile ranges: one impossible value must not decide everything."""

    def __init__(self, scaler):
        self.scaler = scaler

    def fit(self, x, y=None):
        self.scaler.fit(x)
        return self

    def transform(self, x):
        return np.clip(self.scaler.transform(x), -10, 10)

    def fit_transform(self, x, y=None):
        return self.fit(x).transform(x)


LEARNERS = {"LightGBM": lightgbm, "XGBoost": xgboost, "random forest": forest, "SVR": svr, "ridge": ridge}


def answer(request):
    """Fit every setting, keep the best on the validation rows, predict the test rows."""
    started = time.perf_counter()
    with np.load(request["data"]) as stored:
        data = {name: stored[name] for name in stored.files}
    for part in ("train", "validation"):
        known = np.isfinite(data[f"{part}_y"])
        data[f"{part}_x"], data[f"{part}_y"] = data[f"{part}_x"][known], data[f"{part}_y"][known]
    data["rows"] = len(data["train_x"])
    everything = data["train_x"], data["train_y"]
    most = {"SVR": SVR_ROWS} | ({"random forest": FOREST_ROWS} if data["rows"] > LARGE else {})
    if data["rows"] > most.get(request["learner"], data["rows"]):
        rng = np.random.default_rng(request["seed"])
        rows = np.sort(rng.permutation(data["rows"])[: most[request["learner"]]])
        data["train_x"], data["train_y"] = data["train_x"][rows], data["train_y"][rows]
    found = []
    for name, model in LEARNERS[request["learner"]](data, request["seed"], request["threads"]):
        unfitted = hasattr(model, "fit")
        predict = model.fit(data["train_x"], data["train_y"]).predict if unfitted else model
        mae = float(np.mean(np.abs(predict(data["validation_x"]) - data["validation_y"])))
        found.append((mae, name, model if unfitted else None, predict))
    mae, name, model, predict = min(found, key=lambda entry: entry[0])
    if model is not None:
        few = request["learner"] == "SVR"
        train_x, train_y = (data["train_x"], data["train_y"]) if few else everything
        x = np.vstack([train_x, data["validation_x"]])[: SVR_ROWS if few else None]
        y = np.concatenate([train_y, data["validation_y"]])[: len(x)]
        predict = model.fit(x, y).predict
    np.save(request["out"], predict(data["test_x"]).astype(np.float32))
    return {"seconds": time.perf_counter() - started, "chosen": name, "validation_mae": mae}


if __name__ == "__main__":
    told = ", ".join(f"{name} {version(name)}" for name in ("lightgbm", "xgboost", "scikit-learn"))
    with answering(told) as serve:
        serve([], answer)
