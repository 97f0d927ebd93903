"""Pages of other origins in a user's browser cannot use a service, whatever names they have; programs can."""

import html
import re

import pytest
from gated_model import Gate
from hypothesis import given
from hypothesis import strategies as st
from served import checked_error, encoded, files, service_of, serving

from verydeep.commands.serve import _is_local
from verydeep.serving.options import Access
from verydeep.serving.origins import check_host, check_origin
from verydeep.serving.page_texts import ENGLISH, JAPANESE
from verydeep.serving.refusals import RefusedRequestError

OTHER = "https://other.example"
OURS = "https://ours.example"
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(scope="module")
def client():
    access = Access(allow_origin=(OURS,), allow_host=("localhost", "gpu7.example"))
    with serving(service_of(Gate().model(), access)) as client:
        yield client


@pytest.mark.parametrize("host", ["localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "gpu7.example."])
def test_its_own_names_and_all_addresses_are_answered(client, host):
    assert client.post("/v1/predict", content=encoded(), headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.example:80", "a@localhost"])
@pytest.mark.parametrize("path", ["/v1/model", "/v2"])
def test_a_page_whose_name_points_here_is_refused(client, host, path):
    assert "--allow-host" in checked_error(client.get(path, headers={"Host": host}), 403, "unknown_host")


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"Host": "evil.example"}, "unknown_host"), ({"Origin": OTHER, "Sec-Fetch-Site": "cross-site"}, "other_origin")],
)
@pytest.mark.parametrize("texts", [ENGLISH, JAPANESE], ids=lambda texts: texts.language)
@pytest.mark.parametrize("path", ["/", "/?part=results"])
def test_who_asks_for_the_page_is_refused_in_words_and_told_nothing_of_the_model(client, headers, code, texts, path):
    answer = client.post(path, files=files(encoded()), headers={**headers, "Accept-Language": texts.language})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert texts.refusals[code] in html.unescape(answer.text)
    assert answer.text.startswith("<!doctype html>") is (path == "/")
    assert 'id="results"' in answer.text  # what the page's script puts on the page
    assert not {"tiny", "ant", "<form"} & set(re.findall(r"<form|\w+", answer.text))


def test_all_that_a_request_could_match_can_be_allowed():
    origins = ("*", "null", OURS, "http://gpu7:8000", "http://[::1]:8000", "chrome-extension://abc")
    Access(allow_origin=origins, allow_host=("*", "gpu7", "gpu7.example.org", "10.0.0.1"))
    for refused in ({"allow_origin": ("https://Example.org",)}, {"allow_host": ("gpu7.",)}, {"allow_host": ("",)}):
        with pytest.raises(ValueError, match="such as"):
            Access(**refused)


@given(st.text("localhst.:@[]/127é \t"))
def test_no_other_text_passes_for_a_name(host):
    local = host.lower().rstrip(".").partition(":")[0] in ("localhost",) or host[:1] in "0123456789["
    try:
        check_host({"host": host}, ["localhost"])
    except RefusedRequestError:
        return
    assert local


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": OTHER, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Origin": OTHER},
        {"Origin": "null"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site", **LINK},  # a form
    ],
)
def test_pages_of_other_origins_are_refused(client, headers):
    for answer in (
        client.post("/v1/predict", content=encoded(), headers=headers),
        client.options("/v1/predict", headers={"Access-Control-Request-Method": "POST", **headers}),
    ):
        assert "--allow-origin" in checked_error(answer, 403, "other_origin")
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Sec-Fetch-Site": "none", **LINK},
        {"Origin": OURS, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:80", "Host": "127.0.0.1:80"},
        {},
    ],
)
def test_its_own_page_programs_and_origins_that_are_let_in_are_answered(client, headers):
    assert client.post("/v1/predict", content=encoded(), headers=headers).status_code == 200


def test_a_link_from_another_page_is_followed():
    check_origin(
        "GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, ()
    )
    framed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    with pytest.raises(RefusedRequestError):
        check_origin("GET", framed, ())


def test_all_may_be_let_in():
    check_origin("POST", {"origin": OTHER, "sec-fetch-site": "cross-site"}, ["*"])
    check_host({"host": "x"}, ["localhost", "*"])
    check_host({"host": "x"}, [])


def test_what_only_this_machine_reaches():
    assert all(map(_is_local, ("127.0.0.1", "127.0.0.9", "::1", "localhost")))
    assert not any(map(_is_local, ("0.0.0.0", "::", "10.0.0.1", "gpu7.example")))
