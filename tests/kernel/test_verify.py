"""Every requested line ends as taken, forced, dropped, unknown or renamed, with its reason; waivers are by name."""

from pathlib import Path

import pytest

from kanctl.kernel.fragment import Request
from kanctl.kernel.kconfig import KconfigTree
from kanctl.kernel.profile import Waiver
from kanctl.kernel.verify import Outcome, load_renames, verify

TREE = Path(__file__).parent / "tree"


def request(symbol, value="y"):
    return Request(symbol=f"CONFIG_{symbol}", value=value, reason="Test.", fragment="50-test", line=3)


def check(tmp_path, wanted, config, waivers=(), version="6.12.117"):
    """Verify one request against a finished configuration of the small tree."""
    file = tmp_path / ".config"
    file.write_text("".join(f"CONFIG_{name}={value}\n" for name, value in config.items()))
    return verify(
        version,
        {wanted.symbol: wanted},
        {f"CONFIG_{name}": value for name, value in config.items()},
        {waiver.symbol: waiver for waiver in waivers},
        lambda: KconfigTree(TREE, version, file),
        load_renames(),
    )


@pytest.mark.parametrize(
    ("wanted", "config", "outcome", "why"),
    [
        (request("BUS"), {"BUS": "y"}, Outcome.TAKEN, ""),
        (request("BUS", "n"), {}, Outcome.TAKEN, ""),
        (request("DRIVER", "m"), {"BUS": "y"}, Outcome.DROPPED, "it depends on VENDOR"),
        (request("FORCED", "n"), {"FORCED": "y", "SELECTOR": "y"}, Outcome.FORCED, "selected by SELECTOR"),
        (request("FULL"), {"NONE": "y"}, Outcome.FORCED, "of its choice, CONFIG_NONE was taken"),
        (request("CPUS", "8192"), {"CPUS": "512"}, Outcome.FORCED, "its range is 2..512"),
        (request("BUS", "m"), {}, Outcome.DROPPED, "it is a bool: y or n, never m"),
        (request("LONELY"), {}, Outcome.DROPPED, "no question of its own"),
        (request("DRIVR"), {}, Outcome.UNKNOWN, "nearest: CONFIG_DRIVER"),
        (request("XYZZY"), {}, Outcome.UNKNOWN, "none is near"),
        (request("RETPOLINE"), {}, Outcome.RENAMED, "it is CONFIG_MITIGATION_RETPOLINE since 6.9"),
    ],
    ids=lambda value: value.symbol if isinstance(value, Request) else "",
)
def test_each_end_of_a_line_has_its_reason(tmp_path, wanted, config, outcome, why):
    (line,) = check(tmp_path, wanted, config).lines
    assert line.outcome is outcome
    assert why in line.why
    assert line.is_explained == (outcome is Outcome.TAKEN)


def test_a_waiver_explains_a_line_and_an_idle_one_is_named(tmp_path):
    waiver = Waiver(symbol="CONFIG_DRIVER", reason="no such card here")
    waived = check(tmp_path, request("DRIVER", "m"), {}, [waiver])
    assert not waived.unexplained
    assert waived.lines[0].waiver == "no such card here"
    idle = check(tmp_path, request("DRIVER", "m"), {"DRIVER": "m"}, [waiver])
    assert idle.idle_waivers == ("CONFIG_DRIVER",)


def test_the_tree_is_not_parsed_when_every_line_was_taken():
    wanted = request("BUS")

    def fail():
        raise AssertionError("parsing takes seconds and was not needed")

    assert not verify("6.12.117", {wanted.symbol: wanted}, {"CONFIG_BUS": "y"}, {}, fail, {}).unexplained


def test_a_rename_counts_only_from_its_version_on(tmp_path):
    (line,) = check(tmp_path, request("RETPOLINE"), {}, version="6.1.192").lines
    assert line.outcome is Outcome.UNKNOWN
