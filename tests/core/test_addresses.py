"""Where may be sent to: every form of a forbidden address, every trick of a URL."""

from __future__ import annotations

import pytest

from orchestr8d.core import addresses
from orchestr8d.core.addresses import Allow, fault, is_allowed, parse, place, read_allow

ALL = Allow(public=True, loopback=True, private=True)
DEFAULT = Allow()

PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.0",
    "192.167.255.255", "192.169.0.0", "169.253.255.255", "169.255.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "11.0.0.0", "9.255.255.255", "126.255.255.255", "128.0.0.0", "2606:4700::1111",
    "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:0808:0808::1", "::8.8.8.8", "fe00::1",
]  # fmt: skip
LOOPBACK = ["127.0.0.1", "127.255.255.255", "127.0.0.0", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
            "2002:7f00:1::"]  # fmt: skip
PRIVATE = [
    "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255", "100.64.0.0",
    "100.127.255.255", "fc00::1", "fdff:ffff::1", "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::c0a8:1", "2002:a00:1::",
    "64:ff9b:1::a00:1", "64:ff9b:1:a9fe:a9:fe00:808:808",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "0.1.2.3", "169.254.0.0", "169.254.169.254", "169.254.255.255", "198.18.0.0", "198.19.255.255",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "100.100.100.200", "::", "fe80::1", "febf::1",
    "fec0::1", "feff::1", "ff00::1", "ff02::1", "fd00:ec2::254", "::ffff:169.254.169.254", "::ffff:0.0.0.0",
    "::169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::ffff:100.100.100.200", "::2",
    "64:ff9b:1::a9fe:a9fe", "fe80::1%eth0",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert is_allowed(parse(text), Allow(loopback=False))
    assert not is_allowed(parse(text), Allow(public=False, private=True))


@pytest.mark.parametrize("text", LOOPBACK)
def test_loopback(text: str) -> None:
    assert is_allowed(parse(text), Allow(public=False))
    assert not is_allowed(parse(text), Allow(loopback=False, private=True))


@pytest.mark.parametrize("text", PRIVATE)
def test_private(text: str) -> None:
    assert is_allowed(parse(text), Allow(public=False, loopback=False, private=True))
    assert not is_allowed(parse(text), DEFAULT)


@pytest.mark.parametrize("text", NEVER)
def test_never_even_if_listed(text: str) -> None:
    assert not is_allowed(parse(text), ALL)
    assert not is_allowed(parse(text), read_allow(["public", "loopback", "private", "0.0.0.0/0", "::/0"]))


def test_networks_add_to_what_is_allowed() -> None:
    allow = read_allow(["10.1.0.0/16", "fd12::/16"])
    assert allow == Allow(False, False, False, allow.networks)
    assert [is_allowed(parse(t), allow) for t in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1")] == [True] * 3
    assert [is_allowed(parse(t), allow) for t in ("10.2.0.1", "8.8.8.8", "127.0.0.1", "fd13::1")] == [False] * 4
    # What leads to an IPv4 address is that, whatever its own network.
    assert not is_allowed(parse("::ffff:10.2.0.1"), read_allow(["::ffff:0:0/96"]))
    with pytest.raises(ValueError, match="'intranet'"):
        read_allow(["public", "intranet"])


GOOD = {
    "http://example.com": ("example.com", 80), "https://example.com/": ("example.com", 443),
    "HTTPS://Example.COM:8443/a?b=c": ("example.com", 8443), "http://example.com.": ("example.com.", 80),
    "http://localhost:9000/x": ("localhost", 9000), "http://127.0.0.1:1/": ("127.0.0.1", 1),
    "http://[::1]:8080/": ("::1", 8080), "https://a-b.example/@me": ("a-b.example", 443),
    "http://my_host/": ("my_host", 80), "http://xn--bcher-kva.example/": ("xn--bcher-kva.example", 80),
    "http://8.8.8.8?x=1": ("8.8.8.8", 80), "http://1a.example": ("1a.example", 80),
    "http://0xcafe.example": ("0xcafe.example", 80), "http://a:80/%5c%40": ("a", 80),
}  # fmt: skip


@pytest.mark.parametrize("url", GOOD)
def test_urls_that_are_taken(url: str) -> None:
    assert fault(url, DEFAULT) is None
    where = place(url)
    assert (where.host, where.port) == GOOD[url]


BAD = [
    "", "example.com", "//example.com", "ftp://example.com", "file:///etc/passwd", "javascript:alert(1)", "gopher://a",
    "unix:///run/o.sock", "http:/example.com", "http:example.com", "http://", "http:///path", "http://:80/",
    "http://user@example.com", "http://user:pass@example.com", "http://@example.com", "http://a@b@c/",
    "http://example.com#", "http://example.com/#frag", "http://example.com\\@evil", "http:\\\\example.com",
    "http://exam ple.com", "http://example.com/a b", " http://example.com", "http://example.com\n",
    "http://example.com/\r\nX: y", "http://example.com/\t", "http://example.com/\0", "http://example.com/\x7f",
    "http://exämple.com", "http://example.com/ü", "http://\uff11\uff12\uff17.0.0.1/", "http://127。0。0。1/", "http://①.com",
    "http://127.1", "http://127.0.1", "http://2130706433", "http://0x7f000001", "http://0x7f.0.0.1",
    "http://0177.0.0.1", "http://017700000001", "http://127.0.0.01", "http://127.0.0.1.", "http://1.2.3.4.5",
    "http://256.0.0.1", "http://0", "http://0x", "http://a.1", "http://a.0x1", "http://1.2.3.0xff", "http://999",
    "http://127.0.0.1%2f", "http://127%2e0.0.1", "http://[::1", "http://::1/", "http://[::1]x/", "http://[]/",
    "http://[127.0.0.1]/", "http://[fe80::1%25eth0]/", "http://[::1%lo]/", "http://[::g]/", "http://a:0/",
    "http://a:65536/", "http://a:/", "http://a:80:80/", "http://a:x/", "http://a..b/", "http://.a/", "http://-a/",
    "http://a-/", f"http://{'a' * 64}/", f"http://{'a.' * 130}a/", f"http://a/{'x' * 2050}", "http://a,b/",
    "http://a;b/", "http://[::1]@evil/", "http://a|b/",
    # Literals that are forbidden by default.
    "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/", "http://[::]/",
    "http://[::ffff:10.0.0.1]/", "http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::]/", "http://[fd00:ec2::254]/", "http://[fe80::1]/", "http://100.100.100.200/",
    "http://192.168.1.1:8080/", "http://[fc00::1]/", "http://255.255.255.255/", "http://[::169.254.169.254]/",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD)
def test_urls_that_are_refused(url: str) -> None:
    assert fault(url, DEFAULT)


def test_the_table_is_long_enough() -> None:
    assert len(set(BAD)) + len(GOOD) + len(set(PUBLIC + LOOPBACK + PRIVATE + NEVER)) >= 80 * 2


def test_what_a_url_leads_to_is_as_resolvers_see_it() -> None:
    """Whatever host is taken for a name is no number to a resolver."""
    import socket

    for url in BAD:
        host = url.partition("://")[2].partition("/")[0]
        if host.isascii() and "\0" not in host:
            try:
                socket.inet_aton(host)
            except OSError:
                continue
            assert fault(url, DEFAULT)


def test_origins_tell_endpoints_apart() -> None:
    assert place("http://a/x").origin == place("HTTP://A:80/y?z").origin == "http://a:80"
    assert place("https://a/").origin != place("http://a/").origin
    assert place("http://[::1]/").origin == "http://[::1]:80"
    assert addresses.place("http://[0:0::1]/").origin == "http://[::1]:80"
