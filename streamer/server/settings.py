"""Everything ``streamer serve`` can be told: defaults, then a TOML file, then the environment, then flags; later wins.

Each setting is ``section.key``. In the environment it is ``STREAMER_SECTION__KEY``.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from streamer.engine import EngineConfig
from streamer.engine.config import KVFormat
from streamer.models import BLOCK_ROWS
from streamer.models.linear import WeightFormat
from streamer.null_engine import NullConfig
from streamer.server.config import ServerConfig
from streamer.server.logs import LogFormat, LogLevel
from streamer.speech import SpeechConfig
from streamer_protocol import Limits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_VARIABLE: Final = "STREAMER_CONFIG"
_PREFIX: Final = "STREAMER_"
# Of the same prefix, but no settings: which file to read, and the kernels' own switch.
_OTHER_VARIABLES: Final = frozenset({CONFIG_VARIABLE, "STREAMER_KERNELS"})
# Kubernetes gives every container variables named after the services around it.
_SERVICE_LINK: Final = re.compile(r"\w+_SERVICE_(HOST=|PORT(_\w+)?=)|\w+_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?=|=\w+://)")
_CREDENTIALS: Final = re.compile(r"//[^/]*@")
_NOT_TEXT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_SERVER: Final = ServerConfig()
_ENGINE: Final = EngineConfig()
_MODEL: Final = SpeechConfig()

Name = Annotated[str, Meta(min_length=1)]
AtLeastOne = Annotated[int, Meta(ge=1, le=2**53)]
Seconds = Annotated[float, Meta(ge=0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections."""


class ServerSettings(Section, frozen=True, kw_only=True):
    """What :class:`ServerConfig` has, limits and logs apart. ``insecure``: other machines may connect without keys."""

    host: Name = _SERVER.host
    port: Annotated[int, Meta(ge=0, le=65535)] = _SERVER.port
    insecure: bool = False
    keys_file: Path | None = _SERVER.keys_file
    secret_file: Path | None = _SERVER.secret_file
    origins: tuple[Name, ...] = _SERVER.origins
    host_names: tuple[Name, ...] = _SERVER.host_names
    tls_cert: Path | None = _SERVER.tls_cert
    tls_key: Path | None = _SERVER.tls_key
    voices_store: Path | None = _SERVER.voices_store
    drain_s: Seconds = _SERVER.drain_s
    heartbeat_s: Annotated[float, Meta(ge=1)] = _SERVER.heartbeat_s
    live_text_pause_s: Seconds = _SERVER.live_text_pause_s
    opus_complexity: Annotated[int, Meta(ge=0, le=10)] = _SERVER.opus_complexity
    max_connections: AtLeastOne = _SERVER.max_connections
    max_frame_bytes: AtLeastOne = _SERVER.max_frame_bytes
    send_buffer_bytes: Annotated[int, Meta(ge=1024, le=2**30)] = _SERVER.send_buffer_bytes
    replay_bytes: AtLeastOne = _SERVER.replay_bytes


class EngineSettings(Section, frozen=True, kw_only=True):
    """What :class:`EngineConfig` has; ``max_lead_s`` 0 is no limit."""

    max_sessions: AtLeastOne = _ENGINE.max_sessions
    max_batch: AtLeastOne = _ENGINE.max_batch
    max_waiting: AtLeastOne = _ENGINE.max_waiting
    # References of five speakers, a window of history and one turn fit into less only by luck.
    kv_rows: Annotated[int, Meta(ge=1024, le=2**53)] = _ENGINE.kv_rows
    kv_format: KVFormat = _ENGINE.kv_format
    max_sequence_rows: Annotated[int, Meta(ge=1024, le=2**53)] = _ENGINE.max_sequence_rows
    prefill_chunk_rows: Annotated[int, Meta(ge=1, multiple_of=BLOCK_ROWS, le=2**20)] = _ENGINE.prefill_chunk_rows
    max_unsent_frames: AtLeastOne = _ENGINE.max_unsent_frames
    max_lead_s: Seconds = _ENGINE.max_lead_s or 0.0
    first_audio_goal_s: Annotated[float, Meta(gt=0)] = _ENGINE.first_audio_goal_s
    max_wait_s: Annotated[float, Meta(gt=0)] = _ENGINE.max_wait_s
    group_frames: AtLeastOne = _ENGINE.group_frames


class ModelSettings(Section, frozen=True, kw_only=True):
    """What :class:`SpeechConfig` has. ``null_frames`` above 0: the null model, so many frames at once to begin with."""

    path: Name | None = _MODEL.model
    codec: Name | None = _MODEL.codec
    voices: tuple[Path, ...] = _MODEL.voices
    device: Name = _MODEL.device
    dtype: Name = _MODEL.dtype
    weights: WeightFormat = _MODEL.weights
    threads: Annotated[int, Meta(ge=0, le=4096)] = _MODEL.threads
    history_s: Seconds | None = _MODEL.history_seconds
    null_frames: Annotated[int, Meta(ge=0, le=2**31)] = 0


class LogSettings(Section, frozen=True, kw_only=True):
    """``text``: log what is spoken, and errors word for word; both are private."""

    level: LogLevel = "info"
    format: LogFormat = "json"
    text: bool = _SERVER.log_text


class TracingSettings(Section, frozen=True, kw_only=True):
    """``endpoint``: where spans go, an OTLP collector's URL."""

    endpoint: Name | None = None


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration. ``limits`` are the protocol's, told to every client."""

    server: ServerSettings = ServerSettings()
    limits: Limits = Limits()
    engine: EngineSettings = EngineSettings()
    model: ModelSettings = ModelSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()


class SettingsError(Exception):
    """A setting that can't be: which one, where it was set, what is expected. One line."""

    code = "invalid_setting"


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody has set. ``where`` names it for errors; ``text``: it is a string that stands for a value.

    As text, several values are separated by commas. "" for a setting that may be left out leaves it out.
    """

    name: str
    value: object
    where: str
    text: bool = False


def load_settings(file: Path | None, environment: Mapping[str, str], flags: Iterable[Given] = ()) -> Settings:
    """The configuration by all sources; ``file`` None is the one that the environment names, if any.

    Raises :class:`SettingsError`.
    """
    if file is None and environment.get(CONFIG_VARIABLE):
        file = Path(environment[CONFIG_VARIABLE])
    given = [*([] if file is None else _from_file(file)), *_from_environment(environment), *flags]
    types = _types()
    values: dict[str, dict[str, Any]] = {section: {} for section in Settings.__struct_fields__}
    for item in given:
        section, _, key = item.name.partition(".")
        values[section][key] = _value(item, types)
    settings = Settings(**{name: type(getattr(Settings(), name))(**values[name]) for name in values})
    _check_together(settings)
    return settings


def setting(assignment: str, where: str) -> Given:
    """``section.key=value`` as a setting."""
    name, equals, value = assignment.partition("=")
    if not equals:
        raise SettingsError(f"{where} is {assignment!r}: expected section.key=value")
    return Given(name.strip(), value, f"{where} {name.strip()}", text=True)


def to_toml(settings: Settings) -> str:
    """The configuration as a file that :func:`load_settings` reads back to the same."""
    lines: list[str] = []
    for name in settings.__struct_fields__:
        lines += ["", f"[{name}]"]
        section = getattr(settings, name)
        for key in section.__struct_fields__:
            value = getattr(section, key)
            lines.append(f"# {key} is not set" if value is None else f"{key} = {_toml_value(value)}")
    return "\n".join(lines[1:]) + "\n"


def server_config(settings: Settings) -> ServerConfig:
    """What the server is made with."""
    values = msgspec.structs.asdict(settings.server)
    del values["insecure"]
    return ServerConfig(**values, limits=settings.limits, log_text=settings.log.text)


def speech_config(settings: Settings) -> SpeechConfig:
    """What model, codec and engine are made with."""
    model, engine = settings.model, msgspec.structs.asdict(settings.engine)
    engine["max_lead_s"] = engine["max_lead_s"] or None
    return SpeechConfig(
        model=model.path,
        codec=model.codec,
        voices=model.voices,
        device=model.device,
        dtype=model.dtype,
        weights=model.weights,
        threads=model.threads,
        history_seconds=model.history_s,
        engine=EngineConfig(**engine, bf16_codec=model.weights == "bf16"),
        null=NullConfig(burst_frames=model.null_frames) if model.null_frames else None,
    )


def _from_file(path: Path) -> list[Given]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: the configuration can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # tomllib's own error and wrong UTF-8 are values, brackets without end are the other.
        raise SettingsError(f"{path}: not TOML: {error}") from error
    given: list[Given] = []
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {section} stands outside of a section, expected [section] before it")
        if section not in Settings.__struct_fields__:
            raise SettingsError(f"{path}: [{section}] is unknown{_nearest(section, Settings.__struct_fields__)}")
        given += [Given(f"{section}.{key}", value, f"{path}: {section}.{key}") for key, value in table.items()]
    return given


def _from_environment(environment: Mapping[str, str]) -> list[Given]:
    given: list[Given] = []
    for variable, value in sorted(environment.items()):
        if not variable.startswith(_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        name = variable.removeprefix(_PREFIX).lower().replace("__", ".", 1)
        if name in _types():
            given.append(Given(name, value, variable, text=True))
        elif not _SERVICE_LINK.match(f"{variable}={value}"):
            known = [_variable(name) for name in _types()]
            raise SettingsError(f"{variable}: no setting has this name{_nearest(variable, known)}")
    return given


def _types() -> dict[str, Any]:
    """The type of each setting by its name."""
    return {
        f"{section.name}.{field.name}": field.type
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    }


def _value(given: Given, types: dict[str, Any]) -> Any:
    if given.name not in types:
        raise SettingsError(f"{given.where}: no setting is called {given.name}{_nearest(given.name, types)}")
    kind, value = types[given.name], given.value
    if value == "" and type(None) in get_args(kind):
        return None
    if given.text and isinstance(value, str) and get_origin(kind) is tuple:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        converted = msgspec.convert(value, kind, strict=not given.text, dec_hook=_path)
        for single in converted if isinstance(converted, tuple) else (converted,):
            _check_value(given.name, single)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"{given.where} is {_shown(given.value)}: {_expected(kind, error)}") from error
    return converted


def _expected(kind: Any, error: Exception) -> str:
    if get_origin(kind) is Literal:
        return f"expected one of {', '.join(get_args(kind))}"
    reason = str(error).partition(" - at `$")[0]
    return reason[0].lower() + reason[1:]


def _shown(value: object) -> str:
    """A value in an error: one short line, without what may be a password."""
    shown = _CREDENTIALS.sub("//...@", repr(value))
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def _check_value(name: str, value: object) -> None:
    """Raises ValueError for what the types can't say."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number")
    if isinstance(value, (str, Path)) and _NOT_TEXT.search(str(value)):
        raise ValueError("expected text without control characters")
    if name == "engine.max_lead_s" and isinstance(value, float) and 0 < value < 1:
        raise ValueError("expected 0, or 1 or more")
    if name == "tracing.endpoint" and isinstance(value, str):
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ValueError("expected a URL such as http://localhost:4318/v1/traces")
        if "@" in url.netloc:
            raise ValueError("expected no user or password in it; OTEL_EXPORTER_OTLP_HEADERS takes credentials")


def _check_together(settings: Settings) -> None:
    server, limits = settings.server, settings.limits
    if server.tls_key is not None and server.tls_cert is None:
        raise SettingsError("server.tls_key is set without server.tls_cert: set both")
    if limits.max_message_bytes > server.max_frame_bytes:
        sizes = f"limits.max_message_bytes is {limits.max_message_bytes}"
        raise SettingsError(f"{sizes}: expected at most server.max_frame_bytes, {server.max_frame_bytes}")


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, (str, Path)) and str(value):
        return Path(value)
    raise ValueError(f"expected a path, got {type(value).__name__ if value else 'nothing'}")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _variable(name: str) -> str:
    return _PREFIX + name.upper().replace(".", "__")


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    # Of what may be in a setting, TOML's strings are JSON's.
    return json.dumps(str(value), ensure_ascii=False)
