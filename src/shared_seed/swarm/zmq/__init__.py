"""The sockets: the only importers of zmq. All links are encrypted and both ends prove their keys (CURVE,
https://rfc.zeromq.org/spec/26; who may come in is decided over ZAP, https://rfc.zeromq.org/spec/27).
"""

from shared_seed.swarm.address import Address, parse
from shared_seed.swarm.zmq.errand import bring
from shared_seed.swarm.zmq.fetch import fetch_manifest
from shared_seed.swarm.zmq.sockets import check_free, free_ports
from shared_seed.swarm.zmq.swarm import Swarm
from shared_seed.swarm.zmq.vacancy import await_manifest

__all__ = ["Address", "Swarm", "await_manifest", "bring", "check_free", "fetch_manifest", "free_ports", "parse"]
