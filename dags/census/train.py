"""Train a wide & deep model on the census income data and export it for serving.

The wide part is linear: it learns one weight for each category, each range of a number and each crossed
pair. The deep part is a small neural network over embeddings and scaled numbers: it generalizes to
combinations that are rare in the data. Both are trained together, and their sum is the prediction.

Writes `<model_dir>/1/`, a SavedModel that takes the raw columns of the data, and `metrics.json`.
"""

import argparse
import gzip
import json
import os
import zlib
from pathlib import Path

# TensorFlow reads these at import. Without oneDNN it logs less, and is as fast here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# The columns of the files, in order.
COLUMNS = {
    "age": "number",
    "workclass": "category",
    "fnlwgt": "unused",  # The number of people that a row represents, not their income.
    "education": "category",
    "education_num": "number",
    "marital_status": "category",
    "occupation": "category",
    "relationship": "category",
    "race": "category",
    "sex": "category",
    "capital_gain": "number",
    "capital_loss": "number",
    "hours_per_week": "number",
    "native_country": "category",
    "income": "label",
}
NUMBERS = [name for name, kind in COLUMNS.items() if kind == "number"]
CATEGORIES = [name for name, kind in COLUMNS.items() if kind == "category"]
LABELS = ["<=50K", ">50K"]
CROSSES = [("education", "occupation"), ("education", "marital_status"), ("age_range", "marital_status")]

Features = dict[str, np.ndarray]
Tensors = dict[str, tf.Tensor]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a wide & deep model on the census income data.")
    parser.add_argument("--train_data", type=Path, default="adult.data.gz", help="plain, or .gz")
    parser.add_argument("--test_data", type=Path, default="adult.test.gz", help="plain, or .gz")
    parser.add_argument("--epochs", type=positive, default=8)
    parser.add_argument("--batch_size", type=positive, default=256)
    parser.add_argument("--model_dir", type=Path, default="model", help="the model is written to its folder 1")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def positive(text: str) -> int:
    """Parse a positive integer."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def read_data(path: Path) -> tuple[Features, np.ndarray]:
    """Read a file: its columns by name, and the labels: 1 for an income above 50K, else 0."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            # The test file starts with a comment, and both files end in an empty line.
            rows = [
                parse_row(line, f"{path}, line {number}")
                for number, line in enumerate(file, start=1)
                if line.strip() and not line.startswith("|")
            ]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from error
    if not rows:
        raise SystemExit(f"{path} has no rows.")
    features = {name: np.array([row[name] for row in rows], dtype="float32") for name in NUMBERS}
    features |= {name: np.array([row[name] for row in rows], dtype=object) for name in CATEGORIES}
    return features, np.array([LABELS.index(row["income"]) for row in rows], dtype="float32")


def parse_row(line: str, place: str) -> dict[str, str]:
    """Split a line into its columns; `place` is its position, for the error message."""
    # Labels end in a period in the test file only.
    values = line.strip().removesuffix(".").split(", ")
    if len(values) != len(COLUMNS):
        raise SystemExit(f"{place}: {len(values)} values instead of {len(COLUMNS)}.")
    row = dict(zip(COLUMNS, values, strict=True))
    for name in NUMBERS:
        if not row[name].isdecimal():
            raise SystemExit(f"{place}: {name} is {row[name]!r} instead of an integer.")
    if row["income"] not in LABELS:
        raise SystemExit(f"{place}: income is {row['income']!r} instead of {' or '.join(LABELS)}.")
    return row


def build_preprocessor(features: Features) -> keras.Model:
    """Build the part without trainable weights: raw columns in, numbers for the network out."""
    inputs = {name: keras.Input((), dtype="float32", name=name) for name in NUMBERS}
    inputs |= {name: keras.Input((), dtype="string", name=name) for name in CATEGORIES}
    crossable = dict(inputs)
    wide, categories, numbers = [], [], []
    for name in CATEGORIES:
        # The unknown value `?` becomes a category like any other; index 0 is for unseen values.
        lookup = layers.StringLookup(vocabulary=np.unique(features[name]))
        index = lookup(inputs[name])
        categories.append(index)
        wide.append(layers.CategoryEncoding(lookup.vocabulary_size(), output_mode="one_hot")(index))
    for name in NUMBERS:
        normalize = layers.Normalization(axis=None)
        normalize.adapt(features[name])
        numbers.append(normalize(inputs[name]))
        # Each distinct value counts once: more than nine in ten capital gains and losses are zero.
        boundaries = np.unique(np.quantile(np.unique(features[name]), np.arange(0, 1, 0.05))).tolist()
        index = layers.Discretization(boundaries)(inputs[name])
        crossable[f"{name}_range"] = index
        wide.append(layers.CategoryEncoding(len(boundaries) + 1, output_mode="one_hot")(index))
    for first, second in CROSSES:
        cross = layers.HashedCrossing(250, output_mode="one_hot")
        wide.append(cross([crossable[first], crossable[second]]))
    outputs = {
        "wide": layers.Concatenate()(wide),
        "categories": keras.ops.stack(categories, axis=1),
        "numbers": keras.ops.stack(numbers, axis=1),
    }
    return keras.Model(inputs, outputs)


def build_network(prepared: Tensors) -> keras.Model:
    """Build the part with trainable weights: the preprocessor's outputs in, the probability of >50K out."""
    inputs = {name: keras.Input(rows.shape[1:], dtype=rows.dtype, name=name) for name, rows in prepared.items()}
    deep = [inputs["numbers"]]
    for column, largest in enumerate(np.max(prepared["categories"], axis=0).tolist()):
        embed = layers.Embedding(largest + 1, 8)
        deep.append(embed(inputs["categories"][:, column]))
    hidden = layers.Concatenate()(deep)
    for units in (64, 32):
        hidden = layers.Dense(units, activation="relu")(hidden)
        hidden = layers.Dropout(0.2)(hidden)
    total = layers.Add()([layers.Dense(1)(inputs["wide"]), layers.Dense(1)(hidden)])
    return keras.Model(inputs, layers.Activation("sigmoid")(total))


class EpochLine(keras.callbacks.Callback):
    """Print one line per epoch, which is a point of each curve; a progress bar would fill the log."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        metrics = {name: round(logs[name], 4) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        print(json.dumps({"epoch": epoch + 1, "metrics": metrics}), flush=True)


def export(preprocessor: keras.Model, network: keras.Model, folder: Path) -> None:
    """Save both parts as one SavedModel, which takes raw columns by name."""
    columns = {name: tf.TensorSpec([None], tf.float32, name) for name in NUMBERS}
    columns |= {name: tf.TensorSpec([None], tf.string, name) for name in CATEGORIES}

    def serve(features: Tensors) -> Tensors:
        probability = network(preprocessor(features))[:, 0]
        return {"probability": probability, "label": tf.where(probability > 0.5, LABELS[1], LABELS[0])}

    archive = keras.export.ExportArchive()
    archive.track(preprocessor)
    archive.track(network)
    archive.add_endpoint("serving_default", serve, input_signature=[columns])
    archive.write_out(str(folder), verbose=False)


def main() -> None:
    """Read, train, test, export."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    train_features, train_labels = read_data(arguments.train_data)
    test_features, test_labels = read_data(arguments.test_data)
    print(f"{len(train_labels)} training rows, {len(test_labels)} test rows", flush=True)

    # The preprocessor learns nothing during training, so its outputs are computed once, not in every epoch.
    preprocessor = build_preprocessor(train_features)
    prepared = preprocessor(train_features)
    network = build_network(prepared)
    network.compile(keras.optimizers.Adam(0.002), loss="binary_crossentropy", metrics=["accuracy"])
    # The last tenth of the training rows is the validation set, which shows when the model starts to overfit.
    network.fit(
        prepared,
        train_labels,
        validation_split=0.1,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        verbose=0,
        callbacks=[EpochLine()],
    )

    loss, accuracy = network.evaluate(preprocessor(test_features), test_labels, batch_size=4096, verbose=0)
    export(preprocessor, network, arguments.model_dir / "1")
    metrics = {
        "accuracy": accuracy,
        "loss": loss,
        "epochs": arguments.epochs,
        "train_rows": len(train_labels),
        "test_rows": len(test_labels),
    }
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"test accuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
