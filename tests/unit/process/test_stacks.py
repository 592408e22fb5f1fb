"""The stack in an exit reason: the frames of the user, in Erlang's form."""

from __future__ import annotations

import pytest

from barrel_p2p.process import reasons


@pytest.mark.parametrize(
    ("package", "frames"),
    [("barrel_p2p", []), ("barrel_p2p_shop", [("till", "pay")])],
)
def test_only_our_own_frames_are_left_out(package: str, frames: list[tuple[str, str]]) -> None:
    ours = reasons.__file__.partition("/barrel_p2p/process/")[0]
    shop: dict[str, object] = {}
    exec(compile("def pay(): raise ValueError('broke')", f"{ours}/{package}/till.py", "exec"), shop)
    with pytest.raises(ValueError, match="broke") as error:
        shop["pay"]()  # type: ignore[operator]
    reason, stack = reasons.reason_of(error.value)
    assert reason == ("exception", "ValueError", "broke")
    assert [frame[:2] for frame in stack[: len(stack) - 1]] == frames, "and this file's"


def test_a_file_whose_name_is_no_text_has_its_bytes() -> None:
    shop: dict[str, object] = {}
    exec(compile("def pay(): raise ValueError", "till\udcff.py", "exec"), shop)
    with pytest.raises(ValueError) as error:
        shop["pay"]()  # type: ignore[operator]
    _, [(_, _, _, location), *_] = reasons.reason_of(error.value)
    assert location[0] == ("file", list(b"till\xff.py"))
