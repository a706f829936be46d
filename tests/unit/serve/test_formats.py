"""Bodies as SageMaker documents them, written by hand."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.serve import number_text, row_sum
from trademl.serve.formats import format_response, negotiate, parse_request
from trademl.serve.rows import MAX_ROWS, RequestError
from trademl.serve.served import Scores

CSV = "text/csv"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
RECORDIO = "application/x-recordio-protobuf"

# One record of [1.0, -2.5, 0.0], no label: magic, length 28, map "values", float32 tensor.
RECORD = bytes.fromhex(
    "0a23d7ce1c000000 0a1a0a0676616c756573 1210120e0a0c 0000803f 000020c0 00000000"
)
# One sparse record [0, 5, 0, 7] with the label 1: keys 1 and 3, shape 4, one byte of padding.
SPARSE_RECORD = bytes.fromhex(
    "0a23d7ce33000000 0a1d0a0676616c756573 121312110a08 0000a040 0000e040 12020103 1a0104"
    "12120a0676616c756573120812060a040000803f 00"
)


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Compile before the first example, which hypothesis would find too slow."""
    number_text.warm_up()
    row_sum.warm_up()


def rows(content_type: str, body: bytes, feature_dim: int = 3) -> list[list[float]]:
    features_ND = parse_request(content_type, body, feature_dim)
    assert features_ND.dtype == np.float32
    return features_ND.tolist()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (CSV, b"1,-2.5,0"),
        (CSV, b"1,-2.5,0\n"),
        (CSV, b" 1 , -2.5\t,0 \r\n\r\n\n"),
        (CSV, b"+1,-2.5,.0"),
        (CSV, b"01.,-25e-1,-0"),
        ("text/csv; label_size=0", b"1,-2.5,0"),
        ("Text/CSV;charset=utf-8; label_size = 0", b"1,-2.5,0"),
        (JSON, b'{"instances":[{"features":[1,-2.5,0]}]}'),
        (JSON, b'{"instances":[{"features":[1,-2.5,0]}],"configuration":{"a":true}}'),
        (JSON, b'{"instances":[{"data":{"features":{"values":[1.0,-2.5,0]}}}]}'),
        (JSON, b'{"instances":[{"features":{"values":[1.0,-2.5,0]}}]}'),
        (
            JSON,
            b'{"instances":[{"data":{"features":{"keys":[1,0],"shape":[3],"values":[-2.5,1]}}}]}',
        ),
        ("application/json; charset=utf-8", b' {"instances" : [ {"features":[1,-2.5,0]} ] } '),
        (JSON_LINES, b'{"features":[1,-2.5,0]}'),
        (JSON_LINES, b'{"data":{"features":{"values":[1,-2.5,0]}}}\r\n\n'),
        (JSON_LINES, b'{"data":{"features":{"keys":[1,0],"shape":[3],"values":[-2.5,1]}}}'),
        (RECORDIO, RECORD),
    ],
)
def test_every_documented_form_of_a_row_is_read(content_type, body):
    assert rows(content_type, body) == [[1.0, -2.5, 0.0]]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (CSV, b"1,2\n3,4\n"),
        (JSON, b'{"instances":[{"features":[1,2]},{"data":{"features":{"values":[3,4]}}}]}'),
        (JSON_LINES, b'{"features":[1,2]}\n{"features":[3,4]}\n'),
    ],
)
def test_rows_keep_their_order(content_type, body):
    assert rows(content_type, body, 2) == [[1.0, 2.0], [3.0, 4.0]]


def test_records_are_read_in_order_sparse_ones_too():
    assert rows(RECORDIO, SPARSE_RECORD, 4) == [[0.0, 5.0, 0.0, 7.0]]
    assert rows(RECORDIO, RECORD * 2) == [[1.0, -2.5, 0.0]] * 2


def test_a_float32_survives_every_text_form():
    value = np.float32(0.1234567)
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)

    assert rows(CSV, text, 1) == [[float(value)]]
    assert rows(JSON_LINES, b'{"features":[%b]}' % text, 1) == [[float(value)]]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (CSV, b"", "the body is empty, expected at least one row"),
        (CSV, b"\n\n", "the body is empty"),
        (CSV, b"1,2,3\n1,2,3\n1,2\n", "row 3 has 2 features, expected 3"),
        (CSV, b"1,2,3\n1,2,3,4\n", "row 2 has 4 features, expected 3"),
        (CSV, b"1,2,3\n\n1,2,3\n", "row 2 is blank, expected 3 features"),
        (CSV, b"1,2,3\n1,,3\n", "row 2, feature 2 is empty, expected a number"),
        (CSV, b"1,2,3\n1,2,nan\n", "row 2, feature 3 is 'nan', expected a number"),
        (CSV, b"1,inf,3\n", "row 1, feature 2 is 'inf', expected a number"),
        (CSV, b"bid,ask,mid\n1,2,3\n", "row 1, feature 1 is 'bid', expected a number"),
        (CSV, b"1,2,1_0\n", "row 1, feature 3 is '1_0', expected a number"),
        (CSV, b"1,2,null\n", "row 1, feature 3 is 'null', expected a number"),
        (CSV, b"1,2,true\n", "row 1, feature 3 is 'true', expected a number"),
        (CSV, b'1,2,"3"\n', "row 1, feature 3 is '\"3\"', expected a number"),
        (CSV, b"1,2,3],[4,5,6\n", "row 1 has 6 features, expected 3"),
        (CSV, b"1,2,1e39\n", "row 1, feature 3 is not a finite float32 number"),
        (CSV, b"1,2,3\n1,2,1e999\n", "row 2, feature 3 is not a finite float32 number"),
        (CSV, b"1,2,\xff\n", "row 1, feature 3 is '\ufffd', expected a number"),
        ("text/csv; label_size=1", b"1,2,3", "label_size=1': send rows without their label"),
        (JSON, b"", "the body is not JSON"),
        (JSON, b"{", "the body is not JSON"),
        (JSON, b'{"instances":[{"features":[1,2,NaN]}]}', "the body is not JSON"),
        (JSON, b"[1,2,3]", 'expected {"instances": [{"features": [...]}, ...]}'),
        (JSON, b'{"instances":[]}', "with at least one instance"),
        (JSON, b'{"instances":{"features":[1,2,3]}}', "with at least one instance"),
        (JSON, b'{"instances":[[1,2,3]]}', "row 1 has no features"),
        (JSON, b'{"instances":[{"features":[1,2,3]},{"data":3}]}', "row 2 has no features"),
        (JSON, b'{"instances":[{"features":"123"}]}', "row 1 has features that are no list"),
        (JSON, b'{"instances":[{"features":{}}]}', "row 1 has features that are no list"),
        (JSON, b'{"instances":[{"features":[1,2]}]}', "row 1 has 2 features, expected 3"),
        (JSON, b'{"instances":[{"features":[]}]}', "row 1 has 0 features, expected 3"),
        (JSON, b'{"instances":[{"features":[1,null,3]}]}', "row 1, feature 2 is None, expected"),
        (JSON, b'{"instances":[{"features":[1,"2",3]}]}', "row 1, feature 2 is '2', expected"),
        (JSON, b'{"instances":[{"features":[1,true,3]}]}', "row 1, feature 2 is True, expected"),
        (JSON, b'{"instances":[{"features":[1,[2],3]}]}', "row 1, feature 2 is a list, expected"),
        (JSON, b'{"instances":[{"features":[1,2,1e39]}]}', "row 1, feature 3 is not a finite"),
        (JSON_LINES, b"", "the body is empty"),
        (JSON_LINES, b'{"features":[1,2,3]}\n{"features":[1,2,3}\n', "row 2 is not JSON"),
        (JSON_LINES, b'{"features":[1,2,3]},{"features":[1,2,3]}', "row 1 is not JSON"),
        (JSON_LINES, b'{"features":[1,2,3]}\n{"features":[1,2]}\n', "row 2 has 2 features"),
        (RECORDIO, b"", "no records"),
        (RECORDIO, RECORD[:-1], "record 0"),
        (RECORDIO, RECORD + b"\0\0\0\0" + RECORD, "record 1"),
        (RECORDIO, SPARSE_RECORD, "dimension 4, expected 3"),
    ],
)
def test_a_malformed_body_is_a_400_that_names_the_place(content_type, body, message):
    with pytest.raises(RequestError) as caught:
        parse_request(content_type, body, 3)

    assert caught.value.status == 400
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (b'{"keys":[0],"shape":[4],"values":[1]}', "another shape than [3]"),
        (b'{"keys":[0],"values":[1]}', "another shape than [3]"),
        (b'{"keys":[0,1],"shape":[3],"values":[1]}', "as many keys as values"),
        (b'{"shape":[3],"values":[1]}', "as many keys as values"),
        (b'{"keys":[3],"shape":[3],"values":[1]}', "has the key 3, expected 0 to 2"),
        (b'{"keys":[-1],"shape":[3],"values":[1]}', "has the key -1, expected 0 to 2"),
        (b'{"keys":["0"],"shape":[3],"values":[1]}', "has the key '0', expected 0 to 2"),
        (b'{"keys":[1,1],"shape":[3],"values":[1,2]}', "has a key twice"),
        (b'{"keys":[0],"shape":[3],"values":[null]}', "value 1 is None"),
    ],
)
def test_a_malformed_sparse_row_is_refused(features, message):
    body = b'{"instances":[{"data":{"features":%b}}]}' % features

    with pytest.raises(RequestError) as caught:
        parse_request(JSON, body, 3)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content_type", ["", "text/html", "application/octet-stream", ";", "x" * 999]
)
def test_another_content_type_is_a_415_that_lists_the_known_ones(content_type):
    with pytest.raises(RequestError, match="expected one of text/csv, application/json") as caught:
        parse_request(content_type, b"1,2,3", 3)

    assert caught.value.status == 415
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (CSV, b"1\n" * (MAX_ROWS + 1)),
        (JSON, b'{"instances":[%b0]}' % (b"0," * MAX_ROWS)),
        (JSON_LINES, b"{}\n" * (MAX_ROWS + 1)),
        (RECORDIO, RECORD[:4] * (MAX_ROWS + 1)),
    ],
)
def test_a_small_body_cannot_name_endless_rows(content_type, body):
    with pytest.raises(RequestError, match=f"at most {MAX_ROWS} in one request") as caught:
        parse_request(content_type, body, 1)

    assert caught.value.status == 413


def test_sparse_rows_cannot_grow_without_bound():
    sparse = b'{"data":{"features":{"keys":[],"shape":[1000000],"values":[]}}}'

    with pytest.raises(RequestError, match="17 rows, at most 16 in one request"):
        parse_request(JSON_LINES, b"\n".join([sparse] * 17), 1_000_000)


@given(
    content_type=st.sampled_from([CSV, JSON, JSON_LINES, RECORDIO]),
    body=st.binary(max_size=200)
    | st.text(alphabet='0123456789+-.eE,\r\n\t []{}":nulltrfas').map(str.encode),
)
def test_arbitrary_bytes_are_rows_or_a_refusal(content_type, body):
    outcome = parsed_or_refused(content_type, body)

    if isinstance(outcome, RequestError):
        assert outcome.status in (400, 413)
        assert "\n" not in str(outcome)
    else:
        assert outcome.shape[1] == 2
        assert np.isfinite(outcome).all()


def parsed_or_refused(content_type, body):
    try:
        return parse_request(content_type, body, 2)
    except RequestError as refusal:
        return refusal


SCORES = Scores(np.array([0.4, 0.75], np.float32), np.array([0.0, 1.0], np.float32))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        ("Application/JSON; charset=utf-8", JSON),
        (JSON_LINES, JSON_LINES),
        (RECORDIO, RECORDIO),
        ("text/html, application/jsonlines;q=0.9, */*;q=0.1", JSON_LINES),
        ("application/json;q=0.1, application/x-recordio-protobuf", RECORDIO),
        ("application/jsonlines;q=0, */*;q=0.5", JSON),
    ],
)
def test_accept_chooses_the_form_of_the_answer(accept, content_type):
    assert negotiate(accept) == content_type


@pytest.mark.parametrize(
    "accept", ["text/csv", "text/*", "application/json;q=0", "*/*;q=0", "nonsense"]
)
def test_an_accept_that_nothing_matches_is_a_406(accept):
    with pytest.raises(RequestError, match="accept application/json, application/jsonl") as caught:
        format_response(accept, SCORES)

    assert caught.value.status == 406


def test_json_answers_in_linear_learners_words():
    _, body = format_response(JSON, SCORES)

    assert body == (
        b'{"predictions":[{"score":0.4,"predicted_label":0.0},{"score":0.75,"predicted_label":1.0}]}'
    )


def test_json_lines_answer_one_line_per_row():
    _, body = format_response(JSON_LINES, SCORES)

    assert body == (b'{"score":0.4,"predicted_label":0.0}\n{"score":0.75,"predicted_label":1.0}')


def test_recordio_answers_with_two_label_keys():
    _, body = format_response(RECORDIO, SCORES.part(1, 2))

    score = bytes.fromhex("12110a0573636f7265120812060a040000403f")
    label = bytes.fromhex("121b0a0f") + b"predicted_label" + bytes.fromhex("120812060a040000803f")
    payload = score + label
    assert body == bytes.fromhex("0a23d7ce") + len(payload).to_bytes(4, "little") + payload


def test_a_note_goes_under_model_in_json_alone():
    note = {"id": "m", "status": "refused", "mode": "shadow", "reasons": ["recall 0.02"]}

    assert orjson.loads(format_response(JSON, SCORES, {"model": note})[1])["model"] == note
    assert format_response(JSON_LINES, SCORES, {"model": note}) == format_response(
        JSON_LINES, SCORES
    )


@pytest.mark.parametrize("score", [0.4, 1e-7, 1.0, 3e38, 0.80236197])
def test_one_score_is_written_as_it_is_among_several(score):
    one = Scores(np.array([score], np.float32), np.array([1.0], np.float32))
    two = Scores(np.repeat(one.score_N, 2), np.repeat(one.label_N, 2))
    prediction = orjson.loads(format_response(JSON, two)[1])["predictions"][0]

    assert orjson.loads(format_response(JSON, one)[1]) == {"predictions": [prediction]}
    unlabelled = format_response(JSON, Scores(one.score_N, None))[1]
    assert orjson.loads(unlabelled) == {"predictions": [{"score": prediction["score"]}]}
