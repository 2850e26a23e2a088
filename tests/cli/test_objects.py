from __future__ import annotations

import sys

import pytest

from raybolt.objects import load_object
from raybolt.store.errors import InvalidValue


@pytest.fixture(autouse=True)
def user_folder(tmp_path, monkeypatch):
    """A current folder with the user's modules, forgotten afterwards."""
    (tmp_path / "my_agent.py").write_text(
        "class Team:\n    build = staticmethod(len)\n\ndef build_agent(llm): ...\n"
    )
    (tmp_path / "broken_agent.py").write_text("raise RuntimeError('no key')\n")
    (tmp_path / "needy_agent.py").write_text("import a_module_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("my_agent", "broken_agent", "needy_agent"):
        sys.modules.pop(name, None)


def test_a_name_in_the_current_folder_is_found():
    assert load_object("my_agent:build_agent", option="agent").__name__ == "build_agent"


def test_a_dotted_name_is_followed():
    assert load_object("my_agent:Team.build", option="agent") is len


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_agent", r"agent is 'my_agent'; write package.module:name"),
        ("my_agent:", r"write package.module:name"),
        (":build", r"write package.module:name"),
        ("my_agnet:build_agent", r"there is no module 'my_agnet' \(did you mean 'my_agent'\?\)"),
        ("my_agent.sub:build", r"no module 'my_agent.sub'"),
        ("my_agent:build_agnet", r"my_agent has no 'build_agnet' \(did you mean 'build_agent'\?\)"),
        ("broken_agent:build", r"importing broken_agent failed: RuntimeError: no key"),
        ("needy_agent:build", r"importing needy_agent failed: No module named 'a_module_nobody_has'"),
    ],
)
def test_what_cannot_be_found_is_said(spec, message):
    with pytest.raises(InvalidValue, match=message):
        load_object(spec, option="agent")
