from importlib.metadata import EntryPoint

import pytest

from controller.config import ConfigErrors, from_text, load_station, station_from
from controller.config import devices as device_tables
from controller.config.station_rules import guard_names

from .conftest import HERE, changed, split_line

SENSOR_BREAK = (
    'sensor_break = { setting = "latching", safe_output = "0 %", confirmed_by = "virtual bench", '
    "confirmed_on = 2026-01-01 }\n"
)
LIMITS = (HERE / "station.toml").read_text().partition("[limits]")[2].partition("[[interlock]]")[0]


def test_the_bench_station_is_read_in_si(station):
    assert station.name == "bench"
    assert station.bench is not None
    assert station.bench.speed == 60.0
    limits = station.limits
    assert (limits.temperature.low_k, limits.temperature.high_k) == (263.0, 343.0)
    assert limits.temperature_rate_k_per_s == pytest.approx(20.0 / 60.0)
    assert (limits.voltage.low_v, limits.voltage.high_v) == (2.5, 4.05)
    assert limits.current_a == pytest.approx(40e-6)
    assert limits.charge_coulomb == pytest.approx(3.6)
    assert (limits.dose_per_cm2, limits.dwell_s) == (1e17, 0.1)
    assert station.beam.sample_kev == pytest.approx(2911.0)
    assert station.beam.current_a == pytest.approx(24e-12)
    assert dict(station.roles.named()) == {
        "heater": "heater", "cell": "cell", "scanner": "io", "pixe": "pixe", "pige": "pige",
    }  # fmt: skip
    assert station.io_name == "io"
    assert station.line_settings("cell") == {
        "kind": "serial", "port": "/dev/pts/4", "baud": 921600, "parity": "none", "stop_bits": 1,
    }  # fmt: skip
    assert station.line_settings("pixe") == {"kind": "udp", "host": "127.0.0.1", "port": 40001}


def test_drivers_get_si_values_under_names_that_end_in_their_unit(station):
    assert station.devices["io"].settings() == {
        "period_s": 0.1,
        "scanner": {
            "x_dac": 0, "y_dac": 1, "centre_v": 2.5, "scale_x_um_per_v": 100.0, "scale_y_um_per_v": 200.0,
            "pixel_clock": 0, "blank": 1, "settle_s": 0.002, "allowed_gap_s": 0.25,
        },
        "beam_current": {"ain": 0, "scale_a_per_v": pytest.approx(1e-11)},
        "relay": {"fio": 2},
        "shutter": {"fio": 3, "readback": 4},
        "permit": {"fio": 5},
        "watchdog": {"timeout_s": 3.0},
    }  # fmt: skip
    heater = station.devices["heater"].settings()
    assert heater["unit_id"] == 1
    assert heater["sensor_break"]["confirmed_by"] == "virtual bench"
    pige = station.device("pige").settings()
    assert pige["energy"] == {"offset_kev": 0.0, "gain_kev": 0.25}
    assert (pige["channels"], pige["list_clock_s"]) == (8192, pytest.approx(1e-6))


def test_reach_of_the_beam(station):
    scanner = station.device("scanner").scanner
    assert scanner.reach_um("x") == (-250.0, 250.0)  # (0 V - 2.5 V) * 100 um/V
    assert scanner.reach_um("y") == (-500.0, 500.0)


WRONG = [
    # --- units, types, keys
    (
        ('period = "0.25 s"', "period = 0.25"),
        'device.heater.period = 0.25 has no unit: a time is needed, such as "30 s" or "1.5 h"',
    ),
    (
        ('current = "24 pA"', 'current = "24 pV"'),
        'beam.current = "24 pV" is a voltage, but a current is needed, such as "26 uA"',
    ),
    (
        ('current = "40 uA"', 'current = "C/2"'),
        'limits.current = "C/2" is a C-rate, which has no meaning here: write a current such as "40 uA"',
    ),
    (
        ("baud = 9600", 'baud = "9600"'),
        'line.heater.baud = "9600" must be a whole number (without quotes)',
    ),
    (
        ("port = 40502", "port = 70000"),
        "line.io.port = 70000 must be at most 65535",
    ),
    (
        ("latch = true", "latch = 1"),
        "interlock[0].latch = 1 must be true or false (without quotes)",
    ),
    (
        ("temperature_rate =", "temprature_rate ="),
        'limits.temprature_rate = "20 K/min" is not a known key; did you mean "temperature_rate"?',
    ),
    (
        ('model = "es4_hr"', 'modle = "es4_hr"'),
        'device.cell.modle = "es4_hr" is not a known key; did you mean "model"?',
    ),
    (
        ('settle = "2 ms"', 'setle = "2 ms"'),
        'device.io.scanner.setle = "2 ms" is not a known key; did you mean "settle"?',
    ),
    (
        ('[station]\nname = "bench"', '[station]\nname = "my bench"'),
        'station.name = "my bench" must be a short name: letters, digits, - and _ (at most 40)',
    ),
    (
        ('model = "es4_hr"', 'model = "es5"'),
        'device.cell.model = "es5" must be one of "es4_hr" or "es4_lr"',
    ),
    # --- lines, ports, drivers, roles
    (
        ('line = "cell"', 'line = "cel"'),
        'device.cell.line = "cel" is no [line.X] of this file; did you mean "cell"?',
    ),
    (
        ("port = 40002", "port = 40001"),
        "line.pige.port = 40001 is the port of line.pixe as well",
    ),
    (
        ('line = "cell"', 'line = "heater"'),
        'device.cell.line = "heater" is already used by device.heater: only Modbus units with '
        "different unit_id share one",
    ),
    (
        ('driver = "labjack_t7"', 'driver = "labjack_t8"'),
        'device.io.driver = "labjack_t8" is no known driver; did you mean "labjack_t7"?',
    ),
    (
        ('driver = "palmsens_emstat4"', 'driver = "zebra"'),
        'device.cell.driver = "zebra" is no known driver; known are '
        + ", ".join(sorted(device_tables.BUILT_IN)),
    ),
    (
        ('driver = "palmsens_emstat4"\n', ""),
        'device.cell.driver is missing: which instrument it is, such as driver = "eurotherm_3200"',
    ),
    (
        ('kind = "tcp"', 'kind = "usb"'),
        'line.io.kind = "usb" is not known; known are epics, folder, serial, tcp, udp, zmq',
    ),
    (
        ('cell = "cell"', 'cell = "sell"'),
        'roles.cell = "sell" is no [device.X] of this file; did you mean "cell"?',
    ),
    (
        ('cell = "cell"', 'cell = "pixe"'),
        'roles.cell = "pixe" has the driver amptek_dp5, which cannot be the cell',
    ),
    (
        ('pige = "pige"', 'pige = "pixe"'),
        'roles.pige = "pixe" plays the role pixe already',
    ),
    (
        ('detector = "hpge"', 'detector = "sdd"'),
        'device.pige.detector = "sdd" cannot do pige: pige needs detector = "hpge"',
    ),
    # --- wiring
    (
        ("blank = 1", "blank = 0"),
        "device.io.scanner.blank = 0 is already used by scanner.pixel_clock: every digital line has one job",
    ),
    (
        ("permit = { fio = 5 }", "permit = { fio = 4 }"),
        "device.io.permit.fio = 4 is already used by shutter.readback: every digital line has one job",
    ),
    (
        ("y_dac = 1", "y_dac = 0"),
        "device.io.scanner.y_dac = 0 is the output that x_dac uses: x and y need one each",
    ),
    (
        ('scale_x = "100 um/V"', 'scale_x = "0 um/V"'),
        'device.io.scanner.scale_x = "0 um/V" must not be zero',
    ),
    (
        ('watchdog = { timeout = "3 s" }', 'watchdog = { timeout = "2.5 s" }'),
        'device.io.watchdog.timeout = "2.5 s" must be whole seconds: the instrument counts nothing finer',
    ),
    (
        ('watchdog = { timeout = "3 s" }', 'watchdog = { timeout = "60 s" }'),
        'device.io.watchdog.timeout = "60 s" is above 10 s',
    ),
    (
        ('beam_current = { ain = 0, scale = "10 pA/V" }\n', ""),
        "device.io.beam_current is missing: without it neither dose nor loss of beam is seen",
    ),
    (
        ('period = "0.25 s"', 'period = "0.1 s"'),
        'device.heater.period = "0.1 s" is faster than this controller answers: 0.2 s at least',
    ),
    (
        ('list_clock = "1 us"', 'list_clock = "2 us"'),
        'device.pixe.list_clock = "2 us" must be "1 us" or "100 ns": this instrument has no other',
    ),
    (
        ("channels = 2048", "channels = 2000"),
        "device.pixe.channels = 2000 must be one of 256, 512, 1024, 2048, 4096 or 8192",
    ),
    (
        ("fifo_words = 8192", "fifo_words = 64"),
        'device.pixe.period = "0.05 s" is too long: at 600 /s the list of 64 words must be read at '
        "least every 26.7 ms (half the time in which it fills)",
    ),
    (
        ('gain = "0.25 keV"', 'gain = "0.05 keV"'),
        "device.pige.energy ends the spectrum at 409.6 keV: the lithium line, its background band and "
        "the annihilation line need 520 keV",
    ),
    (
        ('period = "1 s"', 'period = "20 s"'),
        'device.cell.period = "20 s" must be from 0.1 s to 10 s: it is the interval of the samples',
    ),
    (
        ('scale = "10 pA/V"', 'scale = "0 pA/V"'),
        'device.io.beam_current.scale = "0 pA/V" must not be zero',
    ),
    (
        ('watchdog = { timeout = "3 s" }\n', ""),
        "device.io.watchdog is missing: a scanner without it leaves the beam on when the host dies",
    ),
    (
        ('line = "pixe"', 'line = "io"'),
        'device.pixe.line = "io" is a tcp line, and amptek_dp5 needs udp or serial',
    ),
    (
        ('host = "127.0.0.1"', 'host = "127.example.org"'),
        'line.io.host = "127.example.org" is not this machine, but the station has a [bench] table: a fast '
        "clock is for a virtual bench only",
    ),
    (
        ('port = "/dev/pts/3"', 'port = "/dev/pts/../ttyUSB0"'),
        'line.heater.port = "/dev/pts/../ttyUSB0" is a real serial port, but the station has a [bench] '
        "table: a fast clock is for a virtual bench only",
    ),
    (
        ('port = "/dev/pts/3"', 'port = ""'),
        'line.heater.port = "" must not be empty',
    ),
    # --- off paths and what a person must confirm
    (
        (SENSOR_BREAK, ""),
        "device.heater.sensor_break is missing: no register of this controller tells what it does when "
        'the Pt100 breaks: a person must confirm it, { setting = "latching", safe_output = "0 %", '
        'confirmed_by = "...", confirmed_on = 2026-01-31 }',
    ),
    (
        ('setting = "latching"', 'setting = "off"'),
        'device.heater.sensor_break.setting = "off" means full heat with a broken Pt100: set SB.TYP to '
        "on or latching at the instrument",
    ),
    (
        ('safe_output = "0 %"', 'safe_output = "10 %"'),
        'device.heater.sensor_break.safe_output = "10 %" keeps heating with a broken Pt100: it must be 0 %',
    ),
    (
        ('confirmed_by = "virtual bench"', 'confirmed_by = " "'),
        'device.heater.sensor_break.confirmed_by = " " must name the person who looked at the instrument',
    ),
    (
        (", confirmed_on = 2026-01-01", ""),
        "device.heater.sensor_break.confirmed_on is missing: the date on which that person looked, "
        "such as 2026-01-31 (without quotes)",
    ),
    (
        ("confirmed_on = 2026-01-01", 'confirmed_on = "yesterday"'),
        'device.heater.sensor_break.confirmed_on = "yesterday" must be a date such as 2026-01-31 '
        "(without quotes)",
    ),
    (
        ("relay = { fio = 2 }\n", ""),
        "device.heater has no off path of its own: wire a relay in series with the heater to the "
        'labjack_t7 and give that device relay = { fio = 2 } and watchdog = { timeout = "3 s" }',
    ),
    (
        ("permit = { fio = 5 }\n", ""),
        "device has no permit input: wire the emergency stop to the labjack_t7 and give that device "
        "permit = { fio = 5 }",
    ),
    # --- limits
    (
        ("[limits]" + LIMITS, ""),
        "limits is missing: a station without limits is refused; there is no unlimited default",
    ),
    (
        ('dose = "1e17 /cm2"', ""),
        "limits.dose is missing",
    ),
    (
        ('low = "2.5 V", high = "4.05 V"', 'low = "4.05 V", high = "2.5 V"'),
        'limits.voltage.high = "2.5 V" is not above the low limit',
    ),
    (
        ('high = "343 K"', 'high = "-1 K"'),
        'limits.temperature.high = "-1 K" is below absolute zero',
    ),
    # --- beam
    (
        ('foil_loss = "109 keV"', 'foil_loss = "4 MeV"'),
        'beam.foil_loss = "4 MeV" is not below the beam energy: no proton would reach the sample',
    ),
    (
        ('centroid = "481.0 keV"', 'centroid = "477.0 keV"'),
        'beam.lithium_line.centroid = "477.0 keV" is below 477.6 keV: a detector in forward direction '
        "sees the line shifted upwards, near 481 keV",
    ),
    (
        ('lithium = "3 /s"', 'lithium = "900 /s"'),
        'beam.rates.lithium = "900 /s" is not below rates.pige, which counts lithium among everything else',
    ),
    (
        ('species = "proton"', 'species = "helium"'),
        'beam.species = "helium" must be "proton"',
    ),
    (
        ('centroid = "481.0 keV"', 'centroid = "490 keV"'),
        'beam.lithium_line.centroid = "490 keV" is above 483 keV',
    ),
    (
        ('low = "263 K", high = "343 K"', 'low = "343 K", high = "343 K"'),
        'limits.temperature.high = "343 K" is not above the low limit',
    ),
    # --- interlocks
    (
        (
            "[broker]",
            '[[interlock]]\nname = "permit"\ncondition = "heater.output > 50 %"\ngrace = "5 s"\n'
            'action = "hold"\n[broker]',
        ),
        'interlock[1].name = "permit" is the name of another interlock row',
    ),
    (
        ("io.permit == false", "io.permit = false"),
        "interlock[0].condition = \"io.permit = false\" cannot be understood at 'io.permit = false': "
        'write device.field, an operator and a value, such as "io.permit == false" or '
        '"heater.temperature > 340 K"',
    ),
    (
        ("io.permit == false", "heater.temperature > 340"),
        'interlock[0].condition = "heater.temperature > 340" compares with "340", which has no unit: a '
        'temperature is needed, such as "333 K" or "60 degC"',
    ),
    (
        ('action = "safe"', 'action = "panic"'),
        'interlock[0].action = "panic" must be one of "hold", "open_circuit", "heater_off", "shutter" '
        'or "safe"',
    ),
    # --- bench, broker, remote
    (
        ('host = "127.0.0.1"', 'host = "10.0.0.5"'),
        'line.io.host = "10.0.0.5" is not this machine, but the station has a [bench] table: a fast '
        "clock is for a virtual bench only",
    ),
    (
        ('port = "/dev/pts/3"', 'port = "/dev/ttyUSB0"'),
        'line.heater.port = "/dev/ttyUSB0" is a real serial port, but the station has a [bench] table: '
        "a fast clock is for a virtual bench only",
    ),
    (
        ('nonce = "abcdef0123456789"\n', ""),
        "bench.nonce is missing",
    ),
    (
        ("speed = 60.0", "speed = 0.5"),
        "bench.speed = 0.5 must be at least 1",
    ),
    (
        ('kind = "embedded"', 'kind = "embedded"\nurl = "mqtt://host"'),
        'broker.url = "mqtt://host" belongs to kind = "external"; the embedded broker needs none',
    ),
    (
        ('kind = "embedded"', 'kind = "external"\nurl = "http://host"'),
        'broker.url = "http://host" must begin with mqtt:// or mqtts://',
    ),
    (
        ('kind = "embedded"', 'kind = "external"\nurl = "mqtt://"'),
        'broker.url = "mqtt://" names no host',
    ),
    (
        ('kind = "embedded"', 'kind = "external"'),
        'broker.url is missing: where the broker is, such as "mqtt://192.168.0.10:1883"',
    ),
    (
        ('kind = "embedded"', 'kind = "external"\nurl = "mqtt://me:secret@host"'),
        'broker.url = "mqtt://me:secret@host" carries a password: put user name and password into a '
        "file and name it in credentials",
    ),
    (
        ("enabled = false", 'enabled = true\nkeys = "keys.toml"'),
        "remote.enabled = true is refused with the embedded broker, which only this machine reaches: "
        'set broker.kind = "external"',
    ),
    (
        (
            'kind = "udp"\nhost = "127.0.0.1"\nport = 40001',
            'kind = "serial"\nport = "/dev/pts/9"\nbaud = 19200',
        ),
        'device.pixe.line = "pixe" is a serial line of 19200 baud, which carries 480 words of the list in a '
        "second; 600 /s make 1200: use udp",
    ),
    (
        ("enabled = false", "enabled = true"),
        "remote.keys is missing: without a file of keys nobody could sign a command",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:56] for _, message in WRONG])
def test_wrong_stations_are_refused_in_words(change, message, station_errors):
    found = dict(split_line(text) for text in station_errors(change))
    message = f"station.toml: {message}"
    assert message in found
    line, key = found[message], message.split(" ")[1].replace("[0]", "")
    if line is not None:  # it holds the key, or one of the tables around it
        text = changed("station.toml", (change,)).splitlines()[line - 1]
        assert any(part in text for part in key.split("."))


def test_a_box_without_scanner_wiring_is_no_scanner(station_errors):
    text = (HERE / "station.toml").read_text()
    wiring = next(line for line in text.splitlines() if line.startswith("scanner = {"))
    (message,) = station_errors((wiring + "\n", ""))
    assert 'roles.scanner = "io" has no scanner wiring: device.io.scanner is missing' in message


def test_one_mistake_is_one_message(station_errors):
    for change in (
        ('period = "0.25 s"', "period = 0.25"),
        ("port = 40002", "port = 40001"),
        ("blank = 1", "blank = 0"),
    ):
        assert len(station_errors(change)) == 1


def test_everything_wrong_is_reported_at_once_in_the_order_of_the_file(station_errors):
    messages = station_errors(
        ('period = "0.25 s"', "period = 0.25"),
        ("baud = 9600", "baud = 12"),
        ('line = "cell"', 'line = "cel"'),
        ("relay = { fio = 2 }\n", ""),
        ('high = "343 K"', 'high = "343 V"'),
        ("io.permit == false", "io.permit"),
        ("enabled = false", "enable = false"),
    )
    assert [message.split(" ")[1] for message in messages] == [
        "line.heater.baud", "device.heater", "device.heater.period", "device.cell.line",
        "limits.temperature.high", "interlock[0].condition", "remote.enable",
    ]  # fmt: skip


def test_a_name_for_the_port_of_a_bench_is_followed(tmp_path, station_with):
    name = tmp_path / "by-id"
    name.symlink_to("/dev/pts/3")
    assert station_with(("/dev/pts/3", str(name))).lines["heater"].port == str(name)
    name.unlink()
    name.symlink_to("/dev/ttyUSB0")
    with pytest.raises(ConfigErrors, match="is a real serial port"):
        station_with(("/dev/pts/3", str(name)))
    with pytest.raises(ConfigErrors):
        station_with(("/dev/pts/3", "/dev/pts/3\\u0000"))


def test_two_units_share_a_modbus_line(station_with):
    text = (HERE / "station.toml").read_text()
    heater = text.partition("[device.heater]")[2].partition("[device.cell]")[0]
    second = "[device.oven]" + heater.replace("unit_id = 1", "unit_id = 2")
    assert "oven" in station_with(("[roles]", second + "[roles]")).devices
    with pytest.raises(ConfigErrors, match="only Modbus units with different unit_id share one"):
        station_with(("[roles]", second.replace("unit_id = 2", "unit_id = 1") + "[roles]"))


def test_a_real_station_may_use_real_ports(station_with):
    bench = (HERE / "station.toml").read_text().partition("[bench]")[2].partition("[line.heater]")[0]
    station = station_with(
        ("[bench]" + bench, ""), ("/dev/pts/3", "/dev/ttyUSB0"), ("127.0.0.1", "192.168.7.7")
    )
    assert station.bench is None


def test_files_that_are_named_must_exist(tmp_path):
    text = (HERE / "station.toml").read_text()
    text = text.replace(
        'kind = "embedded"', 'kind = "external"\nurl = "mqtt://host"\ncredentials = "broker.txt"'
    )
    (tmp_path / "station.toml").write_text(text)
    with pytest.raises(ConfigErrors, match=r'broker\.credentials = "broker\.txt" is no file \(looked for '):
        load_station(tmp_path / "station.toml")
    (tmp_path / "broker.txt").write_text("me\nsecret\n")
    assert load_station(tmp_path / "station.toml").broker.credentials == "broker.txt"


def test_a_third_party_driver_keeps_its_own_keys(monkeypatch):
    point = EntryPoint("acme_box", "acme:Box", device_tables.DRIVER_GROUP)
    monkeypatch.setattr(device_tables, "entry_points", lambda group: [point])
    text = (HERE / "station.toml").read_text() + (
        '[line.box]\nkind = "tcp"\nhost = "127.0.0.1"\nport = 5025\n'
        '[device.box]\ndriver = "acme_box"\nline = "box"\nperiod = "2 s"\ncolour = "red"\n'
    )
    station = station_from(from_text(text, "station.toml"))
    assert station.devices["box"].settings() == {"colour": "red", "period_s": 2.0}


def test_a_modbus_unit_with_a_driver_from_elsewhere_may_share_a_line(monkeypatch):
    point = EntryPoint("acme_box", "acme:Box", device_tables.DRIVER_GROUP)
    monkeypatch.setattr(device_tables, "entry_points", lambda group: [point])
    text = (HERE / "station.toml").read_text()
    box = '[device.box]\ndriver = "acme_box"\nline = "heater"\nunit_id = 2\nperiod = "2 s"\n'
    assert "box" in station_from(from_text(text + box, "station.toml")).devices
    for wrong in (box.replace("unit_id = 2", "unit_id = 1"), box.replace("unit_id = 2\n", "")):
        with pytest.raises(ConfigErrors, match="only Modbus units with different unit_id share one"):
            station_from(from_text(text + wrong, "station.toml"))


def test_what_the_guard_calls_a_device():
    raw = {
        "device": {"oven": {"driver": "eurotherm_3200"}, "spare": {"driver": "eurotherm_3200"},
                   "acme": {"driver": "acme_box"}, "box": {"driver": "labjack_t7"}},
        "roles": {"heater": "oven", "scanner": "acme"},
    }  # fmt: skip
    assert guard_names(raw) == {"oven": "heater", "spare": "", "acme": "io", "box": "io"}


def test_interlock_rows_know_what_the_guard_calls_their_device(station_with):
    station = station_with(
        ("[device.io]", "[device.box]"), ('scanner = "io"', 'scanner = "box"'),
        ("io.permit == false", "box.permit == false or heater.temperature > 60 degC"),
    )  # fmt: skip
    assert station.io_name == "box"
    condition = station.conditions[0]
    assert [comparison.channel for comparison in condition.comparisons()] == [
        "io.permit",
        "heater.temperature",
    ]
    assert condition.holds({"io.permit": True, "heater.temperature": 333.2}) is True
    assert condition.holds({"io.permit": True, "heater.temperature": 333.1}) is False
