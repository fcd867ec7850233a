"""The step that may run on a build node: from a plan folder to packages."""

import json

import pytest

from kanctl.kernel.build import remote
from kanctl.kernel.build.settings import MODULE_KEY
from kanctl.kernel.errors import BuildFailed, SourceUnavailable

pytestmark = pytest.mark.usefixtures("any_tools")


@pytest.fixture
def any_tools(monkeypatch):
    """The tiny tree needs none of the tools that a kernel needs."""
    monkeypatch.setattr("kanctl.kernel.build.compile.require_build_tools", lambda: None)


def keys(folder):
    return [path for path in (folder / remote.KEY, folder / "obj" / MODULE_KEY) if path.exists()]


def test_a_plan_folder_becomes_packages_and_a_result(plan_folder):
    remote.run_plan(plan_folder, lambda _text: None)
    result = json.loads((plan_folder / "result.json").read_text())
    assert sorted(result["packages"]) == ["headers", "image"]
    assert result["modules"] == ["nvme_core"]
    assert result["figures"]["objects"] == 1
    assert keys(plan_folder) == []


def test_a_failure_keeps_objects_and_removes_the_key(plan_folder):
    (plan_folder / "patches").mkdir()
    (plan_folder / "patches/break.patch").write_text("--- /dev/null\n+++ b/broken\n@@ -0,0 +1 @@\n+x\n")
    plan = json.loads((plan_folder / "plan.json").read_text())
    (plan_folder / "plan.json").write_text(json.dumps(plan | {"patches": ["break.patch"]}))
    with pytest.raises(BuildFailed):
        remote.run_plan(plan_folder, lambda _text: None)
    assert (plan_folder / "obj/main.o").is_file()
    assert keys(plan_folder) == []
    assert not (plan_folder / "result.json").exists()


def test_a_damaged_source_is_refused(plan_folder):
    with (plan_folder / "packages/source.deb").open("ab") as file:
        file.write(b"x")
    with pytest.raises(SourceUnavailable, match="checksum"):
        remote.run_plan(plan_folder, lambda _text: None)
    assert keys(plan_folder) == []


def test_another_compiler_is_refused(plan_folder):
    plan = json.loads((plan_folder / "plan.json").read_text())
    (plan_folder / "plan.json").write_text(json.dumps(plan | {"compiler": "gcc 1.0"}))
    with pytest.raises(BuildFailed, match=r"gcc 1\.0"):
        remote.run_plan(plan_folder, lambda _text: None)
