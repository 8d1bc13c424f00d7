"""The repository's rules for tests hold here too: coroutines run, no task is left, each has its own home."""

from tests.conftest import no_task_is_left, pytest_pyfunc_call, pytest_runtest_makereport, warpgate_home

__all__ = ["no_task_is_left", "pytest_pyfunc_call", "pytest_runtest_makereport", "warpgate_home"]
