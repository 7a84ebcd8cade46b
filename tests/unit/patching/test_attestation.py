"""A real Python finds every mistake that keeps it from importing the patched file."""

import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.attestation import attestation_argv, verify_attestation
from deckard_deploy.patching.build import BuiltPatch, build
from tests.support.patch_set import NAMES, NEW, OLD, PatchSetOnDisk

EAGLE, MODELOPT = NAMES["eagle"], NAMES["modelopt"]


class Container:
    """A folder that stands for the inside of a container, with the patched files in place of the mounts."""

    def __init__(self, on_disk: PatchSetOnDisk, folder: Path) -> None:
        self.site = on_disk.package.parent
        self.built = build(on_disk.patch_set, on_disk.base, folder / "built")
        for patch in self.built:
            self.mount(patch.path, patch.target)
        self.path = [self.site]

    def mount(self, source: Path, target: str) -> None:
        self.unmount(target)
        shutil.copyfile(source, self.site / target)

    def unmount(self, target: str) -> None:
        (self.site / target).unlink()

    def attest(self) -> str:
        argv = (sys.executable, *attestation_argv(self.built))
        path = os.pathsep.join(str(entry) for entry in self.path)
        done = subprocess.run(argv, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True)
        return done.stdout


@pytest.fixture
def container(on_disk: PatchSetOnDisk, tmp_path: Path) -> Container:
    return Container(on_disk, tmp_path)


def test_mounted_files_are_attested(container):
    attested = verify_attestation(container.attest(), container.built)
    assert [(one.name, one.sha256) for one in attested] == [
        (patch.name, patch.sha256) for patch in container.built
    ]
    assert attested[0].path == str(container.site / EAGLE)


def test_attestation_imports_nothing(container):
    (container.site / "vllm/__init__.py").write_text("raise SystemExit('imported')\n")
    verify_attestation(container.attest(), container.built)


def test_link_to_patched_file_is_attested(container):
    container.unmount(EAGLE)
    (container.site / EAGLE).symlink_to(container.built[0].path)
    assert verify_attestation(container.attest(), container.built)[0].path == str(container.built[0].path)


def restore_theirs(box: Container) -> None:
    (box.site / EAGLE).write_text(OLD[EAGLE])


def mount_for_another_python(box: Container) -> None:
    restore_theirs(box)
    elsewhere = box.site.parent / "python3.9/site-packages" / EAGLE
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(NEW[EAGLE])


def folder_in_place(box: Container) -> None:
    box.unmount(EAGLE)
    (box.site / EAGLE).mkdir()


def nothing_in_place(box: Container) -> None:
    box.unmount(EAGLE)


def truncated(box: Container) -> None:
    (box.site / EAGLE).write_text(NEW[EAGLE][:-5])


def empty(box: Container) -> None:
    (box.site / EAGLE).write_text("")


def windows_newlines(box: Container) -> None:
    (box.site / EAGLE).write_bytes(NEW[EAGLE].replace("\n", "\r\n").encode())


def swapped(box: Container) -> None:
    box.mount(box.built[0].path, MODELOPT)
    box.mount(box.built[1].path, EAGLE)


def earlier_build(box: Container) -> None:
    # The host's file was replaced after the container started: the mount still shows the old inode.
    (box.site / EAGLE).write_text(NEW[EAGLE].replace("ours", "of last week"))


def dangling_link(box: Container) -> None:
    box.unmount(EAGLE)
    (box.site / EAGLE).symlink_to("/nowhere/eagle.py")


def package_of_the_same_name(box: Container) -> None:
    package = (box.site / EAGLE).with_suffix("")
    package.mkdir()
    (package / "__init__.py").write_text("def propose():\n    return 'shadow'\n")


def another_vllm_before_it(box: Container) -> None:
    other = box.site.parent / "other"
    shutil.copytree(box.site, other)
    (other / EAGLE).write_text(OLD[EAGLE])
    box.path = [other, box.site]


def no_vllm_at_all(box: Container) -> None:
    box.path = []


def namespace_in_place_of_the_package(box: Container) -> None:
    shutil.rmtree(box.site / "vllm/v1")
    (box.site / "vllm/v1/spec_decode").mkdir(parents=True)


def old_bytecode_that_nobody_checks(box: Container) -> None:
    source = box.site / EAGLE
    source.write_text(OLD[EAGLE])
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_text(NEW[EAGLE])


def a_file_nobody_may_read(box: Container) -> None:
    box.unmount(EAGLE)
    os.mkfifo(box.site / EAGLE)


MISTAKES: dict[Callable[[Container], None], str] = {
    restore_theirs: "the original .* is in use, not patch eagle",
    mount_for_another_python: r"the original .* was mounted somewhere else \(Python 3",
    folder_in_place: "no such module, or a folder is in its place",
    nothing_in_place: "cannot be imported by Python 3",
    truncated: "not patch eagle",
    empty: "not patch eagle",
    windows_newlines: "not patch eagle",
    swapped: r"not patch eagle \(and 1 more\)",
    earlier_build: "a file of no release that is known here",
    dangling_link: "cannot be imported",
    package_of_the_same_name: "a package of the same name stands before it",
    another_vllm_before_it: "the original .*/other/",
    no_vllm_at_all: "cannot be imported",
    namespace_in_place_of_the_package: "cannot be imported",
    old_bytecode_that_nobody_checks: "would run the old bytecode",
    a_file_nobody_may_read: "cannot be imported",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_mount_mistakes_are_found(container, mistake):
    mistake(container)
    with pytest.raises(IntegrityError, match=MISTAKES[mistake]) as refused:
        verify_attestation(container.attest(), container.built)
    assert refused.value.exit_code == 4


def test_unchecked_bytecode_wins_over_source(container):
    old_bytecode_that_nobody_checks(container)
    code = "from vllm.v1.spec_decode import eagle; print(eagle.propose())"
    environment = {"PYTHONPATH": str(container.site)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "theirs"


def test_namespace_packages_are_attested(container):
    (container.site / "vllm/v1/__init__.py").unlink()
    (container.site / "vllm/v1/spec_decode/__init__.py").unlink()
    verify_attestation(container.attest(), container.built)


def test_checked_bytecode_is_accepted(container):
    source = container.site / EAGLE
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    assert Path(importlib.util.cache_from_source(str(source))).is_file()
    verify_attestation(container.attest(), container.built)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "\n",
        "Traceback (most recent call last):",
        "null",
        "[]",
        "{}",
        '{"python": [3, 12], "modules": {}}',
        "{" * 10,
    ],
)
def test_invalid_attestation_output_is_refused(container, output):
    with pytest.raises(IntegrityError, match="no attestation was returned"):
        verify_attestation(output, container.built)


def test_output_before_the_answer_is_ignored(container):
    verify_attestation("WARNING: something\n" + container.attest(), container.built)


def test_answer_about_other_modules_is_refused(container):
    answer = json.loads(container.attest())
    answer["modules"] = {name: entry for name, entry in answer["modules"].items() if "eagle" not in name}
    with pytest.raises(IntegrityError):
        verify_attestation(json.dumps(answer), container.built)


def test_empty_build_is_attested():
    assert verify_attestation('{"python": [3, 12], "modules": {}}', ()) == ()


def test_attestation_command_uses_no_shell(container):
    argv = attestation_argv(container.built)
    assert argv[0] == "-c"
    assert argv[2:] == tuple(patch.module for patch in container.built)
    assert isinstance(container.built[0], BuiltPatch)
