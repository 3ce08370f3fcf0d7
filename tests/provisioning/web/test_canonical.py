"""provisioning/web/canonical.py"""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from provisioning.metrics import Metrics
from provisioning.web.canonical import Line, note, path


def test_notes_stand_in_the_line_and_never_replace_its_own_keys(lines: Any) -> None:
    request = make_mocked_request("POST", "/a")
    line = Line(request, "test", "do", Metrics())
    note(request, device="d1", outcome="forged")
    note(request, product="p1")
    line.end("refused", "stale", 403, detail={"field": "sign", "device": "from detail", "event": "x", "exc_info": 1})
    (written,) = lines
    assert (written["event"], written["outcome"], written["reason"]) == ("http.do", "refused", "stale")
    assert (written["device"], written["product"], written["field"]) == ("d1", "p1", "sign")


def test_an_end_is_counted() -> None:
    metrics = Metrics()
    Line(make_mocked_request("GET", "/"), "test", "do", metrics).end("accepted", status=200)
    assert b'requests_total{operation="do",outcome="accepted",protocol="test"} 1.0' in metrics.expose()
    assert b'request_seconds_count{operation="do",protocol="test"} 1.0' in metrics.expose()


class _At(web.BaseRequest):
    def __init__(self, url: URL) -> None:
        self._rel_url = url
        self._cache: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("/a/b", "/a/b"), ("/a?sign=s3cret", "/a"), ("/%0A", "/%0A"), ("/\udcff\u00e9", "/\\udcff\\xe9")],
)
def test_a_path_is_one_line_of_plain_ascii_without_its_query(sent: str, shown: str) -> None:
    assert path(_At(URL(sent, encoded=True))) == shown
