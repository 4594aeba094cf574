"""The configuration of ``streamer serve``: where it comes from, what wins, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.engine import EngineConfig
from streamer.server import ServerConfig
from streamer.server.settings import (
    Given,
    LogSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    SettingsError,
    load_settings,
    server_config,
    setting,
    speech_config,
    to_toml,
)
from streamer.speech import SpeechConfig
from streamer_protocol import Limits

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def printed(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamer.cli", "serve", "--print-config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, **variables}, timeout=60)


def written(folder: Path, text: str) -> Path:
    file = folder / "streamer.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_printed_configuration_is_the_effective_one_and_can_be_fed_back(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\nport = 1\nhost = '::1'\ndrain_s = 3\n[log]\nformat = 'console'\n")
    first = printed(
        *("--port", "3", "--set", "limits.max_contexts=2", "--voices", "a", "--voices", "b,c", "--max-lead", "0"),
        STREAMER_CONFIG=str(file),
        STREAMER_SERVER__PORT="2",
        STREAMER_SERVER__DRAIN_S="4.5",
        STREAMER_SERVER__ORIGINS="https://a.example, https://b.example",
    )
    assert first.returncode == 0, first.stderr
    settings = load_settings(written(tmp_path, first.stdout), {})
    # The flag over the environment, the environment over the file, the file over the default.
    assert (settings.server.port, settings.server.drain_s, settings.server.host) == (3, 4.5, "::1")
    assert settings.server.origins == ("https://a.example", "https://b.example")
    assert settings.log == LogSettings(format="console")
    assert settings.limits == Limits(max_contexts=2)
    assert settings.model == ModelSettings(voices=(Path("a"), Path("b,c")))
    assert settings.engine.max_lead_s == 0
    assert to_toml(settings) == first.stdout
    again = printed("--config", str(tmp_path / "streamer.toml"))
    assert again.stdout == first.stdout


def test_without_any_source_everything_is_as_the_parts_have_it() -> None:
    settings = load_settings(None, {"PATH": "/bin", "STREAMER_KERNELS": "naive"})
    assert settings == Settings()
    assert server_config(settings) == ServerConfig()
    assert speech_config(settings) == SpeechConfig()


def test_every_setting_of_server_and_engine_can_be_set() -> None:
    # Known from the model's settings, or set for it.
    derived = {"bf16_codec", "captured"}
    assert {f.name for f in fields(EngineConfig)} - derived == set(type(Settings().engine).__struct_fields__)
    whole = {"limits", "log_text"}
    assert {f.name for f in fields(ServerConfig)} - whole == set(ServerSettings.__struct_fields__) - {"insecure"}


def test_what_is_set_arrives_in_the_parts() -> None:
    settings = load_settings(
        None,
        {
            "STREAMER_SERVER__KEYS_FILE": "keys.jsonl",
            "STREAMER_LIMITS__IDLE_TIMEOUT_MS": "5",
            "STREAMER_LOG__TEXT": "true",
            "STREAMER_ENGINE__MAX_LEAD_S": "0",
            "STREAMER_MODEL__WEIGHTS": "bf16",
            "STREAMER_MODEL__HISTORY_S": "7",
            "STREAMER_MODEL__NULL_FRAMES": "3",
        },
    )
    server, speech = server_config(settings), speech_config(settings)
    assert server.keys_file == Path("keys.jsonl")
    assert server.limits.idle_timeout_ms == 5
    assert server.log_text
    assert speech.engine.max_lead_s is None
    assert speech.engine.bf16_codec
    assert speech.history_seconds == 7
    assert speech.null is not None
    assert speech.null.burst_frames == 3


MISTAKES_IN_FILES = [
    ("[server]\nprot = 1", "server.prot", "did you mean server.port?"),
    ("[servr]\nport = 1", "[servr]", "did you mean server?"),
    ("port = 1", "port", "expected [section]"),
    ("[server]\nport = '80'", "server.port is '80'", "expected `int`, got `str`"),
    ("[server]\nport = 65536", "server.port is 65536", "<= 65535"),
    ("[server]\nport = true", "server.port is True", "expected `int`, got `bool`"),
    ("[server]\nhost = ''", "server.host is ''", "length >= 1"),
    ('[server]\nhost = "a\\u0000b"', "server.host", "without control characters"),
    ("[server]\ndrain_s = inf", "server.drain_s is inf", "finite"),
    ("[server]\ndrain_s = nan", "server.drain_s is nan", "expected"),
    ("[server]\norigins = 'x'", "server.origins is 'x'", "expected `array`"),
    ("[server]\nvoices_store = 5", "server.voices_store is 5", "expected a path"),
    ("[server.deep]\nx = 1", "server.deep", "no setting"),
    ("[limits]\nmax_speakers = 6", "limits.max_speakers is 6", "<= 5"),
    ("[limits]\nmax_message_bytes = 20_000_000", "limits.max_message_bytes", "server.max_frame_bytes"),
    ("[engine]\nmax_lead_s = 0.5", "engine.max_lead_s is 0.5", "expected 0, or 1 or more"),
    ("[engine]\nprefill_chunk_rows = 100", "engine.prefill_chunk_rows is 100", "multiple of 16"),
    ("[model]\nweights = 'int3'", "model.weights is 'int3'", "expected one of native, bf16, fp8"),
    ("[tracing]\nendpoint = 'localhost'", "tracing.endpoint is 'localhost'", "expected a URL"),
    ("[server]\ntls_key = 'x.pem'", "server.tls_key", "tls_cert"),
    ("[server", "not TOML", ""),
    ("[server]\nport = 1\nport = 2", "not TOML", ""),
]


@pytest.mark.parametrize(("text", "names", "wants"), MISTAKES_IN_FILES, ids=[m[0] for m in MISTAKES_IN_FILES])
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path: Path, text: str, names: str, wants: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(written(tmp_path, text), {})
    message = str(refused.value)
    assert names in message
    assert wants in message
    assert len(message.splitlines()) == 1


MISTAKES_IN_VARIABLES = [
    ("STREAMER_SERVER__PROT", "1", "did you mean STREAMER_SERVER__PORT?"),
    ("STREAMER_PORT", "8000", "did you mean STREAMER_SERVER__PORT?"),
    ("STREAMER_SERVER__PORT", "", "expected `int`"),
    ("STREAMER_SERVER__PORT", "eighty", "expected `int`"),
    ("STREAMER_SERVER__DRAIN_S", "inf", "finite"),
    ("STREAMER_LIMITS__MAX_CONTEXTS", "9" * 5000, "range"),
    ("STREAMER_LOG__LEVEL", "loud", "expected one of"),
    ("STREAMER_SERVER__INSECURE", "perhaps", "expected `bool`"),
    ("STREAMER_MODEL__PATH", "a\nb", "without control characters"),
]


@pytest.mark.parametrize(("variable", "value", "wants"), MISTAKES_IN_VARIABLES)
def test_a_mistake_in_the_environment_is_one_line_that_names_it(variable: str, value: str, wants: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {variable: value})
    message = str(refused.value)
    assert message.startswith(variable)
    assert wants in message
    assert len(message) < 300
    assert len(message.splitlines()) == 1


def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2() -> None:
    done = printed("--config", "/nowhere.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "/nowhere.toml" in done.stderr
    with pytest.raises(SettingsError, match=r"--set is 'x': expected section\.key=value"):
        setting("x", "--set")
    with pytest.raises(SettingsError, match=r"--set limits.max_context: .* did you mean limits.max_contexts\?"):
        load_settings(None, {}, [setting("limits.max_context=3", "--set")])


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {"STREAMER_TRACING__ENDPOINT": "https://user:hunter2@example.org/v1"})
    assert "hunter2" not in str(refused.value)
    assert "OTEL_EXPORTER_OTLP_HEADERS" in str(refused.value)


def test_variables_of_neighbouring_services_are_passed_over() -> None:
    neighbours = {
        "STREAMER_SERVICE_HOST": "10.0.0.1",
        "STREAMER_SERVICE_PORT": "8000",
        "STREAMER_SERVICE_PORT_HTTP": "8000",
        "STREAMER_PORT": "tcp://10.0.0.1:8000",
        "STREAMER_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "STREAMER_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(None, neighbours) == Settings()


def test_what_may_be_left_out_is_left_out_by_an_empty_value(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\nkeys_file = 'keys'\norigins = ['*']\n[model]\nhistory_s = 3\n")
    empty = {
        "STREAMER_SERVER__KEYS_FILE": "",
        "STREAMER_SERVER__ORIGINS": "",
        "STREAMER_MODEL__HISTORY_S": "",
    }
    assert load_settings(file, empty) == Settings()


# What a setting may hold: anything but control characters, and halves of characters.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
LIMITS = st.integers(1, 2**32 - 1)


@given(host=TEXT, path=TEXT, names=st.lists(TEXT, max_size=3), drain_s=st.floats(0, 1e300), idle_ms=LIMITS)
def test_any_configuration_survives_being_printed(
    tmp_path_factory: pytest.TempPathFactory, host: str, path: str, names: list[str], drain_s: float, idle_ms: int
) -> None:
    flags = [
        Given("server.host", host, "--host"),
        Given("server.voices_store", path, "--voices-store"),
        Given("server.host_names", names, "--host-name"),
        Given("server.drain_s", drain_s, "--drain"),
        Given("limits.idle_timeout_ms", idle_ms, "--set"),
    ]
    settings = load_settings(None, {}, flags)
    assert (settings.server.host, list(settings.server.host_names)) == (host, names)
    file = written(tmp_path_factory.getbasetemp(), to_toml(settings))
    assert load_settings(file, {}) == settings
