"""What an endpoint can do, as `spyhop doctor` proved it; a stage that needs more is refused.

Proofs are kept in the store, one file per endpoint, by API, address and model.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

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
    "top_p": ("sampling.top_p", "set it to 1, or list top_p in omit"),
    "seed": ("sampling.seed", "list seed in omit"),
    LOG_PROBABILITIES: ("sampling.log_probability", "switch it off"),
    "schema": ("sampling.json_schema", "remove it, or use a model that follows schemas"),
    "n": ("max_n", "set max_n = 1"),
    "prefill": ("a response that is begun", "use a model that continues one"),
}
"""By capability: the setting that needs it, and the remedy where it is missing."""


class Proof(BaseModel):
    """What doctor found about one capability of an endpoint."""

    has: bool
    text: str
    date: str


Proofs = TypeAdapter(dict[str, Proof])


def save(
    root: Path, model: str, endpoint: Endpoint, found: Mapping[str, tuple[bool | None, str]]
) -> None:
    """Keep what doctor found at an endpoint, beside what it found before; None is no finding."""
    path, date = _path(root, model, endpoint), f"{datetime.now(UTC):%Y-%m-%d}"
    new = {
        name: Proof(has=has, text=text, date=date)
        for name, (has, text) in found.items()
        if has is not None and name not in DIALECTS[endpoint.api].lacks
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(Proofs.dump_json(_read(path) | new, indent=1))


def lacks(root: Path, model: str, endpoint: Endpoint) -> dict[str, str]:
    """Return what an endpoint does not have, and why: by its API, or as doctor proved."""
    proofs = _read(_path(root, model, endpoint)).items()
    missing = {n: f"doctor, {each.date}: {each.text}" for n, each in proofs if not each.has}
    return {**DIALECTS[endpoint.api].lacks, **missing}


def has_all(root: Path, model: str, service: Service, names: Iterable[str]) -> bool:
    """Return whether no endpoint of a model is known to lack one of these capabilities."""
    return not any(lacks(root, model, each).keys() & set(names) for each in service.endpoints)


def refusal(
    root: Path,
    model: str,
    service: Service,
    sampling: Sampling,
    omit: Sequence[str],
    *,
    kind: Kind = "generate",
    is_begun: bool = False,
) -> str:
    """Return why calls would fail at an endpoint, and the remedy; empty if they would not."""
    is_set = sampling.temperature != "unset"
    for endpoint in service.endpoints:
        missing, never = lacks(root, model, endpoint), DIALECTS[endpoint.api].lacks
        needed = {
            "prefill": is_begun,
            "n": endpoint.max_n > 1,
            "temperature": sampling.temperature not in ("unset", 1.0) and "temperature" not in omit,
            "top_p": is_set and sampling.top_p != 1.0 and "top_p" not in omit,
            "seed": is_set and "seed" not in (*omit, *never),  # else it is not sent
            LOG_PROBABILITIES: sampling.log_probability and "logprobs" not in omit,
            "schema": sampling.json_schema is not None and "response_format" not in omit,
        }
        for name, is_needed in needed.items():
            if is_needed and name in missing and (kind == "generate" or name == "prefill"):
                setting, remedy = REMEDIES[name]
                lack = f"{name}, which {endpoint.address} does not have ({missing[name]})"
                return f"{setting} needs {lack}; {remedy}"
    return ""


def _read(path: Path) -> dict[str, Proof]:
    try:
        return Proofs.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def _path(root: Path, model: str, endpoint: Endpoint) -> Path:
    where = [endpoint.api, endpoint.address, endpoint.model or model]
    return root / FOLDER / f"{key_of(where)}.json"
