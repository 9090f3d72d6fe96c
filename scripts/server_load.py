#!/usr/bin/env python3
"""Lets several clients stream from a running `gemma serve`, and says how fast it was.

    scripts/server_load.py http://127.0.0.1:8080 --streams 8 --tokens 128
    scripts/server_load.py http://127.0.0.1:8080 --late 32      # while they run, a prompt of 32 tokens

Tokens a second are those of the time in which all streams ran; beside `gemma bench -b 8` they say what serving costs.
(An event is taken for a token: one that completes no character is not counted.)
`--late` prompts come when all streams have begun: their time to the first token, and the gaps that they make.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
import urllib.parse

NO_STOP = {"1": -100, "106": -100}  # Of Gemma 3: eos and <end_of_turn>.


class Stream(threading.Thread):
    """A request, and when its tokens came."""

    def __init__(self, url: urllib.parse.SplitResult, prompt: list[int], tokens: int) -> None:
        super().__init__()
        self.url, self.prompt, self.tokens = url, prompt, tokens
        self.asked = 0.0
        self.times: list[float] = []
        self.begun = threading.Event()

    def run(self) -> None:
        body = {
            "prompt": self.prompt, "max_tokens": self.tokens, "temperature": 0, "stream": True,
            "logit_bias": NO_STOP,
        }  # fmt: skip
        connection = http.client.HTTPConnection(self.url.hostname or "", self.url.port or 80)
        self.asked = time.perf_counter()
        connection.request(
            "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"status {response.status}: {response.read()!r}")
        for line in response:
            if line.startswith(b'data: {"error"'):
                raise SystemExit(line.decode())
            if line.startswith(b"data: {") and b'"finish_reason":null' in line:
                self.times.append(time.perf_counter())
                self.begun.set()
        connection.close()

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def prompt_of(tokens: int, seed: int) -> list[int]:
    """Always the same ids, in the middle of the vocabulary, and no beginning that others have."""
    return [2, *((7919 * (seed * 100_003 + i)) % 90_000 + 1000 for i in range(tokens - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("url", type=urllib.parse.urlsplit)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--prompt_tokens", type=int, default=32)
    parser.add_argument("--late", type=int, action="append", default=[], metavar="TOKENS")
    parser.add_argument("--seed", type=int, default=0, help="another one: other prompts")
    args = parser.parse_args()

    streams = [
        Stream(args.url, prompt_of(args.prompt_tokens, 1000 * args.seed + i), args.tokens)
        for i in range(args.streams)
    ]
    for stream in streams:
        stream.start()
    for stream in streams:
        stream.begun.wait()
    late = []
    for i, tokens in enumerate(args.late):
        late.append(Stream(args.url, prompt_of(tokens, 1000 * args.seed + 500 + i), 1))
        late[-1].start()
        late[-1].join()
    for stream in streams:
        stream.join()

    begin = max(stream.times[0] for stream in streams)
    end = min(stream.times[-1] for stream in streams)
    together = sum(begin < t <= end for stream in streams for t in stream.times)
    gaps = [gap for stream in streams for gap in stream.gaps]
    print(f"{args.streams} streams: {together / (end - begin):.1f} tokens/s together")
    print(
        f"between tokens: median {1e3 * statistics.median(gaps):.1f} ms, "
        f"99 % {1e3 * percentile(gaps, 99):.1f} ms, most {1e3 * max(gaps):.1f} ms"
    )
    for stream in late:
        first = stream.times[0] - stream.asked
        print(f"a prompt of {len(stream.prompt)} tokens beside them: first token after {first:.3f} s")


if __name__ == "__main__":
    main()
