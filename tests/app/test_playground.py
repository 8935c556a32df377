"""The page at /: who gets it, and that it is allowed nothing but this server."""

import re

from starlette.testclient import TestClient

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_gets_the_page_and_other_clients_json(client: TestClient) -> None:
    page, told = client.get("/", headers=BROWSER), client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert told.headers["content-type"] == "application/json" and told.json()["name"] == "bistil"
    assert page.headers["vary"] == told.headers["vary"] == "accept"


def test_every_file_that_the_page_names_is_served_and_nothing_else(client: TestClient) -> None:
    named = re.findall(r'(?:href|src)="(ui/[^"]+)"', client.get("/", headers=BROWSER).text)
    scripts = [name for name in named if name.endswith(".js")]
    for script in scripts:
        found = re.findall(r'from "\./([^"]+)"', client.get(f"/{script}").text)
        scripts += [f"ui/{name}" for name in found if f"ui/{name}" not in scripts]
    assert len(scripts) > 1 and all(client.get(f"/{name}").status_code == 200 for name in {*named, *scripts})
    assert client.get("/ui/playground.py").status_code == client.get("/ui/..%2fmain.py").status_code == 404


def test_the_policy_allows_no_inline_script_and_no_other_host(client: TestClient) -> None:
    page = client.get("/", headers=BROWSER)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert not re.findall(r"https?://| style=| on\w+=|<script>", page.text)


def test_a_file_that_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/ui/style.css")
    again = client.get("/ui/style.css", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
