"""Train the census model with the values from the form of the run.

The fields of the form override the parameters of the task through its `config`.

The data set is "Adult", UCI Machine Learning Repository; see census/README.md for its license.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_training.operators.training import TrainingOperator

with DAG(
    dag_id="train_on_demand",
    schedule=None,
    params={
        "job_name": Param(
            "census-on-demand",
            type="string",
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
            title="Job name",
            description="Letters, digits, dots, dashes and underscores.",
        ),
        "epochs": Param(8, type="integer", minimum=1, maximum=100, title="Epochs"),
        "batch_size": Param(256, type="integer", enum=[64, 128, 256, 512], title="Batch size"),
        "cpus": Param(2, type="integer", minimum=1, maximum=64, title="CPUs"),
        "memory": Param(4096, type="integer", minimum=1024, title="Memory", description="MB"),
        "completion_time": Param(
            "30m",
            type="string",
            title="Time limit",
            description="For example 30m, 20h or 1d; a training that takes longer is canceled.",
        ),
    },
    tags=["training"],
    doc_md=__doc__,
):
    TrainingOperator(
        task_id="train",
        job_name="census-on-demand",
        script="census/train.py",
        data={"adult.data.gz": "census/adult.data.gz", "adult.test.gz": "census/adult.test.gz"},
        requirements="tensorflow-cpu==2.21.0",
        image="tensorflow/tensorflow:2.21.0",
        completion_time="30m",
        config={
            "job_name": "{{ params.job_name }}",
            "env": {"EPOCHS": "{{ params.epochs }}", "BATCH_SIZE": "{{ params.batch_size }}"},
            "resources": {"cpus": "{{ params.cpus }}", "memory": "{{ params.memory }}"},
            "completion_time": "{{ params.completion_time }}",
        },
    )
