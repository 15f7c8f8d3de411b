"""The least that a relay could do: libzmq's own proxy, which looks at nothing.

python -m relaying.proxy (plain | curve)
"""

from __future__ import annotations

import sys

import zmq

from shared_seed import identity
from shared_seed.swarm.zmq.sockets import QUEUE


def main(way: str) -> None:
    """Say the two addresses and pass everything on, until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ends = []
    for name, kind in (("ingress", zmq.XSUB), ("publications", zmq.XPUB)):
        socket = context.socket(kind)
        socket.set_hwm(QUEUE)
        if way == "curve":
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, identity.load().curve_secret)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        print(f"{name} tcp://127.0.0.1:{port}", flush=True)
        ends.append(socket)
    zmq.proxy(*ends)


if __name__ == "__main__":
    main(sys.argv[1])
