"""Logistic regression over hospitals: is a breast mass malignant, by thirty measurements of its cells?

Each site keeps its patients in one CSV file: a heading line, a column per measurement, and the
diagnosis last (1 malignant, 0 benign). Four fifths of them are trained on, the rest measure the model.
Measurements are scaled by constants that `config.json` carries (the ranges that the data set's
public description gives), so no site has to tell another anything about its patients.
"""

import csv
from pathlib import Path

import numpy as np

FILE = "patients.csv"
FEATURES = 30


def load_data(site, data_dir):
    """This site's patients: (train x, train y, validation x, validation y), unscaled."""
    x, y = read_patients(Path(data_dir) / FILE)
    shuffled = np.random.default_rng(len(y)).permutation(len(y))
    cut = max(1, len(y) // 5)
    held, used = shuffled[:cut], shuffled[cut:]
    return x[used], y[used], x[held], y[held]


def initial_parameters(config):
    """A weight per measurement and an intercept, all zero: every patient is a coin toss."""
    return {"weights": np.zeros(FEATURES), "intercept": np.zeros(1)}


def fit(parameters, data, config):
    """LOCAL_ROUNDS passes of mini-batch gradient descent over this site's patients."""
    x, y = scaled(data[0], config), data[1]
    weights, intercept = parameters["weights"].copy(), parameters["intercept"].copy()
    rate, decay = config["LEARNING_RATE"], config["WEIGHT_DECAY"]
    rng = np.random.default_rng([config.get("ROUND", 0), len(y)])
    for _ in range(config.get("LOCAL_ROUNDS", 1)):
        order = rng.permutation(len(y))
        for start in range(0, len(y), config["BATCH_SIZE"]):
            batch = order[start : start + config["BATCH_SIZE"]]
            error = sigmoid(x[batch] @ weights + intercept) - y[batch]
            weights -= rate * (x[batch].T @ error / len(batch) + decay * weights)
            intercept -= rate * error.mean()
    trained = {"weights": weights, "intercept": intercept}
    return trained, len(y), {"loss": log_loss(y, predict(trained, data[0], config))}


def evaluate(parameters, data, config):
    """How good the parameters are for patients of this site that nobody trained on."""
    return len(data[3]), scores(data[3], predict(parameters, data[2], config))


def read_patients(path):
    """All patients of a CSV file: measurements (n, 30) and diagnoses (n,)."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    table = np.array(rows, dtype=float)
    return table[:, :-1], table[:, -1]


def scaled(x, config):
    """Each measurement's published range brought to -1..7, its usual values to around zero."""
    low, high = np.array(config["FEATURE_LOW"]), np.array(config["FEATURE_HIGH"])
    return 8 * (x - low) / (high - low) - 1


def predict(parameters, x, config):
    """The probability of a malignant mass for each patient."""
    return sigmoid(scaled(x, config) @ parameters["weights"] + parameters["intercept"])


def sigmoid(value):
    """Written with tanh, which does not overflow."""
    return 0.5 * (1 + np.tanh(value / 2))


def log_loss(y, p):
    """Mean cross-entropy."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


def scores(y, p):
    """Loss, share of right diagnoses, and area under the ROC curve."""
    return {
        "loss": log_loss(y, p),
        "accuracy": float(np.mean((p > 0.5) == (y > 0.5))),
        "auc": auc(y, p),
    }


def auc(y, p):
    """How often a malignant mass gets a higher probability than a benign one; ties count half."""
    ill, well = p[y > 0.5], p[y <= 0.5]
    if not len(ill) or not len(well):
        return float("nan")
    return float(np.mean(np.sign(ill[:, None] - well[None, :]) / 2 + 0.5))
