"""The test's end of a `tests.lab.e2e.program` that runs on a machine of the lab.

Synchronous, as all of the lab is: `call` waits for the answer, `begin` gives a future, so that a test can
accept at one end, connect at the other and pull a cable in between.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import Host

__all__ = ["Agent", "AgentError", "Joined", "Started"]

ROOT = Path(__file__).resolve().parents[3]
ANSWER_WITHIN = 90.0  # s; the longest wait in a test is consent's 30
PROGRAM = (sys.executable, "-m", "tests.lab.e2e.program")


class AgentError(Exception):
    """The order ended in an error at the other end.

    Args:
        answer: what was said of it.

    Attributes:
        type: name of the exception.
        text: its message.
        inner: (name, message) of each error inside an exception group.
        seconds: how long it took, if that was measured.
        trace: the steps of a connection that did not come about.
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        error = answer["error"]
        self.type: str = error["type"]
        self.text: str = error["text"]
        self.inner: list[tuple[str, str]] = [(one["type"], one["text"]) for one in error["inner"]]
        self.seconds: float = answer.get("seconds", 0.0)
        self.trace: list[dict[str, Any]] = answer.get("trace", [])
        lines = [f"{self.type}: {self.text} {self.inner} after {self.seconds:.3f} s"]
        lines += ["{at:.3f} {strategy} {step} {phase} {detail}".format_map(step) for step in self.trace]
        super().__init__("\n  ".join(lines))


@dataclass(frozen=True, slots=True)
class Started:
    """A node.

    Args:
        agent: the process that it lives in.
        name: of the node there.
        address: as text.
        key: its public key, in hex.
        node_id: the same for people.
        interfaces, hints: parts of the address.
        seconds: it took to start.
    """

    agent: Agent
    name: str
    address: str
    key: str
    node_id: str
    interfaces: list[dict[str, Any]]
    hints: list[str]
    seconds: float = 0.0

    def call(self, do: str, **arguments: Any) -> Any:
        """An order about this node."""
        return self.agent.call(do, node=self.name, **arguments)

    def begin(self, do: str, **arguments: Any) -> Future[Any]:
        """The same, without waiting."""
        return self.agent.begin(do, node=self.name, **arguments)

    def connect(self, dest: Started | str, **options: Any) -> Joined:
        """`auto_connect` to another node. Raises AgentError."""
        return self.joined(self.begin_connect(dest, **options))

    def accept(self, timeout: float = 20.0) -> Joined:
        """The next pipe that a peer opens. Raises AgentError."""
        return self.joined(self.begin("accept", timeout=timeout))

    def begin_connect(self, dest: Started | str, **options: Any) -> Future[Any]:
        """The same, without waiting; `joined` makes the end of a pipe of it."""
        address = dest if isinstance(dest, str) else dest.address
        return self.begin("connect", dest=address, **options)

    def joined(self, future: Future[Any]) -> Joined:
        """What `begin_connect` or an accept came to. Raises AgentError."""
        return Joined(self.agent, future.result(ANSWER_WITHIN))

    def refreshed(self, do: str = "show") -> Started:
        """The node as it is now; ``settle`` waits until its NATs are known."""
        return Started(self.agent, self.name, **self.call(do), seconds=self.seconds)

    def stop(self) -> float:
        """Close the node; returns the seconds that took."""
        seconds: float = self.call("stop")["seconds"]
        return seconds


class Joined:
    """One end of a pipe.

    Attributes:
        peer: public key in hex.
        seconds: connecting or accepting took.
    """

    def __init__(self, agent: Agent, answer: dict[str, Any]) -> None:
        self.agent = agent
        self.pipe: int = answer["pipe"]
        self.peer: str = answer["peer"]
        self.strategy: str = answer["strategy"]
        self.transport: str = answer["transport"]
        self.kind: str = answer["kind"]
        self.local: tuple[str, int] = (answer["local"][0], answer["local"][1])
        self.remote: tuple[str, int] = (answer["remote"][0], answer["remote"][1])
        self.seconds: float = answer["seconds"]
        self.trace: list[dict[str, Any]] = answer["trace"]

    def __repr__(self) -> str:
        return f"<{self.transport} {self.local} to {self.remote} by {self.strategy}>"

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.remote[0] else 4

    @property
    def tried_first(self) -> int:
        """Family of the first endpoint that this end tried, 4 or 6."""
        tried = (one for one in self.trace if one["step"] in ("dial", "check") and one["phase"] == "started")
        return 6 if next(tried)["detail"].startswith("[") else 4

    @property
    def took_a_stream_if_it_could(self) -> bool:
        """A stream is preferred, but not waited for without end: on a busy machine UDP may be it."""
        proven = (one["detail"] for one in self.trace if (one["step"], one["phase"]) == ("prove", "complete"))
        return self.transport == "tcp" or not any(detail.startswith("tcp") for detail in proven)

    def call(self, do: str, **arguments: Any) -> Any:
        """An order about this pipe."""
        return self.agent.call(do, pipe=self.pipe, **arguments)

    def begin(self, do: str, **arguments: Any) -> Future[Any]:
        """The same, without waiting."""
        return self.agent.begin(do, pipe=self.pipe, **arguments)


class Agent:
    """A process on a machine of the lab, with nodes in it. A context manager.

    Args:
        host: the machine.

    Raises (on entering):
        RuntimeError: the program did not start.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._answers: dict[int, Future[Any]] = {}
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> Self:
        env = self.host.environment(PYTHONPATH=str(ROOT), PYTHONWARNINGS="error")
        self._process = self.host.popen(PROGRAM, env=env, stderr=None)
        self._reader = threading.Thread(target=self._read, name=f"answers of {self.host.name}", daemon=True)
        self._reader.start()
        self._at_start = self.wait_event("ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the program."""
        return self._process.pid

    def start(self, name: str = "node", **config: Any) -> Started:
        """Start a node with this `NodeConfig`; machine and name stand for its key, unless `seed` does."""
        config = {"seed": f"{self.host.name} {name}"} | config
        return Started(self, name, **self.call("start", node=name, **config))

    def call(self, do: str, **arguments: Any) -> Any:
        """Give an order and wait for its answer.

        Raises:
            AgentError: it ended in an error.
        """
        return self.begin(do, **arguments).result(ANSWER_WITHIN)

    def begin(self, do: str, **arguments: Any) -> Future[Any]:
        """Give an order; the future has its answer, or an `AgentError`."""
        answer: Future[Any] = Future()
        with self._lock:
            self._count += 1
            self._answers[self._count] = answer
            order = {"id": self._count, "do": do, **arguments}
        if self._process.stdin is None:
            raise RuntimeError("the program has no standard input")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return answer

    def wait_event(self, event: str, timeout: float = 30.0) -> dict[str, Any]:
        """Wait until the program tells of this; what else it told before is forgotten.

        Raises:
            RuntimeError: it ended, or did not tell in time.
        """
        while True:
            try:
                told = self._events.get(timeout=timeout)
            except queue.Empty:
                raise RuntimeError(f"nothing of {event!r} from {self.host.name} in {timeout} s") from None
            if told["event"] == event:
                return told
            if told["event"] == "gone":
                raise RuntimeError(f"the program on {self.host.name} ended with {self._process.wait()}")

    def kill(self) -> None:
        """End it without a word, as the kernel does when memory runs out."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it politely, which closes its nodes.

        Raises:
            RuntimeError: it did not end by itself within 20 s, and was killed; or it still held tasks or
                descriptors after its nodes were closed.
        """
        if self._process.poll() is not None:
            self._reader.join()
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            told = self.wait_event("closed", 20.0)
            self._process.wait(10.0)
        except (RuntimeError, subprocess.TimeoutExpired):
            self.kill()
            raise
        finally:
            self._reader.join()
        for what in ("tasks", "descriptors"):
            if told[what] > self._at_start[what]:
                raise RuntimeError(
                    f"{told[what]} {what} after closing every node, {self._at_start[what]} before"
                )

    def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("the program has no standard output")
        for line in self._process.stdout:
            answer = json.loads(line)
            if "event" in answer:
                self._events.put(answer)
                continue
            future = self._answers.pop(answer["id"])
            if "error" in answer:
                future.set_exception(AgentError(answer))
            else:
                future.set_result(answer["value"])
        self._events.put({"event": "gone"})
        for future in self._answers.values():
            future.set_exception(RuntimeError(f"the program on {self.host.name} has ended"))
