"""Where Debian's packages come from: this machine's own apt configuration, or the user's URL."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.errors import PreflightError, UserError
from provision.image_recipe import RELEASE

HINT = "provision image build --mirror URL"
#: netperf is in non-free in this release
COMPONENTS = "main non-free"
FORMAT = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)\t$(CREATED_BY)"
_SUITE = re.compile(r"(bullseye|bookworm|trixie|forky|sid|(old)*stable|testing|unstable)(.*)")


@dataclass(frozen=True, slots=True)
class Mirror:
    """Sources in apt's one-line form, and the options that reach them (proxies, CAs)."""

    sources: tuple[str, ...]
    apt_options: tuple[str, ...] = ()


def find(url: str | None = None) -> Mirror:
    """The user's mirror, else this machine's; raises PreflightError where neither is there."""
    if shutil.which("apt-get") is None:
        raise PreflightError(
            "apt-get: not installed; the guest image is built on a Debian or Ubuntu machine",
            hint="apt-get install mmdebstrap e2fsprogs qemu-utils",
        )
    options = tuple(acquire(_run("apt-config", "dump", "Acquire")))
    if url is not None:
        if not re.fullmatch(r"(https?|ftp|file|copy):/\S+", url):
            raise UserError(f"--mirror {url!r} is no URL", hint="http://HOST/debian")
        return Mirror((f"deb {url} {RELEASE} {COMPONENTS}",), options)
    found = sources(_run("apt-get", "indextargets", "--format", FORMAT).splitlines())
    if not found:
        raise PreflightError(
            "this machine's apt configuration has no mirror of Debian's packages", hint=HINT
        )
    return Mirror(tuple(found), options)


def sources(targets: Iterable[str]) -> list[str]:
    """Sources for the guest's release, from the mirrors that ``FORMAT`` lines of apt name."""
    archives: dict[str, None] = {}
    security: dict[str, None] = {}
    updates = False
    for line in targets:
        uri, suite, component, origin, created_by = (*line.split("\t"), "", "", "", "")[:5]
        match = _SUITE.fullmatch(suite)
        # without package lists on the machine apt does not know the origin
        if created_by != "Packages" or component != "main" or match is None:
            continue
        if origin not in ("", "Debian"):
            continue
        kind = match[3]
        if kind in ("-security", "/updates"):
            security[_resolved(uri)] = None
        elif kind in ("", "-updates"):
            archives[_resolved(uri)] = None
            updates |= kind == "-updates"
    lines = [f"deb {uri} {RELEASE} {COMPONENTS}" for uri in archives]
    if updates:
        lines += [f"deb {uri} {RELEASE}-updates {COMPONENTS}" for uri in archives]
    if not archives:
        return []
    return lines + [f"deb {uri} {RELEASE}-security {COMPONENTS}" for uri in security]


def acquire(dump: str) -> list[str]:
    """Of ``apt-config dump``, what decides whether and how a mirror is reached."""
    kept = re.compile(
        r"Acquire::((http|https|ftp)::\S*|Retries|Force\S*|Queue-Mode|Check-\S*) \"[^\"]+\";"
    )
    return [line.strip() for line in dump.splitlines() if kept.fullmatch(line.strip())]


def _resolved(uri: str) -> str:
    """A mirror list (``mirror+file:``, as cloud images have) becomes its first mirror."""
    scheme, _, path = uri.partition(":")
    if scheme != "mirror+file":
        return uri
    try:
        words = Path("/" + path.strip("/")).read_text().split("\n")
    except OSError as e:
        raise PreflightError(f"{uri}: {e.strerror}", hint=HINT) from e
    for line in words:
        if line.strip() and not line.lstrip().startswith("#"):
            return line.split()[0]
    raise PreflightError(f"{uri}: names no mirror", hint=HINT)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PreflightError(f"{words[0]}: {_last(done.stderr.splitlines())}", hint=HINT)
    return done.stdout


def _last(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "(no words)")
