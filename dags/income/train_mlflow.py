"""Train as `train_sklearn.py` does, track the run in MLflow, and register the model there.

The variable MLFLOW_TRACKING_URI has the URL of MLflow's server. Writes the model to the folder `model`, too.
"""

import json
import os

import mlflow
from train_sklearn import parse_arguments, train

mlflow.set_experiment("census")
with mlflow.start_run() as run:
    # Which task this is, for a search in MLflow: AIRFLOW_CTX_DAG_ID and others.
    mlflow.set_tags({name: value for name, value in os.environ.items() if name.startswith("AIRFLOW_CTX_")})
    arguments = parse_arguments()
    mlflow.log_params(vars(arguments))
    model, accuracy = train(arguments)
    mlflow.log_metric("accuracy", accuracy)
    # The requirements are those of the job. A pickle, since MLflow's safer formats do not know every model.
    saved = {"pip_requirements": "requirements.txt", "serialization_format": "cloudpickle"}
    mlflow.sklearn.log_model(model, name="model", registered_model_name="census", **saved)
    mlflow.sklearn.save_model(model, "model", **saved)
    print(json.dumps({"metrics": {"accuracy": accuracy}}))
    print(f"run {run.info.run_id}")
