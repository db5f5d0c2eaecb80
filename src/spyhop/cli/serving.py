"""The command that prints how to serve a teacher: vLLM replicas that register their URLs."""

import json
from pathlib import Path
from shlex import join, quote, split

SLURM = """\
#SBATCH --job-name=serve
#SBATCH --array=0-{last}
#SBATCH --nodes=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --time={hours}:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
"""
"""One array task per replica; a minute before its time is up a replica removes its URL."""


def serve(
    model: str,
    urls: Path = Path("urls"),
    replicas: int = 1,
    gpus: int = 1,
    options: str = "",
    slurm: bool = False,
    hours: int = 24,
) -> None:
    """Print the script that starts vLLM replicas of a teacher.

    It registers their URLs in a folder. The command itself starts nothing.
    """
    folder = Path(model).resolve()
    name, where = (folder.name, str(folder)) if folder.is_dir() else (model, model)
    start = "sbatch FILE" if slurm else "bash FILE (Ctrl-C ends the servers)"
    values = {
        "MODEL": quote(where),
        "NAME": quote(name),
        "URLS": quote(str(urls.absolute())),
        "REPLICAS": replicas,
        "GPUS": gpus,
        "OPTIONS": f"({join(split(options))})",
        "HOST": "$(hostname -f)" if slurm else "127.0.0.1",
    }
    lines = [
        f"# {replicas} replicas of {name}. Start them with: {start}.",
        "# With VLLM_API_KEY set, the servers ask for that key. The teacher's file:",
        f"#     model = {json.dumps(name)}",
        "#     [[endpoints]]",
        f"#     urls = {json.dumps(str(urls.absolute()))}",
        '#     key_env = "VLLM_API_KEY"    # only if it is set',
        *(f"{name}={value}" for name, value in values.items()),
    ]
    job = SLURM.format(last=replicas - 1, gpus=gpus, hours=hours) if slurm else ""
    script = Path(__file__).with_name("serve.sh").read_text(encoding="utf-8")
    print(f"#!/bin/bash\n{job}{chr(10).join(lines)}\n{script}", end="")  # noqa: T201
