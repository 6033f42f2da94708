"""Zaber's messages: the checksums of the sheet, every kind of message, and everything that is none."""

import pytest

from drivers import zaber_messages as messages
from drivers.errors import BadReply, Refused

CHECKED = [  # of the sheet; the vendor's library accepted them
    (b"1 1 get pos", "AC"),
    (b"1 1 00 get pos", "2C"),
    (b"1 1 move abs 10000", "40"),
    (b"01 1 OK IDLE -- 0", "8C"),
    (b"01 1 00 OK IDLE WR 0", "BD"),
]


def parse(text, device=1, axis=1, message_id=0, must_check=True):
    return messages.parse_reply(text, device, axis, message_id, must_check=must_check)


@pytest.mark.parametrize(("content", "expected"), CHECKED)
def test_checksums_of_the_sheet(content, expected):
    assert messages.checksum(content) == expected
    assert (sum(content) + int(expected, 16)) % 256 == 0


def test_a_request_as_the_sheet_has_it():
    assert messages.request(1, 1, 0, "get pos") == b"/1 1 00 get pos:2C\n"


def test_a_request_for_the_status_is_empty():
    content = b"2 0 07"
    assert messages.request(2, 0, 7) == b"/2 0 07:" + messages.checksum(content).encode() + b"\n"


@pytest.mark.parametrize("words", ["get pos:00", "home\n/1 1 home", "a\\", "µm", "x" * 80])
def test_what_cannot_be_said_is_not_sent(words):
    with pytest.raises(ValueError):  # noqa: PT011 # whatever the text, nothing leaves
        messages.request(1, 1, 0, words)


@pytest.mark.parametrize("address", [(100, 1, 0), (1, 10, 0), (1, 1, 100), (-1, 0, 0)])
def test_addresses_and_ids_have_bounds(address):
    with pytest.raises(ValueError, match="no such address"):
        messages.request(*address, "home")


def test_the_reply_of_the_sheet():
    reply, alerts = parse(b"@01 1 00 OK IDLE WR 0:BD\r\n")
    assert reply == messages.Reply(1, 1, 0, busy=False, flag="WR", data="0")
    assert alerts == []


def test_a_reply_in_pieces_is_not_enough_until_its_last_byte():
    whole = b"@01 1 00 OK IDLE WR 0:BD\r\n"
    for n in range(len(whole)):
        assert parse(whole[:n]) == (None, [])


def test_a_late_reply_information_and_noise_are_skipped():
    late = b"@01 1 99 OK IDLE -- 0:" + messages.checksum(b"01 1 99 OK IDLE -- 0").encode()
    text = late + b"\r\n#01 1 00 hello\r\n\x00\xff@01 1 00 OK IDLE WR 0:BD\r\n"
    reply, _ = parse(text)
    assert reply.message_id == 0


def test_an_alert_comes_beside_the_reply():
    said = b"01 2 IDLE FS"
    text = b"!" + said + b":" + messages.checksum(said).encode() + b"\r\n@01 1 00 OK IDLE WR 0:BD\r\n"
    _, alerts = parse(text)
    assert alerts == [messages.Alert(1, 2, busy=False, flag="FS")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"@01 1 00 OK IDLE WR 1:BD\r\n", "has the checksum BD, its bytes say BC"),
        (b"@01 1 00 OK IDLE WR 0\r\n", "without the checksum"),
        (b"@02 1 00 OK IDLE WR 0:BC\r\n", "another address"),
        (b"@01 2 00 OK IDLE WR 0:BC\r\n", "another address"),
        (b"@01 1 OK IDLE -- 0:8C\r\n", "no message id"),
        (b"@01 1 00 OK LAZY WR 0:BD\r\n", "no reply of this protocol"),
        (b"@01 1 00 ok IDLE WR 0\r\n", "no reply of this protocol"),
        (b"hello\r\n", "no message of this protocol"),
        (b"!01 1 WHAT\r\n", "no alert of this protocol"),
    ],
)
def test_a_message_that_is_damaged_is_not_taken(text, why):
    with pytest.raises(BadReply, match=why):
        parse(text)


def test_every_single_flipped_bit_is_seen():
    whole = b"@01 1 00 OK IDLE -- 4711:"
    whole += messages.checksum(whole[1:-1]).encode() + b"\r\n"
    for at in range(len(whole) - 2):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            try:
                reply, _ = parse(bytes(damaged))
            except BadReply:
                continue
            assert reply is None, f"taken for {reply} with bit {bit} of byte {at} flipped"


@pytest.mark.parametrize("reason", sorted(messages.REASONS))
def test_every_rejection_says_why(reason):
    content = f"01 1 00 RJ IDLE -- {reason}"
    text = f"@{content}:{messages.checksum(content.encode())}\r\n".encode()
    with pytest.raises(Refused, match=reason):
        parse(text)


def test_warnings_are_counted():
    assert messages.parse_warnings("00") == ()
    assert messages.parse_warnings("02 WR NI") == ("WR", "NI")
    for wrong in ("", "02 WR", "WR", "1 WR NI"):
        with pytest.raises(BadReply):
            messages.parse_warnings(wrong)


def test_every_flag_of_the_sheet_has_words():
    faults = "FF FN FZ FH FV FO FD FC FM FQ FI FA FR FS FB FP FE FT"
    others = "WL WV WT WS WM WP WR WH NC NI ND NR NT NU NJ NB"
    sheet = f"{faults} {others}".split(" ")
    assert set(sheet) == set(messages.FLAGS)
    assert "does not know" in messages.words_of("XX")


@pytest.mark.parametrize("data", ["", "1.5", "1 2", "x", "9" * 19])
def test_what_is_no_whole_number(data):
    with pytest.raises(BadReply):
        messages.parse_integer(data)
