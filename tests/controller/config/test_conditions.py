import pytest

from controller.config.conditions import parse_condition
from controller.config.quantities import QuantityError

ROLES = {"oven": "heater", "cell": "cell", "io": "io", "pixe": ""}


def test_switch():
    condition = parse_condition("io.permit == false", ROLES)
    assert condition.holds({"io.permit": False}) is True
    assert condition.holds({"io.permit": True}) is False
    assert condition.holds({"io.permit": None}) is None
    assert condition.holds({}) is None
    assert str(condition) == "io.permit == false"


def test_quantities_become_si_and_devices_their_role():
    (comparison,) = parse_condition("oven.temperature >= 60 degC", ROLES).comparisons()
    assert (comparison.device, comparison.channel, comparison.unit) == ("oven", "heater.temperature", "K")
    assert comparison.value == pytest.approx(333.15)
    (current,) = parse_condition("io.beam_current < 5 pA", ROLES).comparisons()
    assert current.value == pytest.approx(5e-12)
    (output,) = parse_condition("oven.output > 90 %", ROLES).comparisons()
    assert output.value == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("sign", "below", "same", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
    ],
)
def test_operators(sign, below, same, above):
    condition = parse_condition(f"cell.voltage {sign} 4 V", ROLES)
    assert [condition.holds({"cell.voltage": volt}) for volt in (3.9, 4.0, 4.1)] == [below, same, above]


def test_and_binds_more_than_or_and_the_unknown_is_carried():
    condition = parse_condition("cell.voltage > 4 V and oven.output > 50 % or io.blanked != true", ROLES)
    low, high = {"cell.voltage": 3.0}, {"cell.voltage": 5.0}
    assert condition.holds({**high, "heater.output": 0.6, "io.blanked": True}) is True
    assert condition.holds({**high, "heater.output": 0.4, "io.blanked": True}) is False
    assert condition.holds({**low, "io.blanked": True}) is False  # output does not matter any more
    assert condition.holds({**high, "io.blanked": True}) is None
    assert condition.holds({"io.blanked": False}) is True
    assert condition.holds({**low}) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("io.permit", "cannot be understood at 'io.permit'"),
        ("io.permit = false", "cannot be understood"),
        ("io.permit == false and", "cannot be understood at ''"),
        ("(io.permit == false)", "cannot be understood"),
        ("__import__('os')", "cannot be understood"),
        ("pump.speed > 3 /s", 'names the device "pump", which this station does not have'),
        (
            "pixe.rate > 3 /s",
            'names "pixe.rate", which the guard does not know; of this device it knows nothing',
        ),
        ("oven.colour > 3 K", "of this device it knows oven.temperature, oven.output"),
        ("oven.temperature == 333 K", "compares the measured oven.temperature with ==: use <, <=, > or >="),
        ("oven.temperature > 333", 'compares with "333", which has no unit'),
        ("oven.temperature > 3 V", 'compares with "3 V", which is a voltage, but a temperature is needed'),
        ("io.permit > 3 V", "compares the switch io.permit: write == true or == false"),
        ("io.permit == 0", "compares the switch io.permit: write == true or == false"),
    ],
)
def test_refusals(text, complaint):
    with pytest.raises(QuantityError) as caught:
        parse_condition(text, ROLES)
    assert complaint in str(caught.value)
