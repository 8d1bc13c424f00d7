"""What `docs/testing.md` says of the lab is so, and the terminal commands in it work."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.lab import Nat, sweep
from tests.lab.__main__ import main
from tests.stages import ROOT, STAGES

PAGE = (ROOT / "docs" / "testing.md").read_text()
COMMANDS = re.findall(r"^    uv run python -m tests\.lab (.*)$", PAGE, flags=re.MULTILINE)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(example, "docs/testing.md", "exec"), {})
    assert "192.168.1.2" in capsys.readouterr().out
    assert sweep.remnants(sweep.owner_prefix()) == []


def test_the_table_of_nats_is_the_enum() -> None:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (none|[A-Z]+) \| ([A-Z]+) \|", PAGE, flags=re.MULTILINE)
    assert rows == [
        (nat.slug, nat.behaviour.mapping.name.replace("NONE", "none"), nat.behaviour.filtering.name)
        for nat in Nat
    ]


def test_every_stage_is_described() -> None:
    named = {
        word
        for row in re.findall(r"^\| ([a-z, ]+) \| ", PAGE, flags=re.MULTILINE)
        for word in row.split(", ")
    }
    assert {stage.name for stage in STAGES} <= named


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_work(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    if "--" in words:  # what runs inside is another test's business
        words[words.index("--") + 1 :] = ["sh", "-c", "echo at $WARPGATE_BROKERS"]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert {
        "nats": "symmetric-random",
        "prove": "as it says",
        "run": "at mqtt://203.0.113.11:1883",
        "clean": "",
    }[words[0]] in said


def test_the_commands_exit_code_is_passed_on() -> None:
    assert main(["run", "--brokers", "0", "--", "sh", "-c", "exit 7"]) == 7


def test_a_wrong_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "nonsense"]) == 2
    assert "no NAT is called 'nonsense'" in capsys.readouterr().err


def test_a_program_at_b_ends_with_the_one_at_a() -> None:
    assert main(["run", "--brokers", "0", "--at-b", "sleep 1000", "--", "true"]) == 0
    assert sweep.remnants(sweep.owner_prefix()) == []
