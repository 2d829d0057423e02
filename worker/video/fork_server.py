"""The process that starts decoders: it has loaded FFmpeg once, and forks a child for each connection to a camera.

A process that loads everything itself takes most of a second of processor time and a hundred megabytes; a fork takes
milliseconds, and shares what was loaded. This process reads nothing that comes from outside: the address of a camera,
with its password, goes to the camera's child only.

Run as ``python -m worker.video.fork_server FD PARENT``: the worker sends requests over the socket FD, each with two
file descriptors, a socket and the memory for pictures. Everything ends with the worker, however it ends: this process
when the socket is closed, the children with this process.
"""

import ctypes
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from itertools import pairwise
from typing import Final

from worker.video.child_messages import Died, send
from worker.video.decoder_child import decode

REQUEST: Final = b"fork"
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_DESCRIPTORS: Final = 2


def main(control_fd: int, parent: int) -> None:
    """Forks children until the worker is gone."""
    # The worker is asked to stop, not its decoders: they end when it lets them go.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _die_with(parent)
    server = _ForkServer(socket.socket(fileno=control_fd))
    while server.serve():
        pass
    server.end()


class _ForkServer:
    """``_links`` holds, by its descriptor, the end of each child's socket that the child has as well."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._links: dict[int, socket.socket] = {}
        self._pids: dict[int, int] = {}
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def serve(self) -> bool:
        """Does what is due next; False once the worker is gone."""
        for fd, _ in self._poll.poll():
            if fd == self._control.fileno():
                if not self._accept():
                    return False
            elif fd == self._woken:
                os.read(self._woken, 4096)
                self._reap()
            elif fd in self._links:  # else the child has just been reaped: both were heard of at once
                # The worker has let this connection go. Whatever the child does, it ends.
                self._poll.unregister(fd)
                os.kill(self._pids[fd], signal.SIGKILL)
        return True

    def end(self) -> None:
        """Ends every child, also one that has not begun to watch this process."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)

    def _accept(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, len(REQUEST), _DESCRIPTORS)
        if not data:
            return False
        if len(descriptors) != _DESCRIPTORS:
            for fd in descriptors:
                os.close(fd)
            return True
        link, memory = socket.socket(fileno=descriptors[0]), descriptors[1]
        server = os.getpid()
        pid = os.fork()
        if not pid:
            self._become_child(link, memory, server)
        os.close(memory)
        self._links[link.fileno()], self._pids[link.fileno()] = link, pid
        self._poll.register(link, 0)  # no event but that the other end is closed
        return True

    def _become_child(self, link: socket.socket, memory: int, server: int) -> None:
        """Never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with(server)
            _close_all_but(link.fileno(), memory)
            code = decode(link, memory)
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._pids:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            fd = next(fd for fd, other in self._pids.items() if other == pid)
            link = self._links.pop(fd)
            del self._pids[fd]
            try:
                self._poll.unregister(fd)
            except KeyError:  # it was ended
                pass
            else:
                link.setblocking(False)
                with suppress(OSError):  # nobody listens any more
                    send(link, Died(os.waitstatus_to_exitcode(status)))
            link.close()


def _die_with(parent: int) -> None:
    """Ends this process by SIGKILL when ``parent`` ends, by whatever."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    """The sockets of other cameras, and all else."""
    bounds = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for before, after in pairwise(bounds):
        os.closerange(before + 1, after)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
