"""How a message is refused."""

from __future__ import annotations

from streamer_protocol import Error


class Rejection(Exception):
    """A message that the server refuses; ``error`` goes to the client."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error
