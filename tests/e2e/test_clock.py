"""The date jumps by years while a server starts and is watched, for every program that is run meanwhile.

The monotonic clock goes on, as it does when somebody sets the date. (After a jump libfaketime 0.9.10
lets sleeping fail.)
"""

import os
import subprocess
import sys
from pathlib import Path

CLOCK = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long jumped(void) { /* seconds, as the file says right now */
    char text[32] = "";
    int file = open(getenv("JUMPED"), O_RDONLY | O_CLOEXEC);
    if (file < 0 || read(file, text, sizeof text - 1) < 0) abort();
    close(file);
    return atol(text);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, id, at);
    if (id == CLOCK_REALTIME) at->tv_sec += jumped();
    return result;
}
"""
YEAR_S = 31_556_952
JUMPING = """
import sys, time
from pathlib import Path
from deckard_deploy.errors import StartFailedError
from deckard_deploy.running.deploy import DeploymentContext, deploy
from deckard_deploy.running.watch import Canary, Watch
from deckard_deploy.startup.follow import follow
from deckard_deploy.startup.readiness import Outcome, Readiness
from tests.support.fake_deployment import FakeDeployment

def jump(to):
    date.write_text(str(to))
    print(time.gmtime(time.time()).tm_year, flush=True)

def proven(release, runtime):
    jumps = iter((10 * year, -year, 20 * year, 0))  # twice: a line of the log starts the wait anew
    def ask():
        still = next(jumps, None)
        jump(year if still is None else still)
        ready = still is None and release.recorded_launch().launch_id in (fake.names() or [])
        return Readiness(Outcome.READY if ready else Outcome.LOADING)
    follow(runtime, ask, stalled_after_s=60, on_progress=lambda _: None)

date, year = Path(sys.argv[2]), int(sys.argv[3])
fake = FakeDeployment(Path(sys.argv[1]))
plan = fake.plan()
try:
    context = DeploymentContext(
        releases=fake.releases, runtimes={"process": fake.runtime()}, follow=proven, say=lambda _: None
    )
    deploy(context, *fake.stored(plan))
    watch = Watch(fake.deployment, canary=lambda _: Canary(False, "hung", final=True), say=lambda _: None)
    watch.check(context), watch.check(context)
    jump(10 * year)
    try:
        watch.check(context)
        print("restarted a third time")
    except StartFailedError as error:
        print(error.message)
finally:
    fake.end()
"""


def test_clock_jump_keeps_timeouts(tmp_path: Path) -> None:
    library, date = tmp_path / "clock.so", tmp_path / "date"
    date.write_text("0")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", library, "-x", "c", "-"], input=CLOCK, text=True, check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", JUMPING, str(tmp_path), str(date), str(YEAR_S)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LD_PRELOAD": str(library), "JUMPED": str(date)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    years = {int(line) for line in done.stdout.splitlines()[:2]}
    assert max(years) - min(years) > 5, done.stdout  # the dates did jump
    assert "restarted 2 times within an hour, and again: hung" in done.stdout
