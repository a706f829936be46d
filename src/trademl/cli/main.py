"""The command line: gathers the verbs, and turns errors into one line and an exit code.

Exit codes: 0 done, 1 an error of ours in one line, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from trademl._version import __version__
from trademl.cli import (
    aws,
    backtest,
    bars,
    config,
    deploy,
    doctor,
    explain,
    features,
    hedge,
    ingest,
    init,
    ledger,
    live,
    models,
    predict,
    report,
    route,
    run,
    serve,
    train,
)
from trademl.errors import TrademlError

INTERRUPTED = 130

app = typer.Typer(
    name="trademl",
    help="The whole life of a trading model: one clock and one fill model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo")(run.demo)
app.command("run")(run.run)
app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.add_typer(config.app, name="config")
app.add_typer(ingest.app, name="ingest")
app.add_typer(bars.app, name="bars")
app.add_typer(features.app, name="features")
app.command("tune")(train.tune)
app.command("train")(train.train)
app.add_typer(models.app, name="models")
app.add_typer(aws.app, name="aws")
app.add_typer(deploy.app, name="deploy")
serve.app.command("live")(live.live)
serve.app.command("route")(route.route)
serve.app.command("hedge")(hedge.hedge)
app.add_typer(serve.app, name="serve")
app.command("predict")(predict.predict)
app.add_typer(backtest.app, name="backtest")
app.add_typer(ledger.app, name="ledger")
app.add_typer(explain.app, name="explain")
app.command("report")(report.report)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"trademl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line; the only place that catches `TrademlError`."""
    try:
        app()
    except TrademlError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, SystemExit) as stop:  # typer exits with 130 on Ctrl-C, in silence
        code = stop.code if isinstance(stop, SystemExit) else INTERRUPTED
        if code == INTERRUPTED:
            _fail("interrupted; finished steps are kept, run it again to go on", INTERRUPTED)
        sys.exit(code)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output went away
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"trademl: {' '.join(message.split())}\n")
    sys.exit(code)
