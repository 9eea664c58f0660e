"""The command line. Heavy imports happen inside commands: ``--help`` has to be quick."""

from __future__ import annotations

import sys
import tempfile
import traceback
from errno import ENOSPC
from types import TracebackType

import click

from provision import __version__
from provision.cli import guests, host, results, specs, testbed
from provision.cli.common import EXIT_CODES, complain, told
from provision.errors import ProvisionError


class InOrder(click.Group):
    """Commands in the order of a day's work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PROVISION"},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, "-V", "--version")
def cli() -> None:
    """Testbeds for hypervisor network benchmarks: N guests, each on its own switch and uplink.

    \b
    provision up --hv kvm --vms 4       guests up, verified, netperf ready
    provision run netperf-send          the workload, its streams started together
    provision report                    what it gave, with intervals and verdicts
    provision down                      the host as it was before

    Without a file, flags go over the spec of the testbed as it stands, and `up` keeps them.
    """  # noqa: D301 - click wants the character itself


for command in (
    testbed.up, testbed.plan, testbed.verify, testbed.status,
    results.run, results.report, testbed.reset, testbed.down,
    guests.inventory, guests.ssh, guests.console, guests.logs,
    specs.init, specs.validate, specs.schema,
    host.doctor, host.image, host.lab, host.gc, specs.completion,
):  # fmt: skip
    cli.add_command(command)


def defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error that nobody foresaw: its trace goes to a file, a person gets one line."""
    text = "".join(traceback.format_exception(kind, error, trace))
    with tempfile.NamedTemporaryFile(
        "w", prefix="provision-defect-", suffix=".txt", delete=False
    ) as f:
        f.write(text)
    print(f"error: a defect of provision: {kind.__name__}: {error}", file=sys.stderr)
    print(f"next:  report it with {f.name}; provision down puts the host back", file=sys.stderr)


def main() -> None:
    """The ``provision`` command: words and exit codes for everything that can go wrong."""
    sys.excepthook = defect
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as e:
        e.show(sys.stderr)
        code = e.exit_code
        told(e.format_message(), "provision --help", code)
    except ProvisionError as e:
        code = complain(e)
    except BrokenPipeError:
        sys.stderr.close()
        code = 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except OSError as e:  # a full disk, a state folder that cannot be written
        what = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        hint = "df -h: free some room on that disk" if e.errno == ENOSPC else ""
        code = complain(ProvisionError(what, hint=hint))
    sys.exit(code if isinstance(code, int) else 0)
