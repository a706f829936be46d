"""What is said of a server is said in its own words, by everything that starts one."""

from __future__ import annotations

from dataclasses import fields

import pytest
import typer

from trademl.cli.main import app
from trademl.errors import ConfigError
from trademl.serve.command import ServeOptions

NAMES = {field.name for field in fields(ServeOptions)}


def options_of(*verb: str) -> set[str]:
    found = typer.main.get_command(app)
    for word in verb:
        found = found.commands[word]
    return {parameter.name for parameter in found.params}


@pytest.mark.parametrize(
    ("verb", "left_out"),
    [(["serve"], set()), (["deploy", "ec2"], set()), (["deploy", "local"], {"emf"})],
)
def test_every_option_is_one_of_the_server_and_of_what_starts_it(verb, left_out):
    assert options_of(*verb) & NAMES == NAMES - left_out


def test_all_of_them_are_words_that_serve_takes():
    told = ServeOptions(2, "kept", capture_percent=5, log_requests=0.0, emf=True, memory_mib=9)
    command = typer.main.get_command(app).commands["serve"]

    context = command.make_context("serve", told.words(), resilient_parsing=True)

    assert {name: context.params[name] for name in NAMES} == told.given()


def test_what_is_not_said_is_left_to_the_server():
    assert ServeOptions().words() == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"workers": 0}, "workers is 0, expected from 1 to 256"),
        ({"workers": 257}, "workers is 257, expected from 1 to 256"),
        ({"capture": ""}, "capture is empty"),
        ({"capture": "kept", "capture_percent": 0.0}, "expected above 0, up to 100"),
        ({"capture_percent": 5.0}, "capture_percent is 5, but nothing is captured"),
        ({"memory_mib": 0}, "memory_mib is 0, expected 1 or more"),
        ({"log_requests": -1.0}, "log_requests is -1, expected 0 or more"),
    ],
)
def test_what_cannot_be_is_refused(said, message):
    with pytest.raises(ConfigError, match=message):
        ServeOptions(**said)
