"""Writes the seeds of request_fuzz: requests, and bodies alone.

    python tests/fuzz/make_request_corpus.py corpus
"""

import json
import pathlib
import sys

BODIES = [
    {"prompt": "The ferry", "max_tokens": 5, "temperature": 0.5, "stop": ["a"], "stream": True},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "é"}]}], "seed": -1},
    {"prompt": [[1, 2], [3]], "logit_bias": {"7": -100, "8": 1e2}, "n": 2, "logprobs": None},
    {"prompt": [999, 1000], "max_tokens": 2**63, "top_p": "x"},
    {"prompt": "a", "echo": True, "logprobs": 2, "max_tokens": 0, "suffix": None, "best_of": 1},
    {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}], "n": 1,
     "instructions": "b", "text": {"format": {"type": "text"}}, "include": ["x"], "tools": []},
    {"input": "a", "max_output_tokens": 4, "truncation": "disabled", "background": False},
    {"input_prefix": "a", "input_suffix": "b", "prompt": "c", "n_predict": -1,
     "input_extra": [{"filename": "d", "text": "e"}]},
]


def requests(body):
    data = json.dumps(body).encode()
    head = b"POST /v1/completions?x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    yield head + b"Content-Length: %d\r\n\r\n" % len(data) + data
    chunks = b"%x;y=z\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (3, data[:3], len(data) - 3, data[3:])
    yield head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    yield head + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for index, body in enumerate(BODIES):
        (folder / f"body_{index}").write_text(json.dumps(body))
        for kind, request in enumerate(requests(body)):
            for piece in (b"\x00", b"\xff"):
                (folder / f"request_{index}_{kind}_{piece[0]}").write_bytes(piece + request)


main()
