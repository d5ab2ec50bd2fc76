"""`--cluster` and `--desk` as people write them."""

import pytest

from bulkimg.place import Place, checked_address, parse_cluster, parse_desk


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("local", Place(local=2)),
        ("local:4", Place(local=4)),
        (" tls://scheduler:8786 ", Place(address="tls://scheduler:8786")),
        ("tcp://127.0.0.1:8786", Place(address="tcp://127.0.0.1:8786")),
        ("tcp://localhost:8786", Place(address="tcp://localhost:8786")),
        ("tls://[::1]:8786", Place(address="tls://[::1]:8786")),
        ("insecure+tcp://10.0.0.7:8786", Place(address="tcp://10.0.0.7:8786", insecure=True)),
        ("/shared/scheduler.json", Place(file="/shared/scheduler.json")),
        ("insecure+scheduler.json", Place(file="scheduler.json", insecure=True)),
    ],
)
def test_what_is_a_cluster(text: str, place: Place) -> None:
    assert parse_cluster(text) == place
    assert parse_cluster(place) == place


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no cluster"),
        ("local:0", "number of local workers"),
        ("local:257", "number of local workers"),
        ("insecure+local:2", "number of local workers"),
        ("tls://scheduler", "no scheduler's address"),
        ("http://scheduler:8786", "no scheduler's address"),
        ("tls://user:word@scheduler:8786", "no scheduler's address"),
        ("tls://scheduler:99999", "no scheduler's address"),
        ("tcp://10.0.0.7:8786", r"plain tcp.*put insecure\+ before it"),
        ("tcp://scheduler.example:8786", "plain tcp"),
        ("tcp://[::2]:8786", "plain tcp"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_cluster(text)


def test_an_address_out_of_a_file_is_checked_too() -> None:
    assert checked_address("tls://h:1", insecure=False) == "tls://h:1"
    with pytest.raises(ValueError, match="plain tcp"):
        checked_address("tcp://192.0.2.1:8786", insecure=False)


def test_where_the_desk_is() -> None:
    assert parse_desk("10.0.0.7:8790") == ("10.0.0.7", 8790)
    assert parse_desk("desk.example") == ("desk.example", 0)
    assert parse_desk("[fd00::7]:8790") == ("fd00::7", 8790)
    for wrong in ("", "10.0.0.7:99999", "a b:1", "http://h:1", "h:"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_desk(wrong)
