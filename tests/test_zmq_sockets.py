"""What all sockets are set up with, where libzmq's own choices would end the process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import zmq

from shared_seed.swarm.zmq import free_ports

CLIENT = """
import sys, zmq
from shared_seed.swarm.zmq.sockets import configured

context = zmq.Context()
socket = configured(context, zmq.SUB)
socket.set_hwm(1)
for option in sys.argv[2:]:
    socket.setsockopt(getattr(zmq, option.split("=")[0]), int(option.split("=")[1]))
monitor = socket.get_monitor_socket(zmq.EVENT_CONNECTED)
socket.connect(sys.argv[1])
monitor.recv_multipart()
print("connected", flush=True)
sys.stdin.read()
"""
SERVER = """
import sys, time, zmq

context = zmq.Context()
socket = context.socket(zmq.PUB)
socket.bind(sys.argv[1])
print("listens", flush=True)
while True:
    socket.send(b"x" * 1000)
    time.sleep(0.001)
"""


def outcome(*options: str) -> int:
    """The exit code of a client that takes nothing from its full queue for 3 s while its server dies."""
    address = f"tcp://127.0.0.1:{free_ports()}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", SERVER, address], **pipes)
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listens\n"
        with subprocess.Popen([sys.executable, "-c", CLIENT, address, *options], **pipes) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "connected\n"
            with pytest.raises(subprocess.TimeoutExpired):
                client.wait(1)  # Its queue is full after a few milliseconds.
            server.kill()
            try:
                return client.wait(3)
            except subprocess.TimeoutExpired:
                client.communicate("")
                return client.returncode


def test_a_connection_that_breaks_while_its_queue_is_full_does_not_end_the_process() -> None:
    assert outcome() == 0


@pytest.mark.skipif(zmq.zmq_version_info() > (4, 3, 5), reason="the bug may be mended in later releases")
def test_with_heartbeats_it_would() -> None:
    assert outcome("HEARTBEAT_IVL=200", "HEARTBEAT_TIMEOUT=2500") < 0
