"""Providers: the files to copy, and a recipe whose two models speak different dialects."""

import re
import shutil
from pathlib import Path

import pytest

import providers
from asking import opened
from providers import Provider
from server import KEY, Server
from spyhop.augment import AnswerConfig, answer
from spyhop.collect.messages import MessagesConfig, read_prompts
from spyhop.models import Remote, Request, Sampling, read_teacher
from spyhop.models.dialect import DIALECTS
from spyhop.models.endpoint_state import EndpointState
from spyhop.recipe import Recipe, Source, Use, resolve, run
from spyhop.recipe.load import read_recipe
from spyhop.recipe.plan import plan
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.schema import Answer, Message
from spyhop.stage import Runtime

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/providers").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_file_of_every_page_is_a_teacher(page: Path, tmp_path: Path, monkeypatch):
    (code,) = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "teacher.toml").write_text(code)
    teacher = read_teacher(tmp_path / "teacher.toml")
    assert teacher.service is not None and isinstance(teacher.config, Remote)
    for endpoint in teacher.service.endpoints:
        monkeypatch.setenv(endpoint.key_env or "NONE", "k")
        state = EndpointState(endpoint, teacher.config.model)
        assert "{" not in state.url and state.headers()["Content-Type"] == "application/json"
    assert f"providers/{page.name}" in (ROOT / "docs/teachers.md").read_text()


def test_every_chat_dialect_has_a_page():
    text = "".join(page.read_text() for page in PAGES)
    chats = {name for name, each in DIALECTS.items() if each.takes == "chats"} - {"openai"}
    assert all(f'api = "{name}"' in text for name in chats)


@pytest.mark.parametrize("path", sorted((ROOT / "examples/teachers").glob("*.toml")), ids=str)
def test_every_shipped_teacher_is_read(path: Path):
    teacher = read_teacher(path)
    assert teacher.service is not None or teacher.folder is not None


def _aimed(text: str, url: str) -> str:
    """A teacher's file with the address of a test server, and limits that do not slow a test."""
    text = re.sub(r'url = "[^"]*"', f'url = "{url}"', text)
    return re.sub(r"per_min = [\d_]+", "per_min = 10_000_000", text)


def test_an_anthropic_teacher_and_an_openai_assistant(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(ROOT / "examples", tmp_path / "mine")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", providers.KEY)
    recipe = tmp_path / "mine/orca-providers.toml"
    with Server(models=("gpt-4o-mini",)) as assistant, Provider("anthropic") as teacher:
        for name, url in (("openai", assistant.url), ("anthropic", teacher.url)):
            path = tmp_path / f"mine/teachers/{name}.toml"
            path.write_text(_aimed(path.read_text(), url))
        settings = [
            f"collections.0.path={data_dir / 'flan_cot/cot_data'}", "num_queries=12",
            "collections.0.pattern=aqua_train.tsv", "teacher_queries=6", "suites.0.limit=2",
            f"suites.0.path={data_dir / 'bbh/bbh'}",
        ]  # fmt: skip
        built = orca(read_recipe(recipe, settings).config(OrcaConfig))
        names = [step.name for step in built.steps]
        built.steps = built.steps[: names.index("answers") + 1]
        demands = {name: each for line in plan(resolve(built, tmp_path / "out"))
                   for name, each in line.demands.items()}  # fmt: skip
        assert {"gpt-4o-mini", "claude-sonnet-4-5"} <= demands.keys()
        assert all(each.usd > 0 and each.binds for each in demands.values())
        made = run(resolve(built, tmp_path / "out"), Runtime(workers=1))
        assert len(teacher.calls) >= 6 and len(assistant.entries()) >= 12
        assert {path for path, *_ in teacher.calls} == {"/v1/messages"}
    rows = list(made["answers"].rows(Answer))
    assert len(rows) == 6 and {row.model for row in rows} == {"claude-sonnet-4-5"}
    assert {row.ending for row in rows} == {"whole"}
    assert made["answers"].record.usage["usd"] > 0


def test_a_plan_expects_the_cached_share_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", providers.KEY)
    rules = "Follow every one of these rules.\n" + "Be strict about each single word.\n" * 120
    with Provider("anthropic") as server:
        text = (ROOT / "examples/teachers/anthropic.toml").read_text()
        (tmp_path / "t.toml").write_text(_aimed(text, server.url))
        teacher = read_teacher(tmp_path / "t.toml")
        asked = [Request(id=f"{n}", messages=[Message(role="user", content=f"{rules}Q {n}")])
                 for n in range(20)]  # fmt: skip
        with opened(tmp_path, teacher.service, remote=teacher.config) as (model, ctx):
            assert len(list(model.generate(asked, Sampling()))) == 20
    share = ctx.usage["cached_tokens"] / ctx.usage["prompt_tokens"]
    assert 0.5 < share < 1
    (tmp_path / "q.jsonl").write_text('{"prompt": "x"}\n' * 50)
    r = Recipe("r")
    prompts = r.add("prompts", read_prompts, MessagesConfig(), file=Source(tmp_path / "q.jsonl"))
    use = Use(teacher.config, service=teacher.service)
    r.add("answers", answer, AnswerConfig(), prompts=prompts, teacher=use)
    other = resolve(r, tmp_path / "elsewhere")
    before, after = (plan(each)[-1] for each in (other, resolve(r, tmp_path)))
    (demand,) = after.demands.values()
    prompt_tokens = after.estimate.calls["teacher"].prompt_tokens
    assert demand.cached_tokens == round(share * prompt_tokens)
    assert f"{demand.cached_tokens:,} tokens in cached" in after.binds
    assert before.usd - after.usd == pytest.approx(demand.cached_tokens * 2.7e-6)
    assert "cached" not in before.binds and not (tmp_path / "elsewhere").exists()
