"""From aliases to modules to symbols to the promise, on the index of a small kernel."""

from pathlib import Path

import pytest

from kanctl.kernel.errors import FleetInvalid, SourceUnavailable
from kanctl.kernel.fleet.aliases import AliasTable, module_name
from kanctl.kernel.fleet.fragment import fleet_requests, overlay, render
from kanctl.kernel.fleet.policy import read_policy
from kanctl.kernel.fleet.promise import judge
from kanctl.kernel.fleet.reference import (
    Reference,
    by_module,
    parse_dependencies,
    parse_makefile,
    parse_places,
    read_reference,
)
from kanctl.kernel.fleet.resolve import select
from kanctl.kernel.fleet.satisfy import Parents
from kanctl.kernel.fragment import Request, parse_fragment
from kanctl.kernel.prepare import require_architecture

ALIASES = """# Aliases extracted from modules themselves.
alias pci:v000015B3d00001021sv*sd*bc*sc*i* mlx5_core
alias pci:v*d*sv*sd*bc01sc08i02* nvme
alias pci:v000010DEd*sv*sd*bc03sc02i00* nouveau
alias acpi*:IPI0001:* ipmi_si
alias auxiliary:mlx5_core.rdma mlx5_ib
alias usb:v*p*d*dc*dsc*dp*ic03isc*ip*in* usbhid
alias fs-ext4 ext4
"""
DEPENDENCIES = parse_dependencies(
    "kernel/drivers/net/mlx5_core.ko.xz: kernel/drivers/net/mlxfw.ko.xz\n"
    "kernel/drivers/net/mlxfw.ko.xz:\n"
    "kernel/drivers/infiniband/mlx5_ib.ko.xz: kernel/drivers/net/mlx5_core.ko.xz\n"
    "kernel/drivers/nvme/nvme.ko.xz: kernel/drivers/nvme/nvme-core.ko.xz\n"
    "kernel/drivers/nvme/nvme-core.ko.xz:\nkernel/drivers/ipmi_si.ko.xz:\nkernel/fs/ext4/ext4.ko.xz:\n"
    "kernel/drivers/ata/ahci.ko.xz: kernel/drivers/ata/libahci.ko.xz\nkernel/drivers/ata/libahci.ko.xz:\n"
    "kernel/drivers/hid/usbhid.ko.xz:\nkernel/sound/snd_hda_intel.ko.xz:\n",
    "softdep ext4 pre: crc32c\n",
)
SYMBOLS = {
    "mlx5_core": ("CONFIG_MLX5_CORE",),
    "mlx5_ib": ("CONFIG_MLX5_INFINIBAND",),
    "mlxfw": ("CONFIG_MLXFW",),
    "nvme": ("CONFIG_BLK_DEV_NVME",),
    "nvme_core": ("CONFIG_NVME_CORE",),
    "nouveau": ("CONFIG_DRM_NOUVEAU",),
    "ipmi_si": ("CONFIG_IPMI_SI",),
    "ext4": ("CONFIG_EXT4_FS",),
    "ahci": ("CONFIG_SATA_AHCI",),
    "libahci": ("CONFIG_AHCI_ST", "CONFIG_SATA_AHCI", "CONFIG_AHCI_TEGRA"),
    "usbhid": ("CONFIG_USB_HID",),
}
REFERENCE = Reference(
    release="test",
    aliases=AliasTable(ALIASES.splitlines()),
    depends=DEPENDENCIES,
    builtin=frozenset({"button"}),
    symbols=SYMBOLS,
)
POLICY = read_policy()
CONNECTX = "pci:v000015B3d00001021sv000015B3sd00000041bc02sc07i00"
H100 = "pci:v000010DEd00002330sv000010DEsd000016C1bc03sc02i00"


def device(modalias, driver=None, module=None, path="/sys/devices/x"):
    return {"path": path, "modalias": modalias, "driver": driver, "module": module}


def node(*devices, loaded=(), machine="x86_64"):
    return {"machine": machine, "devices": list(devices), "loaded": list(loaded)}


@pytest.mark.parametrize(
    ("modalias", "modules"),
    [
        (CONNECTX, ["mlx5_core"]),
        ("pci:v0000144Dd0000A80Asv0000144Dsd0000A801bc01sc08i02", ["nvme"]),
        (H100, ["nouveau"]),
        ("pci:v000010DEd000022A3sv00000000sd00000000bc06sc80i00", []),
        ("acpi:IPI0001:", ["ipmi_si"]),
        ("auxiliary:mlx5_core.rdma", ["mlx5_ib"]),
        ("usb:v0557p2419d0100dc00dsc00dp00ic03isc01ip01in00", ["usbhid"]),
    ],
)
def test_an_alias_finds_its_modules_by_vendor_class_or_name(modalias, modules):
    assert REFERENCE.aliases.match(modalias) == modules


def test_module_names_are_spelled_as_the_kernel_does():
    assert module_name("kernel/drivers/nvme/host/nvme-core.ko.xz") == "nvme_core"


def test_a_soft_dependency_on_an_alias_is_no_module():
    assert DEPENDENCIES["ext4"] == ("crc32c",)
    assert "crc32c" not in REFERENCE.closure(["ext4"])


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("obj-$(CONFIG_A) += a.o b.o dir/\n", [("a", "CONFIG_A"), ("b", "CONFIG_A")]),
        ("obj-$(CONFIG_A) += a.o \\\n\tc-d.o\n", [("a", "CONFIG_A"), ("c-d", "CONFIG_A")]),
        ("ifeq ($(CONFIG_A),m)\nobj-m += a.o\nendif\nobj-m += free.o\n", [("a", "CONFIG_A")]),
        ("ifdef CONFIG_A\nobj-y += a.o\nendif\n", [("a", "CONFIG_A")]),
        ("a-y := one.o two.o\n# obj-$(CONFIG_B) += b.o\n", []),
    ],
)
def test_makefiles_say_which_symbol_builds_a_module(text, pairs):
    assert parse_makefile(text) == pairs


def test_two_modules_of_one_name_are_told_apart_by_their_folder():
    objects = {"fs/overlayfs/overlay": ("CONFIG_OVERLAY_FS",), "drivers/of/overlay": ("CONFIG_OF_OVERLAY",)}
    places = parse_places("kernel/fs/overlayfs/overlay.ko.xz:\n")
    assert by_module(objects, places) == {"overlay": ("CONFIG_OVERLAY_FS",)}


def test_the_set_is_the_union_of_devices_loaded_modules_policy_children_and_dependencies():
    chosen = select(
        {"node1": node(device(CONNECTX), device(H100), loaded=["ext4", "nvidia", "button"])}, REFERENCE, POLICY
    )
    kinds = {name: need.kind for name, need in chosen.modules.items()}
    assert kinds["mlx5_core"] == "device"
    assert kinds["ext4"] == "loaded"
    assert kinds["nvme"] == "policy"
    assert kinds["mlx5_ib"] == "child"
    assert kinds["nvme_core"] == kinds["mlxfw"] == "dependency"
    assert chosen.modules["mlx5_core"].why == "PCI 15b3:1021"
    assert "nouveau" in chosen.denied
    assert "nouveau" not in chosen.modules
    assert chosen.out_of_tree == {"nvidia": ("node1",)}


def test_a_shared_helper_switches_no_further_symbol_on():
    chosen = select({"node1": node()}, REFERENCE, POLICY)
    assert chosen.symbols["CONFIG_SATA_AHCI"] == ["ahci", "libahci"]
    assert "CONFIG_AHCI_ST" not in chosen.symbols


def request(symbol, value, reason="Kept off."):
    return Request(symbol=symbol, value=value, reason=reason, fragment="90-off", line=1)


def laid(value, facts):
    chosen = select({"node1": facts}, REFERENCE, POLICY)
    fleet = fleet_requests(chosen, Parents(added={"CONFIG_MLX5_CORE": "m"}))
    return overlay({"CONFIG_MLX5_CORE": request("CONFIG_MLX5_CORE", value)}, fleet, chosen, Parents())


def test_a_device_outranks_what_the_profile_switches_off():
    found = laid("n", node(device(CONNECTX)))
    assert found.requests["CONFIG_MLX5_CORE"].value == "m"
    assert "90-off:1 is off (Kept off.)" in found.overruled[0]


def test_a_module_that_was_merely_loaded_does_not():
    found = laid("n", node(loaded=["mlx5_core"]))
    assert found.requests["CONFIG_MLX5_CORE"].value == "n"
    assert found.kept_off


def test_what_the_profile_builds_in_stays_built_in():
    assert laid("y", node(device(CONNECTX))).requests["CONFIG_MLX5_CORE"].value == "y"


def test_the_fleets_fragment_is_a_fragment():
    chosen = select({"node1": node(device(CONNECTX))}, REFERENCE, POLICY)
    text = render(fleet_requests(chosen, Parents(added={"CONFIG_MLX5_CORE": "m"})))
    (line,) = parse_fragment("fleet", text).requests
    assert line.reason == "mlx5_core: PCI 15b3:1021 on node1"


BOUND = device(CONNECTX, "mlx5_core", "mlx5_core", "/sys/devices/pci0000:15/0000:19:00.0")


def test_a_lost_device_is_named_with_its_node_and_symbol():
    (loss,) = judge({"node7": node(BOUND)}, REFERENCE, POLICY, {}).broken
    assert (loss.node, loss.driver, loss.why) == ("node7", "mlx5_core", "none of CONFIG_MLX5_CORE is on")


def test_the_promise_is_kept_by_a_module_or_a_builtin_driver():
    for value in "ym":
        assert judge({"n": node(BOUND)}, REFERENCE, POLICY, {"CONFIG_MLX5_CORE": value}).kept == 1


def test_a_foreign_driver_is_the_gates_business():
    promise = judge({"n": node(device(H100, "nvidia", "nvidia"))}, REFERENCE, POLICY, {})
    assert not promise.losses
    assert promise.out_of_tree == {"nvidia": ("n",)}


def test_an_unknown_builtin_driver_stops_the_build_on_a_real_bus_only():
    pci = judge({"n": node(device("pci:v00001234d00005678", "mystery"))}, REFERENCE, POLICY, {})
    platform = judge({"n": node(device("platform:mystery", "mystery"))}, REFERENCE, POLICY, {})
    assert [loss.stops for loss in pci.losses + platform.losses] == [True, False]


def test_hardware_that_may_go_and_devices_without_a_driver_are_no_loss():
    sound = device("pci:v00008086d00001C20", "snd_hda_intel", "snd_hda_intel")
    assert not judge({"n": node(sound, device(CONNECTX))}, REFERENCE, POLICY, {}).losses


def test_a_fleet_of_another_architecture_is_refused_by_name():
    with pytest.raises(FleetInvalid, match="arm1 is aarch64") as caught:
        require_architecture({"node1": node(), "arm1": node(machine="aarch64")})
    assert "--limit" in caught.value.next_step


def test_a_reference_without_its_index_names_what_is_missing(tmp_path):
    with pytest.raises(SourceUnavailable, match=r"modules\.alias"):
        read_reference(tmp_path, Path(tmp_path), "test", {})
