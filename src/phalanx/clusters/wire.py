"""Messages between the driver, the fork server and the workers: pickles over a local socket.

Both ends are processes of one program that started each other over an unnamed socket pair, so
there is nobody else to send a pickle.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from phalanx.errors import UserFunctionError


class Unreadable(UserFunctionError):
    """A message that arrived whole and cannot be unpickled."""


Part = TypeVar("Part")
_HEADER = struct.Struct("<QI")  # bytes of the message, number of descriptors
MAX_DESCRIPTORS = 64


def pack(message: object) -> bytes:
    """A message as bytes. Raises UserFunctionError where a part of it cannot be pickled."""
    from phalanx import references  # 20 ms, and a fork server that only waits does not need it

    try:
        return references.dumps(message)
    except Exception as error:
        raise UserFunctionError(
            "functions that workers call must be picklable, with everything that they refer to; "
            f"got {type(error).__name__}: {error}. Create what cannot be pickled inside the "
            "function, or use one worker."
        ) from error


def unpack(body: bytes) -> Any:
    """What `pack` was given. Raises Unreadable for what is not to be found here, or is not here
    what it was there."""
    from phalanx import references

    try:
        return references.loads(body)
    except UserFunctionError as error:
        raise Unreadable(str(error)) from error
    except Exception as error:
        raise Unreadable(
            f"a worker could not load what it was sent ({type(error).__name__}: {error}). "
            "Functions must be importable in a new process, or defined in the main script."
        ) from error


class Packed(Generic[Part]):
    """A part of messages that is packed now: all who get it get the same, whatever has become of
    the caller's functions meanwhile. Raises as `pack` does."""

    def __init__(self, part: Part) -> None:
        self._body = pack(part)

    def unpacked(self) -> Part:
        """The part. Raises as `unpack` does."""
        part: Part = unpack(self._body)
        return part


def send(sock: socket.socket, message: object, descriptors: Sequence[int] = ()) -> None:
    """Send a message, and descriptors that the receiver gets copies of. Raises OSError if gone."""
    send_packed(sock, pack(message), descriptors)


def send_packed(sock: socket.socket, body: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send what `pack` made, and descriptors. Raises OSError if the receiver is gone."""
    header = _HEADER.pack(len(body), len(descriptors))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    sock.sendmsg([header], rights if descriptors else [])
    sock.sendall(body)


def receive(sock: socket.socket) -> tuple[Any, list[int]]:
    """The next message and its descriptors.

    Raises EOFError once the other end is gone, and what `unpack` raises; the descriptors are closed
    then.
    """
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        header, ancillary, _, _ = sock.recvmsg(_HEADER.size, room)
    except ConnectionResetError:
        raise EOFError from None
    received = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    header += _exactly(sock, _HEADER.size - len(header))
    size, _ = _HEADER.unpack(header)
    body = _exactly(sock, size)
    try:
        return unpack(body), received.tolist()
    except Unreadable:
        for descriptor in received:
            os.close(descriptor)
        raise


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        try:
            part = sock.recv(min(missing, 1 << 20))
        except ConnectionResetError:
            raise EOFError from None
        if not part:
            raise EOFError
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
