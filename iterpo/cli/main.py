"""`iterpo`: a table of commands, each imported only when it runs. `--help` loads neither torch nor grpc.

Exit codes: 0 done, 1 a command's own negative answer, 2 an error that its message says how to mend, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from iterpo import __version__
from iterpo.errors import IterpoError, system_error

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("iterpo.cli.demo", "Watch a real model learn a stated preference while it serves."),
    "up": ("iterpo.cli.up", "Start the three services and keep them running."),
    "health": ("iterpo.cli.health", "Whether a service answers calls: for probes."),
    "generate": ("iterpo.cli.generate", "Stream one answer of the serving policy."),
    "chat": ("iterpo.cli.chat", "Talk with the serving policy."),
    "annotate": ("iterpo.cli.annotate", "Compare answers in the terminal."),
    "run": ("iterpo.cli.run", "Start, watch, pause, resume and stop learning."),
    "policies": ("iterpo.cli.policies", "List, show, promote, roll back, merge and evaluate policy versions."),
    "labels": ("iterpo.cli.labels", "Export labels, train reward models on them."),
    "tokens": ("iterpo.cli.tokens", "Make, list and take back the tokens that callers need."),
    "store": ("iterpo.cli.store", "Migrate, check, back up and copy the feedback store."),
    "algorithms": ("iterpo.cli.algorithms", "The methods, axis by axis."),
    "explain": ("iterpo.cli.explain", "What a method does to every token of a batch."),
    "call": ("iterpo.cli.call", "Call any RPC: SERVICE/METHOD '{json}'."),
}
"""name -> (module with a click command named `command`, help in one line)."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is used; the list of commands comes from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="iterpo")
def iterpo() -> None:
    """An online, iterative preference-learning server: a language model that improves while it serves.

    Every command has its own --help, and --json for machines. Settings come from ./iterpo.toml when there is one.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `iterpo` script. Always raises SystemExit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        outcome = iterpo.main(given, prog_name="iterpo", standalone_mode=False)
    except IterpoError as error:
        sys.exit(_refuse(given, error.reason, error.message, error.fix))
    except click.UsageError as error:
        usage = error.ctx.get_usage() if error.ctx else ""
        sys.exit(_refuse(given, "USAGE", error.format_message(), usage.replace("\n", " ")))
    except click.ClickException as error:
        sys.exit(_refuse(given, "CLICK", error.format_message(), ""))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: nothing is left to say, and stdout must not be flushed again.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        known = system_error(error)
        sys.exit(_refuse(given, known.reason, known.message, known.fix))
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _refuse(arguments: Sequence[str], reason: str, message: str, fix: str) -> int:
    if "--json" in arguments:
        print(json.dumps({"error": {"reason": reason, "message": message, "fix": fix}}), file=sys.stderr)
    else:
        print(f"error: {message}" + (f"\n{fix}" if fix else ""), file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
