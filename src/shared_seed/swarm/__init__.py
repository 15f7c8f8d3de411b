"""How messages reach everybody: ``wire`` (bytes), ``protocol`` (no sockets, no clock), ``zmq`` (the sockets).

A listening peer has three ports in a row:

=====  ======  =======================================================================
port   socket  for
=====  ======  =======================================================================
P      ROUTER  greeting, manifest, catch-up
P + 1  PUB     everything new, to whoever subscribes
P + 2  SUB     what peers that only dial out publish
=====  ======  =======================================================================

All links are encrypted, and both ends prove their keys (CURVE); the listening peer decides at each new connection
whom it lets in at its door, P, and in its hall, P + 1 and P + 2.

A peer that dials connects to P, and to the others once it is welcome there, so it needs no open port of its own. A
listening peer passes on what is new to it; the message set drops what is not, so any graph of peers works and
floods end.
"""
