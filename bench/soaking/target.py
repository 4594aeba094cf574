"""The server under trial: where it is, and what it says of itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

# What must be 0 when nobody is there.
HELD = {
    "sockets": "streamer_sockets",
    "sessions": "streamer_sessions",
    "streams": "streamer_engine_streams",
    "slots": "streamer_engine_turns_running",
    "resting turns": "streamer_engine_turns_resting",
    "parked turns": "streamer_engine_turns_parked",
    "waiting turns": "streamer_engine_queue_length",
    "blocks": "streamer_engine_kv_blocks_used",
}
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Health:
    """The server's figures at one moment. ``refusals`` by code; ``held`` by what holds it; memory is resident."""

    received: int
    refusals: dict[str, int]
    resumed: int
    opened: int
    held: dict[str, int]
    rss_bytes: int
    open_files: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is. ``voice`` is one that it has."""

    url: str
    voice: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    @property
    def http(self) -> str:
        return f"http://{self.host}:{self.port}"

    @classmethod
    async def of(cls, url: str) -> Target:
        """The server at the address of its dialogue socket. Raises aiohttp.ClientError if there is none."""
        bare = cls(url, "")
        async with aiohttp.ClientSession(bare.http) as http, http.get("/v1/voices") as answer:
            return cls(url, (await answer.json())["data"][0]["id"])

    async def health(self) -> Health:
        """Ask it."""
        headers = {"Connection": "close"}
        async with aiohttp.ClientSession(self.http) as http, http.get("/metrics", headers=headers) as answer:
            values: dict[str, Any] = {}
            refusals: dict[str, int] = {}
            for family in text_string_to_metric_families(await answer.text()):
                for sample in family.samples:
                    values[sample.name] = sample.value
                    if sample.name == "streamer_refusals_total":
                        refusals[sample.labels["code"]] = int(sample.value)
        return Health(
            received=int(values["streamer_received_messages_total"]),
            refusals=refusals,
            resumed=int(values["streamer_sessions_resumed_total"]),
            opened=int(values["streamer_sessions_opened_total"]),
            held={name: int(values[metric]) for name, metric in HELD.items()},
            rss_bytes=int(values["process_resident_memory_bytes"]),
            open_files=int(values["process_open_fds"]),
            healthy=bool(values["streamer_engine_healthy"]),
        )

    async def settled(self, patience_s: float) -> Health:
        """Its figures when it holds nothing any more, or when the patience is at its end."""
        deadline_s = time.monotonic() + patience_s
        best = health = await self.health()
        while time.monotonic() < deadline_s:
            if not any(health.held.values()) and health.open_files == best.open_files:
                return health
            best = health
            await asyncio.sleep(_LOOK_S)
            health = await self.health()
        return health
