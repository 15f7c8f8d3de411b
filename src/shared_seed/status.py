"""What a relay shows over HTTP: a page for people, JSON for machines, metrics for Prometheus.

====================  =====================================================
``/``                 the page; it loads itself anew every five seconds
``/status.json``      the same figures
``/metrics``          Prometheus
====================  =====================================================
"""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared_seed import __version__, clock, identity
from shared_seed.errors import AddressInUseError, RecipeError
from shared_seed.relay import Relay
from shared_seed.swarm.protocol import Protocol

Figures = dict[str, Any]

KEPT = 1.0
"""Seconds for which figures are shown again: to make them, the relay has to stop for as long as it takes."""

MOST_ASKING = 32
"""Connections that are answered at once; further ones are closed."""

MOST_SHOWN = 1000
"""Streams and peers that a page lists."""


def figures(relay: Relay) -> Figures:
    """What there is to show of a relay, as JSON takes it."""
    shown = relay.swarm.ask(_of_protocol)
    traffic = relay.swarm.traffic
    messages, received, sent = relay.rates.per_second()
    return {
        "version": __version__,
        "relay": relay.settings.name,
        "address": relay.swarm.address,
        "run": relay.manifest.run,
        "model": relay.manifest.model,
        "owner": relay.manifest.owner,
        "seconds": round(clock.now() - relay.began),
        "trouble": relay.trouble,
        "log_bytes": relay.log_bytes,
        "received_bytes": traffic.received,
        "sent_bytes": traffic.sent,
        "refused_frames": traffic.refused,
        "limited_frames": sum(traffic.limited.values()),
        "messages_per_second": round(messages, 3),
        "received_per_second": round(received, 1),
        "sent_per_second": round(sent, 1),
        **shown,
    }


def _of_protocol(protocol: Protocol, now: float) -> Figures:
    archive = protocol.archive
    held = archive.digest()
    peers = []
    for stream, peer in protocol.roster.peers.items():
        introduction = archive.introduction(stream)
        peers.append(
            {
                "name": peer.name,
                "key": identity.show(introduction.key) if introduction else "",
                "stream": str(stream),
                "state": peer.state.value,
                "round": peer.round,
                "messages": peer.messages,
                "level": peer.held == held,
                "silent_seconds": round(now - peer.heard, 1),
                "live": peer.is_live(now),
            }
        )
    streams = [
        {
            "stream": stream.to_bytes().hex(),
            "messages": archive.count(stream),
            "counts": archive.counts(stream),
            "cut": stream in archive.forks,
        }
        for stream in archive.streams
    ]
    return {
        "messages": len(archive),
        "live_peers": sum(peer["live"] for peer in peers),
        "round": protocol.swarm_round(now),
        "peers": sorted(peers, key=lambda peer: not peer["live"])[:MOST_SHOWN],
        "streams": streams[:MOST_SHOWN],
        "stream_count": len(streams),
        "banned": [identity.show(key) for key, order in archive.orders.items() if order.banned],
        "faults": list(protocol.standing.faults),
    }


class _Metrics(Collector):
    """The figures as Prometheus wants them, made when they are asked for."""

    def __init__(self, look: Callable[[], Figures]) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        """Each figure of a number."""
        now = self._look()
        gauges = {
            "live_peers": "Peers heard of lately",
            "stream_count": "Streams in the archive",
            "messages": "Messages in the archive",
            "round": "Round that the swarm is at",
            "log_bytes": "Bytes of the log on disk",
        }
        for name, text in gauges.items():
            yield GaugeMetricFamily(f"shared_seed_{name}", text, value=now[name])
        for name in ("received_bytes", "sent_bytes", "refused_frames", "limited_frames"):
            text = name.replace("_", " ").capitalize()
            yield CounterMetricFamily(f"shared_seed_{name}", text, value=now[name])
        yield GaugeMetricFamily("shared_seed_faults", "Faults of peers that were noted", value=len(now["faults"]))
        yield GaugeMetricFamily(
            "shared_seed_trouble", "1 where the relay takes in no more", value=bool(now["trouble"])
        )


class _Lately:
    """Figures that are made again only once they are old, whoever asks, and however often."""

    def __init__(self, look: Callable[[], Figures]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._known: Figures | None = None
        self._made = 0.0

    def __call__(self) -> Figures:
        with self._lock:
            if self._known is None or clock.now() - self._made >= KEPT:
                self._known = self._look()
                self._made = clock.now()
            return self._known


class StatusPage:
    """An HTTP server in a thread of its own; it only reads."""

    def __init__(self, look: Callable[[], Figures], host: str, port: int) -> None:
        """Begin to serve.

        Args:
            look: gives the figures.
            host: to listen at.
            port: to listen at; 0 takes any.

        Raises:
            AddressInUseError: the port is taken.
        """
        look = _Lately(look)
        registry = CollectorRegistry()
        registry.register(_Metrics(look))
        pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/": ("text/html; charset=utf-8", lambda: page(look()).encode()),
            "/status.json": ("application/json", lambda: json.dumps(look()).encode()),
            "/metrics": ("text/plain; version=0.0.4; charset=utf-8", lambda: generate_latest(registry)),
        }

        class Handler(_Handler):
            """Answers with the pages of this server."""

            served = pages

        try:
            self._server = (_Server6 if ":" in host else _Server)((host, port), Handler)
        except OSError as error:
            raise AddressInUseError(
                f"cannot show the status at {host}:{port}: {error.strerror}; choose another port with --status"
            ) from error
        bound = self._server.server_address[1]
        self.address = f"http://[{host}]:{bound}/" if ":" in host else f"http://{host}:{bound}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="shared-seed-status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._places = threading.BoundedSemaphore(MOST_ASKING)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


class _Server6(_Server):
    address_family = 10  # AF_INET6 on Linux


class _Handler(BaseHTTPRequestHandler):
    served: dict[str, tuple[str, Callable[[], bytes]]]
    timeout = 10

    def do_GET(self) -> None:
        """Send a page."""
        found = self.served.get(self.path.partition("?")[0])
        if found is None:
            self.send_error(404, "no such page", f"pages are {', '.join(self.served)}")
            return
        kind, make = found
        body = make()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


_STYLE = """body{font:15px system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}.gone{color:#999}.bad{color:#b00}code{font-size:90%}"""


def page(now: Figures) -> str:
    """The page for people. Names come from strangers: everything is escaped."""
    facts = {
        "run": now["run"],
        "model": now["model"],
        "owner": now["owner"],
        "join with": f"shared-seed join {now['address']}",
        "round": now["round"],
        "messages": f"{now['messages']:,}, {now['messages_per_second']:g} a second",
        "streams": f"{now['stream_count']:,}",
        "received": f"{now['received_bytes']:,} bytes, {now['received_per_second']:g} a second",
        "sent": f"{now['sent_bytes']:,} bytes, {now['sent_per_second']:g} a second",
        "refused": f"{now['refused_frames']:,} frames not valid, {now['limited_frames']:,} beyond the rate",
        "log": f"{now['log_bytes']:,} bytes",
        "up": f"{now['seconds']:,} s",
    }
    rows = "".join(f"<tr><th>{name}<td>{_text(value)}" for name, value in facts.items())
    peers = "".join(_peer_row(peer) for peer in now["peers"])
    streams = "".join(
        f"<tr><td><code>{_text(s['stream'])}</code><td class=n>{s['messages']:,}"
        f"<td>{'cut: its writer lied' if s['cut'] else '' if s['counts'] else 'banned'}"
        for s in now["streams"]
    )
    trouble = f"<p class=bad>{_text(now['trouble'])}" if now["trouble"] else ""
    faults = "".join(f"<li>{_text(fault)}" for fault in now["faults"])
    blamed = f"<h2>Faults of others</h2><ul>{faults}</ul>" if faults else ""
    title = _text(now["relay"])
    return "".join(
        [
            "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=5>",
            f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>{trouble}<table>{rows}</table>",
            f"<h2>{now['live_peers']} peers</h2>",
            "<table><tr><th>name<th>state<th>round<th>messages<th><th>silent, s<th>key",
            f"{peers}</table><h2>Streams</h2><table><tr><th>stream<th>messages<th>{streams}</table>{blamed}",
        ]
    )


def _peer_row(peer: Figures) -> str:
    cells = [
        f"<td>{_text(peer['name'])}<td>{_text(peer['state'])}<td class=n>{peer['round']}",
        f"<td class=n>{peer['messages']:,}<td>{'level' if peer['level'] else ''}",
        f"<td class=n>{peer['silent_seconds']:g}<td><code>{_text(peer['key'][:16])}</code>",
    ]
    return f"<tr{'' if peer['live'] else ' class=gone'}>{''.join(cells)}"


def _text(value: object) -> str:
    return html.escape(str(value))


def parse_status(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``PORT``; the host is this machine alone by default.

    Raises:
        RecipeError: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise RecipeError(f"--status {text!r} is not PORT or HOST:PORT, such as 8080 or 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(port)
