"""What makes builds repeatable and kernels distinct: names, times, manifests."""

import json
from pathlib import Path

import pytest

from kanctl.kernel.boot_arguments import fixed_arguments
from kanctl.kernel.build.manifest import FORMAT, check_manifest
from kanctl.kernel.build.package import fix_date
from kanctl.kernel.build.settings import MODULE_KEY, BuildSettings, inputs_digest, local_version
from kanctl.kernel.build.signing import ensure_key
from kanctl.kernel.errors import FragmentInvalid
from kanctl.kernel.fragment import Request

SETTINGS = BuildSettings(version="6.12.117", local_version="-kanctl-lab-1a2b3c", revision=2, epoch_s=1763000000)


def request(symbol, value, reason="R."):
    return Request(symbol=symbol, value=value, reason=reason, fragment="x", line=1)


def test_nothing_of_the_machine_or_the_day_gets_into_a_build():
    environment = SETTINGS.environment()
    assert environment["KBUILD_BUILD_TIMESTAMP"] == "@1763000000"
    assert environment["SOURCE_DATE_EPOCH"] == "1763000000"
    assert environment["KBUILD_BUILD_USER"] == environment["KBUILD_BUILD_HOST"] == "kanctl"
    assert SETTINGS.release == "6.12.117-kanctl-lab-1a2b3c"
    assert SETTINGS.package_version == "6.12.117-2"
    assert SETTINGS.changelog_date() == "Thu, 13 Nov 2025 02:13:20 +0000"


def test_the_key_is_named_relative_to_the_build_so_its_folder_is_not_in_the_kernel():
    assert SETTINGS.fixed_config(signed=True)["CONFIG_MODULE_SIG_KEY"] == f'"{MODULE_KEY}"'
    assert "/" not in MODULE_KEY
    assert "CONFIG_MODULE_SIG_KEY" not in SETTINGS.fixed_config(signed=False)


def test_another_value_source_patch_or_compiler_makes_another_name():
    base = {"CONFIG_A": request("CONFIG_A", "y")}
    facts = {"source": "1", "patches": "2", "compiler": "3"}
    name = inputs_digest(base, facts)
    assert inputs_digest({"CONFIG_A": request("CONFIG_A", "m")}, facts) != name
    for key in facts:
        assert inputs_digest(base, {**facts, key: "other"}) != name
    assert inputs_digest({"CONFIG_A": request("CONFIG_A", "y", "Said otherwise.")}, facts) == name


@pytest.mark.parametrize("profile", ["low-latency", "throughput", "inference", "lab"])
def test_a_kernels_name_fits_into_uname(profile):
    assert len("6.12.117" + local_version(profile, "0" * 64)) < 64


def test_the_changelogs_date_is_replaced_and_nothing_else():
    text = "linux (6.12.117-1) stable; urgency=low\n\n  * Own.\n\n -- kanctl <k@l>  Mon, 23 Nov 2026 12:00:00 +0000\n"
    fixed = fix_date(text, SETTINGS.changelog_date())
    assert fixed.endswith(" -- kanctl <k@l>  Thu, 13 Nov 2025 02:13:20 +0000\n")
    assert fixed.count("\n") == text.count("\n")


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    key = ensure_key(tmp_path / "keys")
    text = key.read_text()
    assert "PRIVATE KEY" in text
    assert "CERTIFICATE" in text
    assert key.stat().st_mode & 0o777 == 0o600
    assert ensure_key(tmp_path / "keys").read_text() == text
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [key.name]


def test_boot_arguments_with_placeholders_are_left_to_the_node():
    arguments = fixed_arguments("low-latency", (6, 12, 117))
    assert "preempt=full" in arguments
    assert not any("{" in argument or argument.startswith(("nohz_full", "hugepages")) for argument in arguments)


def test_boot_arguments_follow_the_kernels_version():
    assert "preempt=none" in fixed_arguments("throughput", (6, 12, 117))
    assert "preempt=lazy" in fixed_arguments("throughput", (7, 3, 4))


def test_what_is_no_manifest_is_refused_by_name():
    with pytest.raises(FragmentInvalid, match=f"the format {FORMAT} in m.json, found list"):
        check_manifest([], Path("m.json"))
    with pytest.raises(FragmentInvalid, match="lacks release"):
        check_manifest(json.loads(f'{{"format": "{FORMAT}"}}'), Path("m.json"))
