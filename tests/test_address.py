from __future__ import annotations

import pytest

from shared_seed.errors import RecipeError
from shared_seed.identity import Key, show
from shared_seed.swarm.address import Address, parse

KEY = Key(bytes(range(32)))


@pytest.mark.parametrize("host", ["127.0.0.1", "gpu-1.example.org", "[::1]", "[2001:db8::2]", "*", "0.0.0.0"])
@pytest.mark.parametrize("key", [None, KEY.public], ids=["no key", "a key"])
def test_an_address_is_read_as_it_is_written(host: str, key: bytes | None) -> None:
    address = Address(host, 5555, key)
    assert parse(str(address)) == address
    assert str(address).startswith(f"tcp://{show(KEY.public)}@" if key else f"tcp://{host}")


def test_endpoints_are_the_ports_in_a_row_without_the_key() -> None:
    address = parse(f"tcp://{show(KEY.public).upper()}@[::1]:65533")
    assert address.key == KEY.public
    assert [address.endpoint(n) for n in range(3)] == [f"tcp://[::1]:{65533 + n}" for n in range(3)]


@pytest.mark.parametrize(
    "text",
    [
        "tcp://nowhere",
        "nowhere:5555",
        "udp://127.0.0.1:5555",
        "tcp://127.0.0.1:65534",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:5555\n",
        "tcp://127.0.0.1:5555;tcp://127.0.0.1:6666",
        "tcp://::1:5555",
        "tcp://@127.0.0.1:5555",
        "tcp://abcd@127.0.0.1:5555",
        f"tcp://{'0' * 63}@127.0.0.1:5555",
        f"tcp://{'0' * 65}@127.0.0.1:5555",
    ],
)
def test_what_is_no_address_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(RecipeError, match=r"expected tcp://HOST:PORT or tcp://KEY@HOST:PORT"):
        parse(text)


def test_hex_digits_that_are_no_key_are_refused() -> None:
    with pytest.raises(RecipeError, match="not a peer's key"):
        parse(f"tcp://{'f' * 64}@127.0.0.1:5555")
