"""What `Endpoint.parse` refuses."""

from __future__ import annotations

import pytest

from warpgate_core.endpoint import Endpoint
from warpgate_core.errors import InputError


@pytest.mark.parametrize(
    "text",
    [
        "[::1]junk",
        "[::1",
        "[1.2.3.4]:5",
        "[]:5",
        "1.2.3.4:" + "9" * 5_000,
        "1.2.3.4:",
        "[::1]:",
        ":5",
        "host:5",
    ],
)
def test_damaged_text_is_refused_with_or_without_a_default_port(text: str) -> None:
    for default in (None, 3478):
        with pytest.raises(InputError):
            Endpoint.parse(text, default)
