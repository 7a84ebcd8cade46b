"""Hashes of the patched files in vLLM's releases."""

import hashlib

from deckard_deploy.patching.release_hashes import describe_file, release_hashes, releases_of

SERVING = "vllm/entrypoints/openai/chat_completion/serving.py"


def test_release_of_a_file_is_known_by_hash():
    digest = release_hashes()["0.20.1"][SERVING]
    assert releases_of(SERVING, digest) == ("0.20.1", "0.20.2")
    assert describe_file(SERVING, digest) == "the file of vLLM 0.20.1 or 0.20.2"
    assert "no release that is known" in describe_file(SERVING, hashlib.sha256(b"").hexdigest())
    assert describe_file(
        "vllm/v1/spec_decode/eagle.py", release_hashes()["0.33.0"]["vllm/v1/spec_decode/eagle.py"]
    ) == ("the file of vLLM 0.20.0 up to 0.33.0")
