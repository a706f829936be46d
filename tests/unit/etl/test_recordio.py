"""RecordIO against the SDK's files, against protobuf itself, and against damage."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trademl.errors import CodecError, DataError
from trademl.etl.record_file import open_recordio
from trademl.etl.recordio import (
    RecordWriter,
    decode_predictions,
    decode_records,
    encode_predictions,
    encode_records,
    read_recordio,
    write_recordio,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "recordio"
# The length of one nested message after the other passes 127 here, then 16383.
DIMENSIONS = [*range(1, 34), 100, 605, *range(4087, 4097)]
FLOAT32 = st.floats(width=32)
FIELD = descriptor_pb2.FieldDescriptorProto
TENSORS = (
    # message, number type, field of Value, its tag
    ("Float32Tensor", FIELD.TYPE_FLOAT, "float32_tensor", 2),
    ("Float64Tensor", FIELD.TYPE_DOUBLE, "float64_tensor", 3),
    ("Int32Tensor", FIELD.TYPE_INT32, "int32_tensor", 7),
)


# The reference: the schema as protobuf compiles it, and plain loops


def compile_record(*, packed=True):
    """Return the class of ``aialgs.data.Record``."""
    file = descriptor_pb2.FileDescriptorProto(name="record.proto", package="aialgs.data")
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="value")
    for message, number_type, field, tag in TENSORS:
        tensor = file.message_type.add(name=message)
        for number, name in enumerate(("values", "keys", "shape"), 1):
            kind = number_type if name == "values" else FIELD.TYPE_UINT64
            added = add_field(tensor, name, number, kind, FIELD.LABEL_REPEATED)
            added.options.packed = packed
        added = add_field(value, field, tag, FIELD.TYPE_MESSAGE)
        added.type_name, added.oneof_index = message, 0
    added = add_field(value, "bytes", 9, FIELD.TYPE_MESSAGE)
    added.type_name, added.oneof_index = "Bytes", 0
    content = file.message_type.add(name="Bytes")
    add_field(content, "value", 1, FIELD.TYPE_BYTES, FIELD.LABEL_REPEATED)
    record = file.message_type.add(name="Record")
    for number, name in enumerate(("features", "label"), 1):
        entry = record.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        add_field(entry, "key", 1, FIELD.TYPE_STRING)
        add_field(entry, "value", 2, FIELD.TYPE_MESSAGE).type_name = "Value"
        added = add_field(record, name, number, FIELD.TYPE_MESSAGE, FIELD.LABEL_REPEATED)
        added.type_name = f"Record.{entry.name}"
    for number, name in enumerate(("uid", "metadata", "configuration"), 3):
        add_field(record, name, number, FIELD.TYPE_STRING)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("aialgs.data.Record"))


def add_field(message, name, number, kind, label=FIELD.LABEL_OPTIONAL):
    return message.field.add(name=name, number=number, type=kind, label=label)


Record = compile_record()
UnpackedRecord = compile_record(packed=False)


def frame(payload):
    head = struct.pack("<II", 0xCED7230A, len(payload))
    return head + payload + bytes(-len(payload) % 4)


def framed(*records):
    return b"".join(frame(record.SerializeToString()) for record in records)


def make_record(features, label=None, *, kind="float32_tensor", message=Record, **fields):
    record = message(**fields)
    getattr(record.features["values"], kind).values.extend(features)
    if label is not None:
        getattr(record.label["values"], kind).values.extend([label])
    return record


def make_sparse(keys, values, shape, label=None):
    record = make_record(values, label)
    record.features["values"].float32_tensor.keys.extend(keys)
    record.features["values"].float32_tensor.shape.extend(shape)
    return record


def reference_encode(features_ND, label_N=None):
    label_N = [None] * len(features_ND) if label_N is None else label_N
    return framed(*map(make_record, features_ND, label_N))


def reference_rows(data):
    """Return (features, label or None) of each record, as protobuf reads dense float32."""
    rows, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        record = Record.FromString(data[at + 8 : at + 8 + length])
        label = record.label["values"].float32_tensor.values if record.label else []
        rows.append((list(record.features["values"].float32_tensor.values), list(label)))
        at += 8 + length + -length % 4
    return rows


def bits(values):
    """Return float32 as integers: NaN equals itself, and -0 differs from 0."""
    return None if values is None else np.ascontiguousarray(values).view(np.uint32).tolist()


@st.composite
def datasets(draw):
    n, d = draw(st.integers(1, 3)), draw(st.sampled_from(DIMENSIONS))
    row = draw(hnp.arrays(np.float32, min(d, 8), elements=FLOAT32))
    features_ND = np.resize(row, (n, d))
    label_N = draw(st.none() | hnp.arrays(np.float32, n, elements=FLOAT32))
    return features_ND, label_N


@pytest.fixture
def three():
    """Return three labelled rows, whose frames of 164 bytes end with three of padding."""
    features_ND = np.arange(87, dtype=np.float32).reshape(3, 29)
    return features_ND, np.array([0, 1, 1], np.float32)


# Written bytes


@pytest.mark.parametrize("n_features", [1, 29, 31, 605])
@pytest.mark.parametrize("labelled", [True, False])
def test_bytes_equal_those_of_the_sdk(tmp_path, n_features, labelled):
    features_ND = (np.arange(3 * n_features, dtype=np.float32).reshape(3, -1) - n_features) / 4
    label_N = np.array([1, 0, 1], np.float32) if labelled else None

    write_recordio(tmp_path / "ours", features_ND, label_N)

    name = f"dense_{n_features}{'' if labelled else '_unlabelled'}.recordio"
    assert (tmp_path / "ours").read_bytes() == (GOLDEN / name).read_bytes()


def test_nan_infinity_and_negative_zero_are_written_as_they_are():
    special = np.array([[np.nan, np.inf, -np.inf], [-0.0, 0.0, 1e-45]], np.float32)

    encoded = encode_records(special, np.array([np.nan, -0.0], np.float32))

    assert encoded == (GOLDEN / "float32_special.recordio").read_bytes()


@given(datasets())
def test_bytes_equal_those_of_protobuf(dataset):
    assert encode_records(*dataset) == reference_encode(*dataset)


@given(datasets())
def test_decoding_undoes_encoding_bit_by_bit(dataset):
    features_ND, label_N = dataset

    for feature_dim in (None, features_ND.shape[1]):
        decoded_ND, decoded_N = decode_records(encode_records(*dataset), feature_dim=feature_dim)

        assert bits(decoded_ND) == bits(features_ND)
        assert bits(decoded_N) == bits(label_N)


@pytest.mark.parametrize("labelled", [True, False])
def test_many_blocks_make_the_same_file_as_one(tmp_path, labelled):
    features_ND = np.random.default_rng(7).standard_normal((300, 4096), np.float32)
    label_N = features_ND[:, 0].copy() if labelled else None

    write_recordio(tmp_path / "file", features_ND, label_N)

    assert (tmp_path / "file").read_bytes() == encode_records(features_ND, label_N)
    read_ND, read_N = read_recordio(tmp_path / "file")
    assert bits(read_ND) == bits(features_ND)
    assert bits(read_N) == bits(label_N)


def test_rows_written_in_pieces_make_the_same_file(tmp_path, three):
    features_ND, label_N = three

    with RecordWriter(tmp_path / "file", 29, with_label=True) as writer:
        writer.write(features_ND[:1], label_N[:1])
        writer.write(features_ND[1:1], label_N[1:1])
        writer.write(features_ND[1:], label_N[1:])

    assert (tmp_path / "file").read_bytes() == encode_records(features_ND, label_N)


def test_non_contiguous_rows_are_written_like_their_copy(three):
    features_ND, label_N = three

    encoded = encode_records(features_ND[::-1, ::2], label_N[::-1])

    assert encoded == encode_records(features_ND[::-1, ::2].copy(), label_N[::-1].copy())


def test_blocks_filled_in_place_make_the_same_file(tmp_path):
    features_ND = np.random.default_rng(7).standard_normal((300, 4096), np.float32)
    label_N = features_ND[:, 0].copy()

    with RecordWriter(tmp_path / "file", 4096, with_label=True) as writer:
        for start, stop, features_BD, label_B in writer.blocks(300):
            features_BD[:] = features_ND[start:stop]
            label_B[:] = label_N[start:stop]

    assert (tmp_path / "file").read_bytes() == encode_records(features_ND, label_N)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_rows_filled_by_several_workers_make_the_same_file(tmp_path, n_workers, ending):
    features_ND = np.random.default_rng(7).standard_normal((1000, 4096), np.float32)
    label_N = features_ND[:, 0].copy()
    path = tmp_path / f"file{ending}"

    with RecordWriter(path, 4096, with_label=True, n_workers=n_workers) as writer:
        for rows in (slice(0, 700), slice(700, 703), slice(703, 1000)):
            some_ND, some_N = features_ND[rows], label_N[rows]

            def put(start, stop, features_BD, label_B, some_ND=some_ND, some_N=some_N):
                features_BD[:], label_B[:] = some_ND[start:stop], some_N[start:stop]

            writer.fill(len(some_ND), put)
        writer.write(features_ND[:2], label_N[:2])

    read_ND, read_N = read_recordio(path)
    assert bits(read_ND) == bits(np.concatenate([features_ND, features_ND[:2]]))
    assert bits(read_N) == bits(np.concatenate([label_N, label_N[:2]]))


def test_a_worker_that_fails_leaves_no_file(tmp_path):
    def put(start, stop, features_BD, label_B):
        features_BD[:] = 0
        if start:
            raise ValueError("no such row")

    with (
        pytest.raises(ValueError, match="no such row"),
        RecordWriter(tmp_path / "file", 4096, with_label=False, n_workers=2) as writer,
    ):
        writer.fill(1000, put)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_moves_few_bytes_at_a_time_loses_none(tmp_path, monkeypatch, three):
    class Trickle(io.FileIO):
        def write(self, data):
            return super().write(data[:100])

        def readinto(self, buffer):
            return super().readinto(buffer[:100])

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Trickle(path, mode))

    write_recordio(tmp_path / "file", *three)

    assert (tmp_path / "file").stat().st_size == len(encode_records(*three))
    assert bits(read_recordio(tmp_path / "file")[0]) == bits(three[0])


@pytest.mark.parametrize("n_features", [1, 28, 29, 30, 31, 32, 33, 605])
def test_room_in_a_block_is_aligned_for_compiled_loops(tmp_path, n_features):
    with RecordWriter(tmp_path / "file", n_features, with_label=True) as writer:
        for _, _, features_BD, label_B in writer.blocks(3):
            features_BD[:], label_B[:] = 0, 0
            assert features_BD.flags.aligned
            assert label_B.flags.aligned


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    row = np.zeros((1, 605), np.float32)
    many = np.broadcast_to(row, (20_000, 605))

    tracemalloc.start()
    write_recordio(tmp_path / "file", many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (tmp_path / "file").stat().st_size > 48_000_000
    assert peak < 8_000_000


# Refused on writing


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.float16, ">f4"])
def test_features_of_another_dtype_are_refused(dtype):
    with pytest.raises(DataError, match=r"features are .*: cast them to float32"):
        encode_records(np.zeros((2, 3), dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_])
def test_labels_of_another_dtype_are_refused(dtype):
    with pytest.raises(DataError, match=r"labels are .*Linear Learner reads only Float32"):
        encode_records(np.zeros((2, 3), np.float32), np.zeros(2, dtype))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 1)])
def test_features_must_be_rows_and_columns(shape):
    with pytest.raises(DataError, match="expected rows and columns"):
        encode_records(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
def test_labels_must_be_one_for_each_row(shape):
    # The SDK takes three labels for two rows of three features.
    with pytest.raises(DataError, match=r"expected \(2,\)"):
        encode_records(np.zeros((2, 3), np.float32), np.zeros(shape, np.float32))


def test_rows_without_features_are_refused():
    with pytest.raises(DataError, match="records of 0 features, expected 1 to"):
        encode_records(np.zeros((2, 0), np.float32))


def test_a_writer_without_features_is_refused(tmp_path):
    with pytest.raises(DataError, match="records of 0 features, expected 1 to"):
        RecordWriter(tmp_path / "file", 0, with_label=True)


def test_rows_of_another_dimension_than_the_file_are_refused(tmp_path):
    with (
        pytest.raises(DataError, match="rows of 2 features, expected 3"),
        RecordWriter(tmp_path / "file", 3, with_label=False) as writer,
    ):
        writer.write(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    ("with_label", "label", "rule"),
    [(True, None, "need a label"), (False, np.zeros(1, np.float32), "carry no label")],
)
def test_a_label_missing_or_extra_is_refused(tmp_path, with_label, label, rule):
    with (
        pytest.raises(DataError, match=rule),
        RecordWriter(tmp_path / "file", 3, with_label=with_label) as writer,
    ):
        writer.write(np.zeros((1, 3), np.float32), label)


def test_a_file_without_rows_is_refused_and_not_left_behind(tmp_path):
    with pytest.raises(DataError, match="no rows to write"):
        write_recordio(tmp_path / "file", np.zeros((0, 3), np.float32))

    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_older_file_alone(tmp_path, three):
    path = tmp_path / "file"
    write_recordio(path, *three)
    before = path.read_bytes()

    def write_and_interrupt():
        with RecordWriter(path, 29, with_label=True) as writer:
            writer.write(*three)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt()

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Records that are not dense float32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("float64.recordio", [[1, -2.5, 0]]),
        ("int64.recordio", [[1, -2, 0]]),
        ("float64_label.recordio", [[1, -2.5, 0]]),
        ("sparse.recordio", [[0, 5, 0, 7], [0, 0, 0, 0], [1, 0, 0, 0]]),
    ],
)
def test_other_tensors_of_the_sdk_are_read_as_float32(name, expected):
    features_ND, label_N = read_recordio(GOLDEN / name)

    assert features_ND.dtype == label_N.dtype == np.float32
    np.testing.assert_array_equal(features_ND, np.array(expected, np.float32))
    np.testing.assert_array_equal(label_N, [1, 0, 1][: len(expected)])


@given(
    st.sampled_from([("float64_tensor", np.float64), ("int32_tensor", np.int32)]),
    st.sampled_from([Record, UnpackedRecord]),
    st.data(),
)
def test_other_number_types_read_as_protobuf_reads_them(tensor, message, data):
    kind, dtype = tensor
    elements = FLOAT32 if dtype is np.float64 else None
    features_ND = data.draw(hnp.arrays(dtype, (2, 3), elements=elements))
    records = [make_record(row, row[0], kind=kind, message=message) for row in features_ND.tolist()]

    decoded_ND, decoded_N = decode_records(framed(*records))

    np.testing.assert_array_equal(decoded_ND, features_ND.astype(np.float32))
    np.testing.assert_array_equal(decoded_N, features_ND[:, 0].astype(np.float32))


def test_floats_written_one_by_one_are_read(three):
    features_ND, label_N = three
    records = [
        make_record(x, y, message=UnpackedRecord) for x, y in zip(features_ND, label_N, strict=True)
    ]

    decoded_ND, decoded_N = decode_records(framed(*records))

    assert (bits(decoded_ND), bits(decoded_N)) == (bits(features_ND), bits(label_N))


def test_other_fields_of_a_record_are_passed_over(three):
    features_ND, label_N = three
    extra = {"uid": "7", "metadata": "m" * 200, "configuration": "{}"}
    records = [make_record(x, y, **extra) for x, y in zip(features_ND, label_N, strict=True)]
    unknown = b"\xf8\x01\x05\xfd\x01abcd\xf9\x01abcdefgh"  # varint, 4 bytes, 8 bytes

    data = b"".join(frame(record.SerializeToString() + unknown) for record in records)

    assert bits(decode_records(data)[0]) == bits(features_ND)


def test_pieces_of_one_value_merge_and_its_last_kind_counts():
    pieces = make_record([1, 2], kind="float64_tensor"), make_record([3, 4]), make_record([5])
    values = [piece.features["values"].SerializeToString() for piece in pieces]
    entry = b"\x0a\x06values" + b"".join(b"\x12" + bytes([len(v)]) + v for v in values)
    payload = b"\x0a" + bytes([len(entry)]) + entry
    assert reference_rows(frame(payload)) == [([3, 4, 5], [])]

    assert decode_records(frame(payload))[0].tolist() == [[3, 4, 5]]


@pytest.mark.parametrize("odd_at", [0, 1, 2])
def test_rows_keep_their_order_around_an_odd_record(three, odd_at):
    features_ND, label_N = three
    records = [make_record(x, y) for x, y in zip(features_ND, label_N, strict=True)]
    records[odd_at] = make_sparse(range(29), features_ND[odd_at], [29], label_N[odd_at])

    decoded_ND, decoded_N = decode_records(framed(*records))

    assert (bits(decoded_ND), bits(decoded_N)) == (bits(features_ND), bits(label_N))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (make_sparse([4], [1.0], [4]), r"key 4 lies outside shape \[4\]"),
        (make_sparse([1, 1], [1.0, 2.0], [4]), "2 sparse values need as many different keys"),
        (make_sparse([1], [1.0, 2.0], [4]), "2 sparse values need as many different keys"),
        (make_sparse([1], [1.0], []), r"shape \[\], expected one dimension"),
        (make_sparse([1], [1.0], [2, 2]), r"shape \[2, 2\], expected one dimension"),
        (make_sparse([], [1.0, 2.0], [3]), r"2 values of shape \[3\], expected \[2\]"),
        (make_sparse([1], [1.0], [2**63]), r"shape \[9223372036854775808\], expected at most"),
        (make_record([]), "features values have dimension 0, expected at least 1"),
        (Record(), "features hold nothing, expected values"),
        (make_record([1e300], kind="float64_tensor"), "a value is too large for float32"),
    ],
)
def test_contradictory_records_are_refused(record, message):
    with pytest.raises(CodecError, match=rf"^RecordIO bytes: record 0 at byte 0: .*{message}"):
        decode_records(framed(record))


def test_bytes_in_place_of_numbers_are_refused():
    record = Record()
    record.features["values"].bytes.value.append(b"png")

    with pytest.raises(CodecError, match="a value is bytes, expected numbers"):
        decode_records(framed(record))


def test_features_under_another_key_are_refused():
    record = Record()
    record.features["in0"].float32_tensor.values.append(1)

    with pytest.raises(CodecError, match="features hold in0, expected values"):
        decode_records(framed(record))


def test_a_record_of_another_dimension_is_named():
    data = framed(make_record([1, 2]), make_record([1, 2]), make_record([1, 2, 3]))

    with pytest.raises(CodecError, match=r"record 2 at byte 64: .* dimension 3, expected 2"):
        decode_records(data)


@pytest.mark.parametrize(("first", "second"), [(None, 1.0), (1.0, None)])
def test_records_with_and_without_label_do_not_mix(first, second):
    with pytest.raises(CodecError, match=r"record 1 at byte .* label, unlike record 0"):
        decode_records(framed(make_record([1, 2], first), make_record([1, 2], second)))


def test_a_small_record_cannot_claim_a_huge_dimension():
    with pytest.raises(CodecError, match="dimension 100000000, expected 605"):
        decode_records(framed(make_sparse([1], [1.0], [100_000_000])), feature_dim=605)


# Damage


def test_an_empty_file_holds_no_records(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CodecError, match=r"file holds no records$"):
        read_recordio(tmp_path / "file")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent cannot be read: No such file"):
        read_recordio(tmp_path / "absent")


@pytest.mark.parametrize("feature_dim", [None, 29])
def test_every_cut_inside_a_record_is_found(three, feature_dim):
    data = encode_records(*three)
    size = len(data) // 3

    for cut in range(1, len(data)):
        if cut % size:
            place = rf"record {cut // size} at byte {cut - cut % size}: cut short: {cut % size} of"
            with pytest.raises(CodecError, match=place):
                decode_records(data[:cut], feature_dim=feature_dim)
        else:
            assert len(decode_records(data[:cut], feature_dim=feature_dim)[0]) == cut // size


def test_a_cut_file_is_named(tmp_path, three):
    path = tmp_path / "train.recordio"
    path.write_bytes(encode_records(*three)[:-1])

    with pytest.raises(CodecError, match=rf"^{path}: record 2 at byte "):
        read_recordio(path)


@pytest.mark.parametrize("feature_dim", [None, 29])
@pytest.mark.parametrize("with_label", [True, False])
def test_no_flipped_bit_of_an_envelope_goes_unnoticed(three, with_label, feature_dim):
    features_ND, label_N = three
    data = encode_records(features_ND, label_N if with_label else None)
    of_values = encode_records(
        np.full((3, 29), np.nan, np.float32), np.full(3, np.nan, np.float32) if with_label else None
    )
    zero = encode_records(features_ND * 0, label_N * 0 if with_label else None)
    envelope = [i for i in range(len(data)) if of_values[i] == zero[i]]

    for i in envelope:
        for bit in range(8):
            damaged = bytearray(data)
            damaged[i] ^= 1 << bit
            try:
                decoded_ND, decoded_N = decode_records(damaged, feature_dim=feature_dim)
            except CodecError:
                continue
            # A tag may become that of an unknown field: protobuf must then read the same.
            labels = [[]] * 3 if decoded_N is None else decoded_N[:, None].tolist()
            rows = list(zip(decoded_ND.tolist(), labels, strict=True))
            assert rows == reference_rows(bytes(damaged))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 0x0B, "begins with 0xCED7230B, expected the magic 0xCED7230A"),
        (7, 0x20, "length 536871065, expected at most 536870911"),
        (6, 0x01, "cut short: 164 of 65700 bytes"),
        (-1, 0x01, "padding is not zero"),
        (8, 0x0B, "field 1 has wire type 3, expected 0, 1, 2 or 5"),
        (8, 0x02, "field number 0"),
        (10, 0x02, "field 1 ends 108 bytes after its message"),
    ],
)
def test_damage_is_described(three, offset, value, message):
    data = bytearray(encode_records(*three)[: 2 * 164])
    data[offset if offset < 0 else 164 + offset] = value

    with pytest.raises(CodecError, match=f"record 1 at byte 164: {message}"):
        decode_records(data)


def test_a_broken_number_is_described():
    payload = bytes.fromhex("0a11 0a06 76616c756573 1207 1205 0a03 000000")

    with pytest.raises(CodecError, match="3 bytes of values are not a whole number of float32"):
        decode_records(frame(payload))


@st.composite
def damaged_payloads(draw):
    kind = draw(st.sampled_from(TENSORS))[2]
    record = draw(
        st.sampled_from([make_record([1, 2, 3], 1, kind=kind), make_sparse([0, 2], [1, 2], [3], 1)])
    )
    payload = bytearray(record.SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        payload[draw(st.integers(0, len(payload) - 1))] = draw(st.integers(0, 255))
    return bytes(payload)


@given(st.binary(max_size=60) | damaged_payloads())
def test_a_damaged_payload_raises_a_codec_error_or_is_a_record(payload):
    try:
        decode_records(frame(payload), feature_dim=3)
    except CodecError:
        return
    Record.FromString(payload)


# Gzip


def test_a_gzip_file_holds_the_same_bytes(tmp_path, three):
    write_recordio(tmp_path / "file.gz", *three)

    assert gzip.decompress((tmp_path / "file.gz").read_bytes()) == encode_records(*three)


def test_a_gzip_file_reads_back(tmp_path):
    features_ND = np.random.default_rng(7).standard_normal((300, 4096), np.float32)
    write_recordio(tmp_path / "file.gz", features_ND, features_ND[:, 0].copy())

    read_ND, read_N = read_recordio(tmp_path / "file.gz")

    assert (bits(read_ND), bits(read_N)) == (bits(features_ND), bits(features_ND[:, 0]))


@pytest.mark.parametrize("odd_at", [0, 1, 2])
def test_odd_records_of_a_gzip_file_are_read(tmp_path, three, odd_at):
    features_ND, label_N = three
    records = [make_record(x, y) for x, y in zip(features_ND, label_N, strict=True)]
    records[odd_at] = make_sparse(range(29), features_ND[odd_at], [29], label_N[odd_at])
    (tmp_path / "file.gz").write_bytes(gzip.compress(framed(*records)))

    assert bits(read_recordio(tmp_path / "file.gz")[0]) == bits(features_ND)


def test_equal_rows_make_equal_gzip_files_at_any_time_under_any_name(tmp_path, three):
    for name in ("a.gz", "b.recordio.gz"):
        write_recordio(tmp_path / name, *three)

    data = (tmp_path / "a.gz").read_bytes()
    assert data == (tmp_path / "b.recordio.gz").read_bytes()
    assert data[3:8] == bytes(5)  # no name, no time


def test_gzip_files_laid_end_to_end_are_one(tmp_path, three):
    encoded = gzip.compress(encode_records(*three))
    (tmp_path / "file.gz").write_bytes(encoded + encoded)

    assert len(read_recordio(tmp_path / "file.gz")[0]) == 6


def test_every_cut_of_a_gzip_file_is_found(tmp_path, three):
    path = tmp_path / "file.gz"
    write_recordio(path, *three)
    data = path.read_bytes()

    for cut in range(2, len(data)):  # one byte is not yet gzip
        path.write_bytes(data[:cut])
        with pytest.raises(CodecError, match=rf"^{path}: cut short: {cut} bytes hold no end"):
            read_recordio(path)


@pytest.mark.parametrize("at", ["head", "middle", "checksum"])
def test_damage_to_a_gzip_file_is_found(tmp_path, three, at):
    path = tmp_path / "file.gz"
    write_recordio(path, *three)
    data = bytearray(path.read_bytes())
    data[{"head": 0, "middle": len(data) // 2, "checksum": -8}[at]] ^= 0x10
    path.write_bytes(data)

    with pytest.raises(CodecError, match=rf"^{path}: "):
        read_recordio(path)


def test_a_damaged_record_of_a_gzip_file_is_named(tmp_path, three):
    data = bytearray(encode_records(*three))
    data[164] ^= 1
    (tmp_path / "file.gz").write_bytes(gzip.compress(data))

    with pytest.raises(CodecError, match="record 1 at byte 164: begins with"):
        read_recordio(tmp_path / "file.gz")


def test_an_interrupted_gzip_write_leaves_nothing(tmp_path, three):
    with (
        pytest.raises(KeyboardInterrupt),
        RecordWriter(tmp_path / "file.gz", 29, with_label=True) as writer,
    ):
        writer.write(*three)
        raise KeyboardInterrupt

    assert not list(tmp_path.iterdir())


def test_reading_a_gzip_file_holds_little_beside_its_rows(tmp_path):
    features_ND = np.zeros((20_000, 605), np.float32)
    write_recordio(tmp_path / "file.gz", features_ND)

    tracemalloc.start()
    read_recordio(tmp_path / "file.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < features_ND.nbytes + 12_000_000


# Predictions


def test_predictions_read_back(three):
    score_N, label_N = np.array([0.25, 0.75], np.float32), np.array([0, 1], np.float32)

    decoded_score_N, decoded_label_N = decode_predictions(encode_predictions(score_N, label_N))

    assert (bits(decoded_score_N), bits(decoded_label_N)) == (bits(score_N), bits(label_N))


def test_a_prediction_is_a_label_map_of_two_tensors():
    data = encode_predictions(np.array([0.25], np.float32), np.array([1], np.float32))

    record = Record.FromString(data[8 : 8 + struct.unpack_from("<I", data, 4)[0]])

    tensors = {key: list(value.float32_tensor.values) for key, value in record.label.items()}
    assert tensors == {"score": [0.25], "predicted_label": [1.0]}
    assert not record.features


def test_predictions_read_in_either_order_of_keys():
    def entry(key, value):
        record = Record()
        record.label[key].float32_tensor.values.append(value)
        return record.SerializeToString()

    data = frame(entry("predicted_label", 1) + entry("score", 0.75))

    score_N, label_N = decode_predictions(data)

    assert (score_N.tolist(), label_N.tolist()) == ([0.75], [1])


def test_an_answer_without_a_predicted_label_is_refused():
    record = Record()
    record.label["score"].float32_tensor.values.append(0.5)

    with pytest.raises(CodecError, match="label hold score, expected predicted_label"):
        decode_predictions(framed(record))


def test_scores_and_labels_must_have_one_length():
    with pytest.raises(DataError, match="expected two vectors of one length"):
        encode_predictions(np.zeros(2, np.float32), np.zeros(3, np.float32))


def test_a_path_may_be_words(tmp_path):
    path = str(tmp_path / "rows.recordio")
    features = np.ones((2, 3), np.float32)
    write_recordio(path, features)
    np.testing.assert_array_equal(read_recordio(path)[0], features)
    np.testing.assert_array_equal(open_recordio(path)[:][0], features)
