"""A provider out of control: a listener that answers every connection with exactly the bytes it is told to."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Script = Callable[[socket.socket], None]


class Listener:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.closing = threading.Event()
        self.heard: list[bytes] = []
        port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def close(self) -> None:
        self.closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for peer in self._open:
            with _quietly():
                peer.shutdown(socket.SHUT_RDWR)
        for thread in [self._acceptor, *self._threads]:
            thread.join(timeout=5)
        for peer in self._open:
            peer.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        with _quietly():
            request = b""
            while b"\r\n\r\n" not in request:
                piece = peer.recv(65536)
                if not piece:
                    return
                request += piece
            self.heard.append(request)
            self._script(peer)
            peer.shutdown(socket.SHUT_RDWR)


@contextmanager
def _quietly() -> Iterator[None]:
    """The other side may hang up at any moment: that is what these tests are about."""
    try:
        yield
    except OSError:
        return


@contextmanager
def listening(script: Script) -> Iterator[Listener]:
    listener = Listener(script)
    try:
        yield listener
    finally:
        listener.close()


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Script:
    """One complete HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def raw(data: bytes) -> Script:
    return lambda peer: peer.sendall(data)


def drip(data: bytes, *, every_s: float) -> Script:
    def script(peer: socket.socket) -> None:
        for number in range(len(data)):
            peer.sendall(data[number : number + 1])
            time.sleep(every_s)

    return script


def silence(seconds: float) -> Script:
    def script(peer: socket.socket) -> None:
        peer.settimeout(seconds)
        with _quietly():
            peer.recv(1)

    return script
