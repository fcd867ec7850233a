"""Every rule speaks where its case breaks it and stays silent where the case is mended; our own profiles break none."""

from dataclasses import replace
from pathlib import Path

import pytest

from kanctl.errors import CheckFailedError
from kanctl.kernel import dotconfig
from kanctl.kernel.boot_arguments import deferred_arguments
from kanctl.kernel.errors import FragmentInvalid
from kanctl.kernel.kernel_setup import Nvidia, Setup, profile_setup
from kanctl.kernel.modprobe import merge_registry_dwords, parse_options, read_options
from kanctl.kernel.prepare import Prepared
from kanctl.kernel.profile import Waiver, load_profile, profile_names
from kanctl.kernel.profile_check import check_prepared
from kanctl.kernel.rules import Severity, check, load_rules, refusal
from kanctl.kernel.source import SourceTree
from kanctl.kernel.verify import Line, Outcome, Verification

# A kernel that breaks no rule; each case changes what it is about.
SOUND = Setup(
    version=(6, 12, 117),
    config={
        "CONFIG_X86_64": "y",
        "CONFIG_CPU_MITIGATIONS": "y",
        "CONFIG_PREEMPT_DYNAMIC": "y",
        "CONFIG_SCHED_DEBUG": "y",
        "CONFIG_NO_HZ_FULL": "y",
        "CONFIG_PCI_P2PDMA": "y",
        "CONFIG_DMABUF_MOVE_NOTIFY": "y",
        "CONFIG_INFINIBAND_USER_ACCESS": "m",
    },
    flags=frozenset({"gpu"}),
    has_peermem_symbols=False,
)


def asking(**requested: str) -> dict[str, str]:
    return {f"CONFIG_{name}": value for name, value in requested.items()}


def having(**symbols: str) -> dict[str, str]:
    return {**SOUND.config, **asking(**symbols)}


def options(text: str):
    return parse_options(text, "test.conf")


STATIC_BAR1 = options('options nvidia NVreg_RegistryDwords="RMForceStaticBar1=1"')
GDS_NODE = {"version": (6, 12, 117), "options": STATIC_BAR1, "is_running": True}
# Rule -> what breaks it, and the same with the smallest change that does not.
CASES = {
    "preempt-rt-with-gpu": (
        {"requested": asking(PREEMPT_RT="y")},
        {"requested": asking(PREEMPT_RT="y"), "flags": frozenset()},
    ),
    "preempt-rt-with-huge-pages": (
        {"config": having(PREEMPT_RT="y"), "requested": asking(TRANSPARENT_HUGEPAGE="y")},
        {"config": having(PREEMPT_RT="y")},
    ),
    "preempt-argument-without-dynamic": (
        {"arguments": ("preempt=full",), "config": having(PREEMPT_DYNAMIC="n")},
        {"arguments": ("preempt=full",)},
    ),
    "preempt-none-on-7": (
        {"arguments": ("preempt=voluntary",), "version": (7, 0, 1)},
        {"arguments": ("preempt=voluntary",), "version": (6, 19)},
    ),
    "preempt-lazy-before-6.13": (
        {"arguments": ("preempt=lazy",)},
        {"arguments": ("preempt=lazy",), "version": (6, 13)},
    ),
    "preempt-mode-cannot-be-read": (
        {"config": having(SCHED_DEBUG="n")},
        {"config": having(SCHED_DEBUG="n"), "version": (6, 15)},
    ),
    "nohz-full-without-the-option": (
        {"arguments": ("nohz_full=2-15",), "config": having(NO_HZ_FULL="n")},
        {"arguments": ("nohz_full=2-15",)},
    ),
    "nohz-full-without-the-argument": (
        {"requested": asking(NO_HZ_FULL="y")},
        {"requested": asking(NO_HZ_FULL="y"), "deferred": frozenset({"nohz_full"})},
    ),
    "no-housekeeping-cpu": (
        {"arguments": ("isolcpus=managed_irq,domain,0-3,4-7",), "cpu_count": 8},
        {"arguments": ("isolcpus=managed_irq,domain,1-3,4-7",), "cpu_count": 8},
    ),
    "p2pdma-with-nvme-multipath": (
        {"config": having(NVME_MULTIPATH="y", BLK_DEV_NVME="m")},
        {
            "config": having(NVME_MULTIPATH="y", BLK_DEV_NVME="m"),
            "options": options("options nvme_core multipath=N"),
        },
    ),
    "static-bar1-without-p2pdma": (
        {**GDS_NODE, "nvidia": Nvidia(version="550.163.01", is_open=True)},
        {**GDS_NODE, "nvidia": Nvidia(version="565.57.01", is_open=True)},
    ),
    "rdma-without-dmabuf": (
        {"requested": asking(INFINIBAND_USER_ACCESS="m"), "config": having(DMABUF_MOVE_NOTIFY="n")},
        {
            "requested": asking(INFINIBAND_USER_ACCESS="m"),
            "config": having(DMABUF_MOVE_NOTIFY="n"),
            "version": (7, 3, 4),
        },
    ),
    "peermem-without-symbols": (
        {"expects": frozenset({"nvidia_peermem"})},
        {"expects": frozenset({"nvidia_peermem"}), "has_peermem_symbols": True},
    ),
    "hmm-without-mirror": (
        {"requested": asking(DEVICE_PRIVATE="y"), "config": having(DEVICE_PRIVATE="y")},
        {"requested": asking(DEVICE_PRIVATE="y"), "config": having(DEVICE_PRIVATE="y", HMM_MIRROR="y")},
    ),
    "sched-ext-without-btf": (
        {"requested": asking(SCHED_CLASS_EXT="y"), "config": having(BPF_SYSCALL="y", BPF_JIT="y")},
        {
            "requested": asking(SCHED_CLASS_EXT="y"),
            "config": having(SCHED_CLASS_EXT="y", BPF_SYSCALL="y", BPF_JIT="y", DEBUG_INFO_BTF="y"),
        },
    ),
    "huge-pages-of-1g-on-64k": (
        {"arguments": ("hugepagesz=1G", "hugepages=4"), "config": having(ARM64_64K_PAGES="y")},
        {"arguments": ("hugepagesz=1G", "hugepages=4")},
    ),
    "cpus-above-512": (
        {"requested": asking(NR_CPUS="1024"), "config": having(NR_CPUS="512")},
        {"requested": asking(NR_CPUS="512"), "config": having(NR_CPUS="512")},
    ),
    "mitigation-lost": (
        {"switched_off": frozenset({"CONFIG_MITIGATION_GDS"})},
        {
            "switched_off": frozenset({"CONFIG_MITIGATION_GDS"}),
            "waived": frozenset({"CONFIG_MITIGATION_GDS"}),
        },
    ),
    "mitigations-as-a-whole": (
        {"config": having(CPU_MITIGATIONS="n")},
        {"config": having(CPU_MITIGATIONS="n"), "version": (6, 1, 50)},
    ),
    "mitigations-off-at-boot": ({"arguments": ("mitigations=off",)}, {"arguments": ("mitigations=auto",)}),
    "kvm-without-vmscape": (
        {"config": having(KVM="m"), "version": (7, 3, 4)},
        {"config": having(KVM="m", MITIGATION_VMSCAPE="y"), "version": (7, 3, 4)},
    ),
    "config-acs-too-new": (
        {"arguments": ("pci=realloc,config_acs=0@pci:10de:0",), "version": (6, 8, 0)},
        {"arguments": ("pci=realloc,config_acs=0@pci:10de:0",), "version": (6, 11)},
    ),
    "registry-dwords-twice": (
        {"options": (*STATIC_BAR1, *options('options nvidia NVreg_RegistryDwords="PeerMappingOverride=1"'))},
        {"options": STATIC_BAR1},
    ),
    "peer-mapping-is-a-dword": (
        {"options": options("options nvidia NVreg_PeerMappingOverride=1")},
        {"options": options('options nvidia NVreg_RegistryDwords="PeerMappingOverride=1;"')},
    ),
    "unsupported-gpus-is-ignored": (
        {"options": options("options nvidia NVreg_OpenRmEnableUnsupportedGpus=1")},
        {"options": options("options nvidia NVreg_EnableStreamMemOPs=1")},
    ),
    "numa-balancing-left-on": (
        {"config": having(NUMA_BALANCING_DEFAULT_ENABLED="y")},
        {"config": having(NUMA_BALANCING_DEFAULT_ENABLED="y"), "arguments": ("numa_balancing=disable",)},
    ),
}


def broken(changes: dict) -> set[str]:
    return {violation.rule.name for violation in check(replace(SOUND, **changes))}


def test_every_rule_has_a_case_and_the_sound_kernel_breaks_none():
    assert {rule.name for rule in load_rules()} == set(CASES)
    assert not broken({})


@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_where_it_is_broken_and_only_there(name):
    breaks, mended = CASES[name]
    assert name in broken(breaks)
    assert name not in broken(mended)


def prepared(name: str, version: str) -> Prepared:
    """A profile as if every requested line had been taken; the whole pipeline would need a kernel's sources."""
    profile = load_profile(name)
    tree = SourceTree(path=Path("/nowhere"), version=version, package=None)
    requests = profile.requests(tree.numbers)
    text = dotconfig.render({"CONFIG_X86_64": "y", **{symbol: row.value for symbol, row in requests.items()}})
    taken = tuple(Line(request=row, found=row.value, outcome=Outcome.TAKEN) for row in requests.values())
    verification = Verification(version=version, lines=taken)
    return Prepared(profile=profile, tree=tree, output=tree.path, text=text, verification=verification, fleet=None)


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("version", ["6.1.192", "6.12.117", "7.3.4"])
def test_no_profile_of_ours_breaks_a_rule(name, version):
    assert not [violation.text for violation in check_prepared(prepared(name, version))]


def test_arguments_of_the_inventory_are_known_by_name():
    assert deferred_arguments("low-latency") == {"isolcpus", "nohz_full", "rcu_nocbs", "hugepages"}
    assert deferred_arguments("throughput") == {"hugepages"}


def test_a_mitigation_that_nobody_asked_for_is_seen_in_the_configuration():
    ready = prepared("lab", "6.12.117")
    ready = replace(ready, text=ready.text + "# CONFIG_MITIGATION_NEW is not set\n")
    (found,) = check_prepared(ready)
    assert found.rule.name == "mitigation-lost"
    assert found.found == "off: CONFIG_MITIGATION_NEW"


def test_a_mitigation_may_be_waived_by_name_only():
    profile = replace(load_profile("lab"), waivers=(Waiver(symbol="CONFIG_MITIGATION_SRSO", reason="no AMD"),))
    requests = profile.requests((6, 12, 117))
    config = {symbol: request.value for symbol, request in requests.items() if request.value != "n"}
    del config["CONFIG_MITIGATION_SRSO"], config["CONFIG_MITIGATION_GDS"]
    setup = profile_setup(profile, (6, 12, 117), requests, {**config, "CONFIG_X86_64": "y"}, ())
    (found,) = (each for each in check(setup) if each.rule.name == "mitigation-lost")
    assert "CONFIG_MITIGATION_GDS" in found.found
    assert "SRSO" not in found.found


def test_a_violation_names_what_was_found_and_what_to_do():
    (found,) = check(replace(SOUND, arguments=("preempt=none",), version=(7, 3, 4)))
    assert found.severity is Severity.REFUSE
    assert "preempt=lazy" in found.text
    assert "kernel 7.3.4" in found.text


def test_force_turns_one_rules_refusal_into_a_warning():
    setup = replace(SOUND, requested=asking(PREEMPT_RT="y"), arguments=("preempt=lazy",))
    violations = check(setup, force={"preempt-rt-with-gpu"})
    assert {each.rule.name: str(each.severity) for each in violations} == {
        "preempt-lazy-before-6.13": "refuse",
        "preempt-rt-with-gpu": "warn",
    }
    error = refusal(violations)
    assert isinstance(error, CheckFailedError)
    assert "preempt-lazy-before-6.13" in str(error)
    assert "preempt-rt" not in str(error)
    assert refusal(check(SOUND)) is None
    with pytest.raises(FragmentInvalid, match="no rule preempt-rt-forever"):
        check(SOUND, force={"preempt-rt-forever"})


def test_what_cannot_be_read_breaks_no_rule():
    assert not broken({"config": None, "arguments": ("preempt=full", "nohz_full=2-3")})


def test_mistakes_in_the_rules_are_named_together(tmp_path: Path):
    path = tmp_path / "rules.toml"
    path.write_text(
        '[[rule]]\nid = "a"\nseverity = "refuse"\nwhen = "flag gpu"\nmessage = "m"\nsource = "s"\n'
        '[[rule]]\nid = "b"\nseverity = "shout"\nwhen = "flag gpu"\nforbids = "boot x"\nmessage = "m"\nsource = "s"\n'
        '[[rule]]\nid = "c"\nseverity = "warn"\nwhen = "the moon"\nforbids = "boot x"\nmessage = "m"\nsource = "s"\n'
    )
    with pytest.raises(FragmentInvalid) as caught:
        load_rules(path)
    for part in ("a: wanted", "b: 'shout'", "c: wanted a condition", "'the moon'"):
        assert part in str(caught.value)


def test_registry_dwords_are_merged_and_contradictions_refused():
    assert merge_registry_dwords(['"A=1;B=2;"', "B=0x2;C=3"]) == "A=1;B=2;C=3;"
    with pytest.raises(FragmentInvalid, match="A is wanted as 1 and as 0"):
        merge_registry_dwords(["A=1", "A=0"])


def test_modprobe_files_hide_and_follow_one_another_as_modprobe_reads_them():
    found = read_options(
        {
            "/usr/lib/modprobe.d/b.conf": "options nvme-core multipath=Y\n",
            "/etc/modprobe.d/b.conf": '# note\noptions nvme-core multipath=N \\\n  extra="a b"\nblacklist nouveau\n',
            "/usr/lib/modprobe.d/a.conf": "options nvidia_uvm uvm_disable_hmm=1\n",
        }
    )
    assert [(option.full_name, option.value, option.place) for option in found] == [
        ("nvidia_uvm.uvm_disable_hmm", "1", "/usr/lib/modprobe.d/a.conf"),
        ("nvme_core.multipath", "N", "/etc/modprobe.d/b.conf"),
        ("nvme_core.extra", "a b", "/etc/modprobe.d/b.conf"),
    ]
