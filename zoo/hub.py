"""The Hugging Face Hub: a repository to a local directory, and a directory to a repository.

`huggingface_hub` carries the bytes, so progress bars, resumed downloads, its cache and HF_ENDPOINT, HF_HUB_OFFLINE,
HF_HOME and HF_TOKEN work as they do everywhere. It knows the names of files, and nothing that is in them.
"""

import os
from pathlib import Path

PREFIX = "hf://"
CONFIGS = ("config.json", "bert_config.json", "albert_config.json", "operative_config.gin")
_TEXT = [
    *CONFIGS, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "encoder.json", "*.spm", "spiece.model",
    "spm.model", "sentencepiece*.model", "chat_template.jinja", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "[0-9]_*/config.json", "task.json", "preprocessor.json",
    "assets/tokenizer/*",
]  # fmt: skip
SAFE = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors", "[0-9]_*/model.safetensors"]
PICKLED = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin", "[0-9]_*/pytorch_model.bin"]
KERAS = ["model.weights.h5", "model.weights.json", "model_*.weights.h5", "task.weights.h5"]
TENSORFLOW = ["tf_model.h5", "tf_model.h5.index.json", "tf_model-*.h5"]
TRAINING = ["checkpoint", "*.index", "*.data-?????-of-?????"]


def fetch(address, revision=None, weights=True):
    """The local copy of a repository's files that we read; weights in the first format of which it has any.

    Args:
        address: "hf://owner/repo", or "hf://owner/repo@revision".
        revision: branch, tag or commit.
        weights: False to leave out the weights, which are most of the bytes.

    Raises:
        ValueError: no such repository or revision, no way to it and nothing in the cache; the message says what was
            tried, and the client's reason.
    """
    repository, _, tag = address.removeprefix(PREFIX).partition("@")
    revision = revision or tag or "main"
    if not weights:
        return _snapshot(repository, revision, _TEXT)
    directory = _snapshot(repository, revision, _TEXT + SAFE)
    if not any((directory / name).is_file() for name in CONFIGS):
        raise ValueError(f"{address!r} has no config.json, so it is no model that can be read.")
    for kind in (SAFE, KERAS, PICKLED, TENSORFLOW, TRAINING):
        if kind is not SAFE:
            _snapshot(repository, directory.name, kind)  # of the same commit
        if any(found.parent == directory for pattern in kind for found in directory.glob(pattern)):
            break
    return directory


def contained(directory):
    """The directory, if none of its files that we read is a link to elsewhere; the links of the Hub's cache stay in it.

    Raises:
        ValueError: a link that leaves the directory.
    """
    root = Path(os.path.realpath(directory))
    home = root.parents[2] if len(root.parents) > 2 and root.parent.name == "snapshots" else root
    for pattern in _TEXT + SAFE + KERAS + PICKLED + TENSORFLOW + TRAINING:
        for path in directory.glob(pattern):
            if not Path(target := os.path.realpath(path)).is_relative_to(home):
                raise ValueError(f"{path} is a link to {target}, outside its directory: copy the file there.")
    return directory


def _snapshot(repository, revision, patterns):
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # those of the client, its HTTP library and the file system
        endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
        offline = " with HF_HUB_OFFLINE set" if constants.HF_HUB_OFFLINE else ""
        raise ValueError(
            f"No preset '{PREFIX}{repository}': tried revision {revision} of {repository} at {endpoint}{offline}, and "
            f"the cache in {constants.HF_HUB_CACHE}: {type(error).__name__}: {' '.join(str(error).split())[:400]}"
        ) from None


def push(directory, repository, private=None, revision=None, message="Upload a preset"):
    """Uploads a directory to a repository, which is made if it is not there.

    Args:
        directory: a local directory; the weights, configs and texts in it are uploaded.
        repository: "owner/repo".
        private: whether a new repository is private; None leaves that to the owner's settings.
        revision: branch, which must exist; None for the main one.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: no right to write there, or no way to the Hub; the message holds the client's reason.
    """
    from huggingface_hub import HfApi, constants

    api, repository = HfApi(), repository.removeprefix(PREFIX)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repository, folder_path=directory, revision=revision,
                                 commit_message=message).commit_url  # fmt: skip
    except Exception as error:  # those of the client, its HTTP library and the file system
        endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
        raise ValueError(
            f"{repository} at {endpoint} did not take the preset: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:400]}"
        ) from None
