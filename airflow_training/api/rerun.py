"""The rerun extension: a job runs again under another id, with the same files and a changed description."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from airflow_training.api.description import Variable
from airflow_training.api.durations import check_duration
from airflow_training.api.naming import JOB_ID
from airflow_training.api.resources import RequestedResources

# A word of a command line, with what is quoted in it.
_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\;&|<>()])+""", re.DOTALL)
# Parts of a word that the shell takes as they are.
_LITERAL = re.compile(r"""(?:'[^']*'|"[^"$`\\]*")""")


class JobChanges(BaseModel):
    """What differs from the job that runs again; all else stays as it is.

    Attributes:
        name: The name.
        image: The container image.
        command: The command.
        completion_time: The time limit, such as `20h`, or a number of seconds.
        resources: The requested resources that change.
        env: Variables to replace or to add. An argument `--name=…` of the previous command, the name in lower case,
            gets the new value as well.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    name: str | None = None
    image: str | None = None
    command: str | None = None
    completion_time: Annotated[str | int, AfterValidator(check_duration)] | None = None
    resources: RequestedResources | None = None
    env: tuple[Variable, ...] = Field((), max_length=1_000)


class RerunRequest(BaseModel):
    """The body of a rerun.

    Attributes:
        job_id: The id of the new job.
        changes: What differs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str = Field(pattern=JOB_ID)
    changes: JobChanges = JobChanges()

    def to_wire(self) -> dict[str, Any]:
        """The body."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude_none=True, mode="json")


def with_argument(command: str, name: str, value: str) -> str:
    """Change the value of an argument `--name=…` wherever it is in a command; a value that the shell computes stays.

    >>> with_argument("pip3 install -r requirements.txt && python3 train.py --epochs=5 '--data=a b'", "data", "c d")
    "pip3 install -r requirements.txt && python3 train.py --epochs=5 '--data=c d'"
    >>> with_argument("python3 train.py --epochs=$EPOCHS", "epochs", "7")
    'python3 train.py --epochs=$EPOCHS'
    """

    def changed(match: re.Match[str]) -> str:
        word = match[0]
        if f"--{name}=" not in word or re.search(r"[$`]", _LITERAL.sub("", word)):
            return word
        written = shlex.split(word)
        return shlex.quote(f"--{name}={value}") if written[0].startswith(f"--{name}=") else word

    return _WORD.sub(changed, command)
