"""The channels of a job: which objects in S3 it reads, and how they reach its container.

A dataset's copy has a folder for each split. An image of ours takes the names of the features from
``schema.json`` beside the training rows; see `trademl.train.channels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademl.aws.settings import AwsConfig
from trademl.errors import ConfigError
from trademl.etl.dataset import record_files
from trademl.etl.tables import TableFormat, format_of
from trademl.store.artifacts import Artifact

CONTENT_TYPES: dict[TableFormat, str] = {
    "recordio": "application/x-recordio-protobuf",
    "csv": "text/csv",
}
SHUFFLE_SEED = 0


@dataclass(frozen=True)
class Channel:
    """One channel: a prefix of keys, or with ``is_manifest`` a list of them, and what they hold."""

    name: str
    uri: str
    content_type: str
    is_manifest: bool = False

    def as_request(self, config: AwsConfig) -> dict[str, Any]:
        """Return the channel as ``InputDataConfig`` takes it.

        Training rows in parts are dealt out among several machines; everything else goes to each.
        """
        is_dealt = self.name == "train" and self.is_manifest and config.instance_count > 1
        return {
            "ChannelName": self.name,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "ManifestFile" if self.is_manifest else "S3Prefix",
                    "S3Uri": self.uri,
                    "S3DataDistributionType": "ShardedByS3Key" if is_dealt else "FullyReplicated",
                }
            },
            "ContentType": self.content_type,
            "CompressionType": "None",
            "RecordWrapperType": "None",
            "InputMode": config.input_mode,
        }


def dataset_folder(dataset: Artifact, config: AwsConfig) -> str:
    """Return the URI below which a dataset's copy lies.

    Linear Learner wants its training rows in random order: its copy is another one than that of
    an image of ours, which draws the order by itself.
    """
    copy = f"{dataset.id}-shuffled" if config.is_linear_learner else dataset.id
    return config.uri("datasets", copy)


def dataset_channels(
    dataset: Artifact, config: AwsConfig, *, with_test: bool
) -> tuple[Channel, ...]:
    """Return the channels train and validation, and test only where it is asked for.

    Raises
    ------
    ConfigError
        If the container cannot read the dataset's format.
    """
    folder = dataset_folder(dataset, config)
    splits = ("train", "validation", *(["test"] if with_test else []))
    return tuple(_channel(dataset, split, folder, config) for split in splits)


def object_name(dataset: Artifact, split: str, path: Path) -> str:
    """Return where a file of records lies in the copy: in a folder of its split."""
    name = path.relative_to(dataset.path).as_posix()
    return name if "/" in name else f"{split}/{name}"


def takes_schema(split: str, config: AwsConfig) -> bool:
    """Return whether a channel also brings ``schema.json``, from which an image of ours has names.

    A pipe would run it together with the rows, and AWS's Linear Learner would read it as rows.
    """
    return split == "train" and not config.is_linear_learner and config.input_mode != "Pipe"


def manifest_name(split: str, config: AwsConfig) -> str:
    """Return the name of the list of a split's parts, with or without the schema among them."""
    return f"{split}.with-schema.manifest" if takes_schema(split, config) else f"{split}.manifest"


def _channel(dataset: Artifact, split: str, folder: str, config: AwsConfig) -> Channel:
    paths = record_files(dataset, split)
    table_format = format_of(paths[0])
    if table_format == "parquet":
        raise ConfigError(
            f"{dataset.id} holds Parquet, training containers read RecordIO and CSV: build it with "
            "trademl features build --format recordio"
        )
    is_manifest = f"{split}.manifest" in dataset.manifest["files"]
    name = object_name(dataset, split, paths[0])
    if is_manifest:
        name = manifest_name(split, config)
    elif takes_schema(split, config):
        name = f"{split}/"
    return Channel(split, f"{folder}/{name}", CONTENT_TYPES[table_format], is_manifest)
