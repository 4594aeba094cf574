"""What may be listened on without keys, and what is taken out of a line of the log."""

from __future__ import annotations

import socket

import pytest

from streamer.server.auth import ExposureError, check_exposure, is_loopback
from streamer.server.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
        ("{'Authorization': 'Basic YTpi', 'Host': 'x'}", "{'Authorization': '[redacted]', 'Host': 'x'}"),
        ("(b'Authorization', b'Bearer abc')", "(b'Authorization', b'[redacted]')"),
        ("sent bearer  abc.def, then left", "sent bearer  [redacted], then left"),
        ("GET /v1/dialogue?token=abc&x=1 HTTP/1.1", "GET /v1/dialogue?token=[redacted]&x=1 HTTP/1.1"),
        ("%3Ftoken%3Dabc", "%3Ftoken%3D[redacted]"),
        ('{"resume_token": "abc", "n": 1}', '{"resume_token": "[redacted]", "n": 1}'),
        ("key ds_" + "aB3-_" * 8 + "xyz!", "key ds_[redacted]!"),
        ("cut ds_aB3-_aB3", "cut ds_[redacted]"),
        ("glued" + "ds_" + "a" * 43, "gluedds_[redacted]"),
        ("WzE3MDAwMDAwMDAwMDAse31d." + "a" * 43 + " ended", "WzE3MDAwMDAwMDAwMDAse31d.[redacted] ended"),
        ("step_seconds_of_audio_total 3, input_tokens=5", "step_seconds_of_audio_total 3, input_tokens=5"),
        ("GET /v1/voices 200 in 3.141 ms", "GET /v1/voices 200 in 3.141 ms"),
        ("", ""),
    ],
)
def test_what_is_taken_out_of_a_line(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(redact(text)) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_key(host: str) -> None:
    check_exposure(host, has_keys=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.5", "2001:db8::1", "::ffff:10.0.0.5", "no.name.invalid"])
def test_elsewhere_a_start_without_keys_is_refused(host: str) -> None:
    with pytest.raises(ExposureError, match="streamer keys add NAME") as caught:
        check_exposure(host, has_keys=False, insecure=False)
    assert "--insecure" in str(caught.value)
    check_exposure(host, has_keys=True, insecure=False)
    check_exposure(host, has_keys=False, insecure=True)


def test_a_name_with_one_address_elsewhere_counts_as_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "10.0.0.5")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    assert not is_loopback("both.example")
    entries.pop()
    assert is_loopback("both.example")
