"""Time one engine in the 31B's shapes directly and through the gateway and the filter of requests, in turns.

The engine is `vllm serve` with random weights and without a drafter. It listens on a socket, as behind the gateway of
plain processes. Directly: a client of that socket, around the filter (switched_filter.py). Through the gateway: a
client of nginx, with a key, and the filter in the engine. A run is --streams streamed completions at the same time.

Where packages can be downloaded (Debian 12, pip): the archive of nginx, the libraries that it needs, and httptools, by
which vLLM's server reads HTTP where it is installed with its dependencies:

    python3 -m validation.gpu.validate_gateway prepare WORKDIR ARCHIVE

On an sm_90 machine with PyTorch, from the repository's root, with this archive unpacked in NGINX, bundle.py's in SITE:

    python3 -m validation.gpu.validate_gateway run --site SITE --nginx NGINX --out DIR [--seconds 240] [--layers 60]

`run` prints the table too; again: `python -m validation.gpu.validate_gateway table DIR/gateway.json`. Without a GPU, by
a Python that has vLLM's CPU build, `run --cpu` checks all but the figures. Without --nginx the system's nginx runs.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NGINX_PACKAGES = ("nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g")
MODEL, PORT = "gateway-31b", 18990
PROMPT = 128  # tokens
SWITCH = "x-without-filter"  # switched_filter.py
DIRECT, GATEWAY = "direct", "through nginx and the filter"


def prepare(work: Path, archive: Path) -> None:
    """Download Debian's packages and httptools, and write the archive."""
    shutil.rmtree(work, ignore_errors=True)
    packages, unpacked, found = work / "packages", work / "unpacked", work / "nginx"
    for folder in (packages, unpacked, found / "lib"):
        folder.mkdir(parents=True)
    subprocess.run(["apt-get", "download", *NGINX_PACKAGES], cwd=packages, check=True)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
    shutil.copy(unpacked / "usr/sbin/nginx", found)
    for library in unpacked.glob("**/x86_64-linux-gnu/*.so*"):
        if library.is_file():  # the links too: each under the name that is asked for
            shutil.copy(library, found / "lib")
    python = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    python += ["--python-version", "3.12", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"]
    python += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64"]
    subprocess.run([*python, "--target", found / "python", "httptools==0.9.0"], check=True)
    (found / "packages").write_text("".join(f"{path.name}\n" for path in sorted(packages.glob("*.deb"))))
    archive.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-C", found, "-I", "xz -T0 -6", "-cf", archive, "."], check=True)


def nginx_command(folder: Path | None) -> list[str]:
    """Return the command of the unpacked nginx, which needs no library of this machine; or the system's."""
    if folder is None:
        found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        return [found or sys.exit("error: nginx is not installed: give --nginx NGINX")]
    folder = folder.resolve()
    return [
        str(folder / "lib/ld-linux-x86-64.so.2"),
        "--library-path",
        str(folder / "lib"),
        str(folder / "nginx"),
    ]


def write_model(folder: Path, args: argparse.Namespace) -> None:
    from validation.gpu import random_weights  # noqa: PLC0415  needs torch

    shape = "small" if args.cpu else "31b"
    random_weights.SHAPES[shape]["num_hidden_layers"] = args.layers
    random_weights.write_config(folder, shape, None if args.format == "BF16" else args.format)
    random_weights.write_tokenizer(folder)


def use_random_weights() -> None:
    """Let --load-format dummy fill with those of random_weights.py; a plugin of vLLM, for the engine's process."""
    from vllm.model_executor.model_loader.dummy_loader import (  # type: ignore[import-not-found]  # noqa: PLC0415
        DummyModelLoader,
    )

    from validation.gpu import random_weights  # noqa: PLC0415  needs torch

    DummyModelLoader.load_weights = lambda _, model, config: random_weights.fill(model, config)


def serve_arguments(args: argparse.Namespace) -> list[str]:
    chosen = ["--served-model-name", MODEL, "--load-format", "dummy", "--max-num-seqs", str(args.streams)]
    chosen += ["--max-model-len", str(PROMPT + args.tokens + 64), "--middleware"]
    chosen += ["validation.gpu.switched_filter.SwitchedFilter"]
    if args.cpu:
        return [*chosen, "--enforce-eager"]
    # Capturing the graphs of all sizes takes long; the batch of a run has the size of its streams.
    graphs = {"cudagraph_capture_sizes": [1, 2, 4, 8, args.streams]}
    chosen += ["--kv-cache-memory-bytes", str(24 << 30), "--max-num-batched-tokens", "8192"]
    return [*chosen, "--compilation-config", json.dumps(graphs)]


def engine_environment(args: argparse.Namespace, work: Path) -> dict[str, str]:
    from deckard_deploy.patching import plugin  # noqa: PLC0415  with the engine's packages only

    info = work / "plugin/random_weights-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: random-weights\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nrandom_weights = validation.gpu.validate_gateway:use_random_weights\n"
    )
    wheel = plugin.build(plugin.NAME, work / plugin.WHEEL)
    carried = [args.site, args.nginx and args.nginx / "python"]
    paths = [wheel, work / "plugin", ROOT, ROOT / "plugins/request-filter", *filter(None, carried)]
    path = os.pathsep.join([*(str(path.resolve()) for path in paths), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    env |= {"VLLM_CACHE_ROOT": str(work / "cache"), "OMP_NUM_THREADS": "2"}
    if args.cpu:
        return env | {"TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return env | {
        "CUDA_VISIBLE_DEVICES": "0",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }  # FlashInfer is not carried


@contextmanager
def running(argv: Sequence[str], log: Path, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program whose processes are gone in the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write_gateway(work: Path) -> tuple[Path, Path, str]:
    """Write the gateway's files as the tool does. Return the deployment's folder, nginx.conf and a client's key."""
    from deckard_deploy.catalog import library  # noqa: PLC0415  with the engine's packages only
    from deckard_deploy.catalog.resolution import resolve  # noqa: PLC0415  same
    from deckard_deploy.catalog.specs import Deployment, Publish  # noqa: PLC0415  same
    from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan  # noqa: PLC0415  same
    from deckard_deploy.rendering.gateway import render_gateway  # noqa: PLC0415  same
    from deckard_deploy.running.gateway.keys import Keys  # noqa: PLC0415  same

    choice = Deployment(name="gpu", publish=Publish(expose="127.0.0.1", port=PORT, tls=False))
    paths = DEFAULT_PATHS._replace(
        deployments=PurePosixPath(work / "deployments"), nginx=PurePosixPath("nginx")
    )
    plan = build_plan(resolve(choice, profile=library.profile("cpu")), paths)
    folder, keys = work / "deployments/gpu", Keys(work)
    release = folder / "releases/1"
    (folder / "gateway").mkdir(parents=True)
    release.mkdir(parents=True)
    with keys.lock():
        key = keys.add("bench")
        (folder / "gateway/access.conf").write_text(keys.access())
    (release / "nginx.conf").write_text(render_gateway(plan))
    return folder, release / "nginx.conf", key


class Side:
    """A way to the engine: its socket or nginx's port, and the header of a request."""

    def __init__(self, socket: Path | None, header: str) -> None:
        self.socket, self.header = socket, header

    async def stream(self, prompt: str, tokens: int) -> list[float]:
        """Return when each chunk of one completion came, in seconds since its start."""
        body = {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        content = json.dumps(body | {"temperature": 0}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{self.header}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        if self.socket:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        started, times, last = time.perf_counter(), [], b""
        writer.write(head.encode() + content)
        while b"data: [DONE]" not in (event := await reader.readuntil(b"\n\n")):
            times.append(time.perf_counter() - started)
            last = event
        writer.close()
        if b'"finish_reason":"length"' not in last:
            raise RuntimeError(f"a stream did not end at its length: {last[:500]!r}")
        return times


async def run_streams(side: Side, streams: int, tokens: int) -> dict[str, float]:
    """Run all streams at the same time. Their prompts are those of each run: the prefix cache has them."""
    draw = random.Random(1)
    prompts = [" ".join(f"w{draw.randrange(10, 262144)}" for _ in range(PROMPT)) for _ in range(streams)]
    started = time.perf_counter()
    found = await asyncio.gather(*(side.stream(prompt, tokens) for prompt in prompts))
    took = time.perf_counter() - started
    gaps = [after - before for times in found for before, after in pairwise(times)]
    return {
        "tok_s": streams * tokens / took,
        "first_ms": 1e3 * median(times[0] for times in found),
        "gap_p99_ms": 1e3 * quantiles(gaps, n=100)[98],
        "chunks": sum(map(len, found)),
    }


def await_engine(engine: "subprocess.Popen[bytes]", socket: Path, deadline: float) -> None:
    """Wait until the engine answers on its socket."""

    async def answers() -> bool:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status = await reader.readline()
        writer.close()
        return b" 200 " in status

    while time.monotonic() < deadline:
        if engine.poll() is not None:
            sys.exit(f"error: the engine ended with {engine.returncode}: see engine.log")
        try:
            if asyncio.run(answers()):
                return
        except OSError:
            time.sleep(0.5)
    sys.exit("error: the engine was not ready in time: see engine.log")


def take_turns(
    sides: dict[str, Side], args: argparse.Namespace, deadline: float, found: dict[str, Any]
) -> None:
    """Measure both sides in turn until the time is over; the first turn warms up. Write what is known after each."""
    turn, longest = 0, 0.0
    while time.monotonic() + longest < deadline:
        started = time.monotonic()
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            result = asyncio.run(run_streams(sides[name], args.streams, args.tokens))
            if turn:
                found["sides"][name].append(result)
        longest = max(longest, time.monotonic() - started)
        turn += 1
        (args.out / "gateway.json").write_text(json.dumps(found, indent=1))


def run(args: argparse.Namespace, work: Path) -> None:
    started = time.monotonic()
    deadline = started + args.seconds
    write_model(work / "model", args)
    env = engine_environment(args, work)
    folder, config, key = write_gateway(work)
    socket = folder / "vllm.sock"
    argv = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(work / "model")]
    argv += ["--uds", str(socket), *serve_arguments(args)]
    program = [*nginx_command(args.nginx), "-p", str(folder), "-e", "stderr", "-c", str(config)]
    program += ["-g", "user root;"] if os.geteuid() == 0 else []
    sides = {DIRECT: Side(socket, f"{SWITCH}: 1"), GATEWAY: Side(None, f"Authorization: Bearer {key}")}
    found: dict[str, Any] = {"streams": args.streams, "tokens": args.tokens, "layers": args.layers}
    found |= {"format": args.format, "sides": {name: [] for name in sides}}
    with (
        running(argv, args.out / "engine.log", cwd=ROOT, env=env) as engine,
        running(program, args.out / "nginx.log", cwd=folder),
    ):
        await_engine(engine, socket, deadline)
        found["ready_s"] = round(time.monotonic() - started, 1)
        print(f"ready after {found['ready_s']} s", flush=True)
        take_turns(sides, args, deadline, found)
        found["requests of the key"] = counted(socket)
        (args.out / "gateway.json").write_text(json.dumps(found, indent=1))


def counted(socket: Path) -> str:
    """Return what the filter has counted: the control that requests through nginx went through the filter alone."""

    async def metrics() -> str:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return text

    lines = asyncio.run(metrics()).splitlines()
    return "; ".join(line for line in lines if line.startswith("deckard_key_requests_total"))


def table(file: Path) -> None:
    """Print the medians of both sides and their ratio; intervals of 99 %, by pairs of the same turn."""
    from validation.gpu.validate_turns import ratio_of  # noqa: PLC0415  with the engine's packages only

    found = json.loads(file.read_text())
    direct, gateway = (found["sides"][name] for name in (DIRECT, GATEWAY))
    print(
        f"{found['format']}, {found['layers']} layers, {found['streams']} streams of {found['tokens']} tokens, ",
        end="",
    )
    print(f"{len(direct)} pairs; counted by the filter: {found.get('requests of the key')}\n")
    print(f"| figure | {DIRECT} | {GATEWAY} | ratio, interval of 99 % |\n| --- | ---: | ---: | --- |")
    if not direct or not gateway:
        print("no pair was measured in time: give more --seconds")
        return
    names = {"tok_s": "tokens a second", "first_ms": "time to the first token, median, ms"}
    names |= {"gap_p99_ms": "between two chunks, 99th percentile, ms", "chunks": "chunks of a run"}
    for name, title in names.items():
        bare, ours = ([each[name] for each in side] for side in (direct, gateway))
        print(f"| {title} | {median(bare):.2f} | {median(ours):.2f} | {ratio_of(bare, ours)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("--site", type=Path, help="the unpacked archive of bundle.py")
    runner.add_argument("--nginx", type=Path, help="the unpacked archive of `prepare`")
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument("--seconds", type=float, default=240)
    runner.add_argument("--streams", type=int, default=16)
    runner.add_argument("--tokens", type=int, default=256)
    runner.add_argument("--layers", type=int, default=60, help="a multiple of 6")
    runner.add_argument("--format", default="NVFP4", help="NVFP4, NVFP4_AWQ or BF16")
    runner.add_argument("--cpu", action="store_true", help="check all but the figures")
    preparer = verbs.add_parser("prepare")
    preparer.add_argument("work", type=Path)
    preparer.add_argument("archive", type=Path)
    verbs.add_parser("table").add_argument("file", type=Path)
    args = parser.parse_args()
    if args.verb == "prepare":
        prepare(args.work.resolve(), args.archive.resolve())
        return
    if args.verb == "table":
        table(args.file)
        return
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left behind
    if args.cpu:
        args.layers, args.format = 6, "BF16"
    if args.site:
        sys.path.insert(0, str(args.site.resolve()))  # pydantic, which the tool's catalog needs, is carried
    with tempfile.TemporaryDirectory() as work:
        run(args, Path(work))
    table(args.out / "gateway.json")


if __name__ == "__main__":
    main()
