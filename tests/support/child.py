"""Functions that tests run in worker processes."""

import os
import signal
import sys
import time


def echo(receive, send) -> None:
    while True:
        send(receive())


def number(receive, send) -> None:
    while receive() != "end":
        send(os.getpid())


def read_standard_input(receive, send) -> None:
    receive()
    print("a library talks")  # noqa: T201 (no message)
    send(sys.stdin.read())


def sleep(receive, send) -> None:
    receive()
    send(os.getpid())
    time.sleep(60)


def allocate(receive, send) -> None:
    receive()
    try:
        send(len(bytearray(3 << 30)))
    except MemoryError:
        send("memory")


def end(receive, send) -> None:
    how = receive()
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(5)
