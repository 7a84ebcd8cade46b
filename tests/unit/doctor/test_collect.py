"""Facts of a small host made of files, of a hostile one, and of this machine."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.doctor.collect import MAX_FILES, collect
from deckard_deploy.doctor.facts import Folder, HostFacts, HostMemory, Port, TokenFile
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.judge import RULES, evaluate_rules
from deckard_deploy.doctor.target import Folders, Target, Weights, target_for_plan
from deckard_deploy.planning.planner import build_plan
from tests.support.rule_cases import ANY, SPARK

MEMINFO = """\
MemTotal:       127601452 kB
MemFree:        116069580 kB
MemAvailable:   118552366 kB
SwapTotal:      16777212 kB
SwapFree:       16777212 kB
HugePages_Total:       0
"""
PRESSURE = "some avg10=0.31 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n"


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def collect_facts(target: Target, host: Host, **options: bool) -> HostFacts:
    return collect(target, host, port_problem=lambda address, port: None, **options)  # noqa: ARG005  a free port


def test_facts_are_read_from_files_of_a_spark(host: Host, root: Path, program):
    program("uname", "echo aarch64")
    files = {
        "/proc/meminfo": MEMINFO,
        "/proc/pressure/memory": PRESSURE,
        "/proc/sys/vm/min_free_kbytes": "67584\n",
        "/proc/sys/kernel/osrelease": "6.17.0-1008-nvidia\n",
        "/proc/uptime": "6816.42 12000.1\n",
        "/sys/class/dmi/id/product_name": "NVIDIA_DGX_Spark\n",
        "/etc/cdi/nvidia.yaml": "",
        "/etc/cdi/nvidia.txt": "",
        "/var/run/cdi/other.yaml": "",
    }
    write_files(root, files)
    facts = collect_facts(ANY, host)
    assert facts.memory == HostMemory(
        total_kib=127601452,
        free_kib=116069580,
        available_kib=118552366,
        swap_total_kib=16777212,
        swap_free_kib=16777212,
        min_free_kib=67584,
        pressure_full_avg10=0.25,
    )
    assert (facts.architecture, facts.kernel, facts.product) == (
        "aarch64",
        "6.17.0-1008-nvidia",
        "NVIDIA_DGX_Spark",
    )
    assert (facts.uptime_s, facts.bios, facts.cdi_specs) == (6816, None, ("nvidia.yaml",))


def test_parts_of_a_plain_process_are_read(host: Host, root: Path, program):
    numa = Target(
        folders=Folders(weights=Path("/"), caches=()), needs_docker=False, libraries={"libnuma.so.1": "x"}
    )
    assert collect_facts(numa, host).libraries == ()
    write_files(root, {"/usr/lib/x86_64-linux-gnu/libnuma.so.1": ""})
    program("nginx", "exit 0")
    facts = collect_facts(numa, host)
    assert (facts.libraries, facts.nginx) == (("libnuma.so.1",), True)
    assert collect_facts(ANY, host).libraries is None


def test_gpus_without_a_driver_are_counted_on_the_bus(host: Host, root: Path):
    assert collect_facts(ANY, host).nvidia_devices is None
    devices = {"0": ("0x10de", "0x030200"), "1": ("0x10de", "0x040300"), "2": ("0x8086", "0x030000")}
    for name, (vendor, kind) in devices.items():
        folder = f"/sys/bus/pci/devices/{name}"
        write_files(root, {f"{folder}/vendor": f"{vendor}\n", f"{folder}/class": f"{kind}\n"})
    write_files(root, {"/sys/module/nvidia/version": "580.95.05\n", "/sys/module/nouveau/x": ""})
    facts = collect_facts(ANY, host)
    assert (facts.nvidia_devices, facts.driver_module, facts.nouveau) == (1, "580.95.05", True)


def test_both_forms_of_no_proxy_are_read(host: Host):
    environment = {
        **host.environment,
        "http_proxy": "http://p",
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "localhost",
    }
    facts = collect_facts(ANY, replace(host, environment=environment))
    assert (facts.proxies, facts.no_proxy, facts.no_proxy_upper) == (
        ("http_proxy",),
        "127.0.0.1",
        "localhost",
    )
    environment = {**host.environment, "NO_PROXY": "127.0.0.1"}
    facts = collect_facts(ANY, replace(host, environment=environment))
    assert (facts.no_proxy, facts.no_proxy_upper) == ("127.0.0.1", None)


def test_empty_host_has_no_facts_and_no_fails(host: Host):
    facts = collect_facts(ANY, host)
    assert (facts.memory, facts.architecture, facts.gpus, facts.kernel) == (None, None, (), None)
    assert {finding.severity for finding in evaluate_rules(facts, ANY)} <= {"ok", "info", "warn"}


PROGRAMS = ("uname", "nvidia-smi", "docker", "journalctl", "dmesg", "systemctl", "timedatectl")
HOSTILE = {
    "garbage": r"printf '\000\377{[,:\n%s\n' \"$*\"",
    "huge": "yes '0, , , , , , , , , , ' | head -c 9000000",
    "failing": "echo Segmentation fault >&2; exit 139",
    "json of something else": """echo '{"Runtimes": 3, "Config": [], "ServerVersion": {}}'""",
    "numbers too large": "echo '99999999999999999999, a, 9.9, 9, 999999999999999999999, 1, 1, 1, 1, P0, 1'",
    "silent": "exit 0",
}


@pytest.mark.slow
@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_hostile_programs_and_files_are_survived(host: Host, root: Path, program, script: str):
    for name in PROGRAMS:
        program(name, script)
    write_files(
        root,
        {
            "/proc/meminfo": "MemTotal: many kB\nMemFree: 1 kB\n\x00",
            "/proc/uptime": "½",
            "/proc/sys/vm/min_free_kbytes": "9" * 5000,
            "/proc/pressure/memory": "full avg10=nan",
            "/proc/sys/kernel/osrelease": "x" * 5000,
        },
    )
    facts = collect_facts(SPARK, host)
    assert HostFacts.model_validate_json(facts.model_dump_json()) == facts
    assert facts.memory is None
    assert facts.gpus == () or all(gpu.driver is None or len(gpu.driver) < 60 for gpu in facts.gpus)
    for finding in evaluate_rules(facts, SPARK):
        assert len(finding.what) < 500
        assert finding.what.isprintable()


def test_hanging_programs_are_reported_as_problems(host: Host, program):
    for name in PROGRAMS:
        program(name, "sleep 600")
    facts = collect_facts(SPARK, replace(host, timeout_s=0.2))
    assert facts.gpu_problem == "nvidia-smi did not answer within 0.2 s"
    assert facts.docker is not None
    assert facts.docker.problem == "docker did not answer within 0.2 s"


def make_model(folder: Path, **files: str) -> Target:
    weights = Weights(model="m", folder=folder, size_gb=1.0, repo="a/m")
    write_files(
        folder, {"config.json": "{}", **{name.replace("__", "."): text for name, text in files.items()}}
    )
    return replace(SPARK, weights=(weights,), folders=Folders(weights=folder, caches=()))


def test_complete_checkpoint_has_no_problems(host: Host, tmp_path: Path):
    target = make_model(
        tmp_path / "m",
        model__safetensors="weights",
        hf_quant_config__json='{"quantization":{"quant_algo":"NVFP4_AWQ"}}',
    )
    (found,) = collect_facts(target, host).checkpoints
    assert (found.missing, found.pointers, found.outside, found.quant_algo) == ((), (), (), "NVFP4_AWQ")
    assert found.size_bytes == sum(path.stat().st_size for path in (tmp_path / "m").iterdir())


def test_incomplete_checkpoint_names_its_files(host: Host, tmp_path: Path):
    shards = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "three.safetensors"}}
    target = make_model(
        tmp_path / "m", two__safetensors="", tokenizer__json="version https://git-lfs.github.com/spec/v1\n"
    )
    folder = tmp_path / "m"
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    (tmp_path / "elsewhere").write_text("weights")
    (folder / "three.safetensors").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to("circle")
    (found,) = collect_facts(target, host).checkpoints
    assert found.missing == ("one.safetensors", "two.safetensors")
    assert found.pointers == ("tokenizer.json",)
    assert found.outside == ("three.safetensors",)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": []}', "\x00", "[" * 100_000])
def test_invalid_index_means_one_weights_file(host: Host, tmp_path: Path, text: str):
    target = make_model(tmp_path / "m", model__safetensors__index__json=text, hf_quant_config__json=text)
    (found,) = collect_facts(target, host).checkpoints
    assert (found.missing, found.quant_algo) == (("model.safetensors",), None)


def test_caches_disks_port_and_token_are_read(host: Host, tmp_path: Path):
    caches = tmp_path / "cache"
    write_files(caches, {"a/b": "12345", "c": "678"})
    write_files(tmp_path / "home/.cache/huggingface", {"token": "a secret"})
    (tmp_path / "home/.cache/huggingface/token").chmod(0o640)
    target = replace(SPARK, folders=Folders(weights=tmp_path / "not/yet", caches=(caches, tmp_path / "none")))
    facts = collect(target, host, port_problem=lambda address, port: f"{address}:{port} is busy")
    assert facts.cache_folders == (
        Folder(path=str(caches), writable=True, owner_uid=os.getuid(), size_bytes=8),
    )
    assert [(disk.purpose, disk.path) for disk in facts.disks][:2] == [
        ("weights", str(tmp_path)),
        ("caches", str(caches)),
    ]
    assert facts.disks[0].device == tmp_path.stat().st_dev
    assert facts.port == Port(address="127.0.0.1", port=8000, problem="127.0.0.1:8000 is busy")
    assert facts.token_file == TokenFile(path=str(tmp_path / "home/.cache/huggingface/token"), mode=0o640)
    assert "a secret" not in facts.model_dump_json()


def test_cache_with_too_many_files_has_no_size(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert MAX_FILES > 1000
    monkeypatch.setattr("deckard_deploy.doctor.collect.MAX_FILES", 1)
    write_files(tmp_path / "cache", {"a": "1", "b": "2"})
    (found,) = collect_facts(
        replace(ANY, folders=Folders(weights=tmp_path, caches=(tmp_path / "cache",))), host
    ).cache_folders
    assert found.size_bytes is None


def test_proxies_are_read_by_name_only(host: Host):
    environment = {
        **host.environment,
        "https_proxy": "http://user:secret@proxy:3128",
        "NO_PROXY": "localhost",
    }
    facts = collect_facts(ANY, replace(host, environment=environment))
    assert (facts.proxies, facts.no_proxy) == (("https_proxy",), "localhost")
    assert "secret" not in facts.model_dump_json()


def test_quick_reads_all_facts_that_can_stop_up(host: Host, root: Path, program):
    """The same fails, quick or not: a rule that stops `up` must not rest on a fact that quick leaves out."""
    program("uname", "echo x86_64")
    program("nvidia-smi", "echo '0, NVIDIA GB10, 12.1, 550.1, [N/A], [N/A], 36, 208, 3.00, P8, 0'")
    write_files(root, {"/proc/meminfo": MEMINFO.replace("118552366", "1000000")})
    quick, whole = (
        evaluate_rules(collect_facts(SPARK, host, quick=quick), SPARK, before_up=True)
        for quick in (True, False)
    )
    assert quick == whole
    assert {finding.rule for finding in quick} >= {
        "architecture",
        "driver",
        "memory-available",
        "footprint",
        "docker",
    }


def test_present_weights_need_no_space_before_up(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # An image of 25 GB and 10 GB, not 20 GB more.
    room = SimpleNamespace(f_blocks=1000, f_bavail=45, f_frsize=10**9)
    monkeypatch.setattr("deckard_deploy.doctor.collect.os.statvfs", lambda _: room)
    target = make_model(tmp_path / "m", model__safetensors="")
    target = replace(target, weights=(replace(target.weights[0], size_gb=20.45),))
    os.truncate(tmp_path / "m/model.safetensors", 20_450_000_000)
    for quick in (True, False):
        findings = evaluate_rules(collect_facts(target, host, quick=quick), target, before_up=True)
        assert "disk" not in {finding.rule for finding in findings}


def test_own_launch_line_is_judged_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = library.compatibility("seed")
    resolved = resolve(Deployment(), profile=library.profile(kept.profile), compatibility=kept)
    found = target_for_plan(resolved, build_plan(resolved), models=Path("/srv/deckard/models"))
    assert [each.folder for each in found.weights] == [tmp_path / "models/deckard-31b"]
    assert found.folders == Folders(weights=tmp_path / "models/deckard-31b", caches=())


def test_this_machine_is_read_and_judged():
    """Any machine can be read, without changes, and judged."""
    facts = collect(ANY, Host(environment=dict(os.environ)), port_problem=lambda address, port: None)  # noqa: ARG005
    assert facts.architecture == os.uname().machine
    assert facts.memory is not None
    assert facts.memory.total_kib > facts.memory.available_kib > 0
    assert facts.kernel == os.uname().release
    assert facts.docker is not None
    assert {disk.purpose for disk in facts.disks} >= {"weights"}
    assert HostFacts.model_validate_json(facts.model_dump_json()) == facts
    judged = {finding.rule for finding in evaluate_rules(facts, ANY)}
    assert judged >= {"architecture", "memory-total", "disk", "proxy"}
    assert judged <= {rule.id for rule in RULES}
