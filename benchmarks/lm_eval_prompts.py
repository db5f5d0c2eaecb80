"""Hash the prompts that lm-eval makes of `tests/lm_eval_cases.py`: the figures of the tests.

Run it in an environment with lm-eval 0.4.13, from the repository's root; it asks no model:

    python benchmarks/lm_eval_prompts.py
"""

import hashlib
import json
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from lm_eval.api.task import ConfigurableTask

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from lm_eval_cases import CASES, write

SEED = 1234


def main() -> None:
    """Print a digest for each case."""
    logging.disable(logging.ERROR)
    with TemporaryDirectory() as folder:
        write(Path(folder))
        files = {path.stem: str(path) for path in Path(folder).glob("*.jsonl")}
        for name, text in CASES.items():
            config = {**yaml.safe_load(text), "task": name}
            config |= {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
            print(f'    "{name}": "{digest(prompts(config))}",')


def prompts(config: dict[str, Any]) -> list[list[list[object]]]:
    """Return the arguments of lm-eval's requests, document by document."""
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(SEED)
    task.build_all_requests()
    found: dict[int, list[list[object]]] = {}
    for each in task.instances:
        context, second = each.args[:2]
        second = second["until"] if isinstance(second, dict) else second
        found.setdefault(each.doc_id, []).append([context, second])
    return [found[number] for number in sorted(found)]


def digest(found: object) -> str:
    """Return the start of the SHA-256 of prompts."""
    text = json.dumps(found, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
