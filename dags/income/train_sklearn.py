"""Train gradient-boosted trees on the census income data. Writes `model.joblib` and `metrics.json`."""

import argparse
import json
from pathlib import Path

import joblib
from rows import read
from sklearn.ensemble import HistGradientBoostingClassifier


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--train-data", default="adult.data.gz")
    parser.add_argument("--test-data", default="adult.test.gz")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--trees", type=int, default=100)
    return parser.parse_args()


def train(arguments: argparse.Namespace) -> tuple[HistGradientBoostingClassifier, float]:
    """Return the model, and its accuracy on the test rows."""
    model = HistGradientBoostingClassifier(
        learning_rate=arguments.learning_rate,
        max_iter=arguments.trees,
        categorical_features="from_dtype",
        random_state=1,
    )
    model.fit(*read(arguments.train_data))
    return model, model.score(*read(arguments.test_data))


if __name__ == "__main__":
    model, accuracy = train(parse_arguments())
    joblib.dump(model, "model.joblib")
    Path("metrics.json").write_text(json.dumps({"accuracy": accuracy}), encoding="utf-8")
    print(f"test accuracy {accuracy:.4f}")
