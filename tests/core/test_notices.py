"""Notifications as data: quiet hours over midnight and when clocks change, where they go, channels without secrets."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from orchestr8d.core import notices
from orchestr8d.core.notices import Mail, NewNotice, Quiet, User


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def quiet(hours: str, zone: str = "UTC") -> Quiet:
    return Quiet(*notices.read_hours(hours), zone)


def new(**more) -> NewNotice:
    return NewNotice(**{"user_id": "u", "type": "update", "message": "m"} | more)


@pytest.mark.parametrize(("hours", "now", "until"), [
    ("22:00-07:00", "2026-03-01T21:59:59", None),
    ("22:00-07:00", "2026-03-01T22:00", "2026-03-02T07:00"),
    ("22:00-07:00", "2026-03-02T00:00", "2026-03-02T07:00"),
    ("22:00-07:00", "2026-03-02T06:59:59", "2026-03-02T07:00"),
    ("22:00-07:00", "2026-03-02T07:00", None),
    ("12:00-13:30", "2026-03-02T12:30", "2026-03-02T13:30"),
    ("12:00-13:30", "2026-03-02T13:30", None),
    ("12:00-13:30", "2026-03-02T11:59", None),
])  # fmt: skip
def test_quiet_hours(hours, now, until):
    assert notices.quiet_until(quiet(hours), at(now)) == (until and at(until))


BERLIN = "Europe/Berlin"


def test_quiet_hours_are_those_of_the_zone():
    hours = quiet("22:00-07:00", BERLIN)
    assert notices.quiet_until(hours, at("2026-01-10T21:30")) == at("2026-01-11T06:00")
    assert notices.quiet_until(hours, at("2026-07-10T20:30")) == at("2026-07-11T05:00")
    assert notices.quiet_until(hours, at("2026-07-10T19:30")) is None


def test_a_night_of_23_or_25_hours_ends_in_the_morning():
    hours = quiet("22:00-07:00", BERLIN)
    for night, morning, length in (("2026-03-28", "2026-03-29", 8), ("2026-10-24", "2026-10-25", 10)):
        begin = at(f"{night}T22:00", BERLIN)
        end = notices.quiet_until(hours, begin)
        assert end == at(f"{morning}T07:00", BERLIN) == begin + length * 3_600_000


def test_an_hour_that_comes_twice_is_quiet_once():
    hours = quiet("01:00-02:30", BERLIN)
    end = at("2026-10-25T02:30", BERLIN)
    assert notices.quiet_until(hours, at("2026-10-25T02:10", BERLIN)) == end
    assert notices.quiet_until(hours, end) is None
    assert notices.quiet_until(hours, at("2026-10-25T02:10", BERLIN, fold=1)) is None


def test_an_end_that_does_not_come_is_an_hour_later():
    hours = quiet("01:00-02:30", BERLIN)
    assert notices.quiet_until(hours, at("2026-03-29T01:30", BERLIN)) == at("2026-03-29T03:30", BERLIN)


@pytest.mark.parametrize("text", ["", "22-7", "22:00", "22:00-22:00", "24:00-07:00", "7:00-8:00", "22:00-07:00\n"])
def test_no_hours(text):
    with pytest.raises(ValueError, match="two different times"):
        notices.read_hours(text)


def test_what_is_critical_passes():
    user = User(quiet=quiet("00:00-23:59"))
    now = at("2026-03-01T12:00")
    assert notices.held_until("critical", user, now) is None
    assert notices.held_until("high", user, now) == at("2026-03-01T23:59")
    assert notices.held_until("high", User(), now) is None


def test_priorities_by_type():
    assert notices.priority(new(type="task_failure")) == "high"
    assert notices.priority(new(type="update")) == "normal"
    assert notices.priority(new(type="alert", priority="low")) == "low"


def test_where_a_notice_goes():
    user = User(("log", "https://a.example/x", "http://a.example:8080/"), frozenset({"update", "alert"}))
    assert notices.routed(new(), user) == ["log", "https://a.example/x", "http://a.example:8080/"]
    assert notices.routed(new(type="milestone"), user) == []
    # Whoever does not answer is not told that it does not answer.
    assert notices.routed(new(not_to="https://a.example:443/other"), user) == ["log", "http://a.example:8080/"]


@pytest.mark.parametrize(("url", "name"), [
    ("log", "log"),
    ("desktop", "desktop"),
    ("mailto://me:hunter2@smtp.a.org:587?from=a@a.org&to=b@b.org", "mailto://smtp.a.org:587?from=a@a.org&to=b@b.org"),
    ("slack://hunter2/T1/B2/#general", "slack://..."),
    ("tgram://hunter2:abc/123", "tgram://..."),
    ("https://a.org/hook?token=hunter2", "https://a.org/hook?..."),
    ("https://a.org/hooks/hunter2hunter2hunter2/x", "https://a.org/hooks/.../x"),
    ("http://127.0.0.1:99/notifications", "http://127.0.0.1:99/notifications"),
])  # fmt: skip
def test_names_have_no_secrets(url, name):
    notices.check_channel(url)
    assert notices.channel_name(url) == name


def test_channels_that_look_alike_have_numbers():
    assert notices.named(["slack://a/b", "log", "slack://c/d"]) == {
        "slack://...": "slack://a/b", "log": "log", "slack://... (2)": "slack://c/d",
    }  # fmt: skip


@pytest.mark.parametrize("url", [
    "", "lgo", "slack", "slack:", "a b://c", "slack://a b", "slack://a\r\nb", "slack://a\\b",
    "mailto://", "mailto://a.org", "mailto://a.org?from=a@a.org", "mailto://a.org?to=a@a.org",
    "mailto://a.org:0?from=a@a.org&to=a@a.org", "mailto://a.org:x?from=a@a.org&to=a@a.org",
    "mailto://a.org/x?from=a@a.org&to=a@a.org", "mailto://a.org?from=a@a.org&to=a@a.org&cc=b@b.org",
    "mailto://a.org?from=a@a.org%0D%0ABcc:x@x.org&to=a@a.org", "mailto://a.org?from=a@a.org&to=a@a.org%0ABcc:x@x.org",
    "mailto://a.org?from=A%20<a@a.org>&to=a@a.org",
    "http://", "https://me:hunter2@a.org/", "https://a.org/#x", "http://a.org:99999/",
])  # fmt: skip
def test_no_channels(url):
    with pytest.raises(ValueError) as caught:
        notices.check_channel(url)
    assert "hunter2" not in str(caught.value)


def test_mail():
    assert notices.mail("mailto://a%40b:p%3Aw@h?from=x@x.org&to=a@a.org,b@b.org&to=root") == Mail(
        "h", 587, "x@x.org", ("a@a.org", "b@b.org", "root"), "a@b", "p:w"
    )
    assert notices.mail("mailto://h:2525?from=x&to=y") == Mail("h", 2525, "x", ("y",))
    assert notices.mail("mailto://h?from=x&to=y").port == 25


def test_texts_on_one_line():
    assert notices.one_line(" a\r\nBcc: x\x1b[2J\tb\x00 ") == "a Bcc: x [2J b"
    assert notices.one_line("a" * 300, 10) == "aaaaaaaaa…"


def test_answers_of_channels_are_kept_without_secrets():
    url = "mailto://me:hunter2@smtp.a.org:25?from=a&to=b"
    said = notices.without_secrets(f"no: {url}\nhunter2 at me:hunter2@smtp.a.org:25", url)
    assert said == "no: ... ... at ...smtp.a.org:25"
    assert notices.without_secrets("wrong: p:w", "mailto://me:p%3Aw@h?from=a&to=b") == "wrong: ..."
    assert notices.without_secrets("bad T0KEN/S3CRET at a", "slack://T0KEN/S3CRET/a") == "bad .../... at a"
    assert notices.without_secrets("no host a.org:1", "https://a.org:1/") == "no host a.org:1"
