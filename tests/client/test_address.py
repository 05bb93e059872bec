import pytest

from attune.errors import SettingsError
from client import AttuneClient
from client.address import parse_address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:51000", "starts with none of grpc://"),
        ("ftp://localhost:51000", "starts with none of grpc://"),
        ("", "starts with none of grpc://"),
        ("grpc://localhost", "names no port"),
        ("grpc://:51000", "names no host"),
        ("http://localhost:many", "[Pp]ort"),
        ("http://localhost:70000", "[Pp]ort"),
    ],
)
def test_unusable_address_is_refused_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=rf"cannot be used: .*{reason}"):
        AttuneClient(url)


def test_unusable_search_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="'nowhere' cannot be used"):
        AttuneClient(search_url="nowhere")


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("grpc://localhost:51000", "grpc", "localhost", 51000),
        ("grpcs://attune.example.org:443", "grpcs", "attune.example.org", 443),
        ("http://127.0.0.1:52000/", "http", "127.0.0.1", 52000),
        ("https://attune.example.org", "https", "attune.example.org", None),
    ],
)
def test_address_is_taken_apart(url: str, scheme: str, host: str, port: int | None) -> None:
    address = parse_address(url, "flows/finetune.yml")
    assert (address.scheme, address.host, address.port) == (scheme, host, port)
    assert address.url == url.rstrip("/")
