"""How fast and at what cost of processor time clients collect answers from a chat API.

    python benchmarks/teacher.py --curator-python PY --distilabel-python PY --openai-python PY
    python benchmarks/teacher.py --saturate             # no latency: as fast as it goes
    python benchmarks/teacher.py --limited              # latency binds at 1,000 requests/s
    python benchmarks/teacher.py --million              # memory, kill at half, resume; spyhop only

All clients ask the same server, one after the other, round by round; each runs as a process of its
own, the server as another. Processor time is that of the client's process and its children, less
that of a run with only as many requests as may be in flight: imports and start-up do not count. A
rate is requests over the time from the first one's arrival at the server until the client has all
answers in hand. Peak memory is that of the client's largest process, start-up included.

Each peer lives in an environment of its own:

    python -m venv DIR && DIR/bin/pip install torch==2.13.0 bespokelabs-curator==0.1.31
    python -m venv DIR && DIR/bin/pip install 'distilabel[openai]==1.5.3' requests
    python -m venv DIR && DIR/bin/pip install 'openai[aiohttp]'
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server import ServerProcess

SERVER = Path(__file__).resolve().parents[1] / "tests" / "server.py"
KEY_ENV = "OPENAI_API_KEY"
MODEL, MAX_TOKENS = "teacher", 400
PROMPT_CHARS, ANSWER_CHARS = 1000, 1000
NO_LIMIT = 10**9
LIMITED_RATE = 1000
MB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one client has to do."""

    url: str
    num: int
    concurrency: int
    folder: str
    """For whatever the client writes."""
    has_limits: bool = True
    """Spyhop counts requests, tokens and dollars against limits out of reach. Without: after a kill
    no minute is waited out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run of a client took."""

    num: int
    rate: float
    cpu_s: float
    peak_mb: float
    wall_s: float
    versions: str


# ---------------------------------------------------------------- clients; each imports its own


def prompts(num: int) -> Iterator[str]:
    """Prompts of equal length, each another."""
    body = "Explain step by step how you come to the answer. " * (PROMPT_CHARS // 49)
    return (f"Question {place:08d}. {body}" for place in range(num))


def messages(prompt: str) -> list[dict[str, str]]:
    """A prompt as the API wants it."""
    return [{"role": "user", "content": prompt}]


async def work(job: Job, ask: Callable[[str], Coroutine[Any, Any, str]]) -> int:
    """Ask everything with as many workers as may be in flight; return how many answers came."""
    stream, num_answers = prompts(job.num), 0

    async def worker() -> None:
        nonlocal num_answers
        for prompt in stream:
            answer = await ask(prompt)
            num_answers += bool(answer)

    await asyncio.gather(*(worker() for _ in range(job.concurrency)))
    return num_answers


def bare(job: Job) -> int:
    """The least a client can do: aiohttp, one session, each reply parsed and let go."""

    async def main() -> int:
        import aiohttp

        url = f"{job.url}/chat/completions"
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {os.environ[KEY_ENV]}"},
            connector=aiohttp.TCPConnector(limit=0),
        ) as session:

            async def ask(prompt: str) -> str:
                body = {"model": MODEL, "messages": messages(prompt), "max_tokens": MAX_TOKENS}
                async with session.post(url, json=body) as response:
                    reply = json.loads(await response.read())
                    return reply["choices"][0]["message"]["content"]

            return await work(job, ask)

    return asyncio.run(main())


def bare_uvloop(job: Job) -> int:
    """The same on uvloop."""
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return bare(job)


def httpx2(job: Job) -> int:
    """The same over httpx2."""

    async def main() -> int:
        import httpx2

        url = f"{job.url}/chat/completions"
        limits = httpx2.Limits(
            max_connections=job.concurrency, max_keepalive_connections=job.concurrency
        )
        headers = {"Authorization": f"Bearer {os.environ[KEY_ENV]}"}
        async with httpx2.AsyncClient(headers=headers, limits=limits, timeout=60) as client:

            async def ask(prompt: str) -> str:
                body = {"model": MODEL, "messages": messages(prompt), "max_tokens": MAX_TOKENS}
                reply = (await client.post(url, json=body)).json()
                return reply["choices"][0]["message"]["content"]

            return await work(job, ask)

    return asyncio.run(main())


def openai(job: Job, *, over_aiohttp: bool = False) -> int:
    """The same through the SDK of OpenAI."""

    async def main() -> int:
        from openai import AsyncOpenAI, DefaultAioHttpClient

        http_client = DefaultAioHttpClient() if over_aiohttp else None
        async with AsyncOpenAI(base_url=job.url, http_client=http_client) as client:

            async def ask(prompt: str) -> str:
                reply = await client.chat.completions.create(
                    model=MODEL, messages=messages(prompt), max_tokens=MAX_TOKENS
                )
                return reply.choices[0].message.content

            return await work(job, ask)

    return asyncio.run(main())


def openai_aiohttp(job: Job) -> int:
    """The SDK with aiohttp below."""
    return openai(job, over_aiohttp=True)


def spyhop(job: Job) -> int:
    """A served model as a stage uses it: journal on, limits on (and out of the way)."""
    from spyhop.models import Remote, Request, Sampling
    from spyhop.models.base import ModelUse
    from spyhop.models.service import Endpoint, Service
    from spyhop.schema import Message
    from spyhop.stage import Context, Progress, Runtime

    root = Path(job.folder)
    endpoint = Endpoint(
        url=job.url,
        key_env=KEY_ENV,
        requests_per_min=NO_LIMIT if job.has_limits else None,
        tokens_per_min=NO_LIMIT**2 if job.has_limits else None,
        counts="used",
        concurrency=job.concurrency,
        usd_per_million_prompt=1.0,
        usd_per_million_response=4.0,
    )
    service = Service(endpoints=(endpoint,), budget_usd=NO_LIMIT if job.has_limits else None)
    for name in ("out", "state"):
        (root / name).mkdir(exist_ok=True)

    def report(progress: Progress) -> None:
        if progress.is_lasting:
            print(progress.doing, flush=True)

    ctx = Context(root, root / "out", root / "state", Runtime(device="cpu"), report)
    with ctx.resources:
        model = ModelUse(Remote(model=MODEL), service=service).open(ctx)
        asked = (
            Request(id=str(place), messages=[Message(role="user", content=prompt)])
            for place, prompt in enumerate(prompts(job.num))
        )
        replies = model.generate(asked, Sampling(max_new_tokens=MAX_TOKENS), total=job.num)
        return sum(bool(reply.text) for reply in replies)


def curator(job: Job) -> int:
    """bespokelabs-curator, its limits out of the way; tiktoken's table is the one litellm has."""
    os.environ.update(
        HOME=job.folder, TELEMETRY_ENABLED="false", LITELLM_LOCAL_MODEL_COST_MAP="True"
    )
    import litellm

    tables = Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(tables)
    from bespokelabs import curator as library

    model = library.LLM(
        model_name=MODEL,
        backend="openai",
        generation_params={"max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": job.url,
            "max_concurrent_requests": job.concurrency,
            "max_requests_per_minute": NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT**2,
        },
    )
    found = model(list(prompts(job.num)), working_dir=job.folder)
    return sum(bool(row["response"]) for row in found.dataset)


def distilabel(job: Job) -> int:
    """A pipeline of distilabel: rows in, one step of text generation, as many at once as may be."""
    os.environ["HOME"] = job.folder
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    rows = [{"instruction": prompt} for prompt in prompts(job.num)]
    llm = OpenAILLM(model=MODEL, base_url=job.url, generation_kwargs={"max_new_tokens": MAX_TOKENS})
    with Pipeline(name="teacher", cache_dir=job.folder) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=job.concurrency)
        load >> TextGeneration(llm=llm, input_batch_size=job.concurrency)
    found = pipeline.run(use_cache=False)
    return sum(bool(row["generation"]) for row in found["default"]["train"])


CLIENTS: dict[str, tuple[Callable[[Job], int], list[str]]] = {
    "bare": (bare, ["aiohttp"]),
    "bare-uvloop": (bare_uvloop, ["aiohttp", "uvloop"]),
    "spyhop": (spyhop, ["spyhop", "aiohttp"]),
    "httpx2": (httpx2, ["httpx2"]),
    "openai": (openai, ["openai", "httpx2"]),
    "openai-aiohttp": (openai_aiohttp, ["openai", "aiohttp"]),
    "curator": (curator, ["bespokelabs-curator", "litellm", "aiohttp"]),
    "distilabel": (distilabel, ["distilabel", "openai"]),
}
PEERS = ("curator", "distilabel")


def client_main(name: str, job: Job, result: Path) -> None:
    """Do a job in this process and say how it ended."""
    do, packages = CLIENTS[name]
    num_answers = do(job)
    ended = time.monotonic()
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    told = {"ended": ended, "num_answers": num_answers, "versions": versions}
    result.write_text(json.dumps(told))
    sys.stdout.flush()


# ---------------------------------------------------------------- measuring


def started(
    python: str, name: str, job: Job, key: str, log: Path
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a client's process."""
    result = Path(job.folder) / "result.json"
    command = [python, __file__, "--client", name, "--job", json.dumps(asdict(job))]
    env = {**os.environ, KEY_ENV: key, "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=env, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            cwd=job.folder,
        )  # fmt: skip
    return process, result


def measured(server: "ServerProcess", python: str, name: str, num: int, concurrency: int) -> Result:
    """Run a client once.

    Raises:
        SystemExit: If it did not ask or answer everything.
    """
    server.clear()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        job = Job(url=server.url, num=num, concurrency=concurrency, folder=folder)
        log = Path(folder) / "log.txt"
        began = time.monotonic()
        process, result = started(python, name, job, server.key, log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - began
        if process.returncode or not result.exists():
            sys.exit(f"{name} failed:\n{log.read_text(errors='replace')[-3000:]}")
        told = json.loads(result.read_text())
    stats = server.stats()
    if told["num_answers"] != num or stats["billed_distinct"] != num:
        sys.exit(f"{name}: {told['num_answers']} of {num} answers; the server says {stats}")
    return Result(
        num=num,
        rate=num / (told["ended"] - stats["first_billed"]),
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1024,
        wall_s=wall_s,
        versions=told["versions"],
    )


def hardware() -> str:
    """Processor, cores and memory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB"


def compare(server: "ServerProcess", args: argparse.Namespace, pythons: dict[str, str]) -> None:
    """Measure all clients, turn about, and print the table."""
    small: dict[str, list[Result]] = {name: [] for name in pythons}
    full: dict[str, list[Result]] = {name: [] for name in pythons}
    for place in range(args.rounds):
        for name, python in pythons.items():
            num = args.peer_num if name in PEERS else args.num
            small[name].append(measured(server, python, name, args.concurrency, args.concurrency))
            full[name].append(measured(server, python, name, num, args.concurrency))
            last = full[name][-1]
            print(f"round {place + 1}, {name}: {last.rate:.0f} requests/s, {last.cpu_s:.1f} s of "
                  f"processor time, {last.wall_s:.1f} s", file=sys.stderr)  # fmt: skip
    median = statistics.median
    rows = {}
    for name in pythons:
        start_s = median(run.cpu_s for run in small[name])
        num = full[name][0].num - args.concurrency
        rows[name] = (
            [run.rate for run in full[name]],
            [1000 * (run.cpu_s - start_s) / num for run in full[name]],
            max(run.peak_mb for run in full[name]),
            start_s,
        )
    first = next(iter(rows))
    print(f"{datetime.now(UTC):%Y-%m-%d}. {hardware()}; Python {platform.python_version()}.")
    print(
        f"Server: {args.latency_ms:g} ms, answers of {ANSWER_CHARS:,} characters to prompts of "
        f"{PROMPT_CHARS:,}; {args.concurrency} in flight; medians (lowest to highest) of "
        f"{args.rounds} interleaved rounds.\n"
    )
    print(
        f"| client | requests a round | requests/s | of {first} | CPU s per 1,000 | times {first} "
        "| peak MB | start-up CPU s |"
    )
    print("|---" * 8 + "|")
    for name, (rates, cpu, peak_mb, start_s) in rows.items():
        of_rate = [mine / base for mine, base in zip(rates, rows[first][0], strict=True)]
        of_cpu = [mine / base for mine, base in zip(cpu, rows[first][1], strict=True)]
        print(
            f"| {name} | {full[name][0].num:,} | {median(rates):,.0f} ({min(rates):,.0f} to "
            f"{max(rates):,.0f}) | {100 * median(of_rate):.0f} % | {median(cpu):.3f} "
            f"({min(cpu):.3f} to {max(cpu):.3f}) | {median(of_cpu):.2f} | {peak_mb:,.0f} "
            f"| {start_s:.1f} |"
        )
    print("\nVersions: " + "; ".join(f"{name}: {full[name][0].versions}" for name in pythons))


def resident_mb(pid: int) -> float:
    """Memory of a process now; 0 if it has just ended."""
    told = Path(f"/proc/{pid}/statm").read_text().split()
    return int(told[1]) * os.sysconf("SC_PAGE_SIZE") / MB if told else 0.0


def million(server: "ServerProcess", args: argparse.Namespace) -> None:
    """Kill spyhop half-way through very many requests, resume, and print what that took."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        job = Job(
            url=server.url,
            num=args.num,
            concurrency=args.concurrency,
            folder=folder,
            has_limits=False,
        )
        log = Path(folder) / "log.txt"
        curve: list[tuple[int, float]] = []

        def watched(process: subprocess.Popen[bytes], until: int | None) -> None:
            while process.poll() is None:
                time.sleep(1.0)
                num = server.num_requests()
                if mb := resident_mb(process.pid):
                    curve.append((num, mb))
                if until is not None and num >= until:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()

        began = time.monotonic()
        process, _ = started(sys.executable, "spyhop", job, server.key, log)
        watched(process, args.num // 2)
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"spyhop ended too early:\n{log.read_text(errors='replace')[-3000:]}")
        before, killed = server.num_requests(), time.monotonic()
        process, result = started(sys.executable, "spyhop", job, server.key, log)
        while server.num_requests() == before and process.poll() is None:
            time.sleep(0.05)
        resume_s = time.monotonic() - killed
        watched(process, None)
        ended = time.monotonic()
        if process.returncode or not result.exists():
            sys.exit(f"spyhop failed:\n{log.read_text(errors='replace')[-3000:]}")
        told, stats, said = json.loads(result.read_text()), server.stats(), log.read_text().strip()
        size_mb = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / MB
    print(f"{datetime.now(UTC):%Y-%m-%d}. {hardware()}; Python {platform.python_version()}; ")
    print(f"{told['versions']}. Server: {args.latency_ms:g} ms; {args.concurrency} in flight.\n")
    print("| | |\n|---|---|")
    print(f"| answers in hand | {told['num_answers']:,} of {args.num:,} |")
    print(f"| killed after | {before:,} requests, {killed - began:.0f} s |")
    print(f"| from the new start to its first request | {resume_s:.1f} s |")
    print(f"| whole time | {ended - began:.0f} s ({args.num / (ended - began):,.0f} requests/s) |")
    print(f"| asked more than once | {stats['requests'] - stats['distinct']:,} |")
    print(f"| peak memory | {max(mb for _, mb in curve):,.0f} MB |")
    print(f"| files at the end | {size_mb:,.0f} MB |\n")
    print(f"The second run said: {said or 'nothing'}\n")
    print("| requests so far | MB |\n|---|---|")
    for num, mb in curve[:: max(1, len(curve) // 20)]:
        print(f"| {num:,} | {mb:,.0f} |")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curator-python", help="interpreter that has bespokelabs-curator")
    parser.add_argument("--distilabel-python", help="interpreter that has distilabel")
    parser.add_argument("--openai-python", help="interpreter that has openai[aiohttp]")
    parser.add_argument("--only", nargs="*", choices=list(CLIENTS), help="measure these alone")
    parser.add_argument("--num", type=int, help="requests a round; 20,000, or 1,000,000")
    parser.add_argument("--peer-num", type=int, default=5000, help="the same for the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--saturate", action="store_true", help="no latency")
    mode.add_argument("--limited", action="store_true", help=f"{LIMITED_RATE:,} requests/s at most")
    mode.add_argument("--million", action="store_true", help="kill and resume a long run")
    parser.add_argument("--client", choices=list(CLIENTS), help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        job = Job(**json.loads(args.job))
        client_main(args.client, job, Path(job.folder) / "result.json")
        return
    args.num = args.num or (1_000_000 if args.million else 20_000)
    if args.saturate:
        args.latency_ms = 0.0
    if args.million:
        args.latency_ms = min(args.latency_ms, 10.0)
    if args.limited:
        args.concurrency = round(LIMITED_RATE * args.latency_ms / 1000)
    pythons = {name: sys.executable for name in ("bare", "bare-uvloop", "spyhop", "httpx2")}
    if args.openai_python:
        pythons |= dict.fromkeys(("openai", "openai-aiohttp"), args.openai_python)
    pythons |= {name: given for name in PEERS if (given := getattr(args, f"{name}_python"))}
    if args.only:
        pythons = {name: pythons[name] for name in args.only}
    sys.path.insert(0, str(SERVER.parent))
    from server import ServerProcess

    options = ["--latency-ms", str(args.latency_ms), "--answer-chars", str(ANSWER_CHARS)]
    with ServerProcess(*options, "--lenient") as server:
        if args.million:
            million(server, args)
        else:
            compare(server, args, pythons)


if __name__ == "__main__":
    main()
