"""Rules of the line of faults."""

from __future__ import annotations

import pytest

from gateway.emulator.faults import NO_FAULTS, FaultError, Faults, parse


def test_an_empty_line_asks_for_nothing() -> None:
    """No line means that nothing goes wrong."""
    assert parse("") == NO_FAULTS == Faults()


def test_a_line_names_several_faults() -> None:
    """Faults are separated by commas, spaces do not matter, and a bare name of a flag means yes."""
    assert parse("status=500, delay=20,gzip") == Faults(status=500, delay=20, gzip=True)


def test_fields_add_up() -> None:
    """The fault `field` may be repeated; each one is a field of the answer, in order."""
    assert parse("field=x-a:1,field=x-a: 2").fields == (("x-a", "1"), ("x-a", "2"))


def test_close_names_a_place_in_the_body() -> None:
    """`close` strikes at the head, after so many bytes of the body, or once it is whole."""
    assert (parse("close=head").close, parse("close=7").close) == (0, 7)
    assert parse("close=whole") == Faults(close_whole=True)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "status=99",
        "status=abc",
        "delay=-1",
        "gzip=maybe",
        "units=NaN",
        "units=-1",
        "framing=odd",
        "field=no-colon",
        "field=x:a\rb",
        "on=sometimes",
        "piece=0",
        "interim=11",
        "type=",
    ],
)
def test_what_is_not_understood_is_refused(line: str) -> None:
    """A misspelt fault is an error and never silence: a test would pass for the wrong reason."""
    with pytest.raises(FaultError):
        parse(line)
