"""Training and tuning over HTTP against a moto server, as a user meets them on the command line."""

from __future__ import annotations

import json

import pytest

from aws_cases import BUCKET, OWN_IMAGE, REGION, clean_environment, make_dataset, write_archive
from running import one_line
from trademl.aws.clients import open_clients
from trademl.aws.jobs import Handling, train_on_sagemaker, tune_on_sagemaker
from trademl.aws.plan import plan_training
from trademl.aws.settings import AwsConfig
from trademl.aws.upload import LIST, upload_dataset
from trademl.errors import CloudError
from trademl.etl.recordio import read_recordio
from trademl.ledger import tables
from trademl.ports import Silent

STATIC = {"predictor_type": "binary_classifier", "epochs": "3"}


@pytest.fixture
def s3(aws):
    import boto3

    return boto3.client("s3", region_name=REGION)


def config(**changes):
    base = {"region": REGION, "role_arn": "arn:aws:iam::123456789012:role/r", "bucket": BUCKET}
    return AwsConfig(**{**base, "poll_s": 0.05, **changes})


def keys(s3, prefix=""):
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {entry["Key"]: entry["LastModified"] for entry in found}


def sent_keys(s3):
    """Return a list that grows by the key of every object that is put from now on."""
    sent = []
    s3.meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: sent.append(params["Key"])
    )
    return sent


def put_model(s3, job, content):
    s3.put_object(Bucket=BUCKET, Key=f"trademl/jobs/{job}/output/model.tar.gz", Body=content)


# --- the copy in S3 ---


def test_copy_holds_records_schema_and_last_of_all_the_list(s3, dataset):
    sent = sent_keys(s3)
    assert upload_dataset(dataset, config(image=OWN_IMAGE), s3, Silent())
    found = keys(s3, f"trademl/datasets/{dataset.id}/")
    names = {key.rpartition("/")[2] for key in found}
    assert names == {
        "train.recordio", "validation.recordio", "test.recordio", "schema.json", LIST,
    }  # fmt: skip
    assert sorted(sent) == sorted(found)
    assert sent[-1].endswith(LIST)


def test_copy_of_linear_learner_has_training_rows_in_another_order(s3, dataset, tmp_path):
    upload_dataset(dataset, config(), s3, Silent())
    for split in ("train", "validation"):
        key = f"trademl/datasets/{dataset.id}-shuffled/{split}/{split}.recordio"
        s3.download_file(BUCKET, key, str(tmp_path / f"{split}.recordio"))
        sent, labels = read_recordio(tmp_path / f"{split}.recordio")
        here, own_labels = read_recordio(dataset.file(f"{split}.recordio"))
        pairs = {tuple(row): label for row, label in zip(here, own_labels, strict=True)}
        assert {tuple(row): label for row, label in zip(sent, labels, strict=True)} == pairs
        assert (sent == here).all() == (split == "validation")


def test_second_upload_sends_nothing(s3, dataset):
    upload_dataset(dataset, config(), s3, Silent())
    before = keys(s3)
    assert not upload_dataset(dataset, config(), s3, Silent())
    assert keys(s3) == before


def test_upload_goes_on_with_what_is_missing(s3, dataset):
    upload_dataset(dataset, config(), s3, Silent())
    folder = f"trademl/datasets/{dataset.id}-shuffled"
    missing = [f"{folder}/validation/validation.recordio", f"{folder}/{LIST}"]
    for key in missing:  # as a kill leaves it: the list is never there
        s3.delete_object(Bucket=BUCKET, Key=key)
    sent = sent_keys(s3)
    assert upload_dataset(dataset, config(), s3, Silent())
    assert sent == missing


def test_an_object_that_was_overwritten_is_sent_again(s3, dataset):
    upload_dataset(dataset, config(), s3, Silent())
    key = f"trademl/datasets/{dataset.id}-shuffled/train/train.recordio"
    right = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"rubbish")
    assert upload_dataset(dataset, config(), s3, Silent())
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == right


def test_manifests_of_parts_get_their_full_prefix(s3, store):
    sharded = make_dataset(store, parts=2)
    upload_dataset(sharded, config(image=OWN_IMAGE), s3, Silent())
    key = f"trademl/datasets/{sharded.id}/train.with-schema.manifest"
    head, *parts = json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert head == {"prefix": f"s3://{BUCKET}/trademl/datasets/{sharded.id}/train/"}
    assert parts == ["part-00000.recordio", "part-00001.recordio", "schema.json"]
    for part in parts:
        s3.head_object(Bucket=BUCKET, Key=head["prefix"].removeprefix(f"s3://{BUCKET}/") + part)


def test_bucket_of_another_region_is_refused(s3, dataset):
    import boto3

    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="elsewhere")
    with pytest.raises(CloudError, match="elsewhere is in us-east-1, aws.region is eu-west-2"):
        upload_dataset(dataset, config(bucket="elsewhere"), s3, Silent())


# --- jobs ---


def test_own_image_trained_and_selected_like_a_local_study(run, strategy, s3, dataset):
    with strategy.open("a") as file:
        file.write(f'image = "{OWN_IMAGE}"\n')
    own = config(image=OWN_IMAGE, role_arn="arn:aws:iam::123456789012:role/trademl-sagemaker")
    plan = plan_training(dataset, STATIC, own, seed=3, strategy="es")
    put_model(s3, plan.name, write_archive(strategy.parent / "model.tar.gz"))

    done = run("train", "--on", "sagemaker", "--json")

    assert done.returncode == 0, done.stderr
    study = json.loads(done.stdout)
    assert study["id"] == plan.study_id
    assert study["trials"][0]["failure"] is None
    selected = run("models", "select", study["id"], "--json")
    assert selected.returncode == 0, selected.stderr
    # The archive's model flags a positive first column, which is the label itself.
    figures = json.loads(selected.stdout)["judgements"][0]["figures"]
    assert figures["precision"] == figures["recall"] == 1.0


def test_same_command_twice_starts_one_job(s3, dataset, store, ledger, tmp_path):
    import boto3

    own = config(image=OWN_IMAGE)
    plan = plan_training(dataset, STATIC, own, seed=3)
    put_model(s3, plan.name, write_archive(tmp_path / "m.tar.gz"))
    first = train_on_sagemaker(dataset, STATIC, store, ledger, own, seed=3)
    again = train_on_sagemaker(dataset, STATIC, store, ledger, own, seed=3)
    jobs = boto3.client("sagemaker", region_name=REGION).list_training_jobs()
    assert [job["TrainingJobName"] for job in jobs["TrainingJobSummaries"]] == [plan.name]
    assert again.study.id == first.study.id == plan.study_id


def test_job_started_without_waiting_is_taken_up_again(s3, dataset, store, ledger, tmp_path):
    own = config(image=OWN_IMAGE)
    plan = plan_training(dataset, STATIC, own, seed=3)
    clients = open_clients(REGION)
    upload_dataset(dataset, own, clients.s3, Silent())
    clients.sagemaker.create_training_job(**plan.request)  # another machine, an hour ago
    put_model(s3, plan.name, write_archive(tmp_path / "m.tar.gz"))
    launched = train_on_sagemaker(dataset, STATIC, store, ledger, own, seed=3)
    assert launched.study.metrics["sagemaker"]["name"] == plan.name


def test_another_job_of_the_same_name_is_refused(aws, dataset, store, ledger):
    plan = plan_training(dataset, STATIC, config(image=OWN_IMAGE), seed=3)
    other = {**plan.request, "HyperParameters": {"predictor_type": "regressor"}}
    open_clients(REGION).sagemaker.create_training_job(**other)
    with pytest.raises(CloudError, match="exists in eu-west-2 and has another set of hyperparam"):
        train_on_sagemaker(dataset, STATIC, store, ledger, config(image=OWN_IMAGE), seed=3)


def test_linear_learner_model_is_kept_as_it_is(s3, dataset, store, ledger):
    plan = plan_training(dataset, STATIC, config(), seed=3)
    put_model(s3, plan.name, b"model_algo-1 of MXNet")
    launched = train_on_sagemaker(dataset, STATIC, store, ledger, config(), seed=3)
    (trial,) = launched.study.metrics["trials"]
    assert launched.study.file("trial-00.sagemaker.tar.gz").read_bytes() == b"model_algo-1 of MXNet"
    assert "is kept as trial-00.sagemaker.tar.gz" in trial["failure"]
    (row,) = ledger.rows(tables.CloudJob)
    assert (row.name, row.kind, row.status) == (plan.name, "training", "Completed")


def test_wait_ends_at_once_when_the_job_is_over(aws, dataset, store, ledger):
    slept = []
    handling = Handling(sleep=slept.append)
    train_on_sagemaker(dataset, STATIC, store, ledger, config(), seed=3, handling=handling)
    assert slept == []


def test_tuning_request_arrives_as_it_was_built(aws, dataset, store, ledger, strategy):
    job = json.loads((strategy.parent / "tuning.json").read_text())
    handling = Handling(wait=False)
    with pytest.raises(CloudError, match="listing the training jobs"):  # moto cannot: see 500
        tune_on_sagemaker(dataset, job, store, ledger, config(), seed=3, handling=handling)
    (row,) = ledger.rows(tables.CloudJob)
    described = open_clients(REGION).sagemaker.describe_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=row.name
    )
    limits = described["HyperParameterTuningJobConfig"]["ResourceLimits"]
    assert limits == {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 1}
    static = described["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static == {"predictor_type": "binary_classifier", "epochs": "3"}


# --- the command line when things are not as they should be ---


def test_dry_run_needs_no_credentials_and_sends_nothing(run, strategy):
    done = run("tune", "--on", "sagemaker", "--dry-run",
               env=clean_environment(AWS_ENDPOINT_URL="http://127.0.0.1:9"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["HyperParameterTuningJobConfig"]["Strategy"] == "Bayesian"
    assert "worst case unknown: 3 x 1 ml.m5.large" in done.stderr
    assert "nothing was sent" in done.stderr


def test_without_credentials(run, strategy):
    done = run("train", "--on", "sagemaker", env=clean_environment())
    assert done.returncode == 1
    assert "no AWS credentials were found: log in again" in one_line(done)


def test_bucket_that_is_not_there(run, strategy, aws):
    text = strategy.read_text().replace(BUCKET, "nobody-has-this")
    strategy.write_text(text)
    done = run("train", "--on", "sagemaker")
    assert done.returncode == 1
    assert "bucket nobody-has-this does not exist: make it with aws s3 mb" in one_line(done)


def test_region_that_cannot_be_reached(run, strategy, aws):
    env = clean_environment(
        AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_ENDPOINT_URL="http://127.0.0.1:9"
    )
    done = run("train", "--on", "sagemaker", env=env)
    assert done.returncode == 1
    assert "check aws.region and the network" in one_line(done)


def test_budget_is_judged_before_anything_is_uploaded(run, strategy, s3):
    text = strategy.read_text().replace(REGION, "us-east-1")
    strategy.write_text(text)
    done = run("tune", "--on", "sagemaker", "--max-cost", "0.2")
    assert done.returncode == 1
    assert "worst case 0.34 USD" in one_line(done)  # 3 jobs x 1 h x 0.115 USD = 0.345
    assert keys(s3) == {}


def test_budget_without_a_price_is_refused(run, strategy, aws):
    done = run("train", "--on", "sagemaker", "--max-cost", "5")
    assert done.returncode == 1
    assert "price of ml.m5.large in eu-west-2 is not known" in one_line(done)


@pytest.mark.parametrize("flag", ["--dry-run", "--no-wait", "--retry"])
def test_flags_of_sagemaker_are_refused_elsewhere(run, strategy, flag):
    done = run("train", flag)
    assert done.returncode == 2
    assert f"{flag} needs --on sagemaker" in done.stderr


def test_a_strategy_without_a_section_says_what_to_set(run, strategy):
    strategy.write_text('tuning = "tuning.json"\n')
    done = run("train", "--on", "sagemaker")
    assert done.returncode == 1
    assert "[aws] lacks region, role_arn, bucket: set it in the strategy file" in one_line(done)


# --- models in S3 ---


def test_a_model_is_loaded_from_s3_by_its_address(s3, tmp_path):
    import trademl

    put_model(s3, "job", write_archive(tmp_path / "m.tar.gz"))
    model = trademl.load_model(f"s3://{BUCKET}/trademl/jobs/job/output/model.tar.gz")
    assert model.columns == ("a", "b", "c")


def test_a_model_that_is_not_in_s3_is_named(s3):
    import trademl

    with pytest.raises(CloudError, match=f"s3://{BUCKET}/nothing does not exist"):
        trademl.load_model(f"s3://{BUCKET}/nothing")


def test_an_address_without_a_key_is_refused(aws):
    import trademl

    with pytest.raises(CloudError, match="is no object in S3, expected s3://bucket/key"):
        trademl.load_model("s3://bucket")
