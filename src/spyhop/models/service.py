"""Endpoints of a served model: addresses, rate limits and prices.

None of this is part of a key: the same model at another address gives the same answers.
"""

import re
from contextlib import suppress
from dataclasses import replace
from os.path import normpath
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from spyhop.settings import InputPath, unshown
from spyhop.stage import Calls

MINUTES_PER_HOUR = 60.0
BATCH_HOURS = 24.0
"""Providers promise the results of a batch within this time, and mostly need less."""


def _plain_url(url: object) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # brackets that are no address
        is_whole = False
    if not is_whole:
        raise unshown("write it as https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise unshown("it must not contain a key or query; name the key's variable with key_env")
    return str(url).rstrip("/")


def _variable(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*|", name):
        raise unshown(
            "write the name of the environment variable with the key, such as OPENAI_API_KEY; "
            "a key must not be written into a file"
        )
    return name


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Endpoint(_Settings):
    """One address of a served model, with its limits and prices."""

    url: Annotated[str, BeforeValidator(_plain_url)] = ""
    """Address up to the version, such as `https://api.openai.com/v1`; for Azure the resource,
    `https://NAME.openai.azure.com`."""
    urls: InputPath | None = None
    """Folder in place of `url`: each file in it holds the URL of one replica. Replicas that appear
    during a run are used; those that fail their health check, or whose file is removed, are not.
    All settings hold for each replica."""
    api: Literal["openai", "azure", "anthropic", "gemini", "completions", "moderations"] = "openai"
    """Dialect of the API: chat completions (`openai`, `azure`), Anthropic's messages, Gemini's
    `generateContent`. `completions` continues and scores plain prompts at `/v1/completions`;
    `moderations` scores texts at `/v1/moderations` and writes none."""
    api_version: str = "2024-10-21"
    """API version; Azure only."""
    key_env: Annotated[str, BeforeValidator(_variable)] = ""
    """Name of the environment variable that holds the key; empty where none is needed."""
    model: str = ""
    """Name of the model at this address (Azure: the deployment). Default: the teacher's `model`."""
    weight: float = Field(1.0, ge=0)
    """Share of the requests among free endpoints; 0: used only if all others are unavailable."""
    requests_per_min: int | None = Field(None, ge=1)
    """Rate limit in requests per minute. Default: no limit."""
    tokens_per_min: int | None = Field(None, ge=1)
    """Rate limit in prompt and response tokens together. Default: no limit."""
    prompt_tokens_per_min: int | None = Field(None, ge=1)
    """Rate limit in prompt tokens per minute. Default: no limit."""
    response_tokens_per_min: int | None = Field(None, ge=1)
    """Rate limit in response tokens per minute. Default: no limit."""
    counts: Literal["reserved", "used"] = "reserved"
    """Whether rate limits count `max_new_tokens` (reserved) or the tokens really written (used)."""
    concurrency: int = Field(64, ge=1)
    """Most requests in flight. While the endpoint is overloaded, fewer are sent."""
    max_n: int = Field(1, ge=1)
    """Most samples of a prompt in one request (`n` of the API)."""
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the field that limits the tokens of a response."""
    timeout_s: float = Field(600.0, gt=0)
    """Seconds to wait for a reply."""
    usd_per_million_prompt: float = Field(0.0, ge=0)
    """Price of a million prompt tokens in dollars."""
    usd_per_million_cached: float | None = Field(None, ge=0)
    """Price of a million prompt tokens that the endpoint had cached. Default: the prompt's
    price."""
    usd_per_million_cache_write: float | None = Field(None, ge=0)
    """Price of a million prompt tokens that the endpoint writes to its cache. Default: the
    prompt's price."""
    usd_per_million_response: float = Field(0.0, ge=0)
    """Price of a million response tokens in dollars, reasoning included."""
    batch: bool = False
    """Send the requests of a stage as batches, which a provider answers within a day at
    `batch_price_frac` of the price. The rows are the same as without."""
    batch_price_frac: float = Field(0.5, gt=0, le=1)
    """Price of a request in a batch, as a share of the prices above."""
    batch_tokens: int | None = Field(None, ge=1)
    """Most prompt tokens in unfinished batches that the provider allows. Default: no limit."""
    batch_folder: InputPath | None = None
    """Folder in which another program answers batch files, such as `vllm run-batch`; nothing is
    then sent to `url`."""

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if bool(self.url) == bool(self.urls):
            raise ValueError("set url, or else urls: a folder with one URL in each file")
        if self.urls and self.batch:
            raise ValueError("batch = true needs url: a batch goes to one address")
        if urlsplit(self.url).hostname == "api.anthropic.com" and self.api != "anthropic":
            raise ValueError(
                'api.anthropic.com needs api = "anthropic": its chat completions ignore logprobs, '
                "response_format and seed without an error"
            )
        return self

    @property
    def address(self) -> str:
        """The URL, or the folder of URLs."""
        return normpath(self.urls) if self.urls else self.url

    def replicas(self) -> "tuple[Endpoint, ...]":
        """Return one endpoint for each URL in the folder now; without a folder, the endpoint.

        Hidden files, and files without a URL, such as one that is being written, are skipped.

        Raises:
            OSError: If the folder cannot be read.
        """
        if self.urls is None:
            return (self,)
        found: dict[str, None] = {}
        for file in sorted(self.urls.iterdir()):
            if not file.name.startswith("."):
                with suppress(OSError, ValueError):
                    found[_plain_url(file.read_text().strip())] = None
        return tuple(self.model_copy(update={"url": url}) for url in found)

    @property
    def has_price(self) -> bool:
        """Whether the endpoint has a price."""
        return self.usd(1, 0, 1) > 0

    def usd(
        self,
        prompt_tokens: int,
        cached_tokens: int,
        response_tokens: int,
        cache_write_tokens: int = 0,
    ) -> float:
        """Return the price of a call; cached and cache-written tokens are part of the prompt's."""
        price = self.usd_per_million_prompt
        cached, written = self.usd_per_million_cached, self.usd_per_million_cache_write
        usd = (prompt_tokens - cached_tokens - cache_write_tokens) * price
        usd += cached_tokens * (price if cached is None else cached)
        usd += cache_write_tokens * (price if written is None else written)
        usd += response_tokens * self.usd_per_million_response
        return (self.batch_price_frac if self.batch else 1.0) * 1e-6 * usd

    def most_usd(self, prompt_tokens: int, response_tokens: int) -> float:
        """Return the highest price of a call: nothing was cached, or all of it is written."""
        return max(self.usd(prompt_tokens, 0, response_tokens, n) for n in (0, prompt_tokens))

    @property
    def limits(self) -> dict[str, int]:
        """Declared limits per minute, by name."""
        names = ("requests", "tokens", "prompt tokens", "response tokens")
        fields = {name: f"{name.replace(' ', '_')}_per_min" for name in names}
        return {n: limit for n, field in fields.items() if (limit := getattr(self, field))}

    def loads_min(self, calls: Calls) -> dict[str, float]:
        """Return the minutes that the calls take under each declared limit."""
        is_reserved = self.counts == "reserved"
        response = calls.most_response_tokens if is_reserved else calls.response_tokens
        amounts = {
            "requests": calls.requests,
            "tokens": calls.prompt_tokens + response,
            "prompt tokens": calls.prompt_tokens,
            "response tokens": response,
        }
        return {name: amounts[name] / limit for name, limit in self.limits.items()}


def _some(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    if not endpoints:  # a minimum length would also be reported for an invalid first endpoint
        raise ValueError("name at least one")
    return endpoints


class Service(_Settings):
    """Endpoints of one model, its budget, and when to stop."""

    endpoints: Annotated[tuple[Endpoint, ...], AfterValidator(_some)]
    """Addresses at which the model is served."""
    budget_usd: float | None = Field(None, gt=0)
    """Most dollars to spend on this model in one output folder, all runs together."""
    finish_reasons: dict[str, Literal["whole", "cut", "refused"]] = Field(default_factory=dict)
    """Endings of replies by finish reasons that spyhop does not know, such as
    `{ done = "whole" }`; "null" is a missing reason. Earlier replies are reinterpreted, too."""
    max_attempts: int = Field(8, ge=1)
    """Failed attempts (rate limits not counted) after which a request is left for another run."""
    patience_s: float = Field(600.0, gt=0)
    """Stop the run (it can be resumed) after this many seconds without any reply."""
    expected_response_tokens: int | None = Field(None, ge=1)
    """Mean tokens of a response for plans, including a reasoning model's thoughts. Default: the
    stage's own estimate."""
    expected_cached_frac: float | None = Field(None, ge=0, le=1)
    """For plans: share of prompt tokens that are billed at the cached price. Default: the share of
    this model's earlier replies in the output folder."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if any(each.batch for each in self.endpoints) and len(self.endpoints) > 1:
            raise ValueError("batch = true needs a single endpoint: a batch goes to one address")
        if self.budget_usd is not None and not any(each.has_price for each in self.endpoints):
            raise ValueError(
                "budget_usd needs usd_per_million_prompt or usd_per_million_response: without a "
                "price no cost is counted, and the budget never stops a run"
            )
        return self

    @property
    def is_batch(self) -> bool:
        """Whether requests are sent as batches."""
        return self.endpoints[0].batch

    def expected(self, calls: Calls) -> Calls:
        """Return the calls with this model's expected response length."""
        if self.expected_response_tokens is None:
            return calls
        told = min(calls.requests * self.expected_response_tokens, calls.most_response_tokens)
        return replace(calls, response_tokens=told)

    def plan(self, calls: Calls, measured_cached_frac: float = 0.0) -> "Demand":
        """Return what the calls cost and how long the limits make them take."""
        calls, cached_frac = self.expected(calls), self.expected_cached_frac
        cached_frac = measured_cached_frac if cached_frac is None else cached_frac
        cached_tokens = round(cached_frac * calls.prompt_tokens)
        replicas: list[Endpoint] = []
        for endpoint in self.endpoints:
            with suppress(OSError):
                replicas += endpoint.replicas()
        replicas = replicas or list(self.endpoints)
        by_speed = [each.loads_min(calls) for each in replicas]
        minutes, binds = 0.0, ""
        if self.is_batch:
            minutes, binds = BATCH_HOURS * MINUTES_PER_HOUR, "batch"
        elif all(by_speed):  # one endpoint without a declared limit makes the time unknowable
            minutes = 1 / sum(1 / max(max(loads.values()), 1e-12) for loads in by_speed)
            binds = max(by_speed[0].items(), key=lambda item: item[1])[0]
        asked = (calls.prompt_tokens, cached_tokens, calls.response_tokens)
        most = (
            calls.prompt_tokens + calls.further_prompt_tokens,
            calls.most_response_tokens + calls.further_response_tokens,
        )
        usd = min(each.usd(*asked) for each in self.endpoints)
        share = self.endpoints[0].batch_price_frac if self.is_batch else 1.0
        return Demand(
            usd=usd,
            most_usd=max(each.most_usd(*most) for each in self.endpoints),
            hours=minutes / MINUTES_PER_HOUR,
            binds=binds,
            saved_usd=usd / share - usd,
            num_endpoints=len(replicas),
            cached_tokens=cached_tokens,
        )


class Demand(BaseModel, frozen=True):
    """Cost and time of calls to a service."""

    usd: float
    most_usd: float
    hours: float
    """0 where no limit is declared."""
    binds: str
    """The limit that determines the time; empty if no limit is declared."""
    saved_usd: float = 0.0
    """Saved by batches, against the same calls one by one."""
    num_endpoints: int = 1
    """Endpoints that share the calls."""
    cached_tokens: int = 0
    """Prompt tokens that are expected to be billed at the cached price."""

    def endpoints_within(self, hours: float) -> float:
        """Return the (fractional) number of such endpoints that finish within that time."""
        return self.hours * self.num_endpoints / hours
