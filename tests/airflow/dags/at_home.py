"""Trainings that use Airflow's features: functions, assets, mapping, and a destination for the model."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, Context, TriggerRule, get_current_context, task

from airflow_training.operators.training import TrainingOperator

model = Asset("a_model")

with DAG("producer", schedule=None):

    @task.training(
        image="python:3", completion_time="10m", outlets=[model], model_destination="{{ dag_run.conf['destination'] }}"
    )
    def train(accuracies: list[float], name: str = "model") -> None:
        """Print metrics, and save when the test lets it continue."""
        import json
        import time
        from pathlib import Path

        for number, accuracy in enumerate(accuracies, start=1):
            print(json.dumps({"metrics": {"accuracy": accuracy}, "epoch": number}), flush=True)
        print(f"3/3 - 1s - 2ms/step - loss: {sum(accuracies):.4f}", flush=True)
        while not Path("go").exists():
            time.sleep(0.1)
        Path(name, "1", "variables").mkdir(parents=True)
        Path(name, "1", "saved_model.pb").write_text("a model")
        Path(name, "1", "variables", "variables.index").write_text("its variables")

    train(accuracies=[0.5, 0.75])

with DAG("consumer", schedule=[model]):

    @task
    def deploy() -> Any:
        """Return the event of the model that started this run."""
        context: Context = get_current_context()
        (event,) = context["triggering_asset_events"][model]
        return dict(event.extra)

    deploy()

with DAG("sweep", schedule=None):
    SCORE = """import json, os, pathlib, sys
rate = float(os.environ["RATE"])
if rate == 0:
    sys.exit("The rate is 0.")
print(json.dumps({"metrics": {"accuracy": rate}}))
pathlib.Path("model").mkdir()
pathlib.Path("model/saved_model.pb").touch()
"""

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def best(results: Any) -> Any:
        """Return the result of the most accurate training, and the indexes of those that succeeded."""
        succeeded = list(results)
        winner = max(succeeded, key=lambda result: result["metrics"]["accuracy"], default=None)
        return {"winner": winner, "succeeded": [result["map_index"] for result in succeeded]}

    swept = TrainingOperator.partial(
        task_id="train",
        job_name="swept",
        script=SCORE,
        image="python:3",
        completion_time="10m",
        environment={"API_KEY": "s3cret-of-the-sweep", "LEVEL": "info"},
    ).expand(env=[{"RATE": 0}, {"RATE": 0.5}, {"RATE": 0.25}])
    best(swept.output["training_job"])  # type: ignore[index]

with DAG("deployer", schedule=None):
    SAVE = "from pathlib import Path\nPath('model').mkdir()\nPath('model/saved_model.pb').touch()\n"
    in_worker: dict[str, Any] = {"image": "python:3", "completion_time": "10m", "deferrable": False}
    trained = TrainingOperator(task_id="train", job_name="deployed", script=SAVE, **in_worker)
    validated = TrainingOperator(
        task_id="validate",
        job_name="validated",
        script=SAVE.replace("model'", "checked'").replace("model/", "checked/"),
        data={"model": "{{ ti.xcom_pull('train') }}"},
        **in_worker,
    )

    @task
    def publish_it(location: str) -> int:
        """Publish the model in the folder from the run's configuration."""
        from airflow_training.serving import publish

        return publish(location, (get_current_context()["dag_run"].conf or {})["models"], keep=2)

    @task
    def take_it_back(version: int) -> None:
        """Withdraw it if the run's configuration says so."""
        from airflow_training.serving import withdraw

        configuration = get_current_context()["dag_run"].conf or {}
        if configuration.get("withdraw"):
            withdraw(configuration["models"], version)

    trained >> validated
    take_it_back(publish_it(validated.output))  # type: ignore[arg-type]  # Airflow's decorator does not type XComs
