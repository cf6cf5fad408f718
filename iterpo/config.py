"""iterpo.toml: sparse, strict, with every default here. Loads no torch and no grpc: the command line reads it.

`load(path)` gives a frozen `Settings`. An unknown key is an error that names its place and the nearest valid key.
Relative paths are relative to the file (or to the working directory when there is no file). Empty path: not set.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from iterpo.errors import InvalidConfig, nearest
from iterpo.run_config import RunConfig
from iterpo.store.address import is_postgresql
from iterpo.tokens import ROLES, Grant, read_tokens

DEFAULT_FILE = "iterpo.toml"
SERVICES = ("inference", "labeling", "learner")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Slot sizes that vLLM 0.32 can allocate."""


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """A path against the file's directory; the empty string is None."""
    if isinstance(value, str | Path) and str(value):
        return (_root(info) / Path(value).expanduser()).resolve()
    return None if value == "" else value


def _resolve_place(value: Any, info: ValidationInfo) -> Any:
    """A URL, or a path that is relative to the file's folder."""
    return value if not isinstance(value, str) or not value or "://" in value else str(_resolve(value, info))


def _resolve_store(value: Any, info: ValidationInfo) -> Any:
    """An address stays as it is; a file is a path like any other."""
    if is_postgresql(value):
        return value
    resolved = _resolve(value, info)
    return "" if resolved is None else str(resolved) if isinstance(resolved, Path) else resolved


def _root(info: ValidationInfo) -> Path:
    root = (info.context or {}).get("root")
    return root if isinstance(root, Path) else Path.cwd()


def _host_and_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65536):
        raise ValueError("an address is `host:port`, for example 127.0.0.1:50051")
    return value


def _lora_rank(value: int) -> int:
    if value not in LORA_RANKS:
        raise ValueError(f"the engine allocates slots of rank {', '.join(map(str, LORA_RANKS))} only")
    return value


def _host_and_port_or_none(value: str) -> str:
    return _host_and_port(value) if value else value


def _endpoint_or_none(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^/\s]+", value):
        raise ValueError("an endpoint is `http://host:port`, for example http://127.0.0.1:4317")
    return value


StoreAddress = Annotated[str, BeforeValidator(_resolve_store)]
ConfigPath = Annotated[Path | None, BeforeValidator(_resolve)]
Address = Annotated[str, AfterValidator(_host_and_port)]
OptionalEndpoint = Annotated[str, AfterValidator(_endpoint_or_none)]
OptionalAddress = Annotated[str, AfterValidator(_host_and_port_or_none)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


class ModelSettings(Section):
    path: ConfigPath = None
    """Directory of the base model: config, tokenizer, safetensors. Empty: the embedded SmolLM2-135M-Instruct."""


class CanarySettings(Section):
    """`[inference.canary]`: what a version that passed the gate goes through before it serves everybody."""

    share: float = Field(0.0, ge=0, le=0.5)
    """Of the requests that ask for no particular version. 0: no canary, a promoted version serves at once."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """That a canary as good as what serves is not rolled back, however long it is watched."""
    error_margin: float = Field(0.02, gt=0, le=1)
    """To be promoted, its share of failed requests is surely at most this much above the serving version's."""
    feedback_margin: float = Field(0.1, gt=0, le=1)
    """And its share of thumbs up surely at most this much below, or its share of won duels this much below a half."""
    needs_feedback: bool = True
    """Whether feedback must have shown that. Without it, requests that do not fail are enough."""
    patience_seconds: float = Field(3600.0, gt=0)
    """How long a canary may stay undecided."""
    undecided: Literal["hold", "promote", "rollback"] = "hold"
    """What becomes of it then. `hold`: it goes on; a person decides (`iterpo policies promote` or `rollback`)."""


class ReplicaSettings(Section):
    """`[inference.replicas]`: what a promotion waits for, where other inference services follow this one."""

    quorum: float = Field(1.0, ge=0, le=1)
    """Share of the connected replicas that must have proved a version before it is promoted."""
    patience_seconds: float = Field(60.0, ge=0)
    """How long a promotion waits for them."""
    missed: Literal["promote", "refuse"] = "promote"
    """What then. `promote`: it serves where it is proved, and a replica that is late goes on with the previous version
    until it has proved this one, too. `refuse`: the promotion fails (QUORUM_MISSED), and nothing changes."""


class InferenceSettings(Section):
    address: Address = "127.0.0.1:50051"
    """Where clients find it, and where it listens. (Port 0, a free one, is for a service that is started alone.)"""
    listen: OptionalAddress = ""
    """Where it listens, if not at `address`: `0.0.0.0:50051` in a container that others find by name."""
    metrics_address: OptionalAddress = "127.0.0.1:9101"
    """Prometheus metrics over HTTP. Empty: none."""
    http_address: OptionalAddress = "127.0.0.1:8000"
    """Where OpenAI clients find it (`/v1/chat/completions` and so on). Empty: nowhere."""
    delivery: Literal["auto", "adapter", "merged"] = "auto"
    """How policies reach the engine. `auto`: merged on CPU (a fifth faster there), adapter on GPU."""
    max_model_len: int = Field(1024, ge=128)
    """Tokens of prompt and answer together; the proof of delivery alone needs 97."""
    max_num_seqs: int = Field(64, ge=1)
    """Answers generated at the same time; more wait."""
    max_queue: int = Field(256, ge=0)
    """Answers of applications that may wait; more are refused with the time to wait (RESOURCE_EXHAUSTED, HTTP 429). A
    learner's sampling is not counted."""
    tokens_per_minute: int = Field(0, ge=0)
    """What one token of auth.tokens_file may have, prompts and answers together. 0: as much as it likes."""
    attested_share: float = Field(0.01, ge=0, le=1)
    """Of the applications' answers that can be compared (temperature 1, no top-p, no top-k): scored once more, to see
    that what serves is what was proved. One at a time."""
    deadline_seconds: float = Field(600.0, gt=0)
    """An answer over HTTP that takes longer is ended with status 504; over gRPC the caller's deadline counts."""
    kv_cache_gib: int = Field(1, ge=1)
    """Whole GiB of memory for the key-value cache, on CPU."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What the engine computes in; `auto`: bfloat16 where the hardware multiplies it, else float32, which agrees with a
    float32 trainer token for token. The weights are the checkpoint's either way."""
    max_lora_rank: Annotated[int, AfterValidator(_lora_rank)] = 16
    """Largest rank of an adapter, in adapter mode."""
    run_slots: int = Field(0, ge=0, le=16)
    """In adapter delivery: how many runs may be served under their own names, `run/NAME`, beside what serves
    (run.beside). Each takes two LoRA slots of the engine."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto`: a GPU when the installed vllm finds one."""
    in_flight: Literal["finish", "continue"] = "finish"
    """What becomes of an application's answers under way when another version is promoted. `finish`: they end with the
    version that they began with. `continue`: the new one reads prompt and answer so far and goes on; each part says
    which version gave it. (Answers with stop words, and those that asked for a version, finish.)"""
    bake_seconds: float = Field(0.0, ge=0)
    """In adapter delivery: a version that has served this long is merged into a second engine and answers there, at the
    base's speed. 0: never, and no second engine (it takes its own weights and key-value cache)."""
    follow: OptionalAddress = ""
    """The address of another inference service, whose policies this one follows: a replica. Empty: it is its own."""
    replica: str = ""
    """A replica's name. Empty: its address."""
    fetched_mib: int = Field(0, ge=0)
    """How much fetched versions (a replica's, or from shared_policies) may take on the disk; beyond it those that were
    not used for longest are deleted, and fetched again when they are asked for. 0: any number."""
    replicas: ReplicaSettings = ReplicaSettings()
    canary: CanarySettings = CanarySettings()


class BudgetSettings(Section):
    """`[labeling.budget]`: a reward model answers when it is sure, people when it is not."""

    reward_model: ConfigPath = None
    """Directory in which reward models are trained from people's labels, one folder each. Empty: no budget, people
    answer everything."""
    confidence: float = Field(0.9, gt=0.5, lt=1)
    """The reward model answers when it is at least this sure of the better answer, calibrated on held-out labels."""
    min_labels: int = Field(100, ge=10)
    """People's labels before the first reward model is trained."""
    retrain_labels: int = Field(100, ge=10)
    """Labels of people between trainings."""
    min_accuracy: float = Field(0.7, gt=0.5, le=1)
    """On held-out labels; a reward model below it answers nothing."""
    method: Literal["head", "lora"] = "head"
    """`head`: a line on the frozen base model's first layers, seconds, learns from a few hundred labels. `lora`: the
    whole model is adapted; slower, and better only with thousands of labels."""
    max_pairs: int = Field(5000, ge=10)
    """Of a training: the latest (`head`), or drawn at random (`lora`), when there are more."""
    epochs: int = Field(3, ge=1)
    """Of a training by `lora`; the learning rate falls to nothing over it."""
    learning_rate: float = Field(3e-4, gt=0)
    """Of a training by `lora`."""
    audit_share: float = Field(0.1, ge=0, le=1)
    """Of the pairs that the reward model is sure of: people are asked all the same, and its agreement is tracked."""


class GuidelineSettings(Section):
    """`[guidelines.NAME]`: what annotators go by, as Markdown."""

    text: str = ""
    """The guideline itself."""
    file: ConfigPath = None
    """Or the file that holds it."""
    aspects: list[str] = Field(default_factory=list)
    """What may be rated apart from the whole: `helpful`, `honest`."""


class LabelingSettings(Section):
    address: Address = "127.0.0.1:50052"
    """As for inference."""
    listen: OptionalAddress = ""
    """As for inference."""
    metrics_address: OptionalAddress = "127.0.0.1:9102"
    """As for inference."""
    store: StoreAddress = Field("", validation_alias=AliasChoices("store", "database"))
    """The feedback store: a SQLite file (default: feedback.db in data_dir), or `postgresql://USER@HOST:PORT/NAME`,
    which several labeling servers may share; its password comes from PGPASSWORD or ~/.pgpass. Old name: `database`."""
    store_password_file: ConfigPath = None
    """Holds the PostgreSQL password and nothing else, instead of PGPASSWORD and ~/.pgpass."""
    max_attempts: int = Field(3, ge=1)
    """How often a labeler is tried on one completion before it abstains for good."""
    labeler_timeout_seconds: float = Field(30.0, gt=0)
    """Deadline of one attempt."""
    workers: int = Field(2, ge=1)
    """Labelers that run at the same time."""
    page_address: OptionalAddress = "127.0.0.1:9202"
    """The annotators' page, over HTTP (HTTPS with auth.tls_certificate). Empty: none. Port 0 takes a free one."""
    lease_seconds: float = Field(300.0, gt=0)
    """How long a person may keep a task."""
    undo_seconds: float = Field(900.0, ge=0)
    """How long a person may take a label back."""
    required_labels: float = Field(1.0, ge=1, le=1000)
    """How many people label a pair of a run whose labeler is `people`. 1.4: two for two pairs of five, one for the
    others."""
    pairs: Literal["disjoint", "ring", "all"] = "disjoint"
    """Which completions of a group people compare: each once, each with its neighbour, or each with each."""
    guideline: str = ""
    """Of the tasks of runs: a name from [guidelines], or the instruction itself."""
    language: str = ""
    """Of the tasks of runs, as in BCP 47: `en`. Empty: for everybody."""
    task_selection: Literal["oldest", "least_labelled", "uncertainty", "disagreement"] = "oldest"
    """Which open task comes first, of those with the same priority."""
    random_share: float = Field(0.0, ge=0, le=1)
    """Of the comparisons: given at random instead; every label records the propensity."""
    gold_share: float = Field(0.1, ge=0, le=1)
    """Of what an annotator gets: tasks with a known answer, as long as there are some that are new to him. More for one
    who is doubted: the probability that he is right in less than 70 %, if that is larger. 0: none for anybody."""
    repeat_share: float = Field(0.02, ge=0, le=1)
    """Of what an annotator gets: pairs that he labelled before, to see whether he agrees with himself."""
    min_seconds: float = Field(0.0, ge=0)
    """Labels faster than this count as too fast. 0: none do."""
    max_influence: float = Field(0.2, gt=0, le=1)
    """The largest share of the last 1,000 labels' weight that one annotator may have; with fewer annotators than its
    inverse nobody is capped."""
    second_opinion: str = ""
    """A judge from [labelers] that also labels some of people's pairs, for its agreement with them; decides nothing."""
    second_opinion_share: float = Field(0.1, ge=0, le=1)
    """Of people's pairs."""
    budget: BudgetSettings = BudgetSettings()


class LabelerSettings(Section):
    """`[labelers.NAME]`: a labeler of your own. Built-in verifiers need no entry unless you set their options."""

    kind: Literal["verifier", "reward_model", "judge"]
    """`verifier`: a function over prompt and answer. `reward_model`: a sequence classifier with one output. `judge`: a
    language model that compares two answers."""
    verifier: str = ""
    """A built-in verifier's name."""
    function: str = ""
    """Your own verifier, `module:function`."""
    path: ConfigPath = None
    """Directory of a reward model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed on to the verifier, the reward model or the judge."""


class LearnerSettings(Section):
    address: Address = "127.0.0.1:50053"
    """As for inference."""
    listen: OptionalAddress = ""
    """As for inference."""
    metrics_address: OptionalAddress = "127.0.0.1:9103"
    """As for inference."""
    threads: int = Field(0, ge=0)
    """CPU threads of torch. 0: all cores."""
    runs: int = Field(1, ge=1, le=16)
    """At the same time, each with a model of its own. All but one must be `beside` what serves (run.beside)."""
    ranks: int = Field(1, ge=1, le=64)
    """Processes of a run, which share every update: one a GPU, or, on CPUs, with a share of the cores each. Every one
    has the whole base model."""

    kept_batches: int = Field(100, ge=0)
    """Of each run, the latest batches that it trained on, for `iterpo explain --run` and the run page. 0: none."""
    sinks: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(default_factory=list)
    """Trackers that get a run's numbers as well, each through its own client: `pip install iterpo[wandb]`."""

    @model_validator(mode="after")
    def _ranks_of_one_run(self) -> Self:
        if self.ranks > 1 and self.runs > 1:
            raise ValueError("runs side by side have one rank each: set ranks or runs, not both")
        return self


class MonitorSettings(Section):
    """Of the Prometheus that `iterpo up --monitor` starts."""

    address: Address = "127.0.0.1:9090"
    """Where its pages and its API listen."""
    prometheus: ConfigPath = None
    """The binary. Empty: the one on the path (Debian's package is called prometheus)."""
    retention_days: int = Field(15, ge=1)
    """How long it keeps what it read."""


class ClusterSettings(Section):
    """`[cluster]`: how many of each service `iterpo up --engine ray` starts. Needs `iterpo[ray]`."""

    ray_address: str = ""
    """Of a Ray cluster that runs already: `auto`, or what `ray start` said. Empty: one on this machine, for as long."""
    inference: int = Field(1, ge=1)
    """Inference services; the first is the one that policies are published to, the others follow it."""
    labeling: int = Field(1, ge=1)
    """Labeling servers; more than one share a PostgreSQL store."""
    inference_cpus: float = Field(1.0, ge=0)
    """That Ray sets aside for each, as for the following two."""
    labeling_cpus: float = Field(0.5, ge=0)
    learner_cpus: float = Field(1.0, ge=0)
    inference_gpus: float = Field(0.0, ge=0)
    learner_gpus: float = Field(0.0, ge=0)


class TraceSettings(Section):
    """`[trace]`: OpenTelemetry spans of what becomes of each draw, from prompt to swap. Needs `iterpo[trace]`."""

    endpoint: OptionalEndpoint = ""
    """Of a collector that takes OTLP over gRPC: `http://127.0.0.1:4317`. Empty: nothing is traced."""
    share: float = Field(1.0, ge=0, le=1)
    """Of the draws."""


class AuthSettings(Section):
    tokens_file: ConfigPath = None
    """Of the servers: lines as `iterpo tokens new` writes them, `sha256:DIGEST = role:person until DATE`, or
    `token = role` for one's own machine. Read anew when it changes. Empty: no tokens, loopback only."""
    token_file: ConfigPath = None
    """Of a caller: a file that holds its token and nothing else. Empty: ITERPO_TOKEN, or a token of tokens_file."""
    calls_per_second: float = Field(0.0, ge=0)
    """What one token may call on average, a tenth of a minute's at once. 0: as often as it likes."""
    tls_certificate: ConfigPath = None
    """PEM, for the servers."""
    tls_key: ConfigPath = None
    """PEM, for the servers."""
    tls_ca: ConfigPath = None
    """PEM of the authority that clients trust. Empty: clients connect without TLS."""
    tls_name: str = ""
    """The name that a server's certificate must hold where a client reaches it at an IP address beyond loopback, such
    as a pod's, which no certificate knows beforehand. Empty: the address itself."""
    tls_client_ca: ConfigPath = None
    """PEM of the authority that clients' certificates must come from (mutual TLS), for the servers' gRPC. Empty: no
    certificate is asked for."""
    tls_client_certificate: ConfigPath = None
    """PEM, of a caller, where the servers ask for one."""
    tls_client_key: ConfigPath = None
    """PEM, of a caller."""
    session_key_file: ConfigPath = None
    """What signs the pages' cookies; labeling servers that share a store share it. Empty: session.key in data_dir, made
    when it is missing."""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both or none")
        if (self.tls_client_certificate is None) != (self.tls_client_key is None):
            raise ValueError("tls_client_certificate and tls_client_key belong together: set both or none")
        if self.tls_name and self.tls_ca is None:
            raise ValueError("tls_name says what certificates must hold, which takes tls_ca")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca asks for clients' certificates, which takes tls_certificate and tls_key")
        return self


class Settings(Section):
    """The whole of iterpo.toml."""

    data_dir: Annotated[Path, BeforeValidator(_resolve)] = Path(".iterpo")
    """Models, policies, runs, the feedback store and logs."""
    shared_policies: Annotated[str, BeforeValidator(_resolve_place)] = ""
    """Where machines share policies: a path that all of them mount, or a URL of fsspec (`s3://bucket/policies`; install
    its package, s3fs here). The learner puts every version there; inference takes from there what its data_dir lacks,
    and verifies it. Empty: the learner and the inference service that it calls have one data_dir, and replicas ask
    that service."""
    log_format: Literal["text", "json"] = "text"
    """Of the services: lines for people, or a JSON object a line with the run, the version and the request that it is
    about. Lines of vLLM's own stay text."""
    model: ModelSettings = ModelSettings()
    inference: InferenceSettings = InferenceSettings()
    labeling: LabelingSettings = LabelingSettings()
    labelers: dict[str, LabelerSettings] = Field(default_factory=dict)
    guidelines: dict[str, GuidelineSettings] = Field(default_factory=dict)
    learner: LearnerSettings = LearnerSettings()
    monitor: MonitorSettings = MonitorSettings()
    trace: TraceSettings = TraceSettings()
    cluster: ClusterSettings = ClusterSettings()
    auth: AuthSettings = AuthSettings()
    run: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_in_paths(cls, raw: Any, info: ValidationInfo) -> Any:
        """The database's default follows data_dir; a run's files are relative to iterpo.toml, as all paths are."""
        if not isinstance(raw, dict):
            return raw
        filled = dict(raw)
        labeling = filled.get("labeling", {})
        if isinstance(labeling, dict) and not (labeling.get("store") or labeling.get("database")):
            default = str(Path(str(filled.get("data_dir") or ".iterpo"), "feedback.db"))
            filled["labeling"] = {k: v for k, v in labeling.items() if k != "database"} | {"store": default}
        run = filled.get("run")
        if isinstance(run, dict):
            files = {k: str(_resolve(run[k], info)) for k in ("prompts", "heldout", "pairs") if run.get(k)}
            filled["run"] = {**run, **files}
        return filled

    def grants(self) -> list[Grant]:
        """Of auth.tokens_file, read now; empty without one. Raises InvalidConfig."""
        return read_tokens(self.auth.tokens_file) if self.auth.tokens_file else []

    def token(self, role: str, person: str = "") -> str | None:
        """The token to call with: the caller's own (auth.token_file, ITERPO_TOKEN), or of those that stand in
        auth.tokens_file themselves one that may do what the role may, of that role rather than a stronger one; where it
        speaks for a person, bound to that person or to nobody. Without such a one, the strongest in the file, so that
        the server's refusal says what is wrong. None without any."""
        if self.auth.token_file is not None:
            return _read(self.auth.token_file).strip()
        if own := os.environ.get("ITERPO_TOKEN"):
            return own

        def rank(grant: Grant) -> tuple[bool, bool, bool, bool, int]:
            fits = grant.role in (role, "admin") or (role, grant.role) == ("annotator", "lead")
            usable = not person or grant.person in ("", person)
            return fits and usable, fits, grant.role == role, grant.person == person, ROLES.index(grant.role)

        best = max((grant for grant in self.grants() if grant.token), key=rank, default=None)
        return best.token if best else None


def load(path: Path | None = None, changes: Sequence[str] = ()) -> Settings:
    """Settings of a file; without one, of ./iterpo.toml when there is one, else the defaults. `changes`: `KEY=VALUE`,
    which hold instead of the file's (`labeling.workers=4`). Raises InvalidConfig."""
    if path is None:
        default = Path.cwd() / DEFAULT_FILE
        path = default if default.is_file() else None
    raw: dict[str, Any] = _parse(path) if path else {}
    for change in changes:
        _set(raw, change)
    try:
        root = path.resolve().parent if path else Path.cwd()
        return Settings.model_validate(raw, context={"root": root})
    except ValidationError as error:
        *others, (message, fix) = [_problem(e) for e in error.errors(include_url=False)]
        before = "".join(f"{m} {f} ".replace("  ", " ") for m, f in others)
        raise InvalidConfig(f"{path or 'the settings'}: {before}{message}", fix) from error


def _set(raw: dict[str, Any], change: str) -> None:
    """`KEY=VALUE` into the file's content: a value as TOML has it, or else a text."""
    key, equals, text = change.partition("=")
    *place, name = key.strip().split(".")
    if not equals or not name:
        raise InvalidConfig(f"{change!r} sets nothing.", "Write KEY=VALUE: labeling.workers=4.", "BAD_CHANGE")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section = raw
    for part in place:
        found = section.setdefault(part, {})
        if not isinstance(found, dict):
            raise InvalidConfig(f"{change!r}: {part} is no section.", "See docs/configuration.md.", "BAD_CHANGE")
        section = found
    section[name] = value


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{path} is not TOML: {error}.", "Mend that line.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}.", "Name a file that exists.") from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path} is not UTF-8 text.", "Save it as UTF-8.") from error


def _problem(error: Any) -> tuple[str, str]:
    """One pydantic error as (what is wrong, how to mend it)."""
    place, key = [str(p) for p in error["loc"][:-1]], str(error["loc"][-1]) if error["loc"] else ""
    where = f"[{'.'.join(place)}]" if place else "the top level"
    if error["type"] == "extra_forbidden":
        return f"Unknown key `{key}` in {where}.", _nearest(key, valid_keys(place))
    if error["type"] == "missing":
        return f"The key `{key}` is missing in {where}.", "Add it."
    message = error["msg"].removeprefix("Value error, ")
    named = f"`{key}` in {where}"
    if key.isdecimal() and place:  # an entry of a list
        *place, key_of_list = place
        named = f"`{key_of_list}`, entry {int(key) + 1}, in [{'.'.join(place)}]"
    shown = "" if isinstance(error["input"], dict) else f"It is {error['input']!r} now."
    return f"{named}: {message[:1].lower()}{message[1:]}.", shown


def valid_keys(place: list[str]) -> list[str]:
    """The keys of a section, for example ["labelers", "mine"]."""
    model: Any = Settings
    for name in place:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            # A table of sections (`labelers`): its own keys are free, every value is of the one type.
            model = get_args(model)[-1] if get_args(model) else None
        elif name in model.model_fields:
            model = model.model_fields[name].annotation
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _nearest(key: str, valid: list[str]) -> str:
    near = nearest(key, valid)
    return f"Did you mean `{near}`?" if near else f"Valid keys are: {', '.join(valid)}."
