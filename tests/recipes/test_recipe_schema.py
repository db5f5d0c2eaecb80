"""The JSON Schema of recipe files says what the recipes themselves accept."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import spyhop.recipes
from spyhop.recipes import RECIPES

ROOT = Path(__file__).parent.parent.parent
OURS = Path(spyhop.recipes.__file__).parent
FILES = {
    path.name: tables
    for path in sorted([*OURS.glob("*.toml"), *(ROOT / "examples").glob("*.toml")])
    if "recipe" in (tables := tomllib.loads(path.read_text()))
}


def _faults(tables: dict[str, Any]) -> list[str]:
    schema = RECIPES[tables["recipe"]].schema(tables["recipe"])
    found = Draft202012Validator(schema).iter_errors(tables)
    return [f"{'.'.join(map(str, each.absolute_path))}: {each.message:.80}" for each in found]


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_a_schema(name: str, cli):
    schema = json.loads(cli("recipes", name, "--schema").stdout)
    Draft202012Validator.check_schema(schema)
    assert schema == json.loads(json.dumps(RECIPES[name].schema(name)))
    assert set(schema["properties"]) == {
        "recipe", "name", "dtype", "runtime", *RECIPES[name].config_type.model_fields
    }  # fmt: skip
    assert "null" not in {each.get("type") for each in _nodes(schema)}
    undescribed = [n for n, p in schema["properties"].items() if not {"$ref", "description"} & {*p}]
    assert undescribed in ([], ["recipe"])


def _nodes(value: Any) -> list[dict[str, Any]]:
    inner = list(value.values()) if isinstance(value, dict) else value
    more = [node for each in inner for node in _nodes(each)] if isinstance(inner, list) else []
    return [value, *more] if isinstance(value, dict) else more


@pytest.mark.parametrize("name", FILES)
def test_the_shipped_files_are_valid(name: str):
    assert _faults(FILES[name]) == []


def test_mistakes_of_every_kind_are_found():
    good = FILES["orca.toml"]
    assert _faults({**good, "probe": False, "runtime": {"workers": 2}}) == []
    for change in (
        {"colections": []}, {"recipe": "humpback"}, {"runtime": {"gpu": 2}},
        {"runtime": {"steps": {"student": {"gpus": 0}}}}, {"seed": "one"}, {"dtype": "float8"},
        {"train": {"epochs": 2.0, "optimizer": {"learning_rates": 1e-3}}}, {"ablate": ["ordr"]},
        {"suites": [{"suite": "bbh", "limit": 0}]}, {"student": 3},
    ):  # fmt: skip
        assert _faults({**good, **change}), change
    assert any("'base' is a required property" in f for f in _faults({"recipe": "scale"}))


def test_a_schema_of_no_recipe_is_an_error(cli):
    done = cli("recipes", "--schema")
    assert done.code == 2 and "--schema: name a recipe" in done.stderr
