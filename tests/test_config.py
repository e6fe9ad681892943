"""Settings: what wins, what is refused, what is shown, and that every one of them works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskflow import App, Backoff, Config, config, configure
from taskflow.config import Setting, settings
from taskflow.errors import ConfigError

SETTINGS = {setting.name: setting for setting in settings()}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and nothing configured after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "_configured", {})
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.taskflow]\n{text}\n")


def made(**options: Any) -> Config:
    return Config(**options)


def keywords(**options: Any) -> Config:
    return Config.resolve(keywords=options)


def resolved(layer: str, options: dict[str, Any]) -> Config:
    return Config.resolve(flags=options) if layer == "flags" else Config.resolve(keywords=options)


# ---- what wins


def test_the_first_source_that_says_something_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Config.resolve().lease == 60
    write(folder, "lease = 11")
    assert Config.resolve().lease == 11
    monkeypatch.setenv("TASKFLOW_LEASE", "12")
    assert Config.resolve().lease == 12
    configure(lease=13)
    assert Config.resolve().lease == 13
    assert Config.resolve(keywords={"lease": 14}).lease == 14
    assert Config.resolve(keywords={"lease": 14}, flags={"lease": "15"}).lease == 15
    assert App("memory://", lease=14).resolve({"lease": "15"}).lease == 15
    assert App("memory://", lease=14).config.lease == 14


def test_sources_complete_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "grace = 1\nqueues = ['a', 'b']")
    monkeypatch.setenv("TASKFLOW_THREADS", "2")
    found = Config.resolve(keywords={"lease": 3}, flags={"processes": "4"})
    assert (found.grace, found.queues, found.threads) == (1, ("a", "b"), 2)
    assert (found.lease, found.processes) == (3, 4)


def test_an_empty_variable_says_nothing_and_none_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_RESULT_TTL", "")
    assert Config.resolve().result_ttl == 86_400
    monkeypatch.setenv("TASKFLOW_RESULT_TTL", "none")
    assert Config.resolve().result_ttl is None


def test_a_config_stands_alone_but_for_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_LEASE", "12")
    app = App(Config(grace=3, url="memory://"))
    assert app.config == Config(grace=3, url="memory://")
    assert app.resolve({"lease": "9"}) == Config(grace=3, url="memory://", lease=9)
    with pytest.raises(ConfigError, match="^--lease = '1'"):
        app.resolve({"lease": "1"})
    with pytest.raises(ConfigError, match="a Config or keywords, not both"):
        App(Config(), lease=3)


def test_the_nearest_pyproject_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "lease = 11\napp = 'jobs:app'")
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert Config.resolve().lease == 11
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert Config.resolve().lease == 60


# ---- which store


@pytest.mark.parametrize("above", ["flags", "keywords"])
def test_a_store_above_is_not_mixed_with_one_below(
    above: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFLOW_DRIVER", "memory")
    found = resolved(above, {"url": "sqlite:///a.db"})
    assert (found.url, found.driver) == ("sqlite:///a.db", None)
    monkeypatch.delenv("TASKFLOW_DRIVER")
    monkeypatch.setenv("TASKFLOW_URL", "sqlite:///b.db")
    found = resolved(above, {"driver": "memory"})
    assert (found.url, found.driver) == (None, "memory")
    found = resolved(above, {"postgres_dsn": "postgresql://host/db"})
    assert (found.url, found.postgres_dsn) == (None, "postgresql://host/db")


def test_a_flag_is_not_mixed_with_a_config() -> None:
    app = App(Config(url="sqlite:///a.db", lease=9))
    assert app.resolve({"driver": "memory"}) == Config(driver="memory", lease=9)


def test_keywords_are_not_mixed_with_what_is_configured() -> None:
    configure(driver="memory")
    assert App("sqlite:///a.db").config.driver is None
    assert App().config.driver == "memory"


def test_a_driver_above_uses_its_own_dsn_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_POSTGRES_DSN", "postgresql://host/db")
    found = Config.resolve(flags={"driver": "postgres"})
    assert found.postgres_dsn == "postgresql://host/db"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"url": "sqlite:///a.db", "driver": "memory"}, ("driver", "url")),
        (
            {"postgres_dsn": "postgresql:///a", "sqlite_queue_table": "t"},
            ("postgres_dsn", "sqlite_queue_table", "TASKFLOW_URL", "TASKFLOW_DRIVER"),
        ),
        ({"postgres_dsn": "sqlite:///a.db"}, ("postgres_dsn", "postgresql://")),
        ({"url": "http://[::1"}, ("url", "bracket")),
    ],
)
def test_two_stores_are_refused(options: dict[str, Any], names: tuple[str, ...]) -> None:
    for make in (made, keywords):
        with pytest.raises(ConfigError) as caught:
            make(**options)
        assert all(name in str(caught.value) for name in names)


def test_settings_of_two_stores_are_fine_when_one_is_named() -> None:
    options = {"postgres_dsn": "postgresql:///a", "sqlite_queue_table": "t"}
    assert made(driver="sqlite", **options).driver == "sqlite"
    assert made(url="sqlite:///a.db", **options).url == "sqlite:///a.db"


@pytest.mark.parametrize("url", [Path("a.db"), b"sqlite:///a.db", 3])
def test_what_is_no_url_is_not_ignored(url: Any) -> None:
    with pytest.raises(ConfigError, match="url.*sqlite:///jobs.db"):
        App(url)


# ---- secrets

URLS = {
    "postgresql://me:hush@host/db": "postgresql://me:***@host/db",
    "postgresql://me:hush@host:5432/db?x=1": "postgresql://me:***@host:5432/db?x=1",
    "redis://:hush@host": "redis://:***@host",
    "postgresql://me:hu@sh@host": "postgresql://me:***@host",
    "postgresql://me:hu#s/h?@host": "postgresql://me:***@host",
    "postgresql://me:hush:@[::1": "postgresql://me:***@[::1",
    "me:hush@host": "me:***@host",
    "postgresql:///db?user=me&password=hu&sh=1": "postgresql:///db?user=me&password=***",
    "postgresql:///db?sslpassword=hush": "postgresql:///db?sslpassword=***",
}


@pytest.mark.parametrize("url", URLS)
def test_passwords_are_not_shown(url: str) -> None:
    assert config.redact(url) == URLS[url]
    for make, name in ((made, "url"), (made, "postgres_dsn"), (keywords, "url")):
        try:
            text = repr(make(**{name: url}))
        except ConfigError as exc:
            text = f"{exc} {exc!r} {exc.value}"
        assert "hu" not in text
        assert "***" in text


@pytest.mark.parametrize(
    "url", ["sqlite:///a@b.db", "memory://", "sqlite:////tmp/a:b@c.db", "redis://host:6379/0", "db"]
)
def test_what_holds_no_password_is_shown_whole(url: str) -> None:
    assert config.redact(url) == url


def test_a_wrong_type_does_not_show_the_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        made(url=b"postgresql://me:hush@host")
    assert "hush" not in str(caught.value)


def test_repr_shows_what_is_not_the_default() -> None:
    assert repr(Config()) == "Config()"
    assert repr(Config(lease=9, url="postgres://a:hush@b")) == (
        "Config(url='postgres://a:***@b', lease=9.0)"
    )


# ---- configure


def test_configure_refuses_what_cannot_be_used() -> None:
    configure(lease=9)
    wrong: list[dict[str, Any]] = [
        {"lease": 1}, {"leese": 5}, {"grace": 5, "lease": "x"},
        {"url": "sqlite:///a.db", "driver": "memory"},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(ConfigError):
            configure(**options)
    assert Config.resolve() == Config(lease=9)


def test_unknown_keywords_name_a_near_one() -> None:
    with pytest.raises(ConfigError, match="leese.*did you mean lease"):
        App("memory://", leese=3).resolve()
    with pytest.raises(ConfigError, match="leese.*did you mean lease"):
        Config().replace(leese=3)


# ---- each setting

TEXTS: dict[str, tuple[str, Any]] = {
    "url": ("sqlite:///x.db", "sqlite:///x.db"),
    "postgres_dsn": ("postgresql:///x", "postgresql:///x"),
    "redis_url": ("redis://host", "redis://host"),
    "retry_delay": ("7", Backoff.fixed(7)),
}


def sample(setting: Setting) -> tuple[str, Any]:
    """Text for it, and what that means; never the default."""
    if setting.name in TEXTS:
        return TEXTS[setting.name]
    if setting.choices:
        word = next(word for word in reversed(setting.choices) if word != setting.default)
        return word, word
    kind = str(setting.type)
    if "tuple" in kind:
        return "a, b", ("a", "b")
    if "int" in kind or "float" in kind:
        return "77", 77
    return "seventy", "seventy"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_flag_and_a_variable(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = SETTINGS[name]
    text, value = sample(setting)
    assert value != setting.default
    assert getattr(Config.resolve(flags={name: text}), name) == value
    monkeypatch.setenv(setting.variable, text)
    assert getattr(Config.resolve(), name) == value
    monkeypatch.delenv(setting.variable)
    write(folder, f'{name} = "{text}"')
    assert getattr(Config.resolve(), name) == value
    assert getattr(made(**{name: value}), name) == value


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_where_a_wrong_value_stands(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, wrong = SETTINGS[name], object()
    with pytest.raises(ConfigError) as caught:
        made(**{name: wrong})
    assert caught.value.option == name
    with pytest.raises(ConfigError) as caught:
        Config.resolve(flags={name: wrong})
    assert caught.value.option == setting.flag == "--" + name.replace("_", "-")
    assert "expected" in caught.value.problem
    write(folder, f"{name} = false")
    with pytest.raises(ConfigError) as caught:
        Config.resolve()
    assert caught.value.option == f"pyproject.toml [tool.taskflow] {name}"


@pytest.mark.parametrize("name", [name for name in SETTINGS if SETTINGS[name].option.least])
def test_every_limit_holds(name: str) -> None:
    least = SETTINGS[name].option.least
    assert least is not None
    value = least if "float" in str(SETTINGS[name].type) else int(least)
    assert getattr(made(**{name: value}), name) == value
    for wrong in (value - 1, float("nan"), float("inf"), True):
        with pytest.raises(ConfigError, match=name):
            made(**{name: wrong})
