"""Settings: what overrides what, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from trademl.config import bind_port, load_settings
from trademl.errors import ConfigError
from trademl.pipeline.strategy import check_strategy


def write(path, text):
    path.write_text(text)
    return path


def test_flags_over_environment_over_file_over_defaults(tmp_path):
    file = write(
        tmp_path / "s.toml", "[orders]\ninterval_s = 2\ntime_limit_s = 3\nexport_after = 4\n"
    )
    settings = load_settings(
        file,
        environ={"TRADEML_ORDERS__TIME_LIMIT_S": "30", "TRADEML_ORDERS__EXPORT_AFTER": "40"},
        flags={"orders.export_after": 400, "feed.timezone": None},
    )
    orders = settings.strategy.orders
    assert (orders.lookback_s, orders.interval_s, orders.time_limit_s, orders.export_after) == (
        600, 2, 30, 400,
    )  # fmt: skip
    assert [settings.origin[f"orders.{k}"].source for k in ("lookback_s", "interval_s", "time_limit_s", "export_after")] == [
        "default", str(file), "TRADEML_ORDERS__TIME_LIMIT_S", "flag",
    ]  # fmt: skip


def test_the_seed_can_come_from_the_environment(tmp_path):
    file = write(tmp_path / "s.toml", "seed = 5\n")
    assert load_settings(file, environ={"TRADEML_SEED": "11"}).strategy.seed == 11


def test_latency_and_kind_of_take_profit_are_costs(tmp_path):
    file = write(tmp_path / "s.toml", "[costs]\nlatency_ms = 250\n")
    environ = {"TRADEML_COSTS__TAKE_PROFIT_IS_MARKET": "true"}
    costs = load_settings(file, environ=environ).strategy.costs
    assert (costs.latency_ns, costs.take_profit_is_market) == (250_000_000, True)


def test_workspace_by_flag_then_environment_then_default(tmp_path):
    environ = {"TRADEML_WORKSPACE": str(tmp_path)}
    assert load_settings(environ=environ).workspace == tmp_path
    assert load_settings(environ=environ, workspace=tmp_path / "x").workspace == tmp_path / "x"
    assert str(load_settings(environ={}).workspace) == "trademl-workspace"


def test_paths_of_a_file_are_relative_to_it(tmp_path):
    file = write(tmp_path / "s.toml", '[feed]\nquotes = "q.csv"\n')
    assert load_settings(file, environ={}).strategy.feed.quotes == str(tmp_path / "q.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[orders]\nintervall_s = 2\n", "unknown key orders.intervall_s; did you mean orders.interval_s"),
        ("[order]\nx = 2\n", "unknown key order; did you mean orders"),
        ('[orders]\ninterval_s = "fast"\n', "orders.interval_s: expected `float`, got `str`"),
        ("[orders]\ninterval_s = 0\n", "orders.*interval_s is 0.*expected more than 0"),
        ('[orders]\nside = "hold"\n', "orders.side: invalid enum value 'hold'"),
        ("[costs]\nfee_bps = -1\n", "fee_bps is -1"),
        ("[costs]\nlatency_ms = -1\n", "latency_ms is -1"),
        ("[costs]\ntake_profit_is_market = 2\n", "take_profit_is_market: expected `bool`"),
        ("[split]\ntrain = 0.9\nvalidation = 0.2\n", "less than 1 together"),
        ("[serving.quotas]\nbtc = { part = 1 }\n", "serving.quotas.btc: unknown key part; .* share"),
        ('[[serving.rungs]]\nmodell = "x"\n', "serving.rungs.0: unknown key modell; .* model, device"),
        ("[feed\n", "is not valid TOML"),
        ('tuning = "nothing.json"\n', "nothing.json: the tuning job cannot be read"),
        ("seed = 1.5\n", "seed: expected `int`"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(write(tmp_path / "s.toml", text), environ={})
    assert "s.toml" in str(caught.value) or "nothing.json" in str(caught.value)


def test_unknown_environment_key_is_named():
    with pytest.raises(ConfigError, match="TRADEML_ORDERS__SPEED: unknown key orders.speed"):
        load_settings(environ={"TRADEML_ORDERS__SPEED": "9"})


def test_port_of_a_container():
    assert bind_port({}) == 8080
    assert bind_port({"SAGEMAKER_BIND_TO_PORT": "8100"}) == 8100
    with pytest.raises(ConfigError, match="expected a port number"):
        bind_port({"SAGEMAKER_BIND_TO_PORT": "http"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[feed]\ntimezone = "America/Chicgo"\n', "timezone 'America/Chicgo' .*is not known"),
        ('[feed]\nsession_open = "25:00"\n', "expected HH:MM"),
        (
            "[features]\nlags = [{ number = 7 }]\n",
            "feature_dim 605, the recipe of .* has 12 columns",
        ),
    ],
)
def test_what_cannot_go_together_is_refused_before_work(tmp_path, text, message):
    strategy = load_settings(write(tmp_path / "s.toml", text), environ={}).strategy
    with pytest.raises(ConfigError, match=message):
        check_strategy(strategy)


def test_a_seed_that_no_generator_takes_is_named(tmp_path):
    with pytest.raises(ConfigError, match="seed is -1"):
        load_settings(write(tmp_path / "s.toml", "seed = -1\n"), environ={})


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "examples").glob("*.toml")))
def test_every_example_resolves(path):
    strategy = load_settings(path, environ={}).strategy
    check_strategy(strategy)
    assert strategy.name == path.stem
