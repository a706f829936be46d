"""A CSV file column by column, with the line number of whatever is wrong in it.

Shape letter: N rows.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

ABSENT = ("", "null")
BLOCK_BYTES = 16 * 1024 * 1024  # of text, of which several times as much is held while it is read


@dataclass
class LastOf:
    """The last value of a column so far, and its line."""

    value: int = np.iinfo(np.int64).min
    line: int = 0


@dataclass(frozen=True)
class CsvColumns:
    """The cells of a CSV file as text, and the line on which each row stands.

    Every method raises DataError that names file, line, column, what was found and what was
    expected.
    """

    path: Path
    table: pa.Table
    line_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.line_N)

    def integers(self, name: str, *, absent: int | None = None) -> NDArray[np.int64]:
        """Return a column of whole numbers; ``absent`` stands for empty cells, if allowed."""
        import pyarrow as pa

        cells = self._cells(name, is_optional=absent is not None)
        numbers = self._cast(name, cells, pa.int64(), int, "a whole number")
        return np.asarray(numbers.fill_null(absent) if absent is not None else numbers, np.int64)

    def numbers(self, name: str, *, is_optional: bool = False) -> NDArray[np.float64]:
        """Return a column of finite numbers; empty cells are NaN, if allowed."""
        import pyarrow as pa

        cells = self._cells(name, is_optional=is_optional)
        column = self._cast(name, cells, pa.float64(), float, "a number")
        number_N = np.asarray(column.to_numpy(), np.float64)
        if not (finite_N := np.isfinite(number_N) | np.asarray(column.is_null())).all():
            row = int(np.flatnonzero(~finite_N)[0])
            raise self.error(row, f"{name} is {cells[row].as_py()!r}, expected a finite number")
        return number_N

    def positive(self, name: str, *, is_optional: bool = False) -> NDArray[np.float64]:
        """Return a column of numbers above 0; empty cells are NaN, if allowed."""
        number_N = self.numbers(name, is_optional=is_optional)
        self.expect(~(number_N <= 0), name, "a number above 0")
        return number_N

    def codes(self, name: str, code_of: Mapping[str, int]) -> NDArray[np.int8]:
        """Return a column of words as the numbers that they stand for."""
        encoded = self._cells(name, is_optional=False).combine_chunks().dictionary_encode()
        words = [str(word) for word in encoded.dictionary.to_pylist()]
        index_N = np.asarray(encoded.indices, np.int64)
        known = np.array([word in code_of for word in words], bool)
        self.expect(known[index_N], name, " or ".join(code_of))
        return np.array([code_of.get(word, 0) for word in words], np.int8)[index_N]

    def words(self, name: str) -> NDArray[np.object_]:
        """Return a column of words, of which few differ; None where a cell is empty."""
        encoded = self._cells(name, is_optional=True).combine_chunks().dictionary_encode()
        word_K = np.array([*encoded.dictionary.to_pylist(), None], object)
        word_N: NDArray[np.object_] = word_K[np.asarray(encoded.indices.fill_null(-1))]
        return word_N

    def ordered(
        self, name: str, value_N: NDArray[np.int64], *, after: LastOf | None = None
    ) -> NDArray[np.int64]:
        """Return ``value_N`` after making sure that it never decreases.

        Parameters
        ----------
        after : LastOf, optional
            The value and the line before the first, where this is not the first block of a file.
            It is moved on to the last.
        """
        before = LastOf() if after is None else after
        all_before_N = np.concatenate(([before.value], value_N[:-1]))
        if (back_N := value_N < all_before_N).any():
            row = int(np.flatnonzero(back_N)[0])
            line = self.line_N[row - 1] if row else before.line
            raise self.error(
                row,
                f"{name} is {value_N[row]}, below {all_before_N[row]} of line {line}: sort the "
                f"file by {name}",
            )
        before.value, before.line = int(value_N[-1]), int(self.line_N[-1])
        return value_N

    def expect(self, good_N: NDArray[np.bool_], name: str, expected: str) -> None:
        """Raise the error of the first row that is not good."""
        if not good_N.all():
            row = int(np.flatnonzero(~good_N)[0])
            found = self.table[name][row].as_py()
            raise self.error(row, f"{name} is {found!r}, expected {expected}")

    def error(self, row: int, message: str) -> DataError:
        """Return an error that names the file and the line of a row."""
        return DataError(f"{self.path}: line {self.line_N[row]}: {message}")

    def _cells(self, name: str, *, is_optional: bool) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.compute as pc

        if name not in self.table.column_names:
            raise DataError(
                f"{self.path}: has no column {name}; it has {', '.join(self.table.column_names)}"
            )
        cells = self.table[name]
        is_absent = pc.is_in(cells, value_set=pa.array(ABSENT))
        if is_optional:
            return pc.if_else(is_absent, pa.scalar(None, pa.string()), cells)
        self.expect(~np.asarray(is_absent, bool), name, "a value")
        return cells

    def _cast(
        self,
        name: str,
        cells: pa.ChunkedArray,
        kind: pa.DataType,
        parse: Callable[[str], object],
        expected: str,
    ) -> pa.ChunkedArray:
        import pyarrow as pa

        try:
            return cells.cast(kind)
        except pa.ArrowInvalid:
            good_N = np.array([_parses(cell, parse) for cell in cells.to_pylist()])
            self.expect(good_N, name, expected)
            raise  # ours accepts what Arrow does not: tell rather than guess


def _parses(cell: str | None, parse: Callable[[str], object]) -> bool:
    try:
        return cell is None or (cell == cell.strip() and parse(cell) is not None)
    except ValueError:
        return False


def has_header(path: Path) -> bool:
    """Return whether a CSV file begins with names; a file without begins with a number."""
    first = first_row(path)[0].strip()
    return not first.lstrip("-").replace(".", "", 1).isdecimal()


def first_row(path: Path) -> list[str]:
    """Return the cells of a CSV file's first line.

    Raises
    ------
    DataError
        If the file cannot be read, is no text, or is empty.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            row = next(csv.reader(file), [])
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV file ({error}); expected plain text") from error
    if not row:
        raise DataError(f"{path}: line 1: is empty, expected cells separated by commas")
    return row


def read_blocks(path: Path, names: Sequence[str] | None = None) -> Iterator[CsvColumns]:
    """Yield a CSV file as text cells, piece by piece; empty lines are passed over.

    Parameters
    ----------
    names : sequence of str, optional
        What the columns of a file without a header are; left out, its first line says.

    Raises
    ------
    DataError
        If the file cannot be read, holds no rows, or a line has too few or too many cells.
    """
    import pyarrow as pa
    import pyarrow.csv as pacsv

    columns = _names(path, names)
    n_lines, n_rows = 0, 0
    with (
        _faults_of(path, columns),
        pacsv.open_csv(path, *_options(columns, BLOCK_BYTES)) as reader,
    ):
        for batch in reader:
            table = pa.Table.from_batches([batch])
            block = _without_empty(path, table, n_lines, has_header=names is None)
            n_lines, n_rows = n_lines + len(table), n_rows + len(block)
            if len(block):
                yield block
    if not n_rows:
        raise DataError(f"{path}: holds no rows")


def _names(path: Path, names: Sequence[str] | None) -> list[str]:
    columns = list(first_row(path) if names is None else names)
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: line 1: names a column twice: {','.join(columns)}")
    return columns


@contextmanager
def _faults_of(path: Path, columns: Sequence[str]) -> Iterator[None]:
    """Say in one line what pyarrow found wrong with a file, and where."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if (bad_row := _first_bad_row(path, columns)) is not None:
            line, n_cells = bad_row
            raise DataError(
                f"{path}: line {line}: has {n_cells} cells, expected {len(columns)}: "
                f"{','.join(columns)}"
            ) from error
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error


def _without_empty(path: Path, table: pa.Table, n_before: int, *, has_header: bool) -> CsvColumns:
    """Return a table that follows ``n_before`` lines, without its header and its empty lines."""
    import pyarrow as pa

    line_N = n_before + np.arange(1, len(table) + 1)
    keep_N = ~(_is_empty(table) | (has_header & (line_N == 1)))
    return CsvColumns(path, table.filter(pa.array(keep_N)), line_N[keep_N])


def _options(columns: Sequence[str], block_bytes: int) -> tuple[Any, Any, Any]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    return (
        pacsv.ReadOptions(column_names=columns, block_size=block_bytes),
        pacsv.ParseOptions(ignore_empty_lines=False),
        pacsv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
        ),
    )


def _first_bad_row(path: Path, columns: Sequence[str]) -> tuple[int, int] | None:
    """Return the line and the number of cells of the first row that does not fit."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    found: list[tuple[int, int]] = []

    def keep(row: Any) -> str:
        found.append((row.number, row.actual_columns))
        return "error"

    with suppress(pa.ArrowInvalid, OSError):
        read, parse, convert = _options(columns, BLOCK_BYTES)
        read.use_threads = False  # rows are counted only on one thread
        parse.invalid_row_handler = keep
        for _ in pacsv.open_csv(path, read, parse, convert):
            pass
    return found[0] if found else None


def _is_empty(table: pa.Table) -> NDArray[np.bool_]:
    """Return whether each row is an empty line, which Arrow reads as a row of empty cells."""
    import pyarrow.compute as pc

    empty_N = np.asarray(pc.equal(table.column(0), ""), bool)
    if empty_N.any():
        for column in table.columns[1:]:
            empty_N = empty_N & np.asarray(pc.equal(column, ""), bool)
    return empty_N
