"""Read purely declarative task files (YAML) of lm-eval 0.4 as they are.

Groups, tags and `include` are followed in the file's folder. A file that needs Python is refused;
no tag of a file runs any code.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import yaml
from pydantic import Field, field_validator, model_validator

from spyhop.evaluate.task import Benchmark
from spyhop.schema import Config, RecipeError
from spyhop.settings import validated
from spyhop.text.filters import ExactMatch, read_filters

Template = str | int | tuple[str | int | float, ...] | None
"""A Jinja template, the name of a column, an index, or a list, as in the file."""
Index = dict[str, list[dict[str, Any]]]

_PYTHON_KEYS = (
    "class", "custom_dataset", "process_docs", "process_results", "doc_to_image", "doc_to_audio",
    "use_prompt", "unsafe_code",
)  # fmt: skip
_SCORING = ("metric_list", "filter_list", "generation_kwargs")
_NO_PROMPT = (
    "aggregate_metric_list", "doc_to_decontamination_query", "group", "group_alias", "metadata",
    "repeats", "should_decontaminate", "tag", "task_alias", "task_list", "_where",
)  # fmt: skip
"""Keys that change neither prompts nor scores of items."""
_METRICS = {"exact_match": "exact"} | {
    name: name for name in ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
}
_MAX_BYTES = 1 << 20
_MAX_VALUES = 50_000
"""Values of a file after its aliases are followed."""
_MAX_DEPTH = 40
_MAX_FILES = 3000
_PLAIN = "tag:yaml.org,2002:"
_KINDS = {"null", "bool", "int", "float", "str", "seq", "map", "merge", "timestamp", "value"}
_REMEDY = "describe the benchmark in a TOML file instead (docs/evaluation.md)"


class _Python(NamedTuple):
    """A value that a Python function or class would make."""

    text: str
    where: str


class _Prompt(Config):
    doc_to_text: Template = None
    doc_to_choice: Template = None
    doc_to_target: Template = None

    @field_validator("doc_to_choice", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        return list(given.values()) if isinstance(given, dict) else given


class FewShot(_Prompt):
    """How worked examples differ from the items (`fewshot_config`)."""

    sampler: Literal["default", "first_n"] = "default"
    split: str = ""
    samples: tuple[dict[str, Any], ...] = ()
    gen_prefix: str | None = None
    fewshot_delimiter: str | None = None
    target_delimiter: str | None = None
    fewshot_indices: tuple[int, ...] = ()
    """Ignored, as by lm-eval 0.4.13."""


class LmEvalTask(_Prompt):
    """One task of lm-eval, as in its file; keys without influence on prompts are dropped."""

    task: str
    topic: str = ""
    dataset_name: str = ""
    dataset_kwargs: dict[str, Any] = Field(default_factory=dict)
    training_split: str = ""
    validation_split: str = ""
    test_split: str = ""
    fewshot_split: str = ""
    output_type: Literal["multiple_choice", "loglikelihood", "generate_until"] = "generate_until"
    description: str = ""
    gen_prefix: str = ""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    num_fewshot: int = Field(0, ge=0)
    fewshot_config: FewShot = FewShot()

    @model_validator(mode="after")
    def _has_items(self) -> Self:
        if not self.split:
            raise ValueError("test_split or validation_split is missing")
        return self

    @property
    def split(self) -> str:
        """Split of the items."""
        return self.test_split or self.validation_split

    def files(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's files, where the task states them."""
        given = self.dataset_kwargs.get("data_files") or {}
        found = given.get(split) if isinstance(given, dict) else {"train": given}.get(split)
        return tuple(map(str, _listed(found)))


class LmEvalSuite(Benchmark):
    """Tasks of lm-eval that read one data set and are scored in one way."""

    members: tuple[LmEvalTask, ...]


def read_lm_eval(path: Path) -> tuple[LmEvalSuite, ...]:
    """Return the tasks of a YAML file: one suite per data set and way of scoring."""
    root = _read_yaml(path)
    parts: dict[str, dict[str, Any]] = {}
    index = cache(partial(_by_name, path.parent))  # read where a member is not written out

    def defined(name: str, where: str) -> list[dict[str, Any]]:
        if name not in index():
            raise RecipeError(f"{where}: no YAML file in {path.parent} defines {name!r}")
        return index()[name]

    for topic, settings in _expanded(root, defined, "", {}):
        shared, member = _task(settings, topic)
        part = parts.setdefault(repr(shared), {**shared, "members": ()})
        part["members"] += (member,)
    name = _slug(str(root.get("group") or root.get("task")))
    for number, part in enumerate(parts.values(), start=1):
        own = part["members"][0].task if len(part["members"]) == 1 else f"{name}-{number}"
        part["name"] = name if len(parts) == 1 else _slug(own)
    return tuple(validated(path, LmEvalSuite, part, "", {}) for part in parts.values())


def _by_name(folder: Path) -> Index:
    """Return the task or group of each name in a folder's YAML files, and the tasks of each tag."""
    files = sorted(folder.rglob("*.yaml"))
    if len(files) > _MAX_FILES:
        raise RecipeError(
            f"{folder}: {len(files):,} YAML files; at most {_MAX_FILES:,}: copy the group's files "
            "to a folder of their own"
        )
    every: list[dict[str, Any]] = []
    for file in files:
        with suppress(RecipeError):  # other files of the folder may be anything
            every.append(_read_yaml(file))
    named, tagged = Index(), Index()
    for settings in sorted(every, key=lambda each: str(each.get("task"))):
        name = settings.get("group", settings.get("task"))
        if isinstance(name, str) and name not in named:
            named[name] = [settings]
            for tag in _listed(settings.get("tag")) if "group" not in settings else ():
                tagged.setdefault(str(tag), []).append(settings)
    return tagged | named


def _expanded(
    settings: dict[str, Any],
    defined: Callable[[str, str], list[dict[str, Any]]],
    topic: str,
    changes: Mapping[str, Any],
    depth: int = 0,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the settings of each task below a group with its topic: the nearest group's name."""
    where = settings["_where"]
    if depth > 10:
        raise RecipeError(f"{where}: groups contain each other")
    if "group" not in settings:
        yield topic, {**settings, **changes, "_where": where}
        return
    members = settings.get("task")
    if not isinstance(members, list) or not members:
        raise RecipeError(f"{where}: the group {settings['group']!r} has no list of tasks")
    shared = {k: v for k, v in settings.items() if k not in (*_NO_PROMPT, "task")} | dict(changes)
    topic = str(settings.get("group_alias") or settings["group"]) if depth else ""
    for member in members:
        own = dict(member) if isinstance(member, dict) else {"task": member}
        if "group" in own and isinstance(own.get("task"), list):
            yield from _expanded({**own, "_where": where}, defined, topic, shared, depth + 1)
            continue
        name = own.pop("group", None) or own.get("task")
        if not isinstance(name, str):
            group = settings["group"]
            raise RecipeError(f"{where}: a member of {group!r} has no name: {own!s:.80}")
        if "dataset_path" in own:  # a task of its own, written into the group
            yield topic, {**shared, **own, "_where": where}
            continue
        own.pop("task", None)
        for each in defined(name, where):
            yield from _expanded(each, defined, topic, {**shared, **own}, depth + 1)


def _task(settings: Mapping[str, Any], topic: str) -> tuple[dict[str, Any], LmEvalTask]:
    """Return what a suite's tasks share (data set and protocol), and the task."""
    where = str(settings["_where"])
    given = {k: v for k, v in settings.items() if k not in _NO_PROMPT and v is not None}
    for key, value in given.items():
        if found := _python_in(value):
            raise RecipeError(f"{found.where}: {key} needs Python ({found.text}); {_REMEDY}")
        if key in _PYTHON_KEYS and value is not False:
            raise RecipeError(f"{where}: {key} = {value!r:.60} needs Python; {_REMEDY}")
    data = given.pop("dataset_path", None)
    if not isinstance(data, str):
        raise RecipeError(f"{where}: dataset_path is missing")
    own = {k: v for k, v in given.items() if k not in (*_SCORING, *_PYTHON_KEYS)}
    member = validated(Path(where), LmEvalTask, {**own, "topic": topic}, "", {})
    try:
        return {"data": data, **_protocol(given, member, where)}, member
    except (TypeError, ValueError, AttributeError) as error:
        raise RecipeError(f"{where}: {', '.join(_SCORING)}: {error!s:.80}") from None


def _protocol(given: Mapping[str, Any], task: LmEvalTask, where: str) -> dict[str, Any]:
    is_written = task.output_type == "generate_until"
    listed = given.get("metric_list") or [{"metric": "exact_match" if is_written else "acc"}]
    known = [each for each in listed if each.get("metric") in _METRICS]
    if not known or (known[0]["metric"] == "exact_match") != is_written:
        names = ", ".join(str(each.get("metric")) for each in listed)
        raise RecipeError(f"{where}: metric_list has none of {', '.join(_METRICS)}: {names:.80}")
    shared: dict[str, Any] = {"form": "plain", "metric": _METRICS[known[0]["metric"]]}
    if not is_written:
        return shared | {"method": "likelihood"}
    how = given.get("generation_kwargs") or {}
    is_sampled = how.get("do_sample", True) and how.get("temperature")
    sampling = {
        "max_new_tokens": how.get("max_gen_toks", how.get("max_new_tokens", 256)),
        "temperature": float(how["temperature"]) if is_sampled else 0.0,
        "top_p": how.get("top_p", 1.0) if is_sampled else 1.0,
        "stop": [each for each in _listed(how.get("until", task.fewshot_delimiter)) if each],
    }
    match = ExactMatch(**{k: v for k, v in known[0].items() if k in ExactMatch.model_fields})
    filters = read_filters(given.get("filter_list"), where)
    filters = [each.model_copy(update={"match": match}) for each in filters]
    return shared | {"sampling": sampling, "filters": filters}


def _read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the settings of a file, those of included files below its own; `_where` names it.

    `above` are the files that include it.
    """
    if path.resolve() in above or len(above) > _MAX_DEPTH:
        raise RecipeError(f"{path}: includes itself")
    own = _single(path)
    merged: dict[str, Any] = {}
    includes = own.pop("include", None) or []
    for name in includes if isinstance(includes, list) else [includes]:
        if not isinstance(name, str):
            raise RecipeError(f"{path}: include = {name!r:.60}: name a file")
        merged |= _read_yaml(path.parent / name, (*above, path.resolve()))
    return {**merged, **own, "_where": str(path)}


def _single(path: Path) -> dict[str, Any]:
    """Return the settings of one file; a tag for Python gives `_Python`."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError(f"{path}: more than {_MAX_BYTES >> 20} MB")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_text("utf-8-sig"))
        node, num = loader.get_single_node(), 0
        waiting = [(node, 0)] if node is not None else []
        while waiting:  # an alias is as many nodes as it is used
            (each, depth), num = waiting.pop(), num + 1
            if isinstance(each, yaml.CollectionNode):
                inner = each.value
                if isinstance(each, yaml.MappingNode):
                    inner = [value for pair in inner for value in pair]
                waiting += [(value, depth + 1) for value in inner]
            if num > _MAX_VALUES or depth > _MAX_DEPTH:
                raise RecipeError(
                    f"{path}: line {each.start_mark.line + 1}: its aliases unfold to more than "
                    f"{_MAX_VALUES:,} values, or {_MAX_DEPTH} levels"
                )
            if each.tag.removeprefix(_PLAIN) not in _KINDS:  # it needs code: only say so
                value = each.value if isinstance(each, yaml.ScalarNode) else ""
                text = f"{each.tag.replace(_PLAIN, '!!')} {value}".strip()[:80]
                where = f"{path}: line {each.start_mark.line + 1}"
                loader.constructed_objects[each] = _Python(text, where)
        found = loader.construct_document(node) if node is not None else None
    except (UnicodeDecodeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise RecipeError(f"{path}: cannot be read ({reason})") from None
    except RecursionError:
        raise RecipeError(f"{path}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f": line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise RecipeError(f"{path}{line}: not YAML ({reason:.80})") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise RecipeError(f"{path}: no table of settings")
    return found


def _python_in(value: object) -> _Python | None:
    if isinstance(value, _Python):
        return value
    inner = list(value.values()) if isinstance(value, dict) else value
    inner = inner if isinstance(inner, list) else []
    return next((found for each in inner if (found := _python_in(each))), None)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-_.")


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
