"""templates/, patches/ and the catalog are found from a wheel and from an editable install."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHOW = (
    "from deckard_deploy import resources as r; "
    "print(r.PACKAGE); print(sorted(p.name for p in r.templates_dir().glob('*.j2'))); "
    "print(sorted(p.name for p in r.patches_dir().iterdir())); print(len(list(r.catalog_dir().rglob('*.yaml')))); "
    "print((r.PACKAGE / 'py.typed').is_file())"
)


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def from_checkout() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def environment(folder: Path) -> Path:
    """A new environment that sees this one's dependencies, but not this one's deckard_deploy."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # A .pth line adds the folder itself; .pth files inside it, such as an editable install's, are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_every_resource_is_found(tmp_path: Path, from_checkout: list[str], *, editable: bool) -> None:
    python = environment(tmp_path / "venv")
    without = [str(python), "-c", "import deckard_deploy; deckard_deploy.__version__"]
    assert subprocess.run(without, cwd="/", capture_output=True, check=False).returncode
    if editable:
        source = ["--editable", str(REPOSITORY)]
    else:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, REPOSITORY)
        source = list(map(str, tmp_path.glob("*.whl")))
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    )
    run(*pip, *source)
    package, *found = run(python, "-c", SHOW).splitlines()
    assert (str(REPOSITORY) in package) is editable
    assert found == from_checkout[1:]
    assert "deckard-31b" in run(
        tmp_path / "venv" / "bin" / "deckard-deploy", "render", "command", "--profile", "spark"
    )


def test_builds_are_reproducible(tmp_path: Path) -> None:
    """From two folders, at two times: neither a path nor a date gets in (hatchling honours SOURCE_DATE_EPOCH)."""
    built = []
    for name in ("one", "another/place"):
        source = tmp_path / name / "source"
        run("git", "-C", REPOSITORY, "checkout-index", "--all", f"--prefix={source}/")
        out = tmp_path / name / "out"
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
        built.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert len(built[0]) == 2
    assert built[0] == built[1]


PROGRAM = "deckard-deploy"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The two places to install from: a wheel, and the git address of a clone."""
    folder = tmp_path_factory.mktemp("sources")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPOSITORY)
    (wheel,) = folder.glob("*.whl")
    # A commit of its own: the checkout under test may have changes, and a shallow clone cannot be cloned.
    clone = folder / "clone"
    run("git", "-C", REPOSITORY, "checkout-index", "--all", f"--prefix={clone}/")
    run("git", "init", "--quiet", clone)
    run("git", "-C", clone, "add", "--all")
    run(
        "git",
        "-C",
        clone,
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@localhost",
        "commit",
        "--quiet",
        "-m",
        "all",
    )
    return {"wheel": f"{PROGRAM} @ {wheel.as_uri()}", "git": f"git+{clone.as_uri()}"}


def works(program: Path) -> bool:
    return "deckard-31b" in run(program, "render", "command", "--profile", "spark")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["wheel", "git"])
@pytest.mark.parametrize("installer", ["uv", "pip", "pipx"])
def test_program_is_installed_and_removed(
    sources: dict[str, str], installer: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clean environment, with its dependencies from the package index."""
    tools = {"UV_TOOL_DIR": "uv", "UV_TOOL_BIN_DIR": "bin", "PIPX_HOME": "pipx", "PIPX_BIN_DIR": "bin"}
    for name, folder in tools.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    program = tmp_path / "bin" / PROGRAM
    if installer == "uv":
        uv = Path(sys.executable).with_name("uv")
        run(uv, "tool", "install", "--quiet", "--python", sys.executable, sources[source])
        assert works(program)
        run(uv, "tool", "uninstall", "--quiet", PROGRAM)
    elif installer == "pip":
        venv.create(tmp_path, with_pip=True, symlinks=True)
        run(tmp_path / "bin" / "pip", "install", "--quiet", sources[source])
        assert works(program)
        run(tmp_path / "bin" / "pip", "uninstall", "--quiet", "--yes", PROGRAM)
    else:
        venv.create(tmp_path / "own", with_pip=True, symlinks=True)
        run(tmp_path / "own" / "bin" / "pip", "install", "--quiet", "pipx")
        run(tmp_path / "own" / "bin" / "pipx", "install", "--quiet", sources[source])
        assert works(program)
        run(tmp_path / "own" / "bin" / "pipx", "uninstall", PROGRAM)
    assert not program.exists()
