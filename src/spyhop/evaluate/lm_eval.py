"""Read purely declarative task files (YAML) of lm-eval 0.4 as they are.

Groups, tags and `include` are followed in the file's folder. A file that needs Python is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from spyhop.evaluate.shots import Sampler
from spyhop.evaluate.task import Benchmark
from spyhop.evaluate.yaml_file import Python, read_yaml
from spyhop.schema import Config, RecipeError
from spyhop.settings import validated
from spyhop.text.filters import ExactMatch, read_filters

Template = str | int | tuple[str | int, ...] | None
"""A Jinja template, the name of a column, an index, or a list, as in the file."""

_PYTHON_KEYS = (
    "class", "custom_dataset", "process_docs", "process_results", "doc_to_image", "doc_to_audio",
    "use_prompt", "unsafe_code",
)  # fmt: skip
_NO_PROMPT = {
    "aggregate_metric_list", "doc_to_decontamination_query", "group_alias", "metadata", "repeats",
    "should_decontaminate", "tag", "task_alias", "task_list", "_where",
}  # fmt: skip
"""Keys that change neither prompts nor scores of items."""
_GROUP_KEYS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "_where"}
_METRICS = {
    "acc": "acc",
    "acc_norm": "acc_norm",
    "acc_bytes": "acc_bytes",
    "acc_mutual_info": "acc_mutual_info",
    "exact_match": "exact",
}
_MAX_FILES = 3000


class Shots(Config):
    """Worked examples of a task, and how they are written where that differs from its items."""

    number: int = Field(0, ge=0)
    split: str = ""
    samples: tuple[dict[str, Any], ...] = ()
    """The examples themselves, instead of rows of a split."""
    sampler: Sampler = "seeded"
    excludes_item: bool = False
    text: Template
    choices: Template
    target: Template
    prefix: str
    target_delimiter: str
    delimiter: str


class LmEvalTask(Config):
    """One task of lm-eval: where its rows are, and how prompts are made of them."""

    name: str
    topic: str = ""
    subset: str = ""
    split: str
    files: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Files of each split, where the task states them."""
    output: Literal["multiple_choice", "loglikelihood", "generate_until"] = "generate_until"
    description: str = ""
    text: Template
    choices: Template = None
    target: Template
    prefix: str = ""
    """Beginning of the response (`gen_prefix`)."""
    target_delimiter: str = " "
    shots: Shots


class LmEvalSuite(Benchmark):
    """Tasks of lm-eval that read one data set and are scored in one way."""

    members: tuple[LmEvalTask, ...]


def read_lm_eval(path: Path) -> tuple[LmEvalSuite, ...]:
    """Return the tasks of a YAML file: one suite per data set and way of scoring.

    Raises:
        RecipeError: If the file is not YAML, needs Python, or asks for what is not supported.
    """
    root = read_yaml(path)
    parts: dict[str, list[tuple[dict[str, Any], LmEvalTask]]] = {}
    for topic, settings in _expanded(root, _Index(path.parent), "", {}):
        shared, member = _task(settings, topic)
        parts.setdefault(repr(sorted(shared.items())), []).append((shared, member))
    if not parts:
        raise RecipeError(f"{path}: no task; a task file has the keys `task` and `dataset_path`")
    name = _slug(str(root.get("group") or root.get("task")))
    suites = []
    for number, part in enumerate(parts.values(), start=1):
        own = _slug(part[0][1].name) if len(part) == 1 else f"{name}-{number}"
        members = tuple(member for _, member in part)
        given = {"name": name if len(parts) == 1 else own, "members": members, **part[0][0]}
        suites.append(validated(path, LmEvalSuite, given, "", {}))
    return tuple(suites)


class _Index:
    """Tasks, groups and tags of the YAML files in a folder, by name; read at the first look-up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._named: dict[str, dict[str, Any]] = {}
        self._tagged: dict[str, list[str]] = {}

    def find(self, name: str, where: str) -> list[dict[str, Any]]:
        """Return the task or group of a name, or the tasks of a tag.

        Raises:
            RecipeError: If no file in the folder names it.
        """
        if not self._named:
            self._read()
        if name in self._named:
            return [self._named[name]]
        if name in self._tagged:
            return [self._named[each] for each in sorted(self._tagged[name])]
        raise RecipeError(f"{where}: no YAML file in {self._folder} defines {name!r}")

    def _read(self) -> None:
        files = sorted(self._folder.rglob("*.yaml"))
        if len(files) > _MAX_FILES:
            raise RecipeError(
                f"{self._folder}: {len(files):,} YAML files; at most {_MAX_FILES:,}: copy the "
                "group's files to a folder of their own"
            )
        for file in files:
            settings = read_yaml(file, is_needed=False)
            name = settings.get("group", settings.get("task"))
            if not isinstance(name, str) or name in self._named:
                continue
            self._named[name] = settings
            if "group" not in settings:
                for tag in _listed(settings.get("tag")):
                    self._tagged.setdefault(str(tag), []).append(name)


def _expanded(
    settings: dict[str, Any], index: _Index, topic: str, changes: Mapping[str, Any], depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the settings of each task below a group with its topic: the nearest group's name."""
    where = settings["_where"]
    if depth > 10:
        raise RecipeError(f"{where}: groups contain each other")
    if "group" not in settings:
        yield topic, {**settings, **changes, "_where": where}
        return
    inner = {k: v for k, v in settings.items() if k not in _GROUP_KEYS} | dict(changes)
    members = settings.get("task")
    if not isinstance(members, list) or not members:
        raise RecipeError(f"{where}: the group {settings['group']!r} has no list of tasks")
    alias = settings.get("group_alias") or settings["group"]
    topic = str(alias) if depth else ""
    for member in members:
        own = dict(member) if isinstance(member, dict) else {"task": member}
        if isinstance(own.get("group"), str) and isinstance(own.get("task"), list):
            yield from _expanded({**own, "_where": where}, index, topic, inner, depth + 1)
            continue
        name = own.pop("group", None) or own.get("task")
        if not isinstance(name, str):
            raise RecipeError(
                f"{where}: a member of {settings['group']!r} has no name: {own!s:.80}"
            )
        own.pop("task", None)
        if "dataset_path" in own:  # a task of its own, written into the group
            yield topic, {**inner, **own, "task": name, "_where": where}
            continue
        for each in index.find(name, where):
            yield from _expanded(each, index, topic, {**inner, **own}, depth + 1)


def _task(settings: Mapping[str, Any], topic: str) -> tuple[dict[str, Any], LmEvalTask]:
    """Return what a suite's tasks share (data set and protocol), and the task."""
    where = settings["_where"]
    _refuse_python(settings, where)
    more = settings.get("fewshot_config") or {}
    if not isinstance(more, dict):
        raise RecipeError(f"{where}: fewshot_config = {more!r:.60}: write a table")
    named = {name: settings.get(f"{name}_split") for name in ("test", "validation", "training")}
    split = named["test"] or named["validation"]
    output = settings.get("output_type") or "generate_until"
    text = {
        "text": settings.get("doc_to_text", ""),
        "choices": _choices(settings.get("doc_to_choice")),
        "target": settings.get("doc_to_target"),
        "prefix": settings.get("gen_prefix") or "",
        "target_delimiter": settings.get("target_delimiter", " "),
    }
    shots_split = more.get("split") or settings.get("fewshot_split")
    samples = more.get("samples") or ()
    own_split = shots_split or (
        "" if samples else named["training"] or named["validation"] or split
    )
    delimiter = settings.get("fewshot_delimiter", "\n\n")
    shots = {
        "number": settings.get("num_fewshot") or 0,
        "split": own_split or "",
        "samples": samples,
        "sampler": {"default": "seeded"}.get(more.get("sampler", "default"), more.get("sampler")),
        "excludes_item": shots_split == named["test"],
        "text": more.get("doc_to_text") or text["text"],
        "choices": _choices(more.get("doc_to_choice")) or text["choices"],
        "target": more.get("doc_to_target") or text["target"],
        "prefix": more.get("gen_prefix") or text["prefix"],
        "target_delimiter": more.get("target_delimiter", text["target_delimiter"]),
        "delimiter": more.get("fewshot_delimiter", delimiter),
    }
    given = {
        "name": str(settings.get("task")),
        "topic": topic,
        "subset": settings.get("dataset_name") or "",
        "split": split,
        "files": _files(settings),
        "output": output,
        "description": settings.get("description") or "",
        "shots": shots,
        **text,
    }
    if not settings.get("dataset_path") or not split:
        missing = "dataset_path" if split else "test_split or validation_split"
        raise RecipeError(f"{where}: no {missing}")
    member = validated(Path(where), LmEvalTask, given, "", {})
    return {"data": settings["dataset_path"], **_protocol(settings, delimiter, where)}, member


def _choices(given: object) -> object:
    return list(given.values()) if isinstance(given, dict) else given


def _files(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return `data_files` by split: a list without splits is the training split."""
    files = (settings.get("dataset_kwargs") or {}).get("data_files") or {}
    files = files if isinstance(files, dict) else {"train": files}
    return {split: [str(each) for each in _listed(names)] for split, names in files.items()}


def _protocol(settings: Mapping[str, Any], delimiter: str, where: str) -> dict[str, Any]:
    """Return how the items are asked and scored."""
    output = settings.get("output_type") or "generate_until"
    listed = settings.get("metric_list") or [
        {"metric": "exact_match" if output == "generate_until" else "acc"}
    ]
    known = [each for each in listed if isinstance(each, dict) and each.get("metric") in _METRICS]
    if not known:
        names = ", ".join(str(each.get("metric")) for each in listed if isinstance(each, dict))
        raise RecipeError(f"{where}: metric_list has none of {', '.join(_METRICS)}: {names:.80}")
    shared: dict[str, Any] = {"form": "plain", "metric": _METRICS[known[0]["metric"]]}
    if output != "generate_until":
        return shared | {"method": "likelihood"}
    given = settings.get("generation_kwargs") or {}
    stop = [each for each in _listed(given.get("until", delimiter)) if each]
    is_sampled = given.get("do_sample", True) and given.get("temperature")
    sampling = {
        "max_new_tokens": given.get("max_gen_toks", given.get("max_new_tokens", 256)),
        "temperature": float(given["temperature"]) if is_sampled else 0.0,
        "top_p": given.get("top_p", 1.0) if is_sampled else 1.0,
        "stop": stop,
    }
    match = {key: value for key, value in known[0].items() if key in ExactMatch.model_fields}
    filters = read_filters(settings.get("filter_list"), where)
    return shared | {
        "sampling": sampling,
        "filters": [each.model_copy(update={"match": ExactMatch(**match)}) for each in filters],
    }


def _refuse_python(settings: Mapping[str, Any], where: str) -> None:
    for key, value in settings.items():
        if key in _NO_PROMPT:
            continue
        if found := _python_in(value):
            raise RecipeError(f"{found.where}: {key} needs Python ({found.text}); {_REMEDY}")
        if key in _PYTHON_KEYS and value not in (None, False):
            raise RecipeError(f"{where}: {key} = {value!r:.60} needs Python; {_REMEDY}")
        if key not in _KNOWN | set(_PYTHON_KEYS):
            raise RecipeError(f"{where}: {key} is no key of an lm-eval task")


_REMEDY = "describe the benchmark in a TOML file instead (docs/evaluation.md)"
_KNOWN = {
    "dataset_kwargs", "dataset_name", "dataset_path", "description", "doc_to_choice",
    "doc_to_target", "doc_to_text", "fewshot_config", "fewshot_delimiter", "fewshot_split",
    "filter_list", "gen_prefix", "generation_kwargs", "group", "metric_list", "num_fewshot",
    "output_type", "target_delimiter", "task", "test_split", "training_split", "validation_split",
}  # fmt: skip


def _python_in(value: object) -> Python | None:
    """Return the first value that needs Python."""
    if isinstance(value, Python):
        return value
    inner: Sequence[object] = ()
    if isinstance(value, dict | list):
        inner = list(value.values()) if isinstance(value, dict) else value
    return next((found for each in inner if (found := _python_in(each))), None)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-_.")


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
