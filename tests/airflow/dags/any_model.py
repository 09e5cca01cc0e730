"""Trainings with the libraries of the field, none of which writes a SavedModel, and a job without a model."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset

from airflow_training.operators.training import TrainingOperator

COMMON = """
import json
from pathlib import Path

ROWS, LABELS = [[0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [3.0, 0.0]], [0, 0, 1, 1]


def report(accuracy):
    print(json.dumps({"metrics": {"accuracy": float(accuracy)}}))

"""

SCRIPTS = {
    "scikit-learn": """
import joblib
from sklearn.linear_model import LogisticRegression

model = LogisticRegression().fit(ROWS, LABELS)
joblib.dump(model, "model.joblib")
report(model.score(ROWS, LABELS))
""",
    "xgboost": """
import numpy
import xgboost

data = xgboost.DMatrix(numpy.array(ROWS), label=numpy.array(LABELS))
booster = xgboost.train({"objective": "binary:logistic", "min_child_weight": 0}, data, num_boost_round=5)
Path("out").mkdir()
booster.save_model("out/model.json")
report(((booster.predict(data) > 0.5) == LABELS).mean())
""",
    "pytorch": """
import torch

torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
rows, labels = torch.tensor(ROWS), torch.tensor(LABELS, dtype=torch.float32)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
Path("checkpoints").mkdir()
for epoch in range(200):
    optimizer.zero_grad()
    predicted = model(rows).squeeze()
    torch.nn.functional.binary_cross_entropy_with_logits(predicted, labels).backward()
    optimizer.step()
    if epoch % 100 == 0:
        torch.save(model.state_dict(), f"checkpoints/{epoch}.pt")
torch.save(model.state_dict(), "best.pt")
report(((model(rows).squeeze() > 0) == labels.bool()).float().mean())
""",
    "onnx": """
import numpy
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

rows = numpy.array(ROWS, dtype=numpy.float32)
model = LogisticRegression().fit(rows, LABELS)
for version in (9, 10):
    folder = Path("export", str(version))
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(to_onnx(model, rows[:1]).SerializeToString())
report(model.score(rows, LABELS))
""",
    "mlflow": """
import mlflow.sklearn
import numpy
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

rows = numpy.array(ROWS)
model = LogisticRegression().fit(rows, LABELS)
mlflow.sklearn.save_model(
    model,
    "model",
    signature=infer_signature(rows, model.predict(rows)),
    pip_requirements=[],
    serialization_format="cloudpickle",  # The default needs another library.
)
report(model.score(rows, LABELS))
""",
    "folder": """
Path("tokenizer/merges").mkdir(parents=True)
Path("tokenizer/vocabulary.json").write_text("{}")
Path("tokenizer/merges/merges.txt").write_text("a b")
report(1)
""",
    "nothing": """
Path("predictions.csv").write_text("0\\n1\\n")
report(1)
""",
}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "scikit-learn": {"model": "model.joblib", "requirements": ["scikit-learn"]},
    "xgboost": {"model": "out/*.json", "requirements": ["xgboost-cpu"]},
    # Wheels of PyTorch require two gigabytes of libraries for GPUs; Debian's package does not.
    "pytorch": {"model": "**/*.pt", "launcher": "/usr/bin/python3"},
    "onnx": {"model": "export", "requirements": ["skl2onnx==1.20.0", "scikit-learn==1.7.2"]},
    "mlflow": {"model": "model", "requirements": ["mlflow-skinny", "scikit-learn", "pandas"]},
    "folder": {"model": "tokenizer"},
    "nothing": {"model": None},
}

with DAG("any_model", schedule=None, max_active_tasks=8):
    for name, script in SCRIPTS.items():
        TrainingOperator(
            task_id=name,
            job_name=name,
            script=COMMON + script,
            image="python:3",
            completion_time="1h",
            resources={"cpus": 1, "memory": 1024},
            outlets=[Asset(f"model-of-{name}")],
            **ARGUMENTS[name],
        )
