"""`kanctl kernel config` on a small tree of its own: what is printed, what is JSON, and which code it ends with."""

import json
import subprocess
import sys

import pytest

from kanctl.cli.kernel.config import ConfigReport, document, rows, summary, verdict
from kanctl.kernel.errors import ConfigUnexplained, DeviceLost
from kanctl.kernel.fleet.fragment import Overlay
from kanctl.kernel.fleet.promise import Loss, Promise
from kanctl.kernel.fleet.resolve import Selection
from kanctl.kernel.fleet.satisfy import Parents
from kanctl.kernel.fragment import Request
from kanctl.kernel.prepare import FleetResult, Prepared
from kanctl.kernel.profile import Profile
from kanctl.kernel.source import SourceTree
from kanctl.kernel.verify import Line, Outcome, Verification


def line(outcome, why="", waiver=""):
    request = Request(symbol="CONFIG_X", value="y", reason="R.", fragment="50-x", line=7)
    return Line(request=request, found="n", outcome=outcome, why=why, waiver=waiver)


def report(tmp_path, *lines, losses=(), forward=()):
    tree = SourceTree(path=tmp_path, version="6.12.117", package=None)
    fleet = FleetResult(
        chosen=Selection(),
        parents=Parents(),
        overlay=Overlay(requests={}, overruled=(), kept_off=()),
        promise=Promise(nodes=("n1",), kept=3, losses=losses, out_of_tree={}),
    )
    prepared = Prepared(
        profile=Profile(name="p", summary="s", fragments=(), gpu=False),
        tree=tree,
        output=tmp_path,
        text="CONFIG_A=y\nCONFIG_B=m\n",
        verification=Verification(version="6.12.117", lines=lines),
        fleet=fleet,
    )
    return ConfigReport(prepared=prepared, forward=forward)


def test_a_line_that_was_not_taken_fails_with_its_place_and_reason(tmp_path):
    error = verdict(report(tmp_path, line(Outcome.DROPPED, "it depends on PCI")))
    assert isinstance(error, ConfigUnexplained)
    assert error.exit_code == 3
    assert "CONFIG_X=y (50-x:7) on 6.12.117: it depends on PCI" in str(error)


def test_a_waived_line_passes_and_is_shown(tmp_path):
    found = report(tmp_path, line(Outcome.DROPPED, "it depends on PCI", "no PCI here"))
    assert rows(found.prepared.verification) == [
        ("CONFIG_X", "y", "dropped: n", "it depends on PCI", "no PCI here"),
    ]
    assert summary(found.prepared.verification, found.prepared.config) == (
        "6.12.117: 1 requested lines, 0 taken, 1 waived, 0 unexplained; 1 built in, 1 modules"
    )


def test_a_line_that_fails_ahead_fails_now(tmp_path):
    ahead = Verification(version="7.3.4", lines=(line(Outcome.RENAMED, "gone since 7.0"),))
    assert "on 7.3.4: gone since 7.0" in str(verdict(report(tmp_path, line(Outcome.TAKEN), forward=(ahead,))))


def test_a_lost_device_fails_by_node_and_device(tmp_path):
    loss = Loss(node="n1", device="/sys/devices/nic", driver="mlx5_core", why="none of CONFIG_MLX5_CORE is on")
    error = verdict(report(tmp_path, losses=(loss,)))
    assert isinstance(error, DeviceLost)
    assert "n1 would lose /sys/devices/nic (mlx5_core)" in str(error)


def test_the_document_has_every_line_and_the_fleet(tmp_path):
    found = document(report(tmp_path, line(Outcome.UNKNOWN, "nearest: CONFIG_Y")))
    assert found["lines"][0]["outcome"] == "unknown"
    assert found["fleet"]["devices_kept"] == 3
    json.dumps(found)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["config", "--profile", "fast"], 2, "none named 'fast'"),
        (["config", "--source", "/nowhere/linux"], 1, "wanted an unpacked kernel tree"),
        (["build", "--profile", "fast"], 2, "none named 'fast'"),
        (["boot-test", "/nowhere"], 2, "wanted a bundle's folder or stock:SERIES"),
        (["modules", "--fleet", "/nowhere.json"], 2, "cannot be read"),
    ],
)
def test_bad_words_end_at_once_with_what_was_wanted(words, code, said):
    done = subprocess.run([sys.executable, "-m", "kanctl.cli", "kernel", *words], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
