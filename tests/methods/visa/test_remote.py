"""The rewriter behind an endpoint, against a local server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.methods.visa.fake import REWARD, SYSTEM
from valign.detect.judge import JudgeError
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.loop import Visa
from valign.methods.visa.remote import RemoteRewriter
from valign.methods.visa.rewriter import Task
from valign.values import Profile

SOURCE = "the train at 9 costs 20"
GOOD = "the safe train at 9 costs 20 so stay safe"


class Server(ThreadingHTTPServer):
    """Answers every question alike, and remembers what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status, self.asked = json.dumps({"text": GOOD}), 200, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        choice = {"message": {"content": self.server.content}, "finish_reason": "stop"}
        payload = json.dumps({"choices": [choice]}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}).start()
    yield running
    running.shutdown()
    running.server_close()


def test_a_server_rewrites_in_the_loop(server):
    visa = Visa(RemoteRewriter(server.url, "m"), REWARD)
    made = visa.rewrite(SOURCE, profile=Profile.of(SYSTEM, security=1))
    assert made.passed and made.text == GOOD
    (asked,) = server.asked
    words = asked["messages"][0]["content"]
    assert SOURCE in words and "wanted +1.0" in words and "JSON" in words
    assert asked["temperature"] == 0 and asked["model"] == "m"


def test_draws_differ_in_their_seeds_and_keep_their_order(server):
    tasks = [Task(f"text {i}", {"power": 1.0}) for i in range(5)]
    assert RemoteRewriter(server.url, "m").rewrite(tasks, temperature=0.7, seed=3) == [GOOD] * 5
    assert len({asked["seed"] for asked in server.asked}) == 5
    assert {asked["temperature"] for asked in server.asked} == {0.7}


def test_what_is_no_rewrite_is_refused(server):
    rewriter = RemoteRewriter(server.url, "m", tries=1)
    server.content = "Sure! Here you are."
    with pytest.raises(RewriteError, match="malformed"):
        rewriter.rewrite([Task(SOURCE, {"power": 1.0})])
    server.status = 404
    with pytest.raises(JudgeError, match="404"):
        rewriter.rewrite([Task(SOURCE, {"power": 1.0})])
    with pytest.raises(JudgeError, match="no endpoint"):
        RemoteRewriter("localhost", "m")
