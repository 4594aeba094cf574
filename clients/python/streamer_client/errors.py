"""What can go wrong for a user of the client."""

from __future__ import annotations

from streamer_protocol import Error


class ClientError(Exception):
    """Base of every error of this package."""


class HandshakeError(ClientError):
    """No dialogue could be opened: wrong address, nothing listening, or the server refused the connection.

    `final` tells that trying again as it is makes no sense.
    """

    def __init__(self, message: str, *, final: bool = True) -> None:
        super().__init__(message)
        self.final = final


class ConnectionLost(ClientError):
    """The connection or the session ended before what was asked for was complete, and could not be resumed."""


class EventsNotRead(ClientError):
    """A dialogue's events were left unread until they stood in the way of others; it was closed for that."""


class ProtocolError(ClientError):
    """The server sent what the protocol does not allow; the connection is closed."""


class DialogueError(ClientError):
    """The server answered with an `error` message.

    `code` is one of `streamer_protocol.ErrorCode`, `turn` the turn (or script) concerned, `retry_after_ms`
    when trying again makes sense.
    """

    def __init__(self, code: str, message: str, turn: str | None = None, retry_after_ms: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.turn = turn
        self.retry_after_ms = retry_after_ms

    @classmethod
    def of(cls, error: Error) -> DialogueError:
        """From the message on the wire."""
        return cls(error.code, error.message, error.turn, error.retry_after_ms)


class OpusUnavailable(ClientError):
    """Opus audio has to be decoded, but the system library libopus is missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"cannot decode Opus, libopus did not load ({reason}). Install it: "
            "Debian/Ubuntu `apt-get install libopus0`, Fedora `dnf install opus`, macOS `brew install opus`; "
            'or ask for audio=AudioFormat(format="pcm_s16le"), which needs no library.'
        )


class NotDecoded(ClientError):
    """`Audio.pcm` of an Opus packet was read without `connect(..., decode=True)`."""

    def __init__(self) -> None:
        super().__init__("this Opus packet was not decoded: connect with decode=True to have `pcm`")
