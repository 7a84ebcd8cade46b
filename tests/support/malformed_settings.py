"""Malformed profiles, overrides and flags: each is exit 2 and one line, writes nothing and opens no socket.

`files` are written into an empty working folder before; `arguments` follow the program's name.
"""

from deckard_deploy.catalog import library
from tests.support.malformed_input import MalformedInput

SPARK = library.source("profiles", "spark")


def _setting(name: str, *settings: str, says: str, profile: str = "spark") -> MalformedInput:
    sets = tuple(word for setting in settings for word in ("--set", setting))
    return MalformedInput(
        id=f"set-{name}", arguments=("render", "command", "--profile", profile, *sets), says=says
    )


def _option(name: str, *options: str, says: str, profile: str = "spark") -> MalformedInput:
    return MalformedInput(
        id=f"option-{name}", arguments=("render", "command", "--profile", profile, *options), says=says
    )


def _file(name: str, text: str | bytes, *, says: str) -> MalformedInput:
    content = text if isinstance(text, bytes) else text.encode()
    return MalformedInput(
        id=f"file-{name}",
        arguments=("render", "command", "-p", "spark"),
        files={"deckard.yaml": content},
        says=says,
    )


def _profile(name: str, text: str | bytes, *, says: str) -> MalformedInput:
    content = text if isinstance(text, bytes) else text.encode()
    return MalformedInput(
        id=f"profile-{name}",
        arguments=("render", "command", "-p", "./mine.yaml"),
        files={"mine.yaml": content},
        says=says,
    )


SETTINGS = (
    _setting("no-equals", "max-num-seqs", says="KEY=VALUE was expected"),
    _setting("no-key", "=4", says="KEY=VALUE was expected"),
    _setting("empty", "", says="KEY=VALUE was expected"),
    _setting("section", "publish=1", says="publish is a section"),
    _setting("typo", "max-num-seqz=4", says="did you mean 'max-num-seqs'?"),
    _setting("unknown", "frobnicate=1", says="has no option --frobnicate"),
    _setting(
        "later-release", "engine=vllm-0.19.1", "linear-backend=auto", says="has no option --linear-backend"
    ),
    _setting("short-option", "q=modelopt", says="has no option --q"),
    _setting("dotted-option", "compilation-config.mode=3", says="has no option --compilation-config.mode"),
    _setting("dashes", "--max-num-seqs=4", says="has no option"),
    _setting("words-for-a-number", "max-num-seqs=four", says="a whole number was expected"),
    _setting("suffix", "max-model-len=64k", says="a whole number was expected"),
    _setting("percent", "gpu-memory-utilization=85%", says="a number was expected"),
    _setting(
        "endless-grace", "container.stop_grace_period_s=9999999999999", says="less than or equal to 1000000"
    ),
    _setting("endless-patience", "startup_timeout_s=9999999999999", says="less than or equal to 1000000"),
    _setting("endless-shm", "container.shm_size=99999999999999999999g", says="a size like 512m or 16g"),
    _setting("too-large", "gpu-memory-utilization=1.5", says="> 0 and <= 1"),
    _setting("zero", "max-num-seqs=0", says=">= 1 was expected"),
    _setting("negative", "max-num-batched-tokens=-1", says=">= 1 was expected"),
    _setting("endless-number", "seed=" + "9" * 5000, says="a whole number was expected"),
    _setting("infinite", "gpu-memory-utilization=.inf", says="a number was expected"),
    _setting("overflow", "gpu-memory-utilization=1e999", says="a number was expected"),
    _setting("yes", "enforce-eager=yes", says="true or false was expected"),
    _setting("bad-choice", "kv-cache-dtype=fp4", "engine=vllm-0.19.1", says="did you mean 'fp8'?"),
    _setting("bad-choice-of-many", "kv-cache-dtype=fp4", says="nvfp4, nvfp4_4over6 was expected"),
    _setting("option-as-value", "chat-template=--api-key=x", says="cannot begin with '-'"),
    _setting("empty-list", "cudagraph-capture-sizes=[]", says="at least one value"),
    _setting("words-in-a-list", "cudagraph-capture-sizes=[one]", says="a whole number was expected"),
    _setting("open-json", 'speculative-config={"method": "ngram"', says="not YAML"),
    _setting("scalar-json", "speculative-config=ngram", says="a mapping or a list was expected"),
    _setting("anchor", "limit-mm-per-prompt={image: &x 1}", says="anchors and aliases"),
    _setting("tag", "limit-mm-per-prompt={image: !!int 1}", says="tag"),
    _setting("deep", "limit-mm-per-prompt=" + "[" * 100, says="nested deeper"),
    _setting("context", "max-model-len=262145", says="more than deckard-31b's 262144 tokens"),
    _setting("no-context", "max-model-len=0", "engine=vllm-0.19.1", says="at least one token"),
    _setting("no-context-of-later-release", "max-model-len=0", says="a value >= 1 was expected"),
    _setting("reserved-key", "api-key=secret", says="serve.api-key cannot be set"),
    _setting("reserved-host", "host=0.0.0.0", says="use publish.address"),
    _setting("reserved-config", "config=/etc/vllm.yaml", says="serve.config cannot be set"),
    _setting("secret", "environment.VLLM_API_KEY=secret", says="it is a secret"),
    _setting("token", "environment.HF_TOKEN=secret", says="it is a secret"),
    _setting("unread-variable", "environment.FOO=1", says="reads the variable FOO"),
    _setting(
        "variable-typo", "environment.VLLM_LOGING_LEVEL=INFO", says="did you mean 'VLLM_LOGGING_LEVEL'?"
    ),
    _setting("variable-name", "environment.1A=1", says="a name of A-Z"),
    _setting("port-zero", "publish.port=0", says="greater than or equal to 1"),
    _setting("port-large", "publish.port=65536", says="less than or equal to 65535"),
    _setting("port-word", "publish.port=http", says="a whole number was expected"),
    _setting("address-name", "publish.address=localhost", says="an IPv4 or IPv6 address"),
    _setting("address-octets", "publish.address=127.0.0.256", says="an IPv4 or IPv6 address"),
    _setting("publish-typo", "publish.prot=8000", says="did you mean 'port'?"),
    _setting("ipc", "container.ipc=hosts", says="'host'"),
    _setting("restart", "container.restart=on-failure:-1", says="on-failure:N was expected"),
    _setting("shm", "container.shm_size=16GB", says="a size like 512m or 16g"),
    _setting("timeout", "startup_timeout_s=0", says="greater than or equal to 1"),
    _setting("name", "name=A B", says="a name of a-z"),
    _setting("name-path", "name=../../etc", says="a name of a-z"),
    _setting("name-long", "name=" + "a" * 64, says="a name of a-z"),
    _setting("newline", "name=a\nb", says="a\\nb"),
    _setting("escape", "name=\x1b[31mred", says="\\x1b[31mred"),
    _setting("image", "image=$(id)", says="an image reference"),
    _setting("drafter-and-config", "drafter=deckard-e4b", "speculative-config={}", says="exclude each other"),
)

OPTIONS = (
    MalformedInput(id="option-no-verb", arguments=("rendr",), says="No such command"),
    MalformedInput(id="option-no-subverb", arguments=("render", "compos"), says="No such command"),
    MalformedInput(
        id="option-show-unknown", arguments=("profiles", "show", "sparc"), says="did you mean 'spark'?"
    ),
    _option("unknown", "--prot", "1", says="--prot"),
    _option("port", "--port", "70000", says="--port"),
    _option("address", "--address", "localhost", says="an IPv4 or IPv6 address"),
    _option("model", "--model", "deckard", says="no model named 'deckard'"),
    _option("model-drafter", "--model", "deckard-e4b", says="is a drafter"),
    _option("drafter", "--drafter", "deckard-31b", says="is not a drafter"),
    _option("engine", "--engine", "vllm", says="no engine named 'vllm'"),
    _option("engine-architecture", "--engine", "aeon-awq", says="is for arm64", profile="b200"),
    _option("engine-model", "--model", "deckard-31b", says="cannot load", profile="cpu"),
    _option("engine-drafter", "--engine", "aeon-awq", "--drafter", "deckard-e4b", says="cannot draft"),
    _option("image", "--image", "Not An Image", says="an image reference"),
    _option("image-quote", "--image", 'a"b', says="image"),
    _option("image-process", "--image", "x/y:1", says="runs without an image", profile="cpu"),
    _option("compat", "--compat", "sead", says="did you mean 'seed'?"),
    _option("compat-profile", "--compat", "seed", says="is for profile 'spark'", profile="b200"),
    _option("compat-port", "--compat", "seed", "--port", "9000", says="keeps its own address"),
    _option("profile", says="did you mean 'spark'?", profile="sparc"),
    _option("profile-path", says="No such file", profile="./nope.yaml"),
    _option("profile-folder", says="not a regular file", profile="/"),
    _option("config", "--config", "nope.yaml", says="No such file"),
    _option("config-folder", "--config", ".", says="not a regular file"),
)

FILES = (
    _file("key-typo", "profil: spark\n", says="deckard.yaml:1: profil: unknown key; did you mean 'profile'?"),
    _file("nested-typo", "publish:\n  prot: 1\n", says="deckard.yaml:2: publish.prot: unknown key"),
    _file("duplicate", "name: a\nname: b\n", says="deckard.yaml:2: name: key given twice"),
    _file("anchor", "serve: &a {}\nenvironment: *a\n", says="deckard.yaml:1: anchors"),
    _file("merge", "<<: {}\n", says="deckard.yaml:1: only plain text"),
    _file("tag", "name: !!python/name:os.system ''\n", says="deckard.yaml:1: tag"),
    _file("bool-word", "serve:\n  enforce-eager: on\n", says="deckard.yaml:2: serve.enforce-eager: 'on'"),
    _file("sexagesimal", "publish:\n  port: 22:22\n", says="deckard.yaml:2: publish.port: '22:22'"),
    _file("hexadecimal", "publish:\n  port: 0x1f90\n", says="'0x1f90' would be read as int"),
    _file("octal", "publish:\n  port: 0644\n", says="'0644' would be read as int"),
    _file("date", "name: 2026-01-01\n", says="would be read as timestamp"),
    _file("tab", "publish:\n\tport: 1\n", says="deckard.yaml:2: not YAML"),
    _file("nul", 'name: "a\\0b"\n', says="a NUL character"),
    _file("control", b"name: \x07\n", says="deckard.yaml:1: not YAML"),
    _file("latin-1", "name: größe\n".encode("latin-1"), says="not UTF-8 text"),
    _file("utf-16", "name: a\n".encode("utf-16"), says="not UTF-8 text"),
    _file("list", "- profile: spark\n", says="a mapping"),
    _file("scalar", "spark\n", says="a mapping"),
    _file("two-documents", "name: a\n---\nname: b\n", says="not YAML"),
    _file("unclosed", "serve: {\n", says="not YAML"),
    _file("deep", "serve: {a: " + "[" * 50 + "]" * 50 + "}\n", says="nested deeper"),
    _file("huge", b"#" * ((1 << 20) + 1), says="at most 1048576"),
    _file("text-port", "publish:\n  port: '8000'\n", says="deckard.yaml:2: publish.port: '8000'"),
    _file(
        "number-variable",
        "environment:\n  OMP_NUM_THREADS: 4\n",
        says="deckard.yaml:2: environment.OMP_NUM_THREADS",
    ),
    _file("null-section", "publish:\n", says="deckard.yaml:1: publish"),
    _file("list-section", "serve: [max-num-seqs]\n", says="deckard.yaml:1: serve"),
    _file("newline-key", '"a\\nb": 1\n', says="a\\nb: unknown key"),
    _file("unknown-option", "serve:\n  max_num_seqs: 4\n", says="did you mean 'max-num-seqs'?"),
    _file("unknown-model", "model: x/y/z\n", says="x/y/z: no such folder"),
    _file("model-with-escape", 'model: "x\\ey"\n', says="deckard.yaml:1: model"),
    _profile("empty", "", says="mine.yaml:1: 'name' is required"),
    _profile(
        "typo",
        SPARK.replace("hardware:", "hardwear:"),
        says="hardwear: unknown key; did you mean 'hardware'?",
    ),
    _profile("no-model", SPARK.replace("model: deckard-31b\n", ""), says="'model' is required"),
    _profile(
        "unknown-model", SPARK.replace("model: deckard-31b", "model: nobody"), says="no model named 'nobody'"
    ),
    _profile("memory", SPARK.replace("memory: unified", "memory: plenty"), says="hardware.memory: 'plenty'"),
    _profile("capability", SPARK.replace('"12.1"', "12.1"), says="hardware.compute_capability: 12.1"),
    _profile("gpus", SPARK.replace("gpu_count: 1", "gpu_count: -1"), says="hardware.gpu_count: -1"),
    _profile(
        "no-memory", SPARK.replace("memory_gib: 121.69", "memory_gib: 0"), says="hardware.memory_gib: 0"
    ),
    _profile(
        "endless-memory",
        SPARK.replace("memory_gib: 121.69", "memory_gib: 1e300"),
        says="hardware.memory_gib: 1e+300",
    ),
    _profile("no-bandwidth", SPARK.replace("gb_s: 273", "gb_s: -3"), says="hardware.bandwidth_gb_s: -3"),
    _profile("option", SPARK.replace("max-num-seqs: 4", "max-num-sequences: 4"), says="has no option"),
    _profile("reserved", SPARK.replace("max-num-seqs: 4", "api-key: x"), says="serve.api-key cannot be set"),
    _profile(
        "variable", SPARK.replace("HF_HUB_OFFLINE", "HF_HUB_OFLINE"), says="did you mean 'HF_HUB_OFFLINE'?"
    ),
    _profile("binary", b"\x7fELF\x02\x01\x01\xff", says="not UTF-8 text"),
)

CASES = (*SETTINGS, *OPTIONS, *FILES)
