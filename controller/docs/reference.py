"""The reference, made from the code: keys of both files, commands, exit codes, topics, drivers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from pydantic import BaseModel

from controller.asyncapi import asyncapi
from controller.cli import EXIT, command_line
from controller.config.devices import BUILT_IN, ForeignDevice
from controller.config.experiment import Experiment
from controller.config.keys import Key, all_models, keys_of, tag_of
from controller.config.station import Station
from controller.starter.writing import sentence

MADE = "<!-- made by `python -m controller.docs`: change the code, not this page -->\n"


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    return {
        "reference-station.md": _keys("station.toml", Station),
        "reference-experiment.md": _keys("experiment.toml", Experiment),
        "reference-commands.md": _commands(),
        "reference-topics.md": _topics(),
        "reference-drivers.md": _drivers(),
    }


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _row(*cells: str) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _keys(title: str, root: type[BaseModel]) -> str:
    lines = [MADE, f"# Every key of {title}", ""]
    for model in all_models(root):
        lines += [f"## {_heading(model)}", "", sentence(_first(model)), ""]
        lines += [_row("key", "", "allowed", "unless given"), _row("---", "---", "---", "---")]
        lines += [_row(f"`{key.name}`", _what(key), _allowed(key), _otherwise(key)) for key in keys_of(model)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _heading(model: type[BaseModel]) -> str:
    name, values = tag_of(model)
    return f"{model.__name__}" + (f" (`{name}` = {', '.join(values)})" if name else "")


def _first(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("``", "`").replace("\n    ", " ")


def _what(key: Key) -> str:
    inside = ", ".join(f"[{one.__name__}](#{_anchor(one)})" for one in key.tables)
    several = {"list": "a list of ", "map": "tables by name: "}.get(key.several, "")
    return sentence(key.text) + (f" {several}{inside}" if inside else "")


def _anchor(model: type[BaseModel]) -> str:
    kept = "".join(one for one in _heading(model).lower() if one.isalnum() or one in " -_")
    return kept.replace(" ", "-")


def _allowed(key: Key) -> str:
    return "; ".join(part for part in (key.kind, key.allowed) if part)


def _otherwise(key: Key) -> str:
    if key.required:
        return "**needed**"
    return f"`{key.default}`" if key.default not in (None, "[]") else ""


def _commands() -> str:
    lines = [MADE, "# Every command", "", "```", EXIT, "```", ""]
    for name, parser in _children(command_line()):
        below = list(_children(parser))
        lines += [f"## operando {name}", "", sentence(parser.description or ""), ""]
        lines += _options(parser) if not below else []
        for kind, one in below:
            lines += [f"### operando {name} {kind}", "", sentence(one.description or ""), "", *_options(one)]
    return "\n".join(lines).rstrip() + "\n"


def _children(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _options(parser: argparse.ArgumentParser) -> list[str]:
    lines = ["```", (parser.epilog or "").partition("example:\n")[2].replace("\n  ", "\n").strip(), "```", ""]
    rows = [
        _row("`" + _spelled(action) + "`", action.help or "")
        for action in parser._actions
        if action.dest != "help"
    ]
    return [*lines, _row("option", ""), _row("---", "---"), *rows, ""] if rows else lines


def _spelled(action: argparse.Action) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    shown = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        return shown
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {shown}")


def _topics() -> str:
    described = asyncapi()
    lines = [
        MADE,
        "# Every MQTT topic",
        "",
        "Payloads: `operando schema payloads`; all of this: `operando schema asyncapi`.",
    ]
    lines += ["", _row("topic", "", "messages"), _row("---", "---", "---")]
    for channel in described["channels"].values():
        names = ", ".join(f"`{name}`" for name in channel["messages"])
        lines.append(_row(f"`{channel['address']}`", channel.get("description", ""), names))
    return "\n".join(lines) + "\n"


def _drivers() -> str:
    told = "Keys of each: [reference-station.md](reference-station.md). What was verified against what: "
    lines = [MADE, "# Every driver", "", f"{told}[INSTRUMENTS.md](../../drivers/INSTRUMENTS.md).", ""]
    lines += [_row("driver", "", "plays", "line", "usual period"), _row("---", "---", "---", "---", "---")]
    for name, model in BUILT_IN.items():
        usual = ", ".join(f"{key} {value}" for key, value in model.usual_line.items())
        kinds = ", ".join(model.line_kinds) or "none: it is made of other devices"
        lines.append(_row(
            f"`{name}`", _first(model), ", ".join(sorted(model.plays)) or "measures, or is part of another",
            kinds + (f" ({usual})" if usual else ""), model.usual_period,
        ))  # fmt: skip
    lines += ["", sentence(_first(ForeignDevice)) + " Entry-point group `operando.drivers`; see "
              "[drivers/README.md](../../drivers/README.md)."]  # fmt: skip
    return "\n".join(lines) + "\n"
