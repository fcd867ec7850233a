"""Boot loaders behind one small interface: which kernel is the default, which one is started once.

GRUB and systemd-boot are real; `dry` writes down what it would do, for containers, which have the host's kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

TRIAL_ENTRY = "kanctl-trial"
MENU_ENTRY = re.compile(r"^\s*(menuentry|submenu)\b.*\$menuentry_id_option '([^']+)'.*\{\s*$")
# Keys that may stand several times; any other key's later value replaces the earlier one.
REPEATABLE = {"console", "hugepagesz", "hugepages", "earlycon"}

Run = Callable[[Sequence[str]], str]


class LoaderError(Exception):
    """The boot loader is not as it must be for a trial; the message says what to do."""


class Loader(Protocol):
    """What a trial needs of a boot loader."""

    name: str

    def problems(self) -> list[str]: ...
    def arm(self, old: str, new: str, arguments: Sequence[str]) -> None: ...
    def disarm(self) -> None: ...
    def keep(self, release: str) -> None: ...


def run_program(words: Sequence[str]) -> str:
    """Run a program of the node; raises LoaderError with what it said."""
    done = subprocess.run(list(words), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoaderError(f"`{' '.join(words)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def merge_arguments(current: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """A command line with further arguments: one with the same key takes the other's place."""
    keys = {argument.partition("=")[0] for argument in wanted} - REPEATABLE
    kept = [word for word in current if word.partition("=")[0] not in keys]
    return [*kept, *(word for word in wanted if word not in kept)]


class Grub:
    """GRUB 2 as Debian and Ubuntu set it up: grub.cfg made by update-grub, state in grubenv."""

    name = "grub"

    def __init__(self, root: Path = Path("/"), run: Run = run_program) -> None:
        self._boot = root / "boot/grub"
        self._drop_in = root / "etc/default/grub.d/60-kanctl-kernel.cfg"
        self._script = root / "etc/grub.d/42_kanctl"
        self._run = run

    def problems(self) -> list[str]:
        """Why GRUB could not forget a one-shot entry, which would start the trial again and again."""
        found = []
        layers = self._run(["grub-probe", "--target=abstraction", str(self._boot)]).split()
        if layers:
            found.append(
                f"GRUB cannot write to {self._boot}: it lies on {', '.join(layers)}, so an entry started once would be "
                f"started always. Put /boot on a plain partition."
            )
        file_system = self._run(["grub-probe", "--target=fs", str(self._boot)]).strip()
        if file_system not in {"ext2", "fat", "xfs"}:
            found.append(f"GRUB cannot write to the file system {file_system} of {self._boot}. Put /boot on ext4.")
        return found

    def arm(self, old: str, new: str, arguments: Sequence[str]) -> None:
        """The old kernel is the default; the new one, with further arguments, is started once."""
        self._prepare()
        menu = (self._boot / "grub.cfg").read_text()
        self._run(["grub-set-default", entry_path(menu, old)])
        body = trial_menu(menu, new, arguments)
        scratch = self._boot / f"{TRIAL_ENTRY}.part"
        scratch.write_text(body)
        scratch.replace(self._boot / f"{TRIAL_ENTRY}.cfg")
        self._run(["grub-reboot", TRIAL_ENTRY])
        self._run(["sync"])

    def disarm(self) -> None:
        """No trial is left, neither its entry nor the wish to start it."""
        if "next_entry" in self._run(["grub-editenv", str(self._boot / "grubenv"), "list"]):
            self._run(["grub-editenv", str(self._boot / "grubenv"), "unset", "next_entry"])
        (self._boot / f"{TRIAL_ENTRY}.cfg").unlink(missing_ok=True)

    def keep(self, release: str) -> None:
        """The release is the default from now on."""
        self._prepare()
        self._run(["grub-set-default", entry_path((self._boot / "grub.cfg").read_text(), release)])
        self.disarm()
        self._run(["sync"])

    def _prepare(self) -> None:
        """The menu follows the saved default and knows our entry; made anew only when it does not."""
        wanted = {
            self._drop_in: "# Written by kanctl, role kernel_install.\nGRUB_DEFAULT=saved\n",
            self._script: SCRIPT,
        }
        for path, text in wanted.items():
            if not path.is_file() or path.read_text() != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self._script.chmod(0o755)
        menu = self._boot / "grub.cfg"
        text = menu.read_text() if menu.is_file() else ""
        if f"{TRIAL_ENTRY}.cfg" not in text or 'set default="${saved_entry}"' not in text:
            self._run(["update-grub"])


SCRIPT = f"""#!/bin/sh
# Written by kanctl, role kernel_install: the menu takes in the kernel that is on trial, if one is.
cat <<'END'
if [ -f ${{config_directory}}/{TRIAL_ENTRY}.cfg ]; then
  source ${{config_directory}}/{TRIAL_ENTRY}.cfg
fi
END
"""


def entry_path(menu: str, release: str) -> str:
    """The path of a release's ordinary entry, `submenu>entry`. Raises LoaderError where the menu has none."""
    stack: list[str] = []
    for line in menu.splitlines():
        found = MENU_ENTRY.match(line)
        if found:
            if found.group(1) == "menuentry" and _is_entry_of(found.group(2), release):
                return ">".join([*(part for part in stack if part), found.group(2)])
            stack.append(found.group(2) if found.group(1) == "submenu" else "")
        elif line.strip() == "}" and stack:
            stack.pop()
    raise LoaderError(f"GRUB's menu has no entry for {release}. Run update-grub.")


def trial_menu(menu: str, release: str, arguments: Sequence[str]) -> str:
    """The release's own entry under the trial's name, with further arguments on its command line."""
    wanted = entry_path(menu, release).rpartition(">")[2]
    lines = menu.splitlines()
    start = next(index for index, line in enumerate(lines) if f"'{wanted}'" in line and "menuentry" in line)
    end = next(index for index in range(start, len(lines)) if lines[index].strip() == "}")
    body = [_with_arguments(line, arguments) for line in lines[start + 1 : end]]
    return "\n".join([f"menuentry 'On trial: {release}' --id {TRIAL_ENTRY} {{", *body, "}", ""])


def _with_arguments(line: str, arguments: Sequence[str]) -> str:
    words = line.split()
    if not words or words[0] not in {"linux", "linuxefi"}:
        return line
    return "\t" + " ".join([*words[:2], *merge_arguments(words[2:], arguments)])


def _is_entry_of(entry: str, release: str) -> bool:
    """`gnulinux-6.12.117-advanced-UUID`, but neither its recovery entry nor a release that only begins the same."""
    return re.fullmatch(rf"gnulinux-{re.escape(release)}-advanced-\S+", entry) is not None


class SystemdBoot:
    """systemd-boot with entries of the Boot Loader Specification, as kernel-install writes them."""

    name = "systemd-boot"

    def __init__(self, entries: Path, run: Run = run_program) -> None:
        self._entries = entries
        self._run = run

    def problems(self) -> list[str]:
        """bootctl keeps its choice in EFI variables, which must be writable."""
        status = self._run(["bootctl", "status", "--no-pager"])
        return [] if "systemd-boot" in status else ["bootctl does not see systemd-boot as the running boot loader."]

    def arm(self, old: str, new: str, arguments: Sequence[str]) -> None:
        """The old kernel is the default; the new one, with further arguments, is started once."""
        self._run(["bootctl", "set-default", self._entry(old).name])
        lines = self._entry(new).read_text().splitlines()
        body = [
            "options " + " ".join(merge_arguments(line.split()[1:], arguments)) if line.startswith("options") else line
            for line in lines
        ]
        (self._entries / f"{TRIAL_ENTRY}.conf").write_text("\n".join(body) + "\n")
        self._run(["bootctl", "set-oneshot", f"{TRIAL_ENTRY}.conf"])
        self._run(["sync"])

    def disarm(self) -> None:
        """No trial is left."""
        if (self._entries / f"{TRIAL_ENTRY}.conf").is_file():
            self._run(["bootctl", "set-oneshot", ""])
            (self._entries / f"{TRIAL_ENTRY}.conf").unlink()

    def keep(self, release: str) -> None:
        """The release is the default from now on."""
        self._run(["bootctl", "set-default", self._entry(release).name])
        self.disarm()

    def _entry(self, release: str) -> Path:
        found = sorted(self._entries.glob(f"*-{release}.conf"))
        if not found:
            raise LoaderError(f"systemd-boot has no entry for {release} in {self._entries}. Run kernel-install add.")
        return found[0]


class Dry:
    """No boot loader: what would be done is written down in the state folder, and nothing else happens."""

    name = "dry"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "dry.json"

    def problems(self) -> list[str]:
        return []

    def arm(self, old: str, new: str, arguments: Sequence[str]) -> None:
        self._note({"default": old, "once": new, "arguments": list(arguments)})

    def disarm(self) -> None:
        if self._file.is_file():
            self._note({**json.loads(self._file.read_text()), "once": None, "arguments": []})

    def keep(self, release: str) -> None:
        self._note({"default": release, "once": None, "arguments": []})

    def _note(self, row: dict[str, object]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(row) + "\n")


def find_loader(folder: Path, root: Path = Path("/"), run: Run = run_program) -> Loader:
    """The loader of this node. Raises LoaderError where it is none that trials work with."""
    if (root / "run/systemd/container").exists():
        return Dry(folder)
    for entries in ("boot/loader/entries", "efi/loader/entries", "boot/efi/loader/entries"):
        if (root / entries).is_dir() and any((root / entries).glob("*.conf")):
            return SystemdBoot(root / entries, run)
    if (root / "boot/grub/grub.cfg").is_file():
        return Grub(root, run)
    raise LoaderError("wanted GRUB (/boot/grub/grub.cfg) or systemd-boot (loader/entries), found neither")
