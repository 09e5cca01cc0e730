"""The secrets in a job's description: found by its masks and by the names of its variables, and hidden."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from airflow_training.api.description import LONGEST_COMMAND, JobDescription, Variable
from airflow_training.api.parameters import LONGEST_VALUE
from airflow_training.service.runners.supervisor.secret_masks import MASK, Masks

# Most are names that Airflow masks too. A tokenizer is not a secret.
_SENSITIVE = (
    r"(?:access_?key|account_?key|api_?key|authorization|bearer|connection_string|credential|keyfile|passphrase"
    r"|passwd|password|private_?key|prox(?:y|ies)|secret|service_account|token(?!i[sz]))"
)
_SENSITIVE_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
# `--api-key=…`, `--api-key …` and `API_KEY=…`. The limits keep the time linear.
_NAME = rf"[\w-]{{0,64}}{_SENSITIVE.replace('_?', '[_-]?')}[\w-]{{0,64}}"
_QUOTED_OPTION = re.compile(rf"'(--{_NAME}=)[^']*'", re.IGNORECASE)
_OPTION = re.compile(rf"""(?<![\w-])(--{_NAME}[=\s]|{_NAME}=)(?![-=])(?:'[^']*'|"[^"]*"|[^\s'"]+)""", re.IGNORECASE)
# In a URL of the web, a user alone is a token.
_PASSWORD_IN_URL = re.compile(
    r"(://[^/\s:@'\"]{0,256}:|https?://(?=[^/\s:@'\"]{1,1024}@))[^/\s@'\"]{1,1024}@", re.IGNORECASE
)

# Characters. Shorter values would be masked wherever they occur by chance; Airflow has the same minimum.
_SHORTEST = 5
# Of an image or a model.
_LONGEST_NAME = 512
_COMMON = frozenset({"true", "false", "none", "null"})


def is_sensitive(name: str) -> bool:
    """Whether the value of a variable with this name is a secret.

    >>> is_sensitive("HF_TOKEN"), is_sensitive("TOKENIZER")
    (True, False)
    """
    return bool(_SENSITIVE_NAME.search(name))


def masks_of(variable: Variable) -> list[str]:
    """What to mask in the log of a job for a secret variable: its value, or only `NAME=value` if that is a common text.

    >>> masks_of(Variable(name="HF_TOKEN", value="hf_abcdef")), masks_of(Variable(name="MAX_TOKENS", value=512))
    (['hf_abcdef'], ['--max_tokens=512', 'MAX_TOKENS=512'])
    """
    text = variable.text
    if not text:
        return []
    if len(text) < _SHORTEST or text.lower() in _COMMON or re.fullmatch(r"[-+0-9.eE]+", text):
        return [f"{variable.argument}={text}", f"{variable.name}={text}"]
    return [text]


def sensitive_masks(variables: Iterable[Variable]) -> Iterator[str]:
    """The masks of all variables that are secret by their names."""
    for variable in variables:
        if is_sensitive(variable.name):
            yield from masks_of(variable)


def without_passwords(text: str) -> str:
    """A text with `***` for each password in a URL.

    >>> without_passwords("https://me:secret@host/simple git+https://token@host/code s3://conn@bucket")
    'https://me:***@host/simple git+https://***@host/code s3://conn@bucket'
    """
    return _PASSWORD_IN_URL.sub(rf"\1{MASK}@", text)


def without_secrets(description: JobDescription) -> JobDescription:
    """A description to show: with `***` for each secret, and without the masks.

    Secret are the masks, the values of variables and options with a name such as `API_KEY`, and passwords in URLs.
    """
    masks = Masks([*(description.masks or ()), *sensitive_masks(description.env)])

    def shown(text: str, most: int) -> str:
        text = without_passwords(masks.mask(text))
        text = _OPTION.sub(rf"\1{MASK}", _QUOTED_OPTION.sub(rf"'\1{MASK}'", text))
        # A mask may be longer than what it hides, and the result is still to be a description.
        return text.encode()[:most].decode(errors="ignore")

    def shown_variable(variable: Variable) -> Variable:
        text = MASK if is_sensitive(variable.name) else shown(variable.text, LONGEST_VALUE)
        return variable if text == variable.text else Variable(name=variable.name, value=text)

    execution = description.execution
    shown_execution = execution.model_copy(
        update={
            "command": shown(execution.command, LONGEST_COMMAND),
            "image": execution.image and shown(execution.image, _LONGEST_NAME),
        }
    )
    return description.model_copy(
        update={
            "env": tuple(map(shown_variable, description.env)),
            "execution": shown_execution,
            "model": description.model and shown(description.model, _LONGEST_NAME),
            "masks": None,
        }
    )
