"""``trademl config show``: every setting and where it came from."""

from __future__ import annotations

import typer

from trademl.cli import options
from trademl.cli.output import emit

app = typer.Typer(help="Resolved settings.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _config() -> None:
    pass


@app.command("show")
def show(
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Print every setting, its value and where it came from."""
    from pathlib import Path

    from msgspec import to_builtins

    from trademl.backtest.settings import NO_LIMIT
    from trademl.config import DEFAULT_FILE, load_settings

    if config is None and Path(DEFAULT_FILE).is_file():
        config = Path(DEFAULT_FILE)
    settings = load_settings(config, workspace=workspace)
    result = {
        "id": str(settings.workspace),
        "settings": {
            key: {
                "value": None if setting.value == NO_LIMIT else to_builtins(setting.value),
                "source": setting.source,
            }
            for key, setting in settings.origin.items()
        },
    }
    lines = [f"workspace = {settings.workspace}"]
    for key, setting in settings.origin.items():
        shown = "(JSON)" if key == "tuning" else repr(setting.value)
        lines.append(f"{key} = {shown}  # {setting.source}")
    emit(result, as_json=json, lines=lines)
