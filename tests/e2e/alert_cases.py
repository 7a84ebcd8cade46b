"""For every alert: series that make it fire, and series that come near and must not."""

from dataclasses import dataclass, field

NAME = "spark"
OF_DEPLOYMENT = f'deployment="{NAME}"'
MINE = f'{OF_DEPLOYMENT},instance="i",job="vllm"'
ENGINE = f'engine="0",{MINE}'


@dataclass(frozen=True)
class AlertCase:
    """Series (promtool's notation, a sample every 15 s), when to look, and the labels of the alert; none: silent."""

    alert: str
    about: str
    series: dict[str, str]
    at: str
    labels: dict[str, str] | None = field(default=None)


def queue(running: str, waiting: str, generated: str, prompt: str) -> dict[str, str]:
    return {
        f"vllm:num_requests_running{{{ENGINE}}}": running,
        f"vllm:num_requests_waiting{{{ENGINE}}}": waiting,
        f"vllm:generation_tokens_total{{{ENGINE}}}": generated,
        f"vllm:prompt_tokens_total{{{ENGINE}}}": prompt,
    }


def cache(used: str, preemptions: str) -> dict[str, str]:
    return {
        f"vllm:kv_cache_usage_perc{{{ENGINE}}}": used,
        f"vllm:num_preemptions_total{{{ENGINE}}}": preemptions,
    }


def drafter(accepted: str, drafted: str, drafts: str) -> dict[str, str]:
    return {
        f"vllm:spec_decode_num_accepted_tokens_total{{{ENGINE}}}": accepted,
        f"vllm:spec_decode_num_draft_tokens_total{{{ENGINE}}}": drafted,
        f"vllm:spec_decode_num_drafts_total{{{ENGINE}}}": drafts,
    }


def first_token(within_1: str, within_20: str) -> dict[str, str]:
    name = "vllm:time_to_first_token_seconds_bucket"
    bounds = {"1.0": within_1, "20.0": within_20, "+Inf": within_20}
    return {f'{name}{{{ENGINE},le="{bound}"}}': values for bound, values in bounds.items()}


def answered(status: str, values: str) -> dict[str, str]:
    return {
        f'http_requests_total{{{MINE},handler="/v1/chat/completions",method="POST",status="{status}"}}': values
    }


def stuck(writing: str, running: str, waiting: str) -> dict[str, str]:
    return {
        f'deckard_gateway_connections_writing{{{OF_DEPLOYMENT},job="gateway"}}': writing,
        f"vllm:num_requests_running{{{ENGINE}}}": running,
        f"vllm:num_requests_waiting{{{ENGINE}}}": waiting,
    }


OPEN = f'deckard_gateway_open{{{OF_DEPLOYMENT},job="gateway"}}'
NGINX_UP = f'up{{{OF_DEPLOYMENT},job="gateway"}}'
PROMPTS = f"vllm:prompt_tokens_total{{{ENGINE}}}"
UP, STARTED = f"up{{{MINE}}}", f"process_start_time_seconds{{{MINE}}}"
FAILED = f'vllm:request_success_total{{{ENGINE},finished_reason="error"}}'
OF_JOB = {"instance": "i", "job": "vllm"}
OF_ENGINE, OF_INSTANCE = {"engine": "0", **OF_JOB}, {"instance": "i"}
CASES = (
    AlertCase("ServerDown", "down for four minutes", {UP: "1x4 0x16"}, "5m", OF_JOB),
    AlertCase("ServerDown", "one scrape missed", {UP: "1x4 0 1x20"}, "2m"),
    AlertCase("ServerDown", "up", {UP: "1x20"}, "5m"),
    AlertCase(
        "ServerDown", "another deployment is down", {UP.replace(NAME, "other"): "0x20", UP: "1x20"}, "5m"
    ),
    AlertCase(
        "RequestsFail", "canaries are answered 500", answered("5xx", "0x4 1x4 2x4 3x4"), "4m", OF_INSTANCE
    ),
    AlertCase("RequestsFail", "the engine gives up requests", {FAILED: "0x8 2x8"}, "4m", OF_INSTANCE),
    AlertCase("RequestsFail", "all are answered", {**answered("2xx", "0+5x20"), FAILED: "0x20"}, "4m"),
    AlertCase("RequestsFail", "errors of long ago", {**answered("5xx", "7x60"), FAILED: "3x60"}, "10m"),
    AlertCase("Stalled", "one waits, no token", queue("1x60", "2x60", "100x60", "50x60"), "10m", OF_ENGINE),
    AlertCase("Stalled", "one waits, tokens come", queue("1x60", "2x60", "100+3x60", "50x60"), "10m"),
    AlertCase("Stalled", "a long prompt is read", queue("1x60", "0x60", "100x60", "50+100x60"), "10m"),
    AlertCase("Stalled", "idle", queue("0x60", "0x60", "100x60", "50x60"), "10m"),
    AlertCase("RequestsStuck", "hangs before the first step", stuck("5x60", "0x60", "0x60"), "10m", {}),
    AlertCase("RequestsStuck", "one rank hangs, the other works", stuck("5x60", "2x60", "0x60"), "10m", {}),
    AlertCase("RequestsStuck", "as many as the engine has", stuck("5x60", "3x60", "1x60"), "10m"),
    AlertCase(
        "RequestsStuck", "busy, between two steps", stuck("9 2 7 1 8x60", "7 0 6 1 7x60", "1x60"), "3m"
    ),
    AlertCase("RequestsStuck", "a burst that is answered", stuck("1x8 9x4 1x60", "0x60", "0x60"), "6m"),
    AlertCase("RequestsStuck", "idle", stuck("1x60", "0x60", "0x60"), "10m"),
    AlertCase("GatewayDown", "down for two minutes", {NGINX_UP: "1x4 0x16"}, "4m", {"job": "gateway"}),
    AlertCase("GatewayDown", "one scrape missed", {NGINX_UP: "1x4 0 1x20"}, "2m"),
    AlertCase("GatewayDown", "the engine is down, not nginx", {NGINX_UP: "1x40", UP: "0x40"}, "8m"),
    AlertCase("GatewayOpen", "keys were needed before", {OPEN: "0x40 1x20"}, "12m", {"job": "gateway"}),
    AlertCase("GatewayOpen", "open from the start", {OPEN: "1x60"}, "12m"),
    AlertCase("GatewayOpen", "a key was made", {OPEN: "1x20 0x40"}, "12m"),
    AlertCase("GatewayOpen", "opened long ago", {OPEN: "0x20 1x300"}, "75m"),
    AlertCase("CacheFull", "full and thrown out", cache("0.97x80", "0+1x80"), "15m", OF_ENGINE),
    AlertCase("CacheFull", "full, nobody thrown out", cache("0.97x80", "4x80"), "15m"),
    AlertCase("CacheFull", "thrown out once, then room", cache("0.97x8 0.3x80", "0+1x8 8x80"), "15m"),
    AlertCase("DrafterSlows", "2 % accepted", drafter("0+1x240", "0+50x240", "0+10x240"), "50m", OF_INSTANCE),
    AlertCase("DrafterSlows", "80 % accepted", drafter("0+40x240", "0+50x240", "0+10x240"), "50m"),
    AlertCase("DrafterSlows", "2 % of a few drafts", drafter("0+0.02x240", "0+1x240", "0+0.2x240"), "50m"),
    AlertCase("FirstTokenSlow", "between 1 and 20 s", first_token("0x120", "0+5x120"), "25m", OF_INSTANCE),
    AlertCase("FirstTokenSlow", "within a second", first_token("0+5x120", "0+5x120"), "25m"),
    AlertCase("FirstTokenSlow", "nobody asks", first_token("9x120", "99x120"), "25m"),
    AlertCase("Restarted", "another process", {STARTED: "100x20 200x20"}, "6m", OF_JOB),
    AlertCase("Restarted", "ranks, which name no process", {PROMPTS: "5+5x20 3+5x20"}, "6m", OF_JOB),
    AlertCase("Restarted", "ranks that go on", {PROMPTS: "5+5x40"}, "6m"),
    AlertCase("Restarted", "the same process", {STARTED: "100x40"}, "6m"),
    AlertCase("Restarted", "another process, long ago", {STARTED: "100x8 200x100"}, "20m"),
)
