"""What an endpoint can do, as `spyhop doctor` proved it; a stage that needs more is refused.

Proofs are kept in the store, one file per endpoint: its API, address and model, and `extra`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, TypeAdapter, ValidationError

from spyhop.models.calls import Kind, Sampling
from spyhop.models.dialect import DIALECTS
from spyhop.models.service import Endpoint, Service
from spyhop.store import key_of
from spyhop.store.atomic import atomic_write

FOLDER = ".seen"
LOG_PROBABILITIES = "log-probabilities"
REMEDIES = {
    "temperature": ("sampling.temperature", 'set it to "unset", or list temperature in omit'),
    "top_p": ("sampling.top_p", "list top_p in omit"),
    "seed": ("sampling.seed", "list seed in omit"),
    LOG_PROBABILITIES: ("sampling.log_probability", "switch it off"),
    "schema": ("sampling.json_schema", "remove it, or use a model that follows schemas"),
    "n": ("max_n", "set max_n = 1"),
    "prefill": ("a response that is begun", "use a model that continues one"),
}
"""By capability: the setting that needs it, and the remedy where it is missing."""


class Named(Protocol):
    """A served model, by what is sent with every request."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def extra(self) -> dict[str, Any]:
        """Fields that are added."""

    @property
    def omit(self) -> tuple[str, ...]:
        """Fields that are not sent."""


class Proof(BaseModel):
    """What doctor found about one capability of an endpoint."""

    has: bool
    text: str
    date: str


Proofs = TypeAdapter(dict[str, Proof])


def save(
    root: Path, config: Named, endpoint: Endpoint, found: Mapping[str, tuple[bool | None, str]]
) -> None:
    """Keep what doctor found at an endpoint, beside what it found before; None is no finding."""
    path, date = _path(root, config, endpoint), f"{datetime.now(UTC):%Y-%m-%d}"
    new = {
        name: Proof(has=has, text=text, date=date)
        for name, (has, text) in found.items()
        if has is not None and name not in DIALECTS[endpoint.api].lacks
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(Proofs.dump_json(_read(path) | new, indent=1))


def lacks(root: Path, config: Named, endpoint: Endpoint) -> dict[str, str]:
    """Return the capabilities that an endpoint does not have, with the reason of each.

    Known are those that its API does not have, and those that doctor proved.
    """
    proofs = _read(_path(root, config, endpoint))
    missing = {name: proof for name, proof in proofs.items() if not proof.has}
    return dict(DIALECTS[endpoint.api].lacks) | {
        name: f"doctor, {proof.date}: {proof.text}" for name, proof in missing.items()
    }


def _read(path: Path) -> dict[str, Proof]:
    try:
        return Proofs.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def has_all(root: Path, config: Named, service: Service, names: Iterable[str]) -> bool:
    """Return whether no endpoint of a model is known to lack one of these capabilities."""
    missing = (lacks(root, config, endpoint) for endpoint in service.endpoints)
    return not any(each.keys() & set(names) for each in missing)


def needs(
    kind: Kind, sampling: Sampling, omit: Sequence[str], *, is_begun: bool, most: int
) -> Iterator[str]:
    """Yield the capabilities without which calls fail or are not what was asked for."""
    if is_begun:
        yield "prefill"
    if kind != "generate":
        return
    if most > 1:
        yield "n"
    sent = {
        "temperature": sampling.temperature != 1.0,
        "top_p": sampling.top_p != 1.0,
        "seed": True,
    }
    if sampling.temperature != "unset":
        yield from (name for name, is_needed in sent.items() if is_needed and name not in omit)
    if sampling.log_probability and "logprobs" not in omit:
        yield LOG_PROBABILITIES
    if sampling.json_schema is not None and "response_format" not in omit:
        yield "schema"


def refusal(
    root: Path,
    config: Named,
    service: Service,
    kind: Kind,
    sampling: Sampling,
    *,
    is_begun: bool = False,
) -> str:
    """Return why calls would fail at an endpoint, and the remedy; empty if they would not."""
    for endpoint in service.endpoints:
        missing = lacks(root, config, endpoint)
        if "seed" in DIALECTS[endpoint.api].lacks:  # it is not sent
            missing.pop("seed", None)
        for name in needs(kind, sampling, config.omit, is_begun=is_begun, most=endpoint.max_n):
            if name in missing:
                setting, remedy = REMEDIES[name]
                return (
                    f"{setting} needs {name}, which {endpoint.url} does not have "
                    f"({missing[name]}); {remedy}"
                )
    return ""


def _path(root: Path, config: Named, endpoint: Endpoint) -> Path:
    model = endpoint.model or config.model
    return root / FOLDER / f"{key_of([endpoint.api, endpoint.url, model, config.extra])}.json"
