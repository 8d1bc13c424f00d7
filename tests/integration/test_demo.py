"""`warpgate demo`: from nothing to a checked file, in a few seconds."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from tests.core.cli.command import run
from tests.core.cli.pseudo import without

SECONDS = 20.0  # "a few seconds", on a busy machine of two cores


async def test_the_demo_as_a_person_sees_it(tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    ended = await run("demo", home=tmp_path / "h", env={"TMPDIR": str(tmp_path)})
    assert asyncio.get_running_loop().time() - began < SECONDS
    assert ended.code == 0, ended.err
    for words in ("a broker", "waits for peers", "connected in", "10.0 MB", "SHA-256", "MB/s", "the race"):
        assert words in ended.err
    rows = [
        row.split()[0] for row in ended.err.splitlines() if row.startswith(" ") and ("=" in row or "━" in row)
    ]
    assert {"signal", "direct"} <= set(rows)  # the timeline
    assert not (tmp_path / "h").exists()  # the person's own identity is not touched
    assert os.listdir(tmp_path) == []


async def test_the_demo_for_programs(tmp_path: Path) -> None:
    ended = await run("demo", "--json", "--size", "3", home=tmp_path)
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["file"]["bytes"] == 3_000_000
    assert len(report["file"]["sha256"]) == 64
    assert report["file"]["bytes_per_second"] > 1_000_000
    assert report["connected"]["transport"] == "tcp"
    assert report["node_a"] != report["node_b"]
    steps = {(event["strategy"], event["step"]) for event in report["trace"]}
    assert {("", "offer"), ("", "answer"), ("direct", "nominate")} <= steps
    assert [event["at"] for event in report["trace"]] == sorted(event["at"] for event in report["trace"])
    assert ended.events[-1] == {"event": "result", "exit_code": 0}


async def test_the_demo_without_rich_and_with_settings_of_ones_own(tmp_path: Path) -> None:
    """What the person has set must not leak into it, be it wrong or right."""
    env = without(tmp_path / "site", "rich") | {
        "WARPGATE_BROKERS": "mqtt://127.0.0.1:1",
        "WARPGATE_STUN": "x.invalid",
    }
    ended = await run("demo", "--size", "1", home=tmp_path / "h", env=env)
    assert ended.code == 0, ended.err
    assert "127.0.0.1:1 " not in ended.err
