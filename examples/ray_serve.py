"""Serves a model from several processes, on one machine or many, behind one address: Ray Serve.

    pip install "ray[serve]"
    python examples/ray_serve.py --ckpt model.ckpt --replicas 2

Each replica is a `gemma serve` of its own, so that all of its paths are there: docs/server.md. Ray
Serve gives a request to a replica that has little to do, and replaces those that fail.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator

import aiohttp
import fastapi
from fastapi.responses import StreamingResponse
from ray import serve

app = fastapi.FastAPI()


@serve.deployment(max_ongoing_requests=160, health_check_period_s=5, graceful_shutdown_timeout_s=40)
@serve.ingress(app)
class Gemma:
    def __init__(self, program: str, ckpt: str, threads: int) -> None:
        command = [program, "serve", "--ckpt", ckpt, "--port", "0", "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()  # It listens before the model is loaded.
        found = re.fullmatch(r"serving \S+ on (http://\S+)\n", line)
        if not found:
            raise RuntimeError(f"{program} serve ended with {self.process.wait()}")
        self.url = found[1]
        self.session: aiohttp.ClientSession | None = None

    def __del__(self) -> None:
        self.process.terminate()
        self.process.wait()

    def connection(self) -> aiohttp.ClientSession:
        """Made in the loop that uses it."""
        if self.session is None:
            timeout = aiohttp.ClientTimeout(total=None)
            self.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=timeout
            )
        return self.session

    async def check_health(self) -> None:
        """Called by Ray Serve; a replica for which it raises is replaced. 503: it is loading."""
        async with self.connection().get(f"{self.url}/health") as answer:
            if answer.status not in (200, 503):
                raise RuntimeError(f"/health answers {answer.status}")

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(self, path: str, request: fastapi.Request) -> StreamingResponse:
        names = ("content-type", "authorization", "x-api-key")
        answer = await self.connection().request(
            request.method,
            f"{self.url}/{path}",
            data=await request.body(),
            headers={name: request.headers[name] for name in names if name in request.headers},
        )

        async def body() -> AsyncIterator[bytes]:
            # A client that goes ends this, and with the connection the text that was for it.
            with contextlib.closing(answer):
                async for part in answer.content.iter_any():
                    yield part

        names = ("content-type", "retry-after", "x-request-id")
        headers = {name: answer.headers[name] for name in names if name in answer.headers}
        return StreamingResponse(body(), status_code=answer.status, headers=headers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", required=True, help="checkpoint, at this path on every machine")
    parser.add_argument("--replicas", type=int, default=2, help="models at work")
    parser.add_argument("--threads", type=int, default=1, help="CPUs of each")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--gemma", default=shutil.which("gemma"), help="the program")
    options = parser.parse_args()
    if options.gemma is None:
        parser.error("the program gemma is not in PATH; name it with --gemma")

    serve.start(http_options={"host": options.host, "port": options.port})
    deployment = Gemma.options(  # type: ignore[attr-defined]
        num_replicas=options.replicas, ray_actor_options={"num_cpus": options.threads}
    )
    replicas = deployment.bind(options.gemma, os.path.abspath(options.ckpt), options.threads)
    serve.run(replicas, blocking=True)


if __name__ == "__main__":
    main()
