"""The ``operando`` command: argument parsing only. What a command needs is imported when it was typed."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXIT = """exit codes:
  0 done   2 wrong file or arguments   3 an instrument   4 stopped by the guard
  5 aborted by a person   6 finished, but with gaps"""

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["reduce"]:  # a program of its own: every option and --help are its business
        words, handed_on = words[:1], words[1:]
    args = command_line().parse_args(words)
    if words == ["reduce"]:
        args.rest = handed_on
    command: Command = pkgutil.resolve_name(f"controller.{args.command}")
    try:
        return command(args)
    except KeyboardInterrupt:
        return 5
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def command_line() -> argparse.ArgumentParser:
    """Return what can be typed."""
    made = argparse.ArgumentParser(
        prog="operando",
        description="Runs autonomous operando battery experiments at a beamline.",
        epilog=EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=_version())
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_check(commands)
    _add_bench(commands)
    _add_init(commands)
    _add_doctor(commands)
    _add_tune(commands)
    _add_off(commands)
    _add_backup(commands)
    _add_talk(commands)
    _add_remote(commands)
    _add_web(commands)
    _add_notify(commands)
    _add_offline(commands)
    return made


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: str,
    text: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(command=command)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = _add(
        commands, "run", "launch:run", "run an experiment to its end",
        "operando run experiment.toml --station station.toml --out runs",
    )  # fmt: skip
    run.add_argument("experiment", type=Path, help="the experiment file")
    run.add_argument("--station", type=Path, help="the station file (not with --bench)")
    run.add_argument(
        "--out", type=Path, default=Path("runs"), help="where the run's folder is made (default runs)"
    )
    _add_state(run)
    _add_trace(run)
    run.add_argument("--json", action="store_true", help="print the summary as JSON, no live view")
    _add_service(run)
    bench = run.add_argument_group("virtual bench")
    bench.add_argument("--bench", action="store_true", help="start the virtual bench and run against it")
    bench.add_argument(
        "--speed", type=float, default=1.0, metavar="N", help="lab seconds per second, a ceiling"
    )
    bench.add_argument("--seed", type=int, default=1, metavar="S", help="seed of the bench's noise")
    bench.add_argument("--fault", type=Path, metavar="FILE", help="faults to inject")
    bench.add_argument("--truth", type=Path, metavar="FILE", help="where the bench writes what was true")
    _add_rack(bench)
    resume = _add(
        commands, "resume", "launch:resume", "go on with a run after a crash or a power cut",
        "operando resume runs/20260101-120000-quickstart",
    )  # fmt: skip
    resume.add_argument("run_dir", type=Path, nargs="?", metavar="RUN", help="the folder of the run")
    resume.add_argument(
        "--interrupted", action="store_true", help="the run that this station was in the middle of, if any"
    )
    resume.add_argument("--station-name", default="bench", help="whose, with --interrupted (default bench)")
    _add_service(resume)
    _add_trace(resume)
    _add_state(resume)
    resume.add_argument("--json", action="store_true")


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = _add(
        commands, "check", "check:main", "validate files, read every instrument, energise nothing, estimate",
        "operando check station.toml experiment.toml",
    )  # fmt: skip
    check.add_argument("station", type=Path)
    check.add_argument("experiment", type=Path, nargs="?")
    check.add_argument("--files-only", action="store_true", help="do not connect to any instrument")
    check.add_argument(
        "--look-around", action="store_true",
        help="ask silent Modbus instruments to identify themselves at other units and speeds",
    )  # fmt: skip
    _add_trace(check)
    check.add_argument("--json", action="store_true")


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = _add(
        commands, "bench", "launch:bench", "start the virtual bench and print the station file it wrote",
        "operando bench --scenario quickstart --speed 10",
    )  # fmt: skip
    bench.add_argument("--dir", type=Path, default=Path("bench"), help="where station.toml is written")
    bench.add_argument("--scenario", default="quickstart", help="name or file of the sample and cell")
    bench.add_argument("--speed", type=float, default=1.0, metavar="N")
    bench.add_argument("--seed", type=int, default=1, metavar="S")
    bench.add_argument("--fault", type=Path, metavar="FILE")
    bench.add_argument("--truth", type=Path, metavar="FILE")
    bench.add_argument(
        "--replay-trace", type=Path, metavar="FILE",
        help="no bench: the instruments of a trace that --trace-wire wrote answer again",
    )  # fmt: skip
    _add_rack(bench)


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    example = "operando init mosquitto broker --station-name lab --name 192.168.0.10 --listen 192.168.0.10"
    init = commands.add_parser(
        "init", help="write files to begin with: init station, experiment, mosquitto, systemd, udev",
        description="Write commented files to begin with. Nothing is ever overwritten.",
        epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    kinds = init.add_subparsers(title="what to write", metavar="KIND", required=True)
    _add_starters(kinds)
    broker = _add(
        kinds, "mosquitto", "mosquitto_files:main", "a broker of one's own: TLS, passwords, rights", example
    )
    broker.add_argument("dir", type=Path, metavar="DIR", help="the folder to write, private to its owner")
    broker.add_argument("--station-name", default="bench", help="name of the station (default bench)")
    broker.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="name or address by which clients reach it",
    )
    broker.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="default: this machine only")
    broker.add_argument("--port", type=int, default=8883)
    broker.add_argument(
        "--key", action="append", default=[], metavar="NAME:ROLE",
        help="who may send signed commands, as operator or as viewer (who may only stop)",
    )  # fmt: skip
    broker.add_argument("--days", type=int, default=730, help="for which the certificate is valid")
    broker.add_argument("--renew", action="store_true", help="only a new certificate for the same names")
    units = _add(
        kinds, "systemd", "systemd_files:main", "units that make safe, run, resume and watch over a station",
        "operando init systemd units --station /etc/operando/station.toml --user operando",
    )  # fmt: skip
    units.add_argument("dir", type=Path, metavar="DIR", help="the folder to write the units to")
    units.add_argument("--station", type=Path, required=True, help="the station file")
    units.add_argument("--user", help="a user without privileges (default: you)")
    units.add_argument("--out", type=Path, help="where runs are made (default /var/lib/operando/NAME/runs)")
    units.add_argument(
        "--operando", type=Path, metavar="FILE", help="the program (default: this environment's)"
    )
    _add_state(units, "/var/lib/operando/NAME/state")
    udev = _add(
        kinds, "udev", "udev_rules:main", "rules that give the serial ports of a station stable names",
        "operando init udev station.toml --out 99-operando-lab.rules",
    )  # fmt: skip
    udev.add_argument("station", type=Path)
    udev.add_argument("--out", type=Path, metavar="FILE", help="write them here (default: print them)")


def _add_starters(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    station = _add(
        kinds, "station", "starter.command:station", "a commented station file for the instruments at hand",
        "operando init station station.toml --with heater=eurotherm_3200 --with cell=palmsens_emstat4",
    )  # fmt: skip
    station.add_argument("file", type=Path, metavar="FILE", help="the file to write, or a folder for it")
    station.add_argument(
        "--with", action="append", default=[], dest="chosen", metavar="ROLE=DRIVER",
        help="an instrument: its role, or a name of yours if it only measures, and its driver; may be "
        "repeated. Without it you are asked",
    )  # fmt: skip
    station.add_argument("--station-name", metavar="NAME", help="name of the station (default lab)")
    experiment = _add(
        kinds, "experiment", "starter.command:experiment",
        "a commented experiment file for what a station can do",
        "operando init experiment experiment.toml --station station.toml",
    )  # fmt: skip
    experiment.add_argument("file", type=Path, metavar="FILE", help="the file to write, or a folder for it")
    experiment.add_argument("--station", type=Path, required=True, help="the station file")
    experiment.add_argument("--name", help="name of the experiment and of its run's folder (default first)")


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = _add(
        commands, "doctor", "doctor.examine:main",
        "say what is wrong with this machine (exit code 3 if something is)",
        "operando doctor station.toml",
    )  # fmt: skip
    doctor.add_argument("station", type=Path, nargs="?", help="the station file, to look at its ports")
    doctor.add_argument("--out", type=Path, default=Path("runs"), help="where runs are made (default runs)")
    _add_state(doctor)
    doctor.add_argument("--json", action="store_true")


def _add_tune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tune = _add(
        commands, "tune", "tune:main",
        "identify the heater and find gains, with capped power and a small swing",
        "operando tune station.toml --at 60degC --power-cap 20W --room 23.0degC",
    )  # fmt: skip
    tune.add_argument("station", type=Path)
    tune.add_argument("experiment", type=Path, nargs="?", help="for the limits of its chemistry and sample")
    tune.add_argument("--at", required=True, metavar="T", help="the temperature at which it will be used")
    tune.add_argument("--swing", default="1.5 K", metavar="DT", help="of the relay test, 1 to 2 K (1.5 K)")
    tune.add_argument("--power-cap", metavar="P", help="no more than this (default: full power)")
    tune.add_argument("--power", metavar="P", help="at full output, for an instrument with its own loop")
    tune.add_argument(
        "--room", metavar="T",
        help="the room's temperature, as measured: tells a warm room from a small loss of heat",
    )  # fmt: skip
    tune.add_argument("--room-within", metavar="DT", help="its error, one sigma (0.5 K)")
    tune.add_argument("--out", type=Path, default=Path("tune"), help="where it writes (default tune)")
    _add_state(tune)
    tune.add_argument("--json", action="store_true")


def _add_off(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    off = _add(
        commands, "off", "off:main", "drive every output off while no host runs (with one: operando safe)",
        "operando off station.toml",
    )  # fmt: skip
    off.add_argument("station", type=Path)
    off.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="S",
        help="try again for so long, as at the start of a board",
    )
    _add_state(off)
    off.add_argument("--json", action="store_true")


def _add_backup(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    backup = _add(
        commands, "backup", "backup:main",
        "copy the journal, also during a run, and list the runs with sha256",
        "operando backup /media/disk/lab-2026-11-21 --station-name lab",
    )  # fmt: skip
    backup.add_argument("destination", type=Path, metavar="DEST", help="a folder that does not exist yet")
    backup.add_argument("--station-name", default="bench", help="name of the station (default bench)")
    _add_state(backup)
    backup.add_argument("--verify", action="store_true", help="only look whether DEST is sound")
    backup.add_argument(
        "--runs", type=Path, metavar="DIR", help="with --verify: where copies of the runs are"
    )


def _add_talk(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    talk = {
        "status": "what the host of a station is doing",
        "pause": "pause: beam blanked, circuit open, temperature kept",
        "proceed": "go on after a pause",
        "stop": "end after the present pass, with a result",
        "abort": "end now: everything off, no further steps",
        "safe": "everything off within 100 ms, whatever the host is doing",
        "watch": "follow a running host in this terminal",
    }
    for verb, text in talk.items():
        parser = _add(commands, verb, "talk:talk", text, f"operando {verb} --station-name bench")
        parser.set_defaults(verb=verb)
        parser.add_argument("--station-name", default="bench", help="name of the station")
        _add_state(parser)
        parser.add_argument("--json", action="store_true")
    answer = _add(
        commands, "answer", "talk:talk", "answer a question of the running host (status and watch show it)",
        "operando answer continue\n  operando answer q2 \"sample B\"",
    )  # fmt: skip
    answer.set_defaults(verb="answer")
    answer.add_argument(
        "words", nargs="+", metavar="[ID] CHOICE",
        help="the id of the question, unless it is the only one, and one of its answers",
    )  # fmt: skip
    answer.add_argument("--station-name", default="bench")
    answer.add_argument("--json", action="store_true")
    _add_state(answer)
    clear = _add(
        commands,
        "clear",
        "talk:talk",
        "clear a latched trip after its cause is gone",
        "operando clear permit",
    )
    clear.set_defaults(verb="clear")
    clear.add_argument("id", help="the id of the trip, as status shows it")
    clear.add_argument(
        "--acknowledge",
        default="",
        metavar="TEXT",
        help="what you found, where the trip asks a person to look",
    )
    clear.add_argument("--station-name", default="bench")
    clear.add_argument("--json", action="store_true")
    _add_state(clear)


def _add_remote(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    remote = _add(
        commands, "remote", "remote:main", "send a signed command from another machine, through the broker",
        "operando remote safe --url mqtts://broker.lab:8883 --ca ca.crt --credentials operator.credentials "
        "--key desk.key",
    )  # fmt: skip
    remote.add_argument("verb", choices=("pause", "proceed", "stop", "abort", "safe", "answer"))
    remote.add_argument(
        "words", nargs="*", metavar="[ID] CHOICE", help="with answer: which question, and what is answered"
    )
    remote.add_argument("--url", required=True, help="the station's broker")
    remote.add_argument("--ca", type=Path, metavar="FILE", help="authority of the broker's certificate")
    remote.add_argument("--credentials", type=Path, required=True, metavar="FILE", help="account, password")
    remote.add_argument("--key", type=Path, required=True, metavar="FILE", help="name, role and key")
    remote.add_argument("--station-name", default="bench")
    remote.add_argument("--why", default="", help="the reason, for the station's journal")


def _add_web(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    page = _add(
        commands, "web", "web.standing:main", "the live page of a station, which stays from run to run",
        "operando web station.toml",
    )  # fmt: skip
    page.add_argument("station", type=Path, help="the station file: [web] says where, and who may look")
    _add_state(page)


def _add_notify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    notify = _add(
        commands, "notify", "notices.trial:main",
        "send a test message to everybody whom [notify] of a station names",
        "operando notify station.toml",
    )  # fmt: skip
    notify.add_argument("station", type=Path)
    notify.add_argument("--json", action="store_true")


def _add_offline(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add(
        commands, "reduce", "apart:reduce", "reduce recorded or foreign files: reduce TECHNIQUE FILES...",
        "operando reduce gamma spectrum.Spe --out results",
    )  # fmt: skip
    from controller.offline import calibrate_options

    calibrate_options.add_arguments(
        _add(
            commands, "calibrate", "apart:calibrate",
            "energy scale of a detector from known lines, as a station's table",
            calibrate_options.EXAMPLE,
        )
    )  # fmt: skip
    report = _add(
        commands, "report", "apart:finish", "write report.html of a finished run, with --pdf also report.pdf",
        "operando report runs/20260101-q --pdf",
    )  # fmt: skip
    report.add_argument(
        "--pdf", action="store_true", help="print it to report.pdf, with this machine's Chromium"
    )
    export = _add(
        commands, "export", "apart:finish",
        "write a finished run for other programs: NeXus, CSV, TIFF, documents",
        "operando export runs/20260101-q --format maps",
    )  # fmt: skip
    export.add_argument(
        "--format", choices=("nexus", "bdf", "maps", "documents", "all"), default="all",
        help="nexus: run.nxs; bdf: cell.bdf.csv, impedance.csv; maps: maps/*.ome.tif, maps/*.csv, "
        "profiles.csv; documents: documents.jsonl for bluesky, Tiled, databroker (default: all)",
    )  # fmt: skip
    for name, parser in (("report", report), ("export", export)):
        parser.set_defaults(part=name)
        parser.add_argument("run_dir", type=Path, metavar="RUN")
    schema = _add(
        commands, "schema", "schemas:main",
        "print a JSON Schema: station, experiment, summary, payloads, asyncapi",
        "operando schema experiment",
    )  # fmt: skip
    schema.add_argument("kind", choices=("station", "experiment", "summary", "payloads", "asyncapi"))


def _add_rack(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--with", action="append", default=[], dest="chosen", metavar="ROLE=DRIVER",
        help="another instrument in the bench's rack, or none, such as cell=none; may be repeated",
    )  # fmt: skip


def _add_state(parser: argparse.ArgumentParser, usual: str = "XDG, per station") -> None:
    parser.add_argument("--state", type=Path, metavar="DIR", help=f"state directory (default: {usual})")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trace-wire", type=Path, metavar="FILE", help="record every byte on every wire, to be played back"
    )


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--service", action="store_true", help="no view: be the supervisor, as a service manager wants it"
    )


def _version() -> str:
    from importlib.metadata import version

    return f"operando {version('operando')}"


if __name__ == "__main__":
    sys.exit(main())
