"""The facts of the measured machine."""

import json
import os
import platform

from deckard_deploy.operations.bench_host import host_facts


def test_facts_name_no_host_or_user() -> None:
    facts = host_facts()
    assert facts["cpus"] == os.cpu_count()
    assert facts["architecture"] == platform.machine()
    assert platform.node() not in json.dumps(facts)
