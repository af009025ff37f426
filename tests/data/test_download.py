import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pictures import one_line

from lbt.data import download as module
from lbt.data.download import check, download, no_downloads, verified, verify
from lbt.errors import UserError

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()

ANSWERS = {
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nabc",
    "chunk-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    "short": b"HTTP/1.1 200 OK\r\nContent-Length: 10240\r\n\r\n" + CONTENT[:99],
    "garbage": b"SSH-2.0 not http\r\n\r\n",
    "nothing": b"",
    "status": b"HTTP/1.1 not-a-number\r\n\r\n",
    "headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    "long": b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n",
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: ftp://[broken\r\n\r\n",
    "circle": b"HTTP/1.1 302 Found\r\nLocation: /circle\r\n\r\n",
    "404": b"HTTP/1.1 404 Not\r\nContent-Length: 0\r\n\r\n",
    "portal": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>log in</html>\n",
}


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Says nothing."""

    def do_GET(self):
        self.close_connection = True
        answer = ANSWERS.get(self.path[1:], b"HTTP/1.1 200 OK\r\nContent-Length: 10240\r\n\r\n" + CONTENT)
        self.wfile.write(answer)


@pytest.fixture(scope="module")
def server():
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def failure(url, path) -> str:
    with pytest.raises(UserError) as caught:
        download(url, path, MD5, "or else")
    line = one_line(str(caught.value))
    assert line.startswith(f"cannot download {url} (") and line.endswith(f"put the archive at {path}, or else")
    return line


@pytest.mark.parametrize("path", ANSWERS)
def test_whatever_a_server_answers_is_one_line_and_leaves_nothing(server, tmp_path, path):
    failure(f"{server}/{path}", tmp_path / "data.zip")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("url", ["nonsense", "http://[broken/x", "http://127.0.0.1:99999/x", "http://a b/x"])
def test_addresses_that_are_none(tmp_path, url):
    failure(url, tmp_path / "data.zip")
    assert os.listdir(tmp_path) == []


def test_a_server_that_does_not_stop(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 5000)
    assert "more than" in failure(f"{server}/whole", tmp_path / "data.zip")
    assert os.listdir(tmp_path) == []


def test_a_whole_file_is_kept_and_not_fetched_again(server, tmp_path):
    path = tmp_path / "new" / "data.zip"
    download(f"{server}/whole", path, MD5, "")
    download("nonsense", path, MD5, "")
    assert path.read_bytes() == CONTENT == verified(path, MD5)
    assert os.listdir(path.parent) == ["data.zip"]
    verify(path, MD5)


def test_a_folder_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    failure(f"{server}/whole", tmp_path / "file" / "data.zip")


@pytest.mark.parametrize("function", [verify, verified])
def test_what_is_not_the_official_file_is_told(tmp_path, function):
    path = tmp_path / "x"
    for make in (lambda: None, lambda: os.mkfifo(path), lambda: (path.unlink(), path.mkdir())):
        make()
        with pytest.raises(UserError, match=f"^{path} is missing: put the official file there"):
            function(path, MD5)
    path.rmdir()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=f"^{path} is truncated or not the official file .*: mend it$"):
        function(path, MD5, "mend it")


def test_content_is_checked_as_files_are(tmp_path):
    check(CONTENT, tmp_path, MD5)
    with pytest.raises(UserError, match="truncated or not the official file"):
        check(CONTENT + b"x", tmp_path, MD5)


def test_what_is_not_here_is_refused_where_downloads_are_forbidden(tmp_path):
    path = tmp_path / "archive.tar.gz"
    with no_downloads(), pytest.raises(UserError, match=r"archive\.tar\.gz is not here"):
        download("http://127.0.0.1:9/archive.tar.gz", path, "0" * 32, "")
    with pytest.raises(UserError, match="cannot download"):  # allowed again: nobody listens at that port
        download("http://127.0.0.1:9/archive.tar.gz", path, "0" * 32, "")
