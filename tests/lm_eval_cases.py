"""Task files of lm-eval's classes, and rows for them, also for `benchmarks/lm_eval_prompts.py`.

Only the standard library is used: lm-eval's own environment imports this module.
"""

import json
from pathlib import Path
from typing import Any

WORDS = ("amber birch cedar delta ember flint grove heron iris jade kelp larch").split()  # noqa: SIM905


def rows(split: str, number: int) -> list[dict[str, Any]]:
    """Rows with a question, choices, their labels, an index, lists and white space."""
    start = {"train": 0, "validation": 3, "test": 7}[split]
    found = []
    for n in range(number):
        at = start + n
        texts = [f"{WORDS[(at + k) % 12]} {at * (k + 1)}" for k in range(2 + at % 3)]
        texts[0] = f" {texts[0]}" if n % 5 == 4 else texts[0]
        gold = at % len(texts)
        found.append(
            {
                "id": f"{split}-{n}",
                "question": f"{WORDS[at % 12].title()} {at}?{' ' * (n % 2)}",
                "choices": {"text": texts, "label": [str(k + 1) for k in range(len(texts))]},
                "texts": texts,
                "key": str(gold + 1),
                "gold": gold,
                "many": sorted({gold, 0}),
                "answers": [f"{at}", f"the {at}"],
                "answer": f"First {at}.\n#### {at:,}",
                "yes": at % 2 == 0,
                "note": None if n % 3 else "a note: é, “quoted”",
            }
        )
    return found


def write(folder: Path) -> None:
    """Write the three splits as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, number in (("train", 15), ("validation", 9), ("test", 12)):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split, number)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


CLOZE = """
dataset_path: made/up
output_type: multiple_choice
training_split: train
validation_split: validation
test_split: test
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{choices.label.index(key)}}"
doc_to_choice: "{{choices.text}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
WRITTEN = """
dataset_path: made/up
output_type: generate_until
training_split: train
test_split: test
fewshot_split: train
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:", "</s>"], do_sample: false, temperature: 0.0}
metric_list:
  - {metric: exact_match, ignore_case: true, regexes_to_ignore: [",", "\\\\$", "(?s).*#### "]}
"""
CASES = {
    "cloze": CLOZE,
    "cloze_shots": CLOZE + "num_fewshot: 3\n",
    "cloze_first": CLOZE
    + "num_fewshot: 2\nfewshot_config: {sampler: first_n}\nfewshot_split: train\n",
    "from_test": CLOZE + "num_fewshot: 3\nfewshot_split: test\n",
    "first_from_test": CLOZE
    + "num_fewshot: 2\nfewshot_split: test\nfewshot_config: {sampler: first_n}\n",
    "validation_only": CLOZE.replace("test_split: test\n", "") + "num_fewshot: 4\n",
    "no_training": CLOZE.replace("training_split: train\n", "") + "num_fewshot: 2\n",
    "letters": CLOZE.replace('"{{choices.text}}"', '["A", "B", "C", "D"]')
    .replace('"{{choices.label.index(key)}}"', "gold")
    .replace(
        '"Q: {{question}}\\nA:"',
        '"{{question.strip()}}\\n{% for t in texts %}{{ loop.index }}. {{ t }}\\n{% endfor %}A:"',
    )
    + 'description: "About {{ id[:4] }}.\\n\\n"\n'
    + "num_fewshot: 1\nfewshot_config: {sampler: first_n}\n",
    "columns": CLOZE.replace('"Q: {{question}}\\nA:"', "question")
    .replace('"{{choices.text}}"', "texts")
    .replace('"{{choices.label.index(key)}}"', "gold")
    + 'target_delimiter: ""\nnum_fewshot: 2\nfewshot_delimiter: "\\n"\n',
    "boolean": CLOZE.replace('"{{choices.text}}"', "{no: never, yes: always}").replace(
        '"{{choices.label.index(key)}}"', "yes_"
    ).replace("yes_", '"{{ yes|int }}"')
    + "num_fewshot: 1\n",
    "several_golds": CLOZE.replace('"{{choices.label.index(key)}}"', "many") + "num_fewshot: 0\n",
    "begun": CLOZE + 'gen_prefix: "So {{ id }}:"\nnum_fewshot: 2\n',
    "begun_with_space": CLOZE + 'gen_prefix: " It is "\nnum_fewshot: 1\n',
    "contexts": CLOZE.replace('"Q: {{question}}\\nA:"', '"{{ gold }}"')
    .replace('"{{choices.text}}"', '"{{ [question ~ \' \' ~ texts[0], texts[1], texts[0]] }}"')
    .replace('"{{choices.label.index(key)}}"', '"so it ends."')
    .replace("  - metric: acc_norm\n", "")
    .replace('"{{ gold }}"', '"{{ gold % 2 }}"')
    + "num_fewshot: 2\n",
    "continued": CLOZE.replace("multiple_choice", "loglikelihood")
    .replace('doc_to_choice: "{{choices.text}}"\n', "")
    .replace('"{{choices.label.index(key)}}"', '" {{ texts[1] }}"')
    .replace("  - metric: acc_norm\n", ""),
    "written": WRITTEN + "num_fewshot: 5\n",
    "written_samples": WRITTEN.replace("fewshot_split: train\n", "")
    + """num_fewshot: 2
fewshot_config:
  sampler: first_n
  samples:
    - {question: "One?", answer: "It is 1."}
    - {question: "Two?", answer: "It is 2."}
  doc_to_text: "Example: {{question}}\\nAnswer:"
  target_delimiter: "\\n"
  fewshot_delimiter: "\\n---\\n"
""",
    "written_list": WRITTEN.replace('"{{answer}}"', '"{{answers}}"')
    .replace("fewshot_split: train\n", "")
    + "num_fewshot: 2\n",
    "written_choice": WRITTEN.replace('"{{answer}}"', "gold")
    + "doc_to_choice: texts\nnum_fewshot: 1\n",
    "replaced": WRITTEN.replace('"{{answer}}"', '"{{answer|regex_replace(\'[0-9]+\', \'#\')}}"')
    + 'description: "{{ note or \'no note\' }} "\nnum_fewshot: 1\n',
}  # fmt: skip
