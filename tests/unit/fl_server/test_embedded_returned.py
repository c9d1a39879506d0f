"""Whatever a trainer returns is taken exactly or refused with the field and what to return instead."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.fl_server.embedded.parameters import (
    BadParameters,
    from_npz,
    from_trainer,
    problem_with,
    to_npz,
)
from service.fl_server.embedded.trainer import Fault, Trainer, TrainerFault

PLAIN = """
import numpy as np
{top}

def load_data(site, data_dir):
    return 1

def initial_parameters(config):
    return [np.zeros(3)]

def fit(parameters, data, config):
    {fit}

def evaluate(parameters, data, config):
    {evaluate}
"""


@pytest.fixture(autouse=True)
def _no_trace_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def trainer(
    tmp_path: Path,
    top: str = "",
    fit: str = "return parameters, 10, {}",
    evaluate: str = "return 10, {}",
) -> Trainer:
    (tmp_path / "trainer.py").write_text(PLAIN.format(top=top, fit=fit, evaluate=evaluate))
    return Trainer(tmp_path, "trainer.py", "Trust_2")


def fault(tmp_path: Path, top: str = "", fit: str = "return parameters, 10, {}") -> str:
    made = trainer(tmp_path, top, fit)
    made.load_data("data")
    with pytest.raises(TrainerFault) as caught:
        made.fit(made.initial_parameters({}), {})
    assert caught.value.fault.function == "fit"
    cause = caught.value.fault.cause
    assert type(cause) is str
    assert len(cause) < 460, "the advice at the end must not be cut"
    return cause


RAISING = """
def broken(*given, **named):
    raise {error}("broken here")

class Hostile({base}):
    {names} = broken
"""


def raising(names: str, base: str = "object", error: str = "RuntimeError") -> str:
    return RAISING.format(names=" = ".join(names.split()), base=base, error=error)


OBJECTS = {
    "array": raising("__array__"),
    "interface": raising("__getattribute__"),
    "class": "class Hostile:\n    __class__ = property(lambda s: 1 / 0)\n",
    "length": raising("__len__ __getitem__ __iter__"),
    "mapping": raising("keys items __iter__ __len__ __getitem__", "dict"),
    "list": raising("__iter__ __len__ __getitem__", "list"),
    "text": raising("__str__ __repr__ __format__ __hash__ __eq__", "str"),
    "whole": raising("__int__ __index__ __float__ __eq__ __lt__ __bool__ __str__ __repr__", "int"),
    "float": raising("__float__ __eq__ __lt__ __bool__ __str__ __repr__", "float"),
    "ndarray": raising("__array__ __getitem__ __iter__ __array_ufunc__", "np.ndarray"),
    "item": raising("item __float__"),
    "exit": raising("__array__ __iter__ item __float__ __len__", error="SystemExit"),
    "interrupt": raising("__array__ __iter__ item __float__ __len__", error="KeyboardInterrupt"),
    "close": raising("__array__ __iter__ item __float__ __len__", error="GeneratorExit"),
    "metaclass": "class Meta(type):\n    def __getattribute__(self, name):\n        raise OSError(name)\n"
    "class Hostile(metaclass=Meta):\n    pass\n",
    "descriptor": "class Hostile:\n    item = shape = dtype = __array__ = property(lambda s: 1 / 0)\n",
}
WAYS = {
    "all": "return made",
    "parameters": "return made, 10, {}",
    "array": "return [made], 10, {}",
    "nested": "return [[made, made]], 10, {}",
    "named": "return {'w': made}, 10, {}",
    "examples": "return parameters, made, {}",
    "metrics": "return parameters, 10, made",
    "metric": "return parameters, 10, {'loss': made}",
    "label": "return parameters, 10, dict([(made, 1.0)])",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OBJECTS)
def test_no_returned_object_escapes_the_guard(tmp_path: Path, name: str, way: str) -> None:
    top = OBJECTS[name]
    arguments = "(3,)" if name == "ndarray" else ""
    made = trainer(tmp_path, top, f"made = Hostile({arguments}); {WAYS[way]}")
    made.load_data("data")
    taken: list[Any] = []
    refused: Fault | None = None
    try:
        taken += made.fit(made.initial_parameters({}), {})
    except TrainerFault as exc:
        refused = exc.fault
    if refused is not None:
        assert refused.function == "fit"
        assert refused.cause
        return
    parameters, examples, metrics = taken
    # Taken: then every part is plain.
    assert all(type(array) is np.ndarray for array in parameters.arrays)
    assert type(examples) is int
    assert all(
        type(key) is str and type(value) in (float, type(None)) for key, value in metrics.items()
    )


FIELDS = {
    "parameters": (
        "return [made], 10, {}",
        "parameters[0] can't be made a numpy array: RuntimeError",
    ),
    "named": (
        "return {'w': made}, 10, {}",
        "parameters['w'] can't be made a numpy array: RuntimeError",
    ),
    "examples": (
        "return parameters, made, {}",
        "num_examples can't be read: RuntimeError: broken here",
    ),
    "metric": (
        "return parameters, 10, {'loss': made}",
        "metric 'loss' can't be read: RuntimeError",
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_raising_value_is_named_with_its_line_and_its_remedy(tmp_path: Path, name: str) -> None:
    code, told = FIELDS[name]
    cause = fault(tmp_path, raising("__array__ item"), f"made = Hostile(); {code}")
    assert told in cause
    assert "(trainer.py line 5)" in cause
    assert "; return " in cause


def test_a_raising_mapping_names_its_field(tmp_path: Path) -> None:
    top = raising("items __iter__", "dict")
    assert "metrics can't be read: RuntimeError: broken here" in fault(
        tmp_path, top, "return parameters, 10, Hostile()"
    )
    assert "parameters can't be read: RuntimeError: broken here" in fault(
        tmp_path, top, "return Hostile(a=1), 10, {}"
    )


ERRORS = {
    "text": (
        "class Odd(Exception):\n    def __str__(self):\n        raise OSError('no text')\n",
        "Odd",
    ),
    "exit text": (
        "class Odd(BaseException):\n    def __str__(self):\n        raise SystemExit\n",
        "Odd",
    ),
    "class": ("class Odd(Exception):\n    __class__ = property(lambda s: 1 / 0)\n", "Odd"),
    "attributes": (
        "class Odd(Exception):\n    def __getattribute__(self, name):\n        raise KeyError(name)\n",
        "Odd",
    ),
    "metaclass": (
        "class Meta(type):\n    def __getattribute__(self, name):\n        raise OSError(name)\n"
        "class Odd(Exception, metaclass=Meta):\n    pass\n",
        "Odd",
    ),
    "notes": ("class Odd(Exception):\n    __notes__ = property(lambda s: 1 / 0)\n", "Odd"),
    "syntax": (
        "class Odd(SyntaxError):\n    lineno = filename = msg = property(lambda s: 1 / 0)\n",
        "Odd",
    ),
    "exit": (
        "class Odd(SystemExit):\n    code = property(lambda s: 1 / 0)\n",
        "sys.exit(",
    ),
    "exit code": (
        "class Code:\n    def __repr__(self):\n        raise OSError\n"
        "def Odd():\n    return SystemExit(Code())\n",
        "sys.exit(a code that can't be read)",
    ),
    "interrupt": ("Odd = KeyboardInterrupt", "KeyboardInterrupt"),
    "generator": ("Odd = GeneratorExit", "GeneratorExit"),
    "group": (
        "def Odd():\n    return ExceptionGroup('many', [ValueError(1), OSError(2)])\n",
        "many",
    ),
    "string": (
        "class Text(str):\n    __str__ = __format__ = __repr__ = None\n"
        "class Odd(Exception):\n    def __str__(self):\n        return Text('x')\n",
        "Odd",
    ),
    "own": (
        "from service.fl_server.embedded.guard import Unusable\n"
        "class Odd(Unusable):\n    def __init__(self):\n        pass\n",
        "Odd",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_whatever_is_raised_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    top, told = ERRORS[name]
    cause = fault(tmp_path, top, "raise Odd()")
    assert told in cause
    assert "trainer.py line" in cause


def test_a_recursion_without_end_is_told(tmp_path: Path) -> None:
    cause = fault(tmp_path, "def again():\n    return again()\n", "again()")
    assert cause.startswith("RecursionError")
    assert "trainer.py line" in cause


@pytest.mark.parametrize(
    ("fit", "told"),
    [
        ("yield parameters", "`return` in place of `yield`"),
        ("return parameters", "not list of 1; "),
        ("return {'parameters': parameters}", "not dict"),
        ("return parameters, 10", "not tuple of 2"),
    ],
)
def test_another_form_of_answer_is_told(tmp_path: Path, fit: str, told: str) -> None:
    cause = fault(tmp_path, fit=fit)
    assert cause.startswith("it should return (parameters, num_examples, metrics), not ")
    assert told.rstrip("; ") in cause


def test_a_coroutine_is_told(tmp_path: Path) -> None:
    made = trainer(tmp_path, "async def later():\n    return 1\n", "return later()")
    made.load_data("data")
    with pytest.raises(TrainerFault, match="not coroutine; write `def` in place of `async def`"):
        made.fit(made.initial_parameters({}), {})


WHOLE = np.array([1.0, 2.0, 3.0])
EXACT: dict[str, Any] = {
    "big endian": WHOLE.astype(">f8"),
    "big endian whole": np.arange(3, dtype=">i4"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12.0)[::3],
    "reversed": np.arange(4.0)[::-1],
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "broadcast": np.broadcast_to(WHOLE, (2, 3)),
    "0-d": np.array(2.5),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3)),
    "float16": np.array([1.5, -2.0], np.float16),
    "longdouble": np.array([1.5], np.longdouble),
    "bool": np.array([True, False]),
    "int8": np.array([-128, 127], np.int8),
    "uint64": np.array([2**64 - 1], np.uint64),
    "complex": np.array([1 + 2j]),
    "matrix": np.arange(4.0).reshape(2, 2).view(np.matrix),
    "unmasked": np.ma.masked_array([1.0, 2.0], mask=[False, False]),
    "metadata": np.zeros(2, np.dtype("f8", metadata={"unit": "mm"})),
    "list": [1.0, 2.0],
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("name", EXACT)
def test_numbers_of_every_layout_travel_exactly(name: str) -> None:
    given = EXACT[name]
    taken = from_trainer([given])
    back = from_npz(to_npz(taken), None).arrays[0]
    expected = np.asarray(given)
    assert type(back) is np.ndarray
    assert back.shape == expected.shape
    assert back.dtype == expected.dtype.newbyteorder("=")
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, expected)
    for array in taken.arrays:
        assert array.flags.writeable
        assert array.dtype.metadata is None
        assert not np.shares_memory(array, expected) or not array.size


def test_a_read_only_array_comes_back_writable() -> None:
    given = np.zeros(3)
    given.flags.writeable = False
    taken = from_trainer([given]).for_trainer()
    assert isinstance(taken, list)
    taken[0] += 1


class Masks:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.ma.masked_array([1.0, 1e6], mask=[False, True])


REFUSED: dict[str, tuple[Any, str]] = {
    "masked": (np.ma.masked_array([1.0, 1e6, 2.0], mask=[False, True, False]), "1 masked values"),
    "masked inside": ([np.ma.masked_array([1.0, 1e6], mask=[False, True])], "1 masked values"),
    "masked behind": (Masks(), "1 masked values"),
    "objects": (np.array([1.0, None], object), "holds object, not numbers"),
    "none": (None, "Python objects (NoneType)"),
    "large": (2**70, "Python objects (int)"),
    "dict": ({"a": 1}, "Python objects (dict)"),
    "structured": (np.zeros(2, [("a", "f8"), ("b", "i4")]), "return one array a field"),
    "masked structured": (np.ma.zeros(2, [("a", "f8")]), "return one array a field"),
    "datetime": (np.array(["2026-01-01"], "M8[D]"), "holds datetime64[D]"),
    "timedelta": (np.array([1], "m8[s]"), "holds timedelta64[s]"),
    "text": ("0.5", "holds <U3"),
    "bytes": (b"0.5", "holds |S3"),
    "raw": (np.zeros(2, "V2"), "holds |V2"),
    "ragged": ([[1], [1, 2]], "can't be made a numpy array: ValueError"),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lose_something_is_refused_by_name(name: str, named: bool) -> None:
    value, told = REFUSED[name]
    with pytest.raises(BadParameters) as caught:
        from_trainer({"a": WHOLE, "layer.1": value} if named else [WHOLE, value])
    assert str(caught.value).startswith("parameters['layer.1'] " if named else "parameters[1] ")
    assert told in str(caught.value)
    assert "; " in str(caught.value), "what to return instead"


class Tensor:
    """As torch's: no array while it needs gradients or lies on a device."""

    def __init__(self, grad: bool = True, device: str = "cuda") -> None:
        self.grad, self.device = grad, device

    def detach(self) -> Tensor:
        return Tensor(False, self.device)

    def cpu(self) -> Tensor:
        return Tensor(self.grad, "cpu")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.grad or self.device != "cpu":
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        return WHOLE

    def item(self) -> float:
        return 0.25


def test_a_tensor_that_offers_its_values_is_taken() -> None:
    taken = from_trainer({"w": Tensor()})
    np.testing.assert_array_equal(taken.arrays[0], WHOLE)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ((x for x in [WHOLE]), "not generator; return list(...) of it"),
        ({"a": WHOLE}.values(), "not dict_values; return list(...) of it"),
        (WHOLE, "not ndarray; return [array]"),
        (None, "not NoneType; return a list of numpy arrays"),
        ({1: WHOLE}, "a key of the dict is no text, but int; name the arrays by text"),
        ({"x" * 2_000: WHOLE}, "2000 characters; at most 1000"),
        ([], "they are empty"),
    ],
)
def test_parameters_of_another_form_are_refused_with_the_right_one(
    value: object, told: str
) -> None:
    with pytest.raises(BadParameters) as caught:
        from_trainer(value)
    assert told in str(caught.value)


def test_parameters_without_end_are_refused() -> None:
    class Endless(dict[str, float]):
        def items(self) -> Any:
            number = 0
            while True:
                number += 1
                yield str(number), 1.0

    with pytest.raises(BadParameters, match="more than 100000 arrays"):
        from_trainer(Endless())


def test_many_named_arrays_are_compared_in_good_time() -> None:
    many = from_trainer({f"layer.{number}": 1.0 for number in range(80_000)})
    assert problem_with(many, many) is None
    fewer = from_trainer({f"layer.{number}": 1.0 for number in range(79_999)})
    assert "lack ['layer.79999']" in (problem_with(fewer, many) or "")


METRICS = {
    "10**400": "is a number of 401 digits beyond the range of a float",
    "10**5000": "is a number of 5001 digits beyond",
    "Decimal('1e400')": "is a number beyond the range of a float",
    "Fraction(10**400)": "is a number beyond the range of a float",
    "1 + 2j": "is complex ((1+2j)); return its real part, or abs(value)",
    "np.complex64(2j)": "is complex (2j)",
    "np.ma.masked": "is masked; fill it first, or leave it out",
    "np.ma.masked_array([1.0], mask=[True])": "is masked",
    "None": "not NoneType; leave it out, or return float('nan')",
    "'0.5'": "not str; return a plain number",
    "np.array([1.0, 2.0])": "can't be read: ValueError",
    "[0.5]": "not list",
    "np.datetime64('2026-01-01')": "not date",
}


@pytest.mark.parametrize("code", METRICS)
def test_a_metric_that_is_no_number_is_told_with_its_remedy(tmp_path: Path, code: str) -> None:
    top = "from decimal import Decimal\nfrom fractions import Fraction\n"
    cause = fault(tmp_path, top, f"return parameters, 10, {{'loss': {code}}}")
    assert cause.startswith("metric 'loss' ")
    assert METRICS[code] in cause
    assert "; " in cause


TAKEN = {
    "True": 1.0,
    "np.bool_(False)": 0.0,
    "7": 7.0,
    "np.int8(-3)": -3.0,
    "np.float16(0.5)": 0.5,
    "np.array([[0.5]])": 0.5,
    "np.longdouble(0.5)": 0.5,
    "Decimal('0.5')": 0.5,
    "Decimal('nan')": None,
    "Fraction(1, 2)": 0.5,
    "float('inf')": None,
    "np.float32('nan')": None,
    "np.ma.masked_array([0.5], mask=[False])": 0.5,
}


@pytest.mark.parametrize("code", TAKEN)
def test_every_kind_of_number_is_a_metric(tmp_path: Path, code: str) -> None:
    top = "from decimal import Decimal\nfrom fractions import Fraction\n"
    made = trainer(tmp_path, top, f"return parameters, 10, {{'loss': {code}}}")
    made.load_data("data")
    _, _, metrics = made.fit(made.initial_parameters({}), {})
    assert metrics == {"loss": TAKEN[code]}


EXAMPLES = {
    "True": "not bool; return a whole number, such as len(data)",
    "-1": "of 0 or more, not -1",
    "2.5": "of 0 or more, not 2.5",
    "float('inf')": "not inf",
    "10**400": "at most 9007199254740992",
    "-10**400": "not a large negative number",
    "10**5000": "at most 9007199254740992",
    "'10'": "not str",
    "None": "not NoneType",
    "[1]": "not list",
    "1j": "is complex",
    "np.ma.masked": "is masked",
}


@pytest.mark.parametrize("code", EXAMPLES)
def test_a_count_of_examples_that_is_none_is_told(tmp_path: Path, code: str) -> None:
    cause = fault(tmp_path, fit=f"return parameters, {code}, {{}}")
    assert cause.startswith("num_examples ")
    assert EXAMPLES[code] in cause


def test_argparse_works_as_in_a_script(tmp_path: Path) -> None:
    top = (
        "import argparse, sys\nfrom pathlib import Path\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument('--lr', type=float, default=0.1)\n"
        "args = parser.parse_args()\n"
        "assert sys.argv == [__file__] and Path(__file__).is_absolute() and __name__ == 'trainer'\n"
        "assert sys.path[0] == str(Path(__file__).parent)\n"
        "if __name__ == '__main__':\n    raise SystemExit('not run')\n"
    )
    made = trainer(tmp_path, top, "return parameters, 10, {'lr': args.lr}")
    made.load_data("data")
    assert made.fit(made.initial_parameters({}), {})[2] == {"lr": 0.1}


def test_an_argument_without_a_default_is_told(tmp_path: Path) -> None:
    top = (
        "import argparse\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--lr', required=True)\nparser.parse_args()\n"
    )
    with pytest.raises(TrainerFault, match=r"sys.exit\(2\): it gets no command line"):
        trainer(tmp_path, top)


def test_a_file_beside_the_trainer_is_told_how_to_open(tmp_path: Path) -> None:
    (tmp_path / "weights of this test.txt").write_text("1")
    cause = fault(tmp_path, fit="open('weights of this test.txt')")
    assert "beside trainer.py" in cause
    assert "Path(__file__).parent / 'weights of this test.txt'" in cause


def _npz(header: bytes, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "a0.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data
        )
    return buffer.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        _npz(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"),
        _npz(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n", b"x" * 7),
        _npz(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"x" * 8),
        _npz(b"{'descr': '<V8', 'fortran_order': False, 'shape': (1,), }\n", b"x" * 8),
        _npz(b"{'descr': (((((((\n"),
        _npz(b""),
        b"PK\x03\x04",
        b"",
    ],
)
def test_bytes_that_are_no_arrays_are_refused(raw: bytes) -> None:
    with pytest.raises(BadParameters, match="not a readable npz"):
        from_npz(raw, None)
