"""Requests to SageMaker: as the API reference has them, and accepted by botocore's own model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aws_cases import BUCKET, OWN_IMAGE, REGION, ROLE, STATIC, make_dataset, seed_tuning
from trademl.aws.images import linear_learner_image
from trademl.aws.plan import JobPlan, plan_training, plan_tuning
from trademl.aws.settings import AwsConfig
from trademl.errors import ConfigError
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.metric_regexes import regexes_of

GOLDEN = Path(__file__).parents[2] / "golden" / "sagemaker"
BASE = {"region": REGION, "role_arn": ROLE, "bucket": BUCKET}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def dataset(store: ArtifactStore) -> Artifact:
    return make_dataset(store)


def config(**changes: Any) -> AwsConfig:
    return AwsConfig(**{**BASE, **changes})


def golden(name: str, plan: JobPlan) -> dict[str, Any]:
    text = (GOLDEN / name).read_text().replace("JOB", plan.name).replace("STUDY", plan.study_id)
    return json.loads(text)


def check_with_botocore(operation: str, request: dict[str, Any]) -> None:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    model = get_session().get_service_model("sagemaker").operation_model(operation)
    report = ParamValidator().validate(request, model.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_linear_learner_training_is_the_documented_request(dataset):
    hyperparameters = {**STATIC, "epochs": 7, "use_bias": True}
    plan = plan_training(dataset, hyperparameters, config(), seed=3, strategy="es")
    assert plan.request == golden("linear_learner_training.json", plan)
    check_with_botocore("CreateTrainingJob", plan.request)


def test_the_original_tuning_json_becomes_the_documented_request(dataset):
    plan = plan_tuning(dataset, seed_tuning(), config(input_mode="Pipe"), seed=3, strategy="es")
    assert plan.request == golden("linear_learner_tuning.json", plan)
    check_with_botocore("CreateHyperParameterTuningJob", plan.request)


def test_own_image_on_spot_in_a_vpc_with_sharded_data(store):
    where = config(
        prefix="quant", image=OWN_IMAGE, instance_type="ml.m5.xlarge", instance_count=2,
        volume_gb=50, max_runtime_s=1800, max_wait_s=5400, spot=True, input_mode="FastFile",
        subnets=("subnet-1", "subnet-2"), security_groups=("sg-1",), network_isolation=True,
        encrypt_between_hosts=True, tags={"team": "desk"},
        output_kms_key="arn:aws:kms:eu-west-2:123456789012:key/out",
        volume_kms_key="arn:aws:kms:eu-west-2:123456789012:key/volume",
    )  # fmt: skip
    plan = plan_training(make_dataset(store, parts=3), STATIC, where, seed=3)
    expected = golden("own_image_training.json", plan)
    expected["AlgorithmSpecification"]["MetricDefinitions"] = [
        {"Name": name, "Regex": regex} for name, regex in regexes_of("binary_classifier").items()
    ]
    assert plan.request == expected
    check_with_botocore("CreateTrainingJob", plan.request)


def test_nested_request_gives_the_same_job_as_the_flat_one(dataset):
    flat = seed_tuning()
    static = flat.pop("StaticHyperParameters")
    nested = {
        "HyperParameterTuningJobConfig": flat,
        "TrainingJobDefinition": {"StaticHyperParameters": static},
    }
    plans = [plan_tuning(dataset, r, config(), seed=3).request for r in (seed_tuning(), nested)]
    assert plans[0]["HyperParameterTuningJobConfig"] == plans[1]["HyperParameterTuningJobConfig"]
    assert plans[0]["TrainingJobDefinition"] == plans[1]["TrainingJobDefinition"]


def test_what_only_sagemaker_can_do_is_passed_on(dataset):
    warm = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "parent"}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    more = {
        "WarmStartConfig": warm,
        "TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 0.9},
    }
    plan = plan_tuning(dataset, seed_tuning(**more), config(), seed=3)
    check_with_botocore("CreateHyperParameterTuningJob", plan.request)
    assert plan.request["WarmStartConfig"] == warm
    job = plan.request["HyperParameterTuningJobConfig"]
    assert job["TuningJobCompletionCriteria"] == {"TargetObjectiveMetricValue": 0.9}
    assert "WarmStartConfig" not in job


def test_own_image_is_tuned_by_its_own_entry_point_and_metrics(dataset):
    plan = plan_tuning(dataset, seed_tuning(), config(image=OWN_IMAGE), seed=3)
    check_with_botocore("CreateHyperParameterTuningJob", plan.request)
    algorithm = plan.request["TrainingJobDefinition"]["AlgorithmSpecification"]
    assert set(algorithm) == {"TrainingImage", "TrainingInputMode", "MetricDefinitions"}
    assert "validation:precision" in {d["Name"] for d in algorithm["MetricDefinitions"]}


def test_own_image_gets_the_names_of_features_beside_its_training_rows(dataset):
    def uris(input_mode):
        plan = plan_training(
            dataset, STATIC, config(image=OWN_IMAGE, input_mode=input_mode), seed=3
        )
        return [
            channel["DataSource"]["S3DataSource"]["S3Uri"].partition("a00000000000/")[2]
            for channel in plan.request["InputDataConfig"]
        ]

    assert uris("File") == uris("FastFile") == ["train/", "validation/validation.recordio"]
    assert uris("Pipe") == ["train/train.recordio", "validation/validation.recordio"]


@pytest.mark.parametrize("kind", ["binary_classifier", "multiclass_classifier", "regressor"])
def test_metrics_of_an_own_image_stay_within_sagemakers_limits(dataset, kind):
    more = {"num_classes": "3"} if kind == "multiclass_classifier" else {}
    where = config(image=OWN_IMAGE)
    plan = plan_training(dataset, {"predictor_type": kind, **more}, where, seed=3)
    check_with_botocore("CreateTrainingJob", plan.request)
    metrics = plan.request["AlgorithmSpecification"]["MetricDefinitions"]
    assert len(metrics) <= 40
    assert all(len(m["Name"]) <= 255 and len(m["Regex"]) <= 500 for m in metrics)


def test_test_rows_leave_only_for_an_objective_on_them(dataset):
    def channels(metric):
        objective = {"MetricName": metric, "Type": "Maximize"}
        job = seed_tuning(HyperParameterTuningJobObjective=objective)
        plan = plan_tuning(dataset, job, config(), seed=3)
        sent = plan.request["TrainingJobDefinition"]["InputDataConfig"]
        return [channel["ChannelName"] for channel in sent], plan.warnings

    assert channels("validation:precision") == (["train", "validation"], ())
    names, warnings = channels("test:precision")
    assert names == ["train", "validation", "test"]
    assert any("test" in warning for warning in warnings)


def test_names_fit_and_depend_on_what_decides_the_result(dataset):
    def name(seed=3, **changes):
        return plan_tuning(dataset, seed_tuning(), config(**changes), seed=seed).name

    assert re.fullmatch(r"trademl-[0-9a-f]{12}", name())
    assert name() == name(instance_type="ml.c5.xlarge", max_runtime_s=60, spot=True)
    assert len({name(), name(seed=4), name(image=OWN_IMAGE), name(instance_count=2)}) == 4


def test_children_of_a_tuning_job_share_no_checkpoints(dataset):
    plan = plan_tuning(dataset, seed_tuning(), config(spot=True), seed=3)
    definition = plan.request["TrainingJobDefinition"]
    assert definition["EnableManagedSpotTraining"]
    assert definition["StoppingCondition"]["MaxWaitTimeInSeconds"] == 7200
    assert "CheckpointConfig" not in definition


def test_a_second_attempt_has_a_name_and_checkpoints_of_its_own(dataset):
    plan = plan_training(dataset, STATIC, config(spot=True), seed=3)
    second = plan.attempt(2)
    assert second.name == f"{plan.name}-r2"
    assert second.request["CheckpointConfig"]["S3Uri"].endswith(f"/{plan.name}-r2")
    assert second.study_id == plan.study_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HyperParameterTuningJobName": "a" * 33}, "33 characters.*expected 1 to 32"),
        ({"HyperParameterTuningJobName": "a_b"}, "expected 1 to 32 letters, digits and hyphens"),
        ({"Strategy": "Bayes"}, "Strategy.*Bayes"),
        ({"Strategy": "Grid"}, "Grid takes CategoricalParameterRanges only"),
        ({"ResourceLimits": {"MaxParallelTrainingJobs": 1}}, "MaxNumberOfTrainingJobs is None"),
        (
            {"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto"},
            "set it to Off",
        ),
        (
            {"StaticHyperParameters": {**STATIC, "wd": "0.1"}},
            "wd is both in StaticHyperParameters and in ParameterRanges",
        ),
        (
            {"StaticHyperParameters": {**STATIC, "feature_dim": "605"}},
            "feature_dim is 605, dataset-a00000000000 has 3 columns",
        ),
    ],
)
def test_a_tuning_job_that_cannot_run_is_refused_before_anything_is_sent(dataset, changes, message):
    nested = {"HyperParameterTuningJobName"} & set(changes)
    job = seed_tuning(**({} if nested else changes))
    if nested:
        static = job.pop("StaticHyperParameters")
        job = {
            "HyperParameterTuningJobConfig": job,
            "TrainingJobDefinition": {"StaticHyperParameters": static},
            **changes,
        }
    with pytest.raises(ConfigError, match=message):
        plan_tuning(dataset, job, config(), seed=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region": "", "bucket": ""}, r"\[aws\] lacks region, bucket: .*TRADEML_AWS__REGION"),
        (
            {"region": "eu-west-9"},
            "no Linear Learner image is known for region 'eu-west-9'.*eu-west",
        ),
        ({"input_mode": "FastFile"}, "Linear Learner takes File and Pipe"),
        ({"bucket": "s3://x"}, "bucket is 's3://x', expected the name of a bucket"),
        ({"role_arn": "admin"}, "role_arn is 'admin', expected arn:aws:iam"),
        ({"instance_type": "m5.large"}, "instance_type is 'm5.large', expected a type such as"),
        ({"max_wait_s": 10}, "for spot jobs only"),
        ({"spot": True, "max_wait_s": 10}, "max_wait_s is 10, expected from max_runtime_s"),
        ({"subnets": ("subnet-1",)}, "go together"),
        ({"max_runtime_s": 0}, "max_runtime_s is 0"),
        ({"max_cost_usd": 0.0}, "max_cost_usd is 0"),
    ],
)
def test_settings_that_no_job_can_run_with_are_refused(dataset, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan_training(dataset, STATIC, config(**changes), seed=3)


def test_images_outside_the_common_partition():
    assert linear_learner_image("cn-north-1") == (
        "390948362332.dkr.ecr.cn-north-1.amazonaws.com.cn/linear-learner:1"
    )
    assert linear_learner_image("us-east-1").startswith("382416733822.dkr.ecr.us-east-1.amaz")


def test_parquet_is_refused_for_linear_learner(tmp_path):
    store = ArtifactStore(tmp_path)
    with store.create("dataset-c00000000000", parents=[], parameters={}) as draft:
        for split in ("train", "validation", "test"):
            (draft.path / f"{split}.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="holds Parquet.*--format recordio"):
        plan_training(store.get("dataset-c00000000000"), STATIC, config(), seed=3)
